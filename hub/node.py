"""The node: this process, its sessions and its channels, between the transports and the broker."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

from auth.tokens import TokenVerifier
from channels.broker import Broker, BrokerError
from channels.eager import in_task, run_eagerly
from channels.errors import ChannelError
from channels.history import NO_GUARD, Guard, History
from channels.names import ChannelRules, ResolvedChannel
from channels.presence import Presence
from hub import codes
from hub.app import App, DisconnectEvent
from hub.codes import Disconnect
from hub.fanout import Fanout
from hub.metrics import Metrics
from hub.repair import check_positions, repair
from hub.session import Session
from hub.settings import Settings
from hub.subscription import Subscription
from hub.version import VERSION
from hub.wheel import Wheel
from storage.contract import Appended, ClientInfo, Publication, PublicationStore, Retention
from storage.errors import StoreError

logger = logging.getLogger("hub.node")

PRESENCE_SLICE = 500
"""Presence entries refreshed before the event loop has its turn."""


class Node:
    """One hub process. Everything it works with is handed in; see ``hub.compose``."""

    def __init__(
        self,
        settings: Settings,
        *,
        loop: asyncio.AbstractEventLoop,
        broker: Broker,
        store: PublicationStore,
        presence: Presence,
        rules: ChannelRules,
        connection_tokens: TokenVerifier,
        subscription_tokens: TokenVerifier,
        app: App,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.loop = loop
        self.broker = broker
        self.store = store
        self.presence = presence
        self.rules = rules
        self.connection_tokens = connection_tokens
        self.subscription_tokens = subscription_tokens
        self.app = app
        self.metrics = metrics
        self.clock = clock
        self.id = str(uuid.uuid4())
        self.name = settings.node.name or f"{socket.gethostname()}_{settings.http_server.port}"
        self.version = VERSION
        self.started_at = loop.time()
        self.wheel = Wheel(loop)
        self.history = History(
            broker,
            store,
            run=self.run,
            clock=loop.time,
            page_bytes=settings.client.queue_max_size // 2,
        )
        self.sessions: dict[str, Session] = {}
        """Connected sessions by client id."""
        self.users: dict[str, set[Session]] = {}
        """Connected sessions by user id; anonymous ones under ""."""
        self.pending: set[Session] = set()
        """Sessions that have not connected yet."""
        self.fanouts: dict[str, Fanout] = {}
        self.draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._periodic: list[asyncio.Task[None]] = []

    # Life

    async def start(self) -> None:
        """Open store and broker and begin the periodic work."""
        await self.store.open()
        await self.broker.open(self)
        client = self.settings.client
        self.every(client.presence_update_interval, self._refresh_presence)
        self.every(client.channel_position_check_delay, self._check_positions)
        self.every(self.settings.storage.prune_interval, self._prune)

    async def stop(self, timeout: float) -> None:
        """Close whatever is still connected, finish what was accepted within ``timeout`` seconds, release everything."""
        for session in (*self.sessions.values(), *self.pending):
            session.close(codes.SHUTDOWN)
        for task in self._periodic:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        for task in self._tasks:
            task.cancel()
        await self.broker.close()
        await self.store.close()
        await self.connection_tokens.aclose()
        if self.subscription_tokens is not self.connection_tokens:
            await self.subscription_tokens.aclose()
        self.wheel.close()

    def run(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Run a coroutine whose end nobody has to wait for; returns its task unless it ended at once."""
        task = run_eagerly(_logged(coroutine), self.loop)
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return task

    def every(self, pause: timedelta, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do ``work`` again and again, ``pause`` after it ended the last time, until ``stop``."""

        async def go() -> None:
            while True:
                await asyncio.sleep(pause.total_seconds())
                await _logged(work())

        self._periodic.append(self.loop.create_task(go()))

    async def _refresh_presence(self) -> None:
        entries: list[tuple[str, ClientInfo]] = []
        for session in tuple(self.sessions.values()):
            entries += [(each.channel.name, each.info) for each in session.subscriptions.values() if each.presence]
            if len(entries) >= PRESENCE_SLICE:
                await self.presence.refresh(entries)
                entries = []
                await asyncio.sleep(0)
        if entries:
            await self.presence.refresh(entries)

    async def _check_positions(self) -> None:
        await check_positions(self, tuple(self.fanouts.values()))

    async def _prune(self) -> None:
        rules = {
            name: Retention(size=options.retention.size, age=options.retention.age.total_seconds())
            for name, options in self.rules.namespaces.items()
            if options.durable
        }
        if rules:
            await self.store.prune(rules)

    # Seen from outside

    def not_ready(self) -> list[str]:
        """Why this node should not be sent new connections; empty when it should."""
        reasons = ["draining"] if self.draining else []
        if self.store.trouble:
            reasons.append(f"the store {self.store.trouble}")
        return reasons

    def gauges(self) -> Iterator[tuple[str, str, float]]:
        """(name, help, value) of what is counted only when somebody asks."""
        yield "connections", "Connected sessions.", len(self.sessions)
        yield "pending_connections", "Connections that have not sent a connect command yet.", len(self.pending)
        yield "users", "Different users connected.", len(self.users)
        yield "channels", "Channels with subscribers on this node.", len(self.fanouts)
        yield "subscriptions", "Subscriptions on this node.", sum(each.count for each in self.fanouts.values())
        yield (
            "slow_connections",
            "Sessions whose peer reads too slowly.",
            sum(each.paused for each in self.sessions.values()),
        )
        yield from self.broker.gauges()
        yield "uptime_seconds", "Seconds since this node started.", self.loop.time() - self.started_at

    def counters(self) -> Iterator[tuple[str, str, float]]:
        """(name, help, value) of what its parts have counted since the start."""
        yield "history_reads", "History reads.", self.history.reads
        yield "history_shared_reads", "Recoveries served from another's history read.", self.history.shared_reads

    # Sessions

    def session_opened(self, session: Session) -> None:
        self.pending.add(session)

    def session_connected(self, session: Session) -> None:
        """A session has been let in."""
        self.pending.discard(session)
        self.sessions[session.client] = session
        self.users.setdefault(session.user, set()).add(session)
        self.metrics.connects += 1

    def session_ended(self, session: Session, disconnect: Disconnect) -> None:
        """A session is over; its subscriptions have ended already."""
        self.metrics.disconnects[disconnect if disconnect in codes.DISCONNECTS else (disconnect.code, "custom")] += 1
        self.pending.discard(session)
        if self.sessions.pop(session.client, None) is None:
            return
        same_user = self.users[session.user]
        same_user.discard(session)
        if not same_user:
            del self.users[session.user]
        if self.app.disconnect_handler is not None:
            self.run(self._tell_disconnected(session, disconnect))

    async def _tell_disconnected(self, session: Session, disconnect: Disconnect) -> None:
        assert self.app.disconnect_handler is not None
        await in_task()
        try:
            await self.app.disconnect_handler(DisconnectEvent(session.context(), disconnect.code, disconnect.reason))
        except Exception:
            self.metrics.failures["disconnect"] += 1
            raise

    def of_user(self, user: str, *, client: str = "", session: str = "") -> list[Session]:
        """The sessions of a user on this node, or the one with that client id."""
        wanted = client or session
        return [each for each in self.users.get(user, ()) if not wanted or each.client == wanted]

    # Channels

    async def open_channel(self, channel: ResolvedChannel) -> Fanout:
        """The channel's fan-out, ready to be added to, and held until ``release_channel``."""
        fanout = self.fanouts.get(channel.name)
        if fanout is None:
            fanout = Fanout(
                channel,
                loop=self.loop,
                metrics=self.metrics,
                sessions=self.sessions,
                repair=self._repair,
                backlog_max=self.settings.node.fanout_backlog,
                max_lag=self.settings.client.channel_position_max_time_lag.total_seconds(),
                clock=self.clock,
            )
            self.fanouts[channel.name] = fanout
            fanout.holds += 1
            try:
                fanout.opening = run_eagerly(self._open(fanout), self.loop)
            except BaseException:
                self.release_channel(fanout)
                raise
        else:
            fanout.holds += 1
        if fanout.opening is not None:
            try:
                await asyncio.shield(fanout.opening)
            except BaseException:
                self.release_channel(fanout)
                raise
            fanout.opening = None
        return fanout

    async def _open(self, fanout: Fanout) -> None:
        await self.broker.subscribe(fanout.name)
        if fanout.ordering is not None:
            fanout.opened(await self.history.position(fanout.channel))

    def release_channel(self, fanout: Fanout) -> None:
        """Undo one ``open_channel``."""
        fanout.holds -= 1
        self._close_if_empty(fanout)

    def _close_if_empty(self, fanout: Fanout) -> None:
        if not fanout.count and not fanout.holds and self.fanouts.get(fanout.name) is fanout:
            del self.fanouts[fanout.name]
            self.run(self.broker.unsubscribe(fanout.name))

    def subscription_ended(self, subscription: Subscription) -> asyncio.Task[None] | None:
        """Take a subscription out of its channel; returns what is still to be awaited before it is gone for all."""
        if subscription.expiry is not None:
            subscription.expiry.cancel()
        subscription.fanout.remove(subscription)
        task = self.run(self._leave(subscription)) if subscription.presence or subscription.join_leave else None
        self._close_if_empty(subscription.fanout)
        return task

    async def _leave(self, subscription: Subscription) -> None:
        if subscription.presence:
            await self.presence.remove(subscription.channel.name, subscription.info)
        if subscription.join_leave:
            await self.broker.publish_leave(subscription.channel.name, subscription.info)

    def _repair(self, fanout: Fanout) -> None:
        self.run(repair(self, fanout))

    # Publications

    async def publish(
        self, channel: ResolvedChannel, publication: Publication, guard: Guard = NO_GUARD, *, way: str
    ) -> Appended:
        """Publish by one of the ways in; returns when it is acknowledged. Raises ``Unavailable``."""
        started = self.loop.time()
        appended = await self.history.publish(channel, publication, guard)
        if appended.fresh:
            self.metrics.publications_in[way] += 1
        fanout = self.fanouts.get(channel.name)
        if fanout is not None and fanout.crowded:
            await fanout.drained()
        self.metrics.publish_seconds.observe(self.loop.time() - started)
        return appended

    # What the broker tells

    def on_publications(self, channel: str, publications: Sequence[Publication], epoch: str) -> None:
        fanout = self.fanouts.get(channel)
        if fanout is not None:
            fanout.arrived(publications, epoch)

    def on_join(self, channel: str, info: ClientInfo) -> None:
        fanout = self.fanouts.get(channel)
        if fanout is not None:
            fanout.tell_joined(info)

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        fanout = self.fanouts.get(channel)
        if fanout is not None:
            fanout.tell_left(info)

    def on_control(self, message: bytes) -> None:
        """Control messages come from other nodes; alone there are none."""

    def on_doubt(self, channels: Sequence[str] | None) -> None:
        named: Iterable[Fanout] = self.fanouts.values()
        if channels is not None:
            named = [self.fanouts[each] for each in channels if each in self.fanouts]
        self.run(check_positions(self, tuple(named)))


async def _logged(coroutine: Coroutine[Any, Any, None]) -> None:
    """See that a failure in the background is seen."""
    try:
        await coroutine
    except (ChannelError, BrokerError, StoreError) as error:
        logger.warning("%s: %s", type(error).__name__, error)
    except Exception:
        logger.exception("background work failed")
