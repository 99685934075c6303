"""What a verified token says, and the decoding of it from the token's JSON.

Every claim has one type; another type is an error that names the claim. ``null`` is the same as leaving it out. Of a
claim that is there twice the last one counts, everywhere. Custom JSON (``info``, ``data``, ``meta``) is kept as the
bytes that came, less the white space between its parts, and never parsed and rebuilt.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from auth.errors import TokenInvalid

_NO_RAW: Final = Raw()
MAX_BRACKETS: Final = 2000
"""Arrays and objects in a token's claims: well below what any supported Python can nest."""
_FOREVER: Final = 253402300800  # the year 10000
_SPACE: Final = re.compile(rb'("(?:[^"\\]|\\.)*")|[ \t\r\n]+')
_PATH: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_WANTED: Final = re.compile(r"^Expected `([^`]*)`, got `([^`]*)`")


class Overrides(Struct, frozen=True, gc=False):
    """Channel options that a token sets for one subscription; None leaves the channel's own."""

    presence: bool | None = None
    join_leave: bool | None = None
    force_push_join_leave: bool | None = None
    force_positioning: bool | None = None
    force_recovery: bool | None = None


NO_OVERRIDES: Final = Overrides()


class SubscriptionGrant(Struct, frozen=True):
    """A server-side subscription that a connection token brings; ``info`` and ``data`` are raw JSON or empty."""

    info: bytes = b""
    data: bytes = b""
    overrides: Overrides = NO_OVERRIDES


NO_GRANT: Final = SubscriptionGrant()


class ConnectionClaims(Struct, frozen=True):
    """What a connection token says. JSON fields are raw and empty when absent; times are unix seconds."""

    user: str = ""
    """User id; empty for an anonymous user."""
    expire_at: int = 0
    """When the connection expires; 0 = never."""
    info: bytes = b""
    channels: tuple[str, ...] = ()
    """Channels to subscribe to, as listed, without repeats."""
    subs: dict[str, SubscriptionGrant] = {}
    meta: bytes = b""
    issued_at: int = 0
    """The ``iat`` claim; 0 when absent."""
    token_id: str = ""
    """The ``jti`` claim."""

    @property
    def grants(self) -> Mapping[str, SubscriptionGrant]:
        """The server-side subscriptions to make: ``subs``, or if it is empty the plain ``channels``."""
        return self.subs or dict.fromkeys(self.channels, NO_GRANT)


class SubscriptionClaims(Struct, frozen=True):
    """What a subscription token says. JSON fields are raw and empty when absent; times are unix seconds."""

    user: str
    channel: str
    client: str = ""
    """Client id that the token is bound to; empty when to none."""
    info: bytes = b""
    data: bytes = b""
    expire_at: int = 0
    """When the subscription expires; 0 = never."""
    overrides: Overrides = NO_OVERRIDES
    issued_at: int = 0
    token_id: str = ""


class _Value(Struct):
    value: bool | None = None


class _Override(Struct):
    presence: _Value | None = None
    join_leave: _Value | None = None
    force_push_join_leave: _Value | None = None
    force_positioning: _Value | None = None
    force_recovery: _Value | None = None


class _Sub(Struct):
    info: Raw = _NO_RAW
    b64info: str | None = None
    data: Raw = _NO_RAW
    b64data: str | None = None
    override: _Override | None = None


class RegisteredClaims(Struct):
    """The claims that every token may carry, as they came."""

    sub: str | None = None
    exp: float | None = None
    nbf: float | None = None
    iat: float | None = None
    jti: str | None = None
    iss: str | None = None
    aud: str | list[str] | None = None
    channel: str | None = None
    expire_at: float | None = None
    info: Raw = _NO_RAW
    b64info: str | None = None


class ConnectionDocument(RegisteredClaims):
    """The claims of a connection token as they came."""

    channels: list[str] | None = None
    subs: dict[str, _Sub | None] | None = None
    meta: Raw = _NO_RAW


class SubscriptionDocument(RegisteredClaims):
    """The claims of a subscription token as they came."""

    client: str | None = None
    data: Raw = _NO_RAW
    b64data: str | None = None
    override: _Override | None = None


REGISTERED: Final = msgspec.json.Decoder(RegisteredClaims)
CONNECTION: Final = msgspec.json.Decoder(ConnectionDocument)
SUBSCRIPTION: Final = msgspec.json.Decoder(SubscriptionDocument)
_ANY_CLAIMS: Final = msgspec.json.Decoder(dict[str, Raw])
_STRING: Final = msgspec.json.Decoder(str | None)


