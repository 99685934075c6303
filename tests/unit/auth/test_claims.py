from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth import claims
from auth.claims import ConnectionClaims, Overrides, SubscriptionGrant, compact
from auth.errors import TokenInvalid


def connection(payload: bytes | dict[str, object], *, binary: bool = False) -> ConnectionClaims:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return claims.connection_claims(claims.decode(data, claims.CONNECTION), user="u", binary=binary)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (b'{"a" : 1.0,\n "b": [ 1 , 2 ]}', b'{"a":1.0,"b":[1,2]}'),
        (b'"a b\\n\\"  c"', b'"a b\\n\\"  c"'),
        (b'{"b":1,"a":2,"b":3}', b'{"b":1,"a":2,"b":3}'),
        (b"123456789012345678901234567890", b"123456789012345678901234567890"),
        (b'["\\ud83d\\ude00 x", 1e400]', b'["\\ud83d\\ude00 x",1e400]'),
        (b"null", b""),
        (b"", b""),
        (b"false", b"false"),
        ('{"ü": "\\\\ "}'.encode(), '{"ü":"\\\\ "}'.encode()),
    ],
)
def test_custom_json_is_kept_as_written_without_white_space(written: bytes, kept: bytes):
    assert compact(written) == kept
    assert connection(b'{"info":' + (written or b"null") + b"}").info == kept


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_compacting_changes_no_value(value: object):
    written = json.dumps(value, indent=3).encode()
    kept = compact(written)
    assert b"\n" not in kept
    assert json.loads(kept or b"null") == value


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ({"sub": 1}, "claim sub .*expected str, got int"),
        ({"exp": "soon"}, "claim exp "),
        ({"exp": True}, "claim exp "),
        ({"iat": []}, "claim iat "),
        ({"jti": 5}, "claim jti "),
        ({"aud": 5}, "claim aud "),
        ({"aud": ["a", 5]}, "claim aud"),
        ({"iss": {}}, "claim iss "),
        ({"channels": "news"}, "claim channels "),
        ({"channels": [1]}, "claim channels"),
        ({"subs": []}, "claim subs "),
        ({"subs": {"SECRET": 1}}, "claim subs"),
        ({"subs": {"SECRET": {"override": {"presence": True}}}}, "claim subs.*presence"),
        ({"subs": {"SECRET": {"override": {"presence": {"value": "SECRET"}}}}}, "claim subs.*presence.value"),
        ({"subs": {"SECRET": {"b64data": "SECRET!"}}}, "b64data is not base64"),
        ({"b64info": "a"}, "b64info is not base64"),
        ({"b64info": "é"}, "b64info is not base64"),
        ({"b64info": "U0VDUkVU"}, "b64info does not hold JSON"),
        ({"expire_at": "x"}, "claim expire_at "),
        ({"expire_at": 1e300}, "expire_at is out of range"),
        ({"exp": 1e300}, "exp is out of range"),
        ({"iat": -1e300}, "iat is out of range"),
        (b'{"exp":1e400}', "claim exp"),
        (b"[]", "not a JSON object"),
        (b'"SECRET"', "not a JSON object"),
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"info":}', "not valid JSON"),
        (b'{"info":"\xff"}', "not valid JSON"),
        (b'{"info":NaN}', "not valid JSON"),
        (b'{"info":' + b"[" * 100_000, "too deeply"),
    ],
)
def test_what_is_wrong_is_named_without_being_repeated(payload: bytes | dict[str, object], problem: str):
    with pytest.raises(TokenInvalid, match=problem) as caught:
        connection(payload)
    assert "SECRET" not in caught.value.reason
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_null_is_the_same_as_nothing():
    names = [
        "sub",
        "exp",
        "iat",
        "jti",
        "aud",
        "iss",
        "channel",
        "expire_at",
        "info",
        "b64info",
        "channels",
        "subs",
        "meta",
    ]
    assert connection(dict.fromkeys(names)) == connection({})
    assert connection({"subs": {"a": None}}).subs == {"a": SubscriptionGrant()}


def test_of_repeated_claims_the_last_counts():
    assert connection(b'{"info":1,"info":2,"exp":5,"exp":7}').info == b"2"
    assert connection(b'{"exp":5,"exp":7}').expire_at == 7
    assert claims.user_of(b'{"who":"a","who":"b"}', "who") == "b"


@pytest.mark.parametrize(
    ("payload", "expire_at"),
    [
        ({}, 0),
        ({"exp": 100}, 100),
        ({"exp": 100.9}, 100),
        ({"exp": 100, "expire_at": 50}, 50),
        ({"exp": 100, "expire_at": 0}, 0),
        ({"exp": 100, "expire_at": -5}, 0),
        ({"exp": 100, "expire_at": None}, 100),
        ({"expire_at": 70.5}, 70),
    ],
)
def test_expire_at_overrides_exp(payload: dict[str, object], expire_at: int):
    assert connection(payload).expire_at == expire_at


def test_base64_claims_win_and_hold_json():
    assert connection({"info": 1, "b64info": "eyJhIjogMX0="}).info == b'{"a":1}'
    assert connection({"info": 1, "b64info": ""}).info == b"1"
    grant = connection({"subs": {"c": {"data": 1, "b64data": "Mg=="}}}).subs["c"]
    assert grant.data == b"2"


def test_binary_claims_where_allowed():
    assert connection({"b64info": "//4A"}, binary=True).info == b"\xff\xfe\x00"


def test_overrides():
    override = {
        "presence": {"value": True},
        "join_leave": {"value": False},
        "force_push_join_leave": {},
        "force_positioning": None,
        "unknown": {"value": 1},
    }
    assert connection({"subs": {"c": {"override": override}}}).subs["c"].overrides == Overrides(
        presence=True, join_leave=False, force_push_join_leave=False, force_positioning=None, force_recovery=None
    )


def test_channels_are_the_grants_only_without_subs():
    assert connection({"channels": ["a", "b", "a"]}).channels == ("a", "b")
    assert dict(connection({"channels": ["a", "b"]}).grants) == {"a": SubscriptionGrant(), "b": SubscriptionGrant()}
    both = connection({"channels": ["a"], "subs": {"c": {"data": {"x": 1}}}})
    assert dict(both.grants) == {"c": SubscriptionGrant(data=b'{"x":1}')}
    assert dict(connection({}).grants) == {}


def test_meta_and_identifiers():
    made = connection({"meta": {"a": [1, 2]}, "iat": 17.5, "jti": "id-1"})
    assert (made.meta, made.issued_at, made.token_id) == (b'{"a":[1,2]}', 17, "id-1")


@pytest.mark.parametrize(
    ("payload", "user"), [(b"{}", ""), (b'{"who":null}', ""), (b'{"who":"u"}', "u"), (b'{"who":""}', "")]
)
def test_the_user_from_another_claim(payload: bytes, user: str):
    assert claims.user_of(payload, "who") == user


def test_the_user_from_another_claim_has_to_be_a_string():
    with pytest.raises(TokenInvalid, match="claim who"):
        claims.user_of(b'{"who":5}', "who")
