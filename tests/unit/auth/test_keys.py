from __future__ import annotations

import pytest

from auth.errors import BadKey
from auth.keys import SUPPORTED, KeySet, algorithms_of, hmac_key, implementation, public_keys, signature_ok
from auth.secret import Secret
from auth.settings import TokenSettings
from tests.support.keyring import SECRET, private_key, private_pem, public_pem

MESSAGE = b"header.payload"


def sign(algorithm: str, key: object) -> bytes:
    return bytes(implementation(algorithm).sign(MESSAGE, key))


def test_without_settings_no_algorithm_exists():
    keys = KeySet(TokenSettings())
    assert keys.algorithms == frozenset()
    assert not keys.verify("HS256", MESSAGE, sign("HS256", SECRET.encode()), now=0)


def test_each_key_brings_only_its_own_algorithms():
    assert KeySet(TokenSettings(hmac_secret_key=Secret(SECRET))).algorithms == {"HS256", "HS384", "HS512"}
    assert KeySet(TokenSettings(rsa_public_key=public_pem("RSA"))).algorithms == {"RS256", "RS384", "RS512"}
    assert KeySet(TokenSettings(ecdsa_public_key=public_pem("ES384"))).algorithms == {"ES384"}
    assert KeySet(TokenSettings(eddsa_public_key=public_pem("EdDSA"))).algorithms == {"EdDSA"}


def test_unsupported_algorithms_have_no_implementation():
    for name in ("none", "None", "", "PS256", "ES256K", "ES521"):
        assert name not in SUPPORTED
        with pytest.raises(KeyError):
            implementation(name)


def test_several_pem_keys_for_rotation():
    both = public_pem("RSA", 0) + "\n" + public_pem("RSA", 1)
    keys = KeySet(TokenSettings(rsa_public_key=both))
    for number in (0, 1):
        assert keys.verify("RS256", MESSAGE, sign("RS256", private_key("RSA", number)), now=0)
    assert not keys.verify("RS256", MESSAGE, sign("RS256", private_key("RSA", 2)), now=0)


def test_curves_of_one_setting_may_differ():
    keys = KeySet(TokenSettings(ecdsa_public_key=public_pem("ES256") + public_pem("ES512")))
    assert keys.algorithms == {"ES256", "ES512"}


def test_pem_with_spelled_out_line_breaks():
    keys = KeySet(TokenSettings(rsa_public_key=public_pem("RSA").replace("\n", "\\n")))
    assert keys.verify("RS256", MESSAGE, sign("RS256", private_key("RSA")), now=0)


def test_the_previous_secret_is_good_until_its_time():
    previous = "the-previous-secret-of-at-least-32-bytes"
    signature = sign("HS256", previous.encode())
    settings = TokenSettings(
        hmac_secret_key=Secret(SECRET),
        hmac_previous_secret_key=Secret(previous),
        hmac_previous_secret_key_valid_until=1000,
    )
    keys = KeySet(settings)
    assert keys.verify("HS256", MESSAGE, signature, now=999.9)
    assert not keys.verify("HS256", MESSAGE, signature, now=1000)
    assert keys.verify("HS256", MESSAGE, sign("HS256", SECRET.encode()), now=1e12)


def test_the_previous_secret_without_a_time_stays():
    previous = "the-previous-secret-of-at-least-32-bytes"
    keys = KeySet(TokenSettings(hmac_secret_key=Secret(SECRET), hmac_previous_secret_key=Secret(previous)))
    assert keys.verify("HS256", MESSAGE, sign("HS256", previous.encode()), now=1e12)


@pytest.mark.parametrize("secret", ["x", "x" * 31, "é" * 15])
@pytest.mark.parametrize("field", ["hmac_secret_key", "hmac_previous_secret_key"])
def test_short_secrets_are_refused(secret: str, field: str):
    with pytest.raises(BadKey, match=rf"section\.{field}: .*at least 32") as caught:
        KeySet(TokenSettings(**{field: Secret(secret)}), prefix="section")
    assert caught.value.setting == f"section.{field}"
    assert secret not in caught.value.problem.split()


def test_a_public_key_cannot_be_a_secret():
    for text in (public_pem("RSA"), '{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}'):
        with pytest.raises(BadKey, match="must not serve as an HMAC secret"):
            hmac_key(text, setting="x")


@pytest.mark.parametrize(
    ("field", "pem", "problem"),
    [
        ("rsa_public_key", "nonsense", "no PEM"),
        ("rsa_public_key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "not a readable"),
        ("rsa_public_key", "private", "private key"),
        ("rsa_public_key", "ES256", "not a key for RS256"),
        ("rsa_public_key", "RSA1024", "1024 bits"),
        ("ecdsa_public_key", "RSA", "not a key for ES256"),
        ("ecdsa_public_key", "EdDSA", "not a key for ES256"),
        ("ecdsa_public_key", "K1", "not a key for ES256"),
        ("eddsa_public_key", "ES256", "not a key for EdDSA"),
    ],
)
def test_keys_of_the_wrong_kind_are_refused(field: str, pem: str, problem: str):
    if pem == "private":
        pem = private_pem("RSA")
    elif not pem.startswith(("-", "nonsense")):
        pem = public_pem(pem)
    with pytest.raises(BadKey, match=problem) as caught:
        KeySet(TokenSettings(**{field: pem}))
    assert caught.value.setting == f"client.token.{field}"
    assert "MII" not in str(caught.value)


def test_one_bad_block_among_good_ones_is_told_by_its_number():
    with pytest.raises(BadKey, match="block 2"):
        public_keys(public_pem("RSA") + public_pem("ES256"), ("RS256",), setting="x")


def test_a_public_key_is_never_an_hmac_secret():
    """Algorithm confusion: a forger signs HS256 with the public key's text, which everyone can have."""
    pem = public_pem("RSA").encode()
    keys = KeySet(TokenSettings(rsa_public_key=pem.decode()))
    assert not keys.verify("HS256", MESSAGE, sign("HS256", pem), now=0)


def test_algorithms_of_anything_else():
    assert algorithms_of(object()) == ()
    assert algorithms_of(private_key("K1").public_key()) == ()


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512"])
@pytest.mark.parametrize("signature", [b"", b"\0" * 64, b"\0" * 96, b"\0" * 132, b"\xff" * 64, b"x"])
def test_odd_ec_signatures_are_just_wrong(algorithm: str, signature: bytes):
    assert not signature_ok(algorithm, private_key(algorithm).public_key(), MESSAGE, signature)
