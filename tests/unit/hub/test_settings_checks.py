from __future__ import annotations

from typing import Any

import pytest

from hub.settings_checks import is_loopback, require_private_or_secure, require_sound
from hub.settings_load import Loaded, SettingsError, from_mapping, load

KEY = "0123456789abcdef0123456789abcdef"


def problems(values: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        require_sound(from_mapping(values, "hub.toml"))
    return caught.value.problems


def public_problems(loaded: Loaded, *, demo: bool = False) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        require_private_or_secure(loaded, demo=demo)
    return caught.value.problems


def test_the_defaults_are_sound_and_may_listen_anywhere() -> None:
    require_sound(load(None, {}))
    require_private_or_secure(load(None, {"HUB_HTTP_SERVER_ADDRESS": "0.0.0.0"}))


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"client": {"pong_timeout": "30s"}}, "client.pong_timeout (hub.toml) is 30s, but must be less than"),
        ({"client": {"concurrency": 4}}, "client.concurrency (hub.toml) is 4, but Hub handles"),
        ({"client": {"allowed_origins": ["example.com"]}}, 'client.allowed_origins (hub.toml) has "example.com"'),
        (
            {"client": {"subscribe_to_user_personal_channel": {"enabled": True, "personal_channel_namespace": "user"}}},
            'is "user", which is not in channel.namespaces',
        ),
        ({"client": {"token": {"hmac_secret_key": "short"}}}, "client.token.hmac_secret_key (hub.toml) is not usable"),
        ({"client": {"token": {"audience_regex": "("}}}, "client.token.audience_regex (hub.toml) is not usable"),
        ({"client": {"token": {"user_id_claim": "a b"}}}, "client.token.user_id_claim (hub.toml) is not usable"),
        (
            {"client": {"subscription_token": {"enabled": True, "rsa_public_key": "x"}}},
            "client.subscription_token.rsa_public_key (hub.toml) is not usable",
        ),
        ({"http_api": {"key": "a b"}}, "http_api.key (hub.toml) is ******, but must be printable ASCII"),
        ({"http_api": {"keys": [""]}}, "http_api.keys[0] (hub.toml) is empty"),
        ({"http_server": {"tls": {"enabled": True}}}, "http_server.tls.cert_pem"),
        ({"drain": {"window": "40s"}}, "drain.timeout is 30s, but must be more than drain.window (40s)."),
        ({"app": "no colon"}, 'app (hub.toml) is "no colon", but must be module:object'),
        ({"engine": {"type": "redis"}}, "the release that runs several nodes"),
        ({"workers": 2}, "workers (hub.toml) is 2, but several need Redis"),
        ({"storage": {"url": "postgresql://u:pw@h/d"}}, "PostgreSQL arrives in a later release"),
        ({"storage": {"url": "mysql://h"}}, "must begin with sqlite:///"),
        ({"storage": {"url": "sqlite:///"}}, "must name a file"),
        ({"tasks": {"broker": "amqp://u:pw@h"}}, "RabbitMQ arrives in a later release"),
        (
            {"channel": {"namespaces": [{"name": "ab", "history_size": 5}]}},
            "channel.namespaces[0].history_size (hub.toml) is set without history_ttl; set both or neither.",
        ),
        ({"channel": {"max_length": 0}}, "channel.max_length (hub.toml) is 0"),
    ],
)
def test_combinations_that_cannot_work(values: dict[str, Any], part: str) -> None:
    (problem,) = problems(values)
    assert part in problem
    assert problem.endswith(".")
    assert "pw" not in problem


@pytest.mark.parametrize(
    ("variable", "value", "way_out"),
    [
        ("DATABASE_URL", "postgres://u:pw@h/d", {"HUB_STORAGE_URL": "sqlite:///x"}),
        ("REDIS_URL", "redis://u:pw@h", {"HUB_ENGINE_TYPE": "memory"}),
        ("AMQP_URL", "amqp://u:pw@h", {"HUB_TASKS_BROKER": "embedded"}),
        ("CLOUDAMQP_URL", "amqp://u:pw@h", {"HUB_TASKS_BROKER": "embedded"}),
    ],
)
def test_what_a_platform_asks_for_is_refused_with_the_way_out(
    variable: str, value: str, way_out: dict[str, str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        require_sound(load(None, {variable: value}))
    (problem,) = caught.value.problems
    assert f"environment variable {variable}" in problem
    assert "unset it" in problem
    assert next(iter(way_out)) in problem
    assert "pw" not in problem
    require_sound(load(None, {variable: value, **way_out}))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.5", False),
        ("hub.example", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"client": {"insecure": True}}, "client.insecure (hub.toml)"),
        (
            {"client": {"insecure_skip_token_signature_verify": True}},
            "client.insecure_skip_token_signature_verify (hub.toml)",
        ),
        ({"http_api": {"insecure": True}}, "http_api.insecure (hub.toml)"),
        ({"client": {"allowed_origins": ["*"], "user_id_http_header": "X-User"}}, "client.allowed_origins (hub.toml)"),
    ],
)
def test_insecure_settings_do_not_listen_in_public(values: dict[str, Any], name: str) -> None:
    require_private_or_secure(from_mapping(values))
    (problem,) = public_problems(from_mapping({**values, "http_server": {"address": "0.0.0.0"}}, "hub.toml"))
    assert problem.startswith('http_server.address (hub.toml) is "0.0.0.0", which others can reach, but ' + name)


