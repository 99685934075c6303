"""What settings mean together: combinations that cannot work, are not offered yet, or are not safe in public."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from auth.errors import BadSetting
from auth.jwks import JWKS
from auth.keys import KeySet
from auth.scope import Scope
from auth.settings import TokenSettings
from auth.tokens import TokenVerifier
from hub.settings import Settings
from hub.settings_load import Loaded, SettingsError
from hub.settings_values import format_duration, show, show_scheme

NODES_RELEASE = "which arrives with the release that runs several nodes"
_ORIGIN = re.compile(r"(\*|[a-z][a-z0-9+.-]*://[^/\s]+)", re.IGNORECASE)
_APP = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def require_sound(loaded: Loaded) -> None:
    """Raise ``SettingsError`` with everything that is wrong with these settings beyond types and ranges."""
    problems = list(_problems(loaded))
    if problems:
        raise SettingsError([_with_source(problem, loaded) for problem in problems])


def require_private_or_secure(loaded: Loaded, *, demo: bool = False) -> None:
    """Raise ``SettingsError`` when the hub would listen beyond this machine with settings that are not safe there.

    ``demo`` tells that the developer set-up of a start without any settings is in use.
    """
    settings = loaded.settings
    host = settings.http_server.address
    if is_loopback(host):
        return
    reasons = list(insecure(settings))
    if demo:
        reasons.append(
            "the developer set-up, in use because there are no settings, lets everyone subscribe and read:"
            " write a settings file and give it with --config"
        )
    if reasons:
        where = _with_source(f"http_server.address is {show(host, secret=False)}", loaded).rstrip(".")
        raise SettingsError([f"{where}, which others can reach, but {_with_source(why, loaded)}" for why in reasons])


def insecure(settings: Settings) -> Iterator[str]:
    """Yield each setting that is only for development, as the second half of a sentence."""
    if settings.client.insecure:
        yield "client.insecure = true lets everyone in without token or permission"
    if settings.client.insecure_skip_token_signature_verify:
        yield "client.insecure_skip_token_signature_verify = true accepts forged tokens"
    if settings.http_api.insecure and not settings.http_api.disabled:
        yield "http_api.insecure = true takes API commands without a key"
    if "*" in settings.client.allowed_origins and settings.client.user_id_http_header:
        yield (
            'client.allowed_origins = ["*"] with client.user_id_http_header'
            " lets every web page connect in its visitor's name"
        )


def is_loopback(host: str) -> bool:
    """Whether a socket bound to this host can only be reached from this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _problems(loaded: Loaded) -> Iterator[str]:
    settings = loaded.settings
    yield from settings.channel.problems()
    yield from _not_offered_yet(loaded)
    yield from _tokens(settings)
    client = settings.client
    if client.pong_timeout and client.ping_interval and client.pong_timeout >= client.ping_interval:
        yield (
            f"client.pong_timeout is {format_duration(client.pong_timeout)}, but must be less than"
            f" client.ping_interval ({format_duration(client.ping_interval)})"
        )
    if client.concurrency > 1:
        yield f"client.concurrency is {client.concurrency}, but Hub handles a client's commands in order; leave it at 0 or 1"
    for origin in client.allowed_origins:
        if not _ORIGIN.fullmatch(origin):
            yield (
                f"client.allowed_origins has {show(origin, secret=False)}, but an origin is scheme and host,"
                ' such as "https://example.com" or "https://*.example.com"'
            )
    yield from _personal(settings)
    yield from _api(settings)
    tls = settings.http_server.tls
    if tls.enabled and not (tls.cert_pem and tls.key_pem):
        yield "http_server.tls.enabled is true, which needs http_server.tls.cert_pem and http_server.tls.key_pem"
    if settings.drain.timeout <= settings.drain.window:
        yield (
            f"drain.timeout is {format_duration(settings.drain.timeout)}, but must be more than"
            f" drain.window ({format_duration(settings.drain.window)})"
        )
    if settings.app and not _APP.fullmatch(settings.app):
        yield f'app is {show(settings.app, secret=False)}, but must be module:object, such as "myapp.handlers:app"'


def _personal(settings: Settings) -> Iterator[str]:
    personal = settings.client.subscribe_to_user_personal_channel
    if not personal.enabled:
        return
    namespaces = {namespace.name: namespace for namespace in settings.channel.namespaces}
    name = personal.personal_channel_namespace
    options = namespaces.get(name) if name else settings.channel.without_namespace
    if options is None:
        yield (
            "client.subscribe_to_user_personal_channel.personal_channel_namespace is"
            f" {show(name, secret=False)}, which is not in channel.namespaces"
        )


