"""Tests of hub.session: commands in order, bounds, pings, and what is left when a connection is lost."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from auth.ratelimit import Rate, RateLimitSettings
from channels.presence_memory import MemoryPresence
from hub import codes, protocol
from hub.app import App, ClientContext
from hub.settings import WebSocketSettings
from storage.sqlite import SQLiteStore
from tests.support.doubtful import GatedPresence, GatedStore
from tests.support.inprocess import InProcessHub, Peer, running

UNLIMITED: dict[str, Any] = {
    name: Rate(rate=0, burst=0) for name in ("publish", "subscribe", "rpc", "history", "other", "bytes")
}


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.fixture
def app() -> App:
    """An application that answers and fails."""
    found = App()

    @found.rpc("echo")
    async def echo(_: ClientContext, data: bytes) -> bytes:
        return data

    @found.rpc("crash")
    async def crash(_: ClientContext, data: bytes) -> None:
        raise RuntimeError("a bug")

    return found


def until_ping(hub: InProcessHub, peer: Peer) -> None:
    """Let time pass until the next ping is written."""
    before = peer.transport.writes.count(protocol.PING)
    for _ in range(300):
        hub.passes(0.1)
        if peer.transport.writes.count(protocol.PING) > before:
            return
    raise AssertionError("no ping came")


class TestOrder:
    async def test_all_commands_of_a_frame_in_order(self, node_hub: InProcessHub) -> None:
        peer = node_hub.peer()
        peer.receive(
            {"id": 1, "connect": {}},
            {"id": 2, "subscribe": {"channel": "recent:x"}},
            {"id": 3, "publish": {"channel": "recent:x", "data": 1}},
            {"id": 4, "history": {"channel": "recent:x", "limit": 1}},
        )
        assert [each["id"] for each in peer.messages()] == [1, 2, 3, 4], "at once: nothing had to be waited for"
        await node_hub.settled()
        assert peer.data("recent:x") == [1]

    async def test_a_command_that_waits_holds_up_those_behind_it(self, tmp_path: Path) -> None:
        store = GatedStore(SQLiteStore(tmp_path / "hub.sqlite3"))
        async with running(tmp_path, store=store) as hub:
            peer = await hub.connected()
            store.appends.shut()
            first = peer.start(publish={"channel": "durable:x", "data": 1})
            second = peer.start(presence_stats={"channel": "here:x"})
            third = peer.start(publish={"channel": "durable:x", "data": 2})
            assert not peer.transport.reading, "nothing more is read from the peer meanwhile"
            await store.appends.reached.wait()
            assert peer.reply_to(second) is None
            store.appends.open()
            await peer.reply(third)
            assert [each["id"] for each in peer.messages()[1:]] == [first, second, third]
            await hub.settled()
            assert peer.transport.reading

    async def test_while_the_peer_does_not_read_nothing_is_done_for_it(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected()
        peer.transport.stall()
        assert not peer.transport.reading
        number = peer.start(publish={"channel": "recent:x", "data": 1})
        assert node_hub.metrics.publications_in == {}
        peer.transport.read()
        assert peer.reply_to(number) is not None
        assert peer.transport.reading

    async def test_a_pause_in_the_middle_of_a_frame(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected()
        peer.transport.stalled = True
        commands = [{"id": each, "history": {"channel": "recent:x", "limit": 100}} for each in range(2, 40)]
        await node_hub.publish("recent:x", *("x" * 1000 for _ in range(10)))
        peer.receive(*commands)
        done = len(peer.messages())
        assert 2 < done < 39, "until its socket was full"
        peer.transport.read()
        assert [each["id"] for each in peer.messages()[1:]] == list(range(2, 40))

    async def test_paused_while_a_command_waits(self, tmp_path: Path) -> None:
        store = GatedStore(SQLiteStore(tmp_path / "hub.sqlite3"))
        async with running(tmp_path, store=store) as hub:
            peer = await hub.connected()
            store.appends.shut()
            first = peer.start(publish={"channel": "durable:x", "data": 1})
            second = peer.start(publish={"channel": "plain:x", "data": 1})
            await store.appends.reached.wait()
            peer.transport.stall()
            store.appends.open()
            await peer.reply(first)
            await hub.settled()
            assert peer.reply_to(second) is None
            assert not peer.transport.reading
            peer.transport.read()
            assert peer.reply_to(second) is not None
            assert peer.transport.reading

    async def test_resumed_while_a_command_waits(self, tmp_path: Path) -> None:
        store = GatedStore(SQLiteStore(tmp_path / "hub.sqlite3"))
        async with running(tmp_path, store=store) as hub:
            peer = await hub.connected()
            store.appends.shut()
            first = peer.start(publish={"channel": "durable:x", "data": 1})
            second = peer.start(publish={"channel": "plain:x", "data": 1})
            await store.appends.reached.wait()
            peer.transport.stall()
            peer.transport.read()
            assert peer.reply_to(second) is None
            assert not peer.transport.reading
            store.appends.open()
            await peer.reply(second)
            assert [each["id"] for each in peer.messages()[1:]] == [first, second]


class TestBadMessages:
    @pytest.mark.parametrize(
        "message",
        [b"", b"nonsense", b"[]", b'{"id":1', b'{"id":-1,"connect":{}}', b'{"id":1,"connect":3}', b'{"id":5}',
         b'{"id":4294967296,"ping":{}}', b'{"id":1,"connect":{}}\n\n{"id":2,"ping":{}}'],
    )  # fmt: skip
    async def test_end_the_connection(self, node_hub: InProcessHub, message: bytes) -> None:
        peer = node_hub.peer()
        peer.session.receive(message)
        assert await peer.disconnected() == 3501

    async def test_one_trailing_line_feed_is_fine(self, node_hub: InProcessHub) -> None:
        peer = node_hub.peer()
        peer.session.receive(b'{"id":1,"connect":{}}\n')
        assert peer.closed is None
        assert "connect" in peer.messages()[0]

    async def test_what_was_before_it_in_the_frame_is_done(self, node_hub: InProcessHub) -> None:
        peer = node_hub.peer()
        peer.session.receive(b'{"id":1,"connect":{}}\nnonsense\n{"id":2,"ping":{}}')
        assert [each["id"] for each in peer.messages()] == [1]
        assert await peer.disconnected() == 3501

    async def test_after_the_end_nothing_is_taken(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected()
        peer.session.close(codes.FORCE_DISCONNECT)
        peer.start(publish={"channel": "plain:x", "data": 1})
        peer.session.write_paused()
        peer.session.write_resumed()
        peer.session.send(b"{}")
        peer.session.close(codes.SLOW)
        peer.session.lost()
        assert len(peer.messages()) == 1
        assert peer.closed == codes.FORCE_DISCONNECT
        assert sum(node_hub.metrics.disconnects.values()) == 1

    async def test_commands_before_connect_and_a_second_connect(self, node_hub: InProcessHub) -> None:
        attempts: list[list[dict[str, Any]]] = [
            [{"id": 1, "subscribe": {"channel": "plain:x"}}],
            [{"id": 1, "ping": {}}],
            [{}],
            [{"id": 1, "connect": {}}, {"id": 2, "connect": {}}],
        ]
        for commands in attempts:
            peer = node_hub.peer()
            peer.receive(*commands)
            assert await peer.disconnected() == 3501


class TestBounds:
    async def test_commands_in_a_frame(self, tmp_path: Path) -> None:
        async with running(tmp_path, websocket=WebSocketSettings(max_commands_per_frame=3)) as hub:
            peer = await hub.connected()
            peer.receive(*({"id": each, "ping": {}} for each in range(2, 5)))
            assert peer.closed is None
            peer.receive(*({"id": each, "ping": {}} for each in range(5, 9)))
            assert await peer.disconnected() == 3501

    async def test_what_waits_for_a_peer_that_does_not_read(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected()
        peer.transport.stall()
        limit = node_hub.node.settings.client.queue_max_size
        peer.session.send(b"x" * limit)
        assert not peer.session.closed
        peer.session.send(b"x" * 1000)
        assert peer.closed == codes.SLOW
        assert peer.transport.aborted
        assert len(peer.transport.writes) == 2

    async def test_one_large_reply_is_allowed_above_it(self, node_hub: InProcessHub) -> None:
        limit = node_hub.node.settings.client.queue_max_size
        peer = await node_hub.connected()
        peer.transport.stalled = True
        peer.session.send(b"x" * (3 * limit))
        assert peer.session.paused
        peer.session.send(b"x" * (limit - 10))
        assert peer.closed is None
        peer.session.send(b"x" * 11)
        assert peer.closed == codes.SLOW

    async def test_the_allowance_ends_with_the_pause(self, node_hub: InProcessHub) -> None:
        limit = node_hub.node.settings.client.queue_max_size
        peer = await node_hub.connected()
        peer.transport.stalled = True
        peer.session.send(b"x" * (3 * limit))
        peer.transport.read()
        peer.transport.stall()
        peer.session.send(b"x" * (limit + 1))
        assert peer.closed == codes.SLOW

    async def test_writable(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected()
        await peer.session.writable()
        peer.transport.stall()
        waiting = [asyncio.create_task(peer.session.writable()) for _ in range(2)]
        await asyncio.sleep(0)
        peer.transport.read()
        await asyncio.gather(*waiting)
        peer.transport.stall()
        waiting = [asyncio.create_task(peer.session.writable()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        peer.transport.drop()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert waiting[0].cancelled() and not waiting[1].cancelled()


class TestRateLimits:
    async def test_the_excess_is_refused_and_then_the_client(self, tmp_path: Path) -> None:
        limits = RateLimitSettings(**(UNLIMITED | {"publish": Rate(rate=1, burst=2)}), max_violations=3)
        async with running(tmp_path, rate_limit=limits) as hub:
            peer = await hub.connected()
            for _ in range(2):
                await peer.result(publish={"channel": "plain:x", "data": 1})
            for _ in range(2):
                assert await peer.error(publish={"channel": "plain:x", "data": 1}) == 111
            await peer.result(subscribe={"channel": "plain:x"})
            hub.passes(1.1)
            await peer.result(publish={"channel": "plain:x", "data": 1})
            assert await peer.error(publish={"channel": "plain:x", "data": 1}) == 111
            assert await peer.disconnected() == 3013
            assert hub.metrics.rate_limited == {"publish": 3}

    async def test_bytes_refuse_commands_and_let_pongs_through(self, tmp_path: Path) -> None:
        limits = RateLimitSettings(**(UNLIMITED | {"bytes": Rate(rate=100, burst=500)}), max_violations=3)
        async with running(tmp_path, rate_limit=limits) as hub:
            peer = await hub.connected()
            until_ping(hub, peer)
            await peer.result(publish={"channel": "plain:x", "data": "x" * 500})
            peer.receive({"id": 50, "publish": {"channel": "plain:x", "data": 1}}, {}, {"send": {}})
            assert peer.reply_to(50) == {"id": 50, "error": protocol_error(codes.TOO_MANY_REQUESTS)}
            peer.session.receive(b"nonsense")
            assert peer.closed is None, "what is refused is not looked at"
            hub.passes(8.1)
            assert peer.closed is None, "the pong was seen"
            hub.passes(25)
            await peer.result(publish={"channel": "plain:x", "data": 1})
            assert hub.metrics.rate_limited == {"bytes": 2}

    async def test_bytes_without_an_end(self, tmp_path: Path) -> None:
        limits = RateLimitSettings(**(UNLIMITED | {"bytes": Rate(rate=1, burst=50)}), max_violations=3)
        async with running(tmp_path, rate_limit=limits) as hub:
            peer = await hub.connected()
            for _ in range(4):
                peer.receive({"id": 9, "publish": {"channel": "plain:x", "data": "x" * 100}})
            assert await peer.disconnected() == 3013


def protocol_error(error: codes.Error) -> dict[str, object]:
    return {"code": error.code, "message": error.message, "temporary": True}


class TestPings:
    @staticmethod
    def pings(peer: Peer) -> int:
        return peer.transport.writes.count(protocol.PING)

    async def test_the_first_comes_at_a_random_moment_of_the_second_half(self, node_hub: InProcessHub) -> None:
        peers = [await node_hub.connected() for _ in range(50)]
        node_hub.passes(12.4)
        assert sum(self.pings(each) for each in peers) == 0
        node_hub.passes(6.3)
        assert 5 < sum(self.pings(each) for each in peers) < 45
        for each in peers:
            if self.pings(each):
                each.receive({})
        node_hub.passes(6.6)
        assert all(self.pings(each) == 1 for each in peers)

    async def test_answered_pings_go_on(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected()
        until_ping(node_hub, peer)
        for _ in range(3):
            peer.receive({})
            before = node_hub.loop.time()
            until_ping(node_hub, peer)
            assert 24.9 < node_hub.loop.time() - before < 25.6
        assert peer.closed is None

    async def test_no_pong(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected()
        until_ping(node_hub, peer)
        node_hub.passes(8.3)
        assert await peer.disconnected() == 3012

    async def test_other_traffic_is_no_pong(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected()
        until_ping(node_hub, peer)
        await peer.result(publish={"channel": "plain:x", "data": 1})
        node_hub.passes(8.3)
        assert await peer.disconnected() == 3012

    async def test_a_pong_without_a_ping(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected()
        peer.receive({})
        assert await peer.disconnected() == 3501

    async def test_two_pongs_for_a_ping(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected()
        until_ping(node_hub, peer)
        peer.receive({})
        assert peer.closed is None
        peer.receive({})
        assert await peer.disconnected() == 3501

    async def test_due_while_its_command_is_at_work(self, tmp_path: Path) -> None:
        """Nothing is read from a client meanwhile, hence no pong either: that is not the client's fault."""
        store = GatedStore(SQLiteStore(tmp_path / "hub.sqlite3"))
        async with running(tmp_path, store=store) as hub:
            peer = await hub.connected()
            store.appends.shut()
            number = peer.start(publish={"channel": "durable:x", "data": 1})
            await store.appends.reached.wait()
            hub.passes(60)
            assert self.pings(peer) == 1
            assert peer.closed is None
            store.appends.open()
            await peer.reply(number)
            await hub.settled()
            peer.receive({})
            hub.passes(8.2)
            assert peer.closed is None
            hub.passes(25)
            assert self.pings(peer) == 2

    async def test_due_while_it_reads_slowly(self, node_hub: InProcessHub) -> None:
        """Its pong cannot be seen while nothing is read from it, but that it reads is a sign of life."""
        peer = await node_hub.connected()
        peer.transport.stalled = True
        peer.session.send(b"x" * 200_000)
        until_ping(node_hub, peer)
        for _ in range(4):
            peer.transport.read(10_000)
            node_hub.passes(8.2)
            assert peer.closed is None
        node_hub.passes(8.2)
        assert await peer.disconnected() == 3012

    async def test_there_may_be_none(self, tmp_path: Path) -> None:
        async with running(tmp_path, client={"ping_interval": seconds(0), "pong_timeout": seconds(0)}) as hub:
            peer = hub.peer()
            assert not {"ping", "pong"} & (await peer.result(connect={})).keys()
            hub.passes(100)
            assert self.pings(peer) == 0
            assert peer.closed is None

    async def test_pongs_need_not_be_awaited(self, tmp_path: Path) -> None:
        async with running(tmp_path, client={"pong_timeout": seconds(0)}) as hub:
            peer = hub.peer()
            result = await peer.result(connect={})
            assert (result["ping"], result.get("pong")) == (25, None)
            until_ping(hub, peer)
            until_ping(hub, peer)
            assert peer.closed is None

    async def test_stale(self, node_hub: InProcessHub) -> None:
        peer = node_hub.peer()
        node_hub.passes(9.9)
        assert peer.closed is None
        node_hub.passes(0.3)
        assert await peer.disconnected() == 3502
        await node_hub.settled()
        node_hub.assert_nothing_left()


