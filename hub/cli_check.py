"""``hub check``: the settings, and a try of everything that they name."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from auth.fetch import FetchError
from auth.fetch import get as fetch
from auth.jwks import parse, printable, tls_context
from auth.settings import TokenSettings
from hub.app import AppNotLoaded, load_app
from hub.cli import needs_data_dir, read_settings
from hub.first_run import FirstRunError, is_demo, prepare_folder
from hub.masking import mask, shorten
from hub.settings import Settings
from hub.settings_checks import require_private_or_secure
from hub.settings_values import seconds
from hub.tls import TlsError, server_context
from storage.errors import StoreError
from storage.sqlite import SQLiteStore


class Failed(Exception):
    """What was tried does not work; the text is a sentence."""


def check(args: argparse.Namespace) -> int:
    """Print a line for each thing tried; 0 if all work, 1 if not. Raises ``SettingsError`` before trying anything."""
    loaded, config = read_settings(args)
    require_private_or_secure(loaded, demo=is_demo(loaded, config))
    print(f"ok      settings ({config or 'no file'}, {len(loaded.sources)} set)")
    failures = 0
    for what, attempt in _attempts(loaded.settings):
        try:
            print(f"ok      {what}: {attempt()}")
        except (Failed, FirstRunError, TlsError) as error:
            failures += 1
            print(f"failed  {what}: {error}")
    return 1 if failures else 0


def _attempts(settings: Settings) -> Iterator[tuple[str, Callable[[], str]]]:
    if settings.app:
        yield "app", lambda: _app(settings.app)
    if settings.log.file:
        yield "log file", lambda: _log_file(settings.log.file)
    if needs_data_dir(settings):
        yield "data folder", lambda: _data_dir(settings)
    if any(space.durable for space in (settings.channel.without_namespace, *settings.channel.namespaces)):
        yield "store", lambda: asyncio.run(_store(settings))
    sections: list[tuple[str, TokenSettings]] = [("client.token", settings.client.token)]
    if settings.client.subscription_token.enabled:
        sections.append(("client.subscription_token", settings.client.subscription_token))
    for path, section in sections:
        if section.jwks_public_endpoint and "{{" not in section.jwks_public_endpoint:
            yield f"key set of {path}", lambda section=section: _key_set(section)  # type: ignore[misc]
    if settings.http_server.tls.enabled:
        yield "certificate", lambda: _certificate(settings)
    yield "port", lambda: _port(settings)


def _app(path: str) -> str:
    try:
        load_app(path)
    except AppNotLoaded as error:
        raise Failed(f"{mask(shorten(str(error)))}.") from None
    return path


def _log_file(path: str) -> str:
    present = os.path.lexists(path)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab"):
            pass
        if not present:
            os.unlink(path)
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror or error} (log.file).") from None
    return path


def _data_dir(settings: Settings) -> str:
    prepare_folder(settings.data_dir)
    return str(settings.data_dir)


async def _store(settings: Settings) -> str:
    path = settings.storage.path(settings.data_dir)
    store = SQLiteStore(path)
    try:
        await store.open()
        await store.close()
    except StoreError as error:
        raise Failed(str(error)) from None
    return str(path)


def _key_set(section: TokenSettings) -> str:
    jwks, shown = section.jwks, printable(section.jwks_public_endpoint)
    context = tls_context(jwks, "jwks.tls.server_ca_pem")
    try:
        document = fetch(
            section.jwks_public_endpoint, timeout=seconds(jwks.timeout), max_size=jwks.max_size, context=context
        )
        keys = parse(document)
    except FetchError as error:
        raise Failed(f"{shown}: {error}.") from None
    if not keys:
        raise Failed(f"{shown} has no key that can verify tokens.")
    return f"{len(keys)} keys at {shown}"


def _certificate(settings: Settings) -> str:
    server_context(settings.http_server.tls)
    return "certificate and key belong together"


def _port(settings: Settings) -> str:
    host, port = settings.http_server.address, settings.http_server.port
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the server does it, so that connections which have just ended do not count as the port being in use.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise Failed(
            f"{host}:{port} cannot be listened on: {error.strerror or error} (http_server.address, http_server.port)."
        ) from None
    return f"{host}:{port} is free"
