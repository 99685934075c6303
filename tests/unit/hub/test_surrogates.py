"""Tests of hub.surrogates: half an emoji is a payload like any other."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, Struct

from hub.surrogates import decode


class Inner(Struct):
    data: Raw = Raw(b"")


class Outer(Struct):
    name: str = ""
    data: Raw = Raw(b"")
    inner: Inner | None = None
    many: dict[str, Raw] = {}
    listed: list[Inner] = []


OUTER = msgspec.json.Decoder(Outer)
RAW = msgspec.json.Decoder(Raw)


@pytest.mark.parametrize(
    "payload", [rb'"\ud83d"', rb'"a\uDe00b"', rb'{"\udfff":["\ud800\ud800"]}', rb'"\\ud83d\ud83d"']
)
def test_payloads_stay_as_they_came(payload: bytes) -> None:
    line = b'{"name":"x","data":%b,"inner":{"data":%b},"many":{"k":%b},"listed":[{"data":%b}]}' % ((payload,) * 4)
    found = decode(OUTER, line)
    assert found.inner is not None
    assert [bytes(each) for each in (found.data, found.inner.data, found.many["k"], found.listed[0].data)] == [
        payload
    ] * 4
    assert bytes(decode(RAW, payload)) == payload


def test_whole_characters_need_nothing() -> None:
    assert bytes(decode(OUTER, rb'{"data":"\ud83d\ude00\uefff"}').data) == rb'"\ud83d\ude00\uefff"'


@pytest.mark.parametrize(
    "broken", [b"", b"{", rb'{"data":"\ud83', rb'{"data":"\ud83d}', rb'{"data":"\x"}', b'{"data":"\n"}']
)
def test_what_is_broken_stays_broken(broken: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(OUTER, broken)


def test_a_wrong_type_is_told_as_such() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(OUTER, b'{"name":1}')


def test_too_deep() -> None:
    with pytest.raises(msgspec.DecodeError, match="nested deeper"):
        decode(RAW, b"[" * 100_000)


@given(st.recursive(st.text(st.characters(exclude_categories=[])) | st.integers(), st.lists, max_leaves=5))
def test_whatever_json_can_hold(value: Any) -> None:
    """Lone surrogates included, unless they come together with characters that masking would confuse them with."""
    encoded = json.dumps({"data": value}).encode()
    try:
        found = decode(OUTER, encoded)
    except msgspec.DecodeError:
        assert rb"\ue" in encoded and rb"\ud" in encoded
    else:
        assert json.loads(bytes(found.data)) == value
