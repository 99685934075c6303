from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auth.claims import Overrides
from auth.errors import AuthError, BadKey, BadSetting, KeyMissing, TokenExpired, TokenInvalid
from auth.secret import Secret
from auth.settings import SubscriptionTokenSettings, TokenSettings
from auth.tokens import MAX_HEADERS, MAX_KID, TokenVerifier, decode_base64url, take_apart
from tests.support.keyring import SECRET, jwk, private_key, public_pem

NOW = 1_800_000_000.0
HMAC = TokenSettings(hmac_secret_key=Secret(SECRET))
ALL_KEYS: dict[str, Any] = {
    "hmac_secret_key": Secret(SECRET),
    "rsa_public_key": public_pem("RSA"),
    "ecdsa_public_key": public_pem("ES256") + public_pem("ES384") + public_pem("ES512"),
    "eddsa_public_key": public_pem("EdDSA"),
}


def verifier(section: TokenSettings = HMAC, **options: Any) -> TokenVerifier:
    return TokenVerifier(section, clock=lambda: NOW, **options)


def b64(data: bytes | dict[str, Any]) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def hs256(payload: dict[str, Any], **header: Any) -> str:
    """A token made by PyJWT, independently of our own issuing."""
    return jwt.encode(payload, SECRET, algorithm="HS256", headers=header or None)


def signed(header: bytes | dict[str, Any], payload: bytes | dict[str, Any], secret: str = SECRET) -> str:
    """A token with any header and payload whatever, properly signed with HMAC-SHA256."""
    signing_input = f"{b64(header)}.{b64(payload)}"
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        signing_input.encode(), secret.encode()
    )
    return f"{signing_input}.{b64(signature)}"


# What a good token gives


def test_a_connection_token():
    claims = verifier().verify_connection(
        hs256(
            {
                "sub": "42",
                "exp": NOW + 60,
                "iat": NOW,
                "jti": "one",
                "info": {"name": "Ann Lee"},
                "channels": ["a", "b"],
                "subs": {"c": {"info": 1, "data": [2], "override": {"presence": {"value": True}}}},
                "meta": {"m": None},
            }
        )
    )
    assert (claims.user, claims.expire_at, claims.issued_at, claims.token_id) == ("42", NOW + 60, NOW, "one")
    assert (claims.info, claims.meta, claims.channels) == (b'{"name":"Ann Lee"}', b'{"m":null}', ("a", "b"))
    assert claims.subs["c"].overrides == Overrides(presence=True)
    assert (claims.subs["c"].info, claims.subs["c"].data) == (b"1", b"[2]")


def test_a_subscription_token():
    claims = verifier().verify_subscription(
        hs256(
            {
                "sub": "42",
                "channel": "$news",
                "client": "c1",
                "info": {"a": 1},
                "data": {"b": 2},
                "exp": NOW + 60,
                "expire_at": 0,
                "override": {"force_recovery": {"value": True}},
                "iat": 5,
                "jti": "j",
            }
        )
    )
    assert (claims.user, claims.channel, claims.client) == ("42", "$news", "c1")
    assert (claims.info, claims.data, claims.expire_at) == (b'{"a":1}', b'{"b":2}', 0)
    assert claims.overrides == Overrides(force_recovery=True)
    assert (claims.issued_at, claims.token_id) == (5, "j")


def test_an_anonymous_token_that_never_expires():
    claims = verifier().verify_connection(hs256({}))
    assert (claims.user, claims.expire_at, claims.grants) == ("", 0, {})


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        *((name, "") for name in ("HS256",)),
        *((name, "RSA") for name in ("RS256", "RS384", "RS512")),
        *((name, name) for name in ("ES256", "ES384", "ES512", "EdDSA")),
    ],
)
def test_every_algorithm_with_its_key(algorithm: str, kind: str):
    key: Any = private_key(kind) if kind else SECRET
    token = jwt.encode({"sub": "42"}, key, algorithm=algorithm)
    everyone = verifier(TokenSettings(**ALL_KEYS))
    assert everyone.verify_connection(token).user == "42"
    others = {
        name: value
        for name, value in ALL_KEYS.items()
        if not name.startswith({"H": "hmac", "R": "rsa"}.get(algorithm[0], "ecdsa" if algorithm[1] == "S" else "eddsa"))
    }
    with pytest.raises(TokenInvalid, match="No key is configured"):
        verifier(TokenSettings(**others)).verify_connection(token)


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_the_longer_hmac_algorithms(algorithm: str):
    secret = SECRET * 2
    token = jwt.encode({"sub": "42"}, secret, algorithm=algorithm)
    assert verifier(TokenSettings(hmac_secret_key=Secret(secret))).verify_connection(token).user == "42"


