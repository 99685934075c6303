"""A real node within the test's own process: real broker, real store, and sessions whose transport is a list.

Time stands still for the node's timers until ``InProcessHub.passes`` is called, so that pings and expiries take no time at
all. Nothing here waits for a while: ``Peer.until`` waits for what is written, ``InProcessHub.settled`` for the node to have
nothing left to do.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from auth.secret import Secret
from auth.settings import TokenSettings
from auth.tokens import TokenVerifier
from channels.broker import Broker
from channels.broker_memory import MemoryBroker
from channels.names import ChannelRules
from channels.namespaces import ChannelSettings, Namespace
from channels.presence import Presence
from channels.presence_memory import MemoryPresence
from hub.app import App
from hub.codes import Disconnect
from hub.metrics import Metrics
from hub.node import Node
from hub.session import Session
from hub.settings import ClientSettings, Settings
from hub.wire import MESSAGES, Wire
from storage.contract import Position, Publication, PublicationStore
from storage.sqlite import SQLiteStore
from tests.support.hub_config import TOKEN_SECRET

PATIENCE = 10.0
"""Seconds after which what is waited for is taken as never coming."""
HIGH_WATER = 64 * 1024
"""Unread bytes from which on a transport says that its peer is slow, as the real one does."""
TICK = 0.1
"""Seconds in one step of ``ManualLoop.advance``: the wheel's resolution."""


def namespace(name: str, **options: Any) -> Namespace:
    """A namespace that everybody may use, with further options."""
    everybody = {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}
    everybody |= {"allow_publish_for_client": True, "allow_publish_for_anonymous": True}
    return Namespace(name=name, **(everybody | options))


RECENT: dict[str, Any] = {
    "history_size": 1000,
    "history_ttl": timedelta(hours=1),
    "force_recovery": True,
    "allow_history_for_client": True,
    "allow_history_for_anonymous": True,
}
DURABLE: dict[str, Any] = {
    "durable": True,
    "force_recovery": True,
    "allow_history_for_client": True,
    "allow_history_for_anonymous": True,
}
PRESENCE: dict[str, Any] = {
    "presence": True,
    "join_leave": True,
    "force_push_join_leave": True,
    "allow_presence_for_client": True,
    "allow_presence_for_anonymous": True,
}
NAMESPACES = (
    namespace("plain"),
    namespace("recent", **RECENT),
    namespace("short", **(RECENT | {"history_size": 5})),
    namespace("durable", **DURABLE),
    namespace("delta", **(RECENT | {"allowed_delta_types": ("fossil",), "delta_publish": True})),
    namespace("plaindelta", allowed_delta_types=("fossil",), delta_publish=True),
    namespace("durabledelta", **(DURABLE | {"allowed_delta_types": ("fossil",), "delta_publish": True})),
    namespace("tags", **(RECENT | {"allow_tags_filter": True})),
    namespace("durabletags", **(DURABLE | {"allow_tags_filter": True})),
    namespace("cache", **(RECENT | {"force_recovery_mode": "cache"})),
    namespace("autocache", **(RECENT | {"force_recovery_mode": "cache", "auto_cache_recover": True})),
    namespace("conflate", conflate=True),
    namespace("loose", **(RECENT | {"force_recovery": False})),
    namespace("here", **PRESENCE),
    namespace("durablehere", **DURABLE, **PRESENCE),
    namespace("binary", publication_data_format="binary"),
    namespace("object", publication_data_format="json_object"),
    Namespace(name="closed"),
    Namespace(name="dialog", allow_user_limited_channels=True),
)


def settings(data_dir: Path, *, channel: ChannelSettings | None = None, **sections: Any) -> Settings:
    """Settings with ``NAMESPACES``, anonymous clients and HS256 tokens; ``client`` is a mapping of what differs there."""
    client = {
        "allow_anonymous_connect_without_token": True,
        "token": TokenSettings(hmac_secret_key=Secret(TOKEN_SECRET)),
        "queue_max_size": 256 * 1024,
        **sections.pop("client", {}),
    }
    return Settings(
        data_dir=data_dir,
        channel=channel or ChannelSettings(namespaces=NAMESPACES),
        client=ClientSettings(**client),
        **sections,
    )


