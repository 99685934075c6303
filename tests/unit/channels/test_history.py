"""Tests of channels.history: one way to all kinds of history, and the pages that many share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from channels.broker import BrokerError
from channels.broker_memory import MemoryBroker
from channels.errors import NotAvailable, Unavailable, Unrecoverable
from channels.history import Guard, History
from channels.names import ChannelRules, ResolvedChannel
from channels.namespaces import ChannelSettings, Namespace
from storage.contract import ClientInfo, Position, Publication, ReadQuery
from storage.errors import StoreUnavailable
from storage.sqlite import SQLiteStore
from tests.support.doubtful import GatedStore

RULES = ChannelRules(
    ChannelSettings(
        namespaces=(
            Namespace(name="plain"),
            Namespace(name="recent", history_size=10, history_ttl=timedelta(hours=1)),
            Namespace(name="durable", durable=True),
        )
    )
)
PLAIN, RECENT, DURABLE = (RULES.resolve(f"{name}:x") for name in ("plain", "recent", "durable"))
TOP = Position(0, "")


class Home:
    """A history over a real broker and a real store, and what the broker carried."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.now = 1000.0
        self.tasks: set[asyncio.Task[None]] = set()
        self.store = GatedStore(SQLiteStore(path / "hub.sqlite3"))
        self.broker = MemoryBroker(clock=lambda: self.now)
        self.history = History(self.broker, self.store, run=self._run, clock=lambda: self.now, **options)
        self.carried: list[tuple[str, list[int], str]] = []
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Home:
        await self.store.open()
        await self.broker.open(self)
        for channel in (PLAIN, RECENT, DURABLE):
            await self.broker.subscribe(channel.name)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.broker.close()
        await self.store.close()

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def publish(self, channel: ResolvedChannel, *payloads: bytes) -> Position:
        """Publish; returns the position of the last."""
        position = TOP
        for each in payloads:
            position = (await self.history.publish(channel, Publication(data=each))).position
        return position

    async def until_carried(self, count: int) -> None:
        """Wait until so many publications were carried."""
        async with asyncio.timeout(10):
            while sum(len(offsets) for _, offsets, _ in self.carried) < count:
                self._arrived.clear()
                await self._arrived.wait()

    # BrokerEvents

    def on_publications(self, channel: str, publications: Any, epoch: str) -> None:
        self.carried.append((channel, [each.offset for each in publications], epoch))
        self._arrived.set()

    def on_join(self, channel: str, info: ClientInfo) -> None: ...

    def on_leave(self, channel: str, info: ClientInfo) -> None: ...

    def on_control(self, message: bytes) -> None: ...

    def on_doubt(self, channels: Any) -> None: ...


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    async with Home(tmp_path) as found:
        yield found


