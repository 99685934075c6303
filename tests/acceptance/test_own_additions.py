"""What the hub adds to the protocol, used as its own users would: each test is one addition, or one setting."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
import uuid
from typing import Any

import pytest
import websockets.exceptions

from tests.acceptance import js_scenario
from tests.support.hub_config import APP, TOKEN_SECRET
from tests.support.hub_process import ROOT, HubProcess
from tests.support.python_sdk import Clients, subscribed
from tests.support.tokens import connection_token, subscription_token
from tests.support.ws_client import RawClient


def unique(namespace: str) -> str:
    return f"{namespace}:{uuid.uuid4()}"


async def result(hub: HubProcess, method: str, /, **payload: Any) -> Any:
    answer = await hub.api_async(method, payload)
    assert "error" not in answer, answer
    return answer["result"]


@pytest.mark.parametrize("namespace", ["plain", "recent", "durable"])
async def test_client_spares_itself(hub: HubProcess, namespace: str) -> None:
    """`exclude_client` of a client's publish: all others get it, and recovery does not bring it back to the sender."""
    channel = unique(namespace)
    async with RawClient(hub.ws_url) as sender, RawClient(hub.ws_url) as other:
        for client in (sender, other):
            await client.connect(connection_token())
            await client.call("subscribe", channel=channel)
        await sender.call("publish", channel=channel, data="for others", exclude_client=True)
        await sender.call("publish", channel=channel, data="for all")
        assert [pub["data"] for pub in await other.publications(channel, 2)] == ["for others", "for all"]
        await sender.publications(channel, 1)
        await sender.request("ping")
        assert [pub["data"] for pub in await sender.publications(channel, 1)] == ["for all"]


@pytest.mark.parametrize("namespace", ["recent", "durable"])
async def test_history_by_time(hub: HubProcess, namespace: str) -> None:
    channel = unique(namespace)
    for n in range(3):
        await result(hub, "publish", channel=channel, data=n)
    middle = int(time.time() * 1000) + 1
    while time.time() * 1000 <= middle + 1:
        pass
    for n in range(3, 6):
        await result(hub, "publish", channel=channel, data=n)

    async def read(**query: Any) -> list[int]:
        page = await result(hub, "history", channel=channel, **query)
        return [pub["data"] for pub in page["publications"]]

    assert await read(limit=-1, since_time=middle) == [3, 4, 5]
    assert await read(limit=-1, until_time=middle) == [0, 1, 2]
    assert await read(limit=2, since_time=middle) == [3, 4]
    assert await read(limit=2, until_time=middle, reverse=True) == [2, 1]
    assert await read(limit=-1, since_time=1, until_time=2**53 - 1) == list(range(6))
    page = await result(hub, "history", channel=channel, limit=1)
    assert abs(page["publications"][0]["time"] - time.time() * 1000) < 60_000


@pytest.mark.parametrize("namespace", ["recent", "durable"])
async def test_redaction(hub: HubProcess, namespace: str) -> None:
    """A payload is replaced or removed; no other publication changes its offset, and recovery goes past the gap."""
    channel = unique(namespace)
    for n in range(1, 5):
        position = await result(hub, "publish", channel=channel, data=n)
    assert await result(hub, "history_redact", channel=channel, offset=2, data="redacted") == {"redacted": True}
    assert await result(hub, "history_redact", channel=channel, offset=3) == {"redacted": True}
    assert await result(hub, "history_redact", channel=channel, offset=9) == {"redacted": False}
    page = await result(hub, "history", channel=channel, limit=-1)
    assert [(pub["offset"], pub["data"]) for pub in page["publications"]] == [(1, 1), (2, "redacted"), (4, 4)]
    assert page["offset"] == 4
    async with RawClient(hub.ws_url) as client:
        await client.connect(connection_token())
        reply = await client.call("subscribe", channel=channel, recover=True, offset=1, epoch=position["epoch"])
        assert reply["recovered"] is True
        await result(hub, "publish", channel=channel, data=5)
        await client.publications(channel, 1)
        got = [*reply.get("publications", []), *await client.publications(channel, 1)]
        assert [(pub["offset"], pub["data"]) for pub in got] == [(2, "redacted"), (4, 4), (5, 5)]


async def test_api_method_of_the_application(hub: HubProcess) -> None:
    assert await result(hub, "rpc", method="double", params={"n": 21}) == {"data": {"doubled": 42}}
    answer = await hub.api_async("rpc", {"method": "nothing"})
    assert answer["error"]["code"] == 104


async def test_json_subprotocol_is_confirmed(hub: HubProcess) -> None:
    async with RawClient(hub.ws_url, subprotocols=["centrifuge-json"]) as client:
        assert client.subprotocol == "centrifuge-json"
        await client.connect(connection_token())
    async with RawClient(hub.ws_url) as client:
        assert client.subprotocol is None


async def test_server_time_and_user_header() -> None:
    changes = {"client": {"connect_include_server_time": True, "user_id_http_header": "X-User"}}
    async with HubProcess(changes=changes, app=APP) as hub:
        async with RawClient(hub.ws_url, headers={"X-User": "proxied"}) as client:
            reply = await client.connect()
            assert abs(reply["time"] - time.time() * 1000) < 60_000
            assert (await client.call("rpc", method="whoami", data=None))["data"]["user"] == "proxied"
        async with RawClient(hub.ws_url) as client:
            await client.connect(connection_token("with a token"))


