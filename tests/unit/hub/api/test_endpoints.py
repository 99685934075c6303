"""Tests of hub.api.endpoints: the HTTP side, without a socket: requests are made by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from auth.secret import Secret
from hub.api.endpoints import Api
from hub.settings import HttpApiSettings
from storage.errors import StoreUnavailable
from tests.support.inprocess import InProcessHub, running

KEY = "an-api-key-of-some-length"


class Caller:
    def __init__(self, hub: InProcessHub) -> None:
        self.hub = hub
        self.api = Api(hub.node)

    async def post(
        self,
        method: str | None,
        body: bytes,
        *,
        headers: dict[str, str] | None = None,
        query: str = "",
        chunks: int = 1,
    ) -> Response:
        """A request as a server hands it over; ``method`` ``None`` is the legacy path."""
        given = {"x-api-key": KEY} if headers is None else headers
        size = max(-(-len(body) // chunks), 1)
        parts = [body[start : start + size] for start in range(0, len(body), size)] or [b""]

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        scope = {
            "type": "http",
            "method": "POST",
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
            "query_string": query.encode(),
            "path_params": {"method": method},
        }
        request = Request(scope, receive)
        return await (self.api.legacy(request) if method is None else self.api.method(request))

    async def call(self, method: str, **request: Any) -> Any:
        response = await self.post(method, json.dumps(request).encode())
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        return json.loads(bytes(response.body))


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    api = HttpApiSettings(key=Secret(KEY), keys=(Secret("another-key-of-some-length"),), body_size_limit=1024)
    async with running(tmp_path, http_api=api) as hub:
        yield Caller(hub)


class TestKeys:
    @pytest.mark.parametrize(
        "headers",
        [
            {"X-API-Key": KEY},
            {"Authorization": f"apikey {KEY}"},
            {"Authorization": f"ApiKey  {KEY} "},
            {"X-API-Key": "another-key-of-some-length"},
        ],
    )
    async def test_good(self, caller: Caller, headers: dict[str, str]) -> None:
        assert (await caller.post("info", b"{}", headers=headers)).status_code == 200

    @pytest.mark.parametrize(
        "headers", [{}, {"X-API-Key": "wrong"}, {"Authorization": f"Bearer {KEY}"}, {"X-API-Key": ""}]
    )
    async def test_bad(self, caller: Caller, headers: dict[str, str]) -> None:
        for method in ("info", None, "batch", "unknown"):
            response = await caller.post(method, b"{}", headers=headers)
            assert (response.status_code, response.body) == (401, b"")

    async def test_in_the_query(self, caller: Caller) -> None:
        assert (await caller.post("info", b"{}", headers={}, query=f"api_key={KEY}")).status_code == 200

    async def test_none_needed(self, tmp_path: Path) -> None:
        async with running(tmp_path, http_api=HttpApiSettings(insecure=True)) as hub:
            assert (await Caller(hub).post("info", b"{}", headers={})).status_code == 200

    async def test_no_key_is_no_key(self, tmp_path: Path) -> None:
        async with running(tmp_path, http_api=HttpApiSettings()) as hub:
            assert (await Caller(hub).post("info", b"{}", headers={"X-API-Key": ""})).status_code == 401


class TestMethod:
    async def test_a_result(self, caller: Caller) -> None:
        assert (await caller.call("publish", channel="recent:x", data=1))["result"]["offset"] == 1

    async def test_in_chunks(self, caller: Caller) -> None:
        assert (await caller.post("publish", b'{"channel":"plain:x","data":"abc"}', chunks=7)).status_code == 200

    async def test_an_error(self, caller: Caller) -> None:
        assert await caller.call("publish", channel="nowhere:x", data=1) == {
            "error": {"code": 102, "message": "unknown channel"}
        }
        assert (await caller.call("publish", channel="", data=1))["error"]["code"] == 107
        assert caller.hub.metrics.api_errors == {("publish", 102): 1, ("publish", 107): 1}

    @pytest.mark.parametrize(
        ("body", "status"),
        [(b"", 400), (b"{", 400), (b"\xff", 400), (b'{"channel":"\xff"}', 400), (b"x" * 1025, 413)],
    )
    async def test_no_body_to_speak_of(self, caller: Caller, body: bytes, status: int) -> None:
        response = await caller.post("publish", body, chunks=3)
        assert response.status_code == status
        assert response.headers["content-type"].startswith("text/plain")

    async def test_unknown(self, caller: Caller) -> None:
        assert (await caller.post("no_such", b"{}")).status_code == 404

    async def test_transport_mode(self, caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
        headers = {"X-API-Key": KEY, "X-Centrifugo-Error-Mode": "transport"}

        async def status(method: str, request: dict[str, Any]) -> tuple[int, int]:
            response = await caller.post(method, json.dumps(request).encode(), headers=headers)
            return response.status_code, json.loads(bytes(response.body)).get("code", 0)

        assert await status("publish", {"channel": "plain:x", "data": 1}) == (200, 0)
        assert await status("publish", {"channel": "nowhere:x", "data": 1}) == (404, 102)
        assert await status("publish", {"channel": "plain:x"}) == (400, 107)
        assert await status("presence", {"channel": "plain:x"}) == (400, 108)
        assert await status("history", {"channel": "recent:x", "since": {"epoch": "another"}}) == (416, 112)

        async def fail(_: object) -> None:
            raise StoreUnavailable("the disk is full")

        monkeypatch.setattr(caller.hub.store, "append", fail)
        assert await status("publish", {"channel": "durable:x", "data": 1}) == (503, 100)

    async def test_a_bug_is_an_error(
        self, caller: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(caller.hub.node, "of_user", lambda *_, **__: 1 / 0)
        assert (await caller.call("disconnect", user="42"))["error"]["code"] == 100
        assert "ZeroDivisionError" in caplog.text


class TestBatch:
    @pytest.mark.parametrize("parallel", [False, True])
    async def test_in_order(self, caller: Caller, parallel: bool) -> None:
        commands = [
            {"publish": {"channel": "recent:x", "data": 1}},
            {"publish": {"channel": "nowhere:x", "data": 1}},
            {"no_such": {}},
            {"publish": {"channel": "recent:x", "data": 2}, "info": {}},
            {"presence_stats": {"channel": "here:x"}},
        ]
        replies = (await caller.call("batch", commands=commands, parallel=parallel))["replies"]
        assert replies[0]["publish"]["offset"] == 1
        assert [each["error"]["code"] for each in replies[1:4]] == [102, 104, 107]
        assert replies[4] == {"presence_stats": {"num_clients": 0, "num_users": 0}}

    @pytest.mark.parametrize("body", [b"{}", b'{"commands":1}', b"["])
    async def test_bad(self, caller: Caller, body: bytes) -> None:
        assert (await caller.post("batch", body)).status_code == 400


class TestLegacy:
    async def test_lines(self, caller: Caller) -> None:
        body = b"""{"method":"publish","params":{"channel":"recent:x","data":1}}
        {"method":"no_such"}

        {"method":"info"}"""
        response = await caller.post(None, body)
        first, second, third = [json.loads(line) for line in bytes(response.body).split(b"\n")]
        assert first["result"]["offset"] == 1
        assert second["error"]["code"] == 104
        assert "nodes" in third["result"]

    @pytest.mark.parametrize("body", [b"{", b'{"params":{}}', b"[1]"])
    async def test_bad(self, caller: Caller, body: bytes) -> None:
        assert (await caller.post(None, body)).status_code == 400
