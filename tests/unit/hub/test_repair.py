"""Tests of hub.repair: what becomes of a channel when the broker has lost, repeated or mixed up something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from channels.broker_memory import MemoryBroker
from hub.repair import check_positions, is_behind
from storage.contract import Position, Publication
from storage.errors import StoreUnavailable
from storage.sqlite import SQLiteStore
from tests.support.doubtful import Fate, GatedStore, LossyBroker
from tests.support.inprocess import InProcessHub, running

CHANNELS = ["recent:x", "durable:x"]


class Lossy:
    def __init__(self, path: Path) -> None:
        self.now = 0.0
        self.broker = LossyBroker(MemoryBroker(clock=lambda: self.now))
        self.store = GatedStore(SQLiteStore(path / "hub.sqlite3"))
        self.hub: InProcessHub


@pytest.fixture
async def lossy(tmp_path: Path) -> AsyncIterator[Lossy]:
    found = Lossy(tmp_path)
    async with running(tmp_path, broker=found.broker, store=found.store) as hub:
        found.hub = hub
        yield found
        found.store.reads.open()


async def lose(lossy: Lossy, channel: str, *payloads: int) -> None:
    """Publish what the node is not told of."""
    lossy.broker.fate = Fate.DROP
    await lossy.hub.publish(channel, *payloads)
    lossy.broker.fate = Fate.DELIVER


@pytest.mark.parametrize("channel", CHANNELS)
class TestGaps:
    async def test_are_filled_from_history_once_for_all(self, lossy: Lossy, channel: str) -> None:
        hub = lossy.hub
        peers = [await hub.subscribed(channel) for _ in range(5)]
        await hub.publish(channel, 1)
        await lose(lossy, channel, 2, 3)
        reads = hub.node.history.reads
        await hub.publish(channel, 4)
        await hub.settled()
        assert [each.data(channel) for each in peers] == [[1, 2, 3, 4]] * 5
        assert (hub.metrics.repairs, hub.metrics.gaps) == (1, 1)
        assert hub.node.history.reads - reads == 2, "the gap, and that there is nothing more"

    async def test_of_more_than_a_page(self, lossy: Lossy, channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("hub.repair.PAGE", 3)
        peer = await lossy.hub.subscribed(channel)
        await lose(lossy, channel, *range(10))
        await lossy.hub.publish(channel, 10)
        await lossy.hub.settled()
        assert peer.data(channel) == list(range(11))

    async def test_that_nothing_follows_are_found_by_comparing_positions(self, lossy: Lossy, channel: str) -> None:
        peer = await lossy.hub.subscribed(channel)
        await lossy.hub.publish(channel, 1)
        await lose(lossy, channel, 2, 3)
        await lossy.hub.settled()
        assert peer.data(channel) == [1]
        lossy.hub.node.on_doubt([channel, "nowhere:x"])
        await lossy.hub.settled()
        assert peer.data(channel) == [1, 2, 3]
        lossy.hub.node.on_doubt(None)
        await lossy.hub.settled()
        assert lossy.hub.metrics.repairs == 1, "all is well now"

    async def test_repeats_and_disorder(self, lossy: Lossy, channel: str) -> None:
        peer = await lossy.hub.subscribed(channel)
        lossy.broker.fate = Fate.TWICE
        await lossy.hub.publish(channel, 1, 2)
        lossy.broker.fate = Fate.DELAY
        await lossy.hub.publish(channel, 3, 4, 5)
        for index in (2, 0, 0):
            lossy.broker.deliver_delayed(index)
            await asyncio.sleep(0)
        await lossy.hub.settled()
        assert peer.data(channel) == [1, 2, 3, 4, 5]

    async def test_that_history_cannot_fill_any_more(self, lossy: Lossy, channel: str) -> None:
        hub = lossy.hub
        peers = [await hub.subscribed(channel) for _ in range(2)]
        await hub.publish(channel, 1)
        await hub.settled()
        await lose(lossy, channel, 2)
        await hub.node.history.remove(hub.node.rules.resolve(channel))
        await hub.publish(channel, 3)
        await hub.settled()
        for each in peers:
            assert each.data(channel) == [1]
            assert each.pushes(channel, "unsubscribe") == [{"code": 2500, "reason": "insufficient state"}]
        result = await peers[0].result(subscribe={"channel": channel, "recover": True, "offset": 1})
        assert (result["was_recovering"], result.get("recovered"), result["offset"]) == (True, None, 3)

    async def test_redacted_publications_are_no_gap(self, lossy: Lossy, channel: str) -> None:
        hub = lossy.hub
        peer = await hub.subscribed(channel)
        await lose(lossy, channel, 1, 2, 3)
        assert await hub.node.history.redact(hub.node.rules.resolve(channel), 2, None)
        await hub.publish(channel, 4)
        await hub.settled()
        assert peer.offsets(channel) == [1, 3, 4]
        await hub.publish(channel, 5)
        await hub.settled()
        assert peer.offsets(channel) == [1, 3, 4, 5]
        assert not hub.node.fanouts[channel].loose

    async def test_a_repair_meets_live_publications(self, lossy: Lossy, channel: str) -> None:
        hub = lossy.hub
        peer = await hub.subscribed(channel)
        await lose(lossy, channel, 1)
        lossy.store.reads.shut()
        await hub.publish(channel, 2)
        await asyncio.sleep(0.01)
        await lose(lossy, channel, 3)
        await hub.publish(channel, 4)
        late = await hub.connected()
        number = late.start(subscribe={"channel": channel})
        lossy.store.reads.open()
        await late.reply(number)
        await hub.publish(channel, 5)
        await hub.settled()
        assert peer.data(channel) == [1, 2, 3, 4, 5]
        start = late.messages()[1]["subscribe"].get("offset", 0)
        assert late.offsets(channel) == list(range(start + 1, 6))


class TestEpochs:
    async def test_a_stream_that_begins_anew(self, lossy: Lossy) -> None:
        hub = lossy.hub
        peer = await hub.subscribed("recent:x")
        loose = await hub.subscribed("loose:x")
        await hub.publish("recent:x", 1, 2)
        await hub.publish("loose:x", 1)
        await hub.settled()
        lossy.now += 31 * 24 * 3600
        await hub.publish("recent:x", 3)
        await hub.publish("loose:x", 2)
        await hub.settled()
        assert peer.data("recent:x") == [1, 2]
        assert [each["code"] for each in peer.pushes("recent:x", "unsubscribe")] == [2500]
        assert loose.data("loose:x") == [1, 2], "whoever counts on nothing just goes on"

    async def test_server_side_subscribers_are_disconnected(self, lossy: Lossy) -> None:
        hub = lossy.hub
        peer = await hub.connected()
        subscription = (await hub.subscribed("recent:x", peer)).session.subscriptions["recent:x"]
        subscription.server_side = True
        await hub.publish("recent:x", 1)
        lossy.now += 31 * 24 * 3600
        await hub.publish("recent:x", 2)
        assert await peer.disconnected() == 3010

    async def test_found_by_comparing_positions(self, lossy: Lossy) -> None:
        peer = await lossy.hub.subscribed("recent:x")
        await lossy.hub.publish("recent:x", 1)
        lossy.now += 31 * 24 * 3600
        await lossy.hub.node._check_positions()
        await lossy.hub.settled()
        assert [each["code"] for each in peer.pushes("recent:x", "unsubscribe")] == [2500]

    async def test_a_late_message_of_a_stream_that_has_ended(self, lossy: Lossy) -> None:
        """It looked like the sign of yet another stream.

        Each repair found all well and released it, to find it again at once: the node did nothing else any more.
        """
        hub = lossy.hub
        await hub.subscribed("recent:x")
        lossy.broker.fate = Fate.DELAY
        await hub.publish("recent:x", 1, 2)
        lossy.now += 31 * 24 * 3600
        lossy.broker.fate = Fate.DELIVER
        await hub.publish("recent:x", 3)
        await hub.settled()
        peer = await hub.subscribed("recent:x")
        lossy.broker.deliver_delayed(1)
        lossy.broker.deliver_delayed(0)
        await hub.settled()
        await hub.publish("recent:x", 4)
        await hub.settled()
        assert peer.data("recent:x") == [4]
        assert hub.metrics.repairs < 10

    async def test_a_message_that_history_does_not_have(self, lossy: Lossy) -> None:
        """A broker that lost what it had carried: the stream goes on where history is."""
        hub = lossy.hub
        peer = await hub.subscribed("recent:x")
        await hub.publish("recent:x", 1)
        epoch = hub.node.fanouts["recent:x"].position.epoch
        hub.node.on_publications("recent:x", [Publication(b'"never"', 7)], epoch)
        await hub.settled()
        await hub.publish("recent:x", 2)
        await hub.settled()
        assert peer.data("recent:x") == [1, 2]
        assert hub.metrics.repairs < 5

    async def test_history_that_went_back(self, lossy: Lossy) -> None:
        hub = lossy.hub
        peer = await hub.subscribed("recent:x")
        epoch = hub.node.fanouts["recent:x"].position.epoch
        hub.node.on_publications("recent:x", [Publication(b"%d" % each, each) for each in range(1, 4)], epoch)
        await hub.settled()
        assert peer.offsets("recent:x") == [1, 2, 3]
        await hub.publish("recent:x", "again the first")
        hub.node.on_publications("recent:x", [Publication(b"9", 9)], epoch)
        await hub.settled()
        assert [each["code"] for each in peer.pushes("recent:x", "unsubscribe")] == [2500]


class TestHistoryOutOfReach:
    async def test_the_channel_waits_for_it(self, lossy: Lossy) -> None:
        hub = lossy.hub
        peer = await hub.subscribed("durable:x")
        await lose(lossy, "durable:x", 1)
        lossy.store.failure = StoreUnavailable("the disk is gone")
        await hub.publish("durable:x", 2)
        await lossy.store.failed.wait()
        assert peer.data("durable:x") == []
        lossy.store.failure = None
        await hub.settled()
        assert peer.data("durable:x") == [1, 2]

    async def test_everybody_leaves_meanwhile(self, lossy: Lossy) -> None:
        """A repair of a channel that nobody was left in ended with its gap, which called for a repair, and so on."""
        hub = lossy.hub
        peer = await hub.subscribed("durable:x")
        await lose(lossy, "durable:x", 1)
        lossy.store.failure = StoreUnavailable("the disk is gone")
        await hub.publish("durable:x", 2)
        await asyncio.sleep(0)
        repairs = hub.metrics.repairs
        await peer.result(unsubscribe={"channel": "durable:x"})
        await hub.settled()
        assert hub.metrics.repairs == repairs == 1
        lossy.store.failure = None
        again = await hub.connected()
        result = await again.result(subscribe={"channel": "durable:x", "recover": True})
        assert [each["data"] for each in result["publications"]] == [1, 2]

    async def test_everybody_leaves_while_it_is_read(self, lossy: Lossy) -> None:
        hub = lossy.hub
        peer = await hub.subscribed("durable:x")
        await lose(lossy, "durable:x", 1)
        lossy.store.reads.shut()
        await hub.publish("durable:x", 2)
        await lossy.store.reads.reached.wait()
        peer.transport.drop()
        lossy.store.reads.open()
        await hub.settled()
        hub.assert_nothing_left()


class TestComparing:
    async def test_nothing_to_compare(self, node_hub: InProcessHub) -> None:
        await node_hub.subscribed("plain:x")
        reads = node_hub.node.history.reads
        await check_positions(node_hub.node, tuple(node_hub.node.fanouts.values()))
        assert node_hub.node.history.reads == reads

    async def test_a_channel_that_is_being_opened_is_left_alone(self, lossy: Lossy) -> None:
        peer = await lossy.hub.connected()
        lossy.store.reads.shut()
        number = peer.start(subscribe={"channel": "durable:x"})
        await lossy.store.reads.reached.wait()
        await check_positions(lossy.hub.node, tuple(lossy.hub.node.fanouts.values()))
        lossy.store.reads.open()
        await peer.reply(number)
        assert lossy.hub.metrics.repairs == 0

    async def test_what_is_on_its_way_is_no_loss(self, lossy: Lossy, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("hub.repair.GRACE", 0.01)
        peer = await lossy.hub.subscribed("recent:x")
        lossy.broker.fate = Fate.DELAY
        await lossy.hub.publish("recent:x", 1)
        comparing = asyncio.create_task(lossy.hub.node._check_positions())
        await asyncio.sleep(0)
        lossy.broker.deliver_delayed()
        await comparing
        await lossy.hub.settled()
        assert lossy.hub.metrics.repairs == 0
        assert peer.data("recent:x") == [1]

    async def test_is_behind(self, node_hub: InProcessHub) -> None:
        await node_hub.subscribed("recent:x")
        await node_hub.publish("recent:x", 1, 2)
        fan = node_hub.node.fanouts["recent:x"]
        epoch = fan.position.epoch
        assert not is_behind(fan, None)
        assert [is_behind(fan, Position(each, epoch)) for each in (1, 2, 3)] == [False, False, True]
        assert is_behind(fan, Position(1, "another"))