async def test_two_keys_at_once() -> None:
    """Rotation: tokens of the previous secret are good until the time that is set."""
    old = "the-previous-secret-of-at-least-32-bytes"
    token = {"hmac_secret_key": TOKEN_SECRET, "hmac_previous_secret_key": old}
    async with HubProcess(changes={"client": {"token": token}}) as hub:
        for secret in (TOKEN_SECRET, old):
            async with RawClient(hub.ws_url) as client:
                await client.connect(connection_token(secret=secret))
    token["hmac_previous_secret_key_valid_until"] = int(time.time()) - 10  # type: ignore[assignment]
    async with HubProcess(changes={"client": {"token": token}}) as hub, RawClient(hub.ws_url) as client:
        await client.send({"connect": {"token": connection_token(secret=old)}})
        assert await client.wait_closed() == (3500, "invalid token")


async def test_audience_issuer_user_claim_and_separate_subscription_key() -> None:
    other = "a-secret-for-subscription-tokens-alone-32"
    changes = {
        "client": {
            "token": {"audience": "web", "issuer": "us", "user_id_claim": "uid"},
            "subscription_token": {"enabled": True, "hmac_secret_key": other},
        }
    }
    async with HubProcess(changes=changes, app=APP) as hub:
        async with RawClient(hub.ws_url) as client:
            await client.connect(connection_token("", aud=["web", "app"], iss="us", uid="u7"))
            assert (await client.call("rpc", method="whoami", data=None))["data"]["user"] == "u7"
            channel = unique("closed")
            mistaken = subscription_token(channel, "u7", aud="web", iss="us", uid="u7")
            assert await client.error("subscribe", channel=channel, token=mistaken) == 103
            await client.call("subscribe", channel=channel, token=subscription_token(channel, "u7", secret=other))
        wrong: list[dict[str, Any]] = [{"aud": "app", "iss": "us"}, {"aud": "web", "iss": "them"}, {}]
        for claims in wrong:
            async with RawClient(hub.ws_url) as client:
                await client.send({"connect": {"token": connection_token("u7", uid="u7", **claims)}})
                assert await client.wait_closed() == (3500, "invalid token"), claims


async def test_tokens_of_the_command_line(hub: HubProcess) -> None:
    def made(*arguments: str) -> str:
        line = [sys.executable, "-m", "hub", "token", "--config", str(hub.config_path), *arguments]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    channel = unique("closed")
    clients = Clients(hub.ws_url)
    try:
        client, _ = await clients.connected(token=made("--user", "cli", "--ttl", "1m", "--info", '{"nick":"C"}'))
        assert (await client.rpc("whoami", None)).data["info"] == {"nick": "C"}
        await subscribed(client, channel, token=made("--user", "cli", "--channel", channel))
    finally:
        await clients.close()


@pytest.mark.needs("js-sdk")
def test_compression(node: str) -> None:
    """The `ws` package offers permessage-deflate by itself: with it the SDK sees just the same."""
    with HubProcess(app=APP, changes={"websocket": {"compression": True}}) as hub:
        for file, name in (
            ("session.mjs", "rpc_results_and_errors"),
            ("session.mjs", "oversized_message_is_terminal"),
            ("channels.mjs", "publishes_to_all_subscribers"),
            ("recovery.mjs", "recovers_while_publishing_goes_on"),
            ("recovery.mjs", "deltas"),
        ):
            js_scenario.run(node, hub, file, name)


async def test_compression_is_off_unless_asked_for(hub: HubProcess) -> None:
    async with websockets.connect(hub.ws_url, proxy=None, compression="deflate") as socket:
        assert socket.response is not None
        assert "Sec-WebSocket-Extensions" not in socket.response.headers


async def test_drain() -> None:
    """On SIGTERM clients are closed with 3001 over `drain.window`; nobody new comes in, and the hub ends with 0."""
    async with HubProcess(changes={"drain": {"window": "1s", "timeout": "5s"}}) as hub:
        clients = [await RawClient(hub.ws_url).open() for _ in range(5)]
        for client in clients:
            await client.connect(connection_token())
        hub.send_signal(signal.SIGTERM)
        for client in clients:
            assert await client.wait_closed() == (3001, "shutdown")
        with pytest.raises((OSError, websockets.exceptions.WebSocketException)):
            await RawClient(hub.ws_url).open()
        assert await asyncio.to_thread(hub.wait) == 0


async def test_second_signal_leaves_at_once() -> None:
    """A client that does not answer its close frame delays the end, until the second signal."""
    async with HubProcess(changes={"drain": {"window": "200ms", "timeout": "15s"}}) as hub:
        client = await RawClient(hub.ws_url).open()
        await client.connect(connection_token())
        client.pause_reading()
        hub.send_signal(signal.SIGTERM)
        await asyncio.to_thread(hub.wait_log, "draining")
        hub.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(hub.wait, 4) != 0
        client.resume_reading()
        await client.wait_closed()
