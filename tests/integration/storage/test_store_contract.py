"""The contract of ``PublicationStore``, run against every home that conftest names. It uses only the contract."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from storage.contract import (
    Appended,
    AppendRequest,
    ClientInfo,
    Committed,
    Page,
    Position,
    Publication,
    PublicationStore,
    ReadQuery,
    Retention,
)
from storage.errors import StoreUnavailable

ALL = ReadQuery(limit=-1)


async def put(store: PublicationStore, channel: str, data: bytes = b"{}", **options: Any) -> Appended:
    return await store.append(AppendRequest(channel, Publication(data), **options))


async def put_many(store: PublicationStore, channel: str, count: int, **options: Any) -> None:
    await asyncio.gather(*(put(store, channel, b"%d" % number, **options) for number in range(1, count + 1)))


def offsets(page: Page) -> list[int]:
    return [publication.offset for publication in page.publications]


def payloads(page: Page) -> list[bytes]:
    return [publication.data for publication in page.publications]


class TestAppend:
    async def test_offsets_are_dense_from_one_and_share_an_epoch(self, store: PublicationStore) -> None:
        made = [await put(store, "news") for _ in range(3)]
        assert [one.position.offset for one in made] == [1, 2, 3]
        assert len({one.position.epoch for one in made}) == 1
        assert made[0].position.epoch
        assert all(one.fresh for one in made)

    async def test_streams_are_apart(self, store: PublicationStore) -> None:
        first, second = await put(store, "a"), await put(store, "b")
        assert first.position.offset == second.position.offset == 1
        assert first.position.epoch != second.position.epoch

    async def test_concurrent_appends_get_each_offset_once(self, store: PublicationStore) -> None:
        made = await asyncio.gather(*(put(store, "news", b"%d" % number) for number in range(500)))
        assert sorted(one.position.offset for one in made) == list(range(1, 501))
        page = await store.read("news", ALL)
        by_offset = {one.position.offset: b"%d" % number for number, one in enumerate(made)}
        assert payloads(page) == [by_offset[offset] for offset in range(1, 501)]

    async def test_everything_comes_back_byte_for_byte(self, store: PublicationStore) -> None:
        data = b'{"n":123456789012345678901234567890, "f":1.0,"a":1,"a":2,"s":"\\u0000\xc3\xa9"}'
        info = ClientInfo("ue\u0301\u0000", "c-1", b'{"n":1.0,  "n":2}', b"\x00\xff not JSON")
        tags = {"b": "2", "a": "", "": "\u0000\U0001f600"}
        await store.append(AppendRequest("news", Publication(data, info=info, tags=tags, delta=True)))
        await store.append(AppendRequest("news", Publication(b"\x00\x01\xff", info=ClientInfo("", ""), tags={})))
        await store.append(AppendRequest("news", Publication(b"")))
        first, second, third = (await store.read("news", ALL)).publications
        assert (first.data, first.info, first.tags, first.delta, first.removed) == (data, info, tags, True, False)
        assert list(first.tags or ()) == ["b", "a", ""]
        assert (second.data, second.info, second.tags, second.delta) == (b"\x00\x01\xff", ClientInfo("", ""), {}, False)
        assert (third.data, third.info, third.tags) == (b"", None, None)

    async def test_a_megabyte_comes_back(self, store: PublicationStore) -> None:
        data = bytes(range(256)) * 4096
        await put(store, "news", data)
        assert payloads(await store.read("news", ALL)) == [data]

    async def test_odd_channel_names_are_apart(self, store: PublicationStore) -> None:
        names = ["", "a", "A", "a ", "\u00e9", "e\u0301", "a\n", "'\"%;--", "x" * 1000]
        for name in names:
            assert (await put(store, name)).position.offset == 1
        assert set(await store.positions(names)) == set(names)

    async def test_time_is_the_clock_in_milliseconds(self, store: PublicationStore, clock: Any) -> None:
        await store.append(AppendRequest("news", Publication(b"{}", time=5)))
        clock.now += 1.25
        await put(store, "news")
        first, second = (await store.read("news", ALL)).publications
        assert (first.time, second.time) == (1_700_000_000_000, 1_700_000_001_250)

    async def test_time_never_decreases_within_a_channel(self, store: PublicationStore, clock: Any) -> None:
        await put(store, "news")
        clock.now -= 3600
        await put(store, "news")
        await put(store, "other")
        times = [publication.time for publication in (await store.read("news", ALL)).publications]
        assert times == [1_700_000_000_000] * 2
        assert (await store.read("other", ALL)).publications[0].time == 1_699_996_400_000

    async def test_time_does_not_decrease_after_removal(self, store: PublicationStore, clock: Any) -> None:
        await put(store, "news")
        await store.remove("news")
        clock.now -= 3600
        await put(store, "news")
        assert (await store.read("news", ALL)).publications[0].time == 1_700_000_000_000


class TestIdempotency:
    async def test_a_repeat_gets_the_first_position(self, store: PublicationStore) -> None:
        first = await put(store, "news", b"1", idempotency_key="k")
        await put(store, "news", b"2")
        again = await put(store, "news", b"3", idempotency_key="k")
        assert (again.position, again.fresh) == (first.position, False)
        assert payloads(await store.read("news", ALL)) == [b"1", b"2"]

    async def test_concurrent_repeats_write_once(self, store: PublicationStore) -> None:
        made = await asyncio.gather(*(put(store, "news", idempotency_key="k") for _ in range(100)))
        assert sum(one.fresh for one in made) == 1
        assert {one.position.offset for one in made} == {1}
        assert offsets(await store.read("news", ALL)) == [1]

    async def test_keys_belong_to_a_channel(self, store: PublicationStore) -> None:
        assert (await put(store, "a", idempotency_key="k")).fresh
        assert (await put(store, "b", idempotency_key="k")).fresh

    async def test_a_key_is_free_again_after_its_window(self, store: PublicationStore, clock: Any) -> None:
        await put(store, "news", idempotency_key="k", idempotency_window=10.0)
        clock.now += 9.999
        assert not (await put(store, "news", idempotency_key="k", idempotency_window=10.0)).fresh
        clock.now += 0.001
        second = await put(store, "news", idempotency_key="k", idempotency_window=10.0)
        assert (second.position.offset, second.fresh) == (2, True)
        assert (await put(store, "news", idempotency_key="k")).position.offset == 2

    async def test_pruning_forgets_only_keys_whose_window_is_over(self, store: PublicationStore, clock: Any) -> None:
        await put(store, "news", idempotency_key="short", idempotency_window=1.0)
        await put(store, "news", idempotency_key="long", idempotency_window=100.0)
        clock.now += 50
        assert await store.prune({}) == 0
        assert (await put(store, "news", idempotency_key="short")).fresh
        assert not (await put(store, "news", idempotency_key="long")).fresh

    async def test_a_key_survives_the_removal_of_what_it_stands_for(self, store: PublicationStore) -> None:
        await put(store, "news", idempotency_key="k")
        await store.remove("news")
        again = await put(store, "news", idempotency_key="k")
        assert (again.position.offset, again.fresh) == (1, False)


class TestVersion:
    async def test_what_is_not_newer_is_dropped(self, store: PublicationStore) -> None:
        assert (await put(store, "news", b"5", version=5)).fresh
        await put(store, "news", b"unversioned")
        old = await put(store, "news", b"4", version=4)
        same = await put(store, "news", b"5", version=5)
        assert (old.fresh, same.fresh) == (False, False)
        assert old.position.offset == same.position.offset == 2
        assert (await put(store, "news", b"6", version=6)).position.offset == 3

    async def test_another_version_epoch_is_not_compared(self, store: PublicationStore) -> None:
        assert (await put(store, "news", version=9, version_epoch="a")).fresh
        assert (await put(store, "news", version=1, version_epoch="b")).fresh
        assert not (await put(store, "news", version=1, version_epoch="b")).fresh
        assert not (await put(store, "news", version=1)).fresh

    async def test_a_dropped_version_takes_no_key(self, store: PublicationStore) -> None:
        await put(store, "news", version=5)
        assert not (await put(store, "news", version=5, idempotency_key="k")).fresh
        assert (await put(store, "news", version=6, idempotency_key="k")).fresh

    async def test_versions_reach_to_64_bits(self, store: PublicationStore) -> None:
        assert (await put(store, "news", version=2**63 - 1)).fresh
        assert (await put(store, "news", version=2**63)).fresh
        assert (await put(store, "news", version=2**64 - 1)).fresh
        assert not (await put(store, "news", version=2**64 - 2)).fresh


class TestOnCommit:
    async def test_what_was_committed_is_told_in_offset_order_before_the_answer(self, home: Any, clock: Any) -> None:
        told: list[Committed] = []
        store = home.make(clock=clock)
        store.on_commit = told.extend
        await store.open()
        made = await put(store, "a", b"1", idempotency_key="k")
        assert [one.publication.offset for one in told] == [1]
        assert told[0] == Committed("a", made.position.epoch, Publication(b"1", offset=1, time=1_700_000_000_000))
        await asyncio.gather(*(put(store, "ab"[number % 2], idempotency_key="k") for number in range(20)))
        await asyncio.gather(*(put(store, "ab"[number % 2]) for number in range(200)))
        await store.close()
        for channel, count in (("a", 101), ("b", 101)):
            assert [one.publication.offset for one in told if one.channel == channel] == list(range(1, count + 1))

    async def test_the_excluded_client_is_told_and_not_stored(self, home: Any) -> None:
        told: list[Committed] = []
        store = home.make()
        store.on_commit = told.extend
        await store.open()
        await store.append(AppendRequest("a", Publication(b"1", exclude_client="c")))
        assert told[0].publication.exclude_client == "c"
        assert (await store.read("a", ALL)).publications[0].exclude_client == ""
        await store.close()

    async def test_it_is_told_also_when_the_appenders_have_gone(self, home: Any) -> None:
        told: list[Committed] = []
        store = home.make()
        store.on_commit = told.extend
        await store.open()
        tasks = [asyncio.create_task(put(store, "a")) for _ in range(10)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()
        assert [one.publication.offset for one in told] == list(range(1, 11))

    async def test_a_listener_that_fails_is_logged_and_harms_no_appender(
        self, home: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(_committed: object) -> None:
            raise RuntimeError("listener is broken")

        store = home.make()
        store.on_commit = fail
        await store.open()
        assert (await put(store, "a")).fresh
        assert (await put(store, "a")).position.offset == 2
        await store.close()
        assert "listener is broken" in caplog.text


class TestRead:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            (ReadQuery(), []),
            (ReadQuery(limit=-1), [1, 2, 3, 4, 5]),
            (ReadQuery(limit=2), [1, 2]),
            (ReadQuery(limit=2**62), [1, 2, 3, 4, 5]),
            (ReadQuery(limit=2, since=0), [1, 2]),
            (ReadQuery(limit=2, since=3), [4, 5]),
            (ReadQuery(limit=-1, since=5), []),
            (ReadQuery(limit=-1, since=2**64), []),
            (ReadQuery(limit=2, reverse=True), [5, 4]),
            (ReadQuery(limit=-1, reverse=True), [5, 4, 3, 2, 1]),
            (ReadQuery(limit=2, since=4, reverse=True), [3, 2]),
            (ReadQuery(limit=-1, since=2**64, reverse=True), [5, 4, 3, 2, 1]),
            (ReadQuery(limit=-1, since=1, reverse=True), []),
            (ReadQuery(limit=-1, since=0, reverse=True), []),
            (ReadQuery(since=2), []),
        ],
    )
    async def test_by_position(self, store: PublicationStore, query: ReadQuery, expected: list[int]) -> None:
        await put_many(store, "news", 5)
        page = await store.read("news", query)
        assert offsets(page) == expected
        assert page.position.offset == 5

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"since_time": 2000}, [3, 4, 5, 6]),
            ({"until_time": 2000}, [1, 2]),
            ({"since_time": 2000, "until_time": 3000}, [3, 4]),
            ({"since_time": 2001, "until_time": 3000}, []),
            ({"since_time": 2001, "until_time": 3001}, [5]),
            ({"since_time": 3000, "until_time": 2000}, []),
            ({"since_time": 9999}, []),
            ({"until_time": 1}, []),
            ({"since_time": 1}, [1, 2, 3, 4, 5, 6]),
            ({"since_time": 2000, "since": 3}, [4, 5, 6]),
            ({"since_time": 2000, "since": 1}, [3, 4, 5, 6]),
            ({"since_time": 2000, "reverse": True}, [6, 5, 4, 3]),
            ({"until_time": 3000, "reverse": True, "limit": 2}, [4, 3]),
            ({"until_time": 4000, "reverse": True, "since": 3}, [2, 1]),
        ],
    )
    async def test_by_time(
        self, store: PublicationStore, clock: Any, options: dict[str, Any], expected: list[int]
    ) -> None:
        for second in (1, 1, 2, 2, 3, 4):
            clock.now = float(second)
            await put(store, "news")
        await put(store, "neighbour")
        assert offsets(await store.read("news", ReadQuery(**{"limit": -1, **options}))) == expected

    async def test_by_time_after_the_oldest_are_gone(self, store: PublicationStore, clock: Any) -> None:
        for second in range(1, 101):
            clock.now = float(second)
            await put(store, "news", namespace="n")
        await store.prune({"n": Retention(size=10)})
        assert offsets(await store.read("news", ReadQuery(limit=-1, since_time=50_000))) == list(range(91, 101))
        assert offsets(await store.read("news", ReadQuery(limit=-1, until_time=93_000))) == [91, 92]
        assert offsets(await store.read("news", ReadQuery(limit=1, until_time=93_000, reverse=True))) == [92]

    async def test_the_epoch_read_before_the_first_publication_is_the_one_after_it(self, home: Any) -> None:
        store = home.make()
        await store.open()
        page = await store.read("new", ALL)
        assert page.publications == []
        assert page.position.offset == 0
        assert page.position.epoch
        assert (await store.read("new", ReadQuery())).position == page.position
        other = (await store.positions(["other"]))["other"]
        assert (await put(store, "other")).position == Position(1, other.epoch)
        await store.close()
        for offset in (1, 2):
            store = home.make()
            await store.open()
            assert (await put(store, "new")).position == Position(offset, page.position.epoch)
            assert (await store.read("other", ALL)).position == Position(1, other.epoch)
            await store.close()

    async def test_channels_that_were_only_read_have_epochs_of_their_own(self, store: PublicationStore) -> None:
        names = [f"c:{number}" for number in range(300)]
        pages = {name: await store.read(name, ALL) for name in names}
        assert all(page.publications == [] and page.position.offset == 0 for page in pages.values())
        assert len({page.position.epoch for page in pages.values()}) == 300
        assert await store.positions(names) == {name: page.position for name, page in pages.items()}

    async def test_concurrent_first_reads_and_appends_agree_on_the_epoch(self, store: PublicationStore) -> None:
        results = await asyncio.gather(
            *(store.read("new", ReadQuery()) for _ in range(20)), *(put(store, "new") for _ in range(20))
        )
        assert len({result.position.epoch for result in results}) == 1

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            (ReadQuery(limit=-1, max_bytes=1), [1]),
            (ReadQuery(limit=-1, max_bytes=10), [1]),
            (ReadQuery(limit=-1, max_bytes=11), [1, 2]),
            (ReadQuery(limit=-1, max_bytes=1000), [1, 2, 3, 4]),
            (ReadQuery(limit=1, max_bytes=1000), [1]),
            (ReadQuery(limit=-1, since=2, max_bytes=10), [3]),
            (ReadQuery(limit=-1, max_bytes=20, reverse=True), [4, 3]),
        ],
    )
    async def test_pages_end_at_their_bytes(
        self, store: PublicationStore, query: ReadQuery, expected: list[int]
    ) -> None:
        for _ in range(4):
            await put(store, "news", b"x" * 10)
        page = await store.read("news", query)
        assert offsets(page) == expected
        assert page.position.offset == 4

    async def test_page_and_position_are_of_one_snapshot(self, store: PublicationStore) -> None:
        await put(store, "news")
        done = False

        async def append() -> None:
            for _ in range(40):
                await asyncio.gather(*(put(store, "news") for _ in range(5)))

        async def read() -> None:
            while not done:
                page = await store.read("news", ALL)
                assert offsets(page) == list(range(1, page.position.offset + 1))

        readers = [asyncio.create_task(read()) for _ in range(3)]
        await append()
        done = True
        await asyncio.gather(*readers)

    async def test_positions_of_many_channels(self, store: PublicationStore) -> None:
        await put_many(store, "c:7", 7)
        names = [f"c:{number}" for number in range(3000)]
        found = await store.positions([*names, "c:7"])
        assert set(found) == set(names)
        assert found["c:7"].offset == 7
        assert all(position.offset == 0 for name, position in found.items() if name != "c:7")
        assert len({position.epoch for position in found.values()}) == 3000
        assert await store.positions(names) == found
        assert await store.positions([]) == {}


class TestRedact:
    async def test_a_tombstone_keeps_its_place(self, store: PublicationStore) -> None:
        await put_many(store, "news", 3)
        info = ClientInfo("u", "c", b"{}", b"{}")
        await store.append(AppendRequest("news", Publication(b"4", info=info, tags={"a": "b"}, delta=True)))
        assert await store.redact("news", 4, None) is True
        page = await store.read("news", ALL)
        assert offsets(page) == [1, 2, 3, 4]
        gone = page.publications[3]
        assert gone == Publication(b"", offset=4, time=gone.time, removed=True)
        assert gone.time > 0
        assert (await put(store, "news")).position.offset == 5

    async def test_a_replacement_keeps_all_but_the_payload(self, store: PublicationStore) -> None:
        info = ClientInfo("u", "c", b"1", b"2")
        await store.append(AppendRequest("news", Publication(b"secret", info=info, tags={"a": "b"})))
        assert await store.redact("news", 1, b"public") is True
        publication = (await store.read("news", ALL)).publications[0]
        assert (publication.data, publication.info, publication.tags) == (b"public", info, {"a": "b"})
        assert publication.removed is False

    @pytest.mark.parametrize(("channel", "offset"), [("news", 0), ("news", 3), ("news", -1), ("news", 2**64), ("x", 1)])
    async def test_nothing_there(self, store: PublicationStore, channel: str, offset: int) -> None:
        await put_many(store, "news", 2)
        await put(store, "neighbour")
        assert await store.redact(channel, offset, None) is False
        assert payloads(await store.read("news", ALL)) == [b"1", b"2"]
        assert payloads(await store.read("neighbour", ALL)) == [b"{}"]

    async def test_what_was_removed_is_not_there(self, store: PublicationStore) -> None:
        await put(store, "news")
        await store.remove("news")
        assert await store.redact("news", 1, b"again") is False


class TestRemove:
    async def test_offset_and_epoch_stay(self, store: PublicationStore) -> None:
        await put_many(store, "news", 2500)
        await put(store, "neighbour")
        before = (await store.positions(["news"]))["news"]
        await store.remove("news")
        assert await store.read("news", ALL) == Page([], before)
        assert await put(store, "news") == Appended(Position(2501, before.epoch), True)
        assert offsets(await store.read("news", ALL)) == [2501]
        assert offsets(await store.read("neighbour", ALL)) == [1]

    async def test_of_nothing(self, store: PublicationStore) -> None:
        await store.remove("never")
        await store.read("empty", ALL)
        await store.remove("empty")
        assert (await put(store, "never")).position.offset == 1


class TestPrune:
    async def test_by_size(self, store: PublicationStore) -> None:
        await put_many(store, "a", 10, namespace="n")
        await put_many(store, "b", 3, namespace="n")
        await put_many(store, "c", 10, namespace="other")
        assert await store.prune({"n": Retention(size=4)}) == 6
        assert offsets(await store.read("a", ALL)) == [7, 8, 9, 10]
        assert offsets(await store.read("b", ALL)) == [1, 2, 3]
        assert len((await store.read("c", ALL)).publications) == 10
        assert await store.prune({"n": Retention(size=4)}) == 0

    async def test_by_age(self, store: PublicationStore, clock: Any) -> None:
        start = clock.now
        for second in range(10):
            clock.now = start + second
            await put(store, "a", namespace="n")
        clock.now = start + 10
        assert await store.prune({"n": Retention(age=5.0)}) == 6  # exactly five seconds old is not younger than five
        assert offsets(await store.read("a", ALL)) == [7, 8, 9, 10]
        clock.now += 1000
        assert await store.prune({"n": Retention(age=5.0)}) == 4
        page = await store.read("a", ALL)
        assert (offsets(page), page.position.offset) == ([], 10)
        assert (await put(store, "a", namespace="n")).position.offset == 11

    async def test_by_both_the_stricter_wins(self, store: PublicationStore, clock: Any) -> None:
        await put_many(store, "a", 5, namespace="n")
        clock.now += 100
        await put_many(store, "a", 5, namespace="n")
        assert await store.prune({"n": Retention(size=7, age=50.0)}) == 5
        assert await store.prune({"n": Retention(size=2, age=50.0)}) == 3
        assert offsets(await store.read("a", ALL)) == [9, 10]

    async def test_no_bound_keeps_all(self, store: PublicationStore, clock: Any) -> None:
        await put_many(store, "a", 5, namespace="n")
        clock.now += 1e6
        assert await store.prune({"n": Retention(), "unknown": Retention(size=1)}) == 0
        assert len((await store.read("a", ALL)).publications) == 5

    async def test_more_than_one_step(self, store: PublicationStore) -> None:
        await put_many(store, "long", 3210, namespace="n")
        await asyncio.gather(*(put(store, f"many:{number % 1200}", namespace="n") for number in range(2400)))
        assert await store.prune({"n": Retention(size=1)}) == 3209 + 1200
        assert offsets(await store.read("long", ALL)) == [3210]

    async def test_a_stream_goes_with_the_namespace_of_its_last_append(self, store: PublicationStore) -> None:
        await store.read("a", ALL)
        await put_many(store, "a", 2, namespace="old")
        await put_many(store, "a", 2, namespace="new")
        assert await store.prune({"old": Retention(size=1)}) == 0
        assert await store.prune({"new": Retention(size=1)}) == 3

    async def test_appends_go_on_meanwhile(self, store: PublicationStore) -> None:
        await put_many(store, "a", 4000, namespace="n")
        pruning = asyncio.create_task(store.prune({"n": Retention(size=1)}))
        made = [await put(store, "b") for _ in range(20)]
        assert [one.position.offset for one in made] == list(range(1, 21))
        assert await pruning == 3999


class TestLife:
    async def test_all_survives_a_restart(self, home: Any, clock: Any) -> None:
        store = home.make(clock=clock)
        await store.open()
        first = await put(store, "a", b"1", idempotency_key="k", version=7, version_epoch="v")
        await put(store, "a", b"2")
        await store.redact("a", 2, None)
        before = await store.read("a", ALL)
        await store.close()

        store = home.make(clock=clock)
        await store.open()
        assert await store.read("a", ALL) == before
        assert await put(store, "a", idempotency_key="k") == Appended(first.position, False)
        assert not (await put(store, "a", version=7, version_epoch="v")).fresh
        await store.remove("a")
        await store.close()

        store = home.make(clock=clock)
        await store.open()
        assert await put(store, "a") == Appended(Position(3, first.position.epoch), True)
        await store.close()

    async def test_closing_commits_and_answers_what_was_accepted(self, home: Any) -> None:
        store = home.make()
        await store.open()
        tasks = [asyncio.create_task(put(store, "a")) for _ in range(300)]
        await asyncio.sleep(0)
        await store.close()
        made = await asyncio.gather(*tasks)
        assert [one.position.offset for one in made] == list(range(1, 301))
        store = home.make()
        await store.open()
        assert (await store.positions(["a"]))["a"] == made[-1].position
        await store.close()

    async def test_closing_twice_and_using_it_after(self, home: Any) -> None:
        store = home.make()
        with pytest.raises(StoreUnavailable, match="not open"):
            await store.read("a", ALL)
        with pytest.raises(StoreUnavailable, match="not open"):
            await store.positions(["a"])
        await store.close()
        store = home.make()
        await store.open()
        await asyncio.gather(store.close(), store.close())
        await store.close()
        with pytest.raises(StoreUnavailable, match="not open"):
            await put(store, "a")
        with pytest.raises(StoreUnavailable, match="not open"):
            await store.read("a", ALL)
        with pytest.raises(StoreUnavailable, match="not open"):
            await store.prune({"n": Retention(size=1)})

    async def test_too_many_waiting_are_refused_at_once(self, home: Any) -> None:
        store = home.make(queue_max=10)
        await store.open()
        results = await asyncio.gather(*(put(store, "a") for _ in range(25)), return_exceptions=True)
        refused = [result for result in results if isinstance(result, StoreUnavailable)]
        assert len(refused) == 15
        assert "overloaded" in str(refused[0])
        assert (await put(store, "a")).position.offset == 11
        await store.close()
