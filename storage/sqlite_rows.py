"""How publications lie in SQLite rows, and statements that take many rows at once.

Each step of a statement gives up the interpreter's lock and has to win it back from the event loop, so rows go in by
the hundred, not one by one. Row counts are powers of two, which keeps the number of distinct statements small enough
for the connection's statement cache.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

import msgspec

from storage.contract import ClientInfo, Publication

T = TypeVar("T")

ROWS_MAX = 64
"""Rows in one statement; times the widest row (9 columns) it stays below SQLite's least variable limit, 999."""
NAMES_MAX = 256
"""Values in one ``IN`` list."""

OFFSET_BITS = 36
"""A publication's key is its stream's id shifted by this many bits, plus its offset: 2^27 streams of 2^36 each."""
OFFSET_MAX = (1 << OFFSET_BITS) - 1
STREAM_MAX = (1 << (63 - OFFSET_BITS)) - 1

_U64 = 1 << 64
_I63 = 1 << 63

_info_encode = msgspec.msgpack.Encoder().encode
_info_decode = msgspec.msgpack.Decoder(tuple[str, str, bytes, bytes]).decode
_tags_encode = msgspec.json.Encoder().encode
_tags_decode = msgspec.json.Decoder(dict[str, str]).decode


def key_of(stream: int, offset: int) -> int:
    """The key of a publication's row; raises ``OverflowError`` when stream or offset has run out of numbers."""
    if offset > OFFSET_MAX or stream > STREAM_MAX:
        raise OverflowError(f"stream {stream} or offset {offset} is beyond what the file can hold")
    return stream << OFFSET_BITS | offset


def to_signed(value: int) -> int:
    """An unsigned 64-bit number as SQLite's signed one; raises ``OverflowError`` outside 0..2^64-1."""
    if not 0 <= value < _U64:
        raise OverflowError(f"{value} does not fit in 64 bits")
    return value - _U64 if value >= _I63 else value


def from_signed(value: int) -> int:
    """The inverse of ``to_signed``."""
    return value + _U64 if value < 0 else value


def encode_info(info: ClientInfo | None) -> bytes | None:
    """A client's info as msgpack ``[user, client, conn_info, chan_info]``: lossless for any bytes, binary ones too."""
    return None if info is None else _info_encode((info.user, info.client, info.conn_info, info.chan_info))


def encode_tags(tags: dict[str, str] | None) -> str | None:
    """Tags as a JSON object."""
    return None if tags is None else _tags_encode(tags).decode()


def decode_publication(row: Sequence[Any]) -> Publication:
    """A row of ``PUBLICATION_COLUMNS`` as a publication."""
    key, time, data, info, tags, delta, removed = row
    return Publication(
        data=data,
        offset=key & OFFSET_MAX,
        time=time,
        info=None if info is None else ClientInfo(*_info_decode(info)),
        tags=None if tags is None else _tags_decode(tags),
        delta=delta == 1,
        removed=removed == 1,
    )


PUBLICATION_COLUMNS = "id, time_ms, data, info, tags, delta, removed"


@cache
def _with_rows(statement: str, rows: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return statement.replace(":rows", ", ".join([row] * rows))


def execute_rows(connection: sqlite3.Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run a statement whose ``:rows`` stands for a list of row values, in as few steps as possible."""
    done = 0
    while done < len(rows):
        left = len(rows) - done
        count = ROWS_MAX if left >= ROWS_MAX else 1 << (left.bit_length() - 1)
        values = [value for row in rows[done : done + count] for value in row]
        connection.execute(_with_rows(statement, count, len(rows[done])), values)
        done += count


def select_rows(
    connection: sqlite3.Connection, statement: str, rows: Sequence[Sequence[Any]], *more: Any
) -> Iterator[Sequence[Any]]:
    """Rows found by a query whose ``:rows`` stands for a list of row values; ``more`` are the parameters after it.

    The list is filled up to a power of two with its last element, so the query must not mind repetitions.
    """
    step = NAMES_MAX
    for start in range(0, len(rows), step):
        part = list(rows[start : start + step])
        size = 1 << (len(part) - 1).bit_length()
        part += part[-1:] * (size - len(part))
        values = [value for row in part for value in row]
        yield from connection.execute(_with_rows(statement, size, len(part[0])), (*values, *more)).fetchall()
