"""The broker of a single process: publications go straight to the node, recent history is a deque per channel.

``publish`` never suspends: between its call and its result nothing else runs, and the node has been told. Streams end
lazily, when they are next used, and by ``expire``, which the node calls every second or so to give memory back.

Streams begin with a publication. Before that, and after they have ended, reading derives the epoch from the name of the
channel and keeps nothing, since strangers choose what is read.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import islice
from math import inf
from typing import NoReturn

from channels.broker import BrokerError, BrokerEvents, RecentOptions
from storage.contract import Appended, ClientInfo, Page, Position, Publication, ReadQuery
from storage.epochs import SECRET_SIZE, EpochNames
from storage.pages import up_to

logger = logging.getLogger("hub.broker")

WARN_EVERY = 60.0
"""Seconds between two warnings of the same bound."""

UNPOSITIONED = Appended(Position(0, ""), True)


OVERHEAD = 300
"""Bytes that a publication takes besides its payload, about."""


class _Stream:
    """The recent history of one channel; ``items`` is dense and its last has the offset ``top``, above 0."""

    __slots__ = ("channel", "due", "ends", "epoch", "items", "meta_ends", "top", "version", "version_epoch")

    def __init__(self, channel: str, epoch: str) -> None:
        self.channel = channel
        self.epoch = epoch
        self.top = 0
        self.items: deque[Publication] = deque()
        self.ends = inf
        """When the publications are forgotten."""
        self.meta_ends = inf
        """When offset and epoch are forgotten too."""
        self.due = inf
        """When ``expire`` looks at it next."""
        self.version = 0
        self.version_epoch = ""


def _cost(publication: Publication) -> int:
    return len(publication.data) + OVERHEAD


def _random_secret() -> bytes:
    return secrets.token_bytes(SECRET_SIZE)


class MemoryBroker:
    """A ``Broker`` within the process.

    ``clock`` gives monotonic seconds, ``wall`` seconds since the Unix epoch, ``secret`` 16 to 64 random bytes that epochs
    are derived from. At most ``max_streams`` channels have recent history and at most ``max_keys`` idempotency keys are
    remembered at a time; beyond, publications that need a new one are refused with ``BrokerError`` and a warning in the
    log. While the broker is not open everything is refused. A ``history_meta_ttl`` of 0 keeps offset and epoch as long as
    the process lives. Versions are compared only where there is history.

    A channel whose stream has ended is remembered, so that its next one has another epoch. Once there are more than
    ``max_streams`` of these, they are forgotten and another secret takes over: a channel without a stream then has
    another epoch than readers were told, which makes them recover once, and no epoch ever comes again.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        secret: Callable[[], bytes] = _random_secret,
        max_streams: int = 250_000,
        max_keys: int = 1_000_000,
        max_bytes: int = 1024**3,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._new_secret = secret
        self._names = EpochNames(secret())
        self._generations: dict[str, int] = {}
        """How many streams of a channel have ended, where any did."""
        self._max_streams = max_streams
        self._max_keys = max_keys
        self._max_bytes = max_bytes
        self._bytes = 0
        self._events: BrokerEvents | None = None
        self._subscribed: set[str] = set()
        self._streams: dict[str, _Stream] = {}
        self._timers: list[tuple[float, str]] = []
        self._keys: dict[tuple[str, str], tuple[float, Position]] = {}
        self._key_timers: list[tuple[float, tuple[str, str]]] = []
        self._warned: dict[str, float] = {}

    @property
    def num_streams(self) -> int:
        """How many streams are kept, for metrics."""
        return len(self._streams)

    @property
    def num_keys(self) -> int:
        """How many idempotency keys are remembered, for metrics."""
        return len(self._keys)

    @property
    def num_bytes(self) -> int:
        """How much recent history is kept: payloads, and ``OVERHEAD`` for each publication."""
        return self._bytes

    def gauges(self) -> Iterator[tuple[str, str, float]]:
        yield "streams", "Channels with recent history.", len(self._streams)
        yield "recent_bytes", "Bytes of recent history.", self._bytes
        yield "idempotency_keys", "Idempotency keys remembered outside the store.", len(self._keys)

    async def open(self, events: BrokerEvents) -> None:
        self._events = events

    async def close(self) -> None:
        """Forget the node; what was published is gone with the process."""
        self._events = None
        self._subscribed.clear()

    async def subscribe(self, channel: str) -> None:
        self._subscribed.add(channel)

    async def unsubscribe(self, channel: str) -> None:
        self._subscribed.discard(channel)

    async def publish(self, channel: str, publication: Publication, options: RecentOptions) -> Appended:
        events = self._opened()
        key = None
        if options.idempotency_key:
            key = (channel, options.idempotency_key)
            known = self._keys.get(key)
            if known is not None and self._clock() < known[0]:
                return Appended(known[1], False)
            self._room_for_key(key)
        if options.history_size <= 0 or options.history_ttl <= 0:
            if publication.time == 0:
                publication = _placed(publication, publication.offset, int(self._wall() * 1000))
            if key is not None:
                self._remember(key, options.idempotency_window, UNPOSITIONED.position)
            if channel in self._subscribed:
                events.on_publications(channel, (publication,), "")
            return UNPOSITIONED
        now = self._clock()
        stream = self._kept(channel, now)
        self._room_for_bytes(publication, stream, options.history_size, now)
        if stream is None:
            stream = self._made(channel, now)
        if options.version > 0:
            if options.version <= stream.version and options.version_epoch in ("", stream.version_epoch):
                return Appended(Position(stream.top, stream.epoch), False)
            stream.version = options.version
            stream.version_epoch = options.version_epoch
        stream.top += 1
        publication = _placed(publication, stream.top, publication.time or int(self._wall() * 1000))
        items = stream.items
        items.append(_to_keep(publication) if publication.exclude_client else publication)
        self._bytes += _cost(publication)
        while len(items) > options.history_size:
            self._bytes -= _cost(items.popleft())
        stream.ends = now + options.history_ttl
        self._used(stream, now, options.history_meta_ttl)
        position = Position(stream.top, stream.epoch)
        if key is not None:
            self._remember(key, options.idempotency_window, position)
        if channel in self._subscribed:
            events.on_publications(channel, (publication,), stream.epoch)
        return Appended(position, True)

    async def carry(self, channel: str, publications: Sequence[Publication], epoch: str) -> None:
        events = self._opened()
        if channel in self._subscribed:
            events.on_publications(channel, publications, epoch)

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        events = self._opened()
        if channel in self._subscribed:
            events.on_join(channel, info)

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        events = self._opened()
        if channel in self._subscribed:
            events.on_leave(channel, info)

    async def publish_control(self, message: bytes) -> None:
        """There are no other nodes."""

    async def read(self, channel: str, query: ReadQuery, meta_ttl: float) -> Page:
        self._opened()
        now = self._clock()
        stream = self._kept(channel, now)
        if stream is None:
            return Page([], Position(0, self._epoch(channel)))
        self._used(stream, now, meta_ttl)
        position = Position(stream.top, stream.epoch)
        return Page(_select(stream, query) if query.limit else [], position)

    async def remove(self, channel: str) -> None:
        self._opened()
        if (stream := self._streams.get(channel)) is not None:
            self._clear(stream)

    async def redact(self, channel: str, offset: int, data: bytes | None) -> bool:
        """As the contract says. A removed publication stays removed: replacing it is refused with false."""
        self._opened()
        stream = self._streams.get(channel)
        if stream is None or self._clock() >= min(stream.ends, stream.meta_ends):
            return False
        index = offset - (stream.top - len(stream.items) + 1)
        if not 0 <= index < len(stream.items):
            return False
        old = stream.items[index]
        if data is None:
            stream.items[index] = Publication(b"", old.offset, old.time, removed=True)
        elif old.removed:
            return False
        else:
            stream.items[index] = Publication(data, old.offset, old.time, old.info, old.tags, old.delta)
        self._bytes += _cost(stream.items[index]) - _cost(old)
        return True

    def expire(self, now: float | None = None, *, limit: int = 10_000) -> int:
        """Free what has ended by ``now`` (default: the clock); looks at no more than ``limit`` streams, and as many keys.

        Returns how many it looked at, so that from ``limit`` on there may be more.
        """
        if now is None:
            now = self._clock()
        return self._expire_streams(now, limit) + self._expire_keys(now, limit)

    def _expire_streams(self, now: float, limit: int) -> int:
        seen = 0
        while seen < limit and self._timers and self._timers[0][0] <= now:
            seen += 1
            due, channel = heappop(self._timers)
            stream = self._streams.get(channel)
            if stream is None or stream.due != due:
                continue
            stream.due = inf
            if not self._end(stream, now):
                self._schedule(stream)
        return seen

    def _expire_keys(self, now: float, limit: int) -> int:
        seen = 0
        while seen < limit and self._key_timers and self._key_timers[0][0] <= now:
            seen += 1
            key = heappop(self._key_timers)[1]
            known = self._keys.get(key)
            if known is not None and known[0] <= now:
                del self._keys[key]
        return seen

    def _opened(self) -> BrokerEvents:
        if self._events is None:
            raise BrokerError("the memory broker is not open")
        return self._events

    def _kept(self, channel: str, now: float) -> _Stream | None:
        """The channel's stream as it stands ``now``."""
        stream = self._streams.get(channel)
        if stream is None or ((now >= stream.ends or now >= stream.meta_ends) and self._end(stream, now)):
            return None
        return stream

    def _made(self, channel: str, now: float) -> _Stream:
        """A new stream for a channel that has none, about to get its first publication."""
        stream = _Stream(channel, self._epoch(channel))  # before others end: that may change what readers were told
        if len(self._streams) >= self._max_streams:
            self.expire(now)
            if len(self._streams) >= self._max_streams:
                self._refuse(
                    f"the memory broker keeps recent history for at most {self._max_streams} channels at a time",
                    "engine.memory.max_streams",
                )
        self._streams[channel] = stream
        return stream

    def _epoch(self, channel: str) -> str:
        """The epoch of the next stream of a channel."""
        return self._names.of(channel, self._generations.get(channel, 0))

    def _end(self, stream: _Stream, now: float) -> bool:
        """Forget of a stream what has ended; true if nothing of it is left."""
        if now >= stream.meta_ends:
            channel = stream.channel
            self._clear(stream)
            del self._streams[channel]
            if len(self._generations) >= self._max_streams and channel not in self._generations:
                self._generations.clear()
                self._names = EpochNames(self._new_secret())
            self._generations[channel] = self._generations.get(channel, 0) + 1
            return True
        if now >= stream.ends:
            self._clear(stream)
            stream.ends = inf
        return False

    def _clear(self, stream: _Stream) -> None:
        self._bytes -= sum(map(_cost, stream.items))
        stream.items.clear()

    def _used(self, stream: _Stream, now: float, meta_ttl: float) -> None:
        stream.meta_ends = now + meta_ttl if meta_ttl > 0 else inf
        # A timer that rings too early costs little; it is set anew only where it would ring too late.
        if stream.ends < stream.due or stream.meta_ends < stream.due:
            self._schedule(stream)

    def _schedule(self, stream: _Stream) -> None:
        due = min(stream.ends, stream.meta_ends)
        if due < stream.due:
            stream.due = due
            heappush(self._timers, (due, stream.channel))

    def _room_for_bytes(self, publication: Publication, stream: _Stream | None, size: int, now: float) -> None:
        """Make sure that ``publication`` can be kept before anything is published."""
        makes_room = stream is not None and len(stream.items) >= size
        needed = _cost(publication) - (_cost(stream.items[0]) if makes_room and stream is not None else 0)
        if self._bytes + needed > self._max_bytes and needed > 0:
            self._expire_streams(now, 10_000)
            if self._bytes + needed > self._max_bytes:
                self._refuse(
                    f"the memory broker keeps at most {self._max_bytes} bytes of recent history",
                    "engine.memory.max_bytes",
                )

    def _room_for_key(self, key: tuple[str, str]) -> None:
        """Make sure that ``key`` can be remembered before anything is published."""
        if len(self._keys) >= self._max_keys and key not in self._keys:
            self._expire_keys(self._clock(), 10_000)
            if len(self._keys) >= self._max_keys:
                self._refuse(
                    f"the memory broker remembers at most {self._max_keys} idempotency keys at a time",
                    "engine.memory.max_idempotency_keys",
                )

    def _refuse(self, sentence: str, setting: str) -> NoReturn:
        now = self._clock()
        if now >= self._warned.get(setting, -inf) + WARN_EVERY:
            self._warned[setting] = now
            logger.warning("%s: publications that need one more are refused; the setting is %s", sentence, setting)
        raise BrokerError(sentence)

    def _remember(self, key: tuple[str, str], window: float, position: Position) -> None:
        ends = self._clock() + window
        self._keys[key] = (ends, position)
        heappush(self._key_timers, (ends, key))


