"""Epochs that are known before their streams exist.

A reader is told the epoch of a channel that never had a publication, and its first publication has to keep that one.
Strangers choose names of channels, so nothing may be kept for having told it: the epoch is derived from the name.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import blake2b

SECRET_MIN, SECRET_MAX = 16, 64
"""How many bytes a secret may have."""
SECRET_SIZE = 32
"""How many random bytes a new secret has."""


class EpochNames:
    """Names the epoch of each stream; ``secret`` (16 to 64 bytes) keeps them from being guessed or met elsewhere."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if not SECRET_MIN <= len(secret) <= SECRET_MAX:
            raise ValueError(f"the secret of epochs has {SECRET_MIN} to {SECRET_MAX} bytes, this one has {len(secret)}")
        self._secret = secret

    def of(self, channel: str, generation: int = 0) -> str:
        """The epoch of a channel's stream: 8 characters of base64url.

        ``generation`` (0 to 2^64-1) counts the streams that the channel had before and that have ended.
        """
        named = generation.to_bytes(8, "big") + channel.encode("utf-8", "surrogatepass")
        return urlsafe_b64encode(blake2b(named, key=self._secret, digest_size=6).digest()).decode("ascii")
