"""The promise of positioned channels, against a broker that drops, repeats, delays and reorders.

Every subscriber sees a sequence without gaps, repeats or disorder from where it began, or is told that it cannot
(2500); and in the end everybody who is still subscribed has seen everything.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import defaultdict
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import hub.catchup
import hub.fanout
import hub.repair
from channels.broker_memory import MemoryBroker
from storage.sqlite import SQLiteStore
from tests.support.doubtful import Fate, GatedStore, LossyBroker
from tests.support.inprocess import InProcessHub, Peer, settings
from tests.support.reading import Seen, subscriptions

T = TypeVar("T")

CHANNELS = ["recent:x", "short:x", "durable:x", "durabledelta:x"]
TEXT = "some text that is worth a delta " * 2
LONG = 31 * 24 * 3600.0
"""Seconds after which the memory broker forgets a stream altogether."""

players = st.integers(0, 2)


class Player:
    """A client that comes back: its present connection, and what it remembers of earlier ones."""

    def __init__(self, hub: InProcessHub) -> None:
        self.hub = hub
        self.remembered: dict[str, tuple[int, str]] = {}
        self.connect()

    def connect(self) -> None:
        self.peer: Peer = self.hub.peer()
        self.peer.start(connect={})
        self.commands: dict[str, dict[int, str]] = defaultdict(dict)
        self.asked: dict[int, int] = {}

    def seen(self, channel: str) -> list[Seen]:
        return subscriptions(self.peer, channel, replies=self.commands[channel])

    def position(self, channel: str) -> tuple[int, str] | None:
        seen = self.seen(channel)
        return seen[-1].position if seen else self.remembered.get(channel)

    def subscribe(self, channel: str, *, recover: bool) -> None:
        request: dict[str, Any] = {"channel": channel}
        if "delta" in channel:
            request["delta"] = "fossil"
        position = self.position(channel)
        if recover and position is not None:
            request |= {"recover": True, "offset": position[0], "epoch": position[1]}
        number = self.peer.start(subscribe=request)
        self.commands[channel][number] = "subscribe"
        self.asked[number] = position[0] if recover and position is not None else -1

    def unsubscribe(self, channel: str) -> None:
        self.commands[channel][self.peer.start(unsubscribe={"channel": channel})] = "unsubscribe"

    def lose_connection(self) -> None:
        self.peer.transport.drop()
        for channel in CHANNELS:
            if (position := self.position(channel)) is not None:
                self.remembered[channel] = position


class PositionedChannels(RuleBasedStateMachine):
    @initialize(channel=st.sampled_from(CHANNELS))
    def begin(self, channel: str) -> None:
        self.channel = channel
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(hub.repair, "RETRY", 0.001)
        self.patch.setattr(hub.repair, "GRACE", 0.0)
        self.patch.setattr(hub.repair, "PAGE", 4)
        self.patch.setattr(hub.catchup, "RETRY", 0.001)
        self.patch.setattr(hub.catchup, "PORTION", 100)
        self.patch.setattr(hub.fanout, "SLICE", 1)
        self.now = 0.0
        self.count = 0
        self.published: dict[str, dict[int, str]] = defaultdict(dict)
        self.redacted: set[tuple[str, int]] = set()
        self.publishing: list[asyncio.Task[None]] = []
        self.done(self._begin())

    async def _begin(self) -> None:
        folder = Path(self.folder.name)
        self.broker = LossyBroker(MemoryBroker(clock=lambda: self.now))
        self.store = GatedStore(SQLiteStore(folder / "hub.sqlite3"))
        configured = settings(folder, client={"recovery_max_publication_limit": 3})
        self.hub = InProcessHub(configured, broker=self.broker, store=self.store)
        await self.hub.node.start()
        self.players = [Player(self.hub) for _ in range(3)]

    def done(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    # What happens

    @rule(player=players, recover=st.sampled_from([True, True, False]))
    def subscribe(self, player: int, recover: bool) -> None:
        self.in_loop(lambda: self.players[player].subscribe(self.channel, recover=recover))

    @rule()
    def all_subscribe(self) -> None:
        for player in self.players:
            self.in_loop(lambda player=player: player.subscribe(self.channel, recover=True))

    @rule(player=players)
    def unsubscribe(self, player: int) -> None:
        self.in_loop(lambda: self.players[player].unsubscribe(self.channel))

    @rule(player=players)
    def lose_connection(self, player: int) -> None:
        self.in_loop(self.players[player].lose_connection)
        self.in_loop(self.players[player].connect)

    @rule(player=players)
    def stall(self, player: int) -> None:
        self.in_loop(self.players[player].peer.transport.stall)

    @rule(player=players)
    def read(self, player: int) -> None:
        self.in_loop(self.players[player].peer.transport.read)

    @rule(count=st.integers(1, 7))
    def publish(self, count: int) -> None:
        async def start() -> None:
            for _ in range(count):
                self.count += 1
                self.publishing.append(asyncio.ensure_future(self._publish(f"{TEXT}{self.count}")))
                await asyncio.sleep(0)

        self.done(start())

    async def _publish(self, payload: str) -> None:
        offset, epoch = await self.hub.publish_one(self.channel, payload)
        self.published[epoch][offset] = payload

    @rule(fate=st.sampled_from(Fate))
    def change_fate(self, fate: Fate) -> None:
        self.broker.fate = fate

    @rule(index=st.integers(0, 20))
    def deliver_late(self, index: int) -> None:
        if self.broker.delayed:
            self.in_loop(lambda: self.broker.deliver_delayed(index % len(self.broker.delayed)))

    @rule()
    def a_while(self) -> None:
        """Most of what is under way comes to its end, unless something holds it."""

        async def pass_by() -> None:
            for _ in range(40):
                await asyncio.sleep(0.0005)
                if not self.hub.busy():
                    break

        self.done(pass_by())

    @rule(live=st.integers(0, 9))
    def come_back_after_long(self, live: int) -> None:
        """Everybody is away while much is published, and comes back at once, while more is published."""
        for player in self.players:
            self.in_loop(player.lose_connection)
            self.in_loop(player.connect)
        self.publish(9)
        self.a_while()
        self.all_subscribe()
        for _ in range(live):
            self.publish(1)
            self.turn(2)

    @rule(player=players, delivered=st.integers(0, 4), dropped=st.integers(0, 4))
    def one_comes_back(self, player: int, delivered: int, dropped: int) -> None:
        """It may come back to a node that has missed a part of what is in history."""
        self.in_loop(self.players[player].lose_connection)
        self.in_loop(self.players[player].connect)
        self.broker.fate = Fate.DELIVER
        self.publish(delivered)
        self.a_while()
        self.broker.fate = Fate.DROP
        self.publish(dropped)
        self.a_while()
        self.in_loop(lambda: self.players[player].subscribe(self.channel, recover=True))
        self.broker.fate = Fate.DELIVER

    @rule()
    def message_of_a_lost_stream(self) -> None:
        self.broker.fate = Fate.DELAY
        self.publish(2)
        self.a_while()
        self.now += LONG
        self.broker.fate = Fate.DELIVER
        self.publish(1)
        self.a_while()

    @rule(turns=st.integers(1, 5))
    def turn(self, turns: int) -> None:
        async def pass_through() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.done(pass_through())

    @rule()
    def check_positions(self) -> None:
        async def start() -> None:
            self.hub.node.run(self.hub.node._check_positions())

        self.done(start())

    @rule()
    def doubt(self) -> None:
        self.in_loop(lambda: self.hub.node.on_doubt([self.channel, "nowhere"]))

    @rule(shut=st.booleans())
    def hold_reads(self, shut: bool) -> None:
        if shut:
            self.store.reads.shut()
        else:
            self.store.reads.open()

    @rule(offset=st.integers(1, 10))
    def redact(self, offset: int) -> None:
        async def go() -> None:
            resolved = self.hub.node.rules.resolve(self.channel)
            self.store.reads.open()
            position = await self.hub.node.history.position(resolved)
            self.redacted.add((position.epoch, offset))
            await self.hub.node.history.redact(resolved, offset, None)

        self.done(go())

    @rule(removed=st.sampled_from([False, False, True]))
    def remove_history(self, removed: bool) -> None:
        if not removed:
            return
        self.store.reads.open()
        self.done(self.hub.node.history.remove(self.hub.node.rules.resolve(self.channel)))

    @rule(lost=st.sampled_from([False, False, True]))
    def lose_recent_streams(self, lost: bool) -> None:
        self.now += LONG if lost else 0.0

    @rule()
    def everything_arrives(self) -> None:
        async def go() -> None:
            self.store.reads.open()
            self.broker.fate = Fate.DELIVER
            for player in self.players:
                player.peer.transport.read()
            if self.publishing:
                await asyncio.wait(self.publishing)
            while self.broker.delayed:
                self.broker.deliver_delayed()
            await self.hub.settled()
            await self.hub.node._check_positions()
            await self.hub.settled()

        self.done(go())
        for task in self.publishing:
            task.result()
        self.publishing.clear()
        self.verify()

    def in_loop(self, function: Any) -> None:
        """Call ``function`` from the event loop, outside of any task, as transports do."""

        async def wait() -> None:
            called = asyncio.get_running_loop().create_future()

            def call() -> None:
                try:
                    called.set_result(function())
                except BaseException as error:
                    called.set_exception(error)

            asyncio.get_running_loop().call_soon(call)
            await called

        self.done(wait())

    # What must be true

    def verify(self) -> None:
        """What everybody has seen until now, and that nobody misses anything that was published until now."""
        top = self.done(self.hub.node.history.position(self.hub.node.rules.resolve(self.channel)))
        for player in self.players:
            assert player.peer.closed is None, player.peer.closed
            seen = player.seen(self.channel)
            for each in seen:
                self.verify_one(player, each)
            if seen and seen[-1].ended is None:
                assert top.epoch == seen[-1].result["epoch"], (top, seen[-1])
                due = self.expected(top.epoch, seen[-1].start, top.offset)
                assert [each for each in seen[-1].offsets if each in due] == due, (top, seen[-1])

    def verify_one(self, player: Player, seen: Seen) -> None:
        assert seen.result["positioned"] and seen.result["recoverable"]
        epoch = seen.result["epoch"]
        assert seen.ended in (None, -1, 2500), seen.ended
        if seen.result.get("recovered"):
            assert seen.start == player.asked[seen.command]
        assert self.expected(epoch, seen.start, seen.position[0]) == [
            each for each in seen.offsets if (epoch, each) not in self.redacted
        ]
        assert seen.offsets == sorted(set(seen.offsets))
        for each in seen.publications:
            payload = self.published[epoch].get(each["offset"])
            assert payload is None or json.loads(each["data"]) == payload

    def expected(self, epoch: str, start: int, end: int) -> list[int]:
        return [each for each in range(start + 1, end + 1) if (epoch, each) not in self.redacted]

    def teardown(self) -> None:
        if not hasattr(self, "hub"):
            return
        try:
            self.everything_arrives()
            for player in self.players:
                self.in_loop(player.peer.transport.drop)
            self.done(self.hub.settled())
            self.hub.assert_nothing_left()
            assert self.hub.node.history._cached_bytes >= 0
        finally:
            self.store.reads.open()
            self.done(self.hub.node.stop(1.0))
            self.done(self.loop.shutdown_default_executor())
            self.loop.close()
            self.patch.undo()
            self.folder.cleanup()


TestPositionedChannels = PositionedChannels.TestCase
TestPositionedChannels.settings = examples(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
