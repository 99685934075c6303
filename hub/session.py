"""A session: one client connection with its protocol state.

It does no I/O of its own: a transport hands it whole messages and is told what to write and when to close. Commands are
handled strictly in order, each at once if nothing has to be waited for (``channels.eager``); while one waits, or while the peer
does not read, nothing more is read from the peer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from auth.ratelimit import ConnectionLimiter
from channels.eager import run_eagerly
from channels.errors import ChannelError
from hub import codes, protocol
from hub.app import ClientContext
from hub.codes import CloseSession, Disconnect, Error, ReplyError, Unsubscribe
from hub.commands import COMMANDS
from hub.errors import error_of
from hub.subscription import NO_CHANNELS, Stage
from hub.wire import Wire
from storage.contract import ClientInfo

if TYPE_CHECKING:
    from hub.node import Node
    from hub.subscription import Subscription
    from hub.wheel import Timer

logger = logging.getLogger("hub.session")

HIGH_WATER = 64 * 1024
"""Bytes waiting to be written from which on a peer counts as slow, with every transport."""
CLOSE_TIMEOUT = 5.0
"""Seconds that a transport gives its peer to take a close frame and answer it."""

Handler = Callable[["Session", int, Any], Awaitable[None]]


class SessionTransport(Protocol):
    """What carries a session. ``write`` takes what ``wire`` packed; it may call ``write_paused``, and nothing else."""

    @property
    def name(self) -> str: ...

    @property
    def wire(self) -> Wire: ...

    @property
    def native_pings(self) -> bool:
        """Ping with the transport's own means instead of the protocol's."""

    def write(self, packed: bytes, /) -> None: ...

    def ping(self) -> None:
        """Send a ping of the transport's own; its answer comes as ``Session.native_pong``."""

    def close(self, disconnect: Disconnect, *, abort: bool = False) -> None:
        """Say why and close; with ``abort`` drop the connection and what still waits to be written."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def buffered(self) -> int:
        """Bytes that wait to be written."""


class Session:
    """The protocol state of one connection. ``header_user`` is the user that a trusted proxy named, if any."""

    __slots__ = (
        "_awaiting_pong",
        "_buffered_at_ping",
        "_large",
        "_limiter",
        "_lines",
        "_task",
        "_timer",
        "app_version",
        "client",
        "closed",
        "connected_at",
        "expire_at",
        "expiry",
        "granted",
        "header_user",
        "info",
        "meta",
        "name",
        "node",
        "paused",
        "paused_bytes",
        "resumed",
        "revoked",
        "stage",
        "subscribing",
        "subscriptions",
        "token_refresh",
        "transport",
        "user",
    )

    def __init__(self, node: Node, transport: SessionTransport, *, header_user: str | None = None) -> None:
        self.node = node
        self.transport = transport
        self.header_user = header_user
        self.client = str(uuid.uuid4())
        self.user = ""
        self.info = b""
        """Raw JSON that others see of this connection."""
        self.meta = b""
        self.name = ""
        self.app_version = ""
        self.stage = Stage.NEW
        self.connected_at = 0.0
        """Wall clock, seconds since the Unix epoch; 0 until connected."""
        self.expire_at = 0
        self.expiry: Timer | None = None
        self.granted: frozenset[str] = NO_CHANNELS
        """Channels that the connection began with; a refreshed token must name the same."""
        self.token_refresh = False
        """The client refreshes this connection with new tokens."""
        self.subscriptions: dict[str, Subscription] = {}
        self.subscribing: frozenset[str] = NO_CHANNELS
        """Channels that are being subscribed to right now."""
        self.revoked: frozenset[str] = NO_CHANNELS
        """Those of them that the server has ended already."""
        self.closed = False
        self.paused = False
        """The peer does not read as fast as is written: its subscriptions are loose."""
        self.paused_bytes = 0
        """Bytes written since the pause began."""
        self.resumed: asyncio.Future[None] | None = None
        self._large = 0
        """Size of the last write before the pause: one reply may be larger than the bound for what waits."""
        self._limiter = ConnectionLimiter(node.settings.rate_limit)
        self._lines: deque[bytes] | None = None
        self._task: asyncio.Task[None] | None = None
        self._awaiting_pong = False
        self._buffered_at_ping = 0
        stale = node.settings.client.stale_close_delay.total_seconds()
        self._timer: Timer | None = node.wheel.call_later(stale, self._stale)
        node.session_opened(self)

    # From the transport

    def receive(self, message: bytes) -> None:
        """Take one whole message, which is UTF-8: one command or several, joined by line feeds."""
        if self.closed:
            return
        node = self.node
        node.metrics.bytes_in += len(message)
        now = node.loop.time()
        if not self._limiter.allow_bytes(len(message), now):
            node.metrics.rate_limited["bytes"] += 1
            if self._limiter.violated(now):
                self.close(codes.TOO_MANY_REQUESTS_DISCONNECT)
                return
            message = self._refuse_all(message)
            if not message:
                return
        lines = message.split(b"\n")
        if not lines[-1] and len(lines) > 1:
            lines.pop()
        if len(lines) > node.settings.websocket.max_commands_per_frame:
            self.close(codes.BAD_REQUEST_DISCONNECT)
            return
        if self._lines is not None:
            self._lines.extend(lines)
        else:
            self._handle(deque(lines))

    def write_paused(self) -> None:
        """The peer reads too slowly: look at each publication for it, and take no more commands."""
        if self.closed or self.paused:
            return
        self.paused = True
        self.paused_bytes = 0
        self.transport.pause_reading()
        for subscription in self.subscriptions.values():
            subscription.fanout.loosen(subscription)

    def write_resumed(self) -> None:
        """The peer has caught up with what was written."""
        if self.closed or not self.paused:
            return
        self.paused = False
        self._large = 0
        for subscription in tuple(self.subscriptions.values()):
            if subscription.latest is not None:
                latest, subscription.latest = subscription.latest, None
                self.send(latest)
                self.node.metrics.deliveries += 1
            subscription.fanout.settle(subscription)
        if self.resumed is not None:
            self.resumed.set_result(None)
            self.resumed = None
        if self._task is None:
            self._go_on()

    def lost(self) -> None:
        """The connection is gone, without a word or after ``close``."""
        if not self.closed:
            self._end(codes.CONNECTION_CLOSED)

    async def writable(self) -> None:
        """Wait until the peer has read most of what was written, or the session is over."""
        while self.paused and not self.closed:
            if self.resumed is None:
                self.resumed = self.node.loop.create_future()
            await asyncio.shield(self.resumed)

    # To the transport

    def send(self, message: bytes) -> None:
        """Send one message."""
        self.write(self.transport.wire.pack(message))

    def write(self, packed: bytes) -> None:
        """Write what was packed by the transport's wire, within the bound for peers that do not read."""
        if self.closed:
            return
        if self.paused:
            limit = self.node.settings.client.queue_max_size
            if self.transport.buffered() + len(packed) > limit + self._large:
                self.close(codes.SLOW)
                return
            self.paused_bytes += len(packed)
        else:
            self._large = len(packed)
        self.node.metrics.bytes_out += len(packed)
        self.transport.write(packed)

    def reply_error(self, command_id: int, kind: str, error: Error) -> None:
        """Answer a command with an error."""
        self.node.metrics.errors[kind, error.code] += 1
        if command_id:
            self.send(protocol.error_reply(command_id, error))

    def close(self, disconnect: Disconnect) -> None:
        """End the session and its connection."""
        if self.closed:
            return
        abort = disconnect is codes.SLOW or disconnect is codes.WRITE_ERROR
        self._end(disconnect)
        self.transport.close(disconnect, abort=abort)

    # Commands

    def _handle(self, lines: deque[bytes]) -> None:
        """Handle lines in order until they end or one has to wait."""
        self._lines = lines
        while lines and not self.closed:
            if self.paused:
                return
            try:
                command = protocol.decode_command(lines.popleft())
            except protocol.BadMessage as error:
                logger.debug("a message of client %s is malformed: %s", self.client, error)
                self.close(codes.BAD_REQUEST_DISCONNECT)
                return
            self._begin(command)
            if self._task is not None:
                self.transport.pause_reading()
                self._task.add_done_callback(self._task_done)
                return
        self._lines = None

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not self.closed and not self.paused:
            self._go_on()

    def _go_on(self) -> None:
        if self._lines is not None:
            self._handle(self._lines)
        if self._lines is None and not self.closed and not self.paused:
            self.transport.resume_reading()

    def _begin(self, command: protocol.Command) -> None:
        asked = None
        for each in COMMANDS:
            if getattr(command, each[0]) is not None:
                asked = each
                break
        if not command.id and (asked is None or asked[0] != "send"):
            self._pong()
            return
        if asked is None:
            self.close(codes.BAD_REQUEST_DISCONNECT)
            return
        kind, limit, handler = asked
        node = self.node
        node.metrics.commands[kind] += 1
        if self.stage is not (Stage.NEW if kind == "connect" else Stage.CONNECTED):
            self.close(codes.BAD_REQUEST_DISCONNECT)
            return
        now = node.loop.time()
        if not self._limiter.allow(limit, now):
            self._too_many(command.id, kind, now)
            return
        self._task = run_eagerly(self._run(kind, handler, command.id, getattr(command, kind)), node.loop)

    async def _run(self, kind: str, handler: Handler, command_id: int, request: Any) -> None:
        try:
            await handler(self, command_id, request)
        except ReplyError as refused:
            self.reply_error(command_id, kind, refused.error)
        except CloseSession as ended:
            self.close(ended.disconnect)
        except ChannelError as refused:
            self.reply_error(command_id, kind, error_of(refused))
        except asyncio.CancelledError:
            if self.closed:
                raise
            # A handler's own doing: something that it waited for was cancelled.
            self.node.metrics.failures[kind] += 1
            self.reply_error(command_id, kind, codes.INTERNAL)
        except Exception:
            self.node.metrics.failures[kind] += 1
            logger.exception("the command %s of client %s failed", kind, self.client)
            self.reply_error(command_id, kind, codes.INTERNAL)

    def _too_many(self, command_id: int, kind: str, now: float) -> None:
        self.node.metrics.rate_limited[kind] += 1
        self.reply_error(command_id, kind, codes.TOO_MANY_REQUESTS)
        if self._limiter.violated(now):
            self.close(codes.TOO_MANY_REQUESTS_DISCONNECT)

    def _refuse_all(self, message: bytes) -> bytes:
        """Answer every command of a frame with error 111; pongs are let through."""
        pongs = 0
        for line in message.split(b"\n"):
            try:
                command = protocol.decode_command(line)
            except protocol.BadMessage:
                continue
            if command.id:
                self.reply_error(command.id, "bytes", codes.TOO_MANY_REQUESTS)
            elif command.send is None:
                pongs += 1
        return b"\n".join([protocol.PING] * pongs)

    # Pings and deadlines

    def begin_pings(self) -> None:
        """Connected, so no longer stale. The first ping comes at a random moment, to spread those of many."""
        interval = self.node.settings.client.ping_interval.total_seconds()
        self._set_timer(random.uniform(interval / 2, interval), self._ping if interval else None)

    def _set_timer(self, delay: float, callback: Callable[[], None] | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.node.wheel.call_later(delay, callback) if callback is not None else None

    def _stale(self) -> None:
        self.close(codes.STALE)

    def _ping(self) -> None:
        settings = self.node.settings.client
        if self.transport.native_pings:
            self.transport.ping()
        else:
            self.send(protocol.PING)
        if self.closed:
            return
        if settings.pong_timeout:
            self._awaiting_pong = True
            self._buffered_at_ping = self.transport.buffered()
            self._set_timer(settings.pong_timeout.total_seconds(), self._pong_due)
        else:
            self._set_timer(settings.ping_interval.total_seconds(), self._ping)

    def _pong_due(self) -> None:
        settings = self.node.settings.client
        timeout = settings.pong_timeout.total_seconds()
        if not self._awaiting_pong:
            self._set_timer(max(settings.ping_interval.total_seconds() - timeout, 0.0), self._ping)
        elif self.paused and self.transport.buffered() < self._buffered_at_ping:
            # Its pong cannot be seen, but it reads: that is a sign of life too.
            self._buffered_at_ping = self.transport.buffered()
            self._set_timer(timeout, self._pong_due)
        elif self._task is not None and not self.paused:
            # Nothing is read from it while its last command is at work here.
            self._set_timer(timeout, self._pong_due)
        else:
            self.close(codes.NO_PONG)

    def native_pong(self) -> None:
        """The peer has answered a ping of the transport's own, or sent a pong unasked, which it may."""
        if self.transport.native_pings:
            self._awaiting_pong = False

    def _pong(self) -> None:
        if not self._awaiting_pong:
            self.close(codes.BAD_REQUEST_DISCONNECT)
        self._awaiting_pong = False

    # Subscriptions

    def context(self) -> ClientContext:
        """What an application's handlers are told of this session."""
        return ClientContext(self.client, self.user, self.info, self.meta)

    def client_info(self, chan_info: bytes = b"") -> ClientInfo:
        """What others see of this session on a channel."""
        return ClientInfo(self.user, self.client, self.info, chan_info)

    def unsubscribe(self, subscription: Subscription, why: Unsubscribe | None = None) -> None:
        """End a subscription; with ``why`` the client is told."""
        if self.subscriptions.get(subscription.channel.name) is not subscription:
            return
        del self.subscriptions[subscription.channel.name]
        self.node.subscription_ended(subscription)
        if why is not None:
            self.node.metrics.unsubscribes[why] += 1
            self.send(protocol.unsubscribe_push(subscription.channel.name, why))

    @property
    def is_conflating(self) -> bool:
        """Whether some of its channels may leave publications out when it reads too slowly."""
        return any(each.channel.options.conflate for each in self.subscriptions.values())

    def insufficient_state(self, subscription: Subscription) -> None:
        """Publications of a positioned subscription are lost: have the client begin anew."""
        if subscription.server_side:
            self.close(codes.INSUFFICIENT_STATE)
        else:
            self.unsubscribe(subscription, codes.UNSUBSCRIBE_INSUFFICIENT_STATE)

    def _end(self, disconnect: Disconnect) -> None:
        self.closed = True
        self._set_timer(0, None)
        if self.expiry is not None:
            self.expiry.cancel()
        if self._task is not None and self._task is not _current_task():
            self._task.cancel()
        self._lines = None
        if self.resumed is not None:
            self.resumed.set_result(None)
            self.resumed = None
        subscriptions, self.subscriptions = self.subscriptions, {}
        for subscription in subscriptions.values():
            self.node.subscription_ended(subscription)
        self.node.session_ended(self, disconnect)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
