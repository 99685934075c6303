"""Codes that SDKs hide or cannot provoke, seen on the bare connection."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets.exceptions

from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token, subscription_token
from tests.support.ws_client import RawClient


def unique(namespace: str) -> str:
    return f"{namespace}:{uuid.uuid4()}"


@pytest.fixture
async def raw(hub: HubProcess) -> AsyncIterator[RawClient]:
    async with RawClient(hub.ws_url) as client:
        yield client


@pytest.fixture
async def client(raw: RawClient) -> RawClient:
    await raw.connect(connection_token())
    return raw


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "nonsense",
        "[]",
        "5",
        '{"id":1}',
        '{"id":1,"nothing":{}}',
        '{"id":1,"subscribe":{"channel":"plain:x"}}',
        '{"id":0,"connect":{}}',
        '{"id":-1,"connect":{}}',
        '{"id":4294967296,"connect":{}}',
        '{"id":1,"connect":[]}',
        '{"id":1,"connect":{"token":5}}',
        "{}",
        '{"connect":{}}',
        '{"id":1,"connect":{}}',
        b'{"id":1,"connect":{}}',
    ],
)
async def test_bad_first_frames(raw: RawClient, frame: str | bytes) -> None:
    await raw.send_frame(frame)
    code, _ = await raw.wait_closed()
    assert code in ({1003, 3501} if isinstance(frame, bytes) else {3501})


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "nonsense",
        '{"id":9}',
        '{"id":9,"connect":{}}',
        '{"id":9,"subscribe":{}}',
        '{"id":9,"subscribe":{"channel":""}}',
        '{"id":9,"subscribe":{"channel":"delta:x","delta":"unknown"}}',
        '{"id":9,"refresh":{}}',
        "{}",
        '{"id":9,"rpc":{"method":"echo","data":1}}\n{"id":10',
    ],
)
async def test_bad_later_frames(client: RawClient, frame: str) -> None:
    await client.send_frame(frame)
    assert await client.wait_closed() == (3501, "bad request")


async def test_connection_without_a_connect_is_stale(short_hub: HubProcess) -> None:
    async with RawClient(short_hub.ws_url) as client:
        assert await client.wait_closed() == (3502, "stale")


async def test_missing_pong(short_hub: HubProcess) -> None:
    async with RawClient(short_hub.ws_url, answer_pings=False) as client:
        result = await client.connect(connection_token())
        assert (result["ping"], result["pong"]) == (2, True)
        assert await client.wait_closed() == (3012, "no pong")


async def test_token_that_is_not_refreshed(short_hub: HubProcess) -> None:
    async with RawClient(short_hub.ws_url) as client:
        result = await client.connect(connection_token(ttl=2))
        assert result["expires"] is True
        assert result["ttl"] in (1, 2)
        assert await client.wait_closed() == (3005, "connection expired")


async def test_subscription_token_that_is_not_refreshed(short_hub: HubProcess) -> None:
    async with RawClient(short_hub.ws_url) as client:
        await client.connect(connection_token())
        channel = unique("closed")
        result = await client.call("subscribe", channel=channel, token=subscription_token(channel, ttl=2))
        assert result["expires"] is True
        push = await client.push(lambda push: "unsubscribe" in push)
        assert push == {"channel": channel, "unsubscribe": {"code": 2501, "reason": "subscription expired"}}


async def test_channel_limit(short_hub: HubProcess) -> None:
    """Five channels at most; the personal one is one of them."""
    async with RawClient(short_hub.ws_url) as client:
        await client.connect(connection_token("limited"))
        for _ in range(4):
            await client.call("subscribe", channel=unique("plain"))
        assert await client.error("subscribe", channel=unique("plain")) == 106
    async with RawClient(short_hub.ws_url) as client:
        await client.send({"connect": {"token": connection_token(channels=[unique("plain") for _ in range(6)])}})
        assert await client.wait_closed() == (3505, "channel limit")


async def test_errors_that_keep_the_connection(client: RawClient) -> None:
    channel = unique("plain")
    await client.call("subscribe", channel=channel)
    assert await client.error("subscribe", channel=channel) == 105
    assert await client.error("sub_refresh", channel=unique("plain"), token=subscription_token("x")) == 103
    assert await client.error("publish", channel=channel) == 107
    assert await client.error("publish", channel=unique("nowhere"), data=1) == 102
    assert await client.error("ping") == 108
    assert await client.error("rpc", method="nothing") == 104
    assert await client.call("unsubscribe", channel=unique("plain")) == {}
    assert await client.call("unsubscribe", channel=channel) == {}


async def test_reject_unrecovered_flag(hub: HubProcess, client: RawClient) -> None:
    channel = unique("recent")
    request: dict[str, Any] = {"channel": channel, "recover": True, "epoch": "another", "offset": 3}
    await hub.api_async("publish", {"channel": channel, "data": 1})
    assert await client.error("subscribe", **request, flag=2) == 112
    result = await client.call("subscribe", **request)
    assert result["was_recovering"] is True
    assert "recovered" not in result
    assert "publications" not in result
    assert result["offset"] == 1


async def test_connect_and_subscribe_in_the_first_frame(raw: RawClient) -> None:
    """As the JavaScript SDK does it: the replies come in order."""
    channel = unique("recent")
    ids = await raw.send(
        {"connect": {"token": connection_token()}},
        {"subscribe": {"channel": channel}},
        {"publish": {"channel": channel, "data": {"n": 1}}},
        {"history": {"channel": channel, "limit": 1}},
    )
    await raw.reply(ids[-1])
    assert [message["id"] for message in raw.messages if "id" in message] == ids
    assert raw.replies[ids[2]] == {"id": ids[2], "publish": {}}
    (pub,) = await raw.publications(channel, 1)
    assert pub["offset"] == 1


async def test_expired_token_then_anything_is_a_bad_request(raw: RawClient) -> None:
    assert await raw.error("connect", token=connection_token(ttl=-10)) == 109
    await raw.send({"rpc": {"method": "echo", "data": 1}})
    assert await raw.wait_closed() == (3501, "bad request")


async def test_too_large_message(client: RawClient) -> None:
    await client.send_frame('{"id":5,"rpc":{"method":"echo","data":"' + "x" * 70_000 + '"}}')
    code, _ = await client.wait_closed()
    assert code == 1009


async def test_flood_gets_111_and_then_3013(client: RawClient) -> None:
    """The default is 200 calls at once, and a disconnect after 100 refusals."""
    for first in range(0, 1000, 100):
        frame = "\n".join(f'{{"id":{n},"rpc":{{"method":"echo","data":1}}}}' for n in range(first + 10, first + 110))
        try:
            await client.send_frame(frame)
        except websockets.exceptions.ConnectionClosed:
            break
    assert await client.wait_closed() == (3013, "too many requests")
    errors = [message["error"] for message in client.messages if "error" in message]
    assert errors
    assert all(error == {"code": 111, "message": "too many requests", "temporary": True} for error in errors)


async def test_no_message_handler_is_not_available() -> None:
    """Without an application `send` and `rpc` have nowhere to go."""
    async with HubProcess() as hub, RawClient(hub.ws_url) as client:
        await client.connect(connection_token())
        assert await client.error("rpc", method="echo", data=1) == 108
        await client.send({"send": {"data": 1}})
        assert await client.wait_closed() == (3508, "not available")


async def test_origins(hub: HubProcess) -> None:
    async with RawClient(hub.ws_url, origin="http://allowed.example") as client:
        await client.connect(connection_token())
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
        await RawClient(hub.ws_url, origin="http://evil.example").open()
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize(
    ("changes", "claims", "closed"),
    [
        ({"allow_anonymous_connect_without_token": True}, None, None),
        ({"disallow_anonymous_connection_tokens": True}, {"user": ""}, (3507, "permission denied")),
        ({"insecure": True}, None, None),
    ],
)
async def test_anonymous_variants(changes: Any, claims: Any, closed: Any) -> None:
    async with HubProcess(changes={"client": changes}) as hub, RawClient(hub.ws_url) as client:
        fields = {} if claims is None else {"token": connection_token(**claims)}
        await client.send({"connect": fields})
        if closed:
            assert await client.wait_closed() == closed
            return
        assert (await client.reply(1))["connect"]["client"]
        insecure = "insecure" in changes
        channel = unique("anon")
        await client.call("subscribe", channel=channel)
        await client.call("publish", channel=channel, data=1)
        await client.call("history", channel=channel, limit=1)
        await client.call("presence", channel=channel)
        refused = await client.request("subscribe", channel=unique("recent"))
        assert ("error" in refused) is not insecure
        if not insecure:
            assert refused["error"]["code"] == 103


async def test_single_connection_of_a_user() -> None:
    personal = {"enabled": True, "personal_channel_namespace": "personal", "single_connection": True}
    changes = {"client": {"subscribe_to_user_personal_channel": personal}}
    async with HubProcess(changes=changes) as hub, RawClient(hub.ws_url) as first, RawClient(hub.ws_url) as second:
        await first.connect(connection_token("one"))
        await second.connect(connection_token("one"))
        assert await first.wait_closed() == (3504, "connection limit")
        assert await second.error("ping") == 108


async def test_connection_limits() -> None:
    async with HubProcess(changes={"client": {"user_connection_limit": 2, "connection_limit": 3}}) as hub:
        clients = [await RawClient(hub.ws_url).open() for _ in range(3)]
        await clients[0].connect(connection_token("one"))
        await clients[1].connect(connection_token("one"))
        with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
            await RawClient(hub.ws_url).open()
        assert caught.value.response.status_code == 503
        await clients[2].send({"connect": {"token": connection_token("one")}})
        assert await clients[2].wait_closed() == (3504, "connection limit")
        for client in clients:
            await client.close()
