"""Verification of connection and subscription tokens (JSON Web Tokens).

The way of a token: its size, its three parts, its header, its signature, then its claims: who made it and for whom, of
which kind it is, its times, and at last the types of all the rest. Nothing is believed before the signature is good,
with one exception that :mod:`auth.scope` explains. Verifying is synchronous; only a key that is not in memory makes it
await, and that is the caller's choice: :class:`auth.errors.KeyMissing` is raised, or the ``async`` methods do it all.
"""

from __future__ import annotations

import binascii
import re
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from auth import claims
from auth.claims import ConnectionClaims, SubscriptionClaims
from auth.errors import BadSetting, KeyMissing, KeysUnavailable, TokenExpired, TokenInvalid
from auth.jwks import JWKS
from auth.keys import HMAC_ALGORITHMS, SUPPORTED, KeySet, signature_ok
from auth.scope import Scope
from auth.settings import TokenSettings

C = TypeVar("C", ConnectionClaims, SubscriptionClaims)

MAX_KID: Final = 512  # characters
MAX_HEADERS: Final = 256  # decoded headers remembered; issuers use one or two

_CLAIM_NAME: Final = re.compile(r"[a-zA-Z_]+")
_BASE64URL: Final = bytes.maketrans(b"-_", b"+/")
_STANDARD_ONLY: Final = re.compile(r"[+/=]")


class Header(NamedTuple):
    """What matters of a token's header. Keys, addresses and certificates in it (jwk, jku, x5c, x5u) are not read."""

    alg: str
    kid: str | None


class Parts(NamedTuple):
    """A token taken apart, nothing of it verified."""

    header: Header
    signing_input: bytes
    payload: bytes
    signature: bytes


class _HeaderDocument(msgspec.Struct):
    alg: str
    kid: str | None = None
    crit: msgspec.Raw = msgspec.Raw()
    b64: bool | None = None


class TokenVerifier:
    """Verifies the tokens of one settings section.

    ``clock`` gives unix seconds. ``skip_signature`` believes everyone (``insecure_skip_token_signature_verify``: for
    tests only). ``binary`` accepts base64 claims (``b64info``, ``b64data``) that are not JSON, for a hub whose clients
    all speak Protobuf. ``prefix`` is the section's path, for errors. Raises BadSetting and BadKey.

    ``verify_connection`` and ``verify_subscription`` raise TokenInvalid, TokenExpired, KeysUnavailable, and KeyMissing:
    then await :meth:`fetch_keys` and try once more. ``connection`` and ``subscription`` do that; they do not suspend
    when the key is in memory.
    """

    def __init__(
        self,
        settings: TokenSettings,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        skip_signature: bool = False,
        binary: bool = False,
        prefix: str = "client.token",
    ) -> None:
        if settings.user_id_claim and not _CLAIM_NAME.fullmatch(settings.user_id_claim):
            raise BadSetting(f"{prefix}.user_id_claim", "may have only letters a-z, A-Z and underscores.")
        if settings.max_size < 1:
            raise BadSetting(f"{prefix}.max_size", "has to be at least 1 byte.")
        if settings.leeway.total_seconds() < 0:
            raise BadSetting(f"{prefix}.leeway", "cannot be negative.")
        self._keys = KeySet(settings, prefix=prefix)
        self._scope = Scope(settings, prefix=prefix)
        self._jwks = JWKS(settings.jwks, prefix=prefix, clock=monotonic) if self._scope.endpoint else None
        self._user_claim = "" if settings.user_id_claim == "sub" else settings.user_id_claim
        self._leeway = settings.leeway.total_seconds()
        self._max_size = settings.max_size
        self._clock = clock
        self._skip_signature = skip_signature
        self._binary = binary
        self._headers: dict[str, Header] = {}

    @property
    def usable(self) -> bool:
        """Whether any token at all can be accepted: a key or a key set is configured, or signatures are not checked."""
        return bool(self._keys.algorithms) or self._jwks is not None or self._skip_signature

    @property
    def jwks(self) -> JWKS | None:
        """The key sets fetched, for metrics; None when no endpoint is configured."""
        return self._jwks

    @property
    def clock(self) -> Callable[[], float]:
        """The clock that tokens are judged by, in unix seconds."""
        return self._clock

    def verify_connection(self, token: str) -> ConnectionClaims:
        """Return what a connection token says."""
        payload, document = self._verified(token, claims.CONNECTION)
        if document.channel:
            raise TokenInvalid("This is a subscription token: a connection token has no channel claim.")
        self._check_times(document)
        return claims.connection_claims(document, user=self._user(payload, document), binary=self._binary)

    def verify_subscription(self, token: str) -> SubscriptionClaims:
        """Return what a subscription token says. The caller compares its user, channel and client."""
        payload, document = self._verified(token, claims.SUBSCRIPTION)
        if not document.channel:
            raise TokenInvalid("A subscription token needs a channel claim.")
        self._check_times(document)
        return claims.subscription_claims(document, user=self._user(payload, document), binary=self._binary)

    async def connection(self, token: str) -> ConnectionClaims:
        """As :meth:`verify_connection`, fetching keys when needed."""
        return await self._with_keys(self.verify_connection, token)

    async def subscription(self, token: str) -> SubscriptionClaims:
        """As :meth:`verify_subscription`, fetching keys when needed."""
        return await self._with_keys(self.verify_subscription, token)

    async def fetch_keys(self, token: str) -> None:
        """Fetch the key set that may verify ``token``; does nothing when it is in memory or was just asked.

        Raises TokenInvalid and KeysUnavailable. That the fetch failed shows at the next verification.
        """
        try:
            self._verified(token, claims.REGISTERED)
        except KeyMissing as missing:
            if self._jwks is not None:
                await self._jwks.fetch(missing.url, missing.kid)

    async def aclose(self) -> None:
        """Stop fetching keys."""
        if self._jwks is not None:
            await self._jwks.aclose()

    async def _with_keys(self, verify: Callable[[str], C], token: str) -> C:
        try:
            return verify(token)
        except KeyMissing as missing:
            if self._jwks is not None:
                await self._jwks.fetch(missing.url, missing.kid)
        try:
            return verify(token)
        except KeyMissing:
            raise KeysUnavailable("The key set has to be asked once more.") from None

    def _verified(self, token: str, decoder: Any) -> tuple[bytes, Any]:
        """Return the payload and the decoded claims of a token whose signature, issuer and audience are right."""
        parts = self._take_apart(token)
        if self._scope.templated:
            # Which keys are the right ones depends on the claims.
            document = claims.decode(parts.payload, decoder)
            groups = self._scope.check(document.iss, document.aud)
            if not self._skip_signature:
                self._check_signature(parts, self._scope.resolve(groups))
        else:
            if not self._skip_signature:
                self._check_signature(parts, self._scope.endpoint)
            document = claims.decode(parts.payload, decoder)
            self._scope.check(document.iss, document.aud)
        return parts.payload, document

    def _take_apart(self, token: str) -> Parts:
        if len(token) > self._max_size:
            raise TokenInvalid(f"The token is longer than {self._max_size} bytes.")
        return take_apart(token, self._headers)

    def _check_signature(self, parts: Parts, url: str) -> None:
        """``url`` is the resolved address of the key set, "" when there is none."""
        (algorithm, kid), signing_input, _, signature = parts
        if algorithm not in SUPPORTED:
            raise TokenInvalid("The token's algorithm is not supported.")
        static = algorithm in self._keys.algorithms
        if static and self._keys.verify(algorithm, signing_input, signature, now=self._clock()):
            return
        if self._jwks is None or algorithm in HMAC_ALGORITHMS:
            if static:
                raise TokenInvalid("The token's signature is wrong.")
            raise TokenInvalid(f"No key is configured for the token's algorithm {algorithm}.")
        found = self._jwks.lookup(url, kid, algorithm)
        if not found:
            raise TokenInvalid("The token was signed with a key that is not in the key set.")
        for key in found:
            if signature_ok(algorithm, key, signing_input, signature):
                return
        raise TokenInvalid("The token's signature is wrong.")

    def _check_times(self, document: claims.RegisteredClaims) -> None:
        now = self._clock()
        if document.nbf is not None and document.nbf > now + self._leeway:
            raise TokenInvalid("The token is not valid yet.")
        if document.exp is not None and document.exp + self._leeway <= now:
            raise TokenExpired(document.exp)

    def _user(self, payload: bytes, document: claims.RegisteredClaims) -> str:
        return claims.user_of(payload, self._user_claim) if self._user_claim else document.sub or ""


