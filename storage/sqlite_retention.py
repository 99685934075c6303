"""What retention, removal and redaction do to the tables, in steps small enough to let appends through in between."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from storage.contract import Retention
from storage.sqlite_reader import SELECT_STREAM, SELECT_TIME, first_at
from storage.sqlite_rows import OFFSET_BITS, OFFSET_MAX, key_of

STEP_ROWS = 1000
"""Publications deleted in one transaction."""
STEP_STREAMS = 500
"""Streams looked at in one read."""

_OLDEST = (
    f"FROM publications AS p WHERE p.id > s.id << {OFFSET_BITS} AND p.id < (s.id + 1) << {OFFSET_BITS}"
    " ORDER BY p.id LIMIT 1"
)
SELECT_OLDEST = (
    f"SELECT s.id, s.top_offset, (SELECT p.id {_OLDEST}), (SELECT p.time_ms {_OLDEST}) FROM streams AS s"
    " WHERE s.namespace = ? AND s.id > ? ORDER BY s.id LIMIT ?"
)
DELETE_RANGE = "DELETE FROM publications WHERE id BETWEEN ? AND ?"
DELETE_KEYS = (
    "DELETE FROM idempotency WHERE (stream_id, key) IN"
    " (SELECT stream_id, key FROM idempotency WHERE expires <= ? ORDER BY expires LIMIT ?)"
)
UPDATE_DATA = "UPDATE publications SET data = ?, removed = 0 WHERE id = ?"
UPDATE_REMOVED = "UPDATE publications SET data = x'', info = NULL, tags = NULL, delta = 0, removed = 1 WHERE id = ?"


class Span(NamedTuple):
    """Publications of a stream, from offset ``low`` to ``high``, both inclusive."""

    stream: int
    low: int
    high: int


def find_surplus(
    connection: sqlite3.Connection, namespace: str, rule: Retention, after: int, now: int
) -> tuple[list[Span], int]:
    """What ``rule`` no longer allows among the next streams of a namespace, and the id to go on after (0 = done).

    ``now`` is in milliseconds.
    """
    rows = connection.execute(SELECT_OLDEST, (namespace, after, STEP_STREAMS)).fetchall()
    surplus: list[Span] = []
    for stream, top, key, oldest in rows:
        if key is None:
            continue
        low = keep = key & OFFSET_MAX
        if rule.size > 0:
            keep = max(keep, top - rule.size + 1)
        if rule.age > 0:
            youngest_expired = now - int(rule.age * 1000)
            if oldest <= youngest_expired:
                keep = max(keep, first_at(connection, stream, keep, top, youngest_expired + 1))
        if keep > low:
            surplus.append(Span(stream, low, keep - 1))
    return surplus, rows[-1][0] if len(rows) == STEP_STREAMS else 0


def find_all(connection: sqlite3.Connection, channel: str) -> list[Span]:
    """All that a stream holds now."""
    row = connection.execute(SELECT_STREAM, (channel,)).fetchone()
    if row is None or row[2] == 0:
        return []
    stream, _epoch, top = row
    oldest = connection.execute(SELECT_TIME, (key_of(stream, 1), key_of(stream, top))).fetchone()
    return [] if oldest is None else [Span(stream, oldest[0] & OFFSET_MAX, top)]


def in_steps(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """The same spans, cut and put together so that each list covers at most ``STEP_ROWS`` offsets."""
    step: list[Span] = []
    room = STEP_ROWS
    for stream, low, high in spans:
        while low <= high:
            last = min(high, low + room - 1)
            step.append(Span(stream, low, last))
            room -= last - low + 1
            low = last + 1
            if not room:
                yield step
                step, room = [], STEP_ROWS
    if step:
        yield step


def delete_spans(connection: sqlite3.Connection, spans: Sequence[Span], *, wipe: bool = False) -> int:
    """Delete publications and say how many there were; with ``wipe`` their bytes are overwritten in the file."""
    with _wiping(connection, wipe):
        return sum(
            connection.execute(DELETE_RANGE, (key_of(stream, low), key_of(stream, high))).rowcount
            for stream, low, high in spans
        )


def delete_expired_keys(connection: sqlite3.Connection, now: int) -> int:
    """Delete some idempotency keys whose window is over (``now`` in milliseconds); fewer than ``STEP_ROWS`` = all."""
    return connection.execute(DELETE_KEYS, (now, STEP_ROWS)).rowcount


def give_back(connection: sqlite3.Connection) -> int:
    """Shrink the file by some of its free pages and say how many; fewer than ``STEP_ROWS`` = all that is surplus.

    A quarter of the file may stay free: where as much comes as goes, it would be taken again at once.
    """
    free, pages = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count"))
    surplus = min(free - pages // 4, STEP_ROWS)
    if surplus <= 0:
        return 0
    for _ in range(surplus):
        connection.execute("PRAGMA incremental_vacuum(1)")  # one at a time: sqlite3 takes one step of it only
    left: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    return int(free) - left


def redact(connection: sqlite3.Connection, channel: str, offset: int, data: bytes | None) -> bool:
    """Replace the payload at ``offset``, or with ``None`` leave an empty tombstone; false if nothing is there."""
    row = connection.execute(SELECT_STREAM, (channel,)).fetchone()
    if row is None or not 1 <= offset <= row[2]:
        return False
    key = key_of(row[0], offset)
    with _wiping(connection, True):
        if data is None:
            return connection.execute(UPDATE_REMOVED, (key,)).rowcount == 1
        return connection.execute(UPDATE_DATA, (data, key)).rowcount == 1


@contextlib.contextmanager
def _wiping(connection: sqlite3.Connection, wipe: bool) -> Iterator[None]:
    """Overwrite what is deleted meanwhile, also where that costs writes of its own."""
    if not wipe:
        yield
        return
    connection.execute("PRAGMA secure_delete = ON")
    try:
        yield
    finally:
        connection.execute("PRAGMA secure_delete = FAST")
