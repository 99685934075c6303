"""Tests of hub.commands.subscribe: checks and codes of subscribe, sub_refresh and unsubscribe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hub.app import App, DisconnectClient, Refuse, SubscribeEvent, SubscribeReply
from tests.support.inprocess import InProcessHub, running
from tests.support.tokens import connection_token, subscription_token


class TestSubscribe:
    @pytest.mark.parametrize(
        ("request_", "code"),
        [
            ({"channel": "nowhere:x"}, 102),
            ({"channel": "closed:x"}, 103),
            ({"channel": "$plain:x"}, 103),
            ({"channel": "plain:x" + "y" * 255}, 107),
            ({"channel": "plain:é"}, 107),
            ({"channel": "plain:x", "type": 1}, 103),
            ({"channel": "plain:x", "tf": {"key": "a", "cmp": "eq", "val": "b"}}, 107),
            ({"channel": "tags:x", "tf": {"key": "a", "cmp": "no such", "val": "b"}}, 107),
            ({"channel": "dialog:x#42"}, 103),
            ({"channel": "closed:x", "token": "nonsense"}, 103),
            ({"channel": "closed:x", "token": subscription_token("closed:x", "", ttl=-10)}, 109),
            ({"channel": "closed:x", "token": subscription_token("closed:x", "", expire_at=1000)}, 110),
        ],
    )
    async def test_refused(self, node_hub: InProcessHub, request_: dict[str, Any], code: int) -> None:
        peer = await node_hub.connected()
        assert await peer.error(subscribe=request_) == code
        assert peer.closed is None
        assert not peer.session.subscribing
        assert not node_hub.node.fanouts

    @pytest.mark.parametrize(
        ("request_", "code"),
        [
            ({}, 3501),
            ({"channel": "plain:x", "delta": "other"}, 3501),
            ({"channel": "closed:x", "token": subscription_token("closed:y", "")}, 3500),
            ({"channel": "closed:x", "token": subscription_token("closed:x", "43")}, 3500),
            ({"channel": "closed:x", "token": subscription_token("closed:x", "", client="another")}, 3500),
        ],
    )
    async def test_disconnected(self, node_hub: InProcessHub, request_: dict[str, Any], code: int) -> None:
        peer = await node_hub.connected()
        peer.start(subscribe=request_)
        assert await peer.disconnected() == code
        await node_hub.settled()
        node_hub.assert_nothing_left()

    async def test_twice(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.subscribed("plain:x")
        assert await peer.error(subscribe={"channel": "plain:x"}) == 105

    async def test_the_limit(self, tmp_path: Path) -> None:
        async with running(tmp_path, client={"channel_limit": 2}) as hub:
            peer = await hub.connected()
            for each in "ab":
                await peer.result(subscribe={"channel": f"plain:{each}"})
            assert await peer.error(subscribe={"channel": "plain:c"}) == 106
            await peer.result(unsubscribe={"channel": "plain:a"})
            await peer.result(subscribe={"channel": "plain:c"})

    async def test_a_token_opens_what_is_closed(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected(token=connection_token())
        token = subscription_token("$closed:x", ttl=100, info={"role": "x"}, data={"d": 1})
        result = await peer.result(subscribe={"channel": "$closed:x", "token": token})
        assert (result["expires"], 98 <= result["ttl"] <= 100, result["data"]) == (True, True, {"d": 1})
        assert peer.session.subscriptions["$closed:x"].info.chan_info == b'{"role":"x"}'

    async def test_the_users_that_a_name_lists(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected(token=connection_token())
        await peer.result(subscribe={"channel": "dialog:x#41,42"})
        assert await peer.error(subscribe={"channel": "dialog:x#41,43"}) == 103

    async def test_overrides_of_a_token(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected(token=connection_token())
        token = subscription_token("loose:x", override={"force_recovery": {"value": True}})
        assert (await peer.result(subscribe={"channel": "loose:x", "token": token}))["recoverable"] is True

    async def test_the_application(self, tmp_path: Path) -> None:
        app = App()

        @app.on_subscribe
        async def subscribe(event: SubscribeEvent) -> SubscribeReply | None:
            if event.data == b'"refuse"':
                raise Refuse(1002, "no")
            if event.data == b'"go"':
                raise DisconnectClient(4501, "go")
            return SubscribeReply(data=b"[1]") if event.data == b'"allow"' else None

        async with running(tmp_path, app=app) as hub:
            peer = await hub.connected()
            assert await peer.error(subscribe={"channel": "closed:x"}) == 103
            assert await peer.error(subscribe={"channel": "plain:x", "data": "refuse"}) == 1002
            assert await peer.result(subscribe={"channel": "closed:x", "data": "allow"}) == {"data": [1]}
            peer.start(subscribe={"channel": "plain:x", "data": "go"})
            assert await peer.disconnected() == 4501


class TestSubRefresh:
    CHANNEL = "$closed:x"

    async def subscribed(self, hub: InProcessHub, ttl: float = 100) -> Any:
        peer = await hub.connected(token=connection_token())
        token = subscription_token(self.CHANNEL, ttl=ttl)
        return await hub.subscribed(self.CHANNEL, peer, token=token)

    async def test_not_refreshed(self, node_hub: InProcessHub) -> None:
        peer = await self.subscribed(node_hub, ttl=2)
        for _ in range(25):
            node_hub.passes(1)
            peer.session._awaiting_pong = False
        assert not peer.pushes(self.CHANNEL, "unsubscribe"), "it has 25 s to refresh"
        node_hub.passes(3)
        assert peer.pushes(self.CHANNEL, "unsubscribe") == [{"code": 2501, "reason": "subscription expired"}]

    async def test_refreshed(self, node_hub: InProcessHub) -> None:
        peer = await self.subscribed(node_hub, ttl=2)
        token = subscription_token(self.CHANNEL, ttl=200)
        result = await peer.result(sub_refresh={"channel": self.CHANNEL, "token": token})
        assert (result["expires"], 198 <= result["ttl"] <= 200) == (True, True)
        for _ in range(60):
            node_hub.passes(1)
            peer.session._awaiting_pong = False
        assert self.CHANNEL in peer.session.subscriptions
        token = subscription_token(self.CHANNEL, ttl=None)
        assert await peer.result(sub_refresh={"channel": self.CHANNEL, "token": token}) == {}

    @pytest.mark.parametrize(
        ("request_", "code"),
        [
            ({"channel": "plain:x", "token": "x"}, 103),
            ({"channel": CHANNEL}, 107),
            ({"channel": CHANNEL, "token": subscription_token(CHANNEL, expire_at=1000)}, 110),
        ],
    )
    async def test_refused(self, node_hub: InProcessHub, request_: dict[str, Any], code: int) -> None:
        peer = await self.subscribed(node_hub)
        assert await peer.error(sub_refresh=request_) == code
        assert self.CHANNEL in peer.session.subscriptions

    async def test_expired(self, node_hub: InProcessHub) -> None:
        peer = await self.subscribed(node_hub)
        token = subscription_token(self.CHANNEL, ttl=-10)
        assert await peer.error(sub_refresh={"channel": self.CHANNEL, "token": token}) == 109
        assert [each["code"] for each in peer.pushes(self.CHANNEL, "unsubscribe")] == [2501], (
            "it comes again with a new one"
        )

    @pytest.mark.parametrize(
        ("request_", "code"),
        [
            ({}, 3501),
            ({"channel": CHANNEL, "token": "nonsense"}, 3500),
            ({"channel": CHANNEL, "token": subscription_token("$closed:y")}, 3500),
            ({"channel": CHANNEL, "token": subscription_token(CHANNEL, "43")}, 3500),
        ],
    )
    async def test_disconnected(self, node_hub: InProcessHub, request_: dict[str, Any], code: int) -> None:
        peer = await self.subscribed(node_hub)
        peer.start(sub_refresh=request_)
        assert await peer.disconnected() == code

    async def test_one_that_needs_no_token(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.subscribed("plain:x")
        peer.start(sub_refresh={"channel": "plain:x", "token": "x"})
        assert await peer.disconnected() == 3501


class TestUnsubscribe:
    async def test_not_subscribed(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected()
        assert await peer.result(unsubscribe={"channel": "plain:x"}) == {}

    async def test_presence_ends_with_the_reply(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.subscribed("here:x")
        watcher = await node_hub.subscribed("here:x")
        assert await peer.result(unsubscribe={"channel": "here:x"}) == {}
        assert list(await node_hub.presence.get("here:x")) == [watcher.session.client]
        assert await peer.result(subscribe={"channel": "here:x"}) == {}

    async def test_without_a_channel(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected()
        peer.start(unsubscribe={})
        assert await peer.disconnected() == 3501
