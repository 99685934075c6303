from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.errors import BadSetting, KeyMissing
from auth.fetch import FetchError
from auth.jwks import JWKS, MAX_KEYS, parse
from auth.settings import JWKSSettings, JWKSTLSSettings
from tests.support.keyring import jwk


def document(*keys: Any) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def test_every_supported_kind_of_key():
    kinds = ("RSA", "ES256", "ES384", "ES512", "EdDSA")
    keys = parse(document(*(jwk(kind, kind) for kind in kinds)))
    assert {key.kid: key.algorithms for key in keys} == {
        "RSA": ("RS256", "RS384", "RS512"),
        "ES256": ("ES256",),
        "ES384": ("ES384",),
        "ES512": ("ES512",),
        "EdDSA": ("EdDSA",),
    }


def test_alg_narrows_what_a_key_may_do():
    (key,) = parse(document(jwk("RSA", "a", alg="RS384")))
    assert key.algorithms == ("RS384",)


@pytest.mark.parametrize(
    "unusable",
    [
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "a"},
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "a", "alg": "HS256"},
        jwk("RSA", "a", use="enc"),
        jwk("RSA", "a", key_ops=["encrypt"]),
        jwk("RSA", "a", alg="ES256"),
        jwk("RSA", "a", alg="HS256"),
        jwk("RSA", "a", alg="none"),
        jwk("RSA", "a", alg="RSA-OAEP"),
        jwk("ES256", "a", alg="ES384"),
        jwk("RSA1024", "a"),
        jwk("K1", "a"),
        {**jwk("ES256", "a"), "crv": "P-384"},
        {**jwk("ES256", "a"), "x": "AAAA"},
        {**jwk("ES256", "a"), "x": "A" * 43, "y": "A" * 43},
        {**jwk("EdDSA", "a"), "x": "AAAA"},
        {**jwk("EdDSA", "a"), "crv": "Ed448"},
        {**jwk("RSA", "a"), "n": "!"},
        {**jwk("RSA", "a"), "e": ""},
        {**jwk("RSA", "a"), "e": 65537},
        {**jwk("RSA", "a"), "kid": 5},
        {"kty": "RSA", "kid": "a"},
        {"kty": "XYZ"},
        {},
        None,
        "a",
        [],
    ],
)
def test_an_unusable_key_is_left_out_and_costs_no_other(unusable: Any):
    assert [key.kid for key in parse(document(unusable, jwk("EdDSA", "good")))] == ["good"]


def test_private_members_are_not_read():
    for kind in ("RSA", "ES256", "EdDSA"):
        (key,) = parse(document(jwk(kind, "a", private=True)))
        assert not hasattr(key.key, "sign")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"keys":5}',
        b'{"keys":{}}',
        b"\xff\xfe",
        b'{"keys":[' + b"[" * 60_000 + b"]" * 60_000 + b"]}",
        document(*[{}] * (MAX_KEYS + 1)),
    ],
)
def test_what_is_not_a_key_set_is_an_error(answer: bytes):
    with pytest.raises(FetchError):
        parse(answer)


def test_an_empty_set_is_a_set():
    assert parse(b'{"keys":[]}') == ()


@given(st.binary(max_size=200))
def test_any_answer_is_a_set_or_an_error(answer: bytes):
    try:
        parse(answer)
    except FetchError:
        pass


VALUE = st.none() | st.booleans() | st.integers() | st.text(max_size=50) | st.lists(st.text(max_size=5), max_size=3)


@given(
    st.sampled_from(["RSA", "ES256", "EdDSA"]),
    st.dictionaries(st.sampled_from(["kty", "crv", "n", "e", "x", "y", "alg", "use", "kid", "key_ops"]), VALUE),
)
def test_any_members_of_a_key_are_usable_or_left_out(kind: str, members: dict[str, Any]):
    assert len(parse(document({**jwk(kind, "a"), **members}))) <= 1


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"refresh_interval": timedelta(0)}, "refresh_interval"),
        ({"timeout": timedelta(seconds=-1)}, "timeout"),
        ({"max_size": 0}, "max_size"),
        ({"max_endpoints": 0}, "max_endpoints"),
        ({"tls": JWKSTLSSettings(enabled=True, server_ca_pem="/does/not/exist.pem")}, "tls.server_ca_pem"),
        (
            {"tls": JWKSTLSSettings(enabled=True, server_ca_pem="-----BEGIN CERTIFICATE-----\nx")},
            "tls.server_ca_pem",
        ),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, Any], setting: str):
    with pytest.raises(BadSetting) as caught:
        JWKS(JWKSSettings(**settings))
    assert caught.value.setting == f"client.token.jwks.{setting}"


def test_a_certificate_authority_is_not_read_unless_enabled():
    JWKS(JWKSSettings(tls=JWKSTLSSettings(server_ca_pem="/does/not/exist.pem")))


def test_looking_up_needs_no_loop_and_fetches_nothing():
    keys = JWKS(JWKSSettings())
    with pytest.raises(KeyMissing):
        keys.lookup("http://127.0.0.1:1/", "a", "RS256")
    assert keys.fetches == 0
