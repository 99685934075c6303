"""What is particular to the memory broker; what every broker promises is in tests/integration/channels."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from itertools import count
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.broker import BrokerError, RecentOptions
from channels.broker_memory import OVERHEAD, MemoryBroker
from storage.contract import Appended, ClientInfo, Position, Publication, ReadQuery

ALL = ReadQuery(limit=-1)


class Node:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[Publication], str]] = []

    def on_publications(self, channel: str, publications: Sequence[Publication], epoch: str) -> None:
        self.told.append((channel, list(publications), epoch))

    def on_join(self, channel: str, info: ClientInfo) -> None: ...

    def on_leave(self, channel: str, info: ClientInfo) -> None: ...

    def on_control(self, message: bytes) -> None: ...

    def on_doubt(self, channels: Sequence[str] | None) -> None: ...


class Bench:
    """A broker with a clock in hand."""

    def __init__(self, **bounds: int) -> None:
        self.now = 0.0
        secrets = count(1)
        self.node = Node()
        self.broker = MemoryBroker(
            clock=lambda: self.now, wall=lambda: 1000 + self.now, secret=lambda: b"%016d" % next(secrets), **bounds
        )
        run(self.broker.open(self.node))

    def publish(self, channel: str, data: bytes = b"x", **options: Any) -> Appended:
        return run(self.broker.publish(channel, Publication(data), RecentOptions(**options)))

    def position(self, channel: str) -> Position:
        return run(self.broker.read(channel, ReadQuery(), 100.0)).position


T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine that never suspends: if it did, this would fail."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise AssertionError("the memory broker has suspended")


RECENT: dict[str, Any] = {"history_size": 5, "history_ttl": 10.0, "history_meta_ttl": 100.0}


def test_the_node_is_told_before_publish_returns() -> None:
    bench = Bench()
    run(bench.broker.subscribe("news"))
    bench.now = 1.5
    epoch = bench.position("news").epoch
    bench.publish("news", b"1", **RECENT)
    assert bench.node.told == [("news", [Publication(b"1", offset=1, time=1_001_500)], epoch)]


def test_it_refuses_while_not_open() -> None:
    broker = MemoryBroker()
    with pytest.raises(BrokerError, match="not open"):
        run(broker.publish("news", Publication(b"1"), RecentOptions()))
    bench = Bench()
    run(bench.broker.close())
    refused: list[Coroutine[Any, Any, Any]] = [
        bench.broker.read("news", ALL, 1.0),
        bench.broker.remove("news"),
        bench.broker.redact("news", 1, None),
        bench.broker.carry("news", [], ""),
        bench.broker.publish_join("news", ClientInfo("", "")),
        bench.broker.publish_leave("news", ClientInfo("", "")),
    ]
    for coroutine in refused:
        with pytest.raises(BrokerError):
            run(coroutine)


def test_epochs_differ_between_channels_and_processes() -> None:
    epochs = set()
    for _ in range(2):
        broker = MemoryBroker()
        run(broker.open(Node()))
        epochs |= {run(broker.read(str(n), ALL, 1.0)).position.epoch for n in range(100)}
    assert len(epochs) == 200


def test_reading_what_was_never_published_keeps_nothing() -> None:
    """A stranger took all places for streams by subscribing to names of its own, for the whole meta ttl."""
    bench = Bench(max_streams=2)
    kept = vars(bench.broker).copy()
    sizes = {name: len(value) for name, value in kept.items() if hasattr(value, "__len__")}
    epochs = {name: bench.position(name).epoch for name in map(str, range(5000))}
    assert {name: len(kept[name]) for name in sizes} == sizes
    assert vars(bench.broker) == kept
    assert bench.broker.num_streams == 0
    assert len(set(epochs.values())) == 5000
    assert bench.publish("4999", **RECENT).position == (1, epochs["4999"])


def test_a_stream_after_the_meta_ttl_has_another_epoch_before_and_after_its_first_publication() -> None:
    bench = Bench()
    seen = []
    for turn in range(5):
        if turn % 2:
            bench.broker.expire()
        before = bench.position("news")
        assert before.offset == 0
        assert bench.publish("news", **RECENT).position == (1, before.epoch)
        assert bench.position("other").epoch not in seen
        seen.append(before.epoch)
        bench.now += 100.0
    assert len(set(seen)) == 5


def test_what_was_read_before_the_end_of_another_stream_is_still_true() -> None:
    bench = Bench()
    bench.publish("ending", **RECENT)
    before = bench.position("news")
    bench.now = 100.0
    bench.broker.expire()
    assert bench.publish("news", **RECENT).position == (1, before.epoch)


def test_no_epoch_comes_again_when_more_streams_have_ended_than_are_remembered() -> None:
    bench = Bench(max_streams=3)
    seen: dict[str, list[str]] = {}
    for turn in range(40):
        channel = f"c{turn * 7 % 11}" if turn % 3 else "often"
        before = bench.position(channel)
        position = bench.publish(channel, **RECENT).position
        assert position == (1, before.epoch)
        seen.setdefault(channel, []).append(position.epoch)
        bench.now += 100.0
        if turn % 2:
            bench.broker.expire()
        assert len(bench.broker._generations) <= 3
        assert bench.broker.num_streams <= 3
    published = [epoch for epochs in seen.values() for epoch in epochs]
    assert len(set(published)) == 40
    assert all(bench.position(channel).epoch not in published for channel in seen)


def test_a_stream_that_lives_while_the_secret_changes_keeps_its_epoch_and_never_gets_it_again() -> None:
    bench = Bench(max_streams=2)
    for_ever = {"history_size": 1, "history_ttl": 1e6}
    first = bench.publish("long", **for_ever, history_meta_ttl=1000.0).position
    for number in range(5):
        bench.publish(f"short {number}", **RECENT)
        bench.now += 100.0
    assert bench.publish("long", **for_ever, history_meta_ttl=1000.0).position == (2, first.epoch)
    seen = {first.epoch}
    for number in range(5):
        bench.now += 1000.0
        bench.publish(f"other {number}", **RECENT)
        bench.now += 100.0
        position = bench.publish("long", **for_ever, history_meta_ttl=1000.0).position
        assert position.offset == 1
        assert position.epoch not in seen
        seen.add(position.epoch)


def test_a_publication_that_makes_room_for_itself_keeps_the_epoch_that_was_told() -> None:
    bench = Bench(max_streams=2)
    for number in range(4):
        bench.publish(f"c{number}", **RECENT)
        if number % 2:
            bench.now += 100.0
    told = bench.position("news")
    assert bench.publish("news", **RECENT).position == (1, told.epoch)
    assert bench.broker.num_streams == 1
    assert bench.position("never").epoch != MemoryBroker(secret=lambda: b"%016d" % 1)._epoch("never")  # it did change


def test_removing_what_is_not_there_makes_nothing() -> None:
    bench = Bench()
    before = bench.position("news")
    run(bench.broker.remove("news"))
    assert run(bench.broker.redact("news", 1, None)) is False
    assert bench.broker.num_streams == 0
    assert bench.position("news") == before


def test_no_more_streams_than_allowed() -> None:
    bench = Bench(max_streams=2)
    bench.publish("one", **RECENT)
    bench.publish("two", **RECENT | {"history_meta_ttl": 20.0})
    with pytest.raises(BrokerError, match="at most 2 channels"):
        bench.publish("three", **RECENT)
    assert bench.position("three").offset == 0
    assert bench.publish("one", **RECENT).position.offset == 2
    assert bench.publish("three").position.offset == 0
    bench.now = 20.0
    assert bench.publish("three", **RECENT).position.offset == 1
    assert bench.broker.num_streams == 2


def test_no_more_keys_than_allowed_and_nothing_is_published() -> None:
    bench = Bench(max_keys=1)
    bench.publish("news", idempotency_key="a", idempotency_window=5.0, **RECENT)
    with pytest.raises(BrokerError, match="at most 1 idempotency keys"):
        bench.publish("news", idempotency_key="b", **RECENT)
    assert bench.publish("news", idempotency_key="a", **RECENT).fresh is False
    assert run(bench.broker.read("news", ALL, 1.0)).position.offset == 1
    bench.now = 5.0
    assert bench.publish("news", idempotency_key="b", **RECENT).fresh is True
    assert bench.broker.num_keys == 1


def test_a_bound_that_is_hit_is_logged_once_a_minute_with_its_setting(caplog: pytest.LogCaptureFixture) -> None:
    def refused(channel: str, **options: Any) -> int:
        caplog.clear()
        with pytest.raises(BrokerError):
            bench.publish(channel, **options)
        for record in caplog.records:
            assert (record.name, record.levelname) == ("hub.broker", "WARNING")
        return len(caplog.records)

    bench = Bench(max_streams=1, max_keys=1)
    bench.publish("one", idempotency_key="a", **RECENT)
    assert refused("two", **RECENT) == 1
    assert "at most 1 channels" in caplog.text
    assert "engine.memory.max_streams" in caplog.text
    assert refused("one", idempotency_key="b") == 1
    assert "engine.memory.max_idempotency_keys" in caplog.text
    bench.now = 59.9
    assert refused("two", **RECENT) == refused("three", **RECENT) == refused("one", idempotency_key="b") == 0
    bench.now = 60.0
    assert refused("two", **RECENT) == refused("one", idempotency_key="b") == 1
    assert refused("two", **RECENT) == 0


def test_an_expired_key_that_is_used_again_needs_no_room() -> None:
    bench = Bench(max_keys=1)
    bench.publish("news", idempotency_key="a", idempotency_window=5.0)
    bench.now = 6.0
    assert bench.publish("news", idempotency_key="a", idempotency_window=5.0).fresh is True
    bench.now = 10.5  # the first window's timer has rung by now, the second window is still open
    bench.broker.expire()
    assert bench.publish("news", idempotency_key="a").fresh is False


def test_expire_gives_memory_back() -> None:
    bench = Bench()
    for number in range(10):
        bench.publish(f"channel {number}", idempotency_key="k", idempotency_window=50.0, **RECENT)
    bench.now = 10.0
    assert bench.broker.expire() == 10
    assert all(not stream.items for stream in bench.broker._streams.values())
    assert bench.broker.num_streams == 10
    bench.now = 100.0
    assert bench.broker.expire(limit=4) == 8
    assert (bench.broker.num_streams, bench.broker.num_keys) == (6, 6)
    while bench.broker.expire(limit=4):
        pass
    assert (bench.broker.num_streams, bench.broker.num_keys) == (0, 0)
    assert (bench.broker._timers, bench.broker._key_timers) == ([], [])


def test_publications_end_in_time_though_the_stream_was_to_be_kept_longer() -> None:
    bench = Bench()
    bench.publish("news", **RECENT | {"history_ttl": 500.0})
    run(bench.broker.read("news", ALL, 1000.0))
    bench.publish("news", **RECENT | {"history_meta_ttl": 1000.0})
    bench.now = 10.0
    bench.broker.expire()
    assert not bench.broker._streams["news"].items


def test_a_busy_stream_has_one_timer() -> None:
    bench = Bench()
    for number in range(1000):
        bench.now = number / 10
        bench.publish("news", **RECENT)
        bench.broker.expire()
    assert len(bench.broker._timers) <= 2
    assert len(bench.broker._streams["news"].items) == 5


def test_a_meta_ttl_of_zero_is_for_ever() -> None:
    bench = Bench()
    first = bench.publish("news", history_size=1, history_ttl=1.0)
    bench.now = 1e9
    bench.broker.expire()
    assert bench.publish("news", history_size=1, history_ttl=1.0).position == (2, first.position.epoch)


def test_what_is_removed_stays_removed() -> None:
    bench = Bench()
    bench.publish("news", **RECENT)
    assert run(bench.broker.redact("news", 1, None)) is True
    assert run(bench.broker.redact("news", 1, None)) is True
    assert run(bench.broker.redact("news", 1, b"back")) is False
    assert run(bench.broker.read("news", ALL, 1.0)).publications[0].removed


Epoch = tuple[str, int]
NOWHERE: Epoch = ("", 0)


class Model:
    """The broker said as simply as possible: one list per stream, looked at from the beginning every time."""

    def __init__(self) -> None:
        self.streams: dict[str, dict[str, Any]] = {}
        self.keys: dict[tuple[str, str], tuple[float, tuple[int, Epoch]]] = {}
        self.ended = {"a": 0, "b": 0}

    def stream(self, channel: str, now: float) -> dict[str, Any]:
        found = self.streams.get(channel)
        if found is not None and now >= found["meta_ends"]:
            del self.streams[channel]
            self.ended[channel] += 1
            found = None
        if found is None:
            epoch = (channel, self.ended[channel])
            return {"epoch": epoch, "top": 0, "items": [], "ends": 1e99, "version": (0, "")}
        if now >= found["ends"]:
            found["items"] = []
        return found

    def publish(self, channel: str, now: float, data: bytes, options: RecentOptions) -> tuple[int, Epoch, bool]:
        key = (channel, options.idempotency_key)
        if options.idempotency_key and key in self.keys and now < self.keys[key][0]:
            return (*self.keys[key][1], False)
        if not options.history_size:
            position = (0, NOWHERE)
        else:
            stream = self.streams[channel] = self.stream(channel, now)
            version, version_epoch = stream["version"]
            if 0 < options.version <= version and options.version_epoch in ("", version_epoch):
                return stream["top"], stream["epoch"], False
            if options.version:
                stream["version"] = (options.version, options.version_epoch)
            stream["top"] += 1
            stream["items"] = [*stream["items"], (stream["top"], data)][-options.history_size :]
            stream["ends"] = now + options.history_ttl
            stream["meta_ends"] = now + options.history_meta_ttl
            position = (stream["top"], stream["epoch"])
        if options.idempotency_key:
            self.keys[key] = (now + options.idempotency_window, position)
        return (*position, True)

    def read(self, channel: str, now: float, query: ReadQuery, meta_ttl: float) -> tuple[int, Epoch, list[Any]]:
        stream = self.stream(channel, now)
        if channel in self.streams:
            stream["meta_ends"] = now + meta_ttl
        items = stream["items"][::-1] if query.reverse else stream["items"]
        if query.since >= 0:
            items = [item for item in items if (item[0] < query.since if query.reverse else item[0] > query.since)]
        return stream["top"], stream["epoch"], items if query.limit < 0 else items[: query.limit]

    def redact(self, channel: str, now: float, offset: int, data: bytes) -> bool:
        stream = self.streams.get(channel)
        if stream is None or now >= min(stream["ends"], stream["meta_ends"]):
            return False
        found = [index for index, item in enumerate(stream["items"]) if item[0] == offset]
        for index in found:
            stream["items"][index] = (offset, data)
        return bool(found)


channels = st.sampled_from(["a", "b"])
publishes = st.builds(
    RecentOptions,
    history_size=st.sampled_from([0, 1, 3]),
    history_ttl=st.sampled_from([2.0, 5.0]),
    history_meta_ttl=st.sampled_from([5.0, 9.0]),
    idempotency_key=st.sampled_from(["", "", "k", "l"]),
    idempotency_window=st.sampled_from([1.0, 4.0]),
    version=st.sampled_from([0, 0, 1, 2, 3]),
    version_epoch=st.sampled_from(["", "v"]),
)
queries = st.builds(ReadQuery, limit=st.integers(-1, 3), since=st.integers(-1, 6), reverse=st.booleans())
steps = st.one_of(
    st.tuples(st.just("publish"), channels, publishes),
    st.tuples(st.just("read"), channels, queries),
    st.tuples(st.just("redact"), channels, st.integers(0, 4)),
    st.tuples(st.just("remove"), channels, st.none()),
    st.tuples(st.just("wait"), channels, st.sampled_from([0.5, 1.0, 3.0])),
    st.tuples(st.just("expire"), channels, st.none()),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=30))
def test_it_does_what_the_model_does(todo: list[tuple[str, str, Any]]) -> None:
    bench, model = Bench(), Model()
    names = {NOWHERE: ""}
    run(bench.broker.subscribe("a"))
    delivered = []
    for number, (verb, channel, what) in enumerate(todo):
        data = str(number).encode()
        if verb == "publish":
            offset, epoch, fresh = model.publish(channel, bench.now, data, what)
            got = run(bench.broker.publish(channel, Publication(data), what))
            assert (got.position.offset, got.fresh) == (offset, fresh)
            assert names.setdefault(epoch, got.position.epoch) == got.position.epoch
            if fresh and channel == "a":
                delivered.append((offset, data, got.position.epoch))
        elif verb == "read":
            offset, epoch, items = model.read(channel, bench.now, what, 7.0)
            page = run(bench.broker.read(channel, what, 7.0))
            assert page.position.offset == offset
            assert [(each.offset, each.data) for each in page.publications] == items
            assert names.setdefault(epoch, page.position.epoch) == page.position.epoch
        elif verb == "redact":
            assert run(bench.broker.redact(channel, what, data)) is model.redact(channel, bench.now, what, data)
        elif verb == "remove":
            run(bench.broker.remove(channel))
            if channel in model.streams:
                model.streams[channel]["items"] = []
        elif verb == "wait":
            bench.now += what
        else:
            bench.broker.expire()
    assert [(each.offset, each.data, epoch) for _, (each,), epoch in bench.node.told] == delivered
    assert len(set(names.values())) == len(names)
    bench.now += 100.0
    bench.broker.expire()
    assert (bench.broker.num_streams, bench.broker.num_keys, bench.broker._timers) == (0, 0, [])


def test_a_publication_with_a_time_of_its_own_keeps_it_without_history() -> None:
    bench = Bench()
    run(bench.broker.subscribe("news"))
    run(bench.broker.publish("news", Publication(b"1", time=7), RecentOptions()))
    bench.publish("news", b"2")
    assert [(each.data, each.time) for _, (each,), _ in bench.node.told] == [(b"1", 7), (b"2", 1_000_000)]


class TestBytes:
    """Whoever may publish chooses names and payloads: all of recent history together has a bound in bytes."""

    def test_what_has_no_room_is_refused_and_nothing_is_half_done(self) -> None:
        bench = Bench(max_bytes=3 * (OVERHEAD + 100))
        for channel in ("a", "b", "c"):
            bench.publish(channel, b"x" * 100, **RECENT)
        with pytest.raises(BrokerError, match="bytes of recent history"):
            bench.publish("d", b"x", **RECENT)
        with pytest.raises(BrokerError, match="bytes of recent history"):
            bench.publish("a", b"x", **RECENT)
        assert bench.position("a").offset == 1
        assert bench.broker.num_streams == 3
        bench.publish("plain", b"x" * 10_000)

    def test_a_full_stream_goes_on_in_its_own_room(self) -> None:
        bench = Bench(max_bytes=5 * (OVERHEAD + 1))
        for _ in range(20):
            bench.publish("a", b"x", **RECENT)
        assert bench.position("a").offset == 20
        assert bench.broker.num_bytes == 5 * (OVERHEAD + 1)

    def test_all_that_ends_gives_its_bytes_back(self) -> None:
        bench = Bench(max_bytes=10 * (OVERHEAD + 10))
        for channel in ("a", "b"):
            for _ in range(5):
                bench.publish(channel, b"x" * 10, **RECENT)
        run(bench.broker.redact("a", 1, None))
        run(bench.broker.redact("a", 2, b"y"))
        assert bench.broker.num_bytes == 10 * OVERHEAD + 8 * 10 + 1
        run(bench.broker.remove("a"))
        assert bench.broker.num_bytes == 5 * (OVERHEAD + 10)
        bench.now = 11.0
        bench.publish("c", b"x" * 10, **RECENT)
        bench.broker.expire()
        assert bench.broker.num_bytes == OVERHEAD + 10
        bench.now = 1000.0
        bench.broker.expire()
        assert (bench.broker.num_bytes, bench.broker.num_streams) == (0, 0)
        assert {name: value for name, _, value in bench.broker.gauges()}["recent_bytes"] == 0

    def test_room_is_made_by_what_has_ended(self) -> None:
        bench = Bench(max_bytes=OVERHEAD + 10)
        bench.publish("a", b"x" * 10, **RECENT)
        bench.now = 11.0
        bench.publish("b", b"x" * 10, **RECENT)

    def test_ended_keys_make_room_however_many_streams_have_ended(self) -> None:
        """Streams used up the allowance of a round, and publishes with new keys were refused."""
        bench = Bench(max_keys=1)
        for number in range(11_000):
            bench.publish(f"c{number}", **{**RECENT, "history_ttl": 1.0})
        bench.publish("k", idempotency_key="1", idempotency_window=1.0)
        bench.now = 2.0
        assert bench.publish("k", idempotency_key="2", idempotency_window=1.0).fresh
