"""Tokens made with PyJWT, independently of the hub's own code."""

from __future__ import annotations

import time
from typing import Any

import jwt

from tests.support.hub_config import TOKEN_SECRET


def connection_token(
    user: str = "42", *, ttl: float | None = 3600, secret: str = TOKEN_SECRET, algorithm: str = "HS256", **claims: Any
) -> str:
    """A connection token of `user`; `ttl` in seconds may be negative (expired), None leaves `exp` out."""
    payload: dict[str, Any] = {"sub": user, **claims}
    if ttl is not None:
        payload.setdefault("exp", int(time.time() + ttl))
    return jwt.encode(payload, secret, algorithm=algorithm)


def subscription_token(
    channel: str,
    user: str = "42",
    *,
    ttl: float | None = 3600,
    secret: str = TOKEN_SECRET,
    algorithm: str = "HS256",
    **claims: Any,
) -> str:
    """A subscription token of `user` for `channel`, otherwise as `connection_token`."""
    return connection_token(user, ttl=ttl, secret=secret, algorithm=algorithm, channel=channel, **claims)
