"""Any sequence of operations gives what a simple model in memory gives, across restarts."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.contract import AppendRequest, Publication, ReadQuery, Retention

CHANNELS = ["a", "b", "c"]
NAMESPACES = {"a": "n", "b": "n", "c": "m"}

channels = st.sampled_from(CHANNELS)
small = st.integers(0, 12)
appends = st.tuples(
    st.just("append"),
    channels,
    st.sampled_from(["", "", "k1", "k2"]),
    st.sampled_from([1.0, 5.0]),
    st.sampled_from([0, 0, 1, 2, 3, 2**63, 2**64 - 1]),
    st.sampled_from(["", "v", "w"]),
)
reads = st.tuples(
    st.just("read"),
    channels,
    st.builds(
        ReadQuery,
        limit=st.integers(-1, 6),
        since=st.integers(-1, 12),
        since_time=small.map(lambda second: second * 1000),
        until_time=small.map(lambda second: second * 1000),
        reverse=st.booleans(),
    ),
)
operations = st.one_of(
    appends,
    appends,
    appends,
    st.tuples(st.just("together"), st.lists(appends, min_size=2, max_size=6)),
    reads,
    reads,
    st.tuples(st.just("tick"), st.sampled_from([-0.5, 0.5, 1.0, 3.0])),
    st.tuples(st.just("redact"), channels, small, st.sampled_from([None, b"new"])),
    st.tuples(st.just("remove"), channels),
    st.tuples(st.just("prune"), st.sampled_from(["n", "m"]), st.integers(0, 3), st.sampled_from([0.0, 1.0, 2.5])),
    st.tuples(st.just("reopen")),
)


class Stream:
    def __init__(self) -> None:
        self.top = 0
        self.time = 0
        self.version = (0, "")
        self.rows: list[tuple[int, int, bytes, bool]] = []
        self.keys: dict[str, tuple[int, float]] = {}


class Model:
    def __init__(self) -> None:
        self.now = 1.0
        self.serial = 0
        self.streams: dict[str, Stream] = {}

    def stream(self, channel: str) -> Stream:
        return self.streams.setdefault(channel, Stream())

    def append(self, channel: str, data: bytes, key: str, window: float, version: int, epoch: str) -> tuple[int, bool]:
        stream = self.stream(channel)
        if key and key in stream.keys and stream.keys[key][1] > self.now:
            return stream.keys[key][0], False
        if version:
            if epoch in ("", stream.version[1]) and version <= stream.version[0]:
                return stream.top, False
            stream.version = (version, epoch)
        stream.top += 1
        stream.time = max(stream.time, int(self.now * 1000))
        stream.rows.append((stream.top, stream.time, data, False))
        if key:
            stream.keys[key] = (stream.top, self.now + window)
        return stream.top, True

    def read(self, channel: str, query: ReadQuery) -> tuple[list[tuple[int, int, bytes, bool]], int]:
        stream = self.stream(channel)
        rows = stream.rows[::-1] if query.reverse else stream.rows
        if query.since >= 0:
            rows = [row for row in rows if (row[0] < query.since if query.reverse else row[0] > query.since)]
        if query.since_time:
            rows = [row for row in rows if row[1] >= query.since_time]
        if query.until_time:
            rows = [row for row in rows if row[1] < query.until_time]
        return (rows if query.limit < 0 else rows[: query.limit]), stream.top

    def redact(self, channel: str, offset: int, data: bytes | None) -> bool:
        rows = self.streams[channel].rows if channel in self.streams else []
        for index, row in enumerate(rows):
            if row[0] == offset:
                rows[index] = (offset, row[1], data or b"", data is None)
                return True
        return False

    def prune(self, namespace: str, size: int, age: float) -> int:
        deleted = 0
        for channel, stream in self.streams.items():
            if NAMESPACES[channel] == namespace:
                kept = [
                    row
                    for row in stream.rows
                    if (not size or row[0] > stream.top - size) and (not age or row[1] > (self.now - age) * 1000)
                ]
                deleted += len(stream.rows) - len(kept)
                stream.rows = kept
        return deleted


async def check(home: Any, steps: list[Any]) -> None:
    model = Model()
    store = home.make(clock=lambda: model.now)
    await store.open()

    def request(step: Any) -> AppendRequest:
        model.serial += 1
        _, channel, key, window, version, epoch = step
        return AppendRequest(
            channel,
            Publication(b"%d" % model.serial),
            namespace=NAMESPACES[channel],
            idempotency_key=key,
            idempotency_window=window,
            version=version,
            version_epoch=epoch,
        )

    async def append(steps: list[Any]) -> None:
        requests = [request(step) for step in steps]
        made = await asyncio.gather(*(store.append(one) for one in requests))
        expected = [
            model.append(
                one.channel,
                one.publication.data,
                one.idempotency_key,
                one.idempotency_window,
                one.version,
                one.version_epoch,
            )
            for one in requests
        ]
        assert [(one.position.offset, one.fresh) for one in made] == expected

    async def read(channel: str, query: ReadQuery) -> None:
        page = await store.read(channel, query)
        rows = [(one.offset, one.time, one.data, one.removed) for one in page.publications]
        assert (rows, page.position.offset) == model.read(channel, query)

    for step in steps:
        match step:
            case ("append", *_):
                await append([step])
            case ("together", many):
                await append(many)
            case ("read", channel, query):
                await read(channel, query)
            case ("tick", seconds):
                model.now = max(1.0, model.now + seconds)
            case ("redact", channel, offset, data):
                assert await store.redact(channel, offset, data) == model.redact(channel, offset, data)
            case ("remove", channel):
                await store.remove(channel)
                if channel in model.streams:
                    model.streams[channel].rows = []
            case ("prune", namespace, size, age):
                assert await store.prune({namespace: Retention(size, age)}) == model.prune(namespace, size, age)
            case ("reopen",):
                epochs = await store.positions(list(model.streams))
                await store.close()
                store = home.make(clock=lambda: model.now)
                await store.open()
                assert await store.positions(list(model.streams)) == epochs
    for channel in CHANNELS:
        await read(channel, ReadQuery(limit=-1))
    await store.close()


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(operations, max_size=30))
def test_a_store_does_what_the_model_does(home_type: Callable[[Path], Any], steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(home_type(Path(folder)), steps))
