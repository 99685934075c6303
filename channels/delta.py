"""Fossil deltas: a publication as its difference from the one before.

The format is that of the Fossil version control system. A delta is the target's length and a line feed, then
commands, then a checksum of the target: ``<count>@<offset>,`` copies from the source, ``<count>:<bytes>`` inserts
what follows, ``<checksum>;`` ends it. Numbers are written in base 64, most significant digit first.

A delta of UTF-8 texts is itself UTF-8: text is inserted by whole characters only, since the JSON encoding of the
protocol carries a delta as a string.
"""

from __future__ import annotations

import struct

_DIGITS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}

BLOCK = 16
"""Length of the source's blocks that are looked for in the target, hence about the shortest useful copy."""
MAX_BLOCKS = 8_192
"""How many blocks of the source are looked for, which bounds the work; those of the first 128 KiB that differ."""
SURROUNDINGS = 4_096
"""How many bytes before and after what differs are looked for too: what is inserted often resembles its neighbours."""
MAX_LOOKUPS = 65_536
"""At how many places of the target they are looked for; what differs beyond is inserted."""
MAX_CANDIDATES = 4
"""How many equal blocks of the source are tried for the longest copy."""
GOOD_MATCH = 256
"""A copy of this length is taken without trying further candidates."""


class DeltaError(ValueError):
    """Not a delta, or not one for this source."""


def create_delta(source: bytes, target: bytes) -> bytes | None:
    """The delta that makes ``target`` from ``source``, or ``None`` if it would not be shorter than ``target``.

    The work is bounded by the constants of this module, whatever the two contain. Beginning and end that both have in
    common are always found; what moved within is found by blocks.
    """
    size = len(target)
    prefix = _common_prefix(source, 0, target, 0)
    if prefix < size:
        prefix = _back_to_character(target, prefix, 0)
    suffix = _common_suffix(source, target, prefix)
    suffix = size - _on_to_character(target, size - suffix, size)
    out = [_number(size), b"\n"]
    if prefix:
        out += (_number(prefix), b"@0,")
    if prefix + suffix < size:
        _middle(source, target, prefix, len(source) - suffix, size - suffix, out)
    if suffix:
        out += (_number(suffix), b"@", _number(len(source) - suffix), b",")
    out += (_number(checksum(target)), b";")
    delta = b"".join(out)
    return delta if len(delta) < size else None


def apply_delta(source: bytes, delta: bytes) -> bytes:
    """Make the target from its ``source`` and a ``delta``; raises ``DeltaError`` unless everything fits together."""
    size, at = _read_number(delta, 0)
    if delta[at : at + 1] != b"\n":
        raise DeltaError("the size is not followed by a line feed")
    at += 1
    out = bytearray()
    while True:
        count, at = _read_number(delta, at)
        command = delta[at : at + 1]
        at += 1
        if command == b";":
            break
        if command == b"@":
            offset, at = _read_number(delta, at)
            if delta[at : at + 1] != b",":
                raise DeltaError("a copy is not ended by a comma")
            at += 1
            if offset + count > len(source):
                raise DeltaError("a copy goes beyond the end of the source")
            out += source[offset : offset + count]
        elif command == b":":
            if at + count > len(delta):
                raise DeltaError("an insert goes beyond the end of the delta")
            out += delta[at : at + count]
            at += count
        else:
            raise DeltaError("an unknown command, or no end")
        if len(out) > size:
            raise DeltaError("the target is longer than announced")
    if len(out) != size or at != len(delta):
        raise DeltaError("the target's length is not as announced")
    if checksum(out) != count:
        raise DeltaError("the checksum does not match: this delta is for another source")
    return bytes(out)


def checksum(data: bytes | bytearray) -> int:
    """The sum, in 32 bits, of ``data`` taken as big-endian 32-bit words, the last filled up with zeros."""
    if missing := -len(data) % 4:
        data = data + bytes(missing)
    words: tuple[int, ...] = struct.unpack(f">{len(data) // 4}I", data)
    return sum(words) & 0xFFFFFFFF


