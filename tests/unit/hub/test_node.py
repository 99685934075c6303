"""Tests of hub.node: opening and closing of channels, periodic work, and the end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from channels.broker import BrokerError
from channels.errors import Unavailable
from hub.app import App, DisconnectEvent
from storage.contract import ClientInfo
from storage.errors import StoreUnavailable
from storage.sqlite import SQLiteStore
from tests.support.doubtful import GatedStore
from tests.support.inprocess import InProcessHub, running


class TestChannels:
    async def test_one_subscription_at_the_broker_however_many_subscribers(self, node_hub: InProcessHub) -> None:
        peers = [await node_hub.subscribed("recent:x") for _ in range(3)]
        assert node_hub.memory._subscribed == {"recent:x"}
        for each in peers:
            assert node_hub.memory._subscribed
            each.transport.drop()
        assert not node_hub.memory._subscribed
        node_hub.assert_nothing_left()

    async def test_many_open_a_channel_at_once(self, tmp_path: Path) -> None:
        store = GatedStore(SQLiteStore(tmp_path / "hub.sqlite3"))
        async with running(tmp_path, store=store) as hub:
            peers = [await hub.connected() for _ in range(20)]
            numbers = [each.start(subscribe={"channel": "durable:x"}) for each in peers]
            for peer, number in zip(peers, numbers, strict=True):
                await peer.reply(number)
            assert store.reads.passed == 1
            assert (hub.node.fanouts["durable:x"].count, hub.node.fanouts["durable:x"].holds) == (20, 0)

    async def test_a_channel_that_cannot_be_opened(self, tmp_path: Path) -> None:
        store = GatedStore(SQLiteStore(tmp_path / "hub.sqlite3"))
        async with running(tmp_path, store=store) as hub:
            peers = [await hub.connected() for _ in range(3)]
            store.failure = StoreUnavailable("the disk is gone")
            numbers = [each.start(subscribe={"channel": "durable:x"}) for each in peers]
            for peer, number in zip(peers, numbers, strict=True):
                assert (await peer.reply(number))["error"]["code"] == 100
            assert not hub.node.fanouts
            store.failure = None
            await peers[0].result(subscribe={"channel": "durable:x"})

    async def test_a_broker_that_cannot_be_subscribed_to(
        self, node_hub: InProcessHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(_: str) -> None:
            raise BrokerError("out of reach")

        peer = await node_hub.connected()
        with monkeypatch.context() as patch:
            patch.setattr(node_hub.memory, "subscribe", fail)
            assert await peer.error(subscribe={"channel": "plain:x"}) == 100
            assert await peer.error(subscribe={"channel": "recent:x"}) == 100
        await node_hub.settled()
        assert not node_hub.node.fanouts
        await peer.result(subscribe={"channel": "plain:x"})

    async def test_traffic_of_a_channel_that_nobody_has_is_passed_over(self, node_hub: InProcessHub) -> None:
        node = node_hub.node
        node.on_publications("nowhere:x", [], "")
        node.on_join("nowhere:x", ClientInfo("", ""))
        node.on_leave("nowhere:x", ClientInfo("", ""))
        node.on_control(b"")
        node.on_doubt(None)
        assert not node.fanouts


class TestSessions:
    async def test_of_a_user(self, tmp_path: Path) -> None:
        async with running(tmp_path, client={"insecure": True}) as hub:
            a, b = [await hub.connected(header_user="42") for _ in range(2)]
            c = await hub.connected(header_user="43")
            node = hub.node
            assert {each.client for each in node.of_user("42")} == {a.session.client, b.session.client}
            assert node.of_user("42", client=b.session.client) == [b.session]
            assert node.of_user("42", client=c.session.client) == []
            assert node.of_user("44") == []
            for each in (a, b, c):
                each.transport.drop()
            hub.assert_nothing_left()

    async def test_the_application_is_told_of_the_end_once(self, tmp_path: Path) -> None:
        app = App()
        told: list[tuple[str, int]] = []

        @app.on_disconnect
        async def gone(event: DisconnectEvent) -> None:
            async with asyncio.timeout(5):  # needs a task of its own
                await asyncio.sleep(0)
            told.append((event.context.client, event.code))

        async with running(tmp_path, app=app) as hub:
            peer, refused = await hub.connected(), hub.peer()
            refused.receive({})
            peer.transport.drop()
            peer.session.lost()
            await hub.settled()
            assert told == [(peer.session.client, 3000)]

    async def test_a_handler_that_fails_is_seen(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        app = App()

        @app.on_disconnect
        async def gone(_: DisconnectEvent) -> None:
            raise RuntimeError("a bug")

        async with running(tmp_path, app=app) as hub:
            (await hub.connected()).transport.drop()
            await hub.settled()
            assert hub.metrics.failures == {"disconnect": 1}
            assert "a bug" in caplog.text


class TestPublishing:
    async def test_out_of_reach(self, node_hub: InProcessHub) -> None:
        await node_hub.broker.close()
        with pytest.raises(Unavailable):
            await node_hub.publish("recent:x", 1)
        assert not node_hub.metrics.publications_in

    async def test_nobody_is_subscribed(self, node_hub: InProcessHub) -> None:
        assert (await node_hub.publish("durable:x", 1, 2))[-1].offset == 2
        assert sum(node_hub.metrics.publish_seconds.counts) == 2


async def test_it_is_not_ready_while_the_store_cannot_be_written(node_hub: InProcessHub) -> None:
    """/ready said yes while each durable publication failed."""
    node = node_hub.node
    await node_hub.publish("durable:x", 1)
    assert node.not_ready() == []
    path = Path(node_hub.node.settings.data_dir / "hub.sqlite3")
    aside = path.rename(path.with_name("aside"))  # noqa: ASYNC240
    with pytest.raises(Unavailable):
        await node_hub.publish("durable:x", 2)
    [reason] = node.not_ready()
    assert reason.startswith("the store cannot be written now: hub.sqlite3 was moved")
    node.draining = True
    assert node.not_ready() == ["draining", reason]
    node.draining = False
    aside.rename(path)
    await node_hub.publish("durable:x", 3)
    assert node.not_ready() == []


class TestPeriodicWork:
    async def test_a_failure_is_seen_and_it_goes_on(
        self, node_hub: InProcessHub, caplog: pytest.LogCaptureFixture
    ) -> None:
        runs: list[int] = []
        enough = asyncio.Event()

        async def work() -> None:
            runs.append(1)
            if len(runs) == 3:
                enough.set()
            if len(runs) > 3:
                return
            raise (Unavailable("out of reach"), StoreUnavailable("disk is full"), RuntimeError("a bug"))[len(runs) - 1]

        node_hub.node.every(timedelta(0), work)
        await asyncio.wait_for(enough.wait(), 10)
        [failed, full, bug] = caplog.records
        assert failed.getMessage() == "Unavailable: out of reach"
        assert (full.getMessage(), full.exc_info) == ("StoreUnavailable: disk is full", None)
        assert bug.exc_info is not None
        assert "a bug" in caplog.text

    async def test_presence_is_renewed(self, node_hub: InProcessHub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("hub.node.PRESENCE_SLICE", 2)
        peers = [await node_hub.subscribed("here:x") for _ in range(5)]
        await node_hub.subscribed("plain:x", peers[0])
        node_hub.loop._now += 50
        await node_hub.node._refresh_presence()
        node_hub.loop._now += 50
        assert len(await node_hub.presence.get("here:x")) == 5
        node_hub.loop._now += 50
        assert await node_hub.presence.get("here:x") == {}

    async def test_pruning(self, node_hub: InProcessHub) -> None:
        await node_hub.publish("durable:x", 1)
        await node_hub.node._prune()
        assert (await node_hub.node.history.position(node_hub.node.rules.resolve("durable:x"))).offset == 1


async def test_stop(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        peer, pending = await hub.subscribed("durable:x"), hub.peer()
        publishing = asyncio.create_task(hub.publish_one("durable:x", 1))
        await asyncio.sleep(0)
        await hub.node.stop(1.0)
        assert [await each.disconnected() for each in (peer, pending)] == [3001, 3001]
        assert (await publishing).offset == 1, "what was accepted is finished"
        hub.assert_nothing_left()
