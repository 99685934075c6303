"""How a message becomes what a transport writes: made once, the same for every subscriber of the same kind.

Frames from server to client are not masked (RFC 6455, section 5.1), so one frame's bytes serve any number of connections;
compressed ones too, since the hub compresses without context takeover (RFC 7692, section 7.1.1.1).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Protocol

TEXT = 0x81
"""First byte of a whole text message: FIN and opcode 1."""
COMPRESSED_TEXT = 0xC1
"""The same with RSV1: the message is compressed."""


class Wire(Protocol):
    """Makes what a transport writes out of a message, which is UTF-8."""

    def pack(self, message: bytes) -> bytes: ...

    def pack_all(self, messages: Sequence[bytes]) -> bytes:
        """Several messages, to be written at once.

        Each stays a frame of its own: clients may read a frame of several messages, but versions of the JavaScript SDK
        before 5.8 mix up the order of two such frames that arrive together.
        """


def frame(first_byte: int, payload: bytes) -> bytes:
    """One unmasked WebSocket frame."""
    length = len(payload)
    if length < 126:
        return bytes((first_byte, length)) + payload
    if length < 65536:
        return bytes((first_byte, 126)) + length.to_bytes(2, "big") + payload
    return bytes((first_byte, 127)) + length.to_bytes(8, "big") + payload


class TextFrames:
    """Plain WebSocket text frames."""

    __slots__ = ()

    def pack(self, message: bytes) -> bytes:
        return frame(TEXT, message)

    def pack_all(self, messages: Sequence[bytes]) -> bytes:
        return b"".join([frame(TEXT, each) for each in messages])


class CompressedFrames:
    """WebSocket text frames, compressed from ``min_size`` bytes on at zlib ``level`` 1 to 9."""

    __slots__ = ("level", "min_size", "window_bits")

    def __init__(self, *, level: int = 1, min_size: int = 0, window_bits: int = zlib.MAX_WBITS) -> None:
        self.level = level
        self.window_bits = max(window_bits, 9)  # zlib makes no raw streams of 8 bits; those of 9 differ by nothing
        self.min_size = min_size

    def pack(self, message: bytes) -> bytes:
        if len(message) < self.min_size:
            return frame(TEXT, message)
        compressor = zlib.compressobj(self.level, zlib.DEFLATED, -self.window_bits)
        deflated = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return frame(COMPRESSED_TEXT, deflated[:-4])

    def pack_all(self, messages: Sequence[bytes]) -> bytes:
        return b"".join([self.pack(each) for each in messages])


class Messages:
    """The messages as they are, joined by line feeds, for transports that frame by themselves."""

    __slots__ = ()

    def pack(self, message: bytes) -> bytes:
        return message

    def pack_all(self, messages: Sequence[bytes]) -> bytes:
        return b"\n".join(messages)


TEXT_FRAMES = TextFrames()
MESSAGES = Messages()