def test_each_insecure_setting_is_told() -> None:
    values = {"client": {"insecure": True}, "http_api": {"insecure": True}, "http_server": {"address": "::"}}
    assert len(public_problems(from_mapping(values))) == 2


def test_the_developer_setup_does_not_listen_in_public() -> None:
    (problem,) = public_problems(load(None, {}, {"http_server.address": ("--host", "0.0.0.0")}), demo=True)
    assert "(--host)" in problem
    assert "--config" in problem
    require_private_or_secure(load(None, {}), demo=True)


def test_any_origin_with_tokens_is_no_danger() -> None:
    values = {
        "client": {"allowed_origins": ["*"], "token": {"hmac_secret_key": KEY}},
        "http_server": {"address": "0.0.0.0"},
    }
    require_private_or_secure(from_mapping(values))


@pytest.mark.parametrize("name", ["hmac_secret_key", "hmac_previous_secret_key"])
def test_r23_a_secret_with_a_line_break_at_its_end_is_refused(name: str) -> None:
    values = {"hmac_secret_key": KEY, name: KEY + "\n"}
    (problem,) = problems({"client": {"token": values}})
    assert problem.startswith(f"client.token.{name} (hub.toml) is ******, but must not begin or end with white space")


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite:///x.db?mode=ro"])
def test_r30_a_database_that_is_no_file(url: str) -> None:
    (problem,) = problems({"storage": {"url": url}})
    assert "must name a file" in problem


def test_r25_a_fetch_cannot_take_for_ever() -> None:
    (problem,) = problems({"client": {"token": {"jwks": {"timeout": "61s"}, "jwks_public_endpoint": "http://h/k"}}})
    assert "client.token.jwks.timeout (hub.toml) is not usable: has to be at most 60s." in problem


LEAKY = [
    "postgres://u:S3CR/ETpw@host/db",
    "postgres://u:p@S3CRET@host/db",
    "postgresql://host/db?user=x&password=S3CRET",
    "postgresql:/u:S3CRET@host/db",
    "host=x password=S3CRET",
    "u:S3CRET@host",
    "S3CRET",
    "amqp://u:S3/CRET@host",
    "redis://:S3CRET@h",
]


@pytest.mark.parametrize("value", LEAKY)
@pytest.mark.parametrize(
    "variable",
    ["HUB_STORAGE_URL", "DATABASE_URL", "HUB_TASKS_BROKER", "AMQP_URL", "CLOUDAMQP_URL", "REDIS_URL"],
)
def test_r2_addresses_that_are_refused_are_not_shown(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        require_sound(load(None, {variable: value}))
    assert "S3" not in str(caught.value)
    assert "CRET" not in str(caught.value)


@pytest.mark.parametrize("section", ["token", "subscription_token"])
@pytest.mark.parametrize(
    "value", ["http://u:S3CRET@h/k", "ftp://u:S3CRET@h/k", "http://S3CRET@h/k", "u:S3CRET", "http://h:S3CRET/k"]
)
def test_r2_r3_the_address_of_a_key_set_is_refused_unseen(section: str, value: str) -> None:
    section_values = {"jwks_public_endpoint": value, **({"enabled": True} if section != "token" else {})}
    (problem,) = problems({"client": {section: section_values}})
    assert "jwks_public_endpoint (hub.toml) is not usable" in problem
    assert "S3CRET" not in problem


def test_r2_the_scheme_of_an_address_is_shown() -> None:
    (problem,) = problems({"storage": {"url": "mysql://u:S3CRET@h"}})
    assert problem == 'storage.url (hub.toml) is "mysql://…", but must begin with sqlite:///.'
