"""JSON Web Key Sets: the public keys of an identity provider, looked up in memory and fetched beside the event loop.

Looking a key up never waits. A set that has grown old is fetched again in the background while it goes on serving;
when that fails its keys stay. A token with an unknown key id causes a fetch (the provider may have rotated), but one at
a time and not before ``cooldown`` has passed since the last, however many tokens with invented ids arrive. What a fetch
did not find is remembered as absent until then. Sets are kept per address: a key id says nothing outside its own set.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import PyJWTError

from auth.errors import BadSetting, KeyMissing, KeysUnavailable
from auth.fetch import FetchError, get, in_daemon_thread
from auth.keys import EC_ALGORITHMS, PublicKey, algorithms_of
from auth.settings import JWKSSettings

log = logging.getLogger(__name__)

MAX_KEYS: Final = 256
MAX_ABSENT: Final = 1024
MAX_TIMEOUT: Final = 60
MAX_THREADS: Final = 4  # fetches that hang are left behind; more than this many are not started

_PARSERS: Final[dict[str, tuple[Any, tuple[str, ...]]]] = {
    "RSA": (get_default_algorithms()["RS256"], ("n", "e")),
    "EC": (get_default_algorithms()[EC_ALGORITHMS[0]], ("crv", "x", "y")),
    "OKP": (get_default_algorithms()["EdDSA"], ("crv", "x")),
}


class JWK(NamedTuple):
    """A key of a set and the algorithms it may verify."""

    kid: str | None
    algorithms: tuple[str, ...]
    key: PublicKey


class _Document(msgspec.Struct):
    keys: list[msgspec.Raw]


class _KeyDocument(msgspec.Struct):
    kty: str
    kid: str | None = None
    alg: str | None = None
    use: str | None = None
    key_ops: list[str] | None = None
    crv: str | None = None
    n: str | None = None
    e: str | None = None
    x: str | None = None
    y: str | None = None


def parse(document: bytes) -> tuple[JWK, ...]:
    """Return the usable keys of a JWKS document; FetchError when it is not one.

    Keys of other kinds (also ``oct``: a secret has no business at a public address), too weak, not for signatures
    (``use``, ``key_ops``) or malformed are left out, so that one odd key does not cost the others.
    """
    try:
        entries = msgspec.json.decode(document, type=_Document).keys
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise FetchError("its answer is not a JSON Web Key Set") from None
    if len(entries) > MAX_KEYS:
        raise FetchError(f"its answer has more than {MAX_KEYS} keys")
    return tuple(jwk for jwk in map(_parse_key, entries) if jwk is not None)


def _parse_key(entry: msgspec.Raw) -> JWK | None:
    try:
        fields = msgspec.json.decode(entry, type=_KeyDocument)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if fields.use not in (None, "sig") or (fields.key_ops is not None and "verify" not in fields.key_ops):
        return None
    if fields.kty not in _PARSERS:
        return None
    parser, names = _PARSERS[fields.kty]
    # Only the public members are handed on: a set that leaks private ones is still only a set of public keys.
    public = {"kty": fields.kty, **{name: getattr(fields, name) for name in names}}
    if None in public.values():
        return None
    try:
        key = parser.from_jwk(public)
    except (PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    algorithms = algorithms_of(key)
    if fields.alg is not None:
        algorithms = (fields.alg,) if fields.alg in algorithms else ()
    return JWK(fields.kid, algorithms, key) if algorithms else None


class _Endpoint:
    """What is known of one address."""

    __slots__ = ("absent", "failures", "fetched_at", "keys", "retry_at", "task", "url")

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: tuple[JWK, ...] = ()
        self.fetched_at: float | None = None
        self.retry_at = 0.0
        self.failures = 0
        self.task: asyncio.Task[None] | None = None
        self.absent: dict[str | None, None] = {}

    def find(self, kid: str | None, algorithm: str) -> tuple[PublicKey, ...] | None:
        """Return the keys with this id that fit the algorithm; None when the id is not in the set.

        A token without an id is served only when a single key of the set fits its algorithm.
        """
        if kid is None:
            fitting = tuple(jwk.key for jwk in self.keys if algorithm in jwk.algorithms)
            return fitting if len(fitting) == 1 else None
        named = [jwk for jwk in self.keys if jwk.kid == kid]
        return tuple(jwk.key for jwk in named if algorithm in jwk.algorithms) if named else None


class JWKS:
    """The key sets of one settings section, by resolved address.

    ``clock`` is monotonic, in seconds. Use on one event loop. Raises BadSetting for a certificate authority that
    cannot be read or a bound that makes no sense. :meth:`aclose` ends what runs in the background.
    """

    def __init__(
        self, settings: JWKSSettings, *, prefix: str = "client.token", clock: Callable[[], float] = time.monotonic
    ) -> None:
        for name in ("refresh_interval", "timeout"):
            if getattr(settings, name).total_seconds() <= 0:
                raise BadSetting(f"{prefix}.jwks.{name}", "has to be more than 0s.")
        for name in ("max_size", "max_endpoints"):
            if getattr(settings, name) < 1:
                raise BadSetting(f"{prefix}.jwks.{name}", "has to be at least 1.")
        if settings.timeout.total_seconds() > MAX_TIMEOUT:
            raise BadSetting(f"{prefix}.jwks.timeout", f"has to be at most {MAX_TIMEOUT}s.")
        self._refresh_interval = settings.refresh_interval.total_seconds()
        self._cooldown = max(settings.cooldown.total_seconds(), 1.0)
        self._timeout = settings.timeout.total_seconds()
        self._max_size = settings.max_size
        self._max_endpoints = settings.max_endpoints
        self._context = tls_context(settings, f"{prefix}.jwks.tls.server_ca_pem")
        self._clock = clock
        self._endpoints: OrderedDict[str, _Endpoint] = OrderedDict()
        self._threads = 0
        self._threads_lock = threading.Lock()
        self.fetches = 0
        """Fetches begun, for metrics."""
        self.failures = 0
        """Fetches that failed, for metrics."""

    def lookup(self, url: str, kid: str | None, algorithm: str) -> tuple[PublicKey, ...]:
        """Return the keys at ``url`` that may verify a token with this header; empty when there is surely none.

        Raises KeyMissing when :meth:`fetch` may find one, and KeysUnavailable when nothing can be said for now.
        """
        endpoint = self._endpoints.get(url)
        if endpoint is None:
            raise KeyMissing(url, kid)
        self._endpoints.move_to_end(url)
        now = self._clock()
        found = endpoint.find(kid, algorithm)
        if found is not None:
            if endpoint.fetched_at is None or now - endpoint.fetched_at >= self._refresh_interval:
                self._refresh_in_background(endpoint, now)
            return found
        if endpoint.task is not None or now >= endpoint.retry_at:
            raise KeyMissing(url, kid)
        if kid in endpoint.absent:
            return ()
        raise KeysUnavailable("The token's key is not known and the key set cannot be asked again yet.")

    async def fetch(self, url: str, kid: str | None) -> None:
        """Fetch the set at ``url`` for a token that needs ``kid``, or join the fetch that is under way.

        Returns when that has ended, well or not; look the key up again then. Within the cooldown it does nothing.
        """
        endpoint = self._endpoints.get(url)
        if endpoint is None:
            endpoint = self._endpoints[url] = _Endpoint(url)
            self._evict(endpoint)
        task = endpoint.task
        if task is None:
            if self._clock() < endpoint.retry_at:
                return
            task = self._start(endpoint)
        await asyncio.shield(task)
        if not endpoint.failures and (kid is None or all(jwk.kid != kid for jwk in endpoint.keys)):
            endpoint.absent[kid] = None
            if len(endpoint.absent) > MAX_ABSENT:
                del endpoint.absent[next(iter(endpoint.absent))]

    async def aclose(self) -> None:
        """Stop fetching; whoever waits for a fetch is cancelled."""
        tasks = [endpoint.task for endpoint in self._endpoints.values() if endpoint.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._endpoints.clear()

    def _refresh_in_background(self, endpoint: _Endpoint, now: float) -> None:
        if endpoint.task is not None or now < endpoint.retry_at:
            return
        try:
            self._start(endpoint)
        except RuntimeError:
            pass  # no loop is running: a command line tool checks a token; its keys are fresh enough

    def _start(self, endpoint: _Endpoint) -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()
        endpoint.task = loop.create_task(self._refresh(endpoint), name="jwks-fetch")
        return endpoint.task

    async def _refresh(self, endpoint: _Endpoint) -> None:
        self.fetches += 1
        try:
            keys = await self._load(endpoint.url)
        except FetchError as error:
            self.failures += 1
            endpoint.failures += 1
            endpoint.retry_at = self._clock() + min(self._cooldown, 2.0 ** min(endpoint.failures - 1, 30))
            log.warning("The key set at %s could not be fetched: %s.", printable(endpoint.url), error)
        else:
            now = self._clock()
            endpoint.keys = keys
            endpoint.absent.clear()
            endpoint.failures = 0
            endpoint.fetched_at = now
            endpoint.retry_at = now + self._cooldown
            if not keys:
                log.warning("The key set at %s holds no usable key.", printable(endpoint.url))
        finally:
            endpoint.task = None

    async def _load(self, url: str) -> tuple[JWK, ...]:
        with self._threads_lock:
            if self._threads >= MAX_THREADS:
                raise FetchError("too many earlier fetches still hang")
            self._threads += 1
        work = partial(_get_and_parse, url, timeout=self._timeout, max_size=self._max_size, context=self._context)
        try:
            # The thread bounds itself; the second is for those that cannot, such as one stuck in name resolution.
            return await in_daemon_thread(work, timeout=self._timeout + 1, done=self._thread_done)
        except TimeoutError:
            raise FetchError(f"it did not answer within {self._timeout:g} s") from None
        except RuntimeError:
            raise FetchError("no thread could be started for it") from None

    def _thread_done(self) -> None:
        with self._threads_lock:
            self._threads -= 1

    def _evict(self, newest: _Endpoint) -> None:
        if len(self._endpoints) <= self._max_endpoints:
            return
        for url, endpoint in self._endpoints.items():
            if endpoint is not newest and endpoint.task is None:
                del self._endpoints[url]
                return
        if self._max_endpoints < len(self._endpoints):
            del self._endpoints[newest.url]
            raise KeysUnavailable("Too many key sets are being fetched.")


def _get_and_parse(url: str, *, timeout: float, max_size: int, context: ssl.SSLContext | None) -> tuple[JWK, ...]:
    return parse(get(url, timeout=timeout, max_size=max_size, context=context))


def tls_context(settings: JWKSSettings, setting: str) -> ssl.SSLContext | None:
    """What an endpoint's certificate is checked with, ``None`` for the system's authorities; raises BadSetting."""
    pem = settings.tls.server_ca_pem
    if not settings.tls.enabled or not pem:
        return None
    try:
        if "-----BEGIN" in pem:
            return ssl.create_default_context(cadata=pem.replace("\\n", "\n"))
        return ssl.create_default_context(cafile=pem)
    except (OSError, ValueError):
        raise BadSetting(setting, "neither a PEM certificate nor the path of a file with one.") from None


def printable(url: str) -> str:
    """An address for a log line: without credentials and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
