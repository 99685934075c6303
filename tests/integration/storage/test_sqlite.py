"""What is particular to the SQLite home: the file, group commits, disk trouble, plans."""

# ruff: noqa: ASYNC220, ASYNC240 - nothing else runs on a test's loop

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sqlite3
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from storage import sqlite_append, sqlite_reader, sqlite_retention, sqlite_writer
from storage.contract import Appended, AppendRequest, Committed, Position, Publication, ReadQuery, Retention
from storage.errors import StoreError, StoreUnavailable, StoreUnusable
from storage.sqlite import SQLiteStore

ALL = ReadQuery(limit=-1)
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
PATIENCE = 30.0
"""Seconds after which a test has failed."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.db"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path)
    await store.open()
    yield store
    await store.close()


async def put(store: SQLiteStore, channel: str = "news", data: bytes = b"{}", **options: Any) -> Appended:
    return await store.append(AppendRequest(channel, Publication(data), **options))


@contextlib.contextmanager
def other_program(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


async def made(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    await asyncio.gather(*(put(store, data=b"x" * 2000) for _ in range(100)))
    await store.close()


async def refusal(path: Path) -> str:
    """Why ``path`` is refused: one line that names it; the file is the same after as before."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreUnusable) as caught:
        await SQLiteStore(path).open()
    assert (path.read_bytes() if path.is_file() else None) == before
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    return sentence


class TestFile:
    async def test_only_the_owner_may_read_it(self, path: Path) -> None:
        path = path.parent / "new" / "folder" / "hub.db"
        store = SQLiteStore(path)
        await store.open()
        await put(store)
        for name in ("hub.db", "hub.db-wal", "hub.db-shm", "hub.db.lock"):
            assert stat.S_IMODE((path.parent / name).stat().st_mode) == 0o600, name
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        await store.close()

    async def test_closing_folds_the_log_in(self, path: Path) -> None:
        await made(path)
        assert sorted(entry.name for entry in path.parent.iterdir()) == ["hub.db", "hub.db.lock"]

    async def test_it_is_synced_before_the_answer(self, store: SQLiteStore) -> None:
        mode = await store._put(lambda connection: connection.execute("PRAGMA synchronous").fetchone()[0], "test")
        assert mode == 2  # FULL

    async def test_redacted_and_removed_bytes_leave_the_file(self, path: Path) -> None:
        secrets = [b"first-secret-" + b"s" * 50, b"second-secret-" + b"t" * 20_000, b"third-secret-" + b"u" * 300]
        store = SQLiteStore(path)
        await store.open()
        for secret in secrets:
            await put(store, "a", secret)
        await put(store, "b", b"fourth-secret")
        await put(store, "c", b"kept")
        await store.close()
        assert all(secret[:12] in path.read_bytes() for secret in secrets)

        store = SQLiteStore(path)
        await store.open()
        await store.redact("a", 1, None)
        await store.redact("a", 2, b"{}")
        await store.redact("a", 3, None)
        await store.remove("b")
        await store.close()
        content = path.read_bytes()
        for word in (b"first-secret", b"second-secret", b"tttttttttt", b"third-secret", b"fourth-secret"):
            assert word not in content
        assert b"kept" in content

    async def test_pruned_space_is_used_again(self, path: Path) -> None:
        store = SQLiteStore(path)
        await store.open()
        sizes = []
        for _ in range(4):
            await asyncio.gather(*(put(store, data=b"x" * 1000, namespace="n") for _ in range(1500)))
            await store.prune({"n": Retention(size=10)})
            pages = await store._put(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0], "test")
            sizes.append(pages)
        await store.close()
        assert sizes[-1] <= sizes[0] * 1.2


