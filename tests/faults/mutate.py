"""Seeded mutation of JSON and of bytes: the same seed makes the same inputs."""

from __future__ import annotations

import copy
import json
import random
from typing import Any


class Literal(bytes):
    """JSON text that is written as it stands."""


class Pairs(list[tuple[str, Any]]):
    """An object whose keys may repeat."""


ODD: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31 - 1,
    2**31,
    -(2**31) - 1,
    2**32 - 1,
    2**32,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    2**64 - 1,
    2**64,
    Literal(b"1.0"),
    Literal(b"1.5"),
    Literal(b"-0"),
    Literal(b"1e2"),
    Literal(b"1e400"),
    Literal(b"1E-400"),
    Literal(b"9" * 400),
    Literal(b"9" * 5000),
    Literal(b"NaN"),
    Literal(b"Infinity"),
    Literal(b"01"),
    Literal(b"+1"),
    Literal(b".5"),
    Literal(b"0x1"),
    Literal(b"undefined"),
    Literal(b"'x'"),
    Literal(b'"\\ud800"'),
    Literal(b'"\\udc00\\ud800"'),
    Literal(b'"\\u0000"'),
    Literal(b'"\\x00"'),
    Literal(b'"\xff"'),
    Literal(b'"\xed\xa0\x80"'),
    Literal(b'"\x00"'),
    Literal(b'"\x1f"'),
    Literal(b'"\x7f"'),
    Literal("\ufeff1".encode()),
    Literal(b""),
    Literal(b"[" * 100 + b"]" * 100),
    Literal(b"[" * 3000 + b"]" * 3000),
    Literal(b'{"a":' * 1500 + b"1" + b"}" * 1500),
    Literal(b"[" * 3000),
    "",
    "a",
    "0",
    "1",
    "é",
    "\U0001f600",
    "\u2028",
    "a\nb",
    "a" * 255,
    "a" * 256,
    "a" * 5000,
    "nowhere:a",
    "$plain:a",
    "plain:a#42,43",
    ":",
    "#",
    "$",
    "*",
    "plain:" + "a" * 250,
    "../../etc/passwd",
    "' OR 1=1 --",
    "%s%n",
    [],
    {},
    [[]],
    [{}],
    {"a": 1},
    {"": {}},
]
"""Values that code tends to be wrong about."""


def odd(chance: random.Random) -> Any:
    """One of ``ODD``, for the caller to change."""
    return copy.deepcopy(chance.choice(ODD))


def dump(value: Any, chance: random.Random, *, loose: bool = False) -> bytes:
    """Encode; with ``loose`` blanks stand between tokens and letters are escaped here and there."""

    def blank() -> bytes:
        return chance.choice([b"", b"", b"", b" ", b"\t", b"  "]) if loose else b""

    if isinstance(value, Literal):
        return bytes(value)
    if isinstance(value, (dict, Pairs)):
        pairs = value.items() if isinstance(value, dict) else value
        members = [
            blank()
            + dump(key, chance, loose=loose)
            + blank()
            + b":"
            + blank()
            + dump(item, chance, loose=loose)
            + blank()
            for key, item in pairs
        ]
        return b"{" + b",".join(members) + b"}"
    if isinstance(value, (list, tuple)):
        return b"[" + b",".join(blank() + dump(item, chance, loose=loose) + blank() for item in value) + b"]"
    if isinstance(value, str) and loose and chance.random() < 0.3:
        return b'"' + b"".join(_escaped(letter, chance) for letter in value) + b'"'
    return json.dumps(value, ensure_ascii=chance.random() < 0.5 and loose).encode("utf-8", "surrogatepass")


def _escaped(letter: str, chance: random.Random) -> bytes:
    if chance.random() < 0.3 and ord(letter) < 0x10000:
        return b"\\u%04x" % ord(letter)
    return json.dumps(letter, ensure_ascii=False)[1:-1].encode("utf-8", "surrogatepass")


def mutate_tree(value: Any, chance: random.Random) -> Any:
    """One change somewhere in a JSON tree: a value, a key, an omission, a repetition, an addition."""
    spots = list(_spots(value))
    holder, key = chance.choice(spots) if spots else (None, None)
    if holder is None:
        return odd(chance)
    action = chance.randrange(9)
    if action < 4:
        holder[key] = odd(chance)
    elif action == 4:
        del holder[key]
    elif action == 5 and isinstance(holder, dict) and isinstance(key, str):
        changed = chance.choice([key.upper(), key + "x", key[:-1], "\x00" + key, "id", "", "é", key + " "])
        holder[changed] = holder.pop(key)
    elif action == 6 and isinstance(holder, dict) and isinstance(key, str):
        doubled = Pairs(holder.items())
        doubled.insert(
            chance.randrange(len(doubled) + 1), (key, chance.choice([holder[key], odd(chance), odd(chance)]))
        )
        return _replaced(value, holder, doubled)
    elif action == 7 and isinstance(holder, dict):
        holder[
            chance.choice(["x", "publish", "connect", "data", "channel", "id", "push", "error", "result", "__proto__"])
        ] = odd(chance)
    else:
        holder[key] = chance.choice([[holder[key]], {"x": holder[key]}, str(holder[key])])
    return value


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    """A few changes of bytes: turned bits, cuts, insertions, repetitions, swaps."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        at = chance.randrange(len(changed) + 1)
        action = chance.randrange(8)
        if action == 0 and changed:
            changed[at % len(changed)] ^= 1 << chance.randrange(8)
        elif action == 1 and changed:
            changed[at % len(changed)] = chance.randrange(256)
        elif action == 2:
            changed[at:at] = bytes([chance.choice(b'{}[]",:\\\n\r\t 019-.eE\x00\x7f\x80\xff')])
        elif action == 3:
            del changed[at : at + chance.choice([1, 1, 2, 8, 64])]
        elif action == 4:
            length = chance.choice([1, 2, 8, 32])
            changed[at:at] = changed[at : at + length] * chance.choice([1, 2, 10])
        elif action == 5:
            del changed[at:]
        elif action == 6:
            other = chance.randrange(len(changed) + 1)
            low, high = sorted((at, other))
            changed[low:high] = changed[low:high][::-1]
        else:
            changed[at:at] = chance.choice(
                [b"null", b"{}", b"[]", b'""', b"\\u0000", b"\\", b"\xef\xbb\xbf", b"\n\n", b"1e999"]
            )
    return bytes(changed)


def _spots(value: Any) -> Any:
    """Every (container, key) in the tree."""
    items: Any = ()
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list) and not isinstance(value, Pairs):
        items = list(enumerate(value))
    for key, item in items:
        yield value, key
        yield from _spots(item)


def _replaced(value: Any, old: Any, new: Any) -> Any:
    if value is old:
        return new
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, old, new) for item in value]
    return value
