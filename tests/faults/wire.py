"""A WebSocket client below any library: every bit of a frame can be set, and every byte that comes back is seen.

Libraries refuse to send what a hostile peer sends, and parse what these tests must see as bytes; hence this one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 0x1, 0x2, 0x8, 0x9, 0xA, 0x0
ENDPOINT = "/connection/websocket"
ANSWER_WITHIN = 10.0
"""Seconds in which every input must have been answered or its connection closed; longer is a hang."""


class Hang(AssertionError):
    """Neither an answer nor a close came within the bound."""


class HandshakeRefused(Exception):
    """The server answered the upgrade with another status than 101."""

    def __init__(self, status: int, head: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.head = head


@dataclass(frozen=True, slots=True)
class Frame:
    """One WebSocket frame as it came."""

    opcode: int
    payload: bytes
    fin: bool = True


class Closed(Exception):
    """The server ended the connection; ``code`` is 1006 when no close frame came before the end."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


def frame_bytes(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length: int | None = None,
    length_form: int = 0,
) -> bytes:
    """Build one client frame.

    ``length`` declares another length than the payload's; ``length_form`` forces the 16-bit (126) or 64-bit (127) form.
    """
    declared = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | (rsv << 4) | opcode])
    mask_bit = 0x80 if masked else 0
    form = length_form or (declared if declared < 126 else 126 if declared < 65536 else 127)
    if form == 127:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", declared)
    elif form == 126:
        head += bytes([mask_bit | 126]) + struct.pack("!H", declared)
    else:
        head += bytes([mask_bit | form])
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + mask(payload, key)


def mask(payload: bytes, key: bytes) -> bytes:
    """XOR with the masking key."""
    if not payload:
        return b""
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")