def test_rotation_of_the_secret():
    old = "the-old-secret-of-at-least-32-bytes!"
    token = signed({"alg": "HS256"}, {"sub": "42"}, old)
    section = TokenSettings(
        hmac_secret_key=Secret(SECRET),
        hmac_previous_secret_key=Secret(old),
        hmac_previous_secret_key_valid_until=int(NOW) + 10,
    )
    assert TokenVerifier(section, clock=lambda: NOW).verify_connection(token).user == "42"
    with pytest.raises(TokenInvalid, match="signature"):
        TokenVerifier(section, clock=lambda: NOW + 10).verify_connection(token)


# Attacks


def forged() -> dict[str, str]:
    good = hs256({"sub": "42"})
    head, body, tail = good.split(".")
    admin = b64({"sub": "admin"})
    rsa_text = public_pem("RSA")
    other_rsa = private_key("RSA", 7)
    return {
        "alg none": f"{b64({'alg': 'none'})}.{body}.",
        "alg None with the old signature": f"{b64({'alg': 'None'})}.{body}.{tail}",
        "alg empty": f"{b64({'alg': ''})}.{body}.{tail}",
        "alg missing": f"{b64({'typ': 'JWT'})}.{body}.{tail}",
        "alg not a string": f"{b64({'alg': ['HS256']})}.{body}.{tail}",
        "alg in lower case": f"{b64({'alg': 'hs256'})}.{body}.{tail}",
        "alg unsupported": f"{b64({'alg': 'PS256'})}.{body}.{tail}",
        "no signature": f"{head}.{body}.",
        "other claims, old signature": f"{head}.{admin}.{tail}",
        "other header, old signature": f"{b64({'alg': 'HS512'})}.{body}.{tail}",
        "signature cut": good[:-4],
        "signature longer": good + "AAAA",
        "signature of another secret": signed({"alg": "HS256"}, {"sub": "42"}, "another-secret-of-at-least-32-bytes!"),
        "signature of an empty secret": signed({"alg": "HS256"}, {"sub": "42"}, ""),
        "public key as a secret": signed({"alg": "HS256"}, {"sub": "42"}, rsa_text),
        "key in the header": jwt.encode(
            {"sub": "42"}, other_rsa, algorithm="RS256", headers={"jwk": jwk("RSA", "x", 7), "kid": "x"}
        ),
        "address in the header": jwt.encode(
            {"sub": "42"},
            other_rsa,
            algorithm="RS256",
            headers={"jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"},
        ),
        "es256 signature of zeros": f"{b64({'alg': 'ES256'})}.{body}.{b64(bytes(64))}",
        "es256 signature empty": f"{b64({'alg': 'ES256'})}.{body}.",
        "eddsa signature of zeros": f"{b64({'alg': 'EdDSA'})}.{body}.{b64(bytes(64))}",
        "rs256 signature of zeros": f"{b64({'alg': 'RS256'})}.{body}.{b64(bytes(256))}",
        "kid as a path": jwt.encode({"sub": "42"}, "x" * 32, algorithm="HS256", headers={"kid": "../../dev/null"}),
        "kid not a string": signed({"alg": "HS256", "kid": 5}, {"sub": "42"}),
        "kid too long": signed({"alg": "HS256", "kid": "k" * (MAX_KID + 1)}, {"sub": "42"}),
        "crit": signed({"alg": "HS256", "crit": ["exp"]}, {"sub": "42"}),
        "crit empty": signed({"alg": "HS256", "crit": []}, {"sub": "42"}),
        "b64 false": signed({"alg": "HS256", "b64": False}, {"sub": "42"}),
        "header not an object": signed(b"[]", {"sub": "42"}),
        "header not json": signed(b"alg", {"sub": "42"}),
        "header deep": signed(b'{"alg":"HS256","x":' + b"[" * 60_000 + b"]" * 60_000 + b"}", {}),
        "header not utf-8": signed(b'{"alg":"HS256","x":"\xff"}', {}),
        "payload not an object": signed({"alg": "HS256"}, b"[]"),
        "payload empty": signed({"alg": "HS256"}, b""),
        "one part": "abc",
        "two parts": f"{head}.{body}",
        "four parts": good + ".x",
        "encrypted (five parts)": f"{head}.a.b.c.{tail}",
        "empty": "",
        "dots": "..",
        "spaces": f" {good}",
        "line break": f"{good}\n",
        "padding": f"{head}.{body}.{tail}=",
        "standard base64": f"{head}.{body}.{tail[:-1]}+",
        "not ascii": f"{head}.{body}.{tail[:-1]}é",
        "surrogate": f"{head}.{body}.{tail[:-1]}\udcff",
        "nul": f"{head}.{body}.{tail}\0",
    }


