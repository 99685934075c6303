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
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from storage.sqlite_file import FileLock, Identity, epoch_secret, open_database, take
from storage.sqlite_reader import ReaderPool, read_page, read_positions
from storage.sqlite_writer import Entry, Outcome, Writer
from storage.trouble import Trouble

log = logging.getLogger(__name__)

T = TypeVar("T")

BUSY_TIMEOUT_MAX = 5.0
"""Seconds that a transaction waits at most for another program that has the file locked."""


def _ignore(_committed: Sequence[Committed]) -> None:
    pass


def _probe(connection: sqlite3.Connection) -> None:
    """A write that leaves nothing but needs what every write needs: the lock, and space in the write-ahead log."""
    connection.execute("INSERT OR REPLACE INTO hub_store VALUES ('probe', x'')")
    connection.execute("DELETE FROM hub_store WHERE name = 'probe'")


class SQLiteStore:
    """``PublicationStore`` in a SQLite file.

    ``queue_max`` bounds writes and reads that wait, each on its own; ``commit_timeout`` is how long a caller waits at
    most, ``close_timeout`` how long ``close`` works on what was accepted before it fails the rest. While there is
    ``trouble``, a write that leaves nothing is tried every ``probe_interval``. ``clock`` gives seconds since the Unix
    epoch; it is also called in the writer's thread. ``secret`` (16 to 64 bytes, default: random) is for a new file
    only: it names the epochs of streams and stays with the file and its copies. ``observe(kind, seconds, rows)`` is
    called on the loop: ``commit`` for a transaction of appends (``rows`` publications), ``read`` for a page or
    positions with the wait for a reader, ``prune`` for a transaction of retention with the wait for the writer.
    ``failed(kind)`` is called on the loop for each call that failed, of those kinds (``commit``: a publication),
    ``remove``, ``redact`` and ``probe``.
    ``cache_max`` bounds the streams whose state is held in memory, ``batch_max`` the writes in one transaction.
    """

    on_commit: CommitListener

    def __init__(
        self,
        path: Path,
        *,
        queue_max: int = 10_000,
        commit_timeout: timedelta = timedelta(seconds=10),
        close_timeout: timedelta = timedelta(seconds=5),
        probe_interval: timedelta = timedelta(seconds=2),
        clock: Callable[[], float] = time.time,
        secret: bytes | None = None,
        observe: Callable[[str, float, int], None] | None = None,
        failed: Callable[[str], None] | None = None,
        readers: int = 2,
        cache_max: int = 10_000,
        batch_max: int = 1000,
    ) -> None:
        self.path = path
        self.on_commit = _ignore
        self._queue_max = queue_max
        self._timeout = commit_timeout.total_seconds()
        self._close_timeout = close_timeout.total_seconds()
        self._probe_interval = probe_interval.total_seconds()
        self._clock = clock
        self._secret = secret
        self._observe = observe
        self._failed = failed
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
        self._write_trouble = Trouble(str(path), "writes", log=log)
        self._read_trouble = Trouble(str(path), "reads", log=log)
        self._probing: asyncio.TimerHandle | asyncio.Future[Any] | None = None

    @property
    def waiting(self) -> int:
        """How many writes are queued or being committed now."""
        return self._writes

    @property
    def trouble(self) -> str:
        """Why the last write failed, if that was the fault of disk or file; heals by itself, also without traffic."""
        return self._write_trouble.reason

    async def open(self) -> None:
        """Take the file for this process, check it, and bring its schema up to date; raises ``StoreUnusable``.

        Missing folders are made (mode 0700), the file gets mode 0600. Nothing that was there is deleted or replaced.
        """
        if self._writer is not None or self._closing:
            raise StoreUnusable(f"{self.path} is open already or was closed: make a new store to open it again")
        self._loop = asyncio.get_running_loop()
        connection, identity = await asyncio.to_thread(self._open_file)
        self._pool = ReaderPool(self.path, threads=self._readers, busy_timeout=self._busy_timeout)
        self._writer = Writer(
            connection,
            path=str(self.path),
            identity=identity,
            busy_timeout=self._busy_timeout,
            loop=self._loop,
            report=self._settle,
            appender=Appender(names=self._names, cache_max=self._cache_max),
            clock=self._clock,
            batch_max=self._batch_max,
        )

    async def close(self) -> None:
        """Commit and answer all that was accepted, fold the log into the file, release it. Safe to call twice.

        What has not begun within ``close_timeout`` is failed with ``StoreUnavailable``, what has is interrupted.
        """
        async with self._close_lock:
            self._closing = True
            leave_by = time.monotonic() + self._close_timeout
            ended = True
            if self._pool is not None:
                await asyncio.to_thread(self._pool.close, self._close_timeout / 2)
                self._pool = None
            if self._writer is not None:
                writer, self._writer = self._writer, None
                writer.stop(leave_by)
                ended = await asyncio.to_thread(writer.join)
            if self._watchdog is not None:
                self._watchdog.cancel()
                self._watchdog = None
            if isinstance(self._probing, asyncio.TimerHandle):
                self._probing.cancel()
            lock, self._lock = self._lock, None
            if not ended:
                # The file stays locked until the process has ended: there is a write under way.
                log.error(
                    "%s could not be closed within %g s: the disk does not answer", self.path, self._close_timeout
                )
                self._give_up(self._waiting, "could not be closed in time")
            elif lock is not None:
                lock.release()

    async def append(self, request: AppendRequest) -> Appended:
        """Commit one publication and return its position.

        Raises ``StoreUnavailable`` at once when ``queue_max`` writes are waiting, when the disk is full or fails, when
        the file was moved, and after ``commit_timeout``. In that last case the publication may still be committed if
        its transaction was under way just then, and not if it was waiting for it: repeating it is always safe with an
        idempotency key. Raises ``StoreError`` when it can never be stored. Cancelling the caller does not take it back.
        """
        result: Appended = await self._put(request, "commit")
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
            await self._put(partial(retention.delete_spans, spans=step, wipe=True), "remove")

    async def redact(self, channel: str, offset: int, data: bytes | None) -> bool:
        """Replace the payload at ``offset``; with ``None`` payload, info and tags go and a tombstone stays.

        The old bytes are overwritten in the file; the write-ahead log may hold them until it is folded in and reused.
        """
        result: bool = await self._put(partial(retention.redact, channel=channel, offset=offset, data=data), "redact")
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
        while await self._put(retention.give_back, "prune") >= retention.STEP_ROWS:
            pass
        return deleted

    @property
    def _busy_timeout(self) -> float:
        return min(BUSY_TIMEOUT_MAX, self._timeout / 2)  # so that those who wait are told of the lock

    def _open_file(self) -> tuple[sqlite3.Connection, Identity]:
        lock = take(self.path)
        try:
            self.path = lock.path
            connection = open_database(self.path, busy_timeout=self._busy_timeout, secret=self._secret)
            try:
                self._names = EpochNames(epoch_secret(connection))
                identity = Identity(self.path)
            except BaseException:
                connection.close()
                raise
        except OSError as error:
            lock.release()
            raise StoreUnusable(f"{self.path} went away while it was opened ({error}): start again") from error
        except BaseException:
            lock.release()
            raise
        self._lock = lock
        return connection, identity

    async def _prune_step(self, function: Callable[[sqlite3.Connection], int]) -> int:
        started = perf_counter()
        rows: int = await self._put(function, "prune")
        if self._observe is not None:
            self._observe("prune", perf_counter() - started, rows)
        return rows

    # Writing

    def _put(self, work: AppendRequest | Callable[[sqlite3.Connection], Any], kind: str) -> asyncio.Future[Any]:
        writer = self._writer
        if writer is None or (self._closing and isinstance(work, AppendRequest)):
            raise StoreUnavailable(f"{self.path} is not open")
        if self._writes >= self._queue_max and kind != "probe":
            self._count_failed(kind)
            raise StoreUnavailable(f"{self.path} is overloaded: {self._writes} writes are waiting")
        loop = self._loop
        entry = Entry(work, loop.create_future(), time.monotonic() + self._timeout, kind)
        self._writes += 1
        self._waiting.append(entry)
        if self._watchdog is None:
            self._watchdog = loop.call_later(self._timeout, self._watch)
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
            self._write_trouble.worked()
            for entry, result in zip(entries, results, strict=True):
                if not entry.future.done():
                    entry.future.set_result(result)
        else:
            count = 0
            for entry in entries:
                if not entry.future.done():
                    entry.future.set_exception(type(error)(*error.args))  # one for each: raising changes it
                elif not entry.future.cancelled():
                    continue  # it was told, and counted, that it waited too long
                self._count_failed(entry.kind)
                count += 1
            if isinstance(error, StoreUnavailable):
                self._note_trouble(str(error), count)
        waiting = self._waiting
        while waiting and waiting[0].future.done():
            waiting.popleft()
        if self._observe is not None and error is None and entries[0].kind == "commit":
            self._observe("commit", seconds, len(committed))

    def _watch(self) -> None:
        """Fail those who have waited too long: one timer for all of them, since they wait in the order of deadlines."""
        self._watchdog = None
        now = time.monotonic()
        waiting = self._waiting
        late: list[Entry] = []
        while waiting and (waiting[0].future.done() or waiting[0].deadline <= now):
            late.append(waiting.popleft())
        self._give_up(late, f"did not commit within {self._timeout:g} s")
        if waiting:
            self._watchdog = self._loop.call_later(waiting[0].deadline - now, self._watch)

    def _give_up(self, entries: Iterable[Entry], why: str) -> None:
        count = 0
        for entry in entries:
            if not entry.future.done():
                entry.future.set_exception(StoreUnavailable(f"{self.path} {why}"))
                self._count_failed(entry.kind)
                count += 1
        if count:
            self._note_trouble(why, count)

    def _count_failed(self, kind: str) -> None:
        if self._failed is not None:
            self._failed(kind)

    def _note_trouble(self, why: str, count: int) -> None:
        """Remember why writes fail, and see that its end is noticed though nobody should write."""
        self._write_trouble.failed(why.removeprefix(f"{self.path} "), count)
        self._probe_soon()

    def _probe_soon(self) -> None:
        if self.trouble and self._probing is None and not self._closing:
            self._probing = self._loop.call_later(self._probe_interval, self._try)

    def _try(self) -> None:
        self._probing = None
        if self.trouble and self._writer is not None and not self._closing:
            self._probing = self._put(_probe, "probe")
            self._probing.add_done_callback(self._tried)

    def _tried(self, probe: asyncio.Future[Any]) -> None:
        self._probing = None
        probe.exception()  # those who watch over all writes have told it
        self._probe_soon()

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
            self._count_failed("read")
            raise StoreUnavailable(f"{self.path} could not be read within {self._timeout:g} s") from None
        except sqlite3.Error as error:
            self._read_trouble.failed(f"cannot be read: {error}")
            self._count_failed("read")
            raise StoreUnavailable(f"{self.path} cannot be read now: {error}") from error
        finally:
            self._reads -= 1
        self._read_trouble.worked()
        if self._observe is not None:
            self._observe("read", perf_counter() - started, count(result))
        return result


def _rows_of(page: Page) -> int:
    return len(page.publications)