def decode(payload: bytes, decoder: Any) -> Any:
    """Decode a token's claims with one of the decoders above; TokenInvalid names what is wrong, without its content."""
    try:
        # The decoder looks into raw parts for syntax but not for UTF-8.
        payload.decode()
        if payload.count(b"[") + payload.count(b"{") > MAX_BRACKETS:
            raise TokenInvalid("The claims are nested too deeply or hold too many arrays and objects.")
        return decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise TokenInvalid(_explained(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise TokenInvalid("The claims are not valid JSON.") from None
    except RecursionError:
        raise TokenInvalid("The claims are nested too deeply.") from None


def user_of(payload: bytes, claim: str) -> str:
    """Return the string claim ``claim`` as user id, "" when it is absent."""
    raw = decode(payload, _ANY_CLAIMS).get(claim)
    if raw is None:
        return ""
    try:
        return _STRING.decode(raw) or ""
    except msgspec.DecodeError:
        raise TokenInvalid(f"The claim {claim} has the wrong type (expected str).") from None


def connection_claims(document: ConnectionDocument, *, user: str, binary: bool) -> ConnectionClaims:
    """Build the result for a connection token whose signature, times and scope have been checked."""
    subs = document.subs or {}
    return ConnectionClaims(
        user=user,
        expire_at=_expire_at(document),
        info=_custom(document.info, document.b64info, "b64info", binary=binary),
        channels=tuple(dict.fromkeys(document.channels)) if document.channels else (),
        subs={channel: _grant(sub, binary=binary) for channel, sub in subs.items()},
        meta=compact(document.meta),
        issued_at=unix_seconds(document.iat, "iat"),
        token_id=document.jti or "",
    )


def subscription_claims(document: SubscriptionDocument, *, user: str, binary: bool) -> SubscriptionClaims:
    """Build the result for a subscription token whose signature, times and scope have been checked."""
    return SubscriptionClaims(
        user=user,
        channel=document.channel or "",
        client=document.client or "",
        info=_custom(document.info, document.b64info, "b64info", binary=binary),
        data=_custom(document.data, document.b64data, "b64data", binary=binary),
        expire_at=_expire_at(document),
        overrides=_overrides(document.override),
        issued_at=unix_seconds(document.iat, "iat"),
        token_id=document.jti or "",
    )


def unix_seconds(value: float | None, claim: str) -> int:
    """Return a time claim as whole seconds, 0 for None; TokenInvalid outside of the years 1 to 9999 or so."""
    if value is None:
        return 0
    if not -_FOREVER < value < _FOREVER:
        raise TokenInvalid(f"The claim {claim} is out of range; it is a time in seconds since 1970.")
    return int(value)


def compact(raw: Raw | bytes) -> bytes:
    """Return raw JSON without white space between its parts; ``null`` and nothing give b""."""
    value = bytes(raw)
    if not value or value == b"null":
        return b""
    if b" " in value or b"\n" in value or b"\t" in value or b"\r" in value:
        return _SPACE.sub(rb"\1", value)
    return value


def _expire_at(document: RegisteredClaims) -> int:
    if document.expire_at is None:
        return unix_seconds(document.exp, "exp")
    return max(unix_seconds(document.expire_at, "expire_at"), 0)


def _grant(sub: _Sub | None, *, binary: bool) -> SubscriptionGrant:
    if sub is None:
        return NO_GRANT
    return SubscriptionGrant(
        info=_custom(sub.info, sub.b64info, "b64info", binary=binary),
        data=_custom(sub.data, sub.b64data, "b64data", binary=binary),
        overrides=_overrides(sub.override),
    )


def _overrides(override: _Override | None) -> Overrides:
    if override is None:
        return NO_OVERRIDES
    return Overrides(
        presence=_value(override.presence),
        join_leave=_value(override.join_leave),
        force_push_join_leave=_value(override.force_push_join_leave),
        force_positioning=_value(override.force_positioning),
        force_recovery=_value(override.force_recovery),
    )


def _value(value: _Value | None) -> bool | None:
    # {} is false: encoders that leave zero values out write {"value": false} so.
    return None if value is None else bool(value.value)


def _custom(raw: Raw, encoded: str | None, claim: str, *, binary: bool) -> bytes:
    """The custom JSON of a claim, or of its base64 variant, which wins."""
    if not encoded:
        return compact(raw)
    try:
        value = binascii.a2b_base64(encoded.encode("ascii"), strict_mode=True)
    except ValueError:
        raise TokenInvalid(f"The claim {claim} is not base64.") from None
    if binary:
        return value
    # It goes into JSON frames as it is.
    try:
        value.decode()
        msgspec.json.decode(value, type=Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TokenInvalid(f"The claim {claim} does not hold JSON.") from None
    return compact(value.strip(b" \t\r\n"))


def _explained(message: str) -> str:
    """Say what the decoder found without repeating anything of the token: paths hold claim names only."""
    path = _PATH.search(message)
    claim = path.group(1) if path else ""
    wanted = _WANTED.match(message)
    if not claim:
        return "The claims are not a JSON object."
    if wanted is None:
        return f"The claim {claim} is out of range."
    expected = wanted.group(1).removesuffix(" | null")
    return f"The claim {claim} has the wrong type (expected {expected}, got {wanted.group(2)})."
