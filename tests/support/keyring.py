"""Key pairs for token tests, made once per process, and the shapes that settings and key sets want them in."""

from __future__ import annotations

from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

SECRET = "a-secret-of-at-least-32-bytes-for-tests"

_CURVES: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
_JWK: dict[str, Any] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}


def private_key(kind: str, number: int = 0) -> Any:
    """A private key of `kind` ("RSA", "RSA1024", "ES256", "ES384", "ES512", "K1", "EdDSA"); another for each number."""
    return _made(kind, number)


@cache
def _made(kind: str, number: int) -> Any:
    if kind.startswith("RSA"):
        return rsa.generate_private_key(65537, int(kind[3:] or 2048))
    if kind == "K1":
        return ec.generate_private_key(ec.SECP256K1())
    if kind == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(_CURVES[kind])


def public_pem(kind: str, number: int = 0) -> str:
    key = private_key(kind, number).public_key()
    return str(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def private_pem(kind: str, number: int = 0) -> str:
    key = private_key(kind, number)
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def jwk(kind: str, kid: str | None, number: int = 0, *, private: bool = False, **members: Any) -> dict[str, Any]:
    """The key as a member of a JSON Web Key Set."""
    key = private_key(kind, number)
    family = "RSA" if kind.startswith("RSA") else "OKP" if kind == "EdDSA" else "EC"
    made: dict[str, Any] = _JWK[family].to_jwk(key if private else key.public_key(), as_dict=True)
    made = {name: value for name, value in made.items() if name != "key_ops"}
    return {**made, **({} if kid is None else {"kid": kid}), **members}
