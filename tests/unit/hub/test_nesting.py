"""The bound on nesting, which is the same on every Python."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.nesting import MAX_NESTING, is_too_deep
from hub.protocol import BadMessage, decode_command, is_json


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def test_the_bound() -> None:
    assert not is_too_deep(nested(MAX_NESTING))
    assert is_too_deep(nested(MAX_NESTING + 1))
    assert is_too_deep(b'{"a":' * (MAX_NESTING + 1) + b"1" + b"}" * (MAX_NESTING + 1))


def test_many_side_by_side_are_not_deep() -> None:
    assert not is_too_deep(b"[" + b",".join([b'{"a":[]}'] * 10_000) + b"]")


def test_brackets_in_strings_do_not_count() -> None:
    assert not is_too_deep(json.dumps(["[" * 2000, '\\"' + "{" * 2000]).encode())


def test_what_is_no_json_is_refused_either_way() -> None:
    assert not is_too_deep(b"]" * 2000)
    assert not is_json(b"[" * (2 * MAX_NESTING))


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "data",
    [
        b"[" * 600 + b'\\"' * 8_000_000,
        b"[" * 600 + b'"' + b"\\" * 16_000_000,
        b"[" * 1_000_000 + b"]" * 1_000_000,
        (nested(511) + b",") * 4000,
    ],
    ids=["quotes behind backslashes", "an open string", "deep", "nearly deep, side by side"],
)
def test_a_message_of_one_frame_cannot_stop_the_hub(data: bytes) -> None:
    """An open string made the search begin anew at each of its quotes: 64 KB took eight seconds."""
    is_too_deep(data)


def test_commands_and_payloads_obey_it() -> None:
    assert is_json(nested(MAX_NESTING))
    assert not is_json(nested(MAX_NESTING + 1))
    head = b'{"id":1,"publish":{"channel":"a","data":'
    decode_command(head + nested(MAX_NESTING - 2) + b"}}")
    with pytest.raises(BadMessage, match="nested"):
        decode_command(head + nested(MAX_NESTING - 1) + b"}}")


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((depth(each) for each in value.values()), default=0)
    return 1 + max((depth(each) for each in value), default=0) if isinstance(value, list) else 0


@given(st.recursive(st.text() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_against_counting(value: Any) -> None:
    padded = value
    for _ in range(MAX_NESTING - depth(value)):
        padded = [padded]
    assert not is_too_deep(json.dumps(padded).encode())
    assert is_too_deep(json.dumps([padded, *([[]] * MAX_NESTING)]).encode())
