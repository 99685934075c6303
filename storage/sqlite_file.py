"""The database file: taking it for this process alone, opening it safely, and saying plainly why it cannot be used.

Nothing here ever deletes, empties or overwrites a file that it did not make. Connections run in WAL mode with
``synchronous=FULL``: a commit has reached the disk before it is acknowledged.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from storage import migrate
from storage.epochs import SECRET_SIZE
from storage.errors import StoreUnusable

SQLITE_MIN = (3, 37, 0)
CHECK_MAX_BYTES = 64 * 1024 * 1024
"""A file up to this size is checked for damage at every start (it takes well under a second)."""

_MAGIC = b"SQLite format 3\0"
_MIGRATIONS = Path(__file__).parent / "migrations" / "sqlite"
_CHECKPOINT_PAGES = 4000
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class FileLock:
    """An exclusive lock on ``<path>.lock``, held while the object is: a second hub on the same file is refused.

    ``path`` must be free of symbolic links, or one file could be locked under two names; the lock file itself must not
    be one either. It stays behind when the lock is given up, since removing it would let two processes lock two files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # O_NONBLOCK: a named pipe would hold us here.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self._descriptor = os.open(f"{path}.lock", flags, 0o600)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise StoreUnusable(
                    f"{path}.lock is a symbolic link (nothing was changed): remove it, it is not one of a hub's making"
                ) from None
            raise
        try:
            self._take()
        except BaseException:
            os.close(self._descriptor)
            raise

    def _take(self) -> None:
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            raise StoreUnusable(f"{self.path}.lock is not a file: remove it, it is not one of a hub's making")
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip()
            raise StoreUnusable(
                f"{self.path} is in use by another hub{f' (process {holder})' if holder else ''}:"
                f" stop that one, or give this one a database of its own with storage.url"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock up; once."""
        os.close(self._descriptor)


class Identity:
    """Which files an open database consists of, so that it is seen when they are moved or deleted meanwhile.

    Everything goes on working then, but what is written goes into files that the next start does not find.
    """

    def __init__(self, path: Path) -> None:
        """To be made while a connection to ``path``, which is free of symbolic links, is open; raises ``OSError``."""
        self._known = {name: _identity(name) for name in (str(path), f"{path}-wal")}

    def verify(self) -> None:
        """Raise ``Displaced`` when one of the files is not at its place; costs a few microseconds."""
        for name, known in self._known.items():
            try:
                found = _identity(name)
            except FileNotFoundError:
                raise Displaced(name) from None
            if found != known:
                raise Displaced(name)


class Displaced(OSError):
    """A file of the open database is not where it was."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{os.path.basename(name)} was moved, deleted or replaced while the hub runs: put it back, or restart the"
            f" hub to go on with what is there now"
        )


def _identity(name: str) -> tuple[int, int]:
    found = os.stat(name)
    return found.st_dev, found.st_ino


def take(path: Path) -> FileLock:
    """Make sure that ``path`` is or can become a database of ours and lock it; raises ``StoreUnusable``.

    The lock's ``path`` is the one to open: that of the file itself, if ``path`` is or goes through a symbolic link.
    """
    path = Path(os.path.realpath(path))
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        raise StoreUnusable(
            f"{path} needs SQLite {'.'.join(map(str, SQLITE_MIN))} or later, this Python has {sqlite3.sqlite_version}:"
            f" use a Python that is linked with a newer one"
        )
    try:
        if path.is_dir():
            raise StoreUnusable(f"{path} is a folder: storage.url must name a file, for example {path / 'hub.db'}")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            _inspect(path)
        except BaseException:
            lock.release()
            raise
    except OSError as error:
        raise StoreUnusable(
            f"{path} cannot be opened for writing ({error.strerror}): let the hub's user write to {path.parent} and"
            f" to the file, or choose another place with storage.url"
        ) from error
    return lock


def _inspect(path: Path) -> None:
    # Made here and not by SQLite for the mode; the -wal and -shm files get the same one.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        head = os.pread(descriptor, len(_MAGIC), 0)
    finally:
        os.close(descriptor)
    if head and head != _MAGIC:
        raise StoreUnusable(
            f"{path} is not a SQLite database (nothing was changed): move it aside to start with an empty one, or name"
            f" another file with storage.url"
        )
    wal = Path(f"{path}-wal")
    if not head and wal.exists() and wal.stat().st_size:
        # SQLite would delete it, and with it what was committed last.
        raise StoreUnusable(
            f"{wal} is there but its database {path} is missing or empty (nothing was changed): put the database back"
            f" beside it, or move {wal.name} aside to start with an empty one"
        )