def take_apart(token: str, headers: dict[str, Header] | None = None) -> Parts:
    """Split a token and decode its parts, verifying nothing; TokenInvalid when it is not a JWT.

    ``headers`` remembers decoded headers, by their text, between calls.
    """
    try:
        head, body, tail = token.split(".")
    except ValueError:
        raise TokenInvalid("Not a JSON Web Token: it has to have three parts.") from None
    header = headers.get(head) if headers is not None else None
    if header is None:
        header = _decode_header(head)
        if headers is not None:
            if len(headers) >= MAX_HEADERS:
                headers.clear()
            headers[head] = header
    payload = decode_base64url(body, "payload")
    signature = decode_base64url(tail, "signature")
    return Parts(header, token[: len(head) + 1 + len(body)].encode("ascii"), payload, signature)


def decode_base64url(text: str, part: str) -> bytes:
    """Decode one part of a token: unpadded base64url in its one canonical spelling, so that no token has two."""
    try:
        data = text.encode("ascii").translate(_BASE64URL)
        decoded = binascii.a2b_base64(data + b"==="[: -len(data) % 4], strict_mode=True)
    except ValueError:
        raise TokenInvalid(f"The token's {part} is not base64url.") from None
    if _STANDARD_ONLY.search(text) or binascii.b2a_base64(decoded, newline=False).rstrip(b"=") != data:
        raise TokenInvalid(f"The token's {part} is not base64url.")
    return decoded


def _decode_header(text: str) -> Header:
    data = decode_base64url(text, "header")
    try:
        data.decode()
        document = msgspec.json.decode(data, type=_HeaderDocument)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TokenInvalid("The token's header is not a JSON object with a string alg.") from None
    if bytes(document.crit) or document.b64 is False:
        raise TokenInvalid("The token's header demands an extension that is not supported.")
    if document.kid is not None and len(document.kid) > MAX_KID:
        raise TokenInvalid(f"The token's key id is longer than {MAX_KID} characters.")
    return Header(document.alg, document.kid)
