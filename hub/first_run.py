"""A start without settings: secrets made once, a channel set-up to try things with, and what to copy.

The secrets live in ``secrets.json`` in the data folder, readable by its owner only. They stand in for a token key and
an API key that are not configured; a configured one always wins. Two hubs that start at the same time agree on one file.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from auth.secret import Secret
from channels.namespaces import ChannelOptions, ChannelSettings, Namespace
from hub.settings import Settings
from hub.settings_load import Loaded

DEMO_CHANNEL = "news"
SECRETS_FILE = "secrets.json"
LARGEST_FILE = 65536
_FIELDS = ("token_hmac_secret_key", "api_key")

# Settings of where and how the hub runs; with only these it is still a start without settings.
_ABOUT_THE_PROCESS = ("http_server.address", "http_server.port", "log", "data_dir", "workers", "drain", "node", "app")

_DEMO_OPTIONS: Mapping[str, bool] = {
    "presence": True,
    "join_leave": True,
    "force_push_join_leave": True,
    "force_recovery": True,
    "allow_subscribe_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "allow_publish_for_subscriber": True,
    "allow_presence_for_client": True,
    "allow_presence_for_anonymous": True,
    "allow_history_for_client": True,
    "allow_history_for_anonymous": True,
}


class FirstRunError(Exception):
    """The data folder or the secrets in it cannot be used; the text is a sentence for a person."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What ``secrets.json`` holds."""

    token_hmac_secret_key: Secret
    api_key: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRun:
    """What a start without (complete) settings has put in place."""

    data_dir: Path
    created: bool
    """The secrets were made by this start."""
    demo: bool
    """There are no settings at all: the developer set-up is in use, and the page may be shown at ``/``."""
    token_key: bool
    """The token key is the one of ``secrets.json``."""
    api_key: bool
    """The API key is the one of ``secrets.json``."""
    warnings: tuple[str, ...] = ()
    """Sentences for the log."""

    def lines(self, settings: Settings, url: str) -> list[str]:
        """What to print when the hub serves at ``url`` (no slash at its end); the only place that shows the key."""
        lines = []
        if self.created:
            lines.append(f"Made secrets for tokens and the API in {self.data_dir / SECRETS_FILE}.")
        if not self.demo:
            return lines
        key = settings.http_api.key.reveal()
        folder = "" if self.data_dir == Settings().data_dir else f" --data-dir {shlex.quote(str(self.data_dir))}"
        body = json.dumps({"channel": DEMO_CHANNEL, "data": {"text": "hello"}})
        return [
            *lines,
            "",
            f"  See it live:   {url}/",
            "  Publish:       " + f"curl -H 'X-API-Key: {key}' -d '{body}' {url}/api/publish",
            f"  Make a token:  .venv/bin/python -m hub token --user 42{folder}",
            "",
            "  This is the set-up for trying things out: everyone on this machine may subscribe.",
            "  Your own settings come with --config FILE; docs/settings.md lists them.",
            "",
        ]


def is_demo(loaded: Loaded, config: Path | None) -> bool:
    """Whether nothing was configured that says what the hub is for."""
    return config is None and all(
        path == known or path.startswith(known + ".") for path in loaded.sources for known in (_process_setting(path),)
    )


def apply(loaded: Loaded, *, demo: bool) -> tuple[Settings, FirstRun | None]:
    """Fill in what is missing from ``secrets.json``, made if need be; raises ``FirstRunError``.

    Returns the settings to run with, and ``None`` when everything was configured.
    """
    settings = loaded.settings
    token = settings.client.token
    need_token = not (
        token.hmac_secret_key
        or token.rsa_public_key
        or token.ecdsa_public_key
        or token.eddsa_public_key
        or token.jwks_public_endpoint
    )
    need_api = not (
        settings.http_api.key or settings.http_api.keys or settings.http_api.insecure or settings.http_api.disabled
    )
    if not (demo or need_token or need_api):
        return settings, None
    found, created, warnings = ensure_secrets(settings.data_dir)
    if need_token:
        token = replace(token, hmac_secret_key=found.token_hmac_secret_key)
        settings = replace(settings, client=replace(settings.client, token=token))
    if need_api:
        settings = replace(settings, http_api=replace(settings.http_api, key=found.api_key))
    if demo:
        settings = with_demo(settings)
    first_run = FirstRun(
        data_dir=settings.data_dir,
        created=created,
        demo=demo,
        token_key=need_token,
        api_key=need_api,
        warnings=tuple(warnings),
    )
    return settings, first_run


