"""How deeply JSON may be nested: a bound of the hub's own, rather than whatever the Python at hand can stand."""

from __future__ import annotations

import re
from itertools import accumulate

MAX_NESTING = 512
"""Levels of arrays and objects within one another."""

# Once escapes are out of the way. An open string is taken to its end: nothing is ever tried twice, whatever is sent.
_STRINGS = re.compile(rb'"[^"]*"?')
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEP = {ord("["): 1, ord("]"): -1}


def is_too_deep(data: bytes) -> bool:
    """Whether ``data``, if it is JSON, is nested deeper than ``MAX_NESTING``; cheap unless it has many brackets."""
    if data.count(b"[") + data.count(b"{") <= MAX_NESTING:
        return False
    without_escapes = data.replace(rb"\\", b"").replace(rb"\"", b"")
    brackets = _STRINGS.sub(b"", without_escapes).translate(_ONE_KIND, _NO_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_NESTING
