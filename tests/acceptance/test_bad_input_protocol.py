"""What a client may send wrongly, one line each, and the code that it gets for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.wire import BINARY, CONTINUATION, PONG, TEXT, Closed, Wire, frame_bytes
from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token

BAD_REQUEST = 3501
LONGEST_NAME = 255
LIMIT = 65_536


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProcess]:
    """One hub for all lines of the table: none of them may leave a trace in it."""
    with HubProcess() as process:
        yield process
        assert "Traceback" not in process.log(), process.log_tail(200)


async def connected(hub: HubProcess) -> Wire:
    wire = await Wire.open(hub.port)
    await wire.connect(connection_token())
    return wire


async def outcome(wire: Wire) -> int:
    """The error code of the next reply (0 when there is none in it), or the code of the close."""
    try:
        reply = json.loads(await wire.line())
    except Closed as closed:
        return closed.code
    code: int = reply.get("error", {}).get("code", 0)
    return code


def command(**fields: Any) -> bytes:
    return json.dumps({"id": 5, **fields}).encode()


MALFORMED: dict[str, bytes] = {
    "empty frame": b"",
    "only a line feed": b"\n",
    "two line feeds": b"\n\n",
    "blanks": b"   ",
    "a word": b"hello",
    "cut off": b'{"id":5,"publish":{"channel":"plain:a"',
    "single quotes": b"{'id':5,'ping':{}}",
    "trailing comma": b'{"id":5,"presence":{"channel":"room:a"},}',
    "unquoted key": b'{id:5,"presence":{"channel":"room:a"}}',
    "comment": b'{"id":5,"presence":{"channel":"room:a"}} // hello',
    "two objects without a break": b'{"id":5,"presence":{"channel":"room:a"}}{"id":6,"presence":{"channel":"room:a"}}',
    "byte order mark": b'\xef\xbb\xbf{"id":5,"presence":{"channel":"room:a"}}',
    "raw control character in a string": b'{"id":5,"publish":{"channel":"plain:a","data":"\x01"}}',
    "raw line feed in a string": b'{"id":5,"publish":{"channel":"plain:a","data":"a\nb"}}',
    "line break in the middle of a command": b'{"id":5,\n"presence":{"channel":"room:a"}}',
    "empty line between commands": b'{"id":5,"presence":{"channel":"room:a"}}\n\n{"id":6,"presence":{"channel":"room:a"}}',
    "NaN": b'{"id":5,"publish":{"channel":"plain:a","data":NaN}}',
    "Infinity": b'{"id":5,"publish":{"channel":"plain:a","data":-Infinity}}',
    "leading nought": b'{"id":5,"publish":{"channel":"plain:a","data":01}}',
    "bare point": b'{"id":5,"publish":{"channel":"plain:a","data":1.}}',
    "hexadecimal": b'{"id":5,"publish":{"channel":"plain:a","data":0x10}}',
    "bad escape": rb'{"id":5,"publish":{"channel":"plain:a","data":"\x41"}}',
    "short unicode escape": rb'{"id":5,"publish":{"channel":"plain:a","data":"\u12"}}',
    "an array": b"[]",
    "an array of commands": b'[{"id":5,"presence":{"channel":"room:a"}}]',
    "a string": b'"connect"',
    "a number": b"42",
    "null": b"null",
    "true": b"true",
    "deep nesting": b'{"id":5,"publish":{"channel":"plain:a","data":' + b"[" * 30_000 + b"]" * 30_000 + b"}}",
    "deep nesting, cut off": b'{"id":5,"publish":{"channel":"plain:a","data":' + b"[" * 60_000,
    "deep nesting of objects": b'{"id":5,"rpc":{"data":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}}",
    "deep nesting in an unknown field": b'{"id":5,"x":' + b"[" * 30_000 + b"]" * 30_000 + b',"ping":{}}',
    "deep nesting in the filter": b'{"id":5,"subscribe":{"channel":"tags:a","tf":'
    + b'{"op":"not","nodes":[' * 2_000
    + b"]}" * 2_000
    + b"}}",
}

WRONG_TYPES: dict[str, bytes] = {
    "id as text": b'{"id":"5","presence":{"channel":"room:a"}}',
    "id as a fraction": b'{"id":5.5,"presence":{"channel":"room:a"}}',
    "id as a float": b'{"id":5.0,"presence":{"channel":"room:a"}}',
    "id as an exponent": b'{"id":5e0,"presence":{"channel":"room:a"}}',
    "id as true": b'{"id":true,"presence":{"channel":"room:a"}}',
    "id as null": b'{"id":null,"presence":{"channel":"room:a"}}',
    "id as an object": b'{"id":{},"presence":{"channel":"room:a"}}',
    "id negative": b'{"id":-1,"presence":{"channel":"room:a"}}',
    "id of 2^32": b'{"id":4294967296,"presence":{"channel":"room:a"}}',
    "id of 2^64": b'{"id":18446744073709551616,"presence":{"channel":"room:a"}}',
    "id of 1000 digits": b'{"id":' + b"9" * 1000 + b',"presence":{"channel":"room:a"}}',
    "id nought": b'{"id":0,"presence":{"channel":"room:a"}}',
    "no id": b'{"presence":{"channel":"room:a"}}',
    "a pong without a ping": b"{}",
    "a pong with an id of nought": b'{"id":0}',
    "unknown command": b'{"id":5,"explode":{"channel":"room:a"}}',
    "no command": b'{"id":5}',
    "command in capitals": b'{"id":5,"Presence":{"channel":"room:a"}}',
    "reply instead of a command": b'{"id":5,"error":{"code":1,"message":"x"}}',
    "push instead of a command": b'{"push":{"channel":"plain:a","pub":{"data":1}}}',
    "command as text": b'{"id":5,"presence":"room:a"}',
    "command as an array": b'{"id":5,"presence":["room:a"]}',
    "command as true": b'{"id":5,"presence":true}',
    "channel as a number": b'{"id":5,"presence":{"channel":1}}',
    "channel as an array": b'{"id":5,"presence":{"channel":["room:a"]}}',
    "subscribe channel as an object": b'{"id":5,"subscribe":{"channel":{"a":1}}}',
    "recover as text": b'{"id":5,"subscribe":{"channel":"recent:a","recover":"yes"}}',
    "recover as a number": b'{"id":5,"subscribe":{"channel":"recent:a","recover":1}}',
    "offset as text": b'{"id":5,"subscribe":{"channel":"recent:a","recover":true,"offset":"1"}}',
    "offset negative": b'{"id":5,"subscribe":{"channel":"recent:a","recover":true,"offset":-1}}',
    "offset of 2^64": b'{"id":5,"subscribe":{"channel":"recent:a","recover":true,"offset":18446744073709551616}}',
    "flag of 2^63": b'{"id":5,"subscribe":{"channel":"recent:a","flag":9223372036854775808}}',
    "offset as a fraction": b'{"id":5,"subscribe":{"channel":"recent:a","recover":true,"offset":1.5}}',
    "epoch as a number": b'{"id":5,"subscribe":{"channel":"recent:a","recover":true,"epoch":1}}',
    "flag as text": b'{"id":5,"subscribe":{"channel":"recent:a","flag":"1"}}',
    "delta as a number": b'{"id":5,"subscribe":{"channel":"delta:a","delta":1}}',
    "limit as text": b'{"id":5,"history":{"channel":"recent:a","limit":"10"}}',
    "limit of 2^31": b'{"id":5,"history":{"channel":"recent:a","limit":2147483648}}',
    "limit as a fraction": b'{"id":5,"history":{"channel":"recent:a","limit":1.5}}',
    "since as a number": b'{"id":5,"history":{"channel":"recent:a","since":1}}',
    "since offset negative": b'{"id":5,"history":{"channel":"recent:a","since":{"offset":-1}}}',
    "reverse as text": b'{"id":5,"history":{"channel":"recent:a","reverse":"true"}}',
    "method as a number": b'{"id":5,"rpc":{"method":1}}',
    "token as a number": b'{"id":5,"refresh":{"token":1}}',
}

ENDING: dict[str, tuple[bytes, int]] = {
    "a second connect": (command(connect={"token": connection_token()}), BAD_REQUEST),
    "subscribe without a channel": (command(subscribe={}), BAD_REQUEST),
    "subscribe to the empty channel": (command(subscribe={"channel": ""}), BAD_REQUEST),
    "an unknown delta": (command(subscribe={"channel": "delta:a", "delta": "xdelta"}), BAD_REQUEST),
    "refresh without a token": (command(refresh={}), BAD_REQUEST),
    "refresh with an empty token": (command(refresh={"token": ""}), BAD_REQUEST),
    "send without a handler": (b'{"send":{"data":{}}}', 3508),
}

ANSWERED: dict[str, tuple[bytes, int]] = {
    "ping": (command(ping={}), 108),
    "name one too long": (command(subscribe={"channel": "plain:" + "a" * (LONGEST_NAME - 5)}), 107),
    "name of the longest length": (command(subscribe={"channel": "plain:" + "a" * (LONGEST_NAME - 6)}), 0),
    "name far too long": (command(subscribe={"channel": "a" * 60_000}), 107),
    "name with an accent": (command(subscribe={"channel": "plain:é"}), 107),
    "name with an emoji": (command(subscribe={"channel": "plain:\U0001f600"}), 107),
    "name outside of ASCII and unknown": (command(subscribe={"channel": "привет"}), 107),
    "name against the pattern": (command(subscribe={"channel": "digits:abc"}), 107),
    "unknown namespace": (command(subscribe={"channel": "nowhere:a"}), 102),
    "unknown namespace of a private channel": (command(subscribe={"channel": "$nowhere:a"}), 102),
    "empty namespace, which is none": (command(subscribe={"channel": ":a"}), 103),
    "publish to an unknown namespace": (command(publish={"channel": "nowhere:a", "data": 1}), 102),
    "publish to a name too long": (command(publish={"channel": "plain:" + "a" * 300, "data": 1}), 107),
    "publish to a name with an accent": (command(publish={"channel": "plain:é", "data": 1}), 107),
    "publish without data": (command(publish={"channel": "plain:a"}), 107),
    "publish where it is not allowed": (command(publish={"channel": "read:a", "data": 1}), 103),
    "publish what is no object": (command(publish={"channel": "object:a", "data": [1]}), 107),
    "presence of an unknown namespace": (command(presence={"channel": "nowhere:a"}), 102),
    "presence where it is off": (command(presence={"channel": "plain:a"}), 108),
    "presence_stats where it is off": (command(presence_stats={"channel": "plain:a"}), 108),
    "presence where it is not allowed": (command(presence={"channel": "closed:a"}), 103),
    "history of an unknown namespace": (command(history={"channel": "nowhere:a"}), 102),
    "history where it is off": (command(history={"channel": "plain:a"}), 108),
    "history where it is not allowed": (command(history={"channel": "closed:a"}), 103),
    "history backwards from nought": (
        command(history={"channel": "anon:a", "reverse": True, "limit": 1, "since": {"offset": 0, "epoch": ""}}),
        107,
    ),
    "recovery from an offset that cannot be": (
        b'{"id":5,"subscribe":{"channel":"durable:a","recover":true,"offset":18446744073709551615,"epoch":"x"}}',
        0,
    ),
    "history from an offset that cannot be": (
        b'{"id":5,"history":{"channel":"anon:a","limit":1,"since":{"offset":18446744073709551615}}}',
        0,
    ),
    "history of another epoch": (
        command(history={"channel": "anon:a", "limit": 1, "since": {"offset": 1, "epoch": "nope"}}),
        112,
    ),
    "subscribe to what is closed": (command(subscribe={"channel": "closed:a"}), 103),
    "subscribe to a private channel": (command(subscribe={"channel": "$plain:a"}), 103),
    "subscribe to another user's channel": (command(subscribe={"channel": "users:a#7,8"}), 103),
    "subscribe with a token of rubbish": (command(subscribe={"channel": "plain:a", "token": "rubbish"}), 103),
    "a filter where none is allowed": (
        command(subscribe={"channel": "plain:a", "tf": {"key": "k", "cmp": "eq", "val": "v"}}),
        107,
    ),
    "a filter of the wrong type": (command(subscribe={"channel": "tags:a", "tf": "k = v"}), 107),
    "a filter without a comparison": (command(subscribe={"channel": "tags:a", "tf": {"key": "k"}}), 107),
    "a filter of an unknown operator": (
        command(subscribe={"channel": "tags:a", "tf": {"op": "xor", "nodes": [{"key": "k", "cmp": "ex"}]}}),
        107,
    ),
    "rpc that nobody serves": (command(rpc={"method": "nothing", "data": {}}), 108),
    "unsubscribe from nothing": (command(unsubscribe={"channel": "plain:never"}), 0),
    "sub_refresh of what is not subscribed": (command(sub_refresh={"channel": "plain:a", "token": "x"}), 103),
    "an unknown field is nothing": (command(publish={"channel": "plain:a", "data": 1, "colour": "red"}, more=[1]), 0),
    "huge numbers are nothing in a payload": (
        b'{"id":5,"publish":{"channel":"plain:a","data":[1e999999,-' + b"9" * 5000 + b"]}}",
        0,
    ),
    "a huge number in an unknown field": (
        b'{"id":5,"x":' + b"9" * 5000 + b',"publish":{"channel":"plain:a","data":1}}',
        0,
    ),
    "legal nesting": (b'{"id":5,"publish":{"channel":"plain:a","data":' + b"[" * 200 + b"]" * 200 + b"}}", 0),
    "the largest id": (b'{"id":4294967295,"publish":{"channel":"plain:a","data":1}}', 0),
    "the first command of two counts": (
        b'{"id":5,"presence":{"channel":"nowhere:a"},"unsubscribe":{"channel":"plain:a"}}',
        0,
    ),
    "one line feed at the end": (b'{"id":5,"publish":{"channel":"plain:a","data":1}}\n', 0),
}


@pytest.mark.parametrize("name", [*MALFORMED, *WRONG_TYPES])
async def test_a_message_that_is_none_closes_with_3501(hub: HubProcess, name: str) -> None:
    wire = await connected(hub)
    wire.send_text(MALFORMED.get(name) if name in MALFORMED else WRONG_TYPES[name])  # type: ignore[arg-type]
    closed = await closing(wire)
    assert (closed.code, closed.reason) == (BAD_REQUEST, "bad request")


async def closing(wire: Wire) -> Closed:
    """How the connection ends; replies before that are of the valid commands in front of the bad one."""
    try:
        while True:
            await wire.line()
    except Closed as closed:
        return closed


@pytest.mark.parametrize("name", list(ENDING))
async def test_a_command_that_breaks_the_rules_closes(hub: HubProcess, name: str) -> None:
    frame, code = ENDING[name]
    wire = await connected(hub)
    wire.send_text(frame)
    assert (await closing(wire)).code == code


@pytest.mark.parametrize("name", list(ANSWERED))
async def test_a_command_that_cannot_be_done_is_answered_and_the_connection_lives(hub: HubProcess, name: str) -> None:
    frame, code = ANSWERED[name]
    wire = await connected(hub)
    wire.send_text(frame)
    assert await outcome(wire) == code
    reply = await wire.call(presence_stats={"channel": "lobby:alive"})
    assert "presence_stats" in reply, reply
    wire.drop()


BEFORE_CONNECT = {
    "subscribe": {"channel": "plain:a"},
    "unsubscribe": {"channel": "plain:a"},
    "publish": {"channel": "plain:a", "data": 1},
    "presence": {"channel": "room:a"},
    "presence_stats": {"channel": "room:a"},
    "history": {"channel": "recent:a"},
    "rpc": {"method": "x"},
    "ping": {},
    "refresh": {"token": connection_token()},
    "sub_refresh": {"channel": "plain:a", "token": "x"},
}


@pytest.mark.parametrize("name", list(BEFORE_CONNECT))
async def test_commands_before_connect_close_with_3501(hub: HubProcess, name: str) -> None:
    wire = await Wire.open(hub.port)
    wire.command(**{name: BEFORE_CONNECT[name]})
    assert (await wire.closed()).code == BAD_REQUEST


@pytest.mark.parametrize("frame", [b'{"send":{"data":1}}', b"{}", b'{"id":1,"connect":{}}', b'{"id":1,"connect":null}'])
async def test_other_first_messages_close_with_3501(hub: HubProcess, frame: bytes) -> None:
    """send and pong before connect, and a connect without any token."""
    wire = await Wire.open(hub.port)
    wire.send_text(frame)
    assert (await wire.closed()).code == BAD_REQUEST


CONNECTS: dict[str, bytes] = {
    "token as a number": b'{"id":1,"connect":{"token":1}}',
    "name as a number": b'{"id":1,"connect":{"name":1,"token":"x"}}',
    "headers as a list": b'{"id":1,"connect":{"headers":["a"],"token":"x"}}',
    "header values as numbers": b'{"id":1,"connect":{"headers":{"a":1},"token":"x"}}',
    "subs as a list": b'{"id":1,"connect":{"subs":["plain:a"],"token":"x"}}',
    "a sub as text": b'{"id":1,"connect":{"subs":{"plain:a":"yes"},"token":"x"}}',
    "connect as a list": b'{"id":1,"connect":[]}',
    "id nought": b'{"id":0,"connect":{}}',
}


@pytest.mark.parametrize("name", list(CONNECTS))
async def test_a_connect_of_wrong_types_closes_with_3501(hub: HubProcess, name: str) -> None:
    wire = await Wire.open(hub.port)
    wire.send_text(CONNECTS[name])
    assert (await wire.closed()).code == BAD_REQUEST


async def test_what_stands_before_the_bad_message_is_answered(hub: HubProcess) -> None:
    """A frame is worked through in order; the bad message ends it, the good one before it was done."""
    wire = await connected(hub)
    wire.send_text(b'{"id":5,"presence_stats":{"channel":"lobby:a"}}\n{"id":6,"explode":{}}\n{"id":7,"ping":{}}')
    assert json.loads(await wire.line())["id"] == 5
    assert (await wire.closed()).code == BAD_REQUEST


async def test_already_subscribed(hub: HubProcess) -> None:
    wire = await connected(hub)
    assert "subscribe" in await wire.call(subscribe={"channel": "plain:twice"})
    reply = await wire.call(subscribe={"channel": "plain:twice"})
    assert reply["error"]["code"] == 105
    wire.drop()


async def test_more_subscriptions_than_the_limit(hub: HubProcess) -> None:
    wire = await connected(hub)
    for number in range(128):
        assert "subscribe" in await wire.call(subscribe={"channel": f"plain:{number}"})
    reply = await wire.call(subscribe={"channel": "plain:128"})
    assert reply["error"]["code"] == 106
    wire.drop()


async def test_sub_refresh_of_a_subscription_without_token(hub: HubProcess) -> None:
    wire = await connected(hub)
    await wire.call(subscribe={"channel": "plain:a"})
    reply = await wire.call(sub_refresh={"channel": "plain:a", "token": ""})
    assert reply["error"]["code"] == 107
    wire.command(sub_refresh={"channel": "plain:a", "token": "x"})
    assert (await wire.closed()).code == BAD_REQUEST


FRAMES: dict[str, tuple[bytes, int]] = {
    "binary where text is due": (frame_bytes(BINARY, b'{"id":5,"ping":{}}'), BAD_REQUEST),
    "empty binary frame": (frame_bytes(BINARY), BAD_REQUEST),
    "invalid UTF-8": (frame_bytes(TEXT, b'{"id":5,"publish":{"channel":"plain:a","data":"\xff"}}'), 1007),
    "UTF-16": (frame_bytes(TEXT, '{"id":5,"ping":{}}'.encode("utf-16")), 1007),
    "UTF-8 cut off": (frame_bytes(TEXT, '{"id":5,"x":"é'.encode()[:-1]), 1007),
    "surrogates in UTF-8": (frame_bytes(TEXT, b'{"id":5,"x":"\xed\xa0\x80"}'), 1007),
    "overlong UTF-8": (frame_bytes(TEXT, b'{"id":5,"x":"\xc0\x80"}'), 1007),
    "one byte too large": (frame_bytes(TEXT, b"x" * (LIMIT + 1)), 1009),
    "declared too large": (frame_bytes(TEXT, b"", length=1 << 40), 1009),
    "too large in two fragments": (
        frame_bytes(TEXT, b"x" * 40_000, fin=False) + frame_bytes(CONTINUATION, b"x" * 40_000),
        1009,
    ),
    "reserved opcode": (frame_bytes(0x3, b"{}"), 1002),
    "reserved control opcode": (frame_bytes(0xB, b""), 1002),
    "reserved bit": (frame_bytes(TEXT, b"{}", rsv=4), 1002),
    "not masked": (frame_bytes(TEXT, b"{}", masked=False), 1002),
    "continuation of nothing": (frame_bytes(CONTINUATION, b"{}"), 1002),
    "a new message within a message": (frame_bytes(TEXT, b"{", fin=False) + frame_bytes(TEXT, b"}"), 1002),
    "a fragmented ping": (frame_bytes(0x9, b"x", fin=False), 1002),
    "a ping of 126 bytes": (frame_bytes(0x9, b"x" * 126), 1002),
    "a close of one byte": (frame_bytes(0x8, b"\x03"), 1002),
    "a close code of 999": (frame_bytes(0x8, (999).to_bytes(2, "big")), 1002),
    "a close code of 1005": (frame_bytes(0x8, (1005).to_bytes(2, "big")), 1002),
    "a close code of 1006": (frame_bytes(0x8, (1006).to_bytes(2, "big")), 1002),
    "a close code of 65535": (frame_bytes(0x8, b"\xff\xff"), 1002),
    "a close reason of bad UTF-8": (frame_bytes(0x8, (1000).to_bytes(2, "big") + b"\xff"), 1007),
    "a plain close": (frame_bytes(0x8, (1000).to_bytes(2, "big")), 1000),
    "a close of an application": (frame_bytes(0x8, (4999).to_bytes(2, "big") + b"bye"), 4999),
    "a close without a code": (frame_bytes(0x8), 1005),
}


@pytest.mark.parametrize("name", list(FRAMES))
async def test_frames_that_break_the_websocket_protocol(hub: HubProcess, name: str) -> None:
    frames, code = FRAMES[name]
    wire = await connected(hub)
    wire.send(frames)
    assert (await wire.closed()).code == code


async def test_the_largest_message_is_taken(hub: HubProcess) -> None:
    wire = await connected(hub)
    head, tail = b'{"id":5,"publish":{"channel":"plain:a","data":"', b'"}}'
    wire.send_text(head + b"x" * (LIMIT - len(head) - len(tail)) + tail)
    assert await outcome(wire) == 0
    wire.drop()


async def test_pongs_and_fragments_that_are_legal(hub: HubProcess) -> None:
    """An unasked pong frame is nothing; a message may come in pieces with control frames in between."""
    wire = await connected(hub)
    wire.send(frame_bytes(PONG, b"unasked"))
    wire.send(frame_bytes(TEXT, b'{"id":5,"pu', fin=False))
    wire.send(frame_bytes(0x9, b"between"))
    wire.send(frame_bytes(CONTINUATION, b'blish":{"channel":"plain:a",', fin=False))
    wire.send(frame_bytes(CONTINUATION, b"", fin=False))
    wire.send(frame_bytes(CONTINUATION, b'"data":1}}'))
    pong = await wire.frame()
    assert (pong.opcode, pong.payload) == (PONG, b"between")
    assert await outcome(wire) == 0
    wire.drop()


async def test_more_commands_in_a_frame_than_the_limit(hub: HubProcess) -> None:
    wire = await connected(hub)
    wire.send_text(b"\n".join(b'{"id":%d,"unsubscribe":{"channel":"a"}}' % number for number in range(2, 1003)))
    assert (await closing(wire)).code == BAD_REQUEST
