"""Tests of hub.commands.connect: who is let in, for how long, and with what."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from jwt.algorithms import ECAlgorithm

from auth.settings import TokenSettings
from hub.app import App, ConnectEvent, ConnectReply, DisconnectClient, Refuse
from hub.expiry import expire_subscription
from hub.settings import PersonalChannelSettings
from tests.support.inprocess import InProcessHub, running
from tests.support.keyring import private_key
from tests.support.tokens import connection_token, subscription_token

STRICT: dict[str, Any] = {"allow_anonymous_connect_without_token": False}


class TestTokens:
    async def test_a_good_one(self, tmp_path: Path) -> None:
        async with running(tmp_path, client=STRICT) as hub:
            peer = hub.peer()
            result = await peer.result(
                connect={"token": connection_token(info={"name": "x"}), "name": "py", "version": "1"}
            )
            assert result["client"] == peer.session.client
            assert result["version"]
            assert result["expires"] is True
            assert 3590 <= result["ttl"] <= 3600
            assert (result["ping"], result["pong"]) == (25, True)
            assert not {"session", "node", "time", "subs", "data"} & result.keys()
            session = peer.session
            assert (session.user, session.info, session.name, session.app_version) == ("42", b'{"name":"x"}', "py", "1")

    async def test_without_an_end(self, node_hub: InProcessHub) -> None:
        peer = node_hub.peer()
        assert not {"expires", "ttl"} & (await peer.result(connect={"token": connection_token(ttl=None)})).keys()
        node_hub.passes(24)
        assert peer.session.expiry is None

    async def test_the_ttl_is_at_most_a_year(self, node_hub: InProcessHub) -> None:
        result = await node_hub.peer().result(connect={"token": connection_token(ttl=10**9)})
        assert result["ttl"] == 365 * 24 * 3600

    async def test_expired_is_an_error_after_which_nothing_goes(self, node_hub: InProcessHub) -> None:
        peer = node_hub.peer()
        assert await peer.error(connect={"token": connection_token(ttl=-10)}) == 109
        assert peer.closed is None
        peer.start(connect={})
        assert await peer.disconnected() == 3501

    @pytest.mark.parametrize("token", ["nonsense", "a.b.c", connection_token(secret="x" * 40), subscription_token("x")])
    async def test_invalid(self, node_hub: InProcessHub, token: str) -> None:
        peer = node_hub.peer()
        peer.start(connect={"token": token})
        assert await peer.disconnected() == 3500

    async def test_expire_at_in_the_past(self, node_hub: InProcessHub) -> None:
        assert await node_hub.peer().error(connect={"token": connection_token(expire_at=1000)}) == 110

    async def test_none(self, tmp_path: Path) -> None:
        async with running(tmp_path, client=STRICT) as hub:
            peer = hub.peer()
            peer.start(connect={})
            assert await peer.disconnected() == 3501
        async with running(tmp_path / "insecure", client={**STRICT, "insecure": True}) as hub:
            await hub.connected()

    async def test_anonymous_ones_may_be_refused(self, tmp_path: Path) -> None:
        async with running(tmp_path, client={"disallow_anonymous_connection_tokens": True}) as hub:
            peer = hub.peer()
            peer.start(connect={"token": connection_token("")})
            assert await peer.disconnected() == 3507

    async def test_a_user_named_by_a_proxy(self, tmp_path: Path) -> None:
        async with running(tmp_path, client=STRICT) as hub:
            assert (await hub.connected(header_user="42")).session.user == "42"


class TestKeysThatHaveToBeFetched:
    """A real server hands out the key set when it is told to."""

    async def serve(self, go: asyncio.Event, asked: asyncio.Event) -> asyncio.Server:
        jwk = json.loads(ECAlgorithm.to_jwk(private_key("ES256").public_key()))
        body = json.dumps({"keys": [{**jwk, "kid": "k1", "alg": "ES256", "use": "sig"}]}).encode()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await go.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
            writer.close()

        return await asyncio.start_server(answer, "127.0.0.1", 0)

    async def test_several_wait_and_one_is_lost(self, tmp_path: Path) -> None:
        go, asked = asyncio.Event(), asyncio.Event()
        server = await self.serve(go, asked)
        endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
        async with (
            server,
            running(tmp_path, client={**STRICT, "token": TokenSettings(jwks_public_endpoint=endpoint)}) as hub,
        ):
            claims = {"sub": "42", "exp": int(time.time()) + 100}
            token = jwt.encode(claims, private_key("ES256"), "ES256", headers={"kid": "k1"})
            lost, waiting, same_pass = hub.peer(), hub.peer(), hub.peer()
            for each in (lost, waiting, same_pass):
                each.start(connect={"token": token})
            same_pass.transport.drop()
            await asyncio.wait_for(asked.wait(), 10)
            lost.transport.drop()
            go.set()
            await waiting.until(lambda: bool(waiting.messages()))
            assert "connect" in waiting.messages()[0]
            await hub.settled()
            assert list(hub.node.sessions.values()) == [waiting.session]
            assert not hub.node.pending
            assert not lost.messages()


class TestExpiry:
    async def test_a_connection_that_is_not_refreshed(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected(token=connection_token(ttl=2))
        for _ in range(25):
            node_hub.passes(1)
            peer.session._awaiting_pong = False
        assert peer.closed is None, "it has 25 s to refresh"
        node_hub.passes(3)
        assert await peer.disconnected() == 3005

    async def test_refreshed(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected(token=connection_token(ttl=2))
        result = await peer.result(refresh={"token": connection_token(ttl=100, info={"new": 1})})
        assert (result["expires"], 98 <= result["ttl"] <= 100) == (True, True)
        assert peer.session.info == b'{"new":1}'
        for _ in range(60):
            node_hub.passes(1)
            peer.session._awaiting_pong = False
        assert peer.closed is None
        assert await peer.result(refresh={"token": connection_token(ttl=None)}) == {}

    @pytest.mark.parametrize(
        ("token", "code"),
        [
            ("", 3501),
            ("nonsense", 3500),
            (connection_token(ttl=-10), 3005),
            (connection_token("43"), 3500),
            (connection_token(channels=["plain:x"]), 3010),
        ],
    )
    async def test_refreshed_wrongly(self, node_hub: InProcessHub, token: str, code: int) -> None:
        peer = await node_hub.connected(token=connection_token())
        peer.start(refresh={"token": token})
        assert await peer.disconnected() == code

    async def test_refreshed_to_the_past(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected(token=connection_token())
        assert await peer.error(refresh={"token": connection_token(expire_at=1000)}) == 110

    async def test_refreshed_without_need(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected()
        peer.start(refresh={"token": connection_token()})
        assert await peer.disconnected() == 3501


class TestLimits:
    async def test_connections_of_a_user(self, tmp_path: Path) -> None:
        async with running(tmp_path, client={"user_connection_limit": 2}) as hub:
            first, _ = [await hub.connected(token=connection_token()) for _ in range(2)]
            third = hub.peer()
            third.start(connect={"token": connection_token()})
            assert await third.disconnected() == 3504
            await hub.connected(token=connection_token("43"))
            for _ in range(3):
                await hub.connected()
            first.transport.drop()
            await hub.connected(token=connection_token())

    async def test_the_limit_is_held_by_those_who_come_at_once(self, tmp_path: Path) -> None:
        channels = ["durable:x", "durablehere:y"]
        async with running(tmp_path, client={"user_connection_limit": 1}) as hub:
            peers = [hub.peer() for _ in range(3)]
            for each in peers:
                each.start(connect={"token": connection_token(channels=channels)})
            await hub.settled()
            assert sorted(each.closed.code if each.closed else 0 for each in peers) == [0, 3504, 3504]
            assert [hub.node.fanouts[each].count for each in channels] == [1, 1]
            assert [hub.node.fanouts[each].holds for each in channels] == [0, 0]
            assert len(await hub.presence.get("durablehere:y")) == 1

    async def test_a_single_connection(self, tmp_path: Path) -> None:
        personal = PersonalChannelSettings(enabled=True, single_connection=True)
        async with running(tmp_path, client={"subscribe_to_user_personal_channel": personal}) as hub:
            first = hub.peer()
            assert list((await first.result(connect={"token": connection_token()}))["subs"]) == ["#42"]
            second = await hub.connected(token=connection_token())
            assert await first.disconnected() == 3504
            assert second.closed is None
            assert hub.node.fanouts["#42"].count == 1

    async def test_server_side_channels(self, tmp_path: Path) -> None:
        async with running(tmp_path, client={"channel_limit": 2}) as hub:
            peer = hub.peer()
            peer.start(connect={"token": connection_token(channels=["plain:a", "plain:b", "plain:c"])})
            assert await peer.disconnected() == 3505


class TestServerSideSubscriptions:
    async def test_from_the_token(self, node_hub: InProcessHub) -> None:
        await node_hub.publish("recent:x", 1, 2, 3)
        token = connection_token(subs={"recent:x": {"data": {"d": 1}}, "plain:x": {}})
        peer = node_hub.peer()
        request = {
            "token": token,
            "subs": {"recent:x": {"recover": True, "offset": 1}, "recent:other": {"recover": True}},
        }
        result = await peer.result(connect=request)
        assert set(result["subs"]) == {"recent:x", "plain:x"}
        sub = result["subs"]["recent:x"]
        assert (sub["data"], sub["recovered"], [each["data"] for each in sub["publications"]]) == (
            {"d": 1},
            True,
            [2, 3],
        )
        assert await peer.error(subscribe={"channel": "recent:x"}) == 105
        await node_hub.publish("recent:x", 4)
        await node_hub.settled()
        assert peer.data("recent:x") == [4]

    async def test_one_of_them_cannot_be(self, node_hub: InProcessHub) -> None:
        peer = node_hub.peer()
        token = connection_token(channels=["here:x", "nowhere:x"])
        assert await peer.error(connect={"token": token}) == 102
        await node_hub.settled()
        assert not node_hub.node.fanouts
        assert await node_hub.presence.get("here:x") == {}

    async def test_expired_ends_the_connection(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected(token=connection_token(channels=["plain:x"]))
        expire_subscription(peer.session.subscriptions["plain:x"], int(node_hub.loop.wall()) + 2)
        node_hub.passes(3)
        assert await peer.disconnected() == 3006


class TestApplication:
    async def test_it_may_change_and_refuse(self, tmp_path: Path) -> None:
        app = App()
        events: list[ConnectEvent] = []

        @app.on_connect
        async def connect(event: ConnectEvent) -> ConnectReply | None:
            events.append(event)
            if event.data == b'"refuse"':
                raise Refuse(1001, "no")
            if event.data == b'"go"':
                raise DisconnectClient(4500, "go")
            if event.data == b'"let in"':
                return ConnectReply(user="7", info=b'{"i":1}', data=b'{"d":2}', channels=["plain:x"])
            return None

        async with running(tmp_path, app=app, client=STRICT) as hub:
            assert await hub.peer().error(connect={"data": "refuse"}) == 1001
            peer = hub.peer()
            peer.start(connect={"data": "go"})
            assert await peer.disconnected() == 4500
            peer = hub.peer()
            result = await peer.result(connect={"data": "let in", "name": "x", "headers": {"a": "b"}})
            assert (result["data"], list(result["subs"]), peer.session.user) == ({"d": 2}, ["plain:x"], "7")
            assert (events[-1].user, events[-1].name, events[-1].headers) == (None, "x", {"a": "b"})
            peer = hub.peer()
            peer.start(connect={})
            assert await peer.disconnected() == 3501, "nobody vouches for it"
            await hub.connected(token=connection_token())
            assert events[-1].user == "42"

    async def test_server_time(self, tmp_path: Path) -> None:
        client = {
            "connect_include_server_time": True,
            "ping_interval": timedelta(milliseconds=200),
            "pong_timeout": timedelta(0),
        }
        async with running(tmp_path, client=client) as hub:
            result = await hub.peer().result(connect={})
            assert result["time"] == int(hub.loop.wall() * 1000)
            assert result["ping"] == 1