def _api(settings: Settings) -> Iterator[str]:
    for name, key in [
        ("http_api.key", settings.http_api.key),
        *((f"http_api.keys[{index}]", key) for index, key in enumerate(settings.http_api.keys)),
    ]:
        text = key.reveal()
        if name != "http_api.key" and not text:
            yield f"{name} is empty, but must be a key"
        elif text and not (text.isascii() and text.isprintable() and " " not in text):
            yield f"{name} is ******, but must be printable ASCII without spaces, since it travels in a header"


def _tokens(settings: Settings) -> Iterator[str]:
    sections: list[tuple[str, TokenSettings]] = [("client.token", settings.client.token)]
    if settings.client.subscription_token.enabled:
        sections.append(("client.subscription_token", settings.client.subscription_token))
    for path, section in sections:
        found: dict[str, None] = {}
        for name in ("hmac_secret_key", "hmac_previous_secret_key"):
            text = getattr(section, name).reveal()
            if text != text.strip():
                yield f"{path}.{name} is ******, but must not begin or end with white space or a line break"
        for make in (KeySet, Scope, _jwks, TokenVerifier):
            try:
                make(section, prefix=path)
            except BadSetting as error:
                found[f"{error.setting} is not usable: {error.problem.rstrip('.')}"] = None
        yield from found


def _jwks(section: TokenSettings, *, prefix: str) -> JWKS:
    return JWKS(section.jwks, prefix=prefix)


def _not_offered_yet(loaded: Loaded) -> Iterator[str]:
    settings = loaded.settings
    if settings.engine.type != "memory":
        if loaded.sources.get("engine.type") == "environment variable REDIS_URL":
            yield (
                f"The environment variable REDIS_URL asks for Redis, {NODES_RELEASE};"
                " unset it, or set HUB_ENGINE_TYPE=memory to run one node without it"
            )
        else:
            yield f'engine.type is "{settings.engine.type}", {NODES_RELEASE}; until then it is "memory"'
    if settings.workers > 1:
        yield f"workers is {settings.workers}, but several need Redis, {NODES_RELEASE}; until then it is 1"
    url = settings.storage.url
    if url and not url.startswith("sqlite:///"):
        shown = show_scheme(url)
        if loaded.sources.get("storage.url") == "environment variable DATABASE_URL":
            yield (
                f"The environment variable DATABASE_URL is {shown}, but the only store so far is SQLite;"
                " unset it, or set HUB_STORAGE_URL to sqlite:///hub.sqlite3 (or to nothing for the default)"
            )
        elif url.split(":", 1)[0] in ("postgres", "postgresql"):
            yield f"storage.url is {shown}, but PostgreSQL arrives in a later release; the only store so far is sqlite:///…"
        else:
            yield f"storage.url is {shown}, but must begin with sqlite:///"
    elif url == "sqlite:///":
        yield 'storage.url is "sqlite:///", but must name a file, such as "sqlite:///hub.sqlite3"'
    elif url.removeprefix("sqlite:///") == ":memory:" or "?" in url:
        yield (
            f"storage.url is {show(url, secret=False)}, but must name a file and nothing else:"
            " there is no database in memory, and no option behind a question mark"
        )
    if settings.tasks.broker != "embedded":
        source = loaded.sources.get("tasks.broker", "")
        if source.endswith("AMQP_URL"):
            variable = source.split()[-1]
            yield (
                f"The environment variable {variable} asks for RabbitMQ, which arrives in a later release;"
                " unset it, or set HUB_TASKS_BROKER=embedded to run without it"
            )
        else:
            yield (
                f"tasks.broker is {show_scheme(settings.tasks.broker)},"
                ' but RabbitMQ arrives in a later release; until then it is "embedded"'
            )


def _with_source(problem: str, loaded: Loaded) -> str:
    """Put where a setting came from behind its name, which problems begin with."""
    path, _, rest = problem.partition(" ")
    outer = re.sub(r"\[\d+\].*", "", path)  # a setting within a list came from where the list did
    source = loaded.sources.get(path) or loaded.sources.get(outer)
    sentence = f"{path} ({source}) {rest}" if source else problem
    return sentence if sentence.endswith(".") else f"{sentence}."