class TestEpochs:
    async def test_what_was_only_read_leaves_nothing_in_the_file(self, path: Path) -> None:
        """Each name that a stranger read or subscribed to was a row for ever, and a commit."""
        store = SQLiteStore(path)
        await store.open()
        first = await put(store)
        files = {name: Path(f"{path}{name}").read_bytes() for name in ("", "-wal")}
        for number in range(2000):
            await store.read(f"r{number}", ALL)
        positions = await store.positions([f"p{number}" for number in range(5000)])
        await store.remove("r1")
        assert await store.redact("r1", 1, None) is False
        assert {name: Path(f"{path}{name}").read_bytes() for name in files} == files
        assert len(positions) == 5000
        with other_program(path) as connection:
            assert connection.execute("SELECT channel, top_offset FROM streams").fetchall() == [("news", 1)]
        assert await put(store) == Appended(Position(2, first.position.epoch), True)
        await store.close()

    async def test_databases_and_channels_differ(self, tmp_path: Path) -> None:
        epochs = []
        for number in range(2):
            store = SQLiteStore(tmp_path / f"{number}.db")
            await store.open()
            epochs += [position.epoch for position in (await store.positions(["a", "b"])).values()]
            await store.close()
        assert len(set(epochs)) == 4
        assert {len(epoch) for epoch in epochs} == {8}

    async def test_a_copy_names_epochs_alike(self, path: Path, store: SQLiteStore) -> None:
        await put(store)
        copy = path.with_name("copy.db")
        with other_program(path) as connection, other_program(copy) as other:
            connection.backup(other)
        restored = SQLiteStore(copy, secret=b"for a new database only")
        await restored.open()
        assert await restored.positions(["news", "new"]) == await store.positions(["news", "new"])
        assert (await put(restored, "new")).position == (await put(store, "new")).position
        await restored.close()

    async def test_without_its_secret_a_database_gets_another(self, path: Path) -> None:
        """So is said that streams after a backup are not those that clients have seen."""
        store = SQLiteStore(path)
        await store.open()
        first = await put(store)
        before = (await store.positions(["new"]))["new"]
        await store.close()
        with other_program(path) as connection:
            connection.execute("DELETE FROM hub_store WHERE name = 'epoch_secret'")
        store = SQLiteStore(path)
        await store.open()
        after = await store.positions(["news", "new"])
        assert after["news"] == first.position
        assert after["new"].epoch != before.epoch
        await store.close()

    async def test_the_secret_may_be_given_for_a_new_database(self, tmp_path: Path) -> None:
        stores = [SQLiteStore(tmp_path / name, secret=b"0123456789abcdef") for name in ("a.db", "b.db")]
        for store in stores:
            await store.open()
        first, second = [await store.positions(["news"]) for store in stores]
        assert first == second
        for store in stores:
            await store.close()
        with pytest.raises(StoreUnusable, match=r"c\.db cannot be used \(CHECK constraint failed"):
            await SQLiteStore(tmp_path / "c.db", secret=b"short").open()


