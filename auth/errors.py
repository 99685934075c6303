"""What authentication refuses with; the running server maps each to a code of the protocol.

AuthError
├── TokenInvalid      forged, malformed, or not meant for this hub       (3500)
├── TokenExpired      was good once; the client should bring a new one   (109)
├── KeyMissing        the key set has to be fetched first: await fetch_keys and verify once more
├── KeysUnavailable   the JWKS endpoint is out of reach: try again later (100)
└── BadSetting        a setting cannot work as it is; names it and the way out
    └── BadKey        a key setting: too short, unreadable, or of the wrong kind

No text of these ever contains a token, a claim's value or a secret, so they may be logged and shown.
"""

from __future__ import annotations


class AuthError(Exception):
    """Someone could not be authenticated."""


class TokenInvalid(AuthError):
    """A token is not acceptable and will not become so; ``reason`` is one sentence without its content."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TokenExpired(AuthError):
    """A token was properly signed but its time is over; ``expired_at`` is its ``exp`` in unix seconds."""

    def __init__(self, expired_at: float) -> None:
        super().__init__("The token has expired.")
        self.expired_at = expired_at


class KeyMissing(AuthError):
    """The key that would verify a token is not in memory; the set at ``url`` may have it."""

    def __init__(self, url: str, kid: str | None) -> None:
        super().__init__("The key set has to be fetched to verify this token.")
        self.url = url
        self.kid = kid


class KeysUnavailable(AuthError):
    """The keys cannot be looked up now; the same token may be accepted a little later."""


class BadSetting(AuthError):
    """The setting ``setting`` cannot be used; the text is one sentence that names it and what would be right."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting
        self.problem = problem


class BadKey(BadSetting):
    """A key setting is unreadable, too weak or of the wrong kind."""
