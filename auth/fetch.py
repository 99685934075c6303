"""One small, careful HTTP GET, off the event loop.

urllib in a thread of its own: a name that does not resolve or a server that drips one byte a second must stop neither
the loop nor the process's exit, hence a daemon thread instead of the loop's executor, which is joined at exit.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from typing import IO, Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit

T = TypeVar("T")

MAX_REDIRECTS: Final = 3
_CHUNK: Final = 64 * 1024


class FetchError(Exception):
    """The document could not be had; the text says why, without its content."""


def get(url: str, *, timeout: float, max_size: int, context: ssl.SSLContext | None = None) -> bytes:
    """Return the body of ``url``, blocking for about ``timeout`` seconds at most. Raises FetchError.

    Only http and https are spoken. At most three redirects are followed, and only within the same host and never from
    https to http, since the address was chosen by the operator and not by whoever answers there.
    """
    deadline = time.monotonic() + timeout
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _HTTP(deadline),
        _HTTPS(deadline, context),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _SameHostRedirects(),
    ):
        opener.add_handler(handler)
    try:
        request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "hub"})
        with opener.open(request, timeout=timeout) as response:
            if response.status != 200:
                raise FetchError(f"it answered with status {response.status}")
            return _read(response, max_size=max_size)
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"it answered with status {error.code}") from None
    except urllib.error.URLError as error:
        raise FetchError(f"it is out of reach ({type(error.reason).__name__})") from None
    except TimeoutError:
        raise FetchError(f"it did not answer within {timeout:g} s") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(f"it did not answer properly ({type(error).__name__})") from None


async def in_daemon_thread(work: Callable[[], T], *, timeout: float, done: Callable[[], None]) -> T:
    """Run ``work`` in a new daemon thread and return its result.

    Raises what it raises, or TimeoutError after ``timeout`` seconds, when the thread is left to itself. ``done`` is
    called in that thread when it ends, however late. RuntimeError when no thread can be started.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(action: Callable[[], None]) -> None:
        if not future.done():
            action()

    def run() -> None:
        try:
            action = partial(future.set_result, work())
        except Exception as error:  # noqa: BLE001 - carried over to whoever awaits
            action = partial(future.set_exception, error)
        finally:
            done()
        try:
            loop.call_soon_threadsafe(settle, action)
        except RuntimeError:
            pass  # the loop is gone, and with it everyone who waited

    try:
        threading.Thread(target=run, name="auth-fetch", daemon=True).start()
    except RuntimeError:
        done()
        raise
    async with asyncio.timeout(timeout):
        return await future


def _read(response: http.client.HTTPResponse, *, max_size: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := response.read1(_CHUNK):
        size += len(part)
        if size > max_size:
            raise FetchError(f"its answer is larger than {max_size} bytes")
        parts.append(part)
    return b"".join(parts)


class _BoundedReader(io.RawIOBase):
    """Reads a socket until the deadline: each wait is given only what is left of the time.

    A socket's own timeout begins anew with each byte, and a header may have very many of those.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedSocket:
    """As much of a socket as http.client needs once it is connected."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_left(self._deadline))
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_BoundedReader(self._sock, self._deadline))

    def close(self) -> None:
        self._sock.close()


class _Connection(http.client.HTTPConnection):
    deadline: float

    def connect(self) -> None:
        self.timeout = _left(self.deadline)
        super().connect()
        self.sock: Any = _BoundedSocket(self.sock, self.deadline)


class _SecureConnection(http.client.HTTPSConnection):
    deadline: float

    def connect(self) -> None:
        self.timeout = _left(self.deadline)
        super().connect()
        self.sock: Any = _BoundedSocket(self.sock, self.deadline)


class _HTTP(urllib.request.HTTPHandler):
    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, /, **options: Any) -> http.client.HTTPConnection:
            made = _Connection(host, **options)
            made.deadline = self._deadline
            return made

        return self.do_open(connection, req)


class _HTTPS(urllib.request.HTTPSHandler):
    def __init__(self, deadline: float, context: ssl.SSLContext | None) -> None:
        super().__init__(context=context)
        self._deadline = deadline
        self._tls = context

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, /, **options: Any) -> http.client.HTTPConnection:
            made = _SecureConnection(host, context=self._tls, **options)
            made.deadline = self._deadline
            return made

        return self.do_open(connection, req)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _SameHostRedirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        here = urlsplit(req.full_url)
        there = urlsplit(urljoin(req.full_url, newurl))
        same_place = (there.scheme, there.hostname, there.port) == (here.scheme, here.hostname, here.port)
        upgraded = (
            (here.scheme, there.scheme) == ("http", "https")
            and there.hostname == here.hostname
            and (here.port, there.port) == (None, None)
        )
        if not (same_place or upgraded):
            raise FetchError("it redirects to another place")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
