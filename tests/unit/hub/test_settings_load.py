from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.secret import Secret
from hub.settings import Settings
from hub.settings_load import Loaded, SettingsError, from_mapping, load, paths, variable


def problems(values: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        from_mapping(values, "hub.toml")
    return caught.value.problems


def env_problems(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(None, environ)
    return caught.value.problems


def env(**environ: str) -> Loaded:
    return load(None, environ)


def test_nothing_given_gives_the_defaults() -> None:
    assert load(None, {"PATH": "/bin", "HUBBLE": "1"}).settings == Settings()


def test_a_toml_and_a_json_file_say_the_same(tmp_path: Path) -> None:
    toml, json_file = tmp_path / "hub.toml", tmp_path / "hub.json"
    toml.write_text(
        '[client]\nping_interval = "30s"\n[client.token]\nhmac_secret_key = "x"\n'
        '[[channel.namespaces]]\nname = "chat"\npresence = true\nretention = { size = 5 }\ndurable = true\n'
    )
    json_file.write_text(
        json.dumps(
            {
                "client": {"ping_interval": "30s", "token": {"hmac_secret_key": "x"}},
                "channel": {
                    "namespaces": [{"name": "chat", "presence": True, "retention": {"size": 5}, "durable": True}]
                },
            }
        )
    )
    first, second = load(toml, {}), load(json_file, {})
    assert first.settings == second.settings
    assert first.settings.client.ping_interval == timedelta(seconds=30)
    assert first.settings.client.token.hmac_secret_key == Secret("x")
    (chat,) = first.settings.channel.namespaces
    assert (chat.name, chat.presence, chat.retention.size) == ("chat", True, 5)
    assert first.sources["client.ping_interval"] == "hub.toml"
    assert first.given("channel.namespaces")
    assert first.given("client.token")
    assert not first.given("http_api")


def test_environment_wins_over_the_file_and_arguments_over_both(tmp_path: Path) -> None:
    file = tmp_path / "hub.json"
    file.write_text('{"http_server": {"port": 1, "address": "::1"}, "workers": 1}')
    loaded = load(file, {"HUB_HTTP_SERVER_PORT": "2", "PORT": "3"})
    assert loaded.settings.http_server.port == 2
    assert loaded.settings.http_server.address == "::1"
    assert load(file, {"PORT": "3"}).settings.http_server.port == 3
    given = {"http_server.port": ("--port", "4")}
    loaded = load(file, {"HUB_HTTP_SERVER_PORT": "2"}, given)
    assert loaded.settings.http_server.port == 4
    assert loaded.sources["http_server.port"] == "--port"


def test_every_setting_has_a_variable_of_its_own() -> None:
    names = [variable(path) for path, _ in paths()]
    assert len(names) == len(set(names))
    assert "HUB_CLIENT_TOKEN_HMAC_SECRET_KEY" in names
    assert "HUB_STORAGE_URL" in names


def test_lists_and_objects_in_variables_are_json() -> None:
    loaded = env(
        HUB_CHANNEL_NAMESPACES='[{"name": "chat", "history_size": 5, "history_ttl": "1m"}]',
        HUB_CHANNEL_WITHOUT_NAMESPACE='{"presence": true, "join_leave": true}',
        HUB_CHANNEL_WITHOUT_NAMESPACE_JOIN_LEAVE="false",
        HUB_CLIENT_ALLOWED_ORIGINS="https://a.example https://b.example",
        HUB_HTTP_API_KEYS='["one", "two"]',
    )
    assert loaded.settings.channel.namespaces[0].history_ttl == timedelta(minutes=1)
    assert loaded.settings.channel.without_namespace.presence is True
    assert loaded.settings.channel.without_namespace.join_leave is False, "the more exact variable wins"
    assert loaded.settings.client.allowed_origins == ("https://a.example", "https://b.example")
    assert loaded.settings.http_api.keys == (Secret("one"), Secret("two"))


def test_one_text_stands_for_a_list_of_one() -> None:
    assert from_mapping({"client": {"allowed_origins": "https://a"}}).settings.client.allowed_origins == ("https://a",)


def test_part_of_a_rate_keeps_the_rest_of_its_default() -> None:
    rate_limit = from_mapping({"rate_limit": {"publish": {"rate": 5}}}).settings.rate_limit
    assert rate_limit.publish.rate == 5
    assert rate_limit.publish.burst == Settings().rate_limit.publish.burst


def test_variables_of_platforms() -> None:
    loaded = env(DATABASE_URL="sqlite:///x", PORT="99", REDIS_URL="redis://r", AMQP_URL="amqp://a", CLOUDAMQP_URL="b")
    assert loaded.settings.storage.url == "sqlite:///x"
    assert loaded.settings.http_server.port == 99
    assert loaded.settings.engine.type == "redis"
    assert loaded.settings.engine.redis.address == ("redis://r",)
    assert loaded.settings.tasks.broker == "amqp://a"
    assert env(DATABASE_URL="x", HUB_STORAGE_URL="").settings.storage.url == ""
    assert env(REDIS_URL="redis://r", HUB_ENGINE_TYPE="memory").settings.engine.type == "memory"
    assert env(PORT="").settings.http_server.port == 8000


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"client": {"ping_intervall": "5s"}},
            "client.ping_intervall (hub.toml) is not a setting; did you mean client.ping_interval?",
        ),
        (
            {"token_hmac_secret_key": "x"},
            "token_hmac_secret_key (hub.toml) is not a setting; did you mean client.token.hmac_secret_key?",
        ),
        ({"zzz": 1}, "zzz (hub.toml) is not a setting."),
        ({"http_server": {"port": 70000}}, "http_server.port (hub.toml) is 70000, but must be from 0 to 65535."),
        ({"http_server": {"port": "80"}}, 'http_server.port (hub.toml) is "80", but must be a whole number.'),
        ({"http_server": 3}, "http_server (hub.toml) is 3, but must be an object (a table) of settings."),
        ({"data_dir": {"a": 1}}, "data_dir (hub.toml) is an object, but must be a single value."),
        ({"http_api": {"key": 123456}}, "http_api.key (hub.toml) is ******, but must be text."),
        ({"http_api": {"keys": [5]}}, "http_api.keys[0] (hub.toml) is ******, but must be text."),
        ({"channel": {"namespaces": {"a": 1}}}, "channel.namespaces (hub.toml) is an object, but must be a list."),
        (
            {"channel": {"namespaces": [{"name": "chat", "presense": True}]}},
            "channel.namespaces[0].presense (hub.toml) is not a setting; did you mean channel.namespaces[0].presence?",
        ),
        ({"channel": {"namespaces": [{}]}}, "channel.namespaces[0].name (settings) is missing."),
        (
            {"client": {"ping_interval": 25}},
            'client.ping_interval (hub.toml) is 25, but must be a duration with a unit, as text; for example "25s".',
        ),
        (
            {"rate_limit": {"publish": {"rate": 1, "burst": 0}}},
            "rate_limit.publish (hub.toml): burst has to be at least 1.",
        ),
        ({"sse": {"enabled": True}}, "sse (hub.toml) is a Centrifugo option that Hub does not have yet."),
        (
            {"channel": {"namespaces": [{"name": "ab", "subscribe_proxy_enabled": True}]}},
            "channel.namespaces[0].subscribe_proxy_enabled (hub.toml) is a Centrifugo option that Hub does not have;"
            " handlers are Python functions, see the setting app.",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_told_in_a_sentence(values: dict[str, Any], sentence: str) -> None:
    assert problems(values) == [sentence]


def test_all_that_is_wrong_is_told_at_once() -> None:
    assert len(problems({"workers": 0, "zzz": 1, "client": {"insecure": "yes", "channel_limit": 0}})) == 4


def test_what_is_wrong_in_the_environment_is_told_with_the_variable() -> None:
    assert env_problems(HUB_HTTP_SERVER_PORT="eighty") == [
        'http_server.port (environment variable HUB_HTTP_SERVER_PORT) is "eighty", but must be a whole number.'
    ]
    assert env_problems(HUB_CLIENT_PING_INTERVALL="5s") == [
        "The environment variable HUB_CLIENT_PING_INTERVALL is not a setting; did you mean HUB_CLIENT_PING_INTERVAL?"
    ]
    assert env_problems(HUB_UNI_SSE_ENABLED="1") == [
        "HUB_UNI_SSE_ENABLED is for a Centrifugo option that Hub does not have yet."
    ]
    (sentence,) = env_problems(HUB_CLIENT_TOKEN='{"hmac_secret_key": "very-secret')
    assert "must be JSON" in sentence
    assert "very-secret" not in sentence


def test_no_problem_shows_a_secret() -> None:
    told = "\n".join(
        problems(
            {
                "http_api": {"key": {"a": "s3cret"}, "keys": ["s3cret", ["s3cret"]], "kye": "s3cret"},
                "client": {"token": {"hmac_secret_key": ["s3cret"], "hmac_secret": "s3cret"}, "token_x": "s3cret"},
                "engine": {"redis": {"password": 5, "pasword": "s3cret"}},
                "websocket": "{'key': 's3cret'}",
                "rate_limit": {"publish": "s3cret"},
                "channel": {"namespaces": ["s3cret"]},
            }
        )
    )
    assert "s3cret" not in told


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("hub.yaml", b"a: 1", "must end in .toml or .json"),
        ("hub.json", b'{"a": }', "is not valid JSON"),
        ("hub.toml", b"a = \n", "is not valid TOML"),
        ("hub.json", b"[1]", "must hold an object, not a list"),
        ("hub.json", b"\xff\xfe{}", "is not UTF-8 text"),
        ("hub.json", b'{"workers": 1, "workers": 1}', 'the key "workers" stands twice'),
        ("hub.json", b'{"a":' * 200_000, "nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=sentence):
        load(file, {})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file or directory"):
        load(tmp_path / "hub.toml", {})
    (tmp_path / "dir.toml").mkdir()
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load(tmp_path / "dir.toml", {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
PATHS = [path for path, _ in paths()]


@given(st.lists(st.tuples(st.sampled_from(PATHS), JSON), min_size=1, max_size=6))
def test_any_value_at_any_setting_is_taken_or_told(given: list[tuple[str, Any]]) -> None:
    tree: dict[str, Any] = {}
    for path, value in given:
        *parents, last = path.split(".")
        node = tree
        for name in parents:
            below = node.get(name)
            if not isinstance(below, dict):
                below = node[name] = {}
            node = below
        node[last] = value
    try:
        loaded = from_mapping(tree)
    except SettingsError as error:
        assert error.problems
        assert all("\n" not in problem for problem in error.problems)
    else:
        assert isinstance(loaded.settings, Settings)


@given(st.sampled_from(PATHS), st.text())
def test_any_text_in_any_variable_is_taken_or_told(path: str, text: str) -> None:
    try:
        load(None, {variable(path): text})
    except SettingsError as error:
        assert error.problems


@pytest.mark.parametrize("name", ["HUB_CLIENT_TOKEN_HMAC_SECRET_KEY", "HUB_HTTP_API_KEY", "HUB_HTTP_API_KEYS"])
def test_r17_a_secret_that_did_not_arrive_is_told(name: str) -> None:
    (problem,) = env_problems(**{name: ""})
    assert name in problem
    assert "is there but empty; give it a value or unset it." in problem


def test_r16_the_source_of_an_empty_object_and_the_case_of_a_level() -> None:
    (problem,) = env_problems(HUB_CHANNEL_NAMESPACES="{}")
    assert problem.startswith("channel.namespaces (environment variable HUB_CHANNEL_NAMESPACES) is an object")
    assert env(HUB_CHANNEL="{}").settings == Settings()
    assert env(HUB_LOG_LEVEL="INFO").settings.log.level == "info"


@pytest.mark.parametrize("service", ["HUB", "HUB_EU_1"])
def test_r1_what_kubernetes_and_docker_put_there_for_a_service_named_hub_is_passed_over(service: str) -> None:
    injected = {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "80",
        "SERVICE_PORT_HTTP": "80",
        "PORT": "tcp://10.0.0.1:80",
        "PORT_80_TCP": "tcp://10.0.0.1:80",
        "PORT_80_TCP_ADDR": "10.0.0.1",
        "PORT_80_TCP_PORT": "80",
        "PORT_80_TCP_PROTO": "tcp",
        "PORT_53_UDP": "udp://10.0.0.1:53",
        "NAME": "/web/hub",
        "ENV_PYTHON_VERSION": "3.11",
    }
    assert load(None, {f"{service}_{name}": value for name, value in injected.items()}).settings == Settings()


def test_r1_a_port_that_someone_set_is_refused_with_the_right_name() -> None:
    (problem,) = env_problems(HUB_PORT="9000")
    assert problem == "The environment variable HUB_PORT is not a setting; did you mean HUB_HTTP_SERVER_PORT?"
    assert env_problems(HUB_NAME="a", HUB_ENV_X="b", HUB_PORT_X="tcp://h")
    assert env_problems(HUB_HTTP_SERVER_PORT="tcp://10.0.0.1:80"), "the name of a setting is that setting"


@pytest.mark.parametrize("path", ["storage.url", "tasks.broker", "engine.redis.address"])
def test_r2_an_address_of_the_wrong_type_is_not_shown(path: str) -> None:
    section, _, name = path.rpartition(".")
    (problem,) = problems({section.split(".")[0]: nested(section, {name: "redis://u:S3CRET@h\0"})})
    assert path in problem
    assert '"redis://…"' in problem
    assert "S3CRET" not in problem


def nested(section: str, value: dict[str, Any]) -> dict[str, Any]:
    for name in reversed(section.split(".")[1:]):
        value = {name: value}
    return value
