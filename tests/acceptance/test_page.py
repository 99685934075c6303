"""A start without settings: the page it serves, and the line it prints."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message

import pytest

from tests.support.hub_process import HubProcess
from tests.support.ws_client import RawClient

SERVE = [sys.executable, "-m", "hub", "serve", "--port", "{port}", "--data-dir", "{data}"]


@pytest.fixture(scope="module")
def demo() -> Iterator[HubProcess]:
    """A hub that was given no settings."""
    with HubProcess(command=SERVE) as process:
        yield process


def get(url: str) -> tuple[int, Message, str]:
    """Status, headers and text of a page."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=10) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def policy(headers: Message) -> dict[str, list[str]]:
    """The directives of the page's Content-Security-Policy."""
    directives = [each.split() for each in headers["Content-Security-Policy"].split(";")]
    return {each[0]: each[1:] for each in directives}


def printed_line(process: HubProcess) -> str:
    """The line for publishing that a start without settings prints."""
    return next(line.partition("Publish:")[2].strip() for line in process.log().splitlines() if "Publish:" in line)


def test_page_is_served_with_a_policy_that_fits_it(demo: HubProcess) -> None:
    status, headers, html = get(demo.http_url + "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    rules = policy(headers)
    for tag in ("script", "style"):
        inline = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", html, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in inline]
        assert inline
        assert rules[f"{tag}-src"] == [f"'sha256-{digest}'" for digest in digests]
    assert rules["default-src"] == rules["base-uri"] == rules["frame-ancestors"] == ["'none'"]
    assert rules["connect-src"] == ["'self'"]


def test_page_needs_nothing_else_and_knows_no_secret(demo: HubProcess) -> None:
    html = get(demo.http_url + "/")[2]
    assert not re.search(r"\b(?:src|href|action)\s*=\s*[\"'](?!data:)", html)
    assert not re.search(r"https?://|\bon[a-z]+\s*=\s*[\"']", html)
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(", html)
    for secret in json.loads((demo.data_dir / "secrets.json").read_text()).values():
        assert secret not in html


@pytest.mark.needs("curl")
async def test_printed_line_publishes_to_who_came_from_the_page(demo: HubProcess) -> None:
    async with RawClient(demo.ws_url, origin=demo.http_url) as client:
        await client.connect()
        await client.call("subscribe", channel="news")
        line = shlex.split(printed_line(demo))
        # A fixed argument keeps the environment's proxy out of a test on the loopback interface.
        command = [line[0], "--silent", "--noproxy", "*", *line[1:]]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30, check=True)
        assert "result" in json.loads(done.stdout)
        [publication] = await client.publications("news", 1)
        assert publication["data"] == {"text": "hello"}


def test_a_configured_hub_has_no_page() -> None:
    with HubProcess() as configured:
        assert get(configured.http_url + "/")[0] == 404
