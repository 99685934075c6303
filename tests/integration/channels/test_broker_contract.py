"""What every home of the broker promises."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from channels.broker import RecentOptions
from storage.contract import ClientInfo, Page, Position, Publication, ReadQuery

if TYPE_CHECKING:
    from tests.integration.channels.conftest import BrokerHome

META = 60.0
RECENT = RecentOptions(history_size=10, history_ttl=30.0, history_meta_ttl=META)
NONE = RecentOptions()
ALL = ReadQuery(limit=-1)


def recent(**options: Any) -> RecentOptions:
    return RecentOptions(**{"history_size": 10, "history_ttl": 30.0, "history_meta_ttl": META, **options})


def pub(data: bytes | str, **fields: Any) -> Publication:
    return Publication(data if isinstance(data, bytes) else data.encode(), **fields)


async def fill(home: BrokerHome, channel: str, count: int, options: RecentOptions = RECENT) -> None:
    for number in range(1, count + 1):
        await home.broker.publish(channel, pub(str(number)), options)


async def payloads(home: BrokerHome, channel: str, query: ReadQuery = ALL) -> list[bytes]:
    return [each.data for each in (await home.broker.read(channel, query, META)).publications]


async def test_without_history_there_is_no_position(broker_home: BrokerHome) -> None:
    await broker_home.broker.subscribe("news")
    appended = await broker_home.broker.publish("news", pub("1"), NONE)
    assert (appended.position, appended.fresh) == (Position(0, ""), True)
    assert await broker_home.events.data("news", 1) == [b"1"]
    ((_, publication, epoch),) = broker_home.events.publications
    assert (publication.offset, epoch) == (0, "")
    assert (await broker_home.broker.read("news", ALL, META)).publications == []


async def test_pages_end_at_their_bytes(broker_home: BrokerHome) -> None:
    for number in range(4):
        await broker_home.broker.publish("news", pub(b"%d" % number * 10), RECENT)
    assert await payloads(broker_home, "news", ReadQuery(limit=-1, max_bytes=10)) == [b"0" * 10]
    assert await payloads(broker_home, "news", ReadQuery(limit=-1, max_bytes=11)) == [b"0" * 10, b"1" * 10]
    assert await payloads(broker_home, "news", ReadQuery(limit=-1, max_bytes=1, reverse=True)) == [b"3" * 10]
    assert len(await payloads(broker_home, "news", ReadQuery(limit=-1, max_bytes=1000))) == 4


async def test_offsets_are_dense_from_one_in_one_epoch(broker_home: BrokerHome) -> None:
    appended = [await broker_home.broker.publish("news", pub(str(n)), RECENT) for n in range(3)]
    assert [each.position.offset for each in appended] == [1, 2, 3]
    assert len({each.position.epoch for each in appended}) == 1
    assert appended[0].position.epoch
    page = await broker_home.broker.read("news", ALL, META)
    assert page.position == appended[-1].position
    assert [each.offset for each in page.publications] == [1, 2, 3]


async def test_streams_of_different_channels_have_nothing_in_common(broker_home: BrokerHome) -> None:
    one = await broker_home.broker.publish("one", pub("1"), RECENT)
    two = await broker_home.broker.publish("two", pub("1"), RECENT)
    assert one.position.offset == two.position.offset == 1
    assert one.position.epoch != two.position.epoch


async def test_concurrent_publishes_are_delivered_in_the_order_of_their_offsets(broker_home: BrokerHome) -> None:
    await broker_home.broker.subscribe("news")
    options = recent(history_size=100)
    appended = await asyncio.gather(*(broker_home.broker.publish("news", pub(str(n)), options) for n in range(50)))
    assert sorted(each.position.offset for each in appended) == list(range(1, 51))
    await broker_home.events.data("news", 50)
    assert [publication.offset for _, publication, _ in broker_home.events.publications] == list(range(1, 51))
    by_offset = {each.position.offset: str(n).encode() for n, each in enumerate(appended)}
    assert await payloads(broker_home, "news") == [by_offset[offset] for offset in range(1, 51)]


async def test_everything_of_a_publication_arrives_and_is_kept(broker_home: BrokerHome) -> None:
    await broker_home.broker.subscribe("news")
    info = ClientInfo("42", "c1", b'{"name":"A"}', b'"x"')
    data = b'{"n":123456789012345678901234567890,"f":1.0,"f":2,"u":"\\u00e9"}\x00\xff'
    sent = pub(data, info=info, tags={"k": "v"}, delta=True, exclude_client="c1")
    before = int(time.time() * 1000)
    await broker_home.broker.publish("news", sent, RECENT)
    await broker_home.events.data("news", 1)
    ((_, arrived, epoch),) = broker_home.events.publications
    page = await broker_home.broker.read("news", ALL, META)
    (kept,) = page.publications
    assert epoch == page.position.epoch
    assert before <= arrived.time <= int(time.time() * 1000)
    assert arrived.exclude_client == "c1"
    assert kept.exclude_client == ""
    for each in (arrived, kept):
        assert (each.data, each.info, each.tags, each.delta, each.offset) == (data, info, {"k": "v"}, True, 1)
    assert kept.time == arrived.time


async def test_a_given_time_is_kept(broker_home: BrokerHome) -> None:
    await broker_home.broker.publish("news", pub("1", time=12345), RECENT)
    (kept,) = (await broker_home.broker.read("news", ALL, META)).publications
    assert kept.time == 12345


async def test_only_subscribed_channels_are_delivered(broker_home: BrokerHome) -> None:
    broker, events = broker_home.broker, broker_home.events
    await broker.subscribe("news")
    await broker.subscribe("sport")
    await broker.publish("other", pub("no"), RECENT)
    await broker.unsubscribe("sport")
    await broker.unsubscribe("never subscribed")
    await broker.publish("sport", pub("no"), NONE)
    await broker.publish("news", pub("yes"), NONE)
    assert await events.data("news", 1) == [b"yes"]
    assert {name for name, _, _ in events.publications} == {"news"}


async def test_subscribing_twice_delivers_once(broker_home: BrokerHome) -> None:
    await broker_home.broker.subscribe("news")
    await broker_home.broker.subscribe("news")
    await broker_home.broker.publish("news", pub("1"), NONE)
    await broker_home.broker.publish("news", pub("2"), NONE)
    assert await broker_home.events.data("news", 2) == [b"1", b"2"]


async def test_carried_publications_keep_their_positions(broker_home: BrokerHome) -> None:
    await broker_home.broker.subscribe("durable")
    stored = [pub("7", offset=7, time=1), pub("8", offset=8, time=2)]
    await broker_home.broker.carry("durable", stored, "abcd")
    await broker_home.broker.carry("unheard", stored, "abcd")
    await broker_home.events.data("durable", 2)
    assert broker_home.events.publications == [("durable", each, "abcd") for each in stored]


async def test_joins_and_leaves(broker_home: BrokerHome) -> None:
    events, info = broker_home.events, ClientInfo("42", "c1", b"{}", b"")
    await broker_home.broker.subscribe("room")
    await broker_home.broker.publish_join("unheard", info)
    await broker_home.broker.publish_leave("unheard", info)
    await broker_home.broker.publish_join("room", info)
    await broker_home.broker.publish_leave("room", info)
    await events.until(lambda: bool(events.joins and events.leaves))
    assert events.joins == events.leaves == [("room", info)]


async def test_a_control_message_is_for_the_others(broker_home: BrokerHome) -> None:
    await broker_home.broker.subscribe("news")
    await broker_home.broker.publish_control(b"hello")
    await broker_home.broker.publish("news", pub("1"), NONE)
    await broker_home.events.data("news", 1)
    assert broker_home.events.control == []


async def test_history_is_cut_to_its_size(broker_home: BrokerHome) -> None:
    await fill(broker_home, "news", 8, recent(history_size=5))
    page = await broker_home.broker.read("news", ALL, META)
    assert [each.offset for each in page.publications] == [4, 5, 6, 7, 8]
    await broker_home.broker.publish("news", pub("9"), recent(history_size=2))
    assert await payloads(broker_home, "news") == [b"8", b"9"]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (ReadQuery(limit=0), []),
        (ReadQuery(limit=2), [1, 2]),
        (ReadQuery(limit=100), [1, 2, 3, 4, 5]),
        (ReadQuery(limit=-1, since=0), [1, 2, 3, 4, 5]),
        (ReadQuery(limit=-1, since=3), [4, 5]),
        (ReadQuery(limit=1, since=3), [4]),
        (ReadQuery(limit=0, since=3), []),
        (ReadQuery(limit=-1, since=5), []),
        (ReadQuery(limit=-1, since=99), []),
        (ReadQuery(limit=-1, reverse=True), [5, 4, 3, 2, 1]),
        (ReadQuery(limit=2, reverse=True), [5, 4]),
        (ReadQuery(limit=-1, since=3, reverse=True), [2, 1]),
        (ReadQuery(limit=1, since=3, reverse=True), [2]),
        (ReadQuery(limit=-1, since=1, reverse=True), []),
        (ReadQuery(limit=-1, since=0, reverse=True), []),
        (ReadQuery(limit=-1, since=99, reverse=True), [5, 4, 3, 2, 1]),
        (ReadQuery(limit=-1, since_time=2000), [2, 3, 4, 5]),
        (ReadQuery(limit=-1, until_time=3000), [1, 2]),
        (ReadQuery(limit=-1, since_time=2000, until_time=4000), [2, 3]),
        (ReadQuery(limit=1, since_time=2000, until_time=4000), [2]),
        (ReadQuery(limit=1, since_time=2000, until_time=4000, reverse=True), [3]),
        (ReadQuery(limit=-1, since=2, since_time=1, until_time=5000), [3, 4]),
        (ReadQuery(limit=-1, since=4, since_time=2000, reverse=True), [3, 2]),
        (ReadQuery(limit=-1, since_time=5001), []),
    ],
)
async def test_reading(broker_home: BrokerHome, query: ReadQuery, wanted: list[int]) -> None:
    for number in range(1, 6):
        last = await broker_home.broker.publish("news", pub(str(number), time=number * 1000), RECENT)
    page = await broker_home.broker.read("news", query, META)
    assert [each.offset for each in page.publications] == wanted
    assert [each.data for each in page.publications] == [str(number).encode() for number in wanted]
    assert page.position == last.position


async def test_reading_below_what_is_kept(broker_home: BrokerHome) -> None:
    await fill(broker_home, "news", 8, recent(history_size=3))
    assert await payloads(broker_home, "news", ReadQuery(limit=-1, since=2)) == [b"6", b"7", b"8"]
    assert await payloads(broker_home, "news", ReadQuery(limit=-1, since=3, reverse=True)) == []
    assert await payloads(broker_home, "news", ReadQuery(limit=-1, since=7, reverse=True)) == [b"6"]


async def test_the_epoch_read_before_the_first_publication_is_the_one_after_it(broker_home: BrokerHome) -> None:
    first = (await broker_home.broker.read("news", ReadQuery(), META)).position
    assert first.offset == 0
    assert first.epoch
    assert await broker_home.broker.read("news", ALL, META) == Page([], first)
    await broker_home.broker.remove("news")
    await broker_home.broker.publish("news", pub("0"), NONE)
    appended = await broker_home.broker.publish("news", pub("1"), RECENT)
    assert appended.position == Position(1, first.epoch)


async def test_the_epoch_of_a_channel_without_publications_does_not_end(broker_home: BrokerHome) -> None:
    """Nothing is kept of such a channel, so there is nothing that could."""
    first = (await broker_home.broker.read("news", ReadQuery(), 0.5)).position
    await broker_home.passes(1.0)
    appended = await broker_home.broker.publish("news", pub("1"), RECENT)
    assert appended.position == Position(1, first.epoch)


async def test_channels_that_were_only_read_have_epochs_of_their_own(broker_home: BrokerHome) -> None:
    pages = [await broker_home.broker.read(f"c{number}", ALL, META) for number in range(2000)]
    assert {page.position.offset for page in pages} == {0}
    assert len({page.position.epoch for page in pages}) == 2000


async def test_publications_expire_and_the_position_stays(broker_home: BrokerHome) -> None:
    options = recent(history_ttl=1.0)
    await broker_home.broker.publish("news", pub("1"), options)
    last = await broker_home.broker.publish("news", pub("2"), options)
    await broker_home.passes(1.5)
    page = await broker_home.broker.read("news", ALL, META)
    assert page.publications == []
    assert page.position == last.position
    again = await broker_home.broker.publish("news", pub("3"), options)
    assert again.position == Position(3, last.position.epoch)
    assert await payloads(broker_home, "news") == [b"3"]


async def test_each_publication_prolongs_the_stream(broker_home: BrokerHome) -> None:
    options = recent(history_ttl=1.0)
    await broker_home.broker.publish("news", pub("1"), options)
    await broker_home.passes(0.6)
    await broker_home.broker.publish("news", pub("2"), options)
    await broker_home.passes(0.6)
    assert await payloads(broker_home, "news") == [b"1", b"2"]


async def test_after_the_meta_ttl_the_stream_begins_anew(broker_home: BrokerHome) -> None:
    options = recent(history_ttl=1.0, history_meta_ttl=1.0)
    first = await broker_home.broker.publish("news", pub("1"), options)
    await broker_home.passes(1.5)
    second = await broker_home.broker.publish("news", pub("2"), options)
    assert second.position.offset == 1
    assert second.position.epoch != first.position.epoch
    assert await payloads(broker_home, "news") == [b"2"]


async def test_after_the_meta_ttl_a_reader_knows_the_epoch_to_come(broker_home: BrokerHome) -> None:
    options = recent(history_ttl=1.0, history_meta_ttl=1.0)
    first = await broker_home.broker.publish("news", pub("1"), options)
    await broker_home.passes(1.5)
    between = await broker_home.broker.read("news", ALL, META)
    assert between == Page([], Position(0, between.position.epoch))
    assert between.position.epoch != first.position.epoch
    second = await broker_home.broker.publish("news", pub("2"), options)
    assert second.position == Position(1, between.position.epoch)


async def test_reading_prolongs_the_position(broker_home: BrokerHome) -> None:
    options = recent(history_ttl=1.0, history_meta_ttl=1.0)
    first = await broker_home.broker.publish("news", pub("1"), options)
    await broker_home.passes(0.6)
    await broker_home.broker.read("news", ALL, META)
    await broker_home.passes(0.6)
    assert (await broker_home.broker.read("news", ALL, META)).position == first.position


async def test_an_idempotency_key_publishes_once(broker_home: BrokerHome) -> None:
    await broker_home.broker.subscribe("news")
    keyed = recent(idempotency_key="k1")
    first = await broker_home.broker.publish("news", pub("1"), keyed)
    await broker_home.broker.publish("news", pub("2"), RECENT)
    again = await broker_home.broker.publish("news", pub("3"), keyed)
    assert (first.fresh, again.fresh) == (True, False)
    assert again.position == first.position == Position(1, first.position.epoch)
    other = await broker_home.broker.publish("news", pub("4"), recent(idempotency_key="k2"))
    assert (other.fresh, other.position.offset) == (True, 3)
    elsewhere = await broker_home.broker.publish("sport", pub("5"), keyed)
    assert (elsewhere.fresh, elsewhere.position.offset) == (True, 1)
    assert await broker_home.events.data("news", 3) == [b"1", b"2", b"4"]
    assert await payloads(broker_home, "news") == [b"1", b"2", b"4"]


async def test_concurrent_publishes_with_one_key(broker_home: BrokerHome) -> None:
    keyed = recent(idempotency_key="k1")
    appended = await asyncio.gather(*(broker_home.broker.publish("news", pub(str(n)), keyed) for n in range(20)))
    assert sum(each.fresh for each in appended) == 1
    assert {each.position.offset for each in appended} == {1}
    assert len(await payloads(broker_home, "news")) == 1


async def test_idempotency_without_history(broker_home: BrokerHome) -> None:
    await broker_home.broker.subscribe("news")
    keyed = RecentOptions(idempotency_key="k1")
    first = await broker_home.broker.publish("news", pub("1"), keyed)
    again = await broker_home.broker.publish("news", pub("2"), keyed)
    await broker_home.broker.publish("news", pub("3"), NONE)
    assert (first.fresh, again.fresh) == (True, False)
    assert first.position == again.position == Position(0, "")
    assert await broker_home.events.data("news", 2) == [b"1", b"3"]


async def test_after_its_window_a_key_is_new_again(broker_home: BrokerHome) -> None:
    keyed = recent(idempotency_key="k1", idempotency_window=1.0)
    await broker_home.broker.publish("news", pub("1"), keyed)
    await broker_home.passes(1.5)
    again = await broker_home.broker.publish("news", pub("2"), keyed)
    assert (again.fresh, again.position.offset) == (True, 2)


async def test_versions_that_are_not_newer_are_dropped(broker_home: BrokerHome) -> None:
    await broker_home.broker.subscribe("news")
    outcomes = []
    for version, epoch in [(5, ""), (5, ""), (4, ""), (6, ""), (0, ""), (6, "")]:
        options = recent(version=version, version_epoch=epoch)
        appended = await broker_home.broker.publish("news", pub(str(version)), options)
        outcomes.append((appended.fresh, appended.position.offset))
    assert outcomes == [(True, 1), (False, 1), (False, 1), (True, 2), (True, 3), (False, 3)]
    assert await payloads(broker_home, "news") == [b"5", b"6", b"0"]
    assert await broker_home.events.data("news", 3) == [b"5", b"6", b"0"]


async def test_versions_of_different_version_epochs_are_not_compared(broker_home: BrokerHome) -> None:
    outcomes = []
    for version, epoch in [(5, "a"), (4, "a"), (1, "b"), (1, "b"), (1, ""), (2, "b")]:
        options = recent(version=version, version_epoch=epoch)
        outcomes.append((await broker_home.broker.publish("news", pub("x"), options)).fresh)
    assert outcomes == [True, False, True, False, False, True]


async def test_removing_keeps_the_position(broker_home: BrokerHome) -> None:
    await fill(broker_home, "news", 3)
    before = (await broker_home.broker.read("news", ALL, META)).position
    await broker_home.broker.remove("news")
    await broker_home.broker.remove("never used")
    page = await broker_home.broker.read("news", ALL, META)
    assert page.publications == []
    assert page.position == before
    appended = await broker_home.broker.publish("news", pub("4"), RECENT)
    assert appended.position == Position(4, before.epoch)
    assert await payloads(broker_home, "news") == [b"4"]


async def test_redaction_leaves_every_offset_where_it_is(broker_home: BrokerHome) -> None:
    for number in range(1, 5):
        info, tags = ClientInfo("42", "c"), {"n": str(number)}
        await broker_home.broker.publish("news", pub(str(number), time=number, info=info, tags=tags), RECENT)
    assert await broker_home.broker.redact("news", 2, None)
    assert await broker_home.broker.redact("news", 3, b'"***"')
    page = await broker_home.broker.read("news", ALL, META)
    assert [(each.offset, each.data, each.removed, each.time) for each in page.publications] == [
        (1, b"1", False, 1),
        (2, b"", True, 2),
        (3, b'"***"', False, 3),
        (4, b"4", False, 4),
    ]
    removed, replaced = page.publications[1:3]
    assert (removed.info, removed.tags) == (None, None)
    assert (replaced.info, replaced.tags) == (ClientInfo("42", "c"), {"n": "3"})
    assert (await broker_home.broker.publish("news", pub("5"), RECENT)).position.offset == 5


@pytest.mark.parametrize("offset", [-1, 0, 1, 6, 99])
async def test_nothing_to_redact(broker_home: BrokerHome, offset: int) -> None:
    await fill(broker_home, "news", 5, recent(history_size=4))
    assert not await broker_home.broker.redact("news", offset, None)
    assert not await broker_home.broker.redact("news", offset, b"x")
    assert not await broker_home.broker.redact("never used", 1, None)
    assert await payloads(broker_home, "news") == [b"2", b"3", b"4", b"5"]


async def test_an_expired_publication_cannot_be_redacted(broker_home: BrokerHome) -> None:
    await fill(broker_home, "news", 1, recent(history_ttl=1.0))
    await broker_home.passes(1.5)
    assert not await broker_home.broker.redact("news", 1, None)


async def test_closing_twice(broker_home: BrokerHome) -> None:
    await broker_home.broker.close()
    await broker_home.broker.close()
