"""The transport under attack: slow headers, floods of pings and fragments, large headers, strange origins, tokens in URLs."""

from __future__ import annotations

import asyncio
import json
import zlib

import pytest

from tests.faults.measure import MEGABYTE, open_files, resident
from tests.faults.wire import (
    CONTINUATION,
    ENDPOINT,
    PING,
    PONG,
    TEXT,
    Closed,
    HandshakeRefused,
    Wire,
    bounded,
    frame_bytes,
    http,
)
from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token

POLICY_VIOLATION = 1008
TOO_MANY_REQUESTS = 3013


async def connected(hub: HubProcess, user: str = "42") -> Wire:
    wire = await Wire.open(hub.port)
    await wire.connect(connection_token(user))
    return wire


async def alive(hub: HubProcess) -> None:
    wire = await connected(hub, "alive")
    assert "presence_stats" in await wire.call(presence_stats={"channel": "lobby:a"})
    wire.drop()


async def ended(wire: Wire, within: float = 15.0) -> int:
    """Wait until the server ends the connection; how, if it says so."""
    return (await wire.closed(within)).code


@pytest.mark.parametrize("start", [b"", b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\n", b"G"])
async def test_slow_headers_are_cut_off(start: bytes) -> None:
    """A byte now and then does not keep a connection open for longer than the handshake may take."""
    async with HubProcess(changes={"websocket": {"handshake_timeout": "1s"}}) as hub:
        wires = [await Wire.tcp(hub.port) for _ in range(20)]

        async def drip(wire: Wire) -> None:
            wire.send(start)
            while not wire.reader.at_eof() and wire.reader.exception() is None:
                wire.send(b"A: b\r\n" if b"\r\n" in start else b"" if not start else b"E")
                await asyncio.sleep(0.2)

        dripping = [asyncio.create_task(drip(wire)) for wire in wires]
        await alive(hub)
        for wire in wires:
            try:
                answer = await bounded(wire.reader.read(), "a slow handshake was not cut off")
                assert answer == b"" or int(answer.split(b" ")[1]) in (400, 408), answer
            except ConnectionError:
                pass
        for task in dripping:
            task.cancel()
        await asyncio.gather(*dripping, return_exceptions=True)
        for wire in wires:
            wire.drop()
        assert "Traceback" not in hub.log()


async def test_a_connection_that_never_connects_is_stale() -> None:
    async with HubProcess(changes={"client": {"stale_close_delay": "1s"}}) as hub:
        wire = await Wire.open(hub.port)
        assert await ended(wire) == 3502


async def test_who_does_not_answer_pings_is_closed() -> None:
    async with HubProcess(changes={"client": {"ping_interval": "400ms", "pong_timeout": "200ms"}}) as hub:
        wire = await connected(hub)
        assert await ended(wire) == 3012
        # And who answers is not, nor twice without being asked.
        wire = await connected(hub)
        for _ in range(3):
            assert await wire.message(pong=False) == b"{}"
            wire.send_text(b"{}")
        wire.send_text(b"{}")
        assert await ended(wire) == 3501


@pytest.mark.parametrize("opcode", [PING, PONG])
async def test_a_flood_of_control_frames_is_closed(opcode: int) -> None:
    async with HubProcess() as hub:
        wire = await connected(hub)
        for _ in range(200):
            wire.send(frame_bytes(opcode, b"x" * 125) * 50)
            await wire.drain()
            if wire.writer.transport.is_closing():
                break
        assert await ended(wire) in (TOO_MANY_REQUESTS, POLICY_VIOLATION, 1006)
        await alive(hub)


async def test_a_flood_of_pings_from_one_that_does_not_read_costs_no_memory() -> None:
    async with HubProcess() as hub:
        wire = await Wire.open(hub.port, receive_buffer=4096)
        await wire.connect(connection_token())
        before = resident(hub.pid)
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket transport, which has it
        flood = frame_bytes(PING, b"x" * 125) * 1000
        for _ in range(300):
            if wire.writer.transport.is_closing():
                break
            wire.send(flood)
            try:
                async with asyncio.timeout(2):
                    await wire.writer.drain()
            except (TimeoutError, ConnectionError):
                break
        await alive(hub)
        assert resident(hub.pid) - before < 10 * MEGABYTE
        wire.drop()


async def test_a_few_pings_are_answered() -> None:
    async with HubProcess() as hub:
        wire = await connected(hub)
        for number in range(5):
            wire.send(frame_bytes(PING, b"%d" % number))
            pong = await wire.frame()
            assert (pong.opcode, pong.payload) == (PONG, b"%d" % number)
        wire.drop()


@pytest.mark.parametrize("piece", [b"", b"x"])
async def test_a_flood_of_fragments_is_closed(piece: bytes) -> None:
    """A message may come in pieces, but not in thousands."""
    async with HubProcess() as hub:
        wire = await connected(hub)
        wire.send(frame_bytes(TEXT, b'{"id":5,', fin=False))
        for _ in range(100):
            wire.send(frame_bytes(CONTINUATION, piece, fin=False) * 50)
            await wire.drain()
            if wire.writer.transport.is_closing():
                break
        assert await ended(wire) in (POLICY_VIOLATION, TOO_MANY_REQUESTS, 1009, 1002, 3501)
        await alive(hub)


async def test_as_many_fragments_as_are_allowed_are_taken() -> None:
    async with HubProcess() as hub:
        wire = await connected(hub)
        text = b'{"id":5,"publish":{"channel":"plain:a","data":"%b"}}' % (b"x" * 60)
        pieces = [text[index : index + 1] for index in range(len(text))]
        for index, piece in enumerate(pieces):
            wire.send(frame_bytes(CONTINUATION if index else TEXT, piece, fin=index == len(pieces) - 1))
        assert json.loads(await wire.line()) == {"id": 5, "publish": {}}
        wire.drop()


async def test_large_headers_are_refused() -> None:
    async with HubProcess() as hub:
        for headers in ([("X-Large", "x" * 100_000)], [(f"X-{number}", "y" * 100) for number in range(2000)]):
            try:
                await Wire.open(hub.port, headers=headers)
                raise AssertionError("a handshake with large headers was accepted")
            except HandshakeRefused as refused:
                assert refused.status in (400, 431)
            except Closed:
                pass
        try:
            await Wire.open(hub.port, path=ENDPOINT + "?x=" + "y" * 100_000)
            raise AssertionError("a handshake with a large URL was accepted")
        except HandshakeRefused as refused:
            assert refused.status in (400, 414, 431)
        except Closed:
            pass
        await alive(hub)
        assert "Traceback" not in hub.log()


async def test_origins() -> None:
    """Without Origin anybody, with one only those that are allowed: 403 before the handshake."""
    async with HubProcess() as hub:
        wire = await Wire.open(hub.port, headers=[("Origin", "http://allowed.example")])
        wire.drop()
        bad = [
            "http://evil.example",
            "https://allowed.example",
            "http://allowed.example.evil.example",
            "http://allowed.example:81",
            "http://sub.allowed.example",
            "null",
            "rubbish",
        ]
        for origin in bad:
            with pytest.raises(HandshakeRefused) as refused:
                await Wire.open(hub.port, headers=[("Origin", origin)])
            assert refused.value.status == 403, origin
        await alive(hub)


async def test_subprotocols() -> None:
    """The Python SDK sends an empty header; unknown names are not chosen."""
    async with HubProcess() as hub:
        for offered, chosen in (("", b""), ("centrifuge-json", b"centrifuge-json"), ("unknown", b"")):
            wire = await Wire.open(hub.port, headers=[("Sec-WebSocket-Protocol", offered)])
            lines = [line for line in wire.head.lower().split(b"\r\n") if line.startswith(b"sec-websocket-protocol")]
            assert [line.partition(b":")[2].strip() for line in lines] == ([chosen] if chosen else [])
            await wire.connect(connection_token())
            wire.drop()


async def test_compression_is_not_agreed_upon_by_default() -> None:
    async with HubProcess() as hub:
        wire = await Wire.open(hub.port, headers=[("Sec-WebSocket-Extensions", "permessage-deflate")])
        assert b"sec-websocket-extensions" not in wire.head.lower()
        wire.drop()


async def test_a_compressed_bomb_is_closed_with_1009() -> None:
    async with HubProcess(changes={"websocket": {"compression": True}}) as hub:
        wire = await Wire.open(hub.port, headers=[("Sec-WebSocket-Extensions", "permessage-deflate")])
        assert b"permessage-deflate" in wire.head.lower()
        deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = deflater.compress(b" " * 30_000_000) + deflater.flush(zlib.Z_SYNC_FLUSH)
        assert len(bomb) < 65_536
        before = resident(hub.pid)
        wire.send(frame_bytes(TEXT, bomb[:-4], rsv=4))
        assert await ended(wire) == 1009
        assert resident(hub.pid) - before < 20 * MEGABYTE
        wire = await Wire.open(hub.port, headers=[("Sec-WebSocket-Extensions", "permessage-deflate")])
        wire.send(frame_bytes(TEXT, b"\xff\xff\xff rubbish that no inflater takes", rsv=4))
        assert await ended(wire) in (1002, 1007)
        assert "Traceback" not in hub.log()


async def test_handshakes_that_are_none() -> None:
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    version = "Sec-WebSocket-Version: 13"
    upgrade = ["Upgrade: websocket", "Connection: Upgrade"]
    cases = {
        "GET": [],
        "no key": [*upgrade, version],
        "short key": [*upgrade, version, "Sec-WebSocket-Key: c2hvcnQ="],
        "key that is no base64": [*upgrade, version, "Sec-WebSocket-Key: ????????????????????????"],
        "two keys": [*upgrade, version, key, key],
        "no version": [*upgrade, key],
        "old version": [*upgrade, key, "Sec-WebSocket-Version: 8"],
        "other upgrade": ["Upgrade: h2c", "Connection: Upgrade", key, version],
    }
    async with HubProcess() as hub:
        for name, lines in cases.items():
            wire = await Wire.tcp(hub.port)
            request = "\r\n".join([f"GET {ENDPOINT} HTTP/1.1", "Host: x", *lines, "Connection: close"])
            wire.send(request.encode() + b"\r\n\r\n")
            with pytest.raises(HandshakeRefused) as refused:
                await wire.read_upgrade()
            assert refused.value.status in (400, 404, 405, 426), name
        status, _, _ = await http(hub.port, "POST", ENDPOINT, b"{}")
        assert status in (400, 404, 405, 426)
        with pytest.raises(HandshakeRefused) as refused:
            await Wire.open(hub.port, path="/connection/nothing")
        assert refused.value.status in (403, 404)
        await alive(hub)
        assert "Traceback" not in hub.log()


async def test_a_token_in_the_url_is_not_logged() -> None:
    async with HubProcess(changes={"log": {"level": "debug"}}) as hub:
        token = connection_token("url")
        for path in (f"{ENDPOINT}?token={token}", f"{ENDPOINT}?cf_token={token}&x=1", f"/nowhere?token={token}"):
            try:
                wire = await Wire.open(hub.port, path=path)
                wire.send_text(b"nonsense")
                await wire.closed()
            except HandshakeRefused:
                pass
        await http(hub.port, "POST", f"/api/info?api_key={hub.api_key}", b"{}")
        await http(hub.port, "GET", f"/health?token={token}")
        wire = await Wire.open(hub.port)
        wire.send_text(json.dumps({"id": 1, "connect": {"token": token + "x"}}))
        assert await ended(wire) == 3500
        await asyncio.to_thread(hub.terminate)
        log = hub.log()
        assert token not in log
        assert token.split(".")[1] not in log
        assert hub.api_key not in log


async def gone(hub: HubProcess, files: int) -> None:
    """Wait until no session is left and as many files are open as before."""
    while True:
        sessions = (await hub.api_async("info"))["result"]["nodes"][0]["num_clients"]
        if not sessions and open_files(hub.pid) <= files + 2:
            return
        await asyncio.sleep(0.1)


async def test_peers_that_vanish_leave_nothing_behind() -> None:
    """Resets at every stage of a connection: the sessions go, and so do their files."""
    async with HubProcess() as hub:
        await alive(hub)
        await asyncio.sleep(0.2)
        before = open_files(hub.pid)
        for stage in range(5):
            for _ in range(30):
                wire = await Wire.tcp(hub.port) if stage == 0 else await Wire.open(hub.port)
                if stage == 1:
                    wire.send(frame_bytes(TEXT, b'{"id"', length=1000))
                if stage >= 2:
                    await wire.connect(connection_token())
                if stage == 3:
                    wire.command(subscribe={"channel": "room:vanish"})
                if stage == 4:
                    wire.half_close()
                wire.drop()
        async with asyncio.timeout(15):
            await gone(hub, before)
        stats = await hub.api_async("presence_stats", {"channel": "room:vanish"})
        assert stats["result"] == {"num_clients": 0, "num_users": 0}
        assert "Traceback" not in hub.log()


async def test_a_crowd_that_never_speaks_does_not_keep_others_out() -> None:
    """More silent connections than may be pending: the next ones still come in, at the silent ones' cost."""
    limits = {"websocket": {"max_pending_handshakes": 50, "handshake_timeout": "30s"}}
    async with HubProcess(changes=limits) as hub:
        before = open_files(hub.pid)
        crowd = [await Wire.tcp(hub.port) for _ in range(200)]
        await alive(hub)
        assert open_files(hub.pid) <= before + 60
        assert (await http(hub.port, "GET", "/health"))[0] == 200
        for wire in crowd:
            wire.drop()


async def test_a_stranger_cannot_hold_a_request_open() -> None:
    """Without the key the answer comes before the body, whose length is only announced."""
    async with HubProcess() as hub:
        wire = await Wire.tcp(hub.port)
        wire.send(b"POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: wrong\r\nContent-Length: 1000\r\n\r\n{")
        answer = await bounded(wire.reader.readuntil(b"\r\n"), "no answer")
        assert b" 401 " in answer
        wire.drop()
