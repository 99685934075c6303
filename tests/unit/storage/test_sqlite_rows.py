from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.contract import ClientInfo, Publication
from storage.sqlite_rows import (
    OFFSET_MAX,
    STREAM_MAX,
    decode_publication,
    encode_info,
    encode_tags,
    execute_rows,
    from_signed,
    key_of,
    select_rows,
    to_signed,
)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (a, b)")
    yield connection
    connection.close()


@given(st.integers(0, 2**64 - 1))
def test_unsigned_numbers_come_back(value: int) -> None:
    signed = to_signed(value)
    assert -(2**63) <= signed < 2**63
    assert from_signed(signed) == value


@pytest.mark.parametrize("value", [-1, 2**64])
def test_what_is_no_unsigned_64_bit_number_is_refused(value: int) -> None:
    with pytest.raises(OverflowError):
        to_signed(value)


def test_keys_are_in_the_order_of_stream_and_offset() -> None:
    pairs = [(1, 1), (1, OFFSET_MAX), (2, 1), (STREAM_MAX, OFFSET_MAX)]
    keys = [key_of(*pair) for pair in pairs]
    assert keys == sorted(keys)
    assert keys[-1] == 2**63 - 1


@pytest.mark.parametrize("pair", [(1, OFFSET_MAX + 1), (STREAM_MAX + 1, 1)])
def test_keys_do_not_run_over(pair: tuple[int, int]) -> None:
    with pytest.raises(OverflowError, match="beyond what the file can hold"):
        key_of(*pair)


@given(
    data=st.binary(),
    info=st.none() | st.builds(ClientInfo, st.text(), st.text(), st.binary(), st.binary()),
    tags=st.none() | st.dictionaries(st.text(), st.text()),
    delta=st.booleans(),
    removed=st.booleans(),
)
def test_publications_come_back(
    data: bytes, info: ClientInfo | None, tags: dict[str, str] | None, delta: bool, removed: bool
) -> None:
    row = (key_of(7, 3), 5, data, encode_info(info), encode_tags(tags), int(delta), int(removed))
    assert decode_publication(row) == Publication(data, 3, 5, info, tags, delta, removed=removed)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 63, 64, 65, 127, 200])
def test_any_number_of_rows_goes_in_in_order(connection: sqlite3.Connection, count: int) -> None:
    rows = [(number, str(number)) for number in range(count)]
    execute_rows(connection, "INSERT INTO t VALUES :rows", rows)
    assert connection.execute("SELECT a, b FROM t ORDER BY rowid").fetchall() == rows


@pytest.mark.parametrize("count", [0, 1, 3, 255, 256, 257, 700])
def test_any_number_of_rows_is_found_once(connection: sqlite3.Connection, count: int) -> None:
    execute_rows(connection, "INSERT INTO t VALUES :rows", [(number, -number) for number in range(1000)])
    statement = "SELECT a FROM t WHERE (a, b) IN (VALUES :rows) AND a < ?"
    wanted = [(number, -number) for number in range(count)]
    assert sorted(row[0] for row in select_rows(connection, statement, wanted, 600)) == list(range(min(count, 600)))