class ManualLoop:
    """The running loop with a clock of its own, which stands still until ``advance``. Only timers live by that clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._now = loop.time()
        self._started = time.time() - self._now
        self._timers: list[tuple[float, int, _ManualHandle]] = []
        self._numbers = itertools.count()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def time(self) -> float:
        return self._now

    def wall(self) -> float:
        """Unix time by the same clock."""
        return self._started + self._now

    def call_later(self, delay: float, callback: Callable[..., None], *args: Any) -> _ManualHandle:
        handle = _ManualHandle(lambda: callback(*args))
        heapq.heappush(self._timers, (self._now + delay, next(self._numbers), handle))
        return handle

    def advance(self, seconds: float) -> None:
        """Let time pass, and call what falls due meanwhile."""
        end = self._now + seconds
        while self._now < end:
            self._now = min(self._now + TICK, end)
            while self._timers and self._timers[0][0] <= self._now:
                handle = heapq.heappop(self._timers)[2]
                if not handle.cancelled:
                    handle.callback()


class _ManualHandle:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class MemoryTransport:
    """A ``SessionTransport`` that keeps what is written. Its peer reads everything at once unless it is ``stalled``."""

    name = "memory"
    native_pings = False

    def __init__(self, wire: Wire = MESSAGES) -> None:
        self.wire = wire
        self.writes: list[bytes] = []
        self.closed: Disconnect | None = None
        self.aborted = False
        self.reading = True
        self.stalled = False
        self.session: Session | None = None
        self.written: Callable[[], None] = lambda: None
        self._unread = 0

    def write(self, packed: bytes) -> None:
        if self.closed is not None:
            raise RuntimeError("the transport is closed")
        self.writes.append(packed)
        if self.stalled:
            self._unread += len(packed)
            if self._unread > HIGH_WATER and self.session is not None:
                self.session.write_paused()
        self.written()

    def close(self, disconnect: Disconnect, *, abort: bool = False) -> None:
        if self.closed is None:
            self.closed = disconnect
            self.aborted = abort
            self.written()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def ping(self) -> None:
        """Never called: there are no native pings."""

    def buffered(self) -> int:
        return self._unread

    def stall(self) -> None:
        """The peer stops reading, and its socket is full already."""
        self.stalled = True
        if self.session is not None:
            self.session.write_paused()

    def read(self, count: int | None = None) -> None:
        """The peer reads ``count`` bytes and no more, or (``None``) everything from now on."""
        self._unread = max(self._unread - count, 0) if count is not None else 0
        self.stalled = count is not None
        if self._unread <= HIGH_WATER // 4 and self.session is not None:
            self.session.write_resumed()

    def drop(self) -> None:
        """The connection is lost."""
        self.closed = self.closed or Disconnect(0, "dropped")
        if self.session is not None:
            self.session.lost()


class Peer:
    """A client without an SDK: sends commands, and looks at what was written to it."""

    def __init__(self, node: Node, *, wire: Wire = MESSAGES, header_user: str | None = None) -> None:
        self.transport = MemoryTransport(wire)
        self.session = Session(node, self.transport, header_user=header_user)
        self.transport.session = self.session
        self._written = asyncio.Event()
        self.transport.written = self._written.set
        self._ids = itertools.count(1)

    @property
    def closed(self) -> Disconnect | None:
        return self.transport.closed

    def messages(self) -> list[dict[str, Any]]:
        """All messages so far, in order."""
        return [json.loads(line) for packed in self.transport.writes for line in packed.split(b"\n")]

    def raw(self) -> bytes:
        return b"\n".join(self.transport.writes)

    def pushes(self, channel: str, kind: str = "pub") -> list[dict[str, Any]]:
        """The pushes of one kind to one channel so far."""
        pushes = [each["push"] for each in self.messages() if "push" in each]
        return [each[kind] for each in pushes if each.get("channel") == channel and kind in each]

    def data(self, channel: str) -> list[Any]:
        """The payloads of the publications pushed to a channel so far."""
        return [each["data"] for each in self.pushes(channel)]

    def offsets(self, channel: str) -> list[int]:
        return [each["offset"] for each in self.pushes(channel)]

    def receive(self, *commands: dict[str, Any]) -> None:
        """Send commands as they are, in one frame."""
        self.session.receive(b"\n".join(json.dumps(each).encode() for each in commands))

    def start(self, **command: Any) -> int:
        """Send one command and return its id."""
        number = next(self._ids)
        self.receive({"id": number, **command})
        return number

    def reply_to(self, number: int) -> dict[str, Any] | None:
        """The reply to a command, once it is there."""
        return next((each for each in self.messages() if each.get("id") == number), None)

    async def call(self, **command: Any) -> dict[str, Any]:
        """Send one command and wait for its reply."""
        return await self.reply(self.start(**command))

    async def reply(self, number: int) -> dict[str, Any]:
        await self.until(lambda: self.reply_to(number) is not None or self.closed is not None)
        found = self.reply_to(number)
        assert found is not None, f"closed with {self.closed} instead of a reply"
        return found

    async def result(self, **command: Any) -> dict[str, Any]:
        """The result of a command that has to succeed."""
        [kind] = command
        reply = await self.call(**command)
        assert kind in reply, reply
        found: dict[str, Any] = reply[kind]
        return found

    async def error(self, **command: Any) -> int:
        """The error code of a command that has to fail."""
        reply = await self.call(**command)
        assert "error" in reply, reply
        return int(reply["error"]["code"])

    async def disconnected(self) -> int:
        """Wait for the hub to close the connection; returns the code."""
        await self.until(lambda: self.closed is not None)
        assert self.closed is not None
        return self.closed.code

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._written.clear()
                await self._written.wait()


class InProcessHub:
    """A node, the parts it was made of, and its peers."""

    def __init__(
        self,
        configured: Settings,
        *,
        app: App | None = None,
        broker: Broker | None = None,
        store: PublicationStore | None = None,
        presence: Presence | None = None,
    ) -> None:
        self.loop = ManualLoop(asyncio.get_running_loop())
        self.metrics = Metrics()
        self.memory = MemoryBroker(clock=self.loop.time)
        self.broker: Broker = broker if broker is not None else self.memory
        self.store: PublicationStore = store if store is not None else SQLiteStore(configured.data_dir / "hub.sqlite3")
        self.presence: Presence = presence if presence is not None else MemoryPresence(clock=self.loop.time)
        tokens = TokenVerifier(configured.client.token, skip_signature=configured.client.insecure)
        self.node = Node(
            configured,
            loop=cast("asyncio.AbstractEventLoop", self.loop),
            broker=self.broker,
            store=self.store,
            presence=self.presence,
            rules=ChannelRules(configured.channel),
            connection_tokens=tokens,
            subscription_tokens=tokens,
            app=app if app is not None else App(),
            metrics=self.metrics,
            clock=self.loop.wall,
        )

    def passes(self, seconds: float) -> None:
        """Let time pass for timers and expiries."""
        self.loop.advance(seconds)

    def peer(self, **options: Any) -> Peer:
        return Peer(self.node, **options)

    async def connected(self, *, token: str = "", **options: Any) -> Peer:
        """A new peer that has connected."""
        peer = self.peer(**options)
        await peer.result(connect={"token": token} if token else {})
        return peer

    async def subscribed(self, channel: str, peer: Peer | None = None, **request: Any) -> Peer:
        """A peer, new if none is given, that is subscribed to a channel."""
        peer = peer if peer is not None else await self.connected()
        await peer.result(subscribe={"channel": channel, **request})
        return peer

    async def publish(self, channel: str, *payloads: Any, **fields: Any) -> list[Position]:
        """Publish as the API does, one after the other; ``bytes`` are taken as they are."""
        return [await self.publish_one(channel, each, **fields) for each in payloads]

    async def publish_one(self, channel: str, payload: Any, **fields: Any) -> Position:
        resolved = self.node.rules.resolve(channel)
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        fields.setdefault("delta", resolved.options.delta_publish)
        return (await self.node.publish(resolved, Publication(data=data, **fields), way="test")).position

    async def settled(self) -> None:
        """Wait until nothing is under way in the node: no command, no repair, no catching up, nothing to be written."""
        async with asyncio.timeout(PATIENCE):
            quiet = 0
            while quiet < 3:
                await asyncio.sleep(0 if quiet else 0.001)
                quiet = 0 if self.busy() else quiet + 1

    async def settled_but_for(self, waiting: Peer) -> None:
        """As ``settled``, while one peer's command waits."""
        task, waiting.session._task = waiting.session._task, None
        try:
            await self.settled()
        finally:
            waiting.session._task = task

    def busy(self) -> bool:
        node = self.node
        if node._tasks or node.history._reading:
            return True
        if any(each._scheduled or each.repairing for each in node.fanouts.values()):
            return True
        return any(each._task is not None for each in (*node.sessions.values(), *node.pending))

    def assert_nothing_left(self) -> None:
        """No session, channel, subscriber or background work is left over."""
        node = self.node
        assert not node.sessions
        assert not node.users
        assert not node.pending
        assert not node.fanouts, {name: (each.count, each.holds) for name, each in node.fanouts.items()}
        assert not node._tasks


@asynccontextmanager
async def running(
    data_dir: Path,
    *,
    app: App | None = None,
    broker: Broker | None = None,
    store: PublicationStore | None = None,
    presence: Presence | None = None,
    **sections: Any,
) -> AsyncIterator[InProcessHub]:
    """A node that has started; see ``settings`` for ``sections``."""
    hub = InProcessHub(settings(data_dir, **sections), app=app, broker=broker, store=store, presence=presence)
    await hub.node.start()
    try:
        yield hub
    finally:
        await hub.node.stop(1.0)
