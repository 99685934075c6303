"""Tests of hub.protocol: commands in, replies and pushes out, payloads untouched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import codes, protocol
from hub.protocol import BadMessage, decode_command, is_json
from storage.contract import ClientInfo, Position, Publication

HEAD = protocol.push_head("news")
INFO = ClientInfo("42", "c1", b'{"name":"x"}', b"[1]")


class TestDecoding:
    def test_a_command(self) -> None:
        command = decode_command(b'{"id":7,"subscribe":{"channel":"x","offset":3,"epoch":"e","recover":true}}')
        assert command.subscribe is not None
        assert (command.id, command.subscribe.channel, command.subscribe.position()) == (7, "x", Position(3, "e"))

    def test_a_pong(self) -> None:
        command = decode_command(b"{}")
        assert command.id == 0
        assert all(getattr(command, each) is None for each in command.__struct_fields__ if each != "id")

    def test_what_is_unknown_is_passed_over(self) -> None:
        assert decode_command(b'{"id":1,"ping":{"x":1},"new":{"y":[2]}}').ping is not None

    @pytest.mark.parametrize(
        "payload", [b"1.0", b"123456789012345678901", b'{"b":1,"a":2,"a":3}', rb'"\ud83d"', b" [ 1 ] ", b"null"]
    )
    def test_payloads_stay_the_bytes_they_were(self, payload: bytes) -> None:
        command = decode_command(b'{"id":1,"publish":{"channel":"x","data":%b}}' % payload)
        assert command.publish is not None
        assert bytes(command.publish.data).strip() == payload.strip()

    @pytest.mark.parametrize(
        "line",
        [b"", b" ", b"1", b"null", b"[]", b"{", b'{"id":"1"}', b'{"id":1.5}', b'{"id":-1}', b'{"id":4294967296}',
         b'{"subscribe":[]}', b'{"subscribe":{"channel":1}}', b'{"subscribe":{"offset":-1}}', b'{"id":1}x',
         b'{"rpc":{"data":' + b"[" * 100_000, b'{"history":{"limit":2147483648}}'],
    )  # fmt: skip
    def test_bad_messages(self, line: bytes) -> None:
        with pytest.raises(BadMessage):
            decode_command(line)

    def test_numbers_of_64_bits(self) -> None:
        command = decode_command(b'{"id":1,"subscribe":{"offset":18446744073709551615}}')
        assert command.subscribe is not None
        assert command.subscribe.position().offset == 2**63 - 1

    @given(st.binary(max_size=200))
    def test_whatever_comes(self, line: bytes) -> None:
        try:
            line.decode()
            decode_command(line)
        except (UnicodeDecodeError, BadMessage):
            pass


class TestEncoding:
    def test_what_is_zero_is_left_out(self) -> None:
        assert protocol.encode_publication(Publication(b"1")) == b'{"data":1}'
        assert protocol.encode_client_info(ClientInfo("", "")) == b'{"user":"","client":""}'

    def test_everything(self) -> None:
        publication = Publication(b'{"a":1}', 5, 1700, INFO, {"k": "v"})
        info = {"user": "42", "client": "c1", "conn_info": {"name": "x"}, "chan_info": [1]}
        expected: dict[str, Any] = {"data": {"a": 1}, "offset": 5, "tags": {"k": "v"}, "info": info}
        assert json.loads(protocol.encode_publication(publication)) == expected
        assert json.loads(protocol.encode_publication(publication, time=True)) == {**expected, "time": 1700}
        assert json.loads(protocol.encode_publications([publication] * 2)) == [expected] * 2

    def test_an_empty_payload_is_left_out(self) -> None:
        assert protocol.encode_publication(Publication(b"", 5)) == b'{"offset":5}'
        assert protocol.encode_publication(Publication(b"")) == b"{}"

    def test_payloads_of_delta_subscriptions_are_strings(self) -> None:
        publication = Publication('{"a":"é\\n"}'.encode(), 5)
        encoded = json.loads(protocol.encode_text_publication(publication, publication.data, delta=False))
        assert encoded == {"data": '{"a":"é\\n"}', "offset": 5}
        assert json.loads(protocol.encode_text_publication(publication, b"x", delta=True))["delta"] is True

    @pytest.mark.parametrize(
        ("message", "expected"),
        [
            (protocol.publication_push(HEAD, Publication(b"1")), {"channel": "news", "pub": {"data": 1}}),
            (
                protocol.join_push(HEAD, ClientInfo("1", "c")),
                {"channel": "news", "join": {"info": {"user": "1", "client": "c"}}},
            ),
            (
                protocol.leave_push(HEAD, ClientInfo("1", "c")),
                {"channel": "news", "leave": {"info": {"user": "1", "client": "c"}}},
            ),
            (
                protocol.unsubscribe_push("news", codes.SERVER_UNSUBSCRIBE),
                {"channel": "news", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}},
            ),
            (
                protocol.subscribe_push("news", {"recoverable": True, "was_recovering": True, "offset": 3}),
                {"channel": "news", "subscribe": {"recoverable": True, "offset": 3}},
            ),
            (protocol.message_push(b"[1]"), {"message": {"data": [1]}}),
            (protocol.refresh_push(True, 9), {"refresh": {"expires": True, "ttl": 9}}),
            (protocol.refresh_push(False, 0), {"refresh": {}}),
        ],
    )
    def test_pushes(self, message: bytes, expected: dict[str, Any]) -> None:
        assert json.loads(message) == {"push": expected}

    def test_replies(self) -> None:
        assert protocol.reply(3, b"subscribe") == b'{"id":3,"subscribe":{}}'
        assert json.loads(protocol.error_reply(3, codes.EXPIRED)) == {
            "id": 3,
            "error": {"code": 110, "message": "expired"},
        }
        assert json.loads(protocol.error_reply(3, codes.INTERNAL))["error"]["temporary"] is True

    @given(st.text(max_size=50))
    def test_no_message_contains_a_line_feed(self, text: str) -> None:
        encodable = text.encode("utf-8", "replace").decode()
        assert b"\n" not in protocol.push_head(encodable)
        assert b"\n" not in protocol.encode_client_info(ClientInfo(encodable, encodable))


class TestJson:
    @pytest.mark.parametrize("data", [b"1", b" {} ", b"1e999", rb'"\ud83d"', '"é"'.encode()])
    def test_is(self, data: bytes) -> None:
        assert is_json(data)

    @pytest.mark.parametrize("data", [b"", b"{", b"{} {}", b"\xff", b'"\xff"', b"'a'", b"[" * 100_000, b"NaN"])
    def test_is_not(self, data: bytes) -> None:
        assert not is_json(data)

    def test_one_line(self) -> None:
        data = b'{\n"a":\r\n"\\n"}'
        assert json.loads(protocol.one_line(data)) == json.loads(data)
        assert protocol.one_line(data) == b'{"a":"\\n"}'