class TestPublishing:
    async def test_without_history_there_is_no_position(self, home: Home) -> None:
        assert await home.publish(PLAIN, b"1") == Position(0, "")
        assert home.carried == [(PLAIN.name, [0], "")]

    @pytest.mark.parametrize("channel", [RECENT, DURABLE], ids=["recent", "durable"])
    async def test_offsets_go_up_from_one(self, home: Home, channel: ResolvedChannel) -> None:
        first = await home.publish(channel, b"1")
        assert await home.publish(channel, b"2", b"3") == Position(3, first.epoch)
        await home.until_carried(3)
        assert home.carried == [(channel.name, [offset], first.epoch) for offset in (1, 2, 3)]

    @pytest.mark.parametrize("channel", [RECENT, DURABLE], ids=["recent", "durable"])
    async def test_history_can_be_left_out(self, home: Home, channel: ResolvedChannel) -> None:
        appended = await home.history.publish(channel, Publication(data=b"1"), Guard(skip_history=True))
        assert appended.position == Position(0, "")
        assert (await home.history.position(channel)).offset == 0
        assert home.carried == [(channel.name, [0], "")]

    @pytest.mark.parametrize("channel", [RECENT, DURABLE], ids=["recent", "durable"])
    async def test_a_repeat_is_not_published_again(self, home: Home, channel: ResolvedChannel) -> None:
        guard = Guard(idempotency_key="once")
        first = await home.history.publish(channel, Publication(data=b"1"), guard)
        again = await home.history.publish(channel, Publication(data=b"2"), guard)
        assert again.position == first.position
        assert (first.fresh, again.fresh) == (True, False)
        old = await home.history.publish(channel, Publication(data=b"3"), Guard(version=5))
        late = await home.history.publish(channel, Publication(data=b"4"), Guard(version=4))
        assert (old.fresh, late.fresh, late.position.offset) == (True, False, 2)

    async def test_concurrent_commits_are_carried_in_order_by_channel(self, home: Home) -> None:
        other = RULES.resolve("durable:y")
        await home.broker.subscribe(other.name)
        channels = [DURABLE, other] * 25
        await asyncio.gather(*(home.history.publish(each, Publication(data=b"1")) for each in channels))
        await home.until_carried(50)
        for channel in (DURABLE, other):
            offsets = [each for name, found, _ in home.carried if name == channel.name for each in found]
            assert offsets == list(range(1, 26))

    async def test_out_of_reach(self, home: Home) -> None:
        await home.broker.close()
        with pytest.raises(Unavailable):
            await home.publish(RECENT, b"1")
        await home.store.close()
        with pytest.raises(Unavailable) as caught:
            await home.publish(DURABLE, b"1")
        assert isinstance(caught.value.__cause__, StoreUnavailable)

    async def test_cancelled_while_it_waits_for_the_commit_it_is_carried_all_the_same(self, home: Home) -> None:
        home.store.appends.shut()
        task = asyncio.create_task(home.publish(DURABLE, b"1"))
        await home.store.appends.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await home.until_carried(1)
        assert home.carried[0][:2] == (DURABLE.name, [1])


class TestReading:
    @pytest.mark.parametrize("channel", [RECENT, DURABLE], ids=["recent", "durable"])
    async def test_a_page(self, home: Home, channel: ResolvedChannel) -> None:
        top = await home.publish(channel, b"1", b"2", b"3")
        page = await home.history.read(channel, ReadQuery(since=1, limit=1), epoch=top.epoch)
        assert ([each.data for each in page.publications], page.position) == ([b"2"], top)
        assert await home.history.position(channel) == top
        assert home.history.reads == 2

    @pytest.mark.parametrize("channel", [RECENT, DURABLE], ids=["recent", "durable"])
    async def test_another_epoch(self, home: Home, channel: ResolvedChannel) -> None:
        with pytest.raises(Unrecoverable):
            await home.history.read(channel, ReadQuery(limit=1), epoch="not this one")

    async def test_where_there_is_none(self, home: Home) -> None:
        assert await home.history.position(PLAIN) == Position(0, "")
        with pytest.raises(NotAvailable):
            await home.history.read(PLAIN, ReadQuery(limit=1))
        with pytest.raises(NotAvailable):
            await home.history.remove(PLAIN)
        with pytest.raises(NotAvailable):
            await home.history.redact(PLAIN, 1, None)

    async def test_many_positions_in_one_query(self, home: Home) -> None:
        recent, durable = await home.publish(RECENT, b"1"), await home.publish(DURABLE, b"1", b"2")
        before = home.store.reads.passed
        assert await home.history.positions([RECENT, DURABLE, PLAIN]) == {RECENT.name: recent, DURABLE.name: durable}
        assert home.store.reads.passed == before + 1

    async def test_out_of_reach(self, home: Home) -> None:
        home.store.failure = StoreUnavailable("the disk is gone")
        with pytest.raises(Unavailable, match="the disk is gone"):
            await home.history.read(DURABLE, ReadQuery(limit=1))
        with pytest.raises(Unavailable, match="the disk is gone"):
            await home.history.positions([DURABLE])
        await home.broker.close()
        for attempt in (
            home.history.read(RECENT, ReadQuery(limit=1)),
            home.history.remove(RECENT),
            home.history.redact(RECENT, 1, None),
        ):
            with pytest.raises(Unavailable) as caught:
                await attempt
            assert isinstance(caught.value.__cause__, BrokerError)


