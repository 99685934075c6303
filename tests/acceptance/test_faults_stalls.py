"""Inputs made to be expensive: within one legal frame or request, nothing may hold up the others.

The bound is a hang's, not a speed's: what is right takes milliseconds, what is quadratic takes many seconds.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.faults.raw_tokens import HEADER, b64url, raw_token
from tests.faults.wire import TEXT, Closed, Wire, frame_bytes, http
from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token

STALL = 2.0
"""Seconds that a bystander may have to wait."""
COPIES = 5
SIZE = 60_000

FRAMES: dict[str, bytes] = {
    "brackets": b"[" * (SIZE // 2) + b"]" * (SIZE // 2),
    "open brackets": b"[" * SIZE,
    "brackets in a payload": b'{"id":5,"publish":{"channel":"plain:a","data":' + b"[" * 25_000 + b"]" * 25_000 + b"}}",
    "wide and nearly too deep": b'{"id":5,"rpc":{"data":[' + b",".join([b"[" * 400 + b"]" * 400] * 70) + b"]}}",
    "quotes and backslashes": b'"\\' * (SIZE // 2),
    "quotes, backslashes and brackets": b'"\\' * (SIZE // 2 - 500) + b"[" * 1000,
    "backslashes": b'{"id":5,"rpc":{"data":"' + b"\\\\" * (SIZE // 2) + b'"}}',
    "brackets in strings": b'{"id":5,"rpc":{"data":"' + b"[" * SIZE + b'"}}',
    "an open string": b"[" * 1000 + b'"' + b"x" * SIZE,
    "half surrogates": b'{"id":5,"rpc":{"data":"' + rb"\ud800" * 9_000 + b'"}}',
    "both kinds of escapes": b'{"id":5,"rpc":{"data":"' + rb"\ud800\ue800" * 4_500 + b'"}}',
    "half surrogates in a name": b'{"id":5,"rpc":{"method":"' + rb"\ud800" * 9_000 + b'"}}',
    "digits": b'{"id":5,"publish":{"channel":"plain:a","data":' + b"9" * SIZE + b"}}",
    "digits as an id": b'{"id":' + b"9" * SIZE + b"}",
    "an exponent": b'{"id":5,"history":{"channel":"anon:a","limit":1e' + b"9" * SIZE + b"}}",
    "a thousand commands": b"\n".join([b'{"id":5,"presence_stats":{"channel":"lobby:a"}}'] * 1000),
    "line feeds": b"\n" * SIZE,
    "the same key": b'{"id":5' + b',"x":1' * 9_000 + b',"ping":{}}',
    "different keys": b'{"id":5' + b"".join(b',"x%d":1' % number for number in range(6_000)) + b',"ping":{}}',
    "a long name": b'{"id":5,"subscribe":{"channel":"plain:' + b"a#" * 25_000 + b'"}}',
    "many users in a name": b'{"id":5,"subscribe":{"channel":"users:a#' + b"1," * 100 + b'"}}',
    "a wide filter": b'{"id":5,"subscribe":{"channel":"tags:a","tf":{"op":"or","nodes":['
    + b",".join([b'{"key":"k","cmp":"ct","val":"v"}'] * 1_700)
    + b"]}}}",
    "many values in a filter": b'{"id":5,"subscribe":{"channel":"tags:a","tf":{"key":"k","cmp":"in","vals":['
    + b",".join([b'"v"'] * 14_000)
    + b"]}}}",
    "many positions to recover": b'{"id":5,"connect":{"subs":{'
    + b",".join(b'"plain:%d":{"recover":true,"offset":1}' % number for number in range(1_400))
    + b"}}}",
    "a token of dots": b'{"id":5,"refresh":{"token":"' + b"." * SIZE + b'"}}',
    "a token's nested claims": json.dumps(
        {"id": 5, "refresh": {"token": raw_token(b'{"sub":"42","x":' + b"[" * 2_500 + b"]" * 2_500 + b"}")}}
    ).encode(),
    "a token's blanks": json.dumps(
        {
            "id": 5,
            "refresh": {
                "token": raw_token(b'{"sub":"42","info":{"a":' + b" " * 5_000 + b'"' + b"\\\\ " * 200 + b'"}}')
            },
        }
    ).encode(),
    "a token's header": json.dumps(
        {"id": 5, "refresh": {"token": (b64url(HEADER[:-1] + b',"x":' + b"[" * 5_000) + b".e30.").decode()}}
    ).encode(),
}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProcess]:
    free = {"rate": 0, "burst": 1}
    limits = dict.fromkeys(("publish", "subscribe", "rpc", "history", "other", "bytes"), free)
    with HubProcess(changes={"rate_limit": limits}, app="tests.faults.fuzz_app:app") as process:
        yield process
        assert "Traceback" not in process.log(), process.log_tail(100)


async def connected(hub: HubProcess, user: str) -> Wire:
    wire = await Wire.open(hub.port)
    await wire.connect(connection_token(user))
    return wire


@pytest.mark.parametrize("name", list(FRAMES))
async def test_no_frame_holds_up_the_others(hub: HubProcess, name: str) -> None:
    frame = FRAMES[name]
    assert len(frame) <= 65_536
    bystander = await connected(hub, "bystander")
    senders = [await connected(hub, "42") for _ in range(COPIES)]
    for sender in senders:
        sender.send(frame_bytes(TEXT, frame))
    # Each has been taken up when its answer, or its end, has come.
    for sender in senders:
        try:
            await sender.line(within=STALL * COPIES)
        except Closed:
            pass
        number = bystander.command(presence_stats={"channel": "lobby:a"})
        await bystander.reply(number, within=STALL)
    for wire in (bystander, *senders):
        wire.drop()


BODIES: dict[str, tuple[str, bytes]] = {
    "brackets": ("publish", b"[" * 500_000 + b"]" * 500_000),
    "brackets in a payload": ("publish", b'{"channel":"plain:a","data":' + b"[" * 400_000 + b"]" * 400_000 + b"}"),
    "quotes and backslashes": ("publish", b'"\\' * 400_000 + b"[" * 1000),
    "line feeds in a payload": ("publish", b'{"channel":"plain:a","data":[1' + b"\n" * 900_000 + b"]}"),
    "half surrogates": ("publish", b'{"channel":"plain:a","data":"' + rb"\ud800" * 100_000 + b'"}'),
    "a glob of stars": ("channels", b'{"pattern":"' + b"*a" * 100 + b'b"}'),
    "a glob of brackets": ("channels", b'{"pattern":"' + b"[a" * 100 + b'"}'),
    "digits": ("publish", b'{"channel":"plain:a","version":' + b"9" * 900_000 + b"}"),
    "base64": ("publish", b'{"channel":"plain:a","b64data":"' + b"W1tb" * 200_000 + b'"}'),
}


@pytest.mark.parametrize("name", list(BODIES))
async def test_no_api_body_holds_up_the_others(hub: HubProcess, name: str) -> None:
    method, body = BODIES[name]
    bystander = await connected(hub, "bystander")
    # Globs meet a channel that they nearly match.
    assert "subscribe" in await bystander.call(subscribe={"channel": "plain:" + "a" * 200})
    headers = {"X-API-Key": hub.api_key}
    asked = asyncio.create_task(http(hub.port, "POST", f"/api/{method}", body, headers))
    await asyncio.sleep(0.1)
    number = bystander.command(presence_stats={"channel": "lobby:a"})
    await bystander.reply(number, within=STALL)
    status, _, _ = await asked
    assert status in (200, 400, 413)
    bystander.drop()