def with_demo(settings: Settings) -> Settings:
    """The developer set-up: channels of three kinds of history that everyone on this machine may use."""
    recent = {"history_size": 100, "history_ttl": timedelta(hours=1)}
    channel = ChannelSettings(
        without_namespace=ChannelOptions(**_DEMO_OPTIONS, **recent),  # type: ignore[arg-type]  # by name
        namespaces=(
            Namespace(name="durable", durable=True, **_DEMO_OPTIONS),  # type: ignore[arg-type]
            Namespace(
                name="plain",
                allow_subscribe_for_client=True,
                allow_subscribe_for_anonymous=True,
                allow_publish_for_subscriber=True,
            ),
        ),
    )
    client = replace(
        settings.client,
        allow_anonymous_connect_without_token=True,
        allowed_origins=tuple(
            f"http://{host}{port}" for host in ("localhost", "127.0.0.1", "[::1]") for port in ("", ":*")
        ),
    )
    return replace(settings, channel=channel, client=client)


def ensure_secrets(data_dir: Path) -> tuple[Secrets, bool, list[str]]:
    """Read the secrets, or make them: (secrets, whether made now, warnings); raises ``FirstRunError``."""
    prepare_folder(data_dir)
    path = data_dir / SECRETS_FILE
    created = False
    if not os.path.lexists(path):
        created = _create(path)
    warnings = []
    folder = data_dir.stat()
    if folder.st_mode & 0o022 and not folder.st_mode & stat.S_ISVTX:
        warnings.append(
            f"Others may write to the data folder {data_dir} (mode {stat.S_IMODE(folder.st_mode):o})"
            " and so replace the secrets in it: chmod 700 it."
        )
    try:
        raw, mode = _read(path)
    except OSError as error:
        raise FirstRunError(f"The secrets in {path} cannot be read: {error.strerror or error}.") from None
    if mode & 0o077:
        warnings.append(
            f"{path} could be read by others (mode {mode:o}); it is 600 now."
            " Remove the file and start again if someone may have read it."
        )
    return _parse(raw, path), created, warnings


def _read(path: Path) -> tuple[bytes, int]:
    """What the file holds and the mode it had; for its owner alone from now on. Raises OSError and FirstRunError."""
    # Without O_NONBLOCK, opening a named pipe that someone put there would wait for ever.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise FirstRunError(f"The secrets {path} are not a regular file; remove it to have new ones made.")
        if found.st_uid not in (0, os.geteuid()):
            raise FirstRunError(
                f"The secrets {path} belong to another user, who could make tokens with them; if that is as it should be,"
                " give the file to the user that the hub runs as, otherwise remove it."
            )
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o077:
            os.fchmod(file.fileno(), 0o600)
        return file.read(LARGEST_FILE), mode


def prepare_folder(data_dir: Path) -> None:
    """Make the data folder for its owner alone, and see that files can be made in it; raises ``FirstRunError``."""
    try:
        if not data_dir.is_dir():
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
    except OSError as error:
        raise FirstRunError(
            f"The data folder {data_dir} cannot be written: {error.strerror or error};"
            " choose another with --data-dir or HUB_DATA_DIR."
        ) from None


def _process_setting(path: str) -> str:
    return next((known for known in _ABOUT_THE_PROCESS if path == known or path.startswith(known + ".")), "-")


def _create(path: Path) -> bool:
    """Write new secrets unless someone else was first; whether they are ours."""
    content = json.dumps({name: secrets.token_urlsafe(32) for name in _FIELDS}, indent=2) + "\n"
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".secrets-")  # mode 0600
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            # Unlike a rename, a link does not replace: of two that start at once, one wins and both read its file.
            os.link(temporary, path)
        except FileExistsError:
            return False
        _sync_folder(path.parent)
        return True
    except OSError as error:
        raise FirstRunError(f"The secrets {path} cannot be written: {error.strerror or error}.") from None
    finally:
        if temporary:
            os.unlink(temporary)


def _sync_folder(folder: Path) -> None:
    """Keep the name of a new file over a loss of power; with other secrets every token would be void."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some file systems cannot do it for a folder
    finally:
        os.close(handle)


def _parse(raw: bytes, path: Path) -> Secrets:
    try:
        values = json.loads(raw)
        token, api = (values[name] for name in _FIELDS)
        sound = all(isinstance(value, str) and len(value) >= 32 and value.isascii() for value in (token, api))
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise FirstRunError(f"{path} does not hold the secrets of a hub; remove it to have new ones made.")
    return Secrets(Secret(token), Secret(api))
