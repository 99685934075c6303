"""The embedded home of durable streams: one SQLite file, one writer thread with group commit, two reader threads.

All SQL runs off the event loop. The parts: ``sqlite_file`` takes, checks and opens the file; ``sqlite_writer`` groups
and commits; ``sqlite_append`` is what a commit writes; ``sqlite_reader`` reads; ``sqlite_retention`` deletes
and redacts.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from storage import sqlite_retention as retention
from storage.contract import Appended, AppendRequest, CommitListener, Committed, Page, Position, ReadQuery, Retention
from storage.epochs import EpochNames
from storage.errors import StoreUnavailable, StoreUnusable
from storage.sqlite_append import Appender
from storage.sqlite_file import FileLock, epoch_secret, open_database, take
from storage.sqlite_reader import ReaderPool, read_page, read_positions
from storage.sqlite_writer import Entry, Outcome, Writer

log = logging.getLogger(__name__)

T = TypeVar("T")

BUSY_TIMEOUT_MAX = 5.0
"""Seconds that a transaction waits at most for another program that has the file locked."""


def _ignore(_committed: Sequence[Committed]) -> None:
    pass


class SQLiteStore:
    """``PublicationStore`` in a SQLite file.

    ``queue_max`` bounds writes and reads that wait, each on its own; ``commit_timeout`` is how long a caller waits at
    most. ``clock`` gives seconds since the Unix epoch; it is also called in the writer's thread. ``secret`` (16 to 64
    bytes, default: random) is for a new file only: it names the epochs of streams and stays with the file and its
    copies. ``observe(kind, seconds, rows)`` is called on the loop: ``commit`` for a transaction of appends
    (``rows`` publications), ``read`` for a page or positions with the wait for a reader, ``prune`` for a transaction of
    retention with the wait for the writer.
    ``cache_max`` bounds the streams whose state is held in memory, ``batch_max`` the writes in one transaction.
    """

    on_commit: CommitListener

    def __init__(
        self,
        path: Path,
        *,
        queue_max: int = 10_000,
        commit_timeout: timedelta = timedelta(seconds=10),
        clock: Callable[[], float] = time.time,
        secret: bytes | None = None,
        observe: Callable[[str, float, int], None] | None = None,
        readers: int = 2,
        cache_max: int = 10_000,
        batch_max: int = 1000,
    ) -> None:
        self.path = path
        self.on_commit = _ignore
        self._queue_max = queue_max
        self._timeout = commit_timeout.total_seconds()
        self._clock = clock
        self._secret = secret
        self._observe = observe
        self._readers = readers
        self._cache_max = cache_max
        self._batch_max = batch_max
        self._lock: FileLock | None = None
        self._writer: Writer | None = None
        self._pool: ReaderPool | None = None
        self._closing = False
        self._close_lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop
        self._names: EpochNames
        self._writes = 0
        self._reads = 0
        self._waiting: deque[Entry] = deque()
        self._watchdog: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many writes are queued or being committed now."""
        return self._writes

    async def open(self) -> None:
        """Take the file for this process, check it, and bring its schema up to date; raises ``StoreUnusable``.

        Missing folders are made (mode 0700), the file gets mode 0600. Nothing that was there is deleted or replaced.
        """
        if self._writer is not None or self._closing:
            raise StoreUnusable(f"{self.path} is open already or was closed: make a new store to open it again")
        self._loop = asyncio.get_running_loop()
        connection, self._names, self._lock = await asyncio.to_thread(self._open_file)
        self._pool = ReaderPool(self.path, threads=self._readers, busy_timeout=self._busy_timeout)
        self._writer = Writer(
            connection,
            path=str(self.path),
            loop=self._loop,
            report=self._settle,
            appender=Appender(names=self._names, cache_max=self._cache_max),
            clock=self._clock,
            batch_max=self._batch_max,
        )

    async def close(self) -> None:
        """Commit and answer all that was accepted, fold the log into the file, release it. Safe to call twice."""
        async with self._close_lock:
            self._closing = True
            if self._pool is not None:
                await asyncio.to_thread(self._pool.close)
                self._pool = None
            if self._writer is not None:
                writer, self._writer = self._writer, None
                writer.stop()
                await asyncio.to_thread(writer.join)
            if self._watchdog is not None:
                self._watchdog.cancel()
                self._watchdog = None
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    async def append(self, request: AppendRequest) -> Appended:
        """Commit one publication and return its position.

        Raises ``StoreUnavailable`` at once when ``queue_max`` writes are waiting, when the disk is full or fails, and
        after ``commit_timeout``. In that last case the publication may still be committed: repeating it is safe with an
        idempotency key. Raises ``StoreError`` when it can never be stored. Cancelling the caller does not take it back.
        """
        result: Appended = await self._put(request)
        return result

    async def positions(self, channels: Sequence[str]) -> dict[str, Position]:
        """The tops of ``channels`` from one snapshot."""
        return await self._read(lambda connection: read_positions(connection, channels, self._names), len)

    async def read(self, channel: str, query: ReadQuery) -> Page:
        """Read one page from one snapshot."""
        return await self._read(lambda connection: read_page(connection, channel, query, self._names), _rows_of)

    async def remove(self, channel: str) -> None:
        """Delete all that the stream holds now, in short transactions, overwriting the bytes in the file."""
        spans = await self._read(partial(retention.find_all, channel=channel), len)
        for step in retention.in_steps(spans):
            await self._put(partial(retention.delete_spans, spans=step, wipe=True))

    async def redact(self, channel: str, offset: int, data: bytes | None) -> bool:
        """Replace the payload at ``offset``; with ``None`` payload, info and tags go and a tombstone stays.

        The old bytes are overwritten in the file; the write-ahead log may hold them until it is folded in and reused.
        """
        result: bool = await self._put(partial(retention.redact, channel=channel, offset=offset, data=data))
        return result

    async def prune(self, rules: Mapping[str, Retention]) -> int:
        """Apply retention by namespace name and expire idempotency keys, in short transactions between the appends."""
        now = int(self._clock() * 1000)
        deleted = 0
        for namespace, rule in rules.items():
            if rule.size <= 0 and rule.age <= 0:
                continue
            after, more = 0, True
            while more:
                find = partial(retention.find_surplus, namespace=namespace, rule=rule, after=after, now=now)
                spans, after = await self._read(find, lambda found: len(found[0]))
                more = after > 0
                for step in retention.in_steps(spans):
                    deleted += await self._prune_step(partial(retention.delete_spans, spans=step))
        while await self._prune_step(partial(retention.delete_expired_keys, now=now)) >= retention.STEP_ROWS:
            pass
        return deleted

    @property
    def _busy_timeout(self) -> float:
        return min(BUSY_TIMEOUT_MAX, self._timeout)

    def _open_file(self) -> tuple[sqlite3.Connection, EpochNames, FileLock]:
        lock = take(self.path)
        try:
            connection = open_database(self.path, busy_timeout=self._busy_timeout, secret=self._secret)
            return connection, EpochNames(epoch_secret(connection)), lock
        except BaseException:
            lock.release()
            raise

    async def _prune_step(self, function: Callable[[sqlite3.Connection], int]) -> int:
        started = perf_counter()
        rows: int = await self._put(function)
        if self._observe is not None:
            self._observe("prune", perf_counter() - started, rows)
        return rows

    # Writing

    def _put(self, work: AppendRequest | Callable[[sqlite3.Connection], Any]) -> asyncio.Future[Any]:
        writer = self._writer
        if writer is None or (self._closing and isinstance(work, AppendRequest)):
            raise StoreUnavailable(f"{self.path} is not open")
        if self._writes >= self._queue_max:
            raise StoreUnavailable(f"{self.path} is overloaded: {self._writes} writes are waiting")
        loop = self._loop
        entry = Entry(work, loop.create_future(), loop.time() + self._timeout)
        self._writes += 1
        self._waiting.append(entry)
        if self._watchdog is None:
            self._watchdog = loop.call_at(entry.deadline, self._watch)
        writer.put(entry)
        return entry.future

    def _settle(self, outcome: Outcome) -> None:
        """A transaction has ended: first tell the listener, then those who wait."""
        entries, results, committed, error, seconds = outcome
        self._writes -= len(entries)
        if committed:
            try:
                self.on_commit(committed)
            except Exception:
                log.exception("%s: the listener failed on %d committed publications", self.path, len(committed))
        if error is None:
            for entry, result in zip(entries, results, strict=True):
                if not entry.future.done():
                    entry.future.set_result(result)
        else:
            for entry in entries:
                if not entry.future.done():
                    entry.future.set_exception(type(error)(*error.args))  # one for each: raising changes it
        waiting = self._waiting
        while waiting and waiting[0].future.done():
            waiting.popleft()
        if self._observe is not None and error is None and not callable(entries[0].work):
            self._observe("commit", seconds, len(committed))

    def _watch(self) -> None:
        """Fail those who have waited too long: one timer for all of them, since they wait in the order of deadlines."""
        self._watchdog = None
        now = self._loop.time()
        waiting = self._waiting
        while waiting and (waiting[0].future.done() or waiting[0].deadline <= now):
            future = waiting.popleft().future
            if not future.done():
                future.set_exception(StoreUnavailable(f"{self.path} did not commit within {self._timeout:g} s"))
        if waiting:
            self._watchdog = self._loop.call_at(waiting[0].deadline, self._watch)

    # Reading

    async def _read(self, function: Callable[[sqlite3.Connection], T], count: Callable[[T], int]) -> T:
        pool = self._pool
        if pool is None or self._closing:
            raise StoreUnavailable(f"{self.path} is not open")
        if self._reads >= self._queue_max:
            raise StoreUnavailable(f"{self.path} is overloaded: {self._reads} reads are waiting")
        self._reads += 1
        started = perf_counter()
        try:
            async with asyncio.timeout(self._timeout):
                result = await asyncio.wrap_future(pool.submit(function))
        except TimeoutError:
            raise StoreUnavailable(f"{self.path} could not be read within {self._timeout:g} s") from None
        except sqlite3.Error as error:
            log.error("%s: a read failed: %s", self.path, error)
            raise StoreUnavailable(f"{self.path} cannot be read now: {error}") from error
        finally:
            self._reads -= 1
        if self._observe is not None:
            self._observe("read", perf_counter() - started, count(result))
        return result


def _rows_of(page: Page) -> int:
    return len(page.publications)