def connect_reader(path: Path, *, busy_timeout: float) -> sqlite3.Connection:
    """A connection that can only read; to be used after the writer's one is open."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        timeout=busy_timeout,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    connection.execute("PRAGMA cache_size = -8192")
    return connection


def open_database(path: Path, *, busy_timeout: float, secret: bytes | None = None) -> sqlite3.Connection:
    """Open a file that ``take`` has locked, check it and bring its schema up to date; raises ``StoreUnusable``.

    The connection may write, and may be used from any thread, by one at a time; ``busy_timeout`` is in seconds. Nothing
    is written before all checks have passed. The check for damage (``PRAGMA quick_check``) reads the whole file, so it
    is done only up to ``CHECK_MAX_BYTES``. It is not tied to an unclean end: a killed process or a power cut does not
    damage a database in WAL mode. ``secret`` becomes the ``epoch_secret`` of a database that has none (default: random).
    """
    with _explained(path):
        connection = sqlite3.connect(
            path, timeout=busy_timeout, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            migrations = _check(connection, path)
            _configure(connection, path)
            _migrate(connection, migrations, secrets.token_bytes(SECRET_SIZE) if secret is None else secret)
        except BaseException:
            connection.close()
            raise
    return connection


def epoch_secret(connection: sqlite3.Connection) -> bytes:
    """The secret that names the epochs of new streams, of a database that ``open_database`` has opened."""
    secret: bytes = connection.execute("SELECT value FROM hub_store WHERE name = 'epoch_secret'").fetchone()[0]
    return secret


def _check(connection: sqlite3.Connection, path: Path) -> list[migrate.Migration]:
    """See that the file is whole and ours; returns the migrations that it lacks."""
    if path.stat().st_size <= CHECK_MAX_BYTES:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _damaged(path, verdict)
    applied: dict[str, str] = {}
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if "hub_migrations" in tables:
        applied.update(connection.execute("SELECT name, checksum FROM hub_migrations").fetchall())
    elif tables:
        raise StoreUnusable(
            f"{path} holds the tables of another program ({', '.join(sorted(tables)[:3])}; nothing was changed):"
            f" give the hub a file of its own with storage.url"
        )
    # The database belongs to one process, there is no old code to wait for: both phases run now.
    return migrate.plan(migrate.load(_MIGRATIONS), applied, database=str(path))


def _configure(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file; an old one keeps what it has
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreUnusable(f"{path} lies on a file system that cannot do SQLite's WAL: move it to a local disk")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = FAST")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    connection.execute("PRAGMA cache_size = -16384")


def _migrate(connection: sqlite3.Connection, migrations: Sequence[migrate.Migration], secret: bytes) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS hub_migrations"
        " (name TEXT PRIMARY KEY, checksum TEXT NOT NULL, applied INTEGER NOT NULL) STRICT"
    )
    for migration in migrations:
        now = int(time.time() * 1000)
        note = f"INSERT INTO hub_migrations VALUES ('{migration.name}', '{migration.checksum}', {now});"
        connection.executescript(f"BEGIN IMMEDIATE;\n{migration.sql}\n{note}\nCOMMIT;")
    if connection.execute("SELECT 1 FROM hub_store WHERE name = 'epoch_secret'").fetchone() is None:
        connection.execute("INSERT INTO hub_store VALUES ('epoch_secret', ?)", (secret,))


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors while opening into ``StoreUnusable`` with a sentence for a person."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGE:
            raise _damaged(path, str(error)) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreUnusable(f"{path} is locked by another program ({error}): close it there first") from error
        raise StoreUnusable(
            f"{path} cannot be used ({error}): see that the disk has space and that the hub's user may write to"
            f" {path.parent} and the files in it"
        ) from error


def _damaged(path: Path, why: str) -> StoreUnusable:
    why = " ".join(why.split())
    return StoreUnusable(
        f"{path} is damaged ({why}; nothing was changed): restore a backup, or move it and {path.name}-wal aside and"
        f' save what can be read with: sqlite3 MOVED ".recover" | sqlite3 {path.name}'
    )
