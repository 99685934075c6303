"""API keys of the server API, from settings."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from auth.secret import Secret


class ApiKeys:
    """A set of keys, any of which opens the door; empty ones count for nothing.

    Only digests are kept, so a key cannot leak from here, and lengths are not told by timing.
    """

    __slots__ = ("_digests",)

    def __init__(self, keys: Iterable[Secret]) -> None:
        self._digests = tuple(_digest(key.reveal()) for key in keys if key)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, candidate: str) -> bool:
        """Tell whether ``candidate`` is one of the keys, in a time that depends only on how many there are."""
        digest = _digest(candidate)
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(known, digest)
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
