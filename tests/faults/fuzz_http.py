"""Mutated requests to the server API: bodies on kept connections, and bytes that are hardly HTTP."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable
from typing import Any

from tests.faults import oracle
from tests.faults.fuzz_report import Report
from tests.faults.mutate import dump, mutate_bytes, mutate_tree
from tests.faults.oracle import NotJson, anything, flag, int32, mapping, struct, text, uint64
from tests.faults.wire import ANSWER_WITHIN, Hang, Wire, loads
from tests.support.hub_process import HubProcess

RAW_STATUSES = {200, 204, 307, 400, 401, 403, 404, 405, 408, 409, 411, 413, 414, 415, 416, 417, 426, 431, 501, 505}
MAY: dict[str, set[int]] = {
    "publish": {0, 102, 107},
    "broadcast": {0, 107},
    "subscribe": {0, 102, 103, 105, 106, 107, 108, 112},
    "unsubscribe": {0, 102, 107},
    "disconnect": {0, 107},
    "refresh": {0, 107},
    "presence": {0, 102, 107, 108},
    "presence_stats": {0, 102, 107, 108},
    "history": {0, 102, 107, 108, 112},
    "history_remove": {0, 102, 107, 108},
    "channels": {0, 107},
    "connections": {0, 102, 107},
    "info": {0, 107},
    "rpc": {0, 104, 107, 108},
}


def strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


PUBLISH: dict[str, Callable[[Any], bool]] = {
    "data": anything,
    "b64data": text,
    "skip_history": flag,
    "tags": mapping(text),
    "idempotency_key": text,
    "delta": flag,
    "version": uint64,
    "version_epoch": text,
}
POSITION = struct(offset=uint64, epoch=text)
SHAPES: dict[str, Callable[[Any], bool]] = {
    "publish": struct(channel=text, **PUBLISH),
    "broadcast": struct(channels=strings, **PUBLISH),
    "presence": struct(channel=text),
    "presence_stats": struct(channel=text),
    "history": struct(channel=text, limit=int32, since=POSITION, reverse=flag),
    "history_remove": struct(channel=text),
    "unsubscribe": struct(user=text, channel=text, client=text, session=text),
}
"""Fields whose types are certain. Methods without an entry are only checked for codes."""

VALID: list[tuple[str, dict[str, Any]]] = [
    *(
        ("publish", {"channel": channel, "data": {"x": 1}})
        for channel in ("plain:f", "recent:f", "durable:f", "tags:f", "object:f", "delta:f", "cache:f")
    ),
    ("publish", {"channel": "recent:f", "data": "x", "tags": {"k": "v"}, "idempotency_key": "i", "delta": True}),
    ("publish", {"channel": "durable:f", "data": [1], "version": 5, "version_epoch": "e", "skip_history": True}),
    # Bytes that are no JSON close those who are subscribed (3506), so nobody is subscribed to this channel.
    ("publish", {"channel": "plain:bytes", "b64data": "eyJ4IjoxfQ=="}),
    ("broadcast", {"channels": ["plain:f", "recent:f", "durable:f"], "data": {"x": 1}, "tags": {}}),
    (
        "subscribe",
        {"user": "42", "channel": "room:f", "info": {"i": 1}, "data": {"d": 1}, "client": "c", "session": "s"},
    ),
    (
        "subscribe",
        {"user": "u", "channel": "recent:f", "recover_since": {"offset": 1, "epoch": "e"}, "expire_at": 4102444800},
    ),
    (
        "subscribe",
        {"user": "u", "channel": "room:f", "override": {"presence": {"value": True}, "join_leave": {"value": False}}},
    ),
    ("unsubscribe", {"user": "u", "channel": "room:f", "client": "", "session": ""}),
    ("unsubscribe", {"user": "u", "channel": ""}),
    ("disconnect", {"user": "u", "whitelist": ["a"], "disconnect": {"code": 4000, "reason": "bye"}}),
    ("refresh", {"user": "u", "expired": True, "expire_at": 4102444800, "info": {"x": 1}}),
    ("presence", {"channel": "room:f"}),
    ("presence_stats", {"channel": "room:f"}),
    ("history", {"channel": "recent:f", "limit": 10, "since": {"offset": 1, "epoch": "e"}, "reverse": True}),
    ("history", {"channel": "durable:f", "limit": 10, "since_time": 1, "until_time": 2**41}),
    ("history_remove", {"channel": "recent:gone"}),
    ("channels", {"pattern": "plain:*"}),
    ("connections", {"user": "42"}),
    ("info", {}),
    ("rpc", {"method": "echo", "params": {"x": 1}}),
    ("batch", {"commands": [{"publish": {"channel": "plain:f", "data": 1}}, {"info": {}}], "parallel": True}),
]


def request(port: int, path: str, body: bytes, key: str, *more: str) -> bytes:
    """A well-formed request around any body."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        f"X-API-Key: {key}",
        f"Content-Length: {len(body)}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def judge(method: str, body: bytes) -> tuple[set[int], set[int]]:
    """Allowed (statuses, error codes) of a request with the right key."""
    parse = oracle.Parse()
    codes = set(MAY.get(method, {0, 107}))
    if not body.strip():
        return {200, 400}, codes
    try:
        value = parse(body)
    except NotJson:
        # A wrong type in front of the mistake may be found first.
        return {400, 200}, {107}
    if parse.doubtful or oracle.has_null(value) or method not in SHAPES:
        return {200, 400}, codes
    if not isinstance(value, dict):
        return {400, 200}, {107}
    if not SHAPES[method](value):
        return {400, 200}, {107}
    return {200}, codes