class TestUnusable:
    async def test_a_folder(self, path: Path) -> None:
        path.mkdir()
        assert "is a folder" in await refusal(path)

    async def test_a_file_where_a_folder_is_due(self, path: Path) -> None:
        path.write_text("not a folder")
        assert "cannot be opened for writing" in await refusal(path / "sub" / "hub.db")

    async def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o500)
        root = os.geteuid() == 0
        if root:  # root may write anywhere: be somebody else meanwhile
            os.seteuid(65534)
        try:
            with pytest.raises(StoreUnusable, match=r"hub\.db cannot be opened for writing \(Permission denied\)"):
                await SQLiteStore(folder / "hub.db").open()
        finally:
            if root:
                os.seteuid(0)
        assert list(folder.iterdir()) == []

    async def test_not_sqlite(self, path: Path) -> None:
        path.write_bytes(b"once upon a time, there was a text file that someone named hub.db" * 100)
        assert "not a SQLite database" in await refusal(path)

    @pytest.mark.parametrize("place", [100, 4096 + 3, 3 * 4096 + 2, 20 * 4096])
    async def test_damaged(self, path: Path, place: int) -> None:
        await made(path)
        content = bytearray(path.read_bytes())
        content[place : place + 400] = b"\xa5" * 400
        path.write_bytes(content)
        sentence = await refusal(path)
        assert "is damaged" in sentence
        assert ".recover" in sentence

    async def test_cut_short(self, path: Path) -> None:
        await made(path)
        path.write_bytes(path.read_bytes()[: 10 * 4096])
        assert "is damaged" in await refusal(path)

    async def test_of_another_program(self, path: Path) -> None:
        with other_program(path) as connection:
            connection.execute("CREATE TABLE photos (id)")
        assert "tables of another program (photos" in await refusal(path)

    async def test_a_log_without_its_database(self, path: Path) -> None:
        wal = Path(f"{path}-wal")
        wal.write_bytes(b"x" * 100)
        with pytest.raises(StoreUnusable, match="missing or empty"):
            await SQLiteStore(path).open()
        assert wal.read_bytes() == b"x" * 100

    async def test_made_by_a_newer_hub(self, path: Path) -> None:
        await made(path)
        with other_program(path) as connection:
            connection.execute("INSERT INTO hub_migrations VALUES ('9999_pre_future', 'x', 0)")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sentence = await refusal(path)
        assert "newer hub" in sentence
        assert "9999_pre_future" in sentence

    async def test_in_use_by_another_store(self, path: Path, store: SQLiteStore) -> None:
        sentence = await refusal(path)
        assert f"in use by another hub (process {os.getpid()})" in sentence
        await store.close()
        again = SQLiteStore(path)
        await again.open()
        await again.close()

    async def test_in_use_by_another_process(self, path: Path, pytestconfig: pytest.Config) -> None:
        program = (
            "import sys, pathlib; from storage.sqlite_file import take;"
            "lock = take(pathlib.Path(sys.argv[1])); print('taken', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(pytestconfig.rootpath)},
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"taken\n"
            assert f"process {process.pid}" in await refusal(path)
            process.kill()
        store = SQLiteStore(path)
        await store.open()  # the lock died with its holder
        await store.close()

    async def test_in_use_under_another_name(self, path: Path, store: SQLiteStore) -> None:
        """Through a symbolic link a second hub got another lock, and each one's subscribers missed the other's."""
        link = path.with_name("link.db")
        link.symlink_to(path)
        assert path.samefile(link)
        with pytest.raises(StoreUnusable, match=r"hub\.db is in use by another hub"):
            await SQLiteStore(link).open()
        assert not link.with_name("link.db.lock").exists()
        await store.close()
        again = SQLiteStore(link)
        await again.open()
        assert (again.path, (await put(again)).position.offset) == (path, 1)
        await again.close()

    async def test_the_lock_is_not_taken_through_a_link(self, path: Path) -> None:
        """What a planted link led to was emptied."""
        precious = path.with_name("precious")
        precious.write_text("not to be touched")
        lock = Path(f"{path}.lock")
        lock.symlink_to(precious)
        assert "hub.db.lock is a symbolic link" in await refusal(path)
        assert precious.read_text() == "not to be touched"
        lock.unlink()
        os.mkfifo(lock)
        assert "hub.db.lock is not a file" in await refusal(path)

    async def test_a_lock_that_cannot_be_written_is_given_up(self, path: Path) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            with pytest.raises(StoreUnusable, match="cannot be opened for writing"):
                await SQLiteStore(path).open()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        store = SQLiteStore(path)
        await store.open()
        await store.close()

    async def test_locked_by_a_tool(self, path: Path) -> None:
        await made(path)
        with other_program(path) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StoreUnusable, match="locked by another program"):
                await SQLiteStore(path, commit_timeout=timedelta(milliseconds=50)).open()

    async def test_opening_twice(self, store: SQLiteStore) -> None:
        with pytest.raises(StoreUnusable, match="open already"):
            await store.open()
        assert (await put(store)).fresh