class TestFailures:
    async def test_a_bug_in_a_handler_is_a_temporary_error(
        self, tmp_path: Path, app: App, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with running(tmp_path, app=app) as hub:
            peer = await hub.connected()
            reply = await peer.call(rpc={"method": "crash"})
            assert reply["error"] == {"code": 100, "message": "internal server error", "temporary": True}
            assert "a bug" in caplog.text
            assert await peer.result(rpc={"method": "echo", "data": 1}) == {"data": 1}
            assert hub.metrics.errors == {("rpc", 100): 1}

    async def test_a_send_that_fails_has_no_reply(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.connected()
        peer.receive({"send": {"data": 1}})
        assert await peer.disconnected() == 3508
        assert len(peer.messages()) == 1


class TestLost:
    """Whatever a command waits for when its connection is lost: nothing stays behind."""

    async def lost_while(self, peer: Peer, gate: asyncio.Event) -> None:
        async with asyncio.timeout(10):
            await gate.wait()
        peer.transport.drop()

    @pytest.mark.parametrize("channel", ["durable:x", "durablehere:x", "durabledelta:x"])
    async def test_subscribing_while_the_channel_is_being_opened(self, tmp_path: Path, channel: str) -> None:
        store = GatedStore(SQLiteStore(tmp_path / "hub.sqlite3"))
        async with running(tmp_path, store=store) as hub:
            peer = await hub.connected()
            store.reads.shut()
            peer.start(subscribe={"channel": channel})
            await self.lost_while(peer, store.reads.reached)
            store.reads.open()
            await hub.settled()
            hub.assert_nothing_left()
            assert await hub.presence.get(channel) == {}
            again = await hub.subscribed(channel)
            await hub.publish(channel, 1)
            await hub.settled()
            assert len(again.data(channel)) == 1

    async def test_subscribing_and_lost_in_the_same_pass_of_the_loop(self, node_hub: InProcessHub) -> None:
        """The command had begun to wait, its task had not taken its first step: its channel was never let go of."""
        peer = await node_hub.connected()
        peer.start(subscribe={"channel": "durablehere:x"})
        peer.transport.drop()
        await node_hub.settled()
        node_hub.assert_nothing_left()

    async def test_one_of_two_that_wait_for_the_same_channel(self, tmp_path: Path) -> None:
        store = GatedStore(SQLiteStore(tmp_path / "hub.sqlite3"))
        async with running(tmp_path, store=store) as hub:
            first, second = [await hub.connected() for _ in range(2)]
            store.reads.shut()
            first.start(subscribe={"channel": "durable:x"})
            number = second.start(subscribe={"channel": "durable:x"})
            await self.lost_while(first, store.reads.reached)
            store.reads.open()
            await second.reply(number)
            await hub.publish("durable:x", 1)
            await hub.settled()
            assert second.data("durable:x") == [1]
            fan = hub.node.fanouts["durable:x"]
            assert (fan.count, fan.holds) == (1, 0)

    async def test_recovering(self, tmp_path: Path) -> None:
        store = GatedStore(SQLiteStore(tmp_path / "hub.sqlite3"))
        async with running(tmp_path, store=store) as hub:
            other = await hub.subscribed("durable:x")
            await hub.publish("durable:x", 1, 2)
            await hub.settled()
            peer = await hub.connected()
            store.reads.shut()
            peer.start(subscribe={"channel": "durable:x", "recover": True})
            await self.lost_while(peer, store.reads.reached)
            store.reads.open()
            await hub.settled()
            fan = hub.node.fanouts["durable:x"]
            assert (fan.count, fan.holds) == (1, 0)
            assert other.data("durable:x") == [1, 2]

    async def test_entering_presence(self, tmp_path: Path) -> None:
        presence = GatedPresence(MemoryPresence())
        async with running(tmp_path, presence=presence) as hub:
            peer = await hub.connected()
            presence.adds.shut()
            peer.start(subscribe={"channel": "here:x"})
            await self.lost_while(peer, presence.adds.reached)
            presence.adds.open()
            await hub.settled()
            hub.assert_nothing_left()
            assert await presence.get("here:x") == {}

    async def test_leaving_presence(self, tmp_path: Path) -> None:
        """Who unsubscribed and was lost before the reply stayed present, and its leave was never told."""
        presence = GatedPresence(MemoryPresence())
        async with running(tmp_path, presence=presence) as hub:
            watcher = await hub.subscribed("here:x")
            peer = await hub.subscribed("here:x")
            presence.removes.shut()
            peer.start(unsubscribe={"channel": "here:x"})
            await self.lost_while(peer, presence.removes.reached)
            await asyncio.sleep(0)
            presence.removes.open()
            await hub.settled()
            assert list(await presence.get("here:x")) == [watcher.session.client]
            assert len(watcher.pushes("here:x", "leave")) == 1

    async def test_publishing_while_the_commit_is_under_way(self, tmp_path: Path) -> None:
        store = GatedStore(SQLiteStore(tmp_path / "hub.sqlite3"))
        async with running(tmp_path, store=store) as hub:
            other = await hub.subscribed("durable:x")
            peer = await hub.connected()
            store.appends.shut()
            peer.start(publish={"channel": "durable:x", "data": 1})
            await self.lost_while(peer, store.appends.reached)
            await other.until(lambda: other.data("durable:x") == [1])
            store.appends.open()
            await hub.settled()
            assert list(hub.node.sessions) == [other.session.client]

    async def test_reading_history(self, tmp_path: Path) -> None:
        store = GatedStore(SQLiteStore(tmp_path / "hub.sqlite3"))
        async with running(tmp_path, store=store) as hub:
            peer = await hub.connected()
            store.reads.shut()
            peer.start(history={"channel": "durable:x", "limit": 1})
            await self.lost_while(peer, store.reads.reached)
            await hub.settled()
            hub.assert_nothing_left()
            store.reads.open()

    async def test_catching_up_while_it_does_not_read(self, tmp_path: Path) -> None:
        async with running(tmp_path, client={"recovery_max_publication_limit": 2}) as hub:
            peer = await hub.connected()
            await hub.publish("durable:x", *range(9))
            number = peer.start(subscribe={"channel": "durable:x", "recover": True})
            await peer.reply(number)
            peer.transport.stall()
            await asyncio.sleep(0)
            peer.transport.drop()
            await hub.settled()
            hub.assert_nothing_left()

    async def test_connecting_while_the_application_decides(self, tmp_path: Path, app: App) -> None:
        asked, never = asyncio.Event(), asyncio.Event()

        @app.on_connect
        async def decide(_: object) -> None:
            asked.set()
            await never.wait()

        async with running(tmp_path, app=app) as hub:
            peer = hub.peer()
            peer.start(connect={})
            await self.lost_while(peer, asked)
            await hub.settled()
            hub.assert_nothing_left()
            assert hub.metrics.disconnects == {codes.CONNECTION_CLOSED: 1}

    async def test_connecting_and_closed_by_the_hub_meanwhile(self, tmp_path: Path, app: App) -> None:
        asked, go = asyncio.Event(), asyncio.Event()

        @app.on_connect
        async def decide(_: object) -> None:
            asked.set()
            try:
                await go.wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)  # it takes its time, and then carries on
                return

        async with running(tmp_path, app=app) as hub:
            peer = hub.peer()
            peer.start(connect={})
            await asked.wait()
            hub.passes(10.2)
            assert await peer.disconnected() == 3502
            await hub.settled()
            hub.assert_nothing_left()
            assert not peer.messages()


async def test_client_info(node_hub: InProcessHub) -> None:
    session = node_hub.peer().session
    session.user, session.info = "42", b'{"name":"x"}'
    info = session.client_info(b"1")
    assert (info.user, info.client, info.conn_info, info.chan_info) == ("42", session.client, b'{"name":"x"}', b"1")
