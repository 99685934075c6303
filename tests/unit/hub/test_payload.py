"""Tests of hub.payload: what a channel takes, and that it is left alone."""

from __future__ import annotations

import pytest

from channels.errors import BadRequest
from channels.namespaces import ChannelOptions
from hub.payload import checked_payload

ANY = ChannelOptions()
JSON = ChannelOptions(publication_data_format="json")
OBJECT = ChannelOptions(publication_data_format="json_object")
BINARY = ChannelOptions(publication_data_format="binary")


@pytest.mark.parametrize(
    "data",
    [
        b"1.0",
        b"123456789012345678901234567890",
        b'{"b":1,"a":2,"a":3}',
        b'"\\u00e9\\/"',
        b" [ 1 , 2 ] ",
        b"1e400",
        rb'"\ud83d"',
    ],
)
@pytest.mark.parametrize("options", [ANY, JSON, BINARY])
def test_bytes_stay_as_they_came(options: ChannelOptions, data: bytes) -> None:
    assert checked_payload(options, data) == data


@pytest.mark.parametrize("options", [ANY, JSON, OBJECT, BINARY])
def test_line_breaks_between_tokens_are_taken_out(options: ChannelOptions) -> None:
    assert checked_payload(options, b'{\r\n "a": "\\n",\n\t"b": 1\n}') == b'{ "a": "\\n",\t"b": 1}'


def test_line_breaks_of_what_is_not_json_stay() -> None:
    assert checked_payload(ANY, b"line\nline") == b"line\nline"
    assert checked_payload(BINARY, b"\xff\n\xff") == b"\xff\n\xff"


@pytest.mark.parametrize("options", [ANY, JSON, OBJECT])
def test_empty(options: ChannelOptions) -> None:
    with pytest.raises(BadRequest, match="empty"):
        checked_payload(options, b"")
    assert checked_payload(BINARY, b"") == b""


@pytest.mark.parametrize("data", [b"{", b"1 2", b"nonsense", b'"\xff"', b"NaN", b"[" * 100_000])
@pytest.mark.parametrize("options", [JSON, OBJECT])
def test_not_json(options: ChannelOptions, data: bytes) -> None:
    with pytest.raises(BadRequest, match="JSON"):
        checked_payload(options, data)
    assert checked_payload(ANY, data) == data


@pytest.mark.parametrize("data", [b"1", b"[]", b'"{}"', b"null"])
def test_not_an_object(data: bytes) -> None:
    with pytest.raises(BadRequest, match="objects"):
        checked_payload(OBJECT, data)
    assert checked_payload(OBJECT, b' \n{"a":1}') == b' {"a":1}'
