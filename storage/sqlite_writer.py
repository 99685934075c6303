"""The one thread that writes, and its group commits.

Everything that queued up while the last transaction was on its way to the disk goes into the next one, so a commit (one
fsync) is shared by all who wait at that moment. Outcomes go back to the event loop in one call per transaction.

What has waited beyond its deadline when its transaction could begin is failed and not written, so only the transaction
that is under way at a deadline may be committed although its publishers were told that they waited too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from time import monotonic, perf_counter
from typing import Any, NamedTuple

from storage.contract import AppendRequest, Committed
from storage.errors import StoreError, StoreUnavailable
from storage.sqlite_append import Appender
from storage.sqlite_file import Identity

log = logging.getLogger(__name__)

_TROUBLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}
"""Errors that are the disk's or the file's, not those of what was to be written."""

BUSY_STEP = 0.1
"""Seconds that SQLite waits for a locked file before we look whether waiting still makes sense."""
GRACE = 1.0
"""Seconds that a transaction has to end when it is interrupted."""


def is_trouble(error: BaseException) -> bool:
    """Whether an error comes from the state of disk or file, so that other data would have failed too."""
    return isinstance(error, MemoryError | OSError) or (
        isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _TROUBLE
    )


class Entry:
    """Something for the writer to do, and the future of the one who waits for it.

    An append goes into a group commit; a function gets a transaction of its own, and its result is the future's.
    ``deadline`` is in seconds of ``time.monotonic``; ``kind`` names the operation.
    """

    __slots__ = ("deadline", "future", "kind", "work")

    def __init__(
        self,
        work: AppendRequest | Callable[[sqlite3.Connection], Any],
        future: asyncio.Future[Any],
        deadline: float,
        kind: str,
    ) -> None:
        self.work = work
        self.future = future
        self.deadline = deadline
        self.kind = kind


class Outcome(NamedTuple):
    """How a transaction ended: a result for each entry, or the error that all of them get."""

    entries: Sequence[Entry]
    results: Sequence[Any]
    committed: Sequence[Committed]
    error: StoreError | None
    seconds: float


class Writer:
    """Runs entries in the order of ``put`` in few transactions, and reports each ``Outcome`` on the loop."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        path: str,
        identity: Identity,
        busy_timeout: float,
        loop: asyncio.AbstractEventLoop,
        report: Callable[[Outcome], None],
        appender: Appender,
        clock: Callable[[], float],
        batch_max: int = 1000,
    ) -> None:
        self._connection = connection
        self._path = path
        self._identity = identity
        self._busy_timeout = busy_timeout
        self._loop = loop
        self._report = report
        self._appender = appender
        self._clock = clock
        self._batch_max = batch_max
        self._queue: SimpleQueue[Entry | None] = SimpleQueue()
        self._data_version = 0
        self._leave_by = float("inf")
        self._thread = threading.Thread(target=self._run, name="hub-store-writer", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Queue an entry; not after ``stop``."""
        self._queue.put(entry)

    def stop(self, by: float) -> None:
        """Finish what is queued, then fold the write-ahead log into the database and close it; see ``join``.

        What has not begun ``by`` then (``time.monotonic``) is failed, and the log stays for the next start.
        """
        self._leave_by = by
        self._queue.put(None)

    def join(self) -> bool:
        """Wait, blocking, until the thread has ended after ``stop``; false if it hangs, in the disk, all the same.

        From the end of its time on, what it is doing is interrupted.
        """
        self._thread.join(max(self._leave_by - monotonic(), 0.0))
        give_up = monotonic() + GRACE
        while self._thread.is_alive() and monotonic() < give_up:
            with contextlib.suppress(sqlite3.ProgrammingError):  # it is closed
                self._connection.interrupt()
            self._thread.join(0.02)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._wait_at_most(min(self._busy_timeout, BUSY_STEP))
            stopped = False
            while not stopped:
                batch = [self._queue.get()]
                try:
                    while len(batch) < self._batch_max:
                        batch.append(self._queue.get_nowait())
                except Empty:
                    pass
                stopped = batch[-1] is None
                self._work([entry for entry in batch if entry is not None])
        finally:
            try:
                self._fold()
            except sqlite3.Error as error:
                log.warning("%s: the write-ahead log stays behind (%s); the next start reads it", self._path, error)
            finally:
                self._connection.close()

    def _fold(self) -> None:
        left = self._leave_by - monotonic()
        if left <= 0:
            raise sqlite3.OperationalError("there was no time left")
        self._wait_at_most(min(self._busy_timeout, left))
        busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise sqlite3.OperationalError("another program uses it")

    def _wait_at_most(self, seconds: float) -> None:
        """For a locked file."""
        self._connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    def _work(self, batch: Sequence[Entry]) -> None:
        group: list[Entry] = []
        for entry in batch:
            if callable(entry.work):
                self._commit(group)
                group = []
                self._commit([entry])
            else:
                group.append(entry)
        self._commit(group)

    def _commit(self, entries: Sequence[Entry]) -> None:
        """One transaction for ``entries``: all of them appends, or a single function."""
        entries = self._in_time(entries)
        if not entries:
            return
        started = perf_counter()
        try:
            self._begin(max(entry.deadline for entry in entries))
            entries = self._in_time(entries)
            if not entries:
                self._undo()
                return
            results, committed = self._transact(entries)
        except Exception as error:  # noqa: BLE001 - it goes to those who wait
            self._undo()
            if is_trouble(error):
                failure: StoreError = StoreUnavailable(f"{self._path} cannot be written now: {error}")
            elif len(entries) > 1:
                # What one of them carries cannot be stored: find it, so that the others do not suffer for it.
                middle = len(entries) // 2
                self._commit(entries[:middle])
                self._commit(entries[middle:])
                return
            else:
                log.error("%s: a write was refused: %r", self._path, error)
                failure = StoreError(f"{self._path} cannot store this: {error}")
            failure.__cause__ = error
            self._tell(Outcome(entries, (), (), failure, perf_counter() - started))
        else:
            self._tell(Outcome(entries, results, committed, None, perf_counter() - started))

    def _in_time(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Those that can still be written; the others are failed."""
        now = monotonic()
        closed = now >= self._leave_by
        late = entries if closed else [entry for entry in entries if entry.deadline <= now]
        if not late:
            return entries
        why = "was closed before this could be written" if closed else "could not write this in time"
        self._tell(Outcome(late, (), (), StoreUnavailable(f"{self._path} {why}"), 0.0))
        return () if closed else [entry for entry in entries if entry.deadline > now]

    def _begin(self, deadline: float) -> None:
        give_up = min(monotonic() + self._busy_timeout, deadline)
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or monotonic() >= min(give_up, self._leave_by):
                    raise
            else:
                return

    def _transact(self, entries: Sequence[Entry]) -> tuple[Sequence[Any], Sequence[Committed]]:
        connection = self._connection
        self._identity.verify()
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._data_version:  # somebody wrote with another program
            self._appender.forget()
            self._data_version = version
        work = entries[0].work
        results: Sequence[Any]
        committed: Sequence[Committed] = ()
        if callable(work):
            results = [work(connection)]
        else:
            group: list[Any] = [entry.work for entry in entries]
            results, committed = self._appender.run(connection, group, int(self._clock() * 1000))
        connection.execute("COMMIT")
        self._identity.verify()  # again: nothing is acknowledged that went into files which are gone
        self._appender.settle()
        return results, committed

    def _undo(self) -> None:
        self._appender.forget()
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                log.error("%s: rolling back failed: %s", self._path, error)

    def _tell(self, outcome: Outcome) -> None:
        try:
            self._loop.call_soon_threadsafe(self._report, outcome)
        except RuntimeError:  # the loop was closed without closing the store: nobody waits any more
            log.error("%s: %d writes ended after the event loop was closed", self._path, len(outcome.entries))
