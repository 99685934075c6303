from __future__ import annotations

import base64
import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from auth.secret import Secret
from hub.settings import TlsSettings
from hub.tls import TlsError, server_context

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8


def pair() -> tuple[str, str, str]:
    """A certificate, its key, and its key with a pass phrase."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    plain = key.private_bytes(PEM, PKCS8, serialization.NoEncryption())
    locked = key.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"x"))
    return certificate.public_bytes(PEM).decode(), plain.decode(), locked.decode()


CERTIFICATE, KEY, LOCKED = pair()
OTHER_KEY = pair()[1]


def context(certificate: str, key: str) -> ssl.SSLContext | None:
    return server_context(TlsSettings(enabled=True, cert_pem=certificate, key_pem=Secret(key)))


def test_off_is_none() -> None:
    assert server_context(TlsSettings()) is None


def test_pem_as_text_base64_and_file(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text(CERTIFICATE)
    (tmp_path / "key.pem").write_text(KEY)
    for certificate, key in (
        (CERTIFICATE, KEY),
        (base64.b64encode(CERTIFICATE.encode()).decode(), base64.b64encode(KEY.encode()).decode()),
        (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")),
    ):
        made = context(certificate, key)
        assert made is not None
        assert made.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("certificate", "key", "sentence"),
    [
        ("/nowhere.pem", KEY, "cert_pem is neither PEM text nor a file"),
        (CERTIFICATE, "a\x00b", "key_pem is neither PEM text nor a file"),
        (CERTIFICATE, __file__.removesuffix("c"), "not a certificate and its key|holds no PEM text"),
        (CERTIFICATE, OTHER_KEY, "are not a certificate and its key"),
        (CERTIFICATE, LOCKED, "key_pem is encrypted"),
        ("-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----", KEY, "are not a certificate and its key"),
    ],
)
def test_what_cannot_be_used_is_told(certificate: str, key: str, sentence: str) -> None:
    with pytest.raises(TlsError, match=sentence) as caught:
        context(certificate, key)
    assert "PRIVATE" not in str(caught.value)
