"""The official Python SDK against the hub."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from functools import partial

import pytest
from centrifuge import DeltaType, Filter, StreamPosition

from tests.support.hub_process import HubProcess
from tests.support.python_sdk import Clients, SubscriptionLog, error_code, subscribed
from tests.support.tcp_proxy import TcpProxy
from tests.support.tokens import connection_token, subscription_token


def unique(namespace: str) -> str:
    return f"{namespace}:{uuid.uuid4()}"


@pytest.fixture
async def clients(hub: HubProcess) -> AsyncIterator[Clients]:
    made = Clients(hub.ws_url)
    yield made
    await made.close()


@pytest.fixture
async def short_clients(short_hub: HubProcess) -> AsyncIterator[Clients]:
    made = Clients(short_hub.ws_url)
    yield made
    await made.close()


async def publish(hub: HubProcess, channel: str, *values: object, **rest: object) -> None:
    for value in values:
        answer = await hub.api_async("publish", {"channel": channel, "data": value, **rest})
        assert "error" not in answer, answer


async def test_connects_with_an_empty_subprotocol_header(clients: Clients) -> None:
    """The SDK sent `Sec-WebSocket-Protocol:` without a value up to version 0.6; many servers refuse that."""
    client, log = await clients.connected(headers={"Sec-WebSocket-Protocol": ""})
    context = log.of("connected")[0]
    assert str(uuid.UUID(context.client)) == context.client
    assert context.version
    assert (await client.rpc("echo", {"a": [1, None, "ü"]})).data == {"a": [1, None, "ü"]}
    await client.disconnect()
    assert (await log.wait("disconnected")).code == 0


async def test_calls_and_their_errors(clients: Clients) -> None:
    client, log = await clients.connected("py", data={"app": {"info": {"nick": "P"}}}, name="py-test", version="9")
    assert log.of("connected")[0].data == {"name": "py-test", "version": "9", "user": "py"}
    assert (await client.rpc("whoami", None)).data["info"] == {"nick": "P"}
    assert await error_code(client.rpc("nothing", {})) == 104
    assert await error_code(client.rpc("refuse", {})) == 1042
    assert await error_code(client.publish(unique("read"), 1)) == 103
    assert await error_code(client.publish(unique("nowhere"), 1)) == 102
    assert await error_code(client.history(unique("plain"), limit=1)) == 108
    assert await error_code(client.presence(unique("plain"))) == 108


async def test_publish_history_and_positions(clients: Clients) -> None:
    ann, _ = await clients.connected("ann")
    bob, _ = await clients.connected("bob")
    channel = unique("recent")
    mine, heard = await subscribed(ann, channel)
    _, also_heard = await subscribed(bob, channel)
    for n in range(1, 8):
        await mine.publish({"n": n})
    expected = [{"n": n} for n in range(1, 8)]
    assert await heard.publications(7) == expected
    assert await also_heard.publications(7) == expected
    first = heard.of("publication")[0].pub
    assert (first.offset, first.info.user, first.info.client) == (1, "ann", ann.client_id)

    position = await mine.history(limit=0)
    assert (position.publications, position.offset) == ([], 7)
    since = StreamPosition(offset=3, epoch=position.epoch)
    forwards = await mine.history(limit=2, since=since)
    assert [pub.data["n"] for pub in forwards.publications] == [4, 5]
    backwards = await mine.history(limit=2, since=since, reverse=True)
    assert [pub.data["n"] for pub in backwards.publications] == [2, 1]
    assert await error_code(mine.history(limit=1, since=StreamPosition(1, "another"))) == 112


async def test_presence_and_joins_of_two_clients(clients: Clients) -> None:
    ann, _ = await clients.connected("ann", token=connection_token("ann", info={"nick": "A"}))
    bob, _ = await clients.connected("bob")
    channel = unique("room")
    first, seen = await subscribed(ann, channel)
    assert (await seen.wait("join")).info.user == "ann"
    second, _ = await subscribed(bob, channel)
    joined = (await seen.wait("join", 2)).info
    assert (joined.user, joined.client) == ("bob", bob.client_id)
    present = (await first.presence()).clients
    assert {info.user: info.conn_info for info in present.values()} == {"ann": {"nick": "A"}, "bob": None}
    stats = await second.presence_stats()
    assert (stats.num_clients, stats.num_users) == (2, 2)
    await second.unsubscribe()
    assert (await seen.wait("leave")).info.client == bob.client_id
    assert set((await first.presence()).clients) == {ann.client_id}


@pytest.mark.parametrize(
    ("channel", "code"),
    [("closed:x", 103), ("$read:x", 103), ("nowhere:x", 102), ("digits:x", 107), ("app:refused", 1043)],
)
async def test_subscription_refused_with_the_right_code(clients: Clients, channel: str, code: int) -> None:
    client, _ = await clients.connected()
    log = SubscriptionLog()
    await client.new_subscription(channel, log).subscribe()
    assert (await log.wait("unsubscribed")).code == code
    await client.rpc("echo", "still connected")


async def test_tokens_that_are_refused_and_renewed(clients: Clients) -> None:
    client, log = clients.make(token=connection_token(secret="another-secret-of-at-least-32-bytes"))
    await client.connect()
    assert (await log.wait("disconnected")).code == 3500

    async def renewed() -> str:
        return connection_token("late")

    client, log = await clients.connected(token=connection_token("late", ttl=-5), get_token=renewed)
    assert log.of("error")[0].error.code == 109
    assert (await client.rpc("whoami", None)).data["user"] == "late"

    async def for_channel(channel: str) -> str:
        return subscription_token(channel, "late", data={"welcome": True})

    channel = unique("closed")
    expired = subscription_token(channel, "late", ttl=-5)
    _, events = await subscribed(client, channel, token=expired, get_token=for_channel)
    assert events.of("error")[0].error.code == 109
    assert events.of("subscribed")[0].data == {"welcome": True}


async def test_tokens_refreshed_on_the_live_connection(short_hub: HubProcess, short_clients: Clients) -> None:
    """Both tokens live 2 s and an expired one is tolerated for 1 s: who is still there after 5 s has refreshed."""
    asked: list[str] = []

    async def token() -> str:
        asked.append("connection")
        return connection_token("py")

    async def channel_token(channel: str) -> str:
        asked.append(channel)
        return subscription_token(channel, "py", ttl=2 if asked.count(channel) == 1 else 3600)

    channel = unique("closed")
    client, log = await short_clients.connected(token=connection_token("py", ttl=2), get_token=token)
    _, events = await subscribed(client, channel, get_token=channel_token)
    end = time.monotonic() + 5
    count = 0
    while time.monotonic() < end:
        count += 1
        await publish(short_hub, channel, count)
        await events.publications(count)
    assert sorted(asked) == sorted(["connection", channel, channel])
    assert len(log.of("connecting")) == 1 and not log.of("disconnected")
    assert [name for name, _ in events.events if name != "publication"] == ["subscribing", "subscribed"]


async def test_server_side_subscriptions(hub: HubProcess, clients: Clients) -> None:
    user, channel, later = unique("user"), unique("recent"), unique("room")
    client, log = clients.make(token=connection_token(user, channels=[channel]))
    await client.connect()
    context = await log.wait("subscribed")
    assert (context.channel, context.recoverable) == (channel, True)
    await hub.api_async("subscribe", {"user": user, "channel": later, "data": {"by": "api"}})
    context = await log.wait("subscribed", 2)
    assert (context.channel, context.data) == (later, {"by": "api"})
    assert (await log.wait("join")).info.user == user
    await publish(hub, channel, 1)
    await publish(hub, later, 2)
    assert sorted(await log.publications(2)) == [1, 2]
    await hub.api_async("unsubscribe", {"user": user, "channel": later})
    assert (await log.wait("unsubscribed")).channel == later
    await hub.api_async("disconnect", {"user": user})
    assert (await log.wait("disconnected")).code == 3503


async def test_recovery_after_a_cut_connection(hub: HubProcess, clients: Clients) -> None:
    channels = {name: unique(name) for name in ("recent", "cache", "short", "durable")}
    async with TcpProxy(hub.port) as proxy:
        client, log = await clients.connected(url=proxy.ws_url)
        logs = {}
        for name, channel in channels.items():
            _, logs[name] = await subscribed(client, channel)
            await publish(hub, channel, 1, 2)
            assert await logs[name].publications(2) == [1, 2]
        proxy.cut()
        await log.wait("connecting", 2)
        for channel in channels.values():
            await publish(hub, channel, *range(3, 13))
        proxy.heal()
        outcome = {}

        def seen(log: SubscriptionLog) -> bool:
            return 13 in log.data

        for name, channel in channels.items():
            context = await logs[name].wait("subscribed", 2)
            assert context.was_recovering
            outcome[name] = context.recovered
            await publish(hub, channel, 13)
            await logs[name].until(partial(seen, logs[name]), "the last one")
        assert outcome == {"recent": True, "cache": True, "short": False, "durable": True}
        assert {name: log.data for name, log in logs.items()} == {
            "recent": list(range(1, 14)),
            "cache": [1, 2, 12, 13],
            "short": [1, 2, 13],
            "durable": list(range(1, 14)),
        }
        await client.disconnect()


async def test_deltas_and_filters(hub: HubProcess, clients: Clients) -> None:
    client, _ = await clients.connected()
    channel = unique("delta")
    _, log = await subscribed(client, channel, delta=DeltaType.FOSSIL)
    values = [{"n": n, "text": "lorem ipsum dolor sit amet " * 10} for n in range(5)]
    await publish(hub, channel, *values, delta=True)
    assert await log.publications(5) == values

    channel = unique("tags")
    _, log = await subscribed(client, channel, tags_filter=Filter.gte("size", "10"))
    for size in (5, 10, 9.5, 11):
        await publish(hub, channel, size, tags={"size": str(size)})
    assert await log.publications(2) == [10, 11]


async def test_api_unsubscribe_and_custom_disconnect(hub: HubProcess, clients: Clients) -> None:
    user, channel = unique("user"), unique("recent")
    client, log = await clients.connected(user)
    _, events = await subscribed(client, channel)
    await hub.api_async("unsubscribe", {"user": user, "channel": channel})
    assert (await events.wait("unsubscribed")).code == 2000
    await hub.api_async("disconnect", {"user": user, "disconnect": {"code": 4001, "reason": "come back"}})
    assert (await log.wait("connecting", 2)).code == 4001
    await log.wait("connected", 2)
