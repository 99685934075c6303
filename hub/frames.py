"""The frames that clients send all the time, taken apart in few steps: whole text messages, masked, not compressed.

Everything else (fragments, control frames, compression, whatever breaks the rules) is left to the full parser; so is the
beginning of a frame that has not arrived whole.
"""

from __future__ import annotations

from collections.abc import Iterator

try:
    from websockets.speedups import apply_mask
except ImportError:  # the C extension was not built for this platform
    from websockets.utils import apply_mask

WHOLE_TEXT = 0x81
"""First byte: FIN, no reserved bit, opcode 1 (RFC 6455, section 5.2)."""
MASKED = 0x80
LENGTH_16 = 126
LENGTH_64 = 127


def whole_texts(data: bytes, most: int) -> Iterator[tuple[bytes, int]]:
    """Yield each message at the front of ``data`` with the offset behind it, while they are of at most ``most`` bytes."""
    at, end = 0, len(data)
    while end - at >= 6 and data[at] == WHOLE_TEXT and data[at + 1] & MASKED:
        length = data[at + 1] & 0x7F
        mask = at + 2
        if length == LENGTH_64:
            return
        if length == LENGTH_16:
            length = int.from_bytes(data[at + 2 : at + 4], "big")
            mask = at + 4
        start = mask + 4
        if length > most or start + length > end:
            return
        at = start + length
        yield apply_mask(data[start:at], data[mask:start]), at