@pytest.mark.parametrize("channel", [RECENT, DURABLE], ids=["recent", "durable"])
class TestTail:
    async def test_many_share_one_read(self, home: Home, channel: ResolvedChannel) -> None:
        top = await home.publish(channel, *(b"%d" % each for each in range(5)))
        before = home.history.reads
        pages = await asyncio.gather(*(home.history.tail(channel, 2, 10, top) for _ in range(100)))
        assert home.history.reads == before + 1
        assert home.history.shared_reads == 99
        assert [each.offset for each in pages[0].page.publications] == [3, 4, 5]
        assert all(each is pages[0] for each in pages)
        assert await home.history.tail(channel, 2, 10, top) is pages[0]
        assert home.history.reads == before + 1

    async def test_other_places_are_other_reads(self, home: Home, channel: ResolvedChannel) -> None:
        top = await home.publish(channel, b"1", b"2", b"3")
        pages = await asyncio.gather(*(home.history.tail(channel, since, 2, top) for since in (0, 1, 2)))
        assert [[each.offset for each in page.page.publications] for page in pages] == [[1, 2], [2, 3], [3]]

    async def test_a_page_that_ends_below_what_is_known_is_old(self, home: Home, channel: ResolvedChannel) -> None:
        top = await home.publish(channel, b"1", b"2")
        old = await home.history.tail(channel, 0, 10, top)
        top = await home.publish(channel, b"3")
        new = await home.history.tail(channel, 0, 10, top)
        assert new is not old
        assert [each.offset for each in new.page.publications] == [1, 2, 3]

    async def test_a_full_page_stays_good(self, home: Home, channel: ResolvedChannel) -> None:
        top = await home.publish(channel, b"1", b"2")
        page = await home.history.tail(channel, 0, 2, top)
        top = await home.publish(channel, b"3")
        assert await home.history.tail(channel, 0, 2, top) is page

    async def test_a_page_of_another_epoch_is_old(self, home: Home, channel: ResolvedChannel) -> None:
        """A stream began anew within the time for which a page is kept, and had gone no further than before.

        Who came back to the new stream was served from a page of the old one, and told that recovery was impossible.
        """
        top = await home.publish(channel, b"1", b"2")
        page = await home.history.tail(channel, 0, 10, top)
        assert await home.history.tail(channel, 0, 10, Position(2, "another")) is not page

    async def test_a_page_is_kept_for_a_time(self, home: Home, channel: ResolvedChannel) -> None:
        top = await home.publish(channel, b"1")
        page = await home.history.tail(channel, 0, 10, top)
        home.now += 5.0
        assert await home.history.tail(channel, 0, 10, top) is page
        home.now += 0.1
        assert await home.history.tail(channel, 0, 10, top) is not page

    async def test_redacted_content_is_not_served_again(self, home: Home, channel: ResolvedChannel) -> None:
        top = await home.publish(channel, b'"secret"', b"2")
        await home.history.tail(channel, 0, 10, top)
        assert await home.history.redact(channel, 1, b'"blank"')
        page = await home.history.tail(channel, 0, 10, top)
        assert page.page.publications[0].data == b'"blank"'
        assert await home.history.redact(channel, 1, None)
        page = await home.history.tail(channel, 0, 10, top)
        assert page.page.publications[0].removed
        assert not await home.history.redact(channel, 99, None)

    async def test_removed_content_is_not_served_again(self, home: Home, channel: ResolvedChannel) -> None:
        top = await home.publish(channel, b"1")
        await home.history.tail(channel, 0, 10, top)
        await home.history.remove(channel)
        page = await home.history.tail(channel, 0, 10, top)
        assert (page.page.publications, page.page.position) == ([], top)

    async def test_another_channels_pages_stay(self, home: Home, channel: ResolvedChannel) -> None:
        other = RULES.resolve(channel.name + "2")
        top = await home.publish(other, b"1")
        page = await home.history.tail(other, 0, 10, top)
        await home.publish(channel, b"1")
        await home.history.remove(channel)
        assert await home.history.tail(other, 0, 10, top) is page


