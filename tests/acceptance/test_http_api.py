"""The server API over plain HTTP: what libraries do not show, and other libraries' older ways of asking."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token
from tests.support.ws_client import RawClient


def unique(namespace: str) -> str:
    return f"{namespace}:{uuid.uuid4()}"


class Http:
    """Posts bodies to the API and gives status and text back."""

    def __init__(self, session: aiohttp.ClientSession, hub: HubProcess) -> None:
        self.session = session
        self.hub = hub

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, str]:
        data = body if isinstance(body, str | bytes) else json.dumps(body)
        sent = {"X-API-Key": self.hub.api_key, "Content-Type": "application/json"}
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        sent = {name: value for name, value in sent.items() if value}
        async with self.session.post(self.hub.http_url + path, data=data, headers=sent) as response:
            return response.status, await response.text()


@pytest.fixture
async def http(hub: HubProcess) -> AsyncIterator[Http]:
    async with aiohttp.ClientSession() as session:
        yield Http(session, hub)


async def test_legacy_api_takes_one_command_a_line(http: Http) -> None:
    """The form that gocent 3 uses, also for its pipelines."""
    channel = unique("recent")
    commands = [
        {"method": "publish", "params": {"channel": channel, "data": {"n": 1}}},
        {"method": "publish", "params": {"channel": channel, "data": {"n": 2}}},
        {"method": "publish", "params": {"channel": "nowhere:x", "data": 1}},
        {"method": "history", "params": {"channel": channel, "limit": 10}},
        {"method": "info", "params": {}},
        {"method": "nothing", "params": {}},
    ]
    status, text = await http.post("/api", "\n".join(json.dumps(command) for command in commands))
    assert status == 200
    replies = [json.loads(line) for line in text.strip().split("\n")]
    assert [reply["result"]["offset"] for reply in replies[:2]] == [1, 2]
    assert replies[2]["error"] == {"code": 102, "message": "unknown channel"}
    assert [pub["data"]["n"] for pub in replies[3]["result"]["publications"]] == [1, 2]
    assert len(replies[4]["result"]["nodes"]) == 1
    assert replies[5]["error"]["code"] == 104
    single = json.dumps(commands[0]) + "\n"
    status, text = await http.post("/api", single)
    assert (status, json.loads(text)["result"]["offset"]) == (200, 3)


async def test_ways_to_give_the_key(http: Http) -> None:
    key = http.hub.api_key
    body = {"channel": unique("plain"), "data": 1}
    assert (await http.post("/api/publish", body))[0] == 200
    assert (await http.post("/api/publish", body, X_API_Key="", Authorization=f"apikey {key}"))[0] == 200
    assert (await http.post(f"/api/publish?api_key={key}", body, X_API_Key=""))[0] == 200
    assert await http.post("/api/publish", body, X_API_Key="wrong") == (401, "")
    assert await http.post("/api/publish", body, X_API_Key="") == (401, "")
    assert await http.post("/api", body, X_API_Key="", Authorization="Bearer x") == (401, "")
    assert key not in http.hub.log()


async def test_transport_error_mode(http: Http) -> None:
    mode = {"X_Centrifugo_Error_Mode": "transport"}
    expected = {
        "/api/publish": ({"channel": "nowhere:x", "data": 1}, 404, 102),
        "/api/presence": ({"channel": unique("plain")}, 400, 108),
        "/api/broadcast": ({"channels": [], "data": 1}, 400, 107),
        "/api/history": ({"channel": unique("recent"), "limit": 1, "since": {"offset": 1, "epoch": "x"}}, 416, 112),
    }
    for path, (body, status, code) in expected.items():
        plain = await http.post(path, body)
        assert (plain[0], json.loads(plain[1])["error"]["code"]) == (200, code), path
        got = await http.post(path, body, **mode)
        assert (got[0], json.loads(got[1])["code"]) == (status, code), path
    done = await http.post("/api/publish", {"channel": unique("plain"), "data": 1}, **mode)
    assert (done[0], json.loads(done[1])) == (200, {"result": {}})


async def test_bad_requests(http: Http) -> None:
    assert (await http.post("/api/publish", "{nonsense"))[0] == 400
    assert (await http.post("/api/publish", b"\xff\xfe"))[0] == 400
    for body in ({"data": 1}, {"channel": unique("plain")}, {"channel": unique("plain"), "b64data": "***"}):
        status, text = await http.post("/api/publish", body)
        assert (status, json.loads(text)["error"]["code"]) == (200, 107), body
    assert (await http.post("/api/nothing", {}))[0] == 404
    async with http.session.get(http.hub.api_url + "/publish", headers={"X-API-Key": http.hub.api_key}) as response:
        assert response.status == 405


async def test_zero_fields_are_left_out_or_kept_as_the_protocol_says(http: Http) -> None:
    async def result(method: str, body: Any) -> Any:
        return json.loads((await http.post(f"/api/{method}", body))[1])

    assert await result("publish", {"channel": unique("plain"), "data": 1}) == {"result": {}}
    assert await result("presence", {"channel": unique("room")}) == {"result": {"presence": {}}}
    stats = await result("presence_stats", {"channel": unique("room")})
    assert stats == {"result": {"num_clients": 0, "num_users": 0}}
    history = (await result("history", {"channel": unique("recent"), "limit": 5}))["result"]
    assert (history["publications"], history["offset"]) == ([], 0)
    assert history["epoch"]
    assert (await result("channels", {"pattern": "nothing:*"})) == {"result": {"channels": {}}}
    batch = await result("batch", {"commands": [{"publish": {"channel": "nowhere:x", "data": 1}}]})
    assert batch == {"replies": [{"error": {"code": 102, "message": "unknown channel"}}]}


async def test_connections_and_channels_are_paged(http: Http) -> None:
    """Our own additions: a limit, and a cursor that the answer gives for the next page."""
    user, channel = unique("user"), unique("plain")
    clients = [await RawClient(http.hub.ws_url).open() for _ in range(5)]
    ids = set()
    for client in clients:
        ids.add((await client.connect(connection_token(user)))["client"])
        await client.call("subscribe", channel=channel)
        await client.call("subscribe", channel=unique(f"plain:{user[5:]}"))

    async def pages(method: str, key: str, body: dict[str, Any]) -> list[list[str]]:
        found, cursor = [], ""
        while True:
            answer = json.loads((await http.post(f"/api/{method}", {**body, "limit": 2, "cursor": cursor}))[1])
            found.append(list(answer["result"][key]))
            cursor = answer["result"].get("cursor", "")
            if not cursor:
                return found

    for body in ({"user": user}, {"channel": channel}):
        found = await pages("connections", "connections", body)
        assert [len(page) for page in found] == [2, 2, 1]
        assert {name for page in found for name in page} == ids
    found = await pages("channels", "channels", {"pattern": f"plain:{user[5:]}:*"})
    assert [len(page) for page in found] == [2, 2, 1]
    assert len({name for page in found for name in page}) == 5
    for client in clients:
        await client.close()


async def test_health_ready_and_metrics(http: Http) -> None:
    for path in ("/health", "/ready"):
        async with http.session.get(http.hub.http_url + path) as response:
            assert response.status == 200, path
    async with http.session.get(http.hub.http_url + "/metrics") as response:
        text = await response.text()
    assert response.status == 200
    assert "# TYPE" in text
