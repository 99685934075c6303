"""The appender alone, on a database in memory: what it holds, and that it forgets what was not committed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import sqlite_append
from storage.contract import Appended, AppendRequest, Position, Publication
from storage.epochs import EpochNames
from storage.sqlite_append import Appender

SCHEMA = Path(sqlite_append.__file__).parent / "migrations" / "sqlite" / "0001_pre_publications.sql"


NAMES = EpochNames(b"0123456789abcdef")
A, B, OTHER = (NAMES.of(channel) for channel in ("a", "b", "other"))


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA.read_text())
    yield connection
    connection.close()


@pytest.fixture
def appender() -> Appender:
    return Appender(names=NAMES, cache_max=2)


def request(channel: str) -> AppendRequest:
    return AppendRequest(channel, Publication(b"{}"))


def test_results_are_in_the_order_of_the_work(connection: sqlite3.Connection, appender: Appender) -> None:
    results, committed = appender.run(connection, [request("a"), request("b"), request("a")], 1000)
    assert results == [
        Appended(Position(1, A), True),
        Appended(Position(1, B), True),
        Appended(Position(2, A), True),
    ]
    assert [(one.channel, one.publication.offset, one.publication.time) for one in committed] == [
        ("a", 1, 1000),
        ("b", 1, 1000),
        ("a", 2, 1000),
    ]


def test_what_was_rolled_back_is_forgotten(connection: sqlite3.Connection, appender: Appender) -> None:
    appender.run(connection, [request("a")], 1000)
    appender.settle()
    connection.execute("BEGIN")
    appender.run(connection, [request("a"), request("new")], 1000)
    connection.execute("ROLLBACK")
    appender.forget()
    assert appender.cached == 0
    results, _ = appender.run(connection, [request("a"), request("other")], 1000)
    assert results == [Appended(Position(2, A), True), Appended(Position(1, OTHER), True)]
    assert connection.execute("SELECT channel FROM streams ORDER BY id").fetchall() == [("a",), ("other",)]


def test_at_most_so_many_streams_are_held_the_last_used(connection: sqlite3.Connection, appender: Appender) -> None:
    appender.run(connection, [request("a"), request("b"), request("c")], 1000)
    appender.settle()
    assert appender.cached == 2
    appender.run(connection, [request("b")], 1000)  # now c is the one used least recently
    appender.run(connection, [request("a")], 1000)
    appender.settle()
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    appender.run(connection, [request("a"), request("b")], 1000)
    assert not any("SELECT" in statement for statement in statements)
    appender.run(connection, [request("c")], 1000)
    assert any("SELECT" in statement for statement in statements)


def test_one_statement_for_each_kind_of_row(connection: sqlite3.Connection, appender: Appender) -> None:
    appender = Appender(names=NAMES)
    work = [request(f"c{number % 16}") for number in range(64)]
    appender.run(connection, work, 1000)
    appender.settle()
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    appender.run(connection, work, 1000)
    assert len(statements) == 2  # an INSERT and an UPDATE
