"""The transaction of a group commit: many appends to many streams as a handful of statements.

The state of recently used streams (id, epoch, top, version) is kept in memory, since this process is the only one that
writes. It is advanced while the transaction is built, and forgotten altogether when that does not commit.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any

from storage.contract import Appended, AppendRequest, Committed, Position, Publication
from storage.epochs import EpochNames
from storage.sqlite_rows import encode_info, encode_tags, execute_rows, from_signed, key_of, select_rows, to_signed

SELECT_STREAMS = (
    "SELECT channel, id, namespace, epoch, top_offset, top_time, version, version_epoch FROM streams"
    " WHERE channel IN (VALUES :rows)"
)
SELECT_KEYS = (
    'SELECT stream_id, key, "offset" FROM idempotency WHERE (stream_id, key) IN (VALUES :rows) AND expires > ?'
)
INSERT_STREAMS = (
    "INSERT INTO streams (id, channel, namespace, epoch, top_offset, top_time, version, version_epoch, created)"
    " VALUES :rows"
)
UPDATE_STREAMS = (
    "UPDATE streams SET namespace = new.column2, top_offset = new.column3, top_time = new.column4,"
    " version = new.column5, version_epoch = new.column6 FROM (VALUES :rows) AS new WHERE streams.id = new.column1"
)
INSERT_PUBLICATIONS = "INSERT INTO publications (id, time_ms, data, info, tags, delta, removed) VALUES :rows"
INSERT_KEYS = 'INSERT OR REPLACE INTO idempotency (stream_id, key, "offset", expires) VALUES :rows'


class StreamState:
    """What an append must know of a stream."""

    __slots__ = ("channel", "epoch", "id", "namespace", "new", "time", "top", "version", "version_epoch")

    def __init__(
        self,
        channel: str,
        id: int,
        namespace: str,
        epoch: str,
        top: int = 0,
        time: int = 0,
        version: int = 0,
        version_epoch: str = "",
        *,
        new: bool = False,
    ) -> None:
        self.channel = channel
        self.id = id
        self.namespace = namespace
        self.epoch = epoch
        self.top = top
        self.time = time
        self.version = version
        self.version_epoch = version_epoch
        self.new = new
        """Not in the database yet."""


class Appender:
    """Builds group commits. ``run`` works inside a transaction of its caller's, who reports how that ended.

    ``names`` gives new streams their epochs.
    """

    def __init__(self, *, names: EpochNames, cache_max: int = 10_000) -> None:
        self._names = names
        self._cache_max = cache_max
        self._cache: OrderedDict[str, StreamState] = OrderedDict()
        self._next_id = 0

    @property
    def cached(self) -> int:
        """How many streams are held in memory now."""
        return len(self._cache)

    def forget(self) -> None:
        """Drop all that is held in memory: the transaction was rolled back, or someone else wrote to the database."""
        self._cache.clear()
        self._next_id = 0

    def settle(self) -> None:
        """The transaction was committed: keep what was used last, at most ``cache_max`` streams."""
        while len(self._cache) > self._cache_max:
            self._cache.popitem(last=False)

    def run(
        self, connection: sqlite3.Connection, work: Sequence[AppendRequest], now: int
    ) -> tuple[list[Appended], list[Committed]]:
        """Write all of ``work`` in its order; ``now`` is in milliseconds. The result has one element for each of it."""
        states = self._load(connection, work)
        keys = _known_keys(connection, work, states, now)
        results: list[Appended] = []
        committed: list[Committed] = []
        rows: list[Sequence[Any]] = []
        key_rows: list[Sequence[Any]] = []
        touched: dict[int, StreamState] = {}
        for item in work:
            state = states[item.channel]
            key = item.idempotency_key
            if key and (repeated := keys.get((state.id, key))) is not None:
                results.append(Appended(Position(repeated, state.epoch), False))
                continue
            if item.version > 0:
                same = not item.version_epoch or item.version_epoch == state.version_epoch
                if same and item.version <= state.version:
                    results.append(Appended(Position(state.top, state.epoch), False))
                    continue
                state.version = item.version
                state.version_epoch = item.version_epoch
            state.top += 1
            if now > state.time:
                state.time = now  # a clock that went back does not: times of a stream never decrease
            state.namespace = item.namespace
            touched[state.id] = state
            given = item.publication
            made = Publication(
                given.data, state.top, state.time, given.info, given.tags, given.delta, given.exclude_client
            )
            info = None if made.info is None else encode_info(made.info)
            tags = None if made.tags is None else encode_tags(made.tags)
            rows.append((key_of(state.id, made.offset), made.time, made.data, info, tags, int(made.delta), 0))
            if key and item.idempotency_window > 0:
                keys[state.id, key] = made.offset
                key_rows.append((state.id, key, made.offset, now + int(item.idempotency_window * 1000)))
            committed.append(Committed(item.channel, state.epoch, made))
            results.append(Appended(Position(made.offset, state.epoch), True))
        _save(connection, touched.values(), now)
        execute_rows(connection, INSERT_PUBLICATIONS, rows)
        execute_rows(connection, INSERT_KEYS, key_rows)
        return results, committed

    def _load(self, connection: sqlite3.Connection, work: Sequence[AppendRequest]) -> dict[str, StreamState]:
        """The states of all streams that ``work`` appends to, new ones included."""
        states: dict[str, StreamState] = {}
        missing: dict[str, str] = {}
        cache = self._cache
        for item in work:
            channel = item.channel
            if channel in states:
                continue
            state = cache.get(channel)
            if state is not None:
                cache.move_to_end(channel)
                states[channel] = state
            else:
                missing[channel] = item.namespace
        if not missing:
            return states
        for row in select_rows(connection, SELECT_STREAMS, [(channel,) for channel in missing]):
            channel, id, namespace, epoch, top, time, version, version_epoch = row
            states[channel] = StreamState(channel, id, namespace, epoch, top, time, from_signed(version), version_epoch)
            cache[channel] = states[channel]
        for channel, namespace in missing.items():
            if channel not in states:
                if not self._next_id:
                    self._next_id = 1 + connection.execute("SELECT coalesce(max(id), 0) FROM streams").fetchone()[0]
                state = StreamState(channel, self._next_id, namespace, self._names.of(channel), new=True)
                self._next_id += 1
                states[channel] = cache[channel] = state
        return states


def _known_keys(
    connection: sqlite3.Connection, work: Sequence[AppendRequest], states: dict[str, StreamState], now: int
) -> dict[tuple[int, str], int]:
    """The offsets of idempotency keys in ``work`` that are still within their window."""
    wanted = [
        (state.id, item.idempotency_key)
        for item in work
        if item.idempotency_key and not (state := states[item.channel]).new
    ]
    if not wanted:
        return {}
    return {(row[0], row[1]): row[2] for row in select_rows(connection, SELECT_KEYS, wanted, now)}


def _save(connection: sqlite3.Connection, touched: Collection[StreamState], now: int) -> None:
    execute_rows(
        connection,
        UPDATE_STREAMS,
        [(s.id, s.namespace, s.top, s.time, to_signed(s.version), s.version_epoch) for s in touched if not s.new],
    )
    created = [s for s in touched if s.new]
    execute_rows(
        connection,
        INSERT_STREAMS,
        [
            (s.id, s.channel, s.namespace, s.epoch, s.top, s.time, to_signed(s.version), s.version_epoch, now)
            for s in created
        ],
    )
    for state in created:
        state.new = False
