from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from auth.settings import TokenSettings
from auth.tokens import TokenVerifier
from hub.cli import main
from hub.cli_token import seconds_text
from hub.first_run import FirstRun, ensure_secrets
from hub.settings import Settings
from hub.version import VERSION

ROOT = Path(__file__).resolve().parents[3]
KEY = "0123456789abcdef0123456789abcdef"


def config(folder: Path, values: dict[str, Any]) -> str:
    path = folder / "hub.json"
    path.write_text(json.dumps(values))
    return str(path)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, FirstRun | None]]:
    """What `hub.server.run` was called with; it returns 7 at once. Logging stays pytest's."""
    calls: list[tuple[Settings, FirstRun | None]] = []

    def run(settings: Settings, first_run: FirstRun | None) -> int:
        calls.append((settings, first_run))
        return 7

    server = types.ModuleType("hub.server")
    server.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hub.server", server)
    monkeypatch.setattr("hub.logs.setup", lambda settings: None)
    return calls


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith(f"hub {VERSION} ")


@pytest.mark.parametrize("command", ["serve", "token", "check", "version"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"  hub {command}" in capsys.readouterr().out.partition("example")[2]


@pytest.mark.parametrize("arguments", [[], ["srve"], ["serve", "--nope"], ["token", "--user"]])
def test_wrong_arguments_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: hub" in capsys.readouterr().err


def test_serve_without_settings_is_the_developer_setup(
    tmp_path: Path, served: list[tuple[Settings, FirstRun | None]]
) -> None:
    assert main(["serve", "--data-dir", str(tmp_path), "--port", "0", "--app", "a.b:c"]) == 7
    ((settings, first_run),) = served
    assert first_run is not None
    assert first_run.demo
    assert first_run.created
    assert settings.http_server.port == 0
    assert settings.app == "a.b:c"
    assert settings.http_api.key == ensure_secrets(tmp_path)[0].api_key


def test_serve_with_settings_leaves_them_alone(
    tmp_path: Path, served: list[tuple[Settings, FirstRun | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(tmp_path, {"client": {"token": {"hmac_secret_key": KEY}}, "http_api": {"key": KEY}})
    assert main(["serve", "--config", path, "--host", "0.0.0.0", "--data-dir", str(tmp_path / "d")]) == 7
    monkeypatch.setenv("HUB_CONFIG", path)
    monkeypatch.setenv("HUB_HTTP_SERVER_PORT", "1234")
    assert main(["serve"]) == 7
    assert [first_run for _, first_run in served] == [None, None]
    assert served[0][0].http_server.address == "0.0.0.0"
    assert served[1][0].http_server.port == 1234
    assert not (tmp_path / "d").exists(), "nothing durable, so nothing to write"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--port", "eighty"], 'http_server.port (--port) is "eighty", but must be a whole number.'),
        (["--port", "70000"], 'http_server.port (--port) is "70000", but must be from 0 to 65535.'),
        (["--workers", "2"], "workers (--workers) is 2"),
        (["--app", "nothing"], "must be module:object"),
        (["--config", "/nowhere/hub.toml"], "/nowhere/hub.toml cannot be read"),
        (["--data-dir", "/dev/null/x"], "The data folder /dev/null/x cannot be written"),
        (["--host", "0.0.0.0"], "the developer set-up"),
    ],
)
def test_serve_refuses_in_a_sentence(
    arguments: list[str],
    sentence: str,
    served: list[tuple[Settings, FirstRun | None]],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *arguments]) == 2
    assert served == []
    error = capsys.readouterr().err
    assert sentence in error
    assert all(line.startswith("hub: ") for line in error.splitlines())


def test_a_connection_token_is_what_the_hub_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--data-dir", str(tmp_path)]
    assert main(["token", *folder, "--user", "42", "--ttl", "5m", "--info", '{"n": 1}', "--claim", "meta={}"]) == 0
    token = capsys.readouterr().out.strip()
    verifier = TokenVerifier(TokenSettings(hmac_secret_key=ensure_secrets(tmp_path)[0].token_hmac_secret_key))
    claims = verifier.verify_connection(token)
    assert claims.user == "42"
    assert main(["token", *folder, "--check", token]) == 0
    out = capsys.readouterr().out
    assert out.startswith("valid connection token\nexpires in ")
    assert '"n": 1' in out


def test_a_subscription_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    section = {"enabled": True, "hmac_secret_key": KEY[::-1], "audience": "hub", "issuer": "me", "user_id_claim": "uid"}
    path = config(
        tmp_path,
        {"client": {"token": {"hmac_secret_key": KEY}, "subscription_token": section}, "http_api": {"key": KEY}},
    )
    assert main(["token", "--config", path, "--user", "7", "--channel", "a:#7", "--algorithm", "HS512"]) == 0
    token = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO(token))
    assert main(["token", "--config", path, "--check", "-"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("valid subscription token")
    assert '"aud": "hub"' in out
    assert '"uid": "7"' in out
    assert "HS512" in out


def test_a_token_for_ever(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--data-dir", str(tmp_path), "--ttl", "0s"]) == 0
    token = capsys.readouterr().out.strip()
    assert main(["token", "--data-dir", str(tmp_path), "--check", token]) == 0
    assert "never expires" in capsys.readouterr().out


def test_a_token_that_is_not_accepted_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--data-dir", str(tmp_path / "one"), "--claim", f"exp={int(time.time()) - 60}"]) == 0
    token = capsys.readouterr().out.strip()
    assert main(["token", "--data-dir", str(tmp_path / "one"), "--check", token]) == 1
    out = capsys.readouterr().out
    assert "not accepted: The token has expired." in out
    assert "expired 1m" in out
    assert main(["token", "--data-dir", str(tmp_path / "two"), "--check", token]) == 1
    assert not (tmp_path / "two").exists(), "explaining makes no secrets"
    assert main(["token", "--data-dir", str(tmp_path / "one"), "--check", "nonsense"]) == 1
    assert "not accepted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--ttl", "5"], '--ttl is "5", but must be a duration'),
        (["--claim", "role"], "must be NAME=JSON"),
        (["--claim", "role=admin"], "--claim role must be JSON"),
        (["--info", "{"], "--info must be JSON"),
        (["--algorithm", "RS256"], "cannot sign with RS256"),
        (["--key-file", "/nowhere"], "--key-file /nowhere cannot be read"),
    ],
)
def test_a_token_that_cannot_be_made(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", "--data-dir", str(tmp_path), *arguments]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.out == ""


def test_seconds_as_text() -> None:
    assert seconds_text(59.9) == "59s"
    assert seconds_text(3661) == "1h1m1s"
    assert seconds_text(1e300) == "more than a lifetime"


def test_check_tries_what_the_settings_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(
        tmp_path,
        {
            "data_dir": str(tmp_path / "d"),
            "http_server": {"port": 0},
            "channel": {"namespaces": [{"name": "kept", "durable": True}]},
        },
    )
    assert main(["check", "--config", path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].split(" (")[0] for line in lines] == [
        "ok      settings",
        "ok      data folder",
        "ok      store",
        "ok      port",
    ]


def test_check_tells_what_does_not_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "hub.sqlite3").write_bytes(b"this is no database" * 1000)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        path = config(
            tmp_path,
            {
                "data_dir": str(tmp_path / "d"),
                "http_server": {
                    "port": taken.getsockname()[1],
                    "tls": {"enabled": True, "cert_pem": "/nowhere", "key_pem": "/nowhere"},
                },
                "channel": {"namespaces": [{"name": "kept", "durable": True}]},
                "client": {"token": {"jwks_public_endpoint": "http://127.0.0.1:9/keys"}},
            },
        )
        assert main(["check", "--config", path]) == 1
    out = capsys.readouterr().out
    failed = {line.split(":")[0].removeprefix("failed  ") for line in out.splitlines() if line.startswith("failed")}
    assert failed == {"store", "key set of client.token", "certificate", "port"}


def test_r16_check_tries_the_app_and_the_log_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values: dict[str, Any] = {"http_server": {"port": 0}, "app": "os:nosuch", "log": {"file": "/dev/null/x"}}
    assert main(["check", "--config", config(tmp_path, values)]) == 1
    out = capsys.readouterr().out
    assert "failed  app: app: 'nosuch' in 'os' is not a hub.app.App" in out
    assert "failed  log file: /dev/null/x cannot be written" in out
    values |= {"app": "", "log": {"file": str(tmp_path / "logs" / "hub.log")}}
    assert main(["check", "--config", config(tmp_path, values)]) == 0
    assert "ok      log file" in capsys.readouterr().out
    assert not (tmp_path / "logs" / "hub.log").exists()


def test_check_of_wrong_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", config(tmp_path, {"client": {"pingg": 1}, "workers": "x"})]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_as_a_program_it_shows_no_traceback(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hub", *arguments],
            cwd=ROOT,
            env={**os.environ, "HUB_NONSENSE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = run("serve", "--data-dir", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == "hub: The environment variable HUB_NONSENSE is not a setting.\n"
    assert run("version").returncode == 0
