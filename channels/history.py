"""History of channels, whatever keeps it: publishing into it, reading it, recovering from it.

A namespace keeps no history, recent history (in the broker) or durable history (in the store, see ``ChannelOptions``).
Here is the one place that knows which; above it a channel just has a stream.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from msgspec import Struct

from channels.broker import Broker, BrokerError, RecentOptions
from channels.eager import in_task
from channels.errors import NotAvailable, Unavailable, Unrecoverable
from channels.names import ResolvedChannel
from storage.contract import (
    Appended,
    AppendRequest,
    Committed,
    Page,
    Position,
    Publication,
    PublicationStore,
    ReadQuery,
)
from storage.errors import StoreError

NOWHERE = Position(0, "")

Runner = Callable[[Coroutine[Any, Any, None]], object]


class Guard(Struct, frozen=True):
    """What keeps a publish from happening twice or out of order."""

    idempotency_key: str = ""
    idempotency_window: float = 300.0
    version: int = 0
    version_epoch: str = ""
    skip_history: bool = False


NO_GUARD = Guard()
NO_HISTORY = RecentOptions()


def recent_options(channel: ResolvedChannel, guard: Guard) -> RecentOptions:
    """How the broker is to publish into a channel whose history, if it has any, is recent."""
    options = channel.options
    recent = options.is_recent and not guard.skip_history
    return RecentOptions(
        history_size=options.history_size if recent else 0,
        history_ttl=options.history_ttl.total_seconds() if recent else 0.0,
        history_meta_ttl=options.history_meta_ttl.total_seconds(),
        idempotency_key=guard.idempotency_key,
        idempotency_window=guard.idempotency_window,
        version=guard.version,
        version_epoch=guard.version_epoch,
    )


class CachedPage:
    """A page that many clients recover from; ``rendered`` keeps what was made of it, by kind."""

    __slots__ = ("_payload", "page", "read_at", "rendered", "size")

    def __init__(self, page: Page, read_at: float) -> None:
        self.page = page
        self.read_at = read_at
        self.rendered: dict[object, Any] = {}
        self._payload = sum([len(each.data) for each in page.publications])
        # The page itself, and what is rendered of it: for replies, and for pushes.
        self.size = 3 * (self._payload + 200 * (len(page.publications) + 1))

    def is_full(self, limit: int, max_bytes: int) -> bool:
        """Whether a bound ended the page, so that what is above it changes nothing in it."""
        return len(self.page.publications) == limit or self._payload >= max_bytes


class History:
    """Publishes into and reads from the streams of all channels.

    ``run`` starts a coroutine whose end nobody waits for. ``clock`` counts seconds. ``cache_size`` bounds the bytes of
    pages kept for clients that recover the same tail, ``cache_ttl`` their age in seconds.
    """

    def __init__(
        self,
        broker: Broker,
        store: PublicationStore,
        *,
        run: Runner,
        clock: Callable[[], float],
        page_bytes: int = 512 * 1024,
        cache_size: int = 8 * 1024 * 1024,
        cache_ttl: float = 5.0,
    ) -> None:
        self._broker = broker
        self._store = store
        self._run = run
        self._clock = clock
        self._page_bytes = page_bytes
        self._cache_size = cache_size
        self._cache_ttl = cache_ttl
        self._cached: OrderedDict[tuple[str, int, int], CachedPage] = OrderedDict()
        self._cached_bytes = 0
        self._reading: dict[tuple[str, int, int], asyncio.Task[CachedPage]] = {}
        self.reads = 0
        self.shared_reads = 0
        store.on_commit = self._carry

    async def publish(self, channel: ResolvedChannel, publication: Publication, guard: Guard = NO_GUARD) -> Appended:
        """Publish, and return once that is as safe as the channel's kind of history promises.

        Raises ``Unavailable`` when it is not known to have happened.
        """
        options = channel.options
        try:
            if options.durable and not guard.skip_history:
                await in_task()
                return await self._store.append(
                    AppendRequest(
                        channel=channel.name,
                        publication=publication,
                        namespace=channel.namespace_name,
                        idempotency_key=guard.idempotency_key,
                        idempotency_window=guard.idempotency_window,
                        version=guard.version,
                        version_epoch=guard.version_epoch,
                    )
                )
            if guard is NO_GUARD and not options.is_recent:
                return await self._broker.publish(channel.name, publication, NO_HISTORY)
            return await self._broker.publish(channel.name, publication, recent_options(channel, guard))
        except (StoreError, BrokerError) as error:
            raise Unavailable(str(error)) from error

    def _carry(self, committed: Sequence[Committed]) -> None:
        for (channel, epoch), group in itertools.groupby(
            sorted(committed, key=lambda each: each.channel), key=lambda each: (each.channel, each.epoch)
        ):
            self._run(self._broker.carry(channel, [each.publication for each in group], epoch))

    async def read(self, channel: ResolvedChannel, query: ReadQuery, *, epoch: str = "") -> Page:
        """Read one page; ``epoch``, when given, must be the stream's.

        Raises ``NotAvailable`` on a channel without history, ``Unrecoverable`` and ``Unavailable``.
        """
        self.reads += 1
        try:
            if channel.options.durable:
                await in_task()
                page = await self._store.read(channel.name, query)
            elif channel.options.is_recent:
                page = await self._broker.read(channel.name, query, channel.options.history_meta_ttl.total_seconds())
            else:
                raise NotAvailable("this channel keeps no history")
        except (StoreError, BrokerError) as error:
            raise Unavailable(str(error)) from error
        if epoch and epoch != page.position.epoch:
            raise Unrecoverable("the stream began anew since that position")
        return page

    async def position(self, channel: ResolvedChannel) -> Position:
        """The top of the stream; (0, "") on a channel without history."""
        if not channel.options.has_history:
            return NOWHERE
        return (await self.read(channel, ReadQuery(limit=0))).position

    async def positions(self, channels: Sequence[ResolvedChannel]) -> dict[str, Position]:
        """The tops of many streams; of the durable ones in one query."""
        await in_task()
        durable = [each.name for each in channels if each.options.durable]
        try:
            tops = await self._store.positions(durable) if durable else {}
        except StoreError as error:
            raise Unavailable(str(error)) from error
        for each in channels:
            if each.options.is_recent:
                tops[each.name] = await self.position(each)
        return tops

    async def tail(self, channel: ResolvedChannel, since: int, limit: int, top: Position) -> CachedPage:
        """A page above ``since`` for clients that recover; concurrent and repeated readers share one read.

        ``top`` is what the caller knows to exist: a kept page of another epoch, or one that ends below both it and its
        limit, is old.
        """
        key = (channel.name, since, limit)
        kept = self._cached.get(key)
        if kept is not None and self._is_current(kept, limit, top):
            self._cached.move_to_end(key)
            self.shared_reads += 1
            return kept
        task = self._reading.get(key)
        if task is None:
            task = asyncio.ensure_future(self._read_tail(channel, key))
            self._reading[key] = task
            task.add_done_callback(lambda done: self._read_ended(key, done))
        else:
            self.shared_reads += 1
        return await asyncio.shield(task)

    def _is_current(self, kept: CachedPage, limit: int, top: Position) -> bool:
        position = kept.page.position
        if self._clock() - kept.read_at > self._cache_ttl or position.epoch != top.epoch:
            return False
        return kept.is_full(limit, self._page_bytes) or position.offset >= top.offset

    async def _read_tail(self, channel: ResolvedChannel, key: tuple[str, int, int]) -> CachedPage:
        _, since, limit = key
        started = self._clock()
        # Recent channels are not paged: what ends below the top counts as lost there.
        max_bytes = self._page_bytes if channel.options.durable else 0
        page = await self.read(channel, ReadQuery(since=since, limit=limit, max_bytes=max_bytes))
        cached = CachedPage(page, started)
        if self._reading.get(key) is not asyncio.current_task():
            return cached  # the channel was redacted since: whoever waits has asked before that, nobody else gets it
        self._forget(key)
        self._cached[key] = cached
        self._cached_bytes += cached.size
        while self._cached_bytes > self._cache_size:
            self._forget(next(iter(self._cached)))
        return cached

    def _read_ended(self, key: tuple[str, int, int], task: asyncio.Task[CachedPage]) -> None:
        if self._reading.get(key) is task:
            del self._reading[key]
        if not task.cancelled():
            task.exception()  # seen here in case that every reader has gone meanwhile

    def _forget(self, key: tuple[str, int, int]) -> None:
        dropped = self._cached.pop(key, None)
        if dropped is not None:
            self._cached_bytes -= dropped.size

    def _forget_channel(self, name: str) -> None:
        for key in [key for key in self._cached if key[0] == name]:
            self._forget(key)
        for key in [key for key in self._reading if key[0] == name]:
            del self._reading[key]

    async def remove(self, channel: ResolvedChannel) -> None:
        """Delete the channel's publications; offsets go on where they were."""
        try:
            if channel.options.durable:
                await in_task()
                await self._store.remove(channel.name)
            elif channel.options.is_recent:
                await self._broker.remove(channel.name)
            else:
                raise NotAvailable("this channel keeps no history")
        except (StoreError, BrokerError) as error:
            raise Unavailable(str(error)) from error
        self._forget_channel(channel.name)

    async def redact(self, channel: ResolvedChannel, offset: int, data: bytes | None) -> bool:
        """Replace the payload at ``offset``, or remove it (``None``); false if nothing is kept at that offset."""
        try:
            if channel.options.durable:
                await in_task()
                done = await self._store.redact(channel.name, offset, data)
            elif channel.options.is_recent:
                done = await self._broker.redact(channel.name, offset, data)
            else:
                raise NotAvailable("this channel keeps no history")
        except (StoreError, BrokerError) as error:
            raise Unavailable(str(error)) from error
        self._forget_channel(channel.name)
        return done