def _middle(source: bytes, target: bytes, begin: int, source_end: int, end: int, out: list[bytes]) -> None:
    """Append the commands for ``target[begin:end]``, made with blocks of ``source[begin:source_end]`` and around."""
    blocks: dict[bytes, list[int]] = {}
    reach = min(SURROUNDINGS, 8 * (end - begin))
    first = max(0, begin - reach)
    last = min(min(source_end + reach, len(source)) - BLOCK, first + BLOCK * (MAX_BLOCKS - 1))
    for offset in range(first, last + 1 if end - begin >= BLOCK else first, BLOCK):
        candidates = blocks.setdefault(source[offset : offset + BLOCK], [])
        if len(candidates) < MAX_CANDIDATES:
            candidates.append(offset)
    done = at = begin
    """Everything before ``done`` has been written; ``at`` is where the next block is looked for."""
    stop = min(end - BLOCK + 1, begin + MAX_LOOKUPS) if blocks else 0
    while at < stop:
        if target[at : at + BLOCK] not in blocks:
            at = next((i for i in range(at + 1, stop) if target[i : i + BLOCK] in blocks), stop)
            if at == stop:
                break
        length = offset = 0
        for candidate in blocks[target[at : at + BLOCK]]:
            # One byte tells for most candidates that they are no longer than the best.
            if length and source[candidate + length : candidate + length + 1] != target[at + length : at + length + 1]:
                continue
            found = BLOCK + _common_prefix(source, candidate + BLOCK, target, at + BLOCK)
            if found > length:
                length, offset = found, candidate
                if length >= GOOD_MATCH:
                    break
        start, copy_end = at, min(at + length, end)
        while start > done and offset and source[offset - 1] == target[start - 1]:
            start -= 1
            offset -= 1
        fitted = _on_to_character(target, start, copy_end)
        offset += fitted - start
        start = fitted
        if copy_end < end:
            copy_end = _back_to_character(target, copy_end, start)
        # A block is longer than what the two could have taken off it, so that something is left.
        if start > done:
            out += (_number(start - done), b":", target[done:start])
        out += (_number(copy_end - start), b"@", _number(offset), b",")
        done = at = copy_end
    if done < end:
        out += (_number(end - done), b":", target[done:end])


def _common_prefix(a: bytes, a_from: int, b: bytes, b_from: int) -> int:
    """How many bytes from the two places on are equal: by comparing slices that double, then halve."""
    limit = min(len(a) - a_from, len(b) - b_from)
    done, step = 0, 32
    while done < limit:
        step = min(step, limit - done)
        if a[a_from + done : a_from + done + step] != b[b_from + done : b_from + done + step]:
            break
        done += step
        step *= 2
    else:
        return limit
    while step > 1:
        half = step // 2
        if a[a_from + done : a_from + done + half] == b[b_from + done : b_from + done + half]:
            done += half
            step -= half
        else:
            step = half
    return done


def _common_suffix(a: bytes, b: bytes, prefix: int) -> int:
    """How many bytes at the ends of the two are equal, leaving out the common prefix in both."""
    limit = min(len(a), len(b)) - prefix
    a_end, b_end = len(a), len(b)
    done, step = 0, 32
    while done < limit:
        step = min(step, limit - done)
        if a[a_end - done - step : a_end - done] != b[b_end - done - step : b_end - done]:
            break
        done += step
        step *= 2
    else:
        return limit
    while step > 1:
        half = step // 2
        if a[a_end - done - half : a_end - done] == b[b_end - done - half : b_end - done]:
            done += half
            step -= half
        else:
            step = half
    return done


def _on_to_character(text: bytes, at: int, end: int) -> int:
    """``at``, moved on to where a character begins; a character of UTF-8 continues for at most three bytes."""
    for _ in range(3):
        if at < end and text[at] & 0xC0 == 0x80:
            at += 1
    return at


def _back_to_character(text: bytes, at: int, begin: int) -> int:
    """``at``, moved back to where a character begins."""
    for _ in range(3):
        if at > begin and text[at] & 0xC0 == 0x80:
            at -= 1
    return at


def _number(value: int) -> bytes:
    if value < 64:
        return _DIGITS[value : value + 1]
    digits = bytearray()
    while value:
        digits.append(_DIGITS[value & 0x3F])
        value >>= 6
    digits.reverse()
    return bytes(digits)


def _read_number(text: bytes, at: int) -> tuple[int, int]:
    """The number that begins at ``at``, and where it ends; no digit at all is 0, as in the original."""
    value = 0
    end = min(len(text), at + 7)
    while at < end and (digit := _VALUES.get(text[at])) is not None:
        value = value << 6 | digit
        at += 1
    return value, at
