"""What an operator may give wrongly: one clear sentence, the right exit code, no traceback, and nothing lost."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.wire import http
from tests.support.hub_config import TOKEN_SECRET, default_config
from tests.support.hub_process import ROOT, HubProcess, free_port

SETTINGS_WRONG = 2
NOT_STARTED = 1


def serve(*arguments: str, env: dict[str, str] | None = None, within: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run `hub serve` that is expected to refuse."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HUB_") and name != "PORT"}
    return subprocess.run(
        [sys.executable, "-m", "hub", *arguments],
        cwd=ROOT,
        env=inherited | (env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )


def says(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The refusal is short, has the words that help and no traceback."""
    text = result.stdout + result.stderr
    assert result.returncode == code, text
    assert "Traceback" not in text, text
    assert len([line for line in result.stderr.splitlines() if line.strip()]) <= 3, text
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


BAD_SETTINGS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "unknown key": ({"http_servr": {"port": 1}}, ("http_servr", "http_server")),
    "unknown nested key": ({"client": {"ping_intervall": "1s"}}, ("client.ping_intervall", "ping_interval")),
    "unknown namespace option": (
        {"channel": {"namespaces": [{"name": "aa", "presense": True}]}},
        ("presense", "presence"),
    ),
    "number as text": ({"http_server": {"port": "eight"}}, ("http_server.port", "eight")),
    "port out of range": ({"http_server": {"port": 70000}}, ("http_server.port", "70000", "65535")),
    "negative": ({"client": {"channel_limit": -1}}, ("client.channel_limit", "-1")),
    "fraction": ({"client": {"channel_limit": 1.5}}, ("client.channel_limit", "1.5")),
    "true as text": ({"client": {"insecure": "yes"}}, ("client.insecure", "true or false")),
    "duration without a unit": ({"client": {"ping_interval": "25"}}, ("client.ping_interval", "25s")),
    "duration as a number": ({"client": {"ping_interval": 25}}, ("client.ping_interval", "25s")),
    "duration of a strange unit": (
        {"client": {"ping_interval": "3 fortnights"}},
        ("client.ping_interval", "fortnights"),
    ),
    "list where a value is due": ({"http_server": {"port": [1]}}, ("http_server.port",)),
    "value where an object is due": ({"http_server": 8000}, ("http_server",)),
    "value where a list is due": ({"channel": {"namespaces": {"name": "aa"}}}, ("channel.namespaces",)),
    "null": ({"http_server": {"port": None}}, ("http_server.port", "null")),
    "huge number": ({"client": {"channel_limit": 10**40, "queue_max_size": -(10**40)}}, ("client.queue_max_size",)),
    "namespace without a name": ({"channel": {"namespaces": [{"presence": True}]}}, ("channel.namespaces", "name")),
    "namespace name too short": ({"channel": {"namespaces": [{"name": "a"}]}}, ("channel.namespaces",)),
    "namespace name of strange letters": ({"channel": {"namespaces": [{"name": "a:b"}]}}, ("a:b",)),
    "namespace twice": ({"channel": {"namespaces": [{"name": "aa"}, {"name": "aa"}]}}, ("aa",)),
    "history size without ttl": (
        {"channel": {"namespaces": [{"name": "aa", "history_size": 5}]}},
        ("history_size", "history_ttl"),
    ),
    "recovery without history": (
        {"channel": {"namespaces": [{"name": "aa", "force_recovery": True}]}},
        ("force_recovery",),
    ),
    "two kinds of history": (
        {"channel": {"namespaces": [{"name": "aa", "durable": True, "history_size": 5, "history_ttl": "5s"}]}},
        ("durable",),
    ),
    "bad regular expression": (
        {"channel": {"namespaces": [{"name": "aa", "channel_regex": "(["}]}},
        ("channel_regex",),
    ),
    "unknown delta": (
        {"channel": {"namespaces": [{"name": "aa", "allowed_delta_types": ["xor"]}]}},
        ("allowed_delta_types", "xor"),
    ),
    "secret too short": ({"client": {"token": {"hmac_secret_key": "short-secret"}}}, ("hmac_secret_key", "32")),
    "key that is none": ({"client": {"token": {"rsa_public_key": "not a PEM"}}}, ("rsa_public_key",)),
    "bad origin": ({"client": {"allowed_origins": ["example.com"]}}, ("allowed_origins", "example.com")),
    "unknown engine": ({"engine": {"type": "kafka"}}, ("engine.type", "kafka", "memory")),
    "unknown store": ({"storage": {"url": "mysql://127.0.0.1/x"}}, ("storage.url",)),
    "rate without a burst": ({"rate_limit": {"publish": {"rate": 5, "burst": 0}}}, ("rate_limit.publish",)),
    "negative rate": ({"rate_limit": {"bytes": {"rate": -1, "burst": 5}}}, ("rate_limit.bytes",)),
    "key with a space": ({"http_api": {"key": "two words"}}, ("http_api.key",)),
    "public address without security": (
        {"http_server": {"address": "0.0.0.0"}, "client": {"insecure": True}},
        ("insecure",),
    ),
    "app that is none": ({"app": "no-colon"}, ("app",)),
    "NUL in a path": ({"data_dir": "a\0b"}, ("data_dir", "NUL")),
    "half a surrogate": ({"node": {"name": "\ud800"}, "x\ud800": 1}, ("not a setting",)),
}