@pytest.mark.parametrize("name", forged())
def test_forged_and_broken_tokens_are_invalid(name: str):
    everyone = verifier(TokenSettings(**ALL_KEYS, max_size=1_000_000))
    token = forged()[name]
    for verify in (everyone.verify_connection, everyone.verify_subscription):
        with pytest.raises(TokenInvalid) as caught:
            verify(token)
        assert caught.value.reason.endswith(".")
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        for part in token.split("."):
            assert len(part) < 8 or part not in str(caught.value)


def test_a_token_has_one_spelling_only():
    """The last character of base64 may have spare bits; a token with others of them must not pass for another token."""
    token = hs256({"sub": "42"})
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]
    assert decode_spare(twin) == decode_spare(token)
    with pytest.raises(TokenInvalid):
        verifier().verify_connection(twin)


def decode_spare(token: str) -> bytes:
    return base64.urlsafe_b64decode(token.rpartition(".")[2] + "=")


def test_a_curve_does_not_serve_another_ones_algorithm():
    section = TokenSettings(ecdsa_public_key=public_pem("ES256"))
    token = jwt.encode({"sub": "42"}, private_key("ES384"), algorithm="ES384")
    with pytest.raises(TokenInvalid, match="No key is configured"):
        verifier(section).verify_connection(token)


def test_without_any_key_nothing_is_accepted():
    nobody = verifier(TokenSettings())
    assert not nobody.usable
    with pytest.raises(TokenInvalid, match="No key is configured"):
        nobody.verify_connection(hs256({"sub": "42"}))


def test_a_long_token_is_refused_before_it_is_looked_at():
    section = TokenSettings(hmac_secret_key=Secret(SECRET), max_size=300)
    assert verifier(section).verify_connection(hs256({"sub": "42"})).user == "42"
    with pytest.raises(TokenInvalid, match="longer than 300 bytes"):
        verifier(section).verify_connection("é" * 301)
    with pytest.raises(TokenInvalid, match="longer than 300 bytes"):
        verifier(section).verify_connection(hs256({"sub": "4" * 300}))


def test_signature_is_checked_before_the_claims_are_read():
    with pytest.raises(TokenInvalid, match="signature"):
        verifier().verify_connection(signed({"alg": "HS256"}, b"nonsense", "x" * 32))


# Kinds, times, scope, user


def test_kinds_are_not_mixed_up():
    with pytest.raises(TokenInvalid, match="subscription token"):
        verifier().verify_connection(hs256({"sub": "42", "channel": "news"}))
    for payload in ({"sub": "42"}, {"sub": "42", "channel": ""}, {"sub": "42", "channel": None}):
        with pytest.raises(TokenInvalid, match="channel claim"):
            verifier().verify_subscription(hs256(payload))
    with pytest.raises(TokenInvalid, match="claim channel "):
        verifier().verify_connection(hs256({"channel": ["news"]}))


@pytest.mark.parametrize("exp", [NOW, NOW - 1, NOW - 0.5, int(NOW) - 3600, 0, -5])
def test_expired(exp: float):
    with pytest.raises(TokenExpired) as caught:
        verifier().verify_connection(signed({"alg": "HS256"}, {"sub": "42", "exp": exp}))
    assert caught.value.expired_at == exp
    with pytest.raises(TokenExpired):
        verifier().verify_subscription(signed({"alg": "HS256"}, {"sub": "42", "channel": "c", "exp": exp}))


def test_expiry_is_of_no_interest_when_the_signature_is_wrong():
    with pytest.raises(TokenInvalid):
        verifier().verify_connection(signed({"alg": "HS256"}, {"exp": 1}, "x" * 32))


def test_expire_at_does_not_prolong_the_token():
    with pytest.raises(TokenExpired):
        verifier().verify_connection(hs256({"exp": NOW - 1, "expire_at": NOW + 100}))


@pytest.mark.parametrize(("nbf", "good"), [(NOW, True), (NOW - 5, True), (NOW + 0.5, False), (NOW + 3600, False)])
def test_not_before(nbf: float, good: bool):
    token = hs256({"sub": "42", "nbf": nbf})
    if good:
        assert verifier().verify_connection(token).user == "42"
    else:
        with pytest.raises(TokenInvalid, match="not valid yet"):
            verifier().verify_connection(token)


