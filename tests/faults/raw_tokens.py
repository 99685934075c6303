"""Tokens made byte by byte, so that their claims can say what no JSON library would write and their parts can be broken."""

from __future__ import annotations

import base64
import hashlib
import hmac

from tests.support.hub_config import TOKEN_SECRET

HEADER = b'{"alg":"HS256","typ":"JWT"}'


def b64url(data: bytes) -> bytes:
    """Base64url without padding, as JWS has it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def signature(signed: bytes, secret: str = TOKEN_SECRET) -> bytes:
    """The HS256 signature of ``header.payload``."""
    return hmac.new(secret.encode(), signed, hashlib.sha256).digest()


def raw_token(claims: bytes, *, header: bytes = HEADER, secret: str = TOKEN_SECRET) -> str:
    """A signed token over exactly these bytes."""
    signed = b64url(header) + b"." + b64url(claims)
    return (signed + b"." + b64url(signature(signed, secret))).decode()
