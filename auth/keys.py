"""The keys that tokens are verified with, and the one rule of which key may serve which algorithm.

A key decides the algorithms it can be used for; the token's header only chooses among them. So an RSA public key never
becomes an HMAC secret, ``alg: none`` names no key at all, and an algorithm without a configured key does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import InvalidKeyError

from auth.errors import BadKey
from auth.settings import TokenSettings

PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

HMAC_ALGORITHMS: Final = ("HS256", "HS384", "HS512")
RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512")
EC_ALGORITHMS: Final = ("ES256", "ES384", "ES512")
EDDSA_ALGORITHMS: Final = ("EdDSA",)
SUPPORTED: Final = frozenset(HMAC_ALGORITHMS + RSA_ALGORITHMS + EC_ALGORITHMS + EDDSA_ALGORITHMS)

MIN_HMAC_BYTES: Final = 32
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192  # beyond, one verification takes milliseconds of the event loop

_IMPLEMENTATIONS: Final[dict[str, Algorithm]] = {
    name: implementation for name, implementation in get_default_algorithms().items() if name in SUPPORTED
}
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_PEM: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


class Candidate(NamedTuple):
    """A key as tokens are tried against it; ``valid_until`` in unix seconds, 0 = for ever."""

    key: bytes | PublicKey
    valid_until: int = 0


def implementation(algorithm: str) -> Algorithm:
    """Return PyJWT's implementation of a supported algorithm; KeyError for any other name."""
    return _IMPLEMENTATIONS[algorithm]


def algorithms_of(key: object) -> tuple[str, ...]:
    """Return the algorithms a public key may verify; empty when its kind or size is not supported."""
    if isinstance(key, rsa.RSAPublicKey):
        return RSA_ALGORITHMS if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS else ()
    if isinstance(key, ec.EllipticCurvePublicKey):
        name = _CURVES.get(key.curve.name)
        return (name,) if name else ()
    if isinstance(key, ed25519.Ed25519PublicKey):
        return EDDSA_ALGORITHMS
    return ()


def signature_ok(algorithm: str, key: bytes | PublicKey, signing_input: bytes, signature: bytes) -> bool:
    """Tell whether a signature is good. ``algorithm`` has to be one that ``key`` was filed under."""
    return _IMPLEMENTATIONS[algorithm].verify(signing_input, key, signature)


class KeySet:
    """The keys of one settings section, parsed once.

    ``prefix`` is the section's path, for errors. Raises BadKey for a key that is too short, unreadable or of
    another kind than its setting says.
    """

    __slots__ = ("_candidates",)

    def __init__(self, settings: TokenSettings, *, prefix: str = "client.token") -> None:
        filed: dict[str, list[Candidate]] = {}

        def file(names: Iterable[str], candidate: Candidate) -> None:
            for name in names:
                filed.setdefault(name, []).append(candidate)

        if settings.hmac_secret_key:
            secret = hmac_key(settings.hmac_secret_key.reveal(), setting=f"{prefix}.hmac_secret_key")
            file(HMAC_ALGORITHMS, Candidate(secret))
        if settings.hmac_previous_secret_key:
            secret = hmac_key(settings.hmac_previous_secret_key.reveal(), setting=f"{prefix}.hmac_previous_secret_key")
            file(HMAC_ALGORITHMS, Candidate(secret, settings.hmac_previous_secret_key_valid_until))
        for pem, setting, allowed in (
            (settings.rsa_public_key, "rsa_public_key", RSA_ALGORITHMS),
            (settings.ecdsa_public_key, "ecdsa_public_key", EC_ALGORITHMS),
            (settings.eddsa_public_key, "eddsa_public_key", EDDSA_ALGORITHMS),
        ):
            if pem:
                for key in public_keys(pem, allowed, setting=f"{prefix}.{setting}"):
                    file(algorithms_of(key), Candidate(key))
        self._candidates = {name: tuple(candidates) for name, candidates in filed.items()}

    @property
    def algorithms(self) -> frozenset[str]:
        """The algorithms for which a key is configured."""
        return frozenset(self._candidates)

    def verify(self, algorithm: str, signing_input: bytes, signature: bytes, *, now: float) -> bool:
        """Tell whether one of the keys filed under ``algorithm`` made this signature; ``now`` in unix seconds."""
        for key, valid_until in self._candidates.get(algorithm, ()):
            if valid_until and now >= valid_until:
                continue
            if signature_ok(algorithm, key, signing_input, signature):
                return True
        return False


def hmac_key(secret: str, *, setting: str) -> bytes:
    """Return the bytes of an HMAC secret; BadKey when they are under 32 or are really another kind of key."""
    key = secret.encode("utf-8", "surrogateescape")
    if len(key) < MIN_HMAC_BYTES:
        raise BadKey(
            setting,
            f"the secret has {len(key)} bytes; use at least {MIN_HMAC_BYTES} random ones (openssl rand -hex 32).",
        )
    try:
        prepared: bytes = implementation("HS256").prepare_key(key)
    except InvalidKeyError:
        raise BadKey(setting, "this is a public key or a JWK, which must not serve as an HMAC secret.") from None
    return prepared


def public_keys(pem: str, allowed: tuple[str, ...], *, setting: str) -> list[PublicKey]:
    """Return every public key in a PEM text, all of which must fit one of the ``allowed`` algorithms.

    A text with ``\\n`` spelled as backslash and n, as environment files have it, is understood.
    """
    text = pem.replace("\\n", "\n")
    keys: list[PublicKey] = []
    for block in _PEM.finditer(text):
        label = block.group(1)
        if "PRIVATE" in label:
            raise BadKey(
                setting, "this is a private key; give the public key and keep the private one where tokens are made."
            )
        try:
            key: Any = load_pem_public_key(block.group().encode("utf-8", "surrogateescape"))
        except (ValueError, UnsupportedAlgorithm):
            raise BadKey(setting, f"the PEM block {len(keys) + 1} ({label}) is not a readable public key.") from None
        names = algorithms_of(key)
        if isinstance(key, rsa.RSAPublicKey) and "RS256" in allowed and not names:
            raise BadKey(setting, f"an RSA key of {key.key_size} bits; use {MIN_RSA_BITS} to {MAX_RSA_BITS}.")
        if not names or names[0] not in allowed:
            raise BadKey(setting, f"the PEM block {len(keys) + 1} is not a key for {', '.join(allowed)}.")
        keys.append(key)
    if not keys:
        raise BadKey(setting, "no PEM public key in it; it starts with -----BEGIN PUBLIC KEY-----.")
    return keys
