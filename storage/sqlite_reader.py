"""Queries, each on one snapshot, and the small pool of threads with read-only connections that runs them."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from storage.contract import Page, Position, ReadQuery
from storage.epochs import EpochNames
from storage.errors import StoreUnavailable
from storage.pages import up_to
from storage.sqlite_file import connect_reader
from storage.sqlite_rows import OFFSET_MAX, PUBLICATION_COLUMNS, decode_publication, key_of, select_rows

T = TypeVar("T")

GRACE = 1.0
"""Seconds that reads have to end when they are interrupted."""

SELECT_STREAM = "SELECT id, epoch, top_offset FROM streams WHERE channel = ?"
SELECT_POSITIONS = "SELECT channel, top_offset, epoch FROM streams WHERE channel IN (VALUES :rows)"
SELECT_TIME = "SELECT id, time_ms FROM publications WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1"
SELECT_PAGE = f"SELECT {PUBLICATION_COLUMNS} FROM publications WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
SELECT_PAGE_REVERSE = SELECT_PAGE.replace("ORDER BY id", "ORDER BY id DESC")


def first_at(connection: sqlite3.Connection, stream: int, low: int, high: int, time: int) -> int:
    """The least offset in ``low``..``high`` whose publication is not older than ``time`` (ms), or ``high + 1``.

    Times do not decrease along a stream, so this bisects its primary key. Offsets missing at the bottom do no harm.
    """
    end = high + 1
    while low < end:
        middle = (low + end) // 2
        row = connection.execute(SELECT_TIME, (key_of(stream, middle), key_of(stream, end - 1))).fetchone()
        if row is None or row[1] >= time:
            end = middle
        else:
            low = (row[0] & OFFSET_MAX) + 1
    return low


def read_page(connection: sqlite3.Connection, channel: str, query: ReadQuery, names: EpochNames) -> Page:
    """One page of a stream; of one that does not exist an empty page at offset 0 of the epoch in ``names``."""
    row = connection.execute(SELECT_STREAM, (channel,)).fetchone()
    if row is None:
        return Page([], Position(0, names.of(channel)))
    stream, epoch, top = row
    position = Position(top, epoch)
    low, high = 1, top
    if query.since >= 0:
        if query.reverse:
            high = min(high, query.since - 1)
        else:
            low = query.since + 1
    if query.limit == 0 or low > high:
        return Page([], position)
    if query.since_time:
        low = first_at(connection, stream, low, high, query.since_time)
    if query.until_time:
        high = first_at(connection, stream, low, high, query.until_time) - 1
    if low > high:
        return Page([], position)
    limit = min(query.limit, high - low + 1) if query.limit > 0 else -1
    statement = SELECT_PAGE_REVERSE if query.reverse else SELECT_PAGE
    rows = connection.execute(statement, (key_of(stream, low), key_of(stream, high), limit))
    if query.max_bytes:
        return Page(up_to(map(decode_publication, rows), query.max_bytes), position)
    return Page([decode_publication(row) for row in rows.fetchall()], position)


def read_positions(connection: sqlite3.Connection, channels: Sequence[str], names: EpochNames) -> dict[str, Position]:
    """The tops of the streams of ``channels``; those that do not exist as in ``read_page``."""
    found = select_rows(connection, SELECT_POSITIONS, [(channel,) for channel in channels])
    tops = {channel: Position(top, epoch) for channel, top, epoch in found}
    for channel in channels:
        if channel not in tops:
            tops[channel] = Position(0, names.of(channel))
    return tops


class ReaderPool:
    """A few threads, each with a read-only connection of its own."""

    def __init__(self, path: Path, *, threads: int, busy_timeout: float) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._submitted: set[Future[Any]] = set()
        self._over = False
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="hub-store-reader")

    def submit(self, function: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Run ``function`` in a read transaction, soon; not after ``close``."""
        future = self._executor.submit(self._run, function)
        self._submitted.add(future)
        future.add_done_callback(self._submitted.discard)
        return future

    def close(self, timeout: float) -> None:
        """Finish what was submitted, blocking, for ``timeout`` seconds; then end the rest, and close the connections.

        What is ended so raises ``StoreUnavailable`` or ``sqlite3.Error``. A read that hangs in the disk is left behind.
        """
        self._executor.shutdown(wait=False)
        _, hanging = wait(set(self._submitted), timeout)
        if hanging:
            self._over = True
            for connection in tuple(self._connections):
                connection.interrupt()
            _, hanging = wait(hanging, GRACE)
        if not hanging:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    def _run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        if self._over:
            raise StoreUnavailable(f"{self._path} was closed before this could be read")
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = connect_reader(self._path, busy_timeout=self._busy_timeout)
            self._connections.append(connection)
            self._local.connection = connection
        connection.execute("BEGIN")
        try:
            return function(connection)
        finally:
            if connection.in_transaction:  # an error may have ended it
                connection.execute("ROLLBACK")