def _placed(publication: Publication, offset: int, time_ms: int) -> Publication:
    # Several times faster than msgspec.structs.replace.
    return Publication(
        publication.data,
        offset,
        time_ms,
        publication.info,
        publication.tags,
        publication.delta,
        publication.exclude_client,
        publication.removed,
    )


def _to_keep(publication: Publication) -> Publication:
    """What history keeps of a publication: ``exclude_client`` is only for its delivery."""
    return Publication(
        publication.data,
        publication.offset,
        publication.time,
        publication.info,
        publication.tags,
        publication.delta,
        "",
        publication.removed,
    )


def _select(stream: _Stream, query: ReadQuery) -> list[Publication]:
    items = stream.items
    before_first = stream.top - len(items)
    chosen: Iterable[Publication]
    if query.reverse:
        newer = 0 if query.since < 0 else max(0, stream.top - query.since + 1)
        chosen = islice(reversed(items), newer, None)
    else:
        chosen = islice(items, max(0, query.since - before_first), None)
    if query.since_time or query.until_time:
        # Not bisected: a publisher may give the time, and a wall clock may go back.
        until = query.until_time or inf
        chosen = (item for item in chosen if query.since_time <= item.time < until)
    return up_to(chosen if query.limit < 0 else islice(chosen, query.limit), query.max_bytes)