class HeldClock:
    """A clock that keeps the writer in its first commit until it is released."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()

    def __call__(self) -> float:
        self.reached.set()
        assert self.released.wait(60)
        return 1000.0


class TestGroupCommit:
    @pytest.mark.parametrize(("batch_max", "expected"), [(1000, [1, 200]), (50, [1, 50, 50, 50, 50])])
    async def test_what_queues_up_during_a_commit_shares_the_next(
        self, path: Path, batch_max: int, expected: list[int]
    ) -> None:
        commits: list[int] = []
        told: list[int] = []
        clock = HeldClock()
        store = SQLiteStore(
            path, clock=clock, batch_max=batch_max, observe=lambda kind, _seconds, rows: commits.append(rows)
        )
        store.on_commit = lambda committed: told.append(len(committed))
        await store.open()
        first = asyncio.create_task(put(store))
        await asyncio.to_thread(clock.reached.wait)
        others = [asyncio.create_task(put(store, f"c{number % 7}")) for number in range(200)]
        await asyncio.sleep(0)
        assert store.waiting == 201
        clock.released.set()
        await asyncio.gather(first, *others)
        assert commits == told == expected
        assert store.waiting == 0
        await store.close()

    async def test_a_commit_that_does_not_come_in_time(self, path: Path) -> None:
        clock = HeldClock()
        told: list[Committed] = []
        store = SQLiteStore(path, clock=clock, commit_timeout=timedelta(milliseconds=30))
        store.on_commit = told.extend
        await store.open()
        results = await asyncio.gather(*(put(store, idempotency_key="k") for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [StoreUnavailable] * 3
        assert "did not commit within 0.03 s" in str(results[0])
        clock.released.set()
        await store.close()
        assert [one.publication.offset for one in told] == [1]  # committed late, and repeats of it once only

    async def test_what_waited_too_long_is_not_committed_later(self, path: Path) -> None:
        """They were told to try again, and then they were committed all the same: twice in the end."""
        clock = HeldClock()
        failures: Counter[str] = Counter()
        store = SQLiteStore(
            path,
            clock=clock,
            commit_timeout=timedelta(milliseconds=50),
            failed=lambda kind: failures.update([kind]),
        )
        await store.open()
        first = asyncio.create_task(put(store))
        await asyncio.to_thread(clock.reached.wait)
        works = [*(put(store, data=b"late") for _ in range(5)), store.redact("news", 1, None)]
        results = await asyncio.gather(first, *works, return_exceptions=True)
        assert [type(result) for result in results] == [StoreUnavailable] * 7
        assert "did not commit within 0.05 s" in store.trouble
        assert failures == {"commit": 6, "redact": 1}
        clock.released.set()
        await store.close()

        store = SQLiteStore(path)
        await store.open()
        page = await store.read("news", ALL)
        assert [one.data for one in page.publications] == [b"{}"]  # that one was under way
        await store.close()

    async def test_one_that_cannot_be_stored_does_not_harm_the_others(self, path: Path) -> None:
        clock = HeldClock()
        store = SQLiteStore(path, clock=clock)
        await store.open()
        first = asyncio.create_task(put(store))
        await asyncio.to_thread(clock.reached.wait)
        requests = [AppendRequest(f"c{number % 3}", Publication(b"%d" % number)) for number in range(60)]
        requests[17] = AppendRequest("lone \ud800 surrogate", Publication(b"17"))
        requests[40] = AppendRequest("c1", Publication(b"40"), version=2**64)
        tasks = [asyncio.create_task(store.append(request)) for request in requests]
        await asyncio.sleep(0)
        clock.released.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert (await first).fresh
        failed = [index for index, result in enumerate(results) if isinstance(result, BaseException)]
        assert failed == [17, 40]
        assert type(results[17]) is type(results[40]) is StoreError
        for number in range(3):
            page = await store.read(f"c{number}", ALL)
            expected = [b"%d" % index for index in range(60) if index % 3 == number and index not in failed]
            assert [one.data for one in page.publications] == expected
            assert [one.offset for one in page.publications] == list(range(1, len(expected) + 1))
        await store.close()

    async def test_more_streams_than_are_held_in_memory(self, path: Path) -> None:
        store = SQLiteStore(path, cache_max=3)
        await store.open()
        for turn in range(1, 4):
            results = await asyncio.gather(*(put(store, f"c{number}") for number in range(40)))
            assert {result.position.offset for result in results} == {turn}
        await store.close()

    async def test_what_another_program_wrote_is_seen(self, path: Path, store: SQLiteStore) -> None:
        await put(store)
        with other_program(path) as connection:
            connection.execute("UPDATE streams SET top_offset = 10")
        assert (await put(store)).position.offset == 11


class TestTrouble:
    async def test_a_full_disk_fails_what_does_not_fit_and_nothing_later(self, path: Path, store: SQLiteStore) -> None:
        first = await put(store, "a")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))  # the disk ends here
        try:
            results = await asyncio.gather(*(put(store, "a", b"x" * 20_000) for _ in range(50)), return_exceptions=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        failed = [result for result in results if isinstance(result, BaseException)]
        assert failed
        assert {type(result) for result in failed} == {StoreUnavailable}
        assert "cannot be written now" in str(failed[0])
        stored = len(results) - len(failed)
        assert await put(store, "a") == Appended(Position(stored + 2, first.position.epoch), True)
        page = await store.read("a", ALL)
        assert [one.offset for one in page.publications] == list(range(1, stored + 3))

    async def test_a_file_locked_by_a_tool(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        await made(path)
        store = SQLiteStore(path, commit_timeout=timedelta(milliseconds=50))
        await store.open()
        with other_program(path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable):
                await put(store)
            await store.close()
        assert "cannot be written now: database is locked" in caplog.text
        store = SQLiteStore(path)
        await store.open()
        assert (await put(store)).position.offset == 101
        await store.close()

    @pytest.mark.parametrize("name", ["hub.db", "hub.db-wal"])
    async def test_nothing_is_acknowledged_into_files_that_are_gone(
        self, path: Path, store: SQLiteStore, name: str
    ) -> None:
        """Publishes went on being acknowledged, and the next start had none of them."""
        told: list[Committed] = []
        store.on_commit = told.extend
        await put(store)
        place, aside = path.with_name(name), path.with_name("aside")
        place.rename(aside)
        with pytest.raises(StoreUnavailable, match=f"{name} was moved, deleted or replaced.*: put it back, or restart"):
            await put(store)
        assert store.trouble.startswith(f"cannot be written now: {name} was moved")
        place.write_bytes(b"")
        with pytest.raises(StoreUnavailable, match="replaced"):
            await store.redact("news", 1, None)
        aside.rename(place)
        assert (await put(store)).position.offset == 2
        assert store.trouble == ""
        assert [one.publication.offset for one in told] == [1, 2]

    async def test_a_database_deleted_during_a_commit(self, path: Path) -> None:
        clock = HeldClock()
        told: list[Committed] = []
        store = SQLiteStore(path, clock=clock)
        store.on_commit = told.extend
        await store.open()
        first = asyncio.create_task(put(store))
        await asyncio.to_thread(clock.reached.wait)
        path.unlink()
        clock.released.set()
        with pytest.raises(StoreUnavailable, match="deleted"):
            await first
        assert told == []
        await store.close()

    async def test_it_heals_with_nobody_writing(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        failures: Counter[str] = Counter()
        tried = asyncio.Event()

        def failed(kind: str) -> None:
            failures[kind] += 1
            if failures["probe"] >= 2:
                tried.set()

        store = SQLiteStore(path, failed=failed, probe_interval=timedelta(milliseconds=5))
        await store.open()
        await put(store)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (Path(f"{path}-wal").stat().st_size, before[1]))  # the disk is full
        try:
            for _ in range(20):
                with pytest.raises(StoreUnavailable):
                    await put(store)
            async with asyncio.timeout(PATIENCE):
                await tried.wait()
            assert store.trouble.startswith("cannot be written now: ")
            assert failures["commit"] == 20
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        async with asyncio.timeout(PATIENCE):
            while store.trouble:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        messages = [record.getMessage() for record in caplog.records]
        assert len(messages) == 2
        assert "(writes that failed: 1)" in messages[0]
        assert "writes work again" in messages[1]
        assert (await put(store)).position.offset == 2
        with other_program(path) as connection:
            assert connection.execute("SELECT name FROM hub_store").fetchall() == [("epoch_secret",)]
        await store.close()

    async def test_a_table_that_is_gone(self, path: Path, store: SQLiteStore) -> None:
        await put(store)
        with other_program(path) as connection:
            connection.execute("DROP TABLE publications")
        with pytest.raises(StoreUnavailable, match="cannot be read now"):
            await store.read("news", ALL)
        with pytest.raises(StoreError, match="no such table"):
            await put(store)
        assert set(await store.positions(["news"])) == {"news"}  # the readers still work

    async def test_a_read_sees_one_snapshot(self, path: Path, store: SQLiteStore) -> None:
        await put(store)

        def read_write_read(connection: sqlite3.Connection) -> list[Any]:
            count = "SELECT count(*) FROM publications"
            before = connection.execute(count).fetchone()
            with other_program(path) as other:
                other.execute("DELETE FROM publications")
            return [before, connection.execute(count).fetchone()]

        assert await store._read(read_write_read, len) == [(1,), (1,)]
        assert (await store.read("news", ALL)).publications == []

    async def test_too_many_reads_are_refused_at_once(self, path: Path) -> None:
        store = SQLiteStore(path, queue_max=5)
        await store.open()
        await put(store)
        results = await asyncio.gather(*(store.read("news", ALL) for _ in range(9)), return_exceptions=True)
        assert sum(isinstance(result, StoreUnavailable) for result in results) == 4
        assert len((await store.read("news", ALL)).publications) == 1
        await store.close()

    async def test_reads_that_do_not_come_in_time(self, path: Path) -> None:
        store = SQLiteStore(path, readers=1, commit_timeout=timedelta(milliseconds=30))
        await store.open()
        held = threading.Event()
        slow = asyncio.create_task(store._read(lambda _connection: held.wait(60), int))
        await asyncio.sleep(0)  # it has the only reader now
        with pytest.raises(StoreUnavailable, match="could not be read within"):
            await store.read("news", ALL)
        held.set()
        with pytest.raises(StoreUnavailable):
            await slow
        await store.close()


class TestClosing:
    async def test_a_locked_file_does_not_hold_it_up(self, path: Path) -> None:
        """Each transaction that waited took five seconds more."""
        store = SQLiteStore(path, close_timeout=timedelta(milliseconds=100))
        await store.open()
        await put(store)
        with other_program(path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            tasks = [asyncio.create_task(store.redact("news", 1, None)) for _ in range(20)]
            await asyncio.sleep(0)
            async with asyncio.timeout(PATIENCE):
                await store.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [StoreUnavailable] * 20
        assert "was closed before this could be written" in str(results[-1])
        store = SQLiteStore(path)
        await store.open()
        assert [one.data for one in (await store.read("news", ALL)).publications] == [b"{}"]
        await store.close()

    async def test_what_takes_too_long_is_interrupted(self, path: Path) -> None:
        store = SQLiteStore(path, close_timeout=timedelta(milliseconds=100))
        await store.open()
        work = asyncio.ensure_future(store._put(lambda connection: connection.execute(ENDLESS).fetchone(), "test"))
        read = asyncio.create_task(store._read(lambda connection: connection.execute(ENDLESS).fetchone(), len))
        await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            await store.close()
            results = await asyncio.gather(work, read, return_exceptions=True)
        assert [type(result) for result in results] == [StoreUnavailable] * 2
        assert {"interrupted" in str(result) or "was closed before" in str(result) for result in results} == {True}
        store = SQLiteStore(path)
        await store.open()
        await store.close()

    async def test_a_disk_that_does_not_answer(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(sqlite_writer, "GRACE", 0.05)
        clock = HeldClock()
        store = SQLiteStore(path, clock=clock, close_timeout=timedelta(milliseconds=10))
        await store.open()
        writer = store._writer
        assert writer is not None
        task = asyncio.create_task(put(store))
        await asyncio.to_thread(clock.reached.wait)
        await store.close()
        with pytest.raises(StoreUnavailable, match="could not be closed in time"):
            await task
        assert "the disk does not answer" in caplog.text
        with pytest.raises(StoreUnusable, match="in use"):
            await SQLiteStore(path).open()  # the write may still come
        clock.released.set()
        await asyncio.to_thread(writer._thread.join)


async def test_the_file_shrinks_when_much_was_pruned(path: Path) -> None:
    """Without incremental vacuum it kept its largest size for ever; it can only be switched on when a file is made."""
    store = SQLiteStore(path)
    await store.open()
    await asyncio.gather(*(put(store, data=b"x" * 1000, namespace="logs") for _ in range(5000)))
    await store.close()
    largest = path.stat().st_size
    store = SQLiteStore(path)
    await store.open()
    assert await store.prune({"logs": Retention(size=10)}) == 4990
    await put(store, namespace="logs")
    await store.close()
    assert path.stat().st_size < largest / 2
    store = SQLiteStore(path)
    await store.open()
    assert (await store.read("news", ReadQuery())).position.offset == 5001
    await store.close()


class TestObserve:
    async def test_what_is_told(self, path: Path) -> None:
        seen: list[tuple[str, int]] = []

        def observe(kind: str, seconds: float, rows: int) -> None:
            assert seconds > 0
            seen.append((kind, rows))

        store = SQLiteStore(path, observe=observe)
        await store.open()
        await put(store, namespace="n")
        await put(store, namespace="n")
        await store.read("news", ALL)
        await store.prune({"n": Retention(size=1)})
        await store.close()
        assert seen == [("commit", 1), ("commit", 1), ("read", 2), ("read", 1), ("prune", 1), ("prune", 0)]


STATEMENTS = {
    **{name: getattr(sqlite_append, name) for name in ("SELECT_STREAMS", "UPDATE_STREAMS", "SELECT_KEYS")},
    **{
        name: getattr(sqlite_reader, name)
        for name in ("SELECT_STREAM", "SELECT_POSITIONS", "SELECT_TIME", "SELECT_PAGE", "SELECT_PAGE_REVERSE")
    },
    **{
        name: getattr(sqlite_retention, name)
        for name in ("SELECT_OLDEST", "DELETE_RANGE", "DELETE_KEYS", "UPDATE_DATA", "UPDATE_REMOVED")
    },
}
COLUMNS = {"SELECT_STREAMS": 1, "SELECT_POSITIONS": 1, "SELECT_KEYS": 2, "UPDATE_STREAMS": 6}


@pytest.mark.parametrize("name", STATEMENTS)
async def test_no_statement_scans_or_sorts_a_table(path: Path, store: SQLiteStore, name: str) -> None:
    row = f"({', '.join('?' * COLUMNS.get(name, 0))})"
    statement = STATEMENTS[name].replace(":rows", ", ".join([row] * 8))
    with other_program(path) as connection:
        parameters = [1] * statement.count("?")
        plan = [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    assert any(step.startswith("SEARCH") for step in plan), plan
    constants = ("SCAN 8-ROW VALUES CLAUSE", "SCAN 8 CONSTANT ROWS", "SCAN new")
    for step in plan:
        assert not step.startswith("SCAN") or step.startswith(constants), plan
        assert "TEMP B-TREE" not in step, plan
