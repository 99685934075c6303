from __future__ import annotations

import json
import os
import stat
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from auth.secret import Secret
from hub.first_run import DEMO_CHANNEL, FirstRunError, apply, ensure_secrets, is_demo, prepare_folder
from hub.settings_checks import require_sound
from hub.settings_load import Loaded, from_mapping, load

KEY = "0123456789abcdef0123456789abcdef"


def nothing_configured(folder: Path) -> Loaded:
    return load(None, {}, {"data_dir": ("--data-dir", str(folder))})


def configured(folder: Path, **values: Any) -> Loaded:
    return from_mapping({"data_dir": str(folder), **values})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    first, created, warnings = ensure_secrets(folder)
    assert created
    assert warnings == []
    assert mode(folder) == 0o700
    assert mode(folder / "secrets.json") == 0o600
    assert [path.name for path in folder.iterdir()] == ["secrets.json"]
    assert len(first.token_hmac_secret_key.reveal()) >= 32
    assert first.token_hmac_secret_key != first.api_key
    assert ensure_secrets(folder) == (first, False, [])


def test_a_umask_that_opens_everything_changes_nothing(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ensure_secrets(tmp_path / "d")
    finally:
        os.umask(before)
    assert mode(tmp_path / "d") == 0o700
    assert mode(tmp_path / "d" / "secrets.json") == 0o600


def make(folder: str) -> tuple[str, bool]:
    secrets, created, _ = ensure_secrets(Path(folder))
    return secrets.api_key.reveal(), created


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        for round_number in range(5):
            folder = str(tmp_path / str(round_number))
            results = list(pool.map(make, [folder] * 8))
            assert len({key for key, _ in results}) == 1
            assert sum(created for _, created in results) == 1


def test_an_open_file_is_closed_with_a_warning(tmp_path: Path) -> None:
    first, _, _ = ensure_secrets(tmp_path)
    (tmp_path / "secrets.json").chmod(0o644)
    again, _, warnings = ensure_secrets(tmp_path)
    assert again == first
    assert mode(tmp_path / "secrets.json") == 0o600
    assert len(warnings) == 1
    assert "644" in warnings[0]


@pytest.mark.timeout(30)
def test_r13_secrets_that_are_no_file_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secrets.json")
    with pytest.raises(FirstRunError, match="not a regular file"):
        ensure_secrets(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_r13_secrets_of_another_user_are_refused(tmp_path: Path) -> None:
    ensure_secrets(tmp_path)
    os.chown(tmp_path / "secrets.json", 65534, 65534)
    with pytest.raises(FirstRunError, match="belong to another user"):
        ensure_secrets(tmp_path)


def test_r13_a_folder_that_others_may_write_to_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    folder.chmod(0o777)
    (warning,) = ensure_secrets(folder)[2]
    assert "(mode 777)" in warning
    folder.chmod(0o1777)
    assert ensure_secrets(folder)[2] == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"token_hmac_secret_key": "x", "api_key": "y"}', "[" * 100_000]
)
def test_a_file_that_holds_no_secrets_is_told_and_kept(tmp_path: Path, content: str) -> None:
    (tmp_path / "secrets.json").write_text(content)
    with pytest.raises(FirstRunError, match="remove it to have new ones made"):
        ensure_secrets(tmp_path)
    assert (tmp_path / "secrets.json").read_text() == content


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FirstRunError, match="cannot be written") as caught:
            prepare_folder(folder)
        assert "--data-dir" in str(caught.value)
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(FirstRunError, match="cannot be written"):
            prepare_folder(tmp_path / "closed")


@pytest.mark.parametrize("variable", ["HUB_HTTP_SERVER_PORT", "PORT", "HUB_WORKERS"])
def test_where_and_how_it_runs_is_no_configuration(variable: str) -> None:
    assert is_demo(load(None, {variable: "1"}), None)


@pytest.mark.parametrize("variable", ["HUB_HTTP_API_KEY", "HUB_CLIENT_TOKEN_AUDIENCE", "HUB_STORAGE_URL"])
def test_what_it_is_for_is(variable: str) -> None:
    assert not is_demo(load(None, {variable: "x"}), None)


def test_a_file_is_configuration_even_if_empty(tmp_path: Path) -> None:
    assert not is_demo(load(None, {}), tmp_path / "hub.toml")


def test_a_start_without_settings_works_and_says_how(tmp_path: Path) -> None:
    settings, first_run = apply(nothing_configured(tmp_path), demo=True)
    assert first_run is not None
    secrets = json.loads((tmp_path / "secrets.json").read_text())
    assert settings.http_api.key == Secret(secrets["api_key"])
    assert settings.client.token.hmac_secret_key == Secret(secrets["token_hmac_secret_key"])
    assert settings.client.allow_anonymous_connect_without_token
    assert settings.channel.without_namespace.has_history
    assert {space.name for space in settings.channel.namespaces if space.durable} == {"durable"}
    require_sound(Loaded(settings, {}))
    lines = "\n".join(first_run.lines(settings, "http://127.0.0.1:8000"))
    assert f"X-API-Key: {secrets['api_key']}" in lines
    assert "http://127.0.0.1:8000/api/publish" in lines
    assert f'"channel": "{DEMO_CHANNEL}"' in lines
    assert secrets["token_hmac_secret_key"] not in lines
    assert secrets["api_key"] not in repr(settings)


def test_a_second_start_says_nothing_of_new_secrets(tmp_path: Path) -> None:
    apply(nothing_configured(tmp_path), demo=True)
    settings, first_run = apply(nothing_configured(tmp_path), demo=True)
    assert first_run is not None
    assert not any("Made secrets" in line for line in first_run.lines(settings, "http://x"))


def test_what_is_configured_is_left_alone(tmp_path: Path) -> None:
    loaded = configured(tmp_path / "d", http_api={"key": KEY}, client={"token": {"hmac_secret_key": KEY}})
    assert apply(loaded, demo=False) == (loaded.settings, None)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    "client", [{"token": {"jwks_public_endpoint": "http://127.0.0.1:1/jwks"}}, {"token": {"rsa_public_key": "x"}}]
)
def test_another_kind_of_token_key_is_a_token_key(tmp_path: Path, client: dict[str, Any]) -> None:
    settings, first_run = apply(configured(tmp_path, client=client), demo=False)
    assert first_run is not None
    assert (first_run.token_key, first_run.api_key, first_run.demo) == (False, True, False)
    assert not settings.client.token.hmac_secret_key
    assert settings.http_api.key


@pytest.mark.parametrize("api", [{"key": KEY}, {"keys": [KEY]}, {"insecure": True}, {"disabled": True}])
def test_only_what_is_missing_is_filled_in(tmp_path: Path, api: dict[str, Any]) -> None:
    loaded = configured(tmp_path, http_api=api)
    settings, first_run = apply(loaded, demo=False)
    assert first_run is not None
    assert (first_run.token_key, first_run.api_key) == (True, False)
    assert settings.http_api == loaded.settings.http_api
    assert settings.channel == loaded.settings.channel


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FirstRunError, match="cannot be read"):
        ensure_secrets(tmp_path)
