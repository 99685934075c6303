"""How deeply JSON may be nested: a bound of the hub's own, rather than whatever the Python at hand can stand."""

from __future__ import annotations

import re
from itertools import accumulate

MAX_NESTING = 512
"""Levels of arrays and objects within one another."""

# Possessive, and an open string is taken to the end: nothing is ever tried twice, whatever a stranger sends.
_STRINGS = re.compile(rb'"(?:[^"\\]+|\\.)*+"?', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEP = {ord("["): 1, ord("]"): -1}


def is_too_deep(data: bytes) -> bool:
    """Whether ``data``, if it is JSON, is nested deeper than ``MAX_NESTING``; cheap unless it has many brackets."""
    if data.count(b"[") + data.count(b"{") <= MAX_NESTING:
        return False
    brackets = _STRINGS.sub(b"", data).translate(_ONE_KIND, _NO_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_NESTING
