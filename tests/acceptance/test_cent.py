"""`cent`, the official Python library of the server API, against the hub."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import cent
import pytest
import requests

from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token
from tests.support.ws_client import RawClient


def unique(namespace: str) -> str:
    return f"{namespace}:{uuid.uuid4()}"


@pytest.fixture
async def api(hub: HubProcess) -> AsyncIterator[cent.AsyncClient]:
    async with cent.AsyncClient(hub.api_url, hub.api_key) as client:
        yield client


@pytest.fixture
def sync_api(hub: HubProcess) -> Iterator[cent.Client]:
    with requests.Session() as session:
        session.trust_env = False
        yield cent.Client(hub.api_url, hub.api_key, session=session)


async def error_code(call: Any) -> int:
    with pytest.raises(cent.CentApiResponseError) as caught:
        await call
    return caught.value.code


async def connect(hub: HubProcess, user: str, **claims: Any) -> tuple[RawClient, str]:
    client = await RawClient(hub.ws_url).open()
    result = await client.connect(connection_token(user, **claims))
    return client, result["client"]


async def test_publish_and_history(hub: HubProcess, api: cent.AsyncClient) -> None:
    channel = unique("recent")
    async with RawClient(hub.ws_url) as client:
        await client.connect(connection_token())
        await client.call("subscribe", channel=channel)
        first = await api.publish(cent.PublishRequest(channel=channel, data={"n": 1}, tags={"k": "v"}))
        second = await api.publish(cent.PublishRequest(channel=channel, data=[1, 2]))
        encoded = cent.PublishRequest(channel=channel, data=None, b64data="eyJuIjozfQ==")
        assert (await api.publish(encoded)).offset == 3
        assert (first.offset, second.offset) == (1, 2)
        assert first.epoch == second.epoch != ""
        got = await client.publications(channel, 3)
        assert got[0] == {"data": {"n": 1}, "tags": {"k": "v"}, "offset": 1}
        assert [pub["data"] for pub in got] == [{"n": 1}, [1, 2], {"n": 3}]

    history = await api.history(cent.HistoryRequest(channel=channel, limit=10))
    assert (history.offset, history.epoch) == (3, first.epoch)
    assert [(pub.offset, pub.data, pub.tags) for pub in history.publications] == [
        (1, {"n": 1}, {"k": "v"}),
        (2, [1, 2], None),
        (3, {"n": 3}, None),
    ]
    position = await api.history(cent.HistoryRequest(channel=channel))
    assert (position.offset, position.publications) == (3, [])
    since = cent.StreamPosition(offset=1, epoch=first.epoch)
    page = await api.history(cent.HistoryRequest(channel=channel, limit=1, since=since))
    assert [pub.offset for pub in page.publications] == [2]
    page = await api.history(cent.HistoryRequest(channel=channel, limit=-1, reverse=True))
    assert [pub.offset for pub in page.publications] == [3, 2, 1]
    wrong = cent.HistoryRequest(channel=channel, limit=1, since=cent.StreamPosition(offset=1, epoch="another"))
    assert await error_code(api.history(wrong)) == 112

    await api.history_remove(cent.HistoryRemoveRequest(channel=channel))
    left = await api.history(cent.HistoryRequest(channel=channel, limit=10))
    assert (left.publications, left.offset, left.epoch) == ([], 3, first.epoch)
    assert (await api.publish(cent.PublishRequest(channel=channel, data=4))).offset == 4


async def test_publish_without_history_has_no_position(api: cent.AsyncClient) -> None:
    result = await api.publish(cent.PublishRequest(channel=unique("plain"), data=1))
    assert (result.offset, result.epoch) == (0, "")
    skipped = cent.PublishRequest(channel=(channel := unique("recent")), data=1, skip_history=True)
    await api.publish(skipped)
    assert (await api.history(cent.HistoryRequest(channel=channel, limit=10))).publications == []


@pytest.mark.parametrize("namespace", ["recent", "durable"])
async def test_idempotency_key(hub: HubProcess, api: cent.AsyncClient, namespace: str) -> None:
    channel = unique(namespace)
    async with RawClient(hub.ws_url) as client:
        await client.connect(connection_token())
        await client.call("subscribe", channel=channel)
        once = cent.PublishRequest(channel=channel, data="once", idempotency_key="key")
        first = await api.publish(once)
        await api.publish(cent.PublishRequest(channel=channel, data="between", idempotency_key="other"))
        again = await api.publish(once)
        assert (first.offset, first.epoch) == (again.offset, again.epoch) == (1, first.epoch)
        await api.publish(cent.PublishRequest(channel=channel, data="last"))
        assert [pub["data"] for pub in await client.publications(channel, 3)] == ["once", "between", "last"]


@pytest.mark.parametrize("namespace", ["recent", "durable"])
async def test_versions(hub: HubProcess, namespace: str) -> None:
    """A publication whose version is not newer changes nothing and gets the present position."""
    channel = unique(namespace)
    offsets = []
    for version in (5, 5, 4, 6):
        answer = await hub.api_async("publish", {"channel": channel, "data": version, "version": version})
        offsets.append(answer["result"]["offset"])
    again = {"channel": channel, "data": "new epoch", "version": 1, "version_epoch": "second"}
    offsets.append((await hub.api_async("publish", again))["result"]["offset"])
    assert offsets == [1, 1, 1, 2, 3]
    history = (await hub.api_async("history", {"channel": channel, "limit": 10}))["result"]
    assert [pub["data"] for pub in history["publications"]] == [5, 6, "new epoch"]


@pytest.mark.parametrize("namespace", ["plain", "recent", "durable"])
async def test_broadcast(hub: HubProcess, api: cent.AsyncClient, namespace: str) -> None:
    channels = [unique(namespace) for _ in range(3)]
    async with RawClient(hub.ws_url) as client:
        await client.connect(connection_token())
        for channel in channels:
            await client.call("subscribe", channel=channel)
        mixed = [*channels, "nowhere:x"]
        result = await api.broadcast(cent.BroadcastRequest(channels=mixed, data={"to": "all"}))
        for channel in channels:
            assert (await client.publications(channel, 1))[0]["data"] == {"to": "all"}
    assert [response.error.code if response.error else None for response in result.responses] == [None, None, None, 102]
    offsets = [response.result.offset for response in result.responses if response.result]
    assert offsets == [0 if namespace == "plain" else 1] * 3


async def test_presence(hub: HubProcess, api: cent.AsyncClient) -> None:
    channel = unique("room")
    first, first_id = await connect(hub, "ann", info={"nick": "A"})
    second, second_id = await connect(hub, "bob")
    await first.call("subscribe", channel=channel)
    await second.call("subscribe", channel=channel)
    presence = (await api.presence(cent.PresenceRequest(channel=channel))).presence
    assert {key: (info.user, info.client, info.conn_info) for key, info in presence.items()} == {
        first_id: ("ann", first_id, {"nick": "A"}),
        second_id: ("bob", second_id, None),
    }
    stats = await api.presence_stats(cent.PresenceStatsRequest(channel=channel))
    assert (stats.num_clients, stats.num_users) == (2, 2)
    await first.call("unsubscribe", channel=channel)
    await second.call("unsubscribe", channel=channel)
    assert (await api.presence(cent.PresenceRequest(channel=channel))).presence == {}
    stats = await api.presence_stats(cent.PresenceStatsRequest(channel=channel))
    assert (stats.num_clients, stats.num_users) == (0, 0)
    await first.close()
    await second.close()


async def test_channels_and_info(hub: HubProcess, api: cent.AsyncClient) -> None:
    mark = uuid.uuid4().hex
    names = [f"plain:{mark}-{n}" for n in range(3)]
    client, _ = await connect(hub, "ann")
    other, _ = await connect(hub, "bob")
    for name in names:
        await client.call("subscribe", channel=name)
    await other.call("subscribe", channel=names[0])
    found = (await api.channels(cent.ChannelsRequest(pattern=f"plain:{mark}-*"))).channels
    assert {name: info.num_clients for name, info in found.items()} == dict(zip(names, [2, 1, 1], strict=True))
    everything = (await api.channels(cent.ChannelsRequest())).channels
    assert set(names) <= set(everything)
    (node,) = (await api.info(cent.InfoRequest())).nodes
    assert node.uid and node.name and node.version
    assert node.num_clients >= 2 and node.num_users >= 2 and node.num_channels >= 3 and node.num_subs >= 4
    await client.close()
    await other.close()


async def test_connections(hub: HubProcess, api: cent.AsyncClient) -> None:
    user = unique("user")
    client, client_id = await connect(hub, user)
    found = (await api.connections(cent.ConnectionsRequest(user=user, expression=""))).connections
    assert set(found) == {client_id}
    assert (found[client_id].user, found[client_id].transport, found[client_id].protocol) == (user, "websocket", "json")
    await client.close()


async def test_subscribe_and_unsubscribe(hub: HubProcess, api: cent.AsyncClient) -> None:
    user, channel = unique("user"), unique("recent")
    first, first_id = await connect(hub, user)
    second, _ = await connect(hub, user)
    await api.subscribe(cent.SubscribeRequest(user=user, channel=channel, client=first_id, data={"by": "cent"}))
    push = await first.push(lambda push: "subscribe" in push)
    assert push["channel"] == channel
    assert push["subscribe"]["data"] == {"by": "cent"}
    assert push["subscribe"]["recoverable"] is True
    assert push["subscribe"]["epoch"]
    await api.publish(cent.PublishRequest(channel=channel, data=1))
    await first.publications(channel, 1)
    assert await second.request("ping") == {"id": 2, "error": {"code": 108, "message": "not available"}}
    assert second.pushes == []
    await api.unsubscribe(cent.UnsubscribeRequest(user=user, channel=channel))
    push = await first.push(lambda push: "unsubscribe" in push)
    assert push == {"channel": channel, "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}
    # Nobody is connected: success all the same.
    await api.subscribe(cent.SubscribeRequest(user="nobody", channel=channel))
    await first.close()
    await second.close()


async def test_subscribe_with_recovery_and_override(hub: HubProcess, api: cent.AsyncClient) -> None:
    user, channel = unique("user"), unique("closed")
    for n in (1, 2, 3):
        await api.publish(cent.PublishRequest(channel=channel, data=n))
    epoch = (await api.history(cent.HistoryRequest(channel=channel))).epoch
    client, _ = await connect(hub, user)
    override = cent.ChannelOptionsOverride(force_recovery=cent.BoolValue(value=True))
    since = cent.StreamPosition(offset=1, epoch=epoch)
    request = cent.SubscribeRequest(user=user, channel=channel, recover_since=since, override=override)
    await api.subscribe(request)
    await client.push(lambda push: "subscribe" in push)
    got = await client.publications(channel, 2)
    assert [(pub["data"], pub["offset"]) for pub in got] == [(2, 2), (3, 3)]
    await client.close()


async def test_disconnect(hub: HubProcess, api: cent.AsyncClient) -> None:
    user = unique("user")
    first, first_id = await connect(hub, user)
    second, second_id = await connect(hub, user)
    third, _ = await connect(hub, user)
    await api.disconnect(cent.DisconnectRequest(user=user, client=first_id))
    assert await first.wait_closed() == (3503, "force disconnect")
    code = cent.Disconnect(code=4321, reason="bye")
    await api.disconnect(cent.DisconnectRequest(user=user, whitelist=[second_id], disconnect=code))
    assert await third.wait_closed() == (4321, "bye")
    assert (await second.request("ping"))["error"]["code"] == 108
    await second.close()


async def test_refresh(hub: HubProcess, api: cent.AsyncClient) -> None:
    user = unique("user")
    first, first_id = await connect(hub, user)
    second, second_id = await connect(hub, user)
    later = int(time.time()) + 60
    await api.refresh(cent.RefreshRequest(user=user, client=second_id, expire_at=later))
    await api.refresh(cent.RefreshRequest(user=user, client=first_id, expired=True))
    assert await first.wait_closed() == (3005, "connection expired")
    assert (await second.request("ping"))["error"]["code"] == 108
    await second.close()


async def test_batch(api: cent.AsyncClient) -> None:
    channel = unique("recent")
    requests_ = [
        cent.PublishRequest(channel=channel, data=1),
        cent.PublishRequest(channel=channel, data=2),
        cent.HistoryRequest(channel=channel, limit=10),
        cent.BroadcastRequest(channels=[channel, unique("recent")], data=3),
        cent.InfoRequest(),
    ]
    replies: list[Any] = list((await api.batch(cent.BatchRequest(requests=requests_))).replies)
    assert [reply.offset for reply in replies[:2]] == [1, 2]
    assert [pub.data for pub in replies[2].publications] == [1, 2]
    assert [response.result.offset for response in replies[3].responses] == [3, 1]
    assert len(replies[4].nodes) == 1
    parallel = [cent.PublishRequest(channel=unique("recent"), data=n) for n in range(20)]
    replies = list((await api.batch(cent.BatchRequest(requests=parallel, parallel=True))).replies)
    assert [reply.offset for reply in replies] == [1] * 20


async def test_errors(hub: HubProcess, api: cent.AsyncClient) -> None:
    assert await error_code(api.publish(cent.PublishRequest(channel="nowhere:x", data=1))) == 102
    assert await error_code(api.publish(cent.PublishRequest(channel="", data=1))) == 107
    assert await error_code(api.publish(cent.PublishRequest(channel=unique("object"), data=[1]))) == 107
    assert await error_code(api.publish(cent.PublishRequest(channel="x" * 300, data=1))) == 107
    assert await error_code(api.broadcast(cent.BroadcastRequest(channels=[], data=1))) == 107
    assert await error_code(api.history(cent.HistoryRequest(channel=unique("plain")))) == 108
    assert await error_code(api.presence(cent.PresenceRequest(channel=unique("plain")))) == 108
    assert await error_code(api.presence_stats(cent.PresenceStatsRequest(channel=unique("plain")))) == 108
    assert await error_code(api.disconnect(cent.DisconnectRequest(user=""))) == 107
    async with cent.AsyncClient(hub.api_url, "wrong key") as wrong:
        with pytest.raises(cent.CentUnauthorizedError):
            await wrong.info(cent.InfoRequest())


def test_blocking_client(sync_api: cent.Client, hub: HubProcess) -> None:
    channel = unique("durable")
    for n in range(3):
        assert sync_api.publish(cent.PublishRequest(channel=channel, data={"n": n})).offset == n + 1
    history = sync_api.history(cent.HistoryRequest(channel=channel, limit=10))
    assert [pub.data["n"] for pub in history.publications] == [0, 1, 2]
    assert sync_api.info(cent.InfoRequest()).nodes[0].name
    with pytest.raises(cent.CentApiResponseError) as caught:
        sync_api.publish(cent.PublishRequest(channel="nowhere:x", data=1))
    assert caught.value.code == 102
    assert json.loads(json.dumps(history.epoch)) == sync_api.history(cent.HistoryRequest(channel=channel)).epoch