@pytest.mark.parametrize("name", list(BAD_SETTINGS))
def test_bad_settings_exit_2_with_a_sentence(tmp_path: Path, name: str) -> None:
    settings, words = BAD_SETTINGS[name]
    file = tmp_path / "hub.json"
    file.write_text(json.dumps(settings))
    says(serve("check", "--config", str(file)), SETTINGS_WRONG, *words)


def test_serve_refuses_bad_settings_before_it_touches_anything(tmp_path: Path) -> None:
    file = tmp_path / "hub.json"
    file.write_text(json.dumps({"http_server": {"port": 70000}}))
    says(
        serve("serve", "--config", str(file), "--data-dir", str(tmp_path / "data")), SETTINGS_WRONG, "http_server.port"
    )
    assert not (tmp_path / "data").exists()


def test_a_secret_is_not_in_the_message(tmp_path: Path) -> None:
    file = tmp_path / "hub.json"
    secret = "tooshort-but-secret"
    file.write_text(json.dumps({"client": {"token": {"hmac_secret_key": secret}}, "http_api": {"key": secret + " x"}}))
    result = serve("check", "--config", str(file))
    assert result.returncode == SETTINGS_WRONG
    assert secret not in result.stdout + result.stderr


FILES: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
    "JSON cut off": ("a.json", b'{"http_server": {', ("a.json", "JSON")),
    "JSON with a key twice": ("a.json", b'{"workers": 1, "workers": 2}', ("a.json", "workers")),
    "JSON list": ("a.json", b"[]", ("a.json",)),
    "JSON nested deeply": ("a.json", b'{"a":' * 100_000, ("a.json", "nested")),
    "JSON number of 5000 digits": ("a.json", b'{"workers": ' + b"9" * 5000 + b"}", ("a.json",)),
    "TOML broken": ("a.toml", b"[http_server\nport = 1", ("a.toml", "TOML")),
    "TOML key twice": ("a.toml", b"workers = 1\nworkers = 2\n", ("a.toml",)),
    "TOML with a date": ("a.toml", b"workers = 2020-01-01\n", ("workers",)),
    "TOML with NaN": ("a.toml", b"[rate_limit.publish]\nrate = nan\nburst = 1\n", ("rate_limit.publish",)),
    "not UTF-8": ("a.json", b'{"node": {"name": "\xff"}}', ("a.json", "UTF-8")),
    "binary": ("a.toml", bytes(range(256)), ("a.toml",)),
    "unknown suffix": ("a.yaml", b"workers: 1", ("a.yaml", ".toml", ".json")),
}


