"""Mutated WebSocket frames and handshakes: what breaks RFC 6455 is closed with the code that it names."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable

from tests.faults.fuzz_report import Report
from tests.faults.mutate import mutate_bytes
from tests.faults.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    ENDPOINT,
    PING,
    PONG,
    TEXT,
    Closed,
    HandshakeRefused,
    Hang,
    Wire,
    frame_bytes,
)
from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token

PROTOCOL, DATA, BIG, BAD = 1002, 1007, 1009, 3501
COMMAND = b'{"id":5,"presence_stats":{"channel":"lobby:f"}}'
NOT_ON_THE_WIRE = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
HANDSHAKE_STATUSES = {101, 400, 403, 404, 405, 408, 414, 426, 431, 501, 505}

Fatal = Callable[[random.Random], tuple[bytes, set[int]]]


def _bad_text(chance: random.Random) -> bytes:
    return COMMAND[:-2] + chance.choice(
        [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\x80"]
    )


def _code(chance: random.Random) -> bytes:
    return chance.choice(NOT_ON_THE_WIRE).to_bytes(2, "big")


def _garbage(chance: random.Random) -> tuple[bytes, set[int]]:
    return chance.randbytes(chance.randrange(2, 200)), {PROTOCOL, DATA, BIG, BAD, 1000, 1005, 1006, *range(3000, 5000)}


FATAL: dict[str, Fatal] = {
    "reserved opcode": lambda c: (frame_bytes(c.choice([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]), b"{}"), {PROTOCOL}),
    "reserved bits": lambda c: (frame_bytes(c.choice([TEXT, PING, CLOSE]), b"{}", rsv=c.randrange(1, 8)), {PROTOCOL}),
    "not masked": lambda c: (frame_bytes(c.choice([TEXT, PING]), COMMAND[: c.randrange(40)], masked=False), {PROTOCOL}),
    "long control frame": lambda c: (frame_bytes(c.choice([PING, PONG, CLOSE]), b"\x03\xe8" + b"x" * 126), {PROTOCOL}),
    "fragmented control frame": lambda c: (
        frame_bytes(c.choice([PING, PONG, CLOSE]), b"\x03\xe8", fin=False),
        {PROTOCOL},
    ),
    "continuation of nothing": lambda c: (frame_bytes(CONTINUATION, COMMAND, fin=c.random() < 0.5), {PROTOCOL}),
    "message within a message": lambda c: (
        frame_bytes(TEXT, COMMAND[:9], fin=False) + frame_bytes(c.choice([TEXT, BINARY]), COMMAND[9:]),
        {PROTOCOL},
    ),
    "declared too large": lambda c: (
        frame_bytes(TEXT, b"x", length=c.choice([65_537, 1 << 20, 1 << 31, 1 << 32, (1 << 63) - 1])),
        {BIG},
    ),
    "highest bit of the length": lambda c: (
        frame_bytes(TEXT, b"x", length=(1 << 63) + c.randrange(9)),
        {BIG, PROTOCOL},
    ),
    "too large in pieces": lambda c: (
        frame_bytes(TEXT, b"x" * 40_000, fin=False) + frame_bytes(CONTINUATION, b"y" * 40_000),
        {BIG},
    ),
    "invalid UTF-8": lambda c: (frame_bytes(TEXT, _bad_text(c)), {DATA}),
    "invalid UTF-8 in pieces": lambda c: (
        frame_bytes(TEXT, COMMAND[:9], fin=False) + frame_bytes(CONTINUATION, _bad_text(c)[9:]),
        {DATA},
    ),
    "binary": lambda c: (frame_bytes(BINARY, c.choice([b"", COMMAND, b"\x00", c.randbytes(20)])), {BAD}),
    "close of one byte": lambda c: (frame_bytes(CLOSE, b"\x03"), {PROTOCOL}),
    "close code that is none": lambda c: (frame_bytes(CLOSE, _code(c)), {PROTOCOL}),
    "close reason of bad UTF-8": lambda c: (frame_bytes(CLOSE, b"\x03\xe8\xff\xfe"), {DATA}),
    "close": lambda c: (frame_bytes(CLOSE, b"\x03\xe8bye"), {1000}),
    "close without a code": lambda c: (frame_bytes(CLOSE), {1005, 1000}),
    "cut off": lambda c: (frame_bytes(TEXT, COMMAND)[: c.randrange(1, 30)], {1006, 1000, 1002}),
    "garbage": _garbage,
    "mutated frame": lambda c: (mutate_bytes(frame_bytes(TEXT, COMMAND), c), _garbage(c)[1]),
}


def legal(chance: random.Random) -> tuple[bytes, int, bytes]:
    """Something unusual that is allowed: (frames, number of replies that must come, payload of the pong that must)."""
    choice = chance.randrange(6)
    if choice == 0:
        payload = chance.randbytes(chance.choice([0, 1, 50, 125]))
        return frame_bytes(PING, payload), 0, payload
    if choice == 1:
        return frame_bytes(PONG, chance.randbytes(chance.choice([0, 125]))), 0, b""
    if choice == 2:
        cuts = sorted(chance.randrange(len(COMMAND) + 1) for _ in range(chance.randrange(1, 8)))
        pieces = [COMMAND[low:high] for low, high in zip([0, *cuts], [*cuts, len(COMMAND)], strict=True)]
        frames = b""
        for index, piece in enumerate(pieces):
            frames += frame_bytes(TEXT if index == 0 else CONTINUATION, piece, fin=index == len(pieces) - 1)
            if chance.random() < 0.2 and index < len(pieces) - 1:
                frames += frame_bytes(PONG, b"between")
        return frames, 1, b""
    if choice == 3:
        return frame_bytes(TEXT, COMMAND + b"\n"), 1, b""
    if choice == 4:
        return frame_bytes(TEXT, b"\n".join([COMMAND] * 7)), 7, b""
    return frame_bytes(TEXT, b" " * chance.randrange(500) + COMMAND), 1, b""


async def fuzz_frames(hub: HubProcess, report: Report, count: int, seed: str) -> None:
    """Some legal oddities on each connection, then something that ends it."""
    chance = random.Random(seed)
    done = 0
    names = list(FATAL)
    while done < count:
        wire = await Wire.open(hub.port)
        await wire.connect(connection_token())
        oddities = [legal(chance) for _ in range(chance.randrange(6))]
        name = names[chance.randrange(len(names))]
        fatal, codes = FATAL[name](chance)
        data = b"".join(frames for frames, _, _ in oddities) + fatal
        for start, end in _pieces(len(data), chance):
            wire.send(data[start:end])
            if end - start < 50:
                await asyncio.sleep(0)
        if name in ("cut off", "garbage", "mutated frame"):
            wire.half_close()
        replies, pongs, code = await _drained(wire)
        wire.drop()
        done += len(oddities) + 1
        report.inputs["frames"] += len(oddities) + 1
        report.answers[f"close {code}"] += 1
        if code not in codes:
            report.complain(f"frames, {name}", data, f"close {code}", codes)
        wanted = sum(count for _, count, _ in oddities)
        if name not in ("garbage", "mutated frame") and replies != wanted:
            report.complain(f"frames before {name}", data, f"{replies} replies", wanted)
        asked = [pong for frames, _, pong in oddities if frames[0] & 0x0F == PING]
        if name not in ("garbage", "mutated frame", "reserved bits") and pongs[: len(asked)] != asked:
            report.complain(f"pongs before {name}", data, pongs, asked)


def _pieces(length: int, chance: random.Random) -> list[tuple[int, int]]:
    """How the bytes are spread over packets."""
    if chance.random() < 0.6:
        return [(0, length)]
    cuts = sorted({0, length, *(chance.randrange(length + 1) for _ in range(4))})
    return list(itertools.pairwise(cuts))


async def _drained(wire: Wire) -> tuple[int, list[bytes], int]:
    """Read to the end: replies of commands, payloads of pongs, code of the close (0 when it hangs)."""
    replies, pongs = 0, []
    try:
        while True:
            frame = await wire.frame()
            if frame.opcode == PONG:
                pongs.append(frame.payload)
            else:
                replies += sum(b'"presence_stats"' in line for line in frame.payload.split(b"\n"))
    except Closed as closed:
        return replies, pongs, closed.code
    except Hang:
        return replies, pongs, 0


async def fuzz_handshakes(hub: HubProcess, report: Report, count: int, seed: str) -> None:
    """Mutated upgrade requests: an HTTP status or a close, never silence."""
    chance = random.Random(seed)
    request = (
        f"GET {ENDPOINT} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: centrifuge-json\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        "Origin: http://allowed.example\r\n\r\n"
    ).encode()
    for _ in range(count):
        data = request.replace(b"allowed.example", chance.choice([b"allowed.example", b"evil.example", b"\xff", b""]))
        if chance.random() < 0.8:
            data = mutate_bytes(data, chance)
        if chance.random() < 0.4:
            # What is refused must not be listened to any further.
            data += frame_bytes(TEXT, COMMAND) + chance.choice([b"", request, chance.randbytes(100)])
        wire = await Wire.tcp(hub.port)
        wire.send(data)
        wire.half_close()
        try:
            await wire.read_upgrade()
            status = 101
        except HandshakeRefused as refused:
            status = refused.status
        except Closed:
            status = 0
        except Hang:
            status = -1
        wire.drop()
        report.inputs["handshakes"] += 1
        report.answers[f"handshake {status}"] += 1
        if status not in HANDSHAKE_STATUSES | {0, 200}:
            report.complain("handshake", data, status, HANDSHAKE_STATUSES)