def test_leeway():
    section = TokenSettings(hmac_secret_key=Secret(SECRET), leeway=timedelta(seconds=10))
    lenient = verifier(section)
    lenient.verify_connection(hs256({"exp": NOW - 9}))
    lenient.verify_connection(hs256({"nbf": NOW + 10}))
    with pytest.raises(TokenExpired):
        lenient.verify_connection(hs256({"exp": NOW - 10}))
    with pytest.raises(TokenInvalid):
        lenient.verify_connection(hs256({"nbf": NOW + 11}))


def test_audience_and_issuer():
    section = TokenSettings(hmac_secret_key=Secret(SECRET), audience="hub", issuer="me")
    assert verifier(section).verify_connection(hs256({"sub": "42", "aud": ["x", "hub"], "iss": "me"})).user == "42"
    for payload in ({"aud": "hub"}, {"iss": "me"}, {"aud": "hub", "iss": "you"}, {"aud": "hubs", "iss": "me"}):
        with pytest.raises(TokenInvalid, match=r"aud|iss"):
            verifier(section).verify_connection(hs256(payload))


def test_a_wrong_audience_counts_more_than_expiry():
    section = TokenSettings(hmac_secret_key=Secret(SECRET), audience="hub")
    with pytest.raises(TokenInvalid, match="aud"):
        verifier(section).verify_connection(hs256({"aud": "x", "exp": 1}))


def test_the_user_id_from_another_claim():
    section = TokenSettings(hmac_secret_key=Secret(SECRET), user_id_claim="user_id")
    assert verifier(section).verify_connection(hs256({"sub": "no", "user_id": "42"})).user == "42"
    assert verifier(section).verify_subscription(hs256({"user_id": "42", "channel": "c"})).user == "42"
    assert verifier(section).verify_connection(hs256({"sub": "no"})).user == ""
    with pytest.raises(TokenInvalid, match="user_id"):
        verifier(section).verify_connection(hs256({"user_id": 42}))
    usual = TokenSettings(hmac_secret_key=Secret(SECRET), user_id_claim="sub")
    assert verifier(usual).verify_connection(hs256({"sub": "42"})).user == "42"


def test_without_signatures_everyone_is_believed_but_times_and_scope_count():
    gullible = verifier(TokenSettings(audience="hub"), skip_signature=True)
    assert gullible.usable
    head = b64({"alg": "none"})
    assert gullible.verify_connection(f"{head}.{b64({'sub': '42', 'aud': 'hub'})}.").user == "42"
    with pytest.raises(TokenInvalid):
        gullible.verify_connection(f"{head}.{b64({'sub': '42'})}.")
    with pytest.raises(TokenExpired):
        gullible.verify_connection(f"{head}.{b64({'aud': 'hub', 'exp': 1})}.")


def test_binary_claims_only_where_allowed():
    token = hs256({"b64info": "//4="})
    with pytest.raises(TokenInvalid, match="b64info"):
        verifier().verify_connection(token)
    assert verifier(binary=True).verify_connection(token).info == b"\xff\xfe"


# Settings, memory, asynchronous use


@pytest.mark.parametrize(
    ("settings_", "setting"),
    [
        ({"user_id_claim": "user-id"}, "user_id_claim"),
        ({"user_id_claim": "user_id\n"}, "user_id_claim"),
        ({"max_size": 0}, "max_size"),
        ({"leeway": timedelta(seconds=-1)}, "leeway"),
        ({"issuer_regex": "("}, "issuer_regex"),
    ],
)
def test_settings_that_cannot_work_are_named(settings_: dict[str, Any], setting: str):
    with pytest.raises(BadSetting) as caught:
        TokenVerifier(SubscriptionTokenSettings(**settings_), prefix="client.subscription_token")
    assert caught.value.setting == f"client.subscription_token.{setting}"


def test_a_bad_key_is_named():
    with pytest.raises(BadKey):
        verifier(TokenSettings(hmac_secret_key=Secret("short")))


def test_headers_that_strangers_invent_do_not_grow_memory():
    watched = verifier()
    for number in range(MAX_HEADERS * 3):
        with pytest.raises(TokenInvalid):
            watched.verify_connection(signed({"alg": "HS256", "kid": str(number)}, {}, "x" * 32))
    assert len(watched._headers) <= MAX_HEADERS
    assert watched.verify_connection(hs256({"sub": "42"})).user == "42"


