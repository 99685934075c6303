"""How deeply JSON may be nested: a bound of the hub's own, rather than whatever the Python at hand can stand."""

from __future__ import annotations

import re

MAX_NESTING = 512
"""Levels of arrays and objects within one another."""

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def is_too_deep(data: bytes) -> bool:
    """Whether ``data``, if it is JSON, is nested deeper than ``MAX_NESTING``; cheap unless it has many brackets."""
    if data.count(b"[") + data.count(b"{") <= MAX_NESTING:
        return False
    left = _STRINGS.sub(b"", data).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(MAX_NESTING):  # each time the innermost level goes
        before, left = left, left.replace(b"[]", b"")
        if len(left) == len(before):
            return False  # nothing left, or not balanced: no JSON
    return bool(left)
