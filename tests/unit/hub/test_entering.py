"""Tests of hub.entering: what the reply to a subscribe says, and that nothing falls between it and the first push."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from channels.namespaces import ChannelSettings
from channels.presence_memory import MemoryPresence
from hub.app import App, SubscribeEvent, SubscribeReply
from storage.sqlite import SQLiteStore
from tests.support.doubtful import GatedPresence, GatedStore
from tests.support.inprocess import DURABLE, PRESENCE, InProcessHub, namespace, running
from tests.support.reading import subscriptions

KINDS = ["recent:x", "durable:x"]


def data(result: dict[str, Any]) -> list[Any]:
    return [each["data"] for each in result.get("publications", ())]


class TestWithoutRecovery:
    async def test_plain(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected()
        assert await peer.result(subscribe={"channel": "plain:x", "positioned": True, "recoverable": True}) == {}

    @pytest.mark.parametrize("channel", KINDS)
    async def test_positioned(self, node_hub: InProcessHub, channel: str) -> None:
        [_, top] = await node_hub.publish(channel, 1, 2)
        peer = await node_hub.connected()
        expected = {"recoverable": True, "positioned": True, "epoch": top.epoch, "offset": 2}
        assert await peer.result(subscribe={"channel": channel}) == expected

    @pytest.mark.parametrize("channel", KINDS)
    async def test_an_empty_stream(self, node_hub: InProcessHub, channel: str) -> None:
        peer = await node_hub.connected()
        result = await peer.result(subscribe={"channel": channel, "recover": True})
        assert "offset" not in result
        assert result["recovered"] is True
        assert result["epoch"] == (await node_hub.publish_one(channel, 1)).epoch


@pytest.mark.parametrize("channel", KINDS)
class TestRecovery:
    @pytest.mark.parametrize("offset", [0, 1, 2, 3])
    @pytest.mark.parametrize("epoch", [True, False])
    async def test_what_was_missed(self, node_hub: InProcessHub, channel: str, offset: int, epoch: bool) -> None:
        top = (await node_hub.publish(channel, 1, 2, 3))[-1]
        peer = await node_hub.connected()
        request = {"channel": channel, "recover": True, "offset": offset, "epoch": top.epoch if epoch else ""}
        result = await peer.result(subscribe=request)
        assert data(result) == [1, 2, 3][offset:]
        assert (result["recovered"], result["was_recovering"], result.get("offset", 0)) == (True, True, offset)
        await node_hub.publish(channel, 4)
        await node_hub.settled()
        assert peer.data(channel) == [4]
        assert not node_hub.node.fanouts[channel].loose
        assert node_hub.metrics.recoveries == {"recovered": 1}

    @pytest.mark.parametrize("wrong", [{"epoch": "another", "offset": 1}, {"offset": 9}])
    async def test_a_position_that_cannot_be(self, node_hub: InProcessHub, channel: str, wrong: dict[str, Any]) -> None:
        await node_hub.publish(channel, 1, 2)
        peer = await node_hub.connected()
        result = await peer.result(subscribe={"channel": channel, "recover": True, **wrong})
        assert ("recovered" not in result, result["was_recovering"], result["offset"]) == (True, True, 2)
        assert data(result) == []
        await node_hub.publish(channel, 3)
        await node_hub.settled()
        assert peer.data(channel) == [3]

    async def test_refused_rather_than_begun_anew(self, node_hub: InProcessHub, channel: str) -> None:
        await node_hub.publish(channel, 1)
        peer = await node_hub.connected()
        request = {"channel": channel, "recover": True, "epoch": "another", "flag": 3}
        assert await peer.error(subscribe=request) == 112
        await node_hub.settled()
        assert not node_hub.node.fanouts
        assert node_hub.metrics.recoveries == {"unrecovered": 1}

    async def test_of_what_is_gone(self, node_hub: InProcessHub, channel: str) -> None:
        await node_hub.publish(channel, 1, 2)
        await node_hub.node.history.remove(node_hub.node.rules.resolve(channel))
        peer = await node_hub.connected()
        result = await peer.result(subscribe={"channel": channel, "recover": True, "offset": 1})
        assert ("recovered" not in result, result["offset"]) == (True, 2)

    async def test_while_publications_wait_to_be_rendered(self, node_hub: InProcessHub, channel: str) -> None:
        other = await node_hub.subscribed(channel)
        await node_hub.publish(channel, 1, 2)
        peer = await node_hub.connected()
        number = peer.start(subscribe={"channel": channel, "recover": True})
        await node_hub.publish(channel, 3)
        await peer.reply(number)
        await node_hub.publish(channel, 4)
        await node_hub.settled()
        [seen] = subscriptions(peer, channel, replies={number: "subscribe"})
        assert seen.data == other.data(channel) == [1, 2, 3, 4]


class TestLimits:
    async def test_more_than_the_limit_of_recent_history_is_lost(self, tmp_path: Path) -> None:
        async with running(tmp_path, client={"recovery_max_publication_limit": 3}) as hub:
            await hub.publish("recent:x", 1, 2, 3, 4)
            peer = await hub.connected()
            assert "recovered" not in await peer.result(subscribe={"channel": "recent:x", "recover": True})
            peer = await hub.connected()
            result = await peer.result(subscribe={"channel": "recent:x", "recover": True, "offset": 1})
            assert data(result) == [2, 3, 4]

    async def test_without_a_limit(self, tmp_path: Path) -> None:
        async with running(tmp_path, client={"recovery_max_publication_limit": 0}) as hub:
            await hub.publish("recent:x", *range(700))
            peer = await hub.connected()
            assert len(data(await peer.result(subscribe={"channel": "recent:x", "recover": True}))) == 700


class TestCache:
    async def test_only_the_newest(self, node_hub: InProcessHub) -> None:
        top = (await node_hub.publish("cache:x", 1, 2, 3))[-1]
        peer = await node_hub.connected()
        result = await peer.result(subscribe={"channel": "cache:x", "recover": True, "offset": 1, "epoch": top.epoch})
        assert (result["recovered"], data(result), result["offset"]) == (True, [3], 3)
        peer = await node_hub.connected()
        result = await peer.result(subscribe={"channel": "cache:x", "recover": True, "offset": 3, "epoch": top.epoch})
        assert (result["recovered"], data(result)) == (True, [])
        peer = await node_hub.connected()
        assert "recovered" not in await peer.result(subscribe={"channel": "cache:x"})

    async def test_without_being_asked(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected()
        assert "recovered" not in await peer.result(subscribe={"channel": "autocache:x"}), "there is nothing yet"
        await node_hub.publish("autocache:x", 1, 2)
        peer = await node_hub.connected()
        result = await peer.result(subscribe={"channel": "autocache:x"})
        assert (result["recovered"], data(result)) == (True, [2])
        await node_hub.publish("autocache:x", 3)
        await node_hub.settled()
        assert peer.data("autocache:x") == [3]


class TestDeltasAndFilters:
    async def test_recovered_publications_of_a_delta_subscription_are_strings(self, node_hub: InProcessHub) -> None:
        await node_hub.publish("delta:x", {"a": 1}, {"a": 2})
        peer = await node_hub.connected()
        result = await peer.result(subscribe={"channel": "delta:x", "recover": True, "delta": "fossil"})
        assert result["delta"] is True
        assert data(result) == ['{"a": 1}', '{"a": 2}']

    async def test_recovered_publications_are_filtered(self, node_hub: InProcessHub) -> None:
        for number in range(4):
            await node_hub.publish("tags:x", number, tags={"kind": "good" if number % 2 else "bad"})
        peer = await node_hub.connected()
        wanted = {"key": "kind", "cmp": "eq", "val": "good"}
        result = await peer.result(subscribe={"channel": "tags:x", "recover": True, "tf": wanted})
        assert data(result) == [1, 3]
        await node_hub.publish("tags:x", 5, tags={"kind": "good"})
        await node_hub.settled()
        assert peer.data("tags:x") == [5]

    async def test_what_json_cannot_carry(self, node_hub: InProcessHub) -> None:
        await node_hub.publish("recent:x", b"not json")
        peer = await node_hub.connected()
        peer.start(subscribe={"channel": "recent:x", "recover": True})
        assert await peer.disconnected() == 3506
        await node_hub.settled()
        node_hub.assert_nothing_left()


class TestPublicationsThatComeMeanwhile:
    async def test_while_presence_is_entered(self, tmp_path: Path) -> None:
        """The position of the reply was decided, then entering took its time: what came in between follows the reply."""
        presence = GatedPresence(MemoryPresence())
        store = GatedStore(SQLiteStore(tmp_path / "hub.sqlite3"))
        async with running(tmp_path, presence=presence, store=store) as hub:
            other = await hub.subscribed("durablehere:x")
            peer = await hub.connected()
            presence.adds.shut()
            number = peer.start(subscribe={"channel": "durablehere:x"})
            await presence.adds.reached.wait()
            await hub.publish("durablehere:x", 1, 2)
            await other.until(lambda: len(other.data("durablehere:x")) == 2)
            presence.adds.open()
            await peer.reply(number)
            await hub.publish("durablehere:x", 3)
            await hub.settled()
            [seen] = subscriptions(peer, "durablehere:x", replies={number: "subscribe"})
            assert (seen.start, seen.offsets) == (0, [1, 2, 3])
            joins = other.pushes("durablehere:x", "join")
            assert len(joins) == 2

    async def test_the_stream_begins_anew_meanwhile(self, tmp_path: Path) -> None:
        presence = GatedPresence(MemoryPresence())
        options = {**DURABLE, **PRESENCE}
        options |= {"durable": False, "history_size": 10, "history_ttl": timedelta(hours=1)}
        channels = ChannelSettings(namespaces=(namespace("both", **options),), history_meta_ttl=timedelta(hours=2))
        async with running(tmp_path, presence=presence, channel=channels) as hub:
            watcher = await hub.subscribed("both:x")
            await hub.publish("both:x", 1)
            peer = await hub.connected()
            presence.adds.shut()
            number = peer.start(subscribe={"channel": "both:x"})
            await presence.adds.reached.wait()
            hub.loop._now += 3 * 3600  # no timer is due: only the broker forgets
            await hub.publish("both:x", 2)
            await hub.settled_but_for(peer)
            presence.adds.open()
            await peer.reply(number)
            await hub.settled()
            assert [each["code"] for each in peer.pushes("both:x", "unsubscribe")] == [2500]
            joined = [each["info"]["client"] for each in watcher.pushes("both:x", "join")]
            left = [each["info"]["client"] for each in watcher.pushes("both:x", "leave")]
            assert joined.count(peer.session.client) == left.count(peer.session.client)


class TestExpiry:
    async def test_of_a_subscription_made_by_the_application(self, tmp_path: Path) -> None:
        app = App()
        expire_at = 0

        @app.on_subscribe
        async def subscribe(_: SubscribeEvent) -> SubscribeReply:
            return SubscribeReply(expire_at=expire_at, data=b'{"hello":1}', info=b'"guest"')

        async with running(tmp_path, app=app) as hub:
            expire_at = int(hub.loop.wall()) + 10
            peer = await hub.connected()
            assert await peer.result(subscribe={"channel": "here:x"}) == {"data": {"hello": 1}}
            assert peer.pushes("here:x", "join")[0]["info"]["chan_info"] == "guest"
            hub.passes(8)
            assert not peer.pushes("here:x", "unsubscribe")
            hub.passes(3)
            assert peer.pushes("here:x", "unsubscribe") == [{"code": 2501, "reason": "subscription expired"}]
            await asyncio.sleep(0)
            assert await hub.presence.get("here:x") == {}