class TestTailUnderWay:
    """Reads of the store take time; much may happen meanwhile."""

    async def test_an_error_reaches_all_who_wait_and_is_not_kept(self, home: Home) -> None:
        top = await home.publish(DURABLE, b"1")
        home.store.failure = StoreUnavailable("the disk is gone")
        waiting = [asyncio.create_task(home.history.tail(DURABLE, 0, 10, top)) for _ in range(3)]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in outcomes] == [Unavailable] * 3
        home.store.failure = None
        assert len((await home.history.tail(DURABLE, 0, 10, top)).page.publications) == 1

    async def test_one_who_leaves_does_not_end_the_read_of_others(self, home: Home) -> None:
        top = await home.publish(DURABLE, b"1")
        home.store.reads.shut()
        first, second = (asyncio.create_task(home.history.tail(DURABLE, 0, 10, top)) for _ in range(2))
        await home.store.reads.reached.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        home.store.reads.open()
        assert len((await second).page.publications) == 1

    async def test_all_who_waited_have_left(self, home: Home) -> None:
        top = await home.publish(DURABLE, b"1")
        home.store.reads.shut()
        waiting = [asyncio.create_task(home.history.tail(DURABLE, 0, 10, top)) for _ in range(3)]
        await home.store.reads.reached.wait()
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        home.store.reads.open()
        reads = home.history.reads
        assert len((await home.history.tail(DURABLE, 0, 10, top)).page.publications) == 1
        assert home.history.reads == reads, "the read that nobody waited for any more is good for the next"

    async def test_all_who_waited_have_left_and_then_it_fails(self, home: Home) -> None:
        top = await home.publish(DURABLE, b"1")
        home.store.failure = StoreUnavailable("the disk is gone")
        waiting = asyncio.create_task(home.history.tail(DURABLE, 0, 10, top))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        home.store.failure = None
        assert len((await home.history.tail(DURABLE, 0, 10, top)).page.publications) == 1

    async def test_a_read_that_was_under_way_during_a_redaction_is_not_kept(self, home: Home) -> None:
        """A page was read just before its content was redacted, and came in just after.

        It was kept, so that for some seconds after the redaction was acknowledged clients still got what was redacted.
        """
        top = await home.publish(DURABLE, b'"secret"')
        home.store.reads.shut()
        early = asyncio.create_task(home.history.tail(DURABLE, 0, 10, top))
        await home.store.reads.reached.wait()
        assert await home.history.redact(DURABLE, 1, b'"blank"')
        late = asyncio.create_task(home.history.tail(DURABLE, 0, 10, top))
        await asyncio.sleep(0)
        home.store.reads.open()
        assert (await early).page.publications[0].data == b'"secret"'
        assert (await late).page.publications[0].data == b'"blank"'
        assert (await home.history.tail(DURABLE, 0, 10, top)).page.publications[0].data == b'"blank"'


async def test_kept_pages_are_bounded_by_their_bytes(tmp_path: Path) -> None:
    async with Home(tmp_path, cache_size=30_000) as home:
        top = await home.publish(RECENT, *(b"x" * 1000 for _ in range(8)))
        first = await home.history.tail(RECENT, 0, 1, top)
        for since in range(1, 4):
            await home.history.tail(RECENT, since, 1, top)
        assert await home.history.tail(RECENT, 0, 1, top) is first
        for since in range(1, 8):
            await home.history.tail(RECENT, since, 1, top)
        assert await home.history.tail(RECENT, 0, 1, top) is not first, "the one used longest ago went first"
        assert home.history._cached_bytes <= 30_000
        assert home.history._cached_bytes == sum(each.size for each in home.history._cached.values())


async def test_a_page_larger_than_the_bound_is_served_and_not_kept(tmp_path: Path) -> None:
    async with Home(tmp_path, cache_size=500) as home:
        top = await home.publish(RECENT, b"x" * 1000)
        assert len((await home.history.tail(RECENT, 0, 1, top)).page.publications) == 1
        assert home.history._cached_bytes == 0
