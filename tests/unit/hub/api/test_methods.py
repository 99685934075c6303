"""Tests of hub.api.methods: what a backend may ask, one method after the other."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from channels.errors import BadRequest, ChannelError, NotAvailable, UnknownChannel, Unrecoverable
from hub import codes
from hub.api.methods import Methods, error_result, paged, payload, raw_json
from hub.app import App
from hub.codes import ReplyError
from storage.sqlite import SQLiteStore
from tests.support.doubtful import GatedStore
from tests.support.inprocess import InProcessHub, Peer, running
from tests.support.tokens import connection_token


async def call(hub: InProcessHub, name: str, **request: Any) -> Any:
    """Call a method with a request as it would come, and return its result as it would go."""
    kind, function = Methods(hub.node).table[name]
    return orjson.loads(orjson.dumps(await function(msgspec.json.decode(orjson.dumps(request), type=kind))))


async def user(hub: InProcessHub, name: str = "42") -> Peer:
    return await hub.connected(token=connection_token(name))


class TestPublishing:
    @pytest.mark.parametrize("channel", ["recent:x", "durable:x"])
    async def test_publish(self, node_hub: InProcessHub, channel: str) -> None:
        peer = await node_hub.subscribed(channel)
        result = await call(node_hub, "publish", channel=channel, data={"a": 1}, tags={"k": "v"})
        assert (result["offset"], bool(result["epoch"])) == (1, True)
        await call(node_hub, "publish", channel=channel, b64data=base64.b64encode(b"[2]").decode())
        await call(node_hub, "publish", channel=channel, data=3, exclude_client=peer.session.client)
        assert await call(node_hub, "publish", channel=channel, data=4, skip_history=True) == {}
        await node_hub.settled()
        assert [each["data"] for each in sorted(peer.pushes(channel), key=lambda each: each.get("offset", 9))] == [
            {"a": 1},
            [2],
            4,
        ]
        assert node_hub.metrics.publications_in == {"api": 4}

    async def test_without_history_there_is_no_position(self, node_hub: InProcessHub) -> None:
        assert await call(node_hub, "publish", channel="plain:x", data=1) == {}

    @pytest.mark.parametrize("channel", ["recent:x", "durable:x"])
    async def test_repeats_and_old_versions(self, node_hub: InProcessHub, channel: str) -> None:
        first = await call(node_hub, "publish", channel=channel, data=1, idempotency_key="k")
        assert await call(node_hub, "publish", channel=channel, data=2, idempotency_key="k") == first
        assert (await call(node_hub, "publish", channel=channel, data=3, version=2**64 - 1))["offset"] == 2
        assert (await call(node_hub, "publish", channel=channel, data=4, version=5))["offset"] == 2

    @pytest.mark.parametrize(
        ("request_", "error"),
        [
            ({"channel": "nowhere:x", "data": 1}, UnknownChannel),
            ({"channel": "plain:x"}, BadRequest),
            ({"channel": "plain:x", "b64data": "%"}, BadRequest),
            ({"channel": "object:x", "data": 1}, BadRequest),
        ],
    )
    async def test_refused(self, node_hub: InProcessHub, request_: dict[str, Any], error: type[ChannelError]) -> None:
        with pytest.raises(error):
            await call(node_hub, "publish", **request_)

    async def test_broadcast(self, node_hub: InProcessHub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("hub.api.methods.AT_ONCE", 2)
        result = await call(node_hub, "broadcast", channels=["recent:a", "nowhere:x", "plain:x", "durable:a"], data=1)
        first, second, third, fourth = result["responses"]
        assert first["result"]["offset"] == fourth["result"]["offset"] == 1
        assert second["error"]["code"] == 102
        assert third == {"result": {}}


class TestSessions:
    async def test_subscribe(self, node_hub: InProcessHub) -> None:
        await node_hub.publish("recent:x", 1, 2)
        peers = [await user(node_hub) for _ in range(2)]
        other = await user(node_hub, "43")
        request: dict[str, Any] = {"user": "42", "channel": "recent:x", "data": {"d": 1}, "info": {"i": 1}}
        assert await call(node_hub, "subscribe", **request, recover_since={"offset": 1}) == {}
        assert await call(node_hub, "subscribe", **request) == {}, "nothing is done twice"
        await node_hub.settled()
        for peer in peers:
            [push] = peer.pushes("recent:x", "subscribe")
            assert (push["data"], push["offset"], push["recoverable"]) == ({"d": 1}, 1, True)
            assert peer.data("recent:x") == [2]
            assert peer.session.subscriptions["recent:x"].server_side
        assert not other.session.subscriptions
        assert await call(node_hub, "subscribe", user="nobody", channel="plain:x") == {}

    async def test_subscribe_one_session(self, node_hub: InProcessHub) -> None:
        peers = [await user(node_hub) for _ in range(2)]
        await call(node_hub, "subscribe", user="42", channel="plain:x", client=peers[1].session.client)
        assert [len(each.session.subscriptions) for each in peers] == [0, 1]

    async def test_subscribe_above_the_limit(self, tmp_path: Path) -> None:
        async with running(tmp_path, client={"channel_limit": 1}) as hub:
            await user(hub)
            await call(hub, "subscribe", user="42", channel="plain:x")
            with pytest.raises(ReplyError) as caught:
                await call(hub, "subscribe", user="42", channel="plain:y")
            assert caught.value.error is codes.LIMIT_EXCEEDED

    async def test_unsubscribe(self, node_hub: InProcessHub) -> None:
        peer = await user(node_hub)
        for each in ("plain:x", "plain:y", "here:z"):
            await peer.result(subscribe={"channel": each})
        await call(node_hub, "unsubscribe", user="42", channel="plain:x")
        assert peer.pushes("plain:x", "unsubscribe") == [{"code": 2000, "reason": "server unsubscribe"}]
        assert set(peer.session.subscriptions) == {"plain:y", "here:z"}
        await call(node_hub, "unsubscribe", user="42")
        assert not peer.session.subscriptions
        await node_hub.settled()
        assert not node_hub.node.fanouts
        with pytest.raises(UnknownChannel):
            await call(node_hub, "unsubscribe", user="42", channel="nowhere:x")

    async def test_unsubscribe_ends_only_what_was_under_way(self, tmp_path: Path) -> None:
        """A subscribe that was under way was taken back, and failed by itself: the next one was taken back as well."""
        store = GatedStore(SQLiteStore(tmp_path / "hub.sqlite3"))
        async with running(tmp_path, store=store) as hub:
            peer = await user(hub)
            store.reads.shut()
            number = peer.start(subscribe={"channel": "durable:x", "recover": True, "epoch": "another", "flag": 2})
            await store.reads.reached.wait()
            await call(hub, "unsubscribe", user="42", channel="durable:x")
            store.reads.open()
            assert (await peer.reply(number))["error"]["code"] == 112
            await peer.result(subscribe={"channel": "durable:x"})
            assert not peer.pushes("durable:x", "unsubscribe")

    async def test_unsubscribe_while_subscribing(self, tmp_path: Path) -> None:
        store = GatedStore(SQLiteStore(tmp_path / "hub.sqlite3"))
        async with running(tmp_path, store=store) as hub:
            peer = await user(hub)
            store.reads.shut()
            number = peer.start(subscribe={"channel": "durable:x"})
            await store.reads.reached.wait()
            await call(hub, "unsubscribe", user="42", channel="durable:x")
            store.reads.open()
            assert "subscribe" in await peer.reply(number)
            assert [each["code"] for each in peer.pushes("durable:x", "unsubscribe")] == [2000]
            await hub.settled()
            assert not hub.node.fanouts

    async def test_disconnect(self, node_hub: InProcessHub) -> None:
        kept, gone = [await user(node_hub) for _ in range(2)]
        await call(node_hub, "disconnect", user="42", whitelist=[kept.session.client])
        assert await gone.disconnected() == 3503
        await call(node_hub, "disconnect", user="42", disconnect={"code": 4242, "reason": "because"})
        assert (await kept.disconnected(), kept.closed) == (4242, (4242, "because"))
        with pytest.raises(BadRequest):
            await call(node_hub, "disconnect", user="42", disconnect={"code": 4242, "reason": "é" * 100})

    async def test_refresh(self, node_hub: InProcessHub) -> None:
        peer = await user(node_hub)
        now = int(node_hub.loop.wall())
        peer.session.info = b'{"old":1}'
        await call(node_hub, "refresh", user="42", expire_at=now + 100)
        refresh = next(each["push"]["refresh"] for each in peer.messages() if "refresh" in each.get("push", {}))
        assert refresh["expires"] is True and 98 <= refresh["ttl"] <= 100
        assert peer.session.info == b'{"old":1}'
        await call(node_hub, "refresh", user="42", info={"new": 1})
        assert peer.session.info == b'{"new":1}'
        await call(node_hub, "refresh", user="42", expire_at=now - 1)
        assert await peer.disconnected() == 3005
        other = await user(node_hub)
        await call(node_hub, "refresh", user="42", expired=True)
        assert await other.disconnected() == 3005


class TestReading:
    async def test_presence(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.subscribed("here:x", await user(node_hub))
        client = peer.session.client
        assert await call(node_hub, "presence", channel="here:x") == {
            "presence": {client: {"user": "42", "client": client}}
        }
        assert await call(node_hub, "presence_stats", channel="here:x") == {"num_clients": 1, "num_users": 1}
        for name in ("presence", "presence_stats"):
            with pytest.raises(NotAvailable):
                await call(node_hub, name, channel="plain:x")

    @pytest.mark.parametrize("channel", ["recent:x", "durable:x"])
    async def test_history(self, node_hub: InProcessHub, channel: str) -> None:
        await node_hub.publish(channel, 1, 2, 3)
        await node_hub.publish(channel, b"not json")
        result = await call(node_hub, "history", channel=channel, limit=-1)
        assert [each.get("data") for each in result["publications"]] == [1, 2, 3, None]
        assert base64.b64decode(result["publications"][3]["b64data"]) == b"not json"
        assert result["offset"] == 4
        assert (await call(node_hub, "history", channel=channel))["publications"] == []
        since = {"offset": 2, "epoch": "another"}
        with pytest.raises(Unrecoverable):
            await call(node_hub, "history", channel=channel, limit=1, since=since)
        with pytest.raises(NotAvailable):
            await call(node_hub, "history", channel="plain:x", limit=1)

    @pytest.mark.parametrize("channel", ["recent:x", "durable:x"])
    async def test_redacting_and_removing(self, node_hub: InProcessHub, channel: str) -> None:
        await node_hub.publish(channel, 1, 2, 3)
        assert await call(node_hub, "history_redact", channel=channel, offset=2, data="blank") == {"redacted": True}
        assert await call(node_hub, "history_redact", channel=channel, offset=1) == {"redacted": True}
        assert await call(node_hub, "history_redact", channel=channel, offset=9) == {"redacted": False}
        result = await call(node_hub, "history", channel=channel, limit=-1)
        assert [(each["offset"], each["data"]) for each in result["publications"]] == [(2, "blank"), (3, 3)]
        assert await call(node_hub, "history_remove", channel=channel) == {}
        assert (await call(node_hub, "history", channel=channel, limit=-1))["publications"] == []
        assert (await call(node_hub, "publish", channel=channel, data=4))["offset"] == 4

    async def test_channels(self, node_hub: InProcessHub) -> None:
        for name in ("plain:a", "plain:b", "recent:a"):
            await node_hub.subscribed(name)
        await node_hub.subscribed("plain:a")
        assert await call(node_hub, "channels") == {
            "channels": {"plain:a": {"num_clients": 2}, "plain:b": {"num_clients": 1}, "recent:a": {"num_clients": 1}}
        }
        assert list((await call(node_hub, "channels", pattern="*:a"))["channels"]) == ["plain:a", "recent:a"]
        page = await call(node_hub, "channels", limit=2)
        assert (list(page["channels"]), page["cursor"]) == (["plain:a", "plain:b"], "plain:b")
        assert await call(node_hub, "channels", limit=2, cursor="plain:b") == {
            "channels": {"recent:a": {"num_clients": 1}}
        }

    async def test_connections(self, node_hub: InProcessHub) -> None:
        peers = [await user(node_hub, name) for name in ("1", "1", "2")]
        await node_hub.subscribed("plain:x", peers[0])
        await node_hub.subscribed("plain:x", peers[2])
        clients = [each.session.client for each in peers]

        async def found(**request: Any) -> set[str]:
            return set((await call(node_hub, "connections", **request))["connections"])

        assert await found() == set(clients)
        assert await found(user="1") == set(clients[:2])
        assert await found(channel="plain:x") == {clients[0], clients[2]}
        assert await found(channel="plain:x", user="1") == {clients[0]}
        assert await found(channel="plain:nobody") == set()
        pages, cursor = [], ""
        while True:
            page = await call(node_hub, "connections", limit=2, cursor=cursor)
            pages += list(page["connections"])
            cursor = page.get("cursor", "")
            if not cursor:
                break
        assert pages == sorted(clients)
        shown = (await call(node_hub, "connections", user="2"))["connections"][clients[2]]
        assert (shown["user"], shown["num_channels"], shown["transport"]) == ("2", 1, "memory")

    async def test_info(self, node_hub: InProcessHub) -> None:
        await node_hub.subscribed("plain:x", await user(node_hub))
        [node] = (await call(node_hub, "info"))["nodes"]
        assert (node["num_clients"], node["num_users"], node["num_channels"], node["num_subs"]) == (1, 1, 1, 1)
        assert node["uid"] == node_hub.node.id
        assert node["process"]["rss"] > 1_000_000

    async def test_rpc(self, tmp_path: Path) -> None:
        app = App()

        @app.api("double")
        async def double(data: bytes) -> int:
            return 2 * int(orjson.loads(data))

        async with running(tmp_path, app=app) as hub:
            assert await call(hub, "rpc", method="double", params=4) == {"data": 8}
            with pytest.raises(ReplyError, match="method not found"):
                await call(hub, "rpc", method="unknown")


def test_payloads() -> None:
    raw = msgspec.Raw
    assert payload(raw(b" 1.0 "), "") == b" 1.0 "
    assert payload(raw(b""), "aGk=") == b"hi"
    assert raw_json(raw(b'{\n"a":1}'), "") == b'{"a":1}'
    with pytest.raises(BadRequest, match="base64"):
        payload(raw(b""), "a")
    with pytest.raises(BadRequest, match="JSON"):
        raw_json(raw(b""), "aGk=")


def test_errors() -> None:
    assert error_result(ReplyError(codes.EXPIRED)) == {"code": 110, "message": "expired"}
    assert error_result(BadRequest("the payload is empty")) == {
        "code": 107,
        "message": "bad request: the payload is empty",
    }
    assert error_result(UnknownChannel("the namespace")) == {"code": 102, "message": "unknown channel"}


def test_paged() -> None:
    assert paged(["a", "b"], 0) == (["a", "b"], "")
    assert paged(["a", "b"], 2) == (["a", "b"], "")
    assert paged(["a", "b", "c"], 2) == (["a", "b"], "b")
    assert paged([], 2) == ([], "")