async def test_the_asynchronous_way_without_key_sets():
    plain = verifier()
    assert (await plain.connection(hs256({"sub": "42"}))).user == "42"
    assert (await plain.subscription(hs256({"sub": "42", "channel": "c"}))).channel == "c"
    await plain.fetch_keys(hs256({"sub": "42"}))
    with pytest.raises(TokenInvalid):
        await plain.connection("x")
    await plain.aclose()


def test_the_fast_path_does_not_suspend():
    coroutine = verifier().connection(hs256({"sub": "42"}))
    with pytest.raises(StopIteration) as caught:
        coroutine.send(None)
    assert caught.value.value.user == "42"


def test_a_key_set_that_was_never_fetched_is_missing():
    waiting = verifier(TokenSettings(jwks_public_endpoint="http://127.0.0.1:1/keys"))
    assert waiting.usable
    with pytest.raises(KeyMissing) as caught:
        waiting.verify_connection(jwt.encode({}, private_key("RSA"), algorithm="RS256", headers={"kid": "a"}))
    assert (caught.value.url, caught.value.kid) == ("http://127.0.0.1:1/keys", "a")


def test_symmetric_tokens_never_ask_a_key_set():
    waiting = verifier(TokenSettings(jwks_public_endpoint="http://127.0.0.1:1/keys"))
    with pytest.raises(TokenInvalid, match="No key is configured"):
        waiting.verify_connection(hs256({"sub": "42"}, kid="a"))


def test_static_keys_beside_a_key_set_need_no_fetch():
    both = verifier(TokenSettings(jwks_public_endpoint="http://127.0.0.1:1/keys", rsa_public_key=public_pem("RSA")))
    assert both.verify_connection(jwt.encode({"sub": "42"}, private_key("RSA"), algorithm="RS256")).user == "42"
    with pytest.raises(KeyMissing):
        both.verify_connection(jwt.encode({"sub": "42"}, private_key("RSA", 1), algorithm="RS256"))


def test_taking_apart_verifies_nothing():
    parts = take_apart(signed({"alg": "whatever", "kid": "k"}, b"anything", "x"))
    assert (parts.header, parts.payload) == (("whatever", "k"), b"anything")


# Anything at all

TEXT = st.text() | st.text(alphabet='abAB01-_.=+/ {}"\n')
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)
NAMES = "sub exp nbf iat jti iss aud channel expire_at info b64info channels subs meta client data b64data override"
CLAIM = st.sampled_from(NAMES.split(" "))
EVERYONE = TokenVerifier(TokenSettings(**ALL_KEYS, audience_regex="^hub", user_id_claim="user_id"), clock=lambda: NOW)
PLAIN = verifier()


def judge(token: str) -> None:
    for verify in (EVERYONE.verify_connection, PLAIN.verify_connection, PLAIN.verify_subscription):
        try:
            verify(token)
        except AuthError as error:
            assert str(error)


@given(TEXT)
def test_any_text_is_refused_properly(token: str):
    judge(token)


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=100))
def test_any_three_parts_are_refused_properly(header: bytes, payload: bytes, signature: bytes):
    judge(f"{b64(header)}.{b64(payload)}.{b64(signature)}")


@given(st.sampled_from(["HS256", "HS512", "RS256", "ES256", "ES512", "EdDSA"]), st.binary(max_size=300))
def test_any_signature_is_refused_properly(algorithm: str, signature: bytes):
    judge(f"{b64({'alg': algorithm})}.{b64({'sub': 'x'})}.{b64(signature)}")


@settings(max_examples=400)
@given(st.dictionaries(CLAIM | st.text(max_size=10), JSON, max_size=8))
def test_any_signed_claims_are_judged_properly(payload: dict[str, Any]):
    judge(signed({"alg": "HS256"}, payload))


@given(st.binary(max_size=300))
def test_any_signed_bytes_are_judged_properly(payload: bytes):
    judge(signed({"alg": "HS256"}, payload))


@given(st.dictionaries(st.sampled_from(["alg", "kid", "crit", "b64", "typ", "zip", "jwk"]), JSON, max_size=5))
def test_any_header_is_judged_properly(header: dict[str, Any]):
    judge(signed({"alg": "HS256", **header}, {"sub": "42"}))


@given(st.data())
def test_any_mutation_of_a_good_token_is_not_accepted(data: st.DataObject):
    token = hs256({"sub": "42"})
    at = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.characters(codec="ascii").filter(lambda c: c != token[at]))
    with pytest.raises(TokenInvalid):
        PLAIN.verify_connection(token[:at] + character + token[at + 1 :])


@given(st.binary(max_size=100))
def test_base64url_decodes_what_was_encoded(data: bytes):
    assert decode_base64url(b64(data), "part") == data
