from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from typing import Any

import pytest

from auth.fetch import FetchError, get, in_daemon_thread


def fetch(server: Any, path: str = "/keys", *, timeout: float = 5, max_size: int = 1000) -> bytes:
    return get(server.url(path), timeout=timeout, max_size=max_size)


def redirect(location: str) -> Any:
    def answer(handler: Any) -> None:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def test_the_body(server: Any, answer_with: Any):
    server.answers["/keys"] = answer_with(b"x" * 1000)
    assert fetch(server) == b"x" * 1000


@pytest.mark.parametrize("status", [201, 204, 400, 401, 404, 500, 503])
def test_only_status_200_will_do(server: Any, answer_with: Any, status: int):
    server.answers["/keys"] = answer_with(b"", status=status)
    with pytest.raises(FetchError, match=f"status {status}"):
        fetch(server)


def test_a_body_that_is_too_large(server: Any, answer_with: Any):
    server.answers["/keys"] = answer_with(b"x" * 1001)
    with pytest.raises(FetchError, match="larger than 1000"):
        fetch(server)


def test_a_body_without_end_is_not_read_to_it(server: Any):
    def flood(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not server.release.is_set():
            handler.wfile.write(b"x" * 65536)

    server.answers["/keys"] = flood
    with pytest.raises(FetchError, match="larger than"):
        fetch(server, max_size=1_000_000)


def drip(server: Any, beginning: bytes, part: bytes) -> Any:
    """An answer that goes on for ever, a part at a time, each well within the timeout."""

    def answer(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + beginning)
        while not server.release.wait(0.05):
            handler.wfile.write(part)

    return answer


DRIPS = {
    "header": (b"", b"x"),
    "headers": (b"", b"x: y\r\n"),
    "body": (b"\r\n", b"x"),
    "body of known size": (b"Content-Length: 900\r\n\r\n", b"x"),
    "size of a chunk": (b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"),
    "after the chunks": (b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("where", DRIPS)
def test_r8_an_answer_that_drips_ends_with_the_timeout(server: Any, where: str):
    server.answers["/keys"] = drip(server, *DRIPS[where])
    with pytest.raises(FetchError, match=r"within 0\.3 s"):
        fetch(server, timeout=0.3)


@pytest.mark.timeout(30)
def test_r8_an_answer_that_is_always_about_to_begin(server: Any):
    def answer(handler: Any) -> None:
        while not server.release.wait(0.05):
            handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    server.answers["/keys"] = answer
    with pytest.raises(FetchError, match="within"):
        fetch(server, timeout=0.3)


@pytest.mark.timeout(30)
def test_r8_over_tls_too(tls_server: Any, certificate: str, answer_with: Any):
    context = ssl.create_default_context(cadata=certificate)
    tls_server.answers["/keys"] = answer_with(b"ok")
    assert get(tls_server.url(), timeout=10, max_size=10, context=context) == b"ok"
    tls_server.answers["/keys"] = drip(tls_server, b"", b"x")
    with pytest.raises(FetchError, match="within"):
        get(tls_server.url(), timeout=0.5, max_size=10, context=context)


def test_a_server_that_says_nothing(server: Any):
    server.answers["/keys"] = lambda handler: server.release.wait(30)
    with pytest.raises(FetchError, match=r"within|TimeoutError"):
        fetch(server, timeout=0.2)


def test_a_server_that_hangs_up(server: Any):
    server.answers["/keys"] = lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)
    with pytest.raises(FetchError):
        fetch(server)


def test_a_server_that_does_not_speak_http(server: Any):
    server.answers["/keys"] = lambda handler: handler.wfile.write(b"\0\1\2 nonsense\r\n\r\n")
    with pytest.raises(FetchError, match="properly"):
        fetch(server)


def test_nobody_there():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused
        with pytest.raises(FetchError, match="out of reach"):
            get(f"http://127.0.0.1:{taken.getsockname()[1]}/", timeout=5, max_size=10)


def test_redirects_within_the_same_place_are_followed(server: Any, answer_with: Any):
    server.answers["/a"] = redirect("/b")
    server.answers["/b"] = redirect(server.url("/keys"))
    server.answers["/keys"] = answer_with(b"ok")
    assert fetch(server, "/a") == b"ok"


def test_redirects_elsewhere_are_not(server: Any):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        other.setblocking(False)
        port = other.getsockname()[1]
        for location in (f"http://127.0.0.1:{port}/", f"http://localhost:{server.port}/keys", "https://127.0.0.1/keys"):
            server.answers["/a"] = redirect(location)
            with pytest.raises(FetchError, match="redirects to another place"):
                fetch(server, "/a")
        with pytest.raises(BlockingIOError):
            other.accept()


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "gopher://127.0.0.1/"])
def test_redirects_to_other_schemes_are_not_followed(server: Any, location: str):
    server.answers["/a"] = redirect(location)
    with pytest.raises(FetchError):
        fetch(server, "/a")


def test_redirects_in_a_circle(server: Any):
    server.answers["/a"] = redirect("/a")
    with pytest.raises(FetchError):
        fetch(server, "/a")
    assert len(server.requests) <= 5


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "data:,x", "ftp://127.0.0.1:1/x", "http://127.0.0.1:x/", "nothing"]
)
def test_other_schemes_are_not_spoken(url: str):
    with pytest.raises(FetchError):
        get(url, timeout=1, max_size=100)


async def test_work_in_a_thread_gives_its_result_or_its_error():
    done: list[int] = []
    assert await in_daemon_thread(lambda: 5, timeout=5, done=lambda: done.append(1)) == 5

    def fail() -> None:
        raise FetchError("no")

    with pytest.raises(FetchError):
        await in_daemon_thread(fail, timeout=5, done=lambda: done.append(1))
    assert done == [1, 1]


async def test_work_that_hangs_is_left_behind():
    go, ended = threading.Event(), threading.Event()
    with pytest.raises(TimeoutError):
        await in_daemon_thread(lambda: go.wait(30), timeout=0.05, done=ended.set)
    assert not ended.is_set()
    go.set()
    assert await asyncio.to_thread(ended.wait, 10)