class Wire:
    """One connection: ``send_*`` write bytes, ``frame`` and ``message`` read them; pings are answered when asked to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""
        self.next_id = 1
        self._parts: list[bytes] = []

    @classmethod
    async def open(
        cls,
        port: int,
        *,
        path: str = ENDPOINT,
        headers: Sequence[tuple[str, str]] = (),
        receive_buffer: int = 0,
        host: str = "127.0.0.1",
    ) -> Wire:
        """Connect and shake hands; raises ``HandshakeRefused`` on any other status than 101."""
        wire = await cls.tcp(port, receive_buffer=receive_buffer, host=host)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            *(f"{name}: {value}" for name, value in headers),
        ]
        wire.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        try:
            await wire.read_upgrade()
        except BaseException:
            wire.drop()
            raise
        return wire

    @classmethod
    async def tcp(cls, port: int, *, receive_buffer: int = 0, host: str = "127.0.0.1") -> Wire:
        """Open the TCP connection only. ``receive_buffer`` (bytes) makes a peer that takes little when it stops reading."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
            reader, writer = await asyncio.open_connection(sock=sock, limit=max(receive_buffer, 1 << 18))
        except BaseException:
            sock.close()
            raise
        return cls(reader, writer)

    async def read_upgrade(self) -> None:
        """Read the answer to an upgrade; raises ``HandshakeRefused`` or ``Closed``."""
        try:
            self.head = await bounded(self.reader.readuntil(b"\r\n\r\n"), "the upgrade was not answered")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.drop()
            raise Closed(1006, "closed during the handshake") from error
        status = int(self.head.split(b" ", 2)[1])
        if status != 101:
            self.drop()
            raise HandshakeRefused(status, self.head)

    def send(self, data: bytes) -> None:
        """Write raw bytes."""
        self.writer.write(data)

    def send_text(self, text: str | bytes) -> None:
        """Write one well-formed text frame."""
        self.send(frame_bytes(TEXT, text.encode() if isinstance(text, str) else text))

    def command(self, **command: Any) -> int:
        """Send one well-formed command with the next id, which is returned."""
        number = self.next_id
        self.next_id += 1
        self.send_text(json.dumps({"id": number, **command}))
        return number

    async def drain(self) -> None:
        """Wait until the kernel takes more; a server that has gone is found out by reading, not here."""
        try:
            await bounded(self.writer.drain(), "the server stopped reading")
        except ConnectionError:
            pass

    async def frame(self, within: float = ANSWER_WITHIN) -> Frame:
        """The next frame of any kind but close; raises ``Closed`` or ``Hang``."""
        try:
            async with asyncio.timeout(within):
                return await self._frame()
        except TimeoutError:
            raise Hang(f"no frame within {within} s") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            self.drop()
            raise Closed(1006, "no close frame") from None
        except Closed:
            self.drop()
            raise

    async def _frame(self) -> Frame:
        first, second = await self.reader.readexactly(2)
        length = second & 0x7F
        assert not second & 0x80, "the server masked a frame"
        assert not first & 0x70, "the server set a reserved bit"
        if length == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
        payload = await self.reader.readexactly(length) if length else b""
        opcode = first & 0x0F
        if opcode == CLOSE:
            code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
            assert len(payload) <= 125, "a close frame longer than a control frame may be"
            raise Closed(code, payload[2:].decode())
        return Frame(opcode, payload, bool(first & 0x80))

    async def message(self, within: float = ANSWER_WITHIN, *, pong: bool = True) -> bytes:
        """The next text message's bytes; server pings ``{}`` are answered and skipped when ``pong``."""
        parts: list[bytes] = []
        while True:
            frame = await self.frame(within)
            if frame.opcode == PING:
                self.send(frame_bytes(PONG, frame.payload))
                continue
            if frame.opcode == PONG:
                continue
            parts.append(frame.payload)
            if not frame.fin:
                continue
            message = b"".join(parts)
            parts.clear()
            if pong and message == b"{}":
                self.send_text(b"{}")
                continue
            return message

    async def line(self, within: float = ANSWER_WITHIN) -> bytes:
        """The next reply or push as bytes: messages of one frame are taken apart at line breaks."""
        while not self._parts:
            self._parts = [part for part in (await self.message(within, pong=False)).split(b"\n") if part]
            if b"{}" in self._parts:
                self.send_text(b"{}")
                self._parts = [part for part in self._parts if part != b"{}"]
        return self._parts.pop(0)

    async def reply(self, number: int, within: float = ANSWER_WITHIN) -> dict[str, Any]:
        """The reply to a command by its id; what comes before it is dropped."""
        while True:
            message: dict[str, Any] = loads(await self.line(within))
            if message.get("id") == number:
                return message

    async def call(self, **command: Any) -> dict[str, Any]:
        """Send one command and return its reply."""
        return await self.reply(self.command(**command))

    async def connect(self, token: str = "") -> dict[str, Any]:
        """Perform the ``connect`` command; raises ``AssertionError`` when it is refused."""
        reply = await self.call(connect={"token": token} if token else {})
        assert "connect" in reply, reply
        result: dict[str, Any] = reply["connect"]
        return result

    async def closed(self, within: float = ANSWER_WITHIN) -> Closed:
        """Read to the end and say how it ended; raises ``Hang``."""
        try:
            async with asyncio.timeout(within):
                while True:
                    await self.frame(within)
        except Closed as closed:
            return closed
        except TimeoutError:
            raise Hang(f"not closed within {within} s") from None

    def half_close(self) -> None:
        """Send FIN: the server learns that nothing more will come."""
        if self.writer.can_write_eof():
            try:
                self.writer.write_eof()
            except OSError:
                pass

    def drop(self) -> None:
        """Cut the connection without a word."""
        self.writer.transport.abort()


def loads(data: bytes) -> Any:
    """Parse what the hub sent; numbers of thousands of digits, which payloads may hold, stay text."""
    return json.loads(data, parse_int=lambda text: int(text) if len(text) < 1000 else text)


async def bounded(awaitable: Any, what: str, within: float = ANSWER_WITHIN) -> Any:
    """Await with the bound of ``ANSWER_WITHIN``; raises ``Hang`` saying what."""
    try:
        async with asyncio.timeout(within):
            return await awaitable
    except TimeoutError:
        raise Hang(f"{what} within {within} s") from None


async def http(
    port: int,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """One HTTP/1.1 request on its own connection: status, lower-cased headers, body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close"]
        lines += [f"Content-Length: {len(body)}"] if body or method == "POST" else []
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)
        raw = await bounded(reader.read(), "no HTTP answer")
    finally:
        writer.transport.abort()
    return parse_response(raw)


def parse_response(raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Take a whole HTTP response apart; chunked bodies are joined."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        joined = b""
        while body:
            size, _, rest = body.partition(b"\r\n")
            count = int(size, 16)
            if not count:
                break
            joined, body = joined + rest[:count], rest[count + 2 :]
        body = joined
    return int(first.split(" ", 2)[1]), headers, body
