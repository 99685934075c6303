from __future__ import annotations

import json

import jwt
import msgspec
import pytest

from auth.claims import Overrides, SubscriptionGrant
from auth.errors import BadKey
from auth.issue import explain, issue_connection_token, issue_subscription_token, sign
from auth.secret import Secret
from auth.settings import TokenSettings
from auth.tokens import TokenVerifier
from tests.support.keyring import SECRET, private_key, private_pem, public_pem

NOW = 1_800_000_000
KEY = Secret(SECRET)
VERIFIER = TokenVerifier(
    TokenSettings(
        hmac_secret_key=KEY,
        rsa_public_key=public_pem("RSA"),
        ecdsa_public_key=public_pem("ES256") + public_pem("ES384") + public_pem("ES512"),
        eddsa_public_key=public_pem("EdDSA"),
    ),
    clock=lambda: NOW,
)


def test_a_connection_token_with_everything():
    token = issue_connection_token(
        KEY,
        user="42",
        exp=NOW + 60,
        nbf=NOW,
        iat=NOW,
        jti="id",
        audience=["a", "b"],
        issuer="me",
        info=msgspec.Raw(b'{"n":1.0}'),
        channels=["x", "y"],
        subs={"c": {"data": {"z": 1}, "override": {"join_leave": {"value": False}}}},
        meta={"m": 1},
        expire_at=NOW + 30,
        extra={"other": True},
        kid="k1",
    )
    claims = VERIFIER.verify_connection(token)
    assert (claims.user, claims.expire_at, claims.info, claims.channels) == ("42", NOW + 30, b'{"n":1.0}', ("x", "y"))
    assert claims.subs == {"c": SubscriptionGrant(data=b'{"z":1}', overrides=Overrides(join_leave=False))}
    assert (claims.meta, claims.issued_at, claims.token_id) == (b'{"m":1}', NOW, "id")
    body = jwt.decode(token, options={"verify_signature": False})
    assert (body["aud"], body["iss"], body["other"]) == (["a", "b"], "me", True)
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT", "kid": "k1"}


def test_a_subscription_token_with_everything():
    token = issue_subscription_token(
        KEY,
        channel="c",
        user="42",
        client="one",
        exp=NOW + 60,
        audience="a",
        b64info=b'{"i":1}',
        b64data=b"[2]",
        override={"presence": True, "force_positioning": False},
    )
    claims = VERIFIER.verify_subscription(token)
    assert (claims.user, claims.channel, claims.client, claims.expire_at) == ("42", "c", "one", NOW + 60)
    assert (claims.info, claims.data) == (b'{"i":1}', b"[2]")
    assert claims.overrides == Overrides(presence=True, force_positioning=False)


def test_the_least_of_tokens():
    assert jwt.decode(issue_connection_token(KEY), SECRET, algorithms=["HS256"]) == {"sub": ""}
    assert VERIFIER.verify_subscription(issue_subscription_token(KEY, channel="c", data=0)).data == b"0"


def test_the_user_in_another_claim():
    token = issue_connection_token(KEY, user="42", user_id_claim="uid")
    assert jwt.decode(token, SECRET, algorithms=["HS256"]) == {"uid": "42"}


@pytest.mark.parametrize("algorithm", ["", "HS256", "HS384", "HS512"])
def test_hmac_algorithms(algorithm: str):
    token = issue_connection_token(KEY, user="42", algorithm=algorithm)
    assert jwt.get_unverified_header(token)["alg"] == (algorithm or "HS256")
    assert VERIFIER.verify_connection(token).user == "42"


@pytest.mark.parametrize(
    ("kind", "algorithm", "chosen"),
    [
        ("RSA", "", "RS256"),
        ("RSA", "RS512", "RS512"),
        ("ES256", "", "ES256"),
        ("ES384", "", "ES384"),
        ("ES512", "", "ES512"),
        ("EdDSA", "", "EdDSA"),
    ],
)
def test_private_keys_also_as_pem(kind: str, algorithm: str, chosen: str):
    for key in (private_key(kind), Secret(private_pem(kind)), Secret(private_pem(kind).replace("\n", "\\n"))):
        token = issue_connection_token(key, user="42", algorithm=algorithm)
        assert VERIFIER.verify_connection(token).user == "42"
        assert jwt.decode(token, private_key(kind).public_key(), algorithms=[chosen]) == {"sub": "42"}


@pytest.mark.parametrize(
    ("key", "algorithm", "problem"),
    [
        (Secret("short"), "", "at least 32"),
        (KEY, "RS256", "cannot sign with RS256"),
        (KEY, "none", "supported are"),
        (Secret(private_pem("RSA")), "ES256", "cannot sign with ES256"),
        (Secret(private_pem("RSA1024")), "", "not supported"),
        (private_key("K1"), "", "not supported"),
        (Secret("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"), "", "not a readable"),
    ],
)
def test_keys_that_cannot_sign(key: Secret, algorithm: str, problem: str):
    with pytest.raises(BadKey, match=problem):
        sign({}, key, algorithm=algorithm)


async def test_a_good_token_explained():
    explained = await explain(issue_connection_token(KEY, user="42", exp=NOW + 90, kid="k"), VERIFIER)
    assert (explained.valid, explained.reason, explained.kind, explained.expires_in) == (True, "", "connection", 90)
    assert explained.header == {"alg": "HS256", "typ": "JWT", "kid": "k"}
    assert explained.claims == {"sub": "42", "exp": NOW + 90}
    assert json.loads(msgspec.json.encode(explained))["valid"] is True


async def test_a_subscription_token_explained():
    explained = await explain(issue_subscription_token(KEY, channel="c"), VERIFIER)
    assert (explained.valid, explained.kind, explained.expires_in) == (True, "subscription", None)


async def test_an_expired_token_explained():
    explained = await explain(issue_connection_token(KEY, exp=NOW - 10), VERIFIER)
    assert (explained.valid, explained.reason, explained.expires_in) == (False, "The token has expired.", -10)


async def test_a_forged_token_explained():
    explained = await explain(issue_connection_token(Secret("x" * 32), user="42"), VERIFIER)
    assert (explained.valid, explained.reason) == (False, "The token's signature is wrong.")
    assert explained.claims == {"sub": "42"}


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "e30.e30.", "eyJhbGciOiJIUzI1NiJ9.W10."])
async def test_what_is_not_a_token_explained(token: str):
    explained = await explain(token, VERIFIER)
    assert not explained.valid
    assert explained.reason
    assert explained.claims == {}


async def test_odd_claims_explained():
    explained = await explain(sign({"exp": "soon", "sub": 5}, KEY), VERIFIER)
    assert not explained.valid
    assert "claim" in explained.reason
    assert explained.expires_in is None
