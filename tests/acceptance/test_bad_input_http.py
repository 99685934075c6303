"""What a backend may send wrongly to the server API, one line each, and the status or code that it gets for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.faults.wire import Wire, bounded, http, parse_response
from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProcess]:
    with HubProcess() as process:
        yield process
        log = process.log()
        assert "Traceback" not in log, process.log_tail(200)
        assert process.api_key not in log


async def post(hub: HubProcess, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    given = {"X-API-Key": hub.api_key, "Content-Type": "application/json"} | headers
    status, _, answer = await http(
        hub.port, "POST", path, body, {name: value for name, value in given.items() if value}
    )
    return status, answer


MALFORMED: dict[str, bytes] = {
    "cut off": b'{"channel":"plain:a"',
    "a word": b"hello",
    "trailing comma": b'{"channel":"plain:a","data":1,}',
    "something behind it": b'{"channel":"plain:a","data":1} x',
    "NaN": b'{"channel":"plain:a","data":NaN}',
    "leading nought": b'{"channel":"plain:a","data":01}',
    "control character": b'{"channel":"plain:a","data":"\x01"}',
    "invalid UTF-8": b'{"channel":"plain:a","data":"\xff"}',
    "utf-16": '{"channel":"plain:a","data":1}'.encode("utf-16"),
    "deep nesting": b'{"channel":"plain:a","data":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "deep nesting of objects": b'{"channel":"plain:a","data":' + b'{"a":' * 3_000 + b"1" + b"}" * 3_000 + b"}",
}


@pytest.mark.parametrize("name", list(MALFORMED))
async def test_a_body_that_is_none_is_400(hub: HubProcess, name: str) -> None:
    status, answer = await post(hub, "/api/publish", MALFORMED[name])
    assert status == 400, answer
    assert answer, "a sentence should say what is wrong"


WRONG_TYPES: dict[str, bytes] = {
    "an array": b"[]",
    "null": b"null",
    "a string": b'"x"',
    "channel as a number": b'{"channel":1,"data":1}',
    "channel as a list": b'{"channel":["plain:a"],"data":1}',
    "tags as a list": b'{"channel":"plain:a","data":1,"tags":["a"]}',
    "tags of numbers": b'{"channel":"plain:a","data":1,"tags":{"a":1}}',
    "version as text": b'{"channel":"plain:a","data":1,"version":"1"}',
    "version negative": b'{"channel":"plain:a","data":1,"version":-1}',
    "version of 2^64": b'{"channel":"plain:a","data":1,"version":18446744073709551616}',
    "skip_history as text": b'{"channel":"plain:a","data":1,"skip_history":"yes"}',
    "idempotency_key as a number": b'{"channel":"plain:a","data":1,"idempotency_key":1}',
    "b64data as a number": b'{"channel":"plain:a","b64data":1}',
}


@pytest.mark.parametrize("name", list(WRONG_TYPES))
async def test_json_of_the_wrong_type_is_error_107(hub: HubProcess, name: str) -> None:
    status, answer = await post(hub, "/api/publish", WRONG_TYPES[name])
    assert (status, json.loads(answer)["error"]["code"]) == (200, 107), answer


async def test_bytes_that_are_no_json_close_the_clients_that_want_json(hub: HubProcess) -> None:
    """The backend may publish any bytes as base64; a JSON client cannot be told, so it is closed with 3506."""
    wire = await Wire.open(hub.port)
    await wire.connect(connection_token())
    assert "subscribe" in await wire.call(subscribe={"channel": "recent:binary"})
    status, answer = await post(hub, "/api/publish", b'{"channel":"recent:binary","b64data":"aGVsbG8="}')
    assert (status, json.loads(answer)["result"]["offset"]) == (200, 1)
    assert (await wire.closed()).code == 3506
    _, answer = await post(hub, "/api/history", b'{"channel":"recent:binary","limit":10}')
    assert json.loads(answer)["result"]["publications"][0]["b64data"] == "aGVsbG8="


ANSWERED: dict[str, tuple[str, dict[str, object], int]] = {
    "no channel": ("publish", {"data": 1}, 107),
    "empty channel": ("publish", {"channel": "", "data": 1}, 107),
    "no data": ("publish", {"channel": "plain:a"}, 107),
    "unknown namespace": ("publish", {"channel": "nowhere:a", "data": 1}, 102),
    "name too long": ("publish", {"channel": "plain:" + "a" * 300, "data": 1}, 107),
    "name with an accent": ("publish", {"channel": "plain:é", "data": 1}, 107),
    "b64data that is none": ("publish", {"channel": "plain:a", "b64data": "%%%"}, 107),
    "no object where one is due": ("publish", {"channel": "object:a", "data": [1]}, 107),
    "broadcast to nobody": ("broadcast", {"channels": [], "data": 1}, 107),
    "broadcast to the empty channel": ("broadcast", {"channels": ["plain:a", ""], "data": 1}, 107),
    "presence without a channel": ("presence", {}, 107),
    "presence where it is off": ("presence", {"channel": "plain:a"}, 108),
    "presence of an unknown namespace": ("presence", {"channel": "nowhere:a"}, 102),
    "presence_stats where it is off": ("presence_stats", {"channel": "plain:a"}, 108),
    "history where it is off": ("history", {"channel": "plain:a"}, 108),
    "history of an unknown namespace": ("history", {"channel": "nowhere:a"}, 102),
    "history of another epoch": (
        "history",
        {"channel": "recent:a", "limit": 1, "since": {"offset": 1, "epoch": "nope"}},
        112,
    ),
    "history_remove without a channel": ("history_remove", {}, 107),
    "history_remove of an unknown namespace": ("history_remove", {"channel": "nowhere:a"}, 102),
    "subscribe without a user": ("subscribe", {"channel": "plain:a"}, 107),
    "subscribe without a channel": ("subscribe", {"user": "1"}, 107),
    "subscribe to an unknown namespace": ("subscribe", {"user": "1", "channel": "nowhere:a"}, 102),
    "unsubscribe without a user": ("unsubscribe", {"channel": "plain:a"}, 107),
    "disconnect without a user": ("disconnect", {}, 107),
    "refresh without a user": ("refresh", {}, 107),
    "rpc without a method": ("rpc", {}, 107),
    "rpc that nobody serves": ("rpc", {"method": "nothing"}, 104),
    "unknown fields are nothing": ("publish", {"channel": "plain:a", "data": 1, "colour": "red"}, 0),
}


@pytest.mark.parametrize("name", list(ANSWERED))
async def test_a_request_that_cannot_be_done_is_an_error_in_a_200(hub: HubProcess, name: str) -> None:
    method, body, code = ANSWERED[name]
    status, answer = await post(hub, f"/api/{method}", json.dumps(body).encode())
    assert status == 200, answer
    assert json.loads(answer).get("error", {}).get("code", 0) == code, answer


@pytest.mark.parametrize("name", list(ANSWERED))
async def test_the_same_in_transport_mode_is_a_status(hub: HubProcess, name: str) -> None:
    method, body, code = ANSWERED[name]
    statuses = {0: 200, 100: 500, 102: 404, 104: 404, 107: 400, 108: 400, 112: 416, 113: 409}
    headers = {"X-Centrifugo-Error-Mode": "transport"}
    status, answer = await post(hub, f"/api/{method}", json.dumps(body).encode(), **headers)
    assert status == statuses[code], answer
    if code:
        assert json.loads(answer)["code"] == code


async def test_a_broadcast_answers_for_each_channel(hub: HubProcess) -> None:
    body = {"channels": ["plain:a", "nowhere:a", "plain:é", "object:a"], "data": 1}
    _, answer = await post(hub, "/api/broadcast", json.dumps(body).encode())
    codes = [reply.get("error", {}).get("code", 0) for reply in json.loads(answer)["result"]["responses"]]
    assert codes == [0, 102, 107, 107]
    _, answer = await post(hub, "/api/broadcast", b'{"channels":["plain:a","plain:b"]}')
    codes = [reply["error"]["code"] for reply in json.loads(answer)["result"]["responses"]]
    assert codes == [107, 107]


async def test_a_batch_answers_for_each_command(hub: HubProcess) -> None:
    commands = [
        {"publish": {"channel": "plain:a", "data": 1}},
        {"publish": {"channel": "nowhere:a", "data": 1}},
        {"explode": {}},
        {},
        {"presence": {"channel": "plain:a"}},
    ]
    status, answer = await post(hub, "/api/batch", json.dumps({"commands": commands}).encode())
    assert status == 200, answer
    codes = [reply.get("error", {}).get("code", 0) for reply in json.loads(answer)["replies"]]
    assert codes[0:2] == [0, 102]
    assert codes[4] == 108
    assert all(code in (104, 107) for code in codes[2:4]), codes


KEYS: dict[str, tuple[str, dict[str, str]]] = {
    "none": ("/api/info", {"X-API-Key": ""}),
    "wrong": ("/api/info", {"X-API-Key": "wrong"}),
    "too long": ("/api/info", {"X-API-Key": "x" * 4000}),
    "not ASCII": ("/api/info", {"X-API-Key": "\xe9\xe8"}),
    "wrong scheme": ("/api/info", {"X-API-Key": "", "Authorization": "Bearer acceptance-api-key-0123456789abcdef"}),
    "wrong in the query": ("/api/info?api_key=wrong", {"X-API-Key": ""}),
    "of the legacy endpoint": ("/api", {"X-API-Key": ""}),
    "before the method is looked at": ("/api/nothing", {"X-API-Key": "wrong"}),
}


@pytest.mark.parametrize("name", list(KEYS))
async def test_without_the_key_it_is_401(hub: HubProcess, name: str) -> None:
    path, headers = KEYS[name]
    status, answer = await post(hub, path, b"{}", **headers)
    assert (status, answer) == (401, b"")


async def test_unknown_method_is_404(hub: HubProcess) -> None:
    assert (await post(hub, "/api/explode", b"{}"))[0] == 404
    assert (await post(hub, "/api/publish/more", b"{}"))[0] == 404
    assert (await post(hub, "/nothing", b"{}"))[0] == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "PATCH"])
async def test_other_http_methods_are_405(hub: HubProcess, method: str) -> None:
    status, headers, _ = await http(hub.port, method, "/api/publish", b"", {"X-API-Key": hub.api_key})
    assert status == 405
    assert "POST" in headers.get("allow", "")


async def test_a_body_that_is_too_large_is_413(hub: HubProcess) -> None:
    """Said before the body has come: only the length is announced."""
    wire = await Wire.tcp(hub.port)
    head = f"POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: {hub.api_key}\r\nContent-Length: 10000000000\r\n\r\n"
    wire.send(head.encode())
    answer = await bounded(wire.reader.readuntil(b"\r\n"), "no answer")
    assert b" 413 " in answer
    wire.drop()


async def test_a_chunked_body_that_never_ends_is_413(hub: HubProcess) -> None:
    wire = await Wire.tcp(hub.port)
    wire.send(
        f"POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: {hub.api_key}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n".encode()
    )

    async def feed() -> None:
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(4000):
            wire.send(chunk)
            await wire.drain()
            if wire.writer.transport.is_closing():
                return

    feeding = asyncio.create_task(feed())
    try:
        answer = await bounded(wire.reader.readuntil(b"\r\n"), "neither an answer nor a close")
        assert b" 413 " in answer
    except ConnectionError:
        pass  # closed while more was on its way: the answer may be lost with the connection
    feeding.cancel()
    await asyncio.gather(feeding, return_exceptions=True)
    wire.drop()


@pytest.mark.parametrize("size", [100_000, 200_000, 500_000])
async def test_large_bodies_are_taken(hub: HubProcess, size: int) -> None:
    """A body that comes together with its headers is not counted with them."""
    status, answer = await post(hub, "/api/publish", b'{"channel":"plain:a","data":"%b"}' % (b"x" * size))
    assert (status, json.loads(answer)) == (200, {"result": {}})


async def test_chunked_bodies_are_taken(hub: HubProcess) -> None:
    wire = await Wire.tcp(hub.port)
    wire.send(
        f"POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: {hub.api_key}\r\nConnection: close\r\n"
        "Transfer-Encoding: chunked\r\n\r\n".encode()
    )
    for byte in b'{"channel":"plain:a","data":1}':
        wire.send(b"1\r\n" + bytes([byte]) + b"\r\n")
    wire.send(b"0\r\n\r\n")
    status, _, answer = parse_response(await bounded(wire.reader.read(), "no answer"))
    assert (status, json.loads(answer)) == (200, {"result": {}})
    wire.drop()


RAW: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "no HTTP": (b"hello there\r\n\r\n", (400,)),
    "binary": (bytes(range(256)) + b"\r\n\r\n", (400,)),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n", (400,)),
    "header without a colon": (b"GET /health HTTP/1.1\r\nHost: x\r\nnothing\r\n\r\n", (400,)),
    "NUL in a header": (b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", (400, 200)),
    "unknown version": (b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n", (400, 505)),
    "two lengths": (
        b"POST /api/info HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        (400,),
    ),
    "length and chunked": (
        b"POST /api/info HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        (400, 401),
    ),
    "negative length": (b"POST /api/info HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", (400,)),
    "length as a word": (b"POST /api/info HTTP/1.1\r\nHost: x\r\nContent-Length: two\r\n\r\n", (400,)),
    "bad chunk": (
        b"POST /api/info HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        (400, 401),
    ),
    "space in the path": (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", (400, 404)),
}


@pytest.mark.parametrize("name", list(RAW))
async def test_what_is_not_http_is_refused(hub: HubProcess, name: str) -> None:
    raw, statuses = RAW[name]
    wire = await Wire.tcp(hub.port)
    wire.send(raw)
    wire.half_close()
    try:
        answer = await bounded(wire.reader.read(), "neither an answer nor a close")
    except ConnectionError:
        answer = b""
    if answer:
        assert int(answer.split(b" ")[1]) in statuses, answer
    wire.drop()


DISCONNECTS: dict[str, tuple[dict[str, object], tuple[int, str] | None]] = {
    "reserved": ({"code": 1000}, None),
    "below": ({"code": 2999}, None),
    "above": ({"code": 5000}, None),
    "negative": ({"code": -1}, None),
    "beyond 32 bits": ({"code": 2**32}, None),
    "as text": ({"code": "4000"}, None),
    "reason too long": ({"code": 4000, "reason": "x" * 124}, None),
    "reason too long in bytes": ({"code": 4000, "reason": "é" * 62}, None),
    "longest reason": ({"code": 4000, "reason": "é" * 61}, (4000, "é" * 61)),
    "lowest": ({"code": 3000, "reason": "a"}, (3000, "a")),
    "highest": ({"code": 4999, "reason": "z"}, (4999, "z")),
    "default": ({}, (3503, "force disconnect")),
}


@pytest.mark.parametrize("name", list(DISCONNECTS))
async def test_disconnect_takes_only_codes_and_reasons_that_can_be_sent(hub: HubProcess, name: str) -> None:
    how, wanted = DISCONNECTS[name]
    wire = await Wire.open(hub.port)
    await wire.connect(connection_token("leaver"))
    status, answer = await post(hub, "/api/disconnect", json.dumps({"user": "leaver", "disconnect": how}).encode())
    assert status == 200, answer
    if wanted is None:
        assert json.loads(answer)["error"]["code"] == 107
        assert "presence_stats" in await wire.call(presence_stats={"channel": "lobby:a"})
        wire.drop()
    else:
        closed = await wire.closed()
        assert (closed.code, closed.reason) == wanted


@pytest.mark.parametrize("expire_at", [1, 2**31, 2**63, 2**64 - 1])
async def test_expiry_may_be_any_time(hub: HubProcess, expire_at: int) -> None:
    """In the past it is the end, and however far ahead the client is told of a year at most."""
    wire = await Wire.open(hub.port)
    await wire.connect(connection_token("refreshed"))
    _, answer = await post(hub, "/api/refresh", json.dumps({"user": "refreshed", "expire_at": expire_at}).encode())
    assert json.loads(answer) == {"result": {}}
    if expire_at == 1:
        assert (await wire.closed()).code == 3005
    else:
        push = json.loads(await wire.line())["push"]["refresh"]
        assert push["expires"] is True
        assert 0 < push["ttl"] <= 365 * 86400
        wire.drop()
