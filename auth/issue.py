"""Making tokens, and explaining one: for ``hub token``, for tests, and for a backend that lives in the same program."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from auth.errors import AuthError, BadKey, KeysUnavailable, TokenExpired, TokenInvalid
from auth.keys import HMAC_ALGORITHMS, SUPPORTED, algorithms_of, hmac_key, implementation
from auth.secret import Secret
from auth.tokens import TokenVerifier, decode_base64url, take_apart

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
SigningKey: TypeAlias = Secret | PrivateKey

_CONNECTION: Final = "connection"
_SUBSCRIPTION: Final = "subscription"


def issue_connection_token(
    key: SigningKey,
    *,
    user: str = "",
    exp: int | None = None,
    nbf: int | None = None,
    iat: int | None = None,
    jti: str = "",
    audience: str | Sequence[str] = "",
    issuer: str = "",
    info: Any = None,
    b64info: bytes | None = None,
    channels: Sequence[str] = (),
    subs: Mapping[str, Mapping[str, Any]] | None = None,
    meta: Any = None,
    expire_at: int | None = None,
    user_id_claim: str = "sub",
    extra: Mapping[str, Any] | None = None,
    algorithm: str = "",
    kid: str = "",
) -> str:
    """Return a signed connection token.

    ``key`` is an HMAC secret, a private key, or a Secret with a private key in PEM. Times are unix seconds; ``exp``
    None never expires. ``info`` and ``meta`` are anything that is JSON (``msgspec.Raw`` for JSON text as it is);
    ``subs`` maps channels to ``{"info":…, "data":…, "override": {"presence": {"value": true}, …}}``. ``extra`` adds or
    replaces claims. ``algorithm`` "" is chosen by the key. Raises BadKey.
    """
    claims = _registered(user, user_id_claim, exp, nbf, iat, jti, audience, issuer, info, b64info, expire_at)
    if channels:
        claims["channels"] = list(channels)
    if subs:
        claims["subs"] = subs
    if meta is not None:
        claims["meta"] = meta
    return sign({**claims, **(extra or {})}, key, algorithm=algorithm, kid=kid)


def issue_subscription_token(
    key: SigningKey,
    *,
    channel: str,
    user: str = "",
    client: str = "",
    exp: int | None = None,
    nbf: int | None = None,
    iat: int | None = None,
    jti: str = "",
    audience: str | Sequence[str] = "",
    issuer: str = "",
    info: Any = None,
    b64info: bytes | None = None,
    data: Any = None,
    b64data: bytes | None = None,
    expire_at: int | None = None,
    override: Mapping[str, bool] | None = None,
    user_id_claim: str = "sub",
    extra: Mapping[str, Any] | None = None,
    algorithm: str = "",
    kid: str = "",
) -> str:
    """Return a signed subscription token for ``channel``.

    ``override`` maps names of channel options to true or false; everything else is as for a connection token.
    """
    claims = _registered(user, user_id_claim, exp, nbf, iat, jti, audience, issuer, info, b64info, expire_at)
    claims["channel"] = channel
    if client:
        claims["client"] = client
    if data is not None:
        claims["data"] = data
    if b64data is not None:
        claims["b64data"] = base64.b64encode(b64data).decode()
    if override:
        claims["override"] = {name: {"value": value} for name, value in override.items()}
    return sign({**claims, **(extra or {})}, key, algorithm=algorithm, kid=kid)


def sign(claims: Mapping[str, Any], key: SigningKey, *, algorithm: str = "", kid: str = "") -> str:
    """Return a token with exactly these claims. Raises BadKey when the key cannot sign by that algorithm."""
    signing_key, possible = _signing_key(key)
    chosen = algorithm or possible[0]
    if chosen not in possible:
        supported = "" if chosen in SUPPORTED else f"; supported are {', '.join(sorted(SUPPORTED))}"
        raise BadKey("key", f"cannot sign with {chosen}; this key is for {', '.join(possible)}{supported}.")
    header = {"alg": chosen, "typ": "JWT"}
    if kid:
        header["kid"] = kid
    signing_input = _part(msgspec.json.encode(header)) + b"." + _part(msgspec.json.encode(claims))
    signature = implementation(chosen).sign(signing_input, signing_key)
    return (signing_input + b"." + _part(signature)).decode("ascii")


class Explanation(msgspec.Struct, frozen=True):
    """What a token is and whether it is accepted. Header and claims are as written, believed or not."""

    valid: bool
    reason: str
    """Why it is not accepted; empty when it is."""
    kind: str
    """``connection`` or ``subscription``, by whether it has a channel claim; empty when it cannot be read."""
    header: dict[str, Any]
    claims: dict[str, Any]
    expires_in: float | None
    """Seconds until ``exp``, negative when past; None when it never expires or cannot be read."""


async def explain(token: str, verifier: TokenVerifier) -> Explanation:
    """Check a token and tell what is in it, for people to read. Raises nothing for a bad token."""
    header: dict[str, Any] = {}
    claims: dict[str, Any] = {}
    try:
        payload = take_apart(token).payload
        header = _object(decode_base64url(token.partition(".")[0], "header"))
        claims = _object(payload)
    except TokenInvalid as error:
        return Explanation(False, error.reason, "", header, claims, None)
    kind = _SUBSCRIPTION if claims.get("channel") else _CONNECTION
    exp = claims.get("exp")
    expires_in = float(exp) - verifier.clock() if isinstance(exp, int | float) and not isinstance(exp, bool) else None
    reason = ""
    try:
        await (verifier.subscription(token) if kind == _SUBSCRIPTION else verifier.connection(token))
    except TokenExpired:
        reason = "The token has expired."
    except KeysUnavailable as error:
        reason = f"The token cannot be checked now: {error}"
    except AuthError as error:
        reason = str(error)
    return Explanation(not reason, reason, kind, header, claims, expires_in)


def _registered(
    user: str,
    user_id_claim: str,
    exp: int | None,
    nbf: int | None,
    iat: int | None,
    jti: str,
    audience: str | Sequence[str],
    issuer: str,
    info: Any,
    b64info: bytes | None,
    expire_at: int | None,
) -> dict[str, Any]:
    optional = {"exp": exp, "nbf": nbf, "iat": iat, "expire_at": expire_at, "info": info}
    claims: dict[str, Any] = {user_id_claim or "sub": user}
    claims.update((name, value) for name, value in optional.items() if value is not None)
    if jti:
        claims["jti"] = jti
    if audience:
        claims["aud"] = audience if isinstance(audience, str) else list(audience)
    if issuer:
        claims["iss"] = issuer
    if b64info is not None:
        claims["b64info"] = base64.b64encode(b64info).decode()
    return claims


def _signing_key(key: SigningKey) -> tuple[Any, tuple[str, ...]]:
    private: Any = key
    if isinstance(key, Secret):
        text = key.reveal()
        if "PRIVATE KEY-----" not in text:
            return hmac_key(text, setting="key"), HMAC_ALGORITHMS
        try:
            private = load_pem_private_key(text.replace("\\n", "\n").encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise BadKey("key", "not a readable, unencrypted private key in PEM.") from None
    possible = algorithms_of(private.public_key()) if hasattr(private, "public_key") else ()
    if not possible:
        raise BadKey("key", "a private key of this kind or size is not supported.")
    return private, possible


def _part(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise TokenInvalid("The token's header or claims are not a JSON object.") from None
    return value
