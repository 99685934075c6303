"""Tests of hub.wire: frames that a WebSocket client reads."""

from __future__ import annotations

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from hub.wire import MESSAGES, TEXT_FRAMES, CompressedFrames, Wire


def frames(packed: bytes, *extensions: PerMessageDeflate) -> list[tuple[Opcode, bytes]]:
    """What websockets makes of it, as a client."""
    reader = StreamReader()
    reader.feed_data(packed)
    reader.feed_eof()
    found = []
    while packed:
        parser = Frame.parse(reader.read_exact, mask=False, extensions=extensions)
        try:
            next(parser)
        except StopIteration as done:
            found.append((done.value.opcode, bytes(done.value.data)))
        ended = reader.at_eof()
        try:
            next(ended)
        except StopIteration as done:
            if done.value:
                break
    return found


def inflate() -> PerMessageDeflate:
    return PerMessageDeflate(
        remote_no_context_takeover=True,
        local_no_context_takeover=True,
        remote_max_window_bits=15,
        local_max_window_bits=15,
    )


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 200_000])
def test_text_frames(size: int) -> None:
    message = b"x" * size
    assert frames(TEXT_FRAMES.pack(message)) == [(Opcode.TEXT, message)]


@pytest.mark.parametrize("size", [0, 1, 125, 1000, 70_000])
@pytest.mark.parametrize("level", [1, 9])
def test_compressed_frames(size: int, level: int) -> None:
    message = b'{"some":"text"},' * (size // 16 + 1)
    wire = CompressedFrames(level=level)
    assert frames(wire.pack(message), inflate()) == [(Opcode.TEXT, message)]
    assert frames(wire.pack(message), inflate()) == [(Opcode.TEXT, message)], "no frame needs the one before"


def test_small_messages_are_not_compressed() -> None:
    wire = CompressedFrames(min_size=100)
    assert wire.pack(b"x" * 99) == TEXT_FRAMES.pack(b"x" * 99)
    assert len(wire.pack(b"x" * 100)) < 50


@pytest.mark.parametrize("wire", [TEXT_FRAMES, CompressedFrames(min_size=10)])
def test_several_messages_are_several_frames(wire: Wire) -> None:
    messages = [b'{"a":1}', b'{"b":2}' * 20, b"{}"]
    extensions = [inflate()] if isinstance(wire, CompressedFrames) else []
    assert frames(wire.pack_all(messages), *extensions) == [(Opcode.TEXT, each) for each in messages]


def test_messages_are_left_as_they_are() -> None:
    assert MESSAGES.pack(b"{}") == b"{}"
    assert MESSAGES.pack_all([b"{}", b"[]"]) == b"{}\n[]"