@pytest.mark.parametrize("name", list(FILES))
def test_bad_settings_files(tmp_path: Path, name: str) -> None:
    file, content, words = FILES[name]
    (tmp_path / file).write_bytes(content)
    says(serve("check", "--config", str(tmp_path / file)), SETTINGS_WRONG, *words)


def test_a_settings_file_that_is_missing_or_a_folder(tmp_path: Path) -> None:
    says(serve("check", "--config", str(tmp_path / "none.json")), SETTINGS_WRONG, "none.json")
    (tmp_path / "folder.json").mkdir()
    says(serve("check", "--config", str(tmp_path / "folder.json")), SETTINGS_WRONG, "folder.json")


VARIABLES: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "unknown": ({"HUB_HTTP_SERVER_PROT": "1"}, ("HUB_HTTP_SERVER_PROT", "HUB_HTTP_SERVER_PORT")),
    "number": ({"HUB_HTTP_SERVER_PORT": "abc"}, ("HUB_HTTP_SERVER_PORT", "abc")),
    "port of the platform": ({"PORT": "http"}, ("PORT", "http")),
    "list that is no JSON": ({"HUB_CHANNEL_NAMESPACES": "[{"}, ("HUB_CHANNEL_NAMESPACES", "JSON")),
    "list nested deeply": ({"HUB_CHANNEL_NAMESPACES": "[" * 50_000}, ("HUB_CHANNEL_NAMESPACES",)),
    "duration": ({"HUB_CLIENT_PING_INTERVAL": "soon"}, ("HUB_CLIENT_PING_INTERVAL", "soon")),
    "empty number": ({"HUB_CLIENT_CHANNEL_LIMIT": ""}, ("HUB_CLIENT_CHANNEL_LIMIT",)),
}


@pytest.mark.parametrize("name", list(VARIABLES))
def test_bad_environment_variables(name: str) -> None:
    variables, words = VARIABLES[name]
    says(serve("check", env=variables), SETTINGS_WRONG, *words)


ARGUMENTS: dict[str, tuple[str, ...]] = {
    "unknown command": ("explode",),
    "unknown argument": ("serve", "--prot", "1"),
    "port as a word": ("serve", "--port", "http"),
    "port out of range": ("serve", "--port", "70000"),
    "argument without a value": ("serve", "--port"),
}


@pytest.mark.parametrize("name", list(ARGUMENTS))
def test_bad_arguments(name: str) -> None:
    result = serve(*ARGUMENTS[name])
    assert result.returncode == SETTINGS_WRONG, result
    assert "Traceback" not in result.stderr
    assert result.stderr.strip()


def test_an_app_that_cannot_be_imported(tmp_path: Path) -> None:
    result = serve(
        "serve", "--app", "no_such_module:app", "--data-dir", str(tmp_path / "data"), "--port", str(free_port())
    )
    says(result, SETTINGS_WRONG, "no_such_module")


# What the machine does not give


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "hub.json"
    file.write_text(json.dumps(default_config()))
    return file


def start(config: Path, data: Path, port: int | None = None) -> subprocess.CompletedProcess[str]:
    return serve("serve", "--config", str(config), "--data-dir", str(data), "--port", str(port or free_port()))


def test_a_data_folder_that_cannot_be_made(tmp_path: Path, config: Path) -> None:
    """Below a regular file nobody can make a folder, root neither."""
    (tmp_path / "file").write_text("precious")
    result = start(config, tmp_path / "file" / "data")
    says(result, result.returncode, str(tmp_path / "file"))
    assert result.returncode in (NOT_STARTED, SETTINGS_WRONG)
    assert (tmp_path / "file").read_text() == "precious"


def test_a_data_folder_that_is_a_file(tmp_path: Path, config: Path) -> None:
    (tmp_path / "file").write_text("precious")
    result = start(config, tmp_path / "file")
    says(result, result.returncode, str(tmp_path / "file"))
    assert result.returncode in (NOT_STARTED, SETTINGS_WRONG)
    assert (tmp_path / "file").read_text() == "precious"