async def fuzz_bodies(hub: HubProcess, report: Report, count: int, seed: str) -> None:
    """Mutated bodies in well-formed requests on one kept connection."""
    chance = random.Random(seed)
    wire: Wire | None = None
    for _ in range(count):
        method, valid = copy.deepcopy(chance.choice(VALID))
        body = _body(valid, chance)
        path = f"/api/{method}"
        if chance.random() < 0.06:
            legacy = {"method": method, "params": valid}
            body, path = _body(legacy, chance), "/api"
        if wire is not None and wire.reader.at_eof():
            wire.drop()
            wire = None
        if wire is None:
            wire = await Wire.tcp(hub.port)
        wire.send(request(hub.port, path, body, hub.api_key))
        try:
            status, answer, closes = await _response(wire)
        except (ConnectionError, asyncio.IncompleteReadError):
            status, answer, closes = 0, b"", True
        except Hang:
            status, answer, closes = -1, b"", True
        if closes:
            wire.drop()
            wire = None
        report.inputs["api bodies"] += 1
        report.answers[f"http {status}"] += 1
        _compare(report, method, path, body, status, answer)
    if wire is not None:
        wire.drop()


def _body(valid: Any, chance: random.Random) -> bytes:
    chosen = chance.random()
    if chosen < 0.15:
        return dump(valid, chance, loose=True)
    if chosen < 0.75:
        changed = valid
        for _ in range(chance.choice([1, 1, 2, 3])):
            changed = mutate_tree(changed, chance)
        return dump(changed, chance, loose=chance.random() < 0.3)
    return mutate_bytes(dump(valid, chance), chance)


def _compare(report: Report, method: str, path: str, body: bytes, status: int, answer: bytes) -> None:
    if path == "/api":
        if status not in (200, 400):
            report.complain("legacy api", body, (status, answer[:200]), {200, 400})
        return
    statuses, codes = judge(method, body)
    if status not in statuses:
        report.complain(f"api {method}", body, (status, answer[:200]), (statuses, codes))
        return
    if status != 200:
        if not answer:
            report.complain(f"api {method}", body, "an empty 400", "a sentence")
        return
    value = loads(answer)
    replies = value["replies"] if method == "batch" and "replies" in value else [value]
    if method == "broadcast" and "result" in value:
        replies = [value, *value["result"]["responses"]]
        codes = codes | {102, 107}
    for reply in replies:
        code = reply["error"]["code"] if "error" in reply else 0
        report.answers[f"api {code}"] += 1
        if code not in codes and not (method == "batch" and code in (102, 104, 107)):
            report.complain(f"api {method}", body, answer[:200], codes)


async def _response(wire: Wire) -> tuple[int, bytes, bool]:
    """Read one response from a kept connection: status, body, whether the connection is to be closed."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            head = (await wire.reader.readuntil(b"\r\n\r\n")).lower()
            length = 0
            for line in head.split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            assert b"transfer-encoding: chunked" not in head
            body = await wire.reader.readexactly(length)
    except TimeoutError:
        raise Hang("no HTTP response") from None
    return int(head.split(b" ", 2)[1]), body, b"connection: close" in head


async def fuzz_requests(hub: HubProcess, report: Report, count: int, seed: str) -> None:
    """Mutated bytes of whole requests, each on its own connection, which is then half closed."""
    chance = random.Random(seed)
    for _ in range(count):
        method, valid = chance.choice(VALID)
        body = dump(valid, chance)
        data = _strange(hub, method, body, chance)
        if chance.random() < 0.7:
            data = mutate_bytes(data, chance)
        wire = await Wire.tcp(hub.port)
        try:
            wire.send(data)
            wire.half_close()
            async with asyncio.timeout(ANSWER_WITHIN):
                answer = await wire.reader.read()
        except ConnectionError:
            answer = b""
        except TimeoutError:
            report.complain("http request", data, "HANG", "an answer or a close")
            continue
        finally:
            wire.drop()
        report.inputs["http requests"] += 1
        answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        status = int(answer[9:12]) if answer[:5] == b"HTTP/" else 0
        report.answers[f"http {status}"] += 1
        if status not in RAW_STATUSES | {0, 101}:
            report.complain("http request", data, answer[:200], RAW_STATUSES)


def _strange(hub: HubProcess, method: str, body: bytes, chance: random.Random) -> bytes:
    """Requests that are odd before any mutation."""
    key, port = hub.api_key, hub.port
    choice = chance.randrange(9)
    if choice == 0:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part)
        head = f"POST /api/{method} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nTransfer-Encoding: chunked\r\n\r\n"
        return head.encode() + chunks + b"0\r\n\r\n"
    if choice == 1:
        return request(port, f"/api/{method}", body, "wrong")
    if choice == 2:
        return request(port, f"/api/{method}", body, key, "Expect: 100-continue")
    if choice == 3:
        verb = chance.choice(["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PATCH", "BREW"])
        return request(port, f"/api/{method}", body, key).replace(b"POST", verb.encode(), 1)
    if choice == 4:
        path = chance.choice(
            ["/health", "/ready", "/metrics", "/", "/api/", "/api//publish", "/%00", "/../x", "/connection/websocket"]
        )
        return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    if choice == 5:
        return request(port, f"/api/{method}?api_key={key}&x=%ff", body, "")
    if choice == 6:
        return request(port, f"/api/{method}", body, key) * 3
    if choice == 7:
        return request(port, f"/api/{method}", body, key, "X-Centrifugo-Error-Mode: transport")
    return request(port, f"/api/{method}", body, key, "Authorization: apikey " + "x" * chance.choice([0, 10, 5000]))
