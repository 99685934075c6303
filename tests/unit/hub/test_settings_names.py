from __future__ import annotations

import pytest

from hub.settings_load import paths, variable
from hub.settings_names import absent, nearest, sounds_secret, unknown_variable

PATHS = [path for path, _ in paths()]


def test_no_setting_of_ours_is_called_absent() -> None:
    assert [path for path in PATHS if absent(path)] == []


@pytest.mark.parametrize(
    "path",
    [
        "sse",
        "uni_websocket",
        "uni_sse.enabled",
        "http_stream",
        "consumers",
        "grpc_api.port",
        "admin",
        "usage_stats",
        "proxies",
        "client.proxy",
        "channel.proxy.subscribe",
        "channel.without_namespace.subscribe_proxy_enabled",
        "channel.namespaces[3].map",
        "channel.namespaces[0].allow_channel_compaction",
        "http_server.internal_port",
        "http_server.tls_autocert",
        "websocket.handler_prefix",
        "engine.redis.sentinel_address",
        "shutdown.timeout",
        "client.connect_code_to_unidirectional_disconnect",
    ],
)
def test_options_that_only_centrifugo_has(path: str) -> None:
    sentence = absent(path)
    assert sentence
    assert sentence.startswith("is a Centrifugo option that Hub does not have")
    assert "Centrifugo" in unknown_variable(variable(path.replace("[3]", "").replace("[0]", "")), [])


@pytest.mark.parametrize("path", ["ssee", "adminx", "client.proxyy", "prometheus.enabld", "websocket.compresion"])
def test_misspelt_names_are_not_taken_for_options_of_centrifugo(path: str) -> None:
    assert absent(path) is None


def test_the_nearest_name() -> None:
    assert nearest("client.chanel_limit", PATHS) == "client.channel_limit"
    assert nearest("qqqqqqqq", PATHS) == ""


@pytest.mark.parametrize(
    "path", ["http_api.key", "x.password", "client.token.hmac_secret", "api_key", "http_api.keys[0]"]
)
def test_names_that_sound_secret(path: str) -> None:
    assert sounds_secret(path)


@pytest.mark.parametrize("path", ["http_server.port", "client.token.audience", "data_dir"])
def test_names_that_do_not(path: str) -> None:
    assert not sounds_secret(path)