def test_a_port_in_use(tmp_path: Path, config: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = start(config, tmp_path / "data", port)
    says(result, result.returncode, str(port))
    assert result.returncode in (NOT_STARTED, SETTINGS_WRONG)


CORRUPT: dict[str, bytes] = {
    "no database": b"this is not a database, but it is precious" * 200,
    "a header and then rubbish": b"SQLite format 3\x00" + b"\xde\xad\xbe\xef" * 4096,
    "a header alone": b"SQLite format 3\x00",
}


@pytest.mark.parametrize("name", list(CORRUPT))
def test_a_database_that_is_none(tmp_path: Path, config: Path, name: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    file = data / "hub.sqlite3"
    file.write_bytes(CORRUPT[name])
    result = start(config, data)
    says(result, result.returncode, "hub.sqlite3")
    assert result.returncode in (NOT_STARTED, SETTINGS_WRONG)
    assert file.read_bytes() == CORRUPT[name], "the file was touched"


def test_a_database_of_somebody_else(tmp_path: Path, config: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with sqlite3.connect(data / "hub.sqlite3") as database:
        database.execute("CREATE TABLE precious (x)")
        database.execute("INSERT INTO precious VALUES (1)")
    database.close()
    result = start(config, data)
    says(result, result.returncode, "hub.sqlite3")
    assert result.returncode in (NOT_STARTED, SETTINGS_WRONG)
    with sqlite3.connect(data / "hub.sqlite3") as database:
        assert database.execute("SELECT x FROM precious").fetchall() == [(1,)]
    database.close()


@pytest.fixture
def hub() -> Iterator[HubProcess]:
    with HubProcess() as process:
        yield process


def publish(hub: HubProcess, count: int) -> None:
    for number in range(count):
        answer = hub.api("publish", {"channel": "durable:kept", "data": {"n": number}})
        assert "result" in answer, answer


def kept(hub: HubProcess) -> list[int]:
    answer = hub.api("history", {"channel": "durable:kept", "limit": -1})
    return [publication["data"]["n"] for publication in answer["result"]["publications"]]


def test_a_second_hub_on_the_same_data_folder(hub: HubProcess) -> None:
    publish(hub, 20)
    result = start(hub.config_path, hub.data_dir)
    says(result, result.returncode, str(hub.data_dir))
    assert result.returncode in (NOT_STARTED, SETTINGS_WRONG)
    publish(hub, 1)
    assert kept(hub) == [*range(20), 0]


def test_a_second_hub_on_the_same_port_and_folder(hub: HubProcess) -> None:
    """The usual accident: started twice. The first goes on as if nothing had been."""
    publish(hub, 5)
    result = start(hub.config_path, hub.data_dir, hub.port)
    assert result.returncode in (NOT_STARTED, SETTINGS_WRONG)
    assert "Traceback" not in result.stderr
    assert kept(hub) == list(range(5))
    assert asyncio.run(http(hub.port, "GET", "/health"))[0] == 200


def test_a_database_damaged_in_the_middle_is_not_made_worse(hub: HubProcess) -> None:
    """Pages overwritten while the hub was away: it starts or refuses, but says so and never begins anew in silence."""
    publish(hub, 200)
    hub.terminate()
    file = hub.data_dir / "hub.sqlite3"
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    content = bytearray(file.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8192] = b"\xff" * 8192
    file.write_bytes(content)
    result = start(hub.config_path, hub.data_dir)
    says(result, result.returncode, "hub.sqlite3")
    assert result.returncode in (NOT_STARTED, SETTINGS_WRONG)


def test_no_secret_of_the_settings_is_in_the_log(hub: HubProcess) -> None:
    publish(hub, 1)
    hub.terminate()
    log = hub.log()
    assert TOKEN_SECRET not in log
    assert hub.api_key not in log
