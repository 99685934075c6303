from __future__ import annotations

import re

import pytest

from auth.errors import BadSetting, TokenInvalid
from auth.scope import MAX_AUDIENCES, Scope
from auth.settings import TokenSettings

ENDPOINT = "https://idp.example/{{tenant}}/keys"


def scope(**settings: object) -> Scope:
    return Scope(TokenSettings(**settings))


def test_nothing_configured_checks_nothing():
    assert scope().check("anyone", ["anything"]) == {}
    assert scope().check(None, None) == {}


@pytest.mark.parametrize("audience", ["hub", ["hub"], ["other", "hub"]])
def test_the_audience_may_be_one_of_several(audience: object):
    scope(audience="hub").check(None, audience)


@pytest.mark.parametrize("audience", [None, "", "Hub", "hub2", [], ["other"], ["hub"] * (MAX_AUDIENCES + 1)])
def test_another_audience_is_refused(audience: object):
    with pytest.raises(TokenInvalid, match="aud"):
        scope(audience="hub").check(None, audience)


@pytest.mark.parametrize("issuer", [None, "", "https://idp", "https://idp/ "])
def test_another_issuer_is_refused(issuer: str | None):
    scope(issuer="https://idp/").check("https://idp/", None)
    with pytest.raises(TokenInvalid, match="iss"):
        scope(issuer="https://idp/").check(issuer, None)


def test_regular_expressions_name_groups():
    rules = scope(issuer_regex=r"^https://(?P<tenant>\w+)\.example$", audience_regex="^hub-(?P<zone>[a-z]+)$")
    assert rules.check("https://blue.example", ["x", "hub-eu"]) == {"tenant": "blue", "zone": "eu"}
    for issuer, audience in (("https://blue.example\n", "hub-eu"), ("https://x.y.example", "hub-eu"), (None, "hub-eu")):
        with pytest.raises(TokenInvalid):
            rules.check(issuer, audience)
    with pytest.raises(TokenInvalid):
        rules.check("https://blue.example", [])


def test_a_long_value_is_not_given_to_a_regular_expression():
    with pytest.raises(TokenInvalid):
        scope(issuer_regex="^a*$").check("a" * 2000, None)


def test_the_spelling_of_groups_that_go_has():
    assert scope(issuer_regex="^(?<who>a|b)$").check("a", None) == {"who": "a"}
    assert scope(issuer_regex="^(?<!x)a$").check("a", None) == {}


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"audience": "a", "audience_regex": "a"}, "audience_regex"),
        ({"issuer": "a", "issuer_regex": "a"}, "issuer_regex"),
        ({"issuer_regex": "("}, "issuer_regex"),
        ({"audience_regex": "[z-a]"}, "audience_regex"),
        ({"jwks_public_endpoint": "idp.example/keys"}, "jwks_public_endpoint"),
        ({"jwks_public_endpoint": "file:///etc/passwd"}, "jwks_public_endpoint"),
        ({"jwks_public_endpoint": "ftp://idp/keys"}, "jwks_public_endpoint"),
        ({"jwks_public_endpoint": "https://"}, "jwks_public_endpoint"),
        ({"jwks_public_endpoint": "https://idp:x/"}, "jwks_public_endpoint"),
        ({"jwks_public_endpoint": "https://idp/a b"}, "jwks_public_endpoint"),
        ({"jwks_public_endpoint": ENDPOINT}, "jwks_public_endpoint"),
        ({"jwks_public_endpoint": ENDPOINT, "issuer_regex": "(?P<other>a)"}, "jwks_public_endpoint"),
        (
            {"jwks_public_endpoint": ENDPOINT, "issuer_regex": "(?P<tenant>a)", "audience_regex": "(?P<tenant>a)"},
            "jwks_public_endpoint",
        ),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, str], setting: str):
    with pytest.raises(BadSetting) as caught:
        scope(**settings)
    assert caught.value.setting == f"client.token.{setting}"


@pytest.mark.parametrize("group", ["a", "a|b", r"a\.example|b\.example", "blue-1|green_2", "a|b~c"])
def test_a_group_in_the_address_may_be_a_list_of_values(group: str):
    assert scope(jwks_public_endpoint=ENDPOINT, issuer_regex=rf"^x(?P<tenant>{group})$").templated


@pytest.mark.parametrize(
    "group", [".*", "a.b", "[a-z]+", r"\w+", "a+", "a?", "a{1,3}", "(a|b)", "(?:a|.*)", "a|", "", r"a\)", "^a"]
)
def test_a_group_in_the_address_must_not_be_wider(group: str):
    """CVE-2026-32301 of Centrifugo: a forged token chose where its own key would be fetched from."""
    with pytest.raises(BadSetting, match="tenant") as caught:
        scope(jwks_public_endpoint=ENDPOINT, issuer_regex=rf"^(?P<tenant>{group})$")
    assert caught.value.setting == "client.token.issuer_regex"
    settings = {"jwks_public_endpoint": ENDPOINT, "issuer_regex": rf"^(?P<tenant>{group})$"}
    assert scope(**settings, insecure_skip_jwks_endpoint_safety_check=True).templated


def test_the_address_is_made_from_quoted_groups():
    rules = scope(
        jwks_public_endpoint="https://{{zone}}.idp.example/{{tenant}}/{{zone}}",
        issuer_regex="^(?P<tenant>.*)$",
        audience_regex="^(?P<zone>eu|us)$",
        insecure_skip_jwks_endpoint_safety_check=True,
    )
    assert rules.resolve(rules.check("a/../b?c#d@e", "eu")) == "https://eu.idp.example/a%2F..%2Fb%3Fc%23d%40e/eu"
    for issuer in ("", ".", ".."):
        with pytest.raises(TokenInvalid):
            rules.resolve(rules.check(issuer, "eu"))


def test_a_group_that_took_no_part_gives_no_address():
    rules = scope(jwks_public_endpoint=ENDPOINT, issuer_regex="^x(?P<tenant>a|b)?$")
    with pytest.raises(TokenInvalid):
        rules.resolve(rules.check("x", None))


def test_a_plain_address_needs_no_groups():
    rules = scope(jwks_public_endpoint="https://idp.example/keys")
    assert not rules.templated
    assert rules.resolve({}) == rules.endpoint == "https://idp.example/keys"


def test_no_refusal_repeats_the_token():
    rules = scope(issuer_regex="^a$", audience="b")
    for issuer, audience in (("SECRET", "b"), ("a", "SECRET")):
        with pytest.raises(TokenInvalid) as caught:
            rules.check(issuer, audience)
        assert not re.search("SECRET", str(caught.value))
