"""Tests of hub.fanout: order and exactly once, whoever comes, leaves or reads slowly in between."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from channels.namespaces import ChannelSettings
from hub import fanout
from hub.cohort import Batch
from hub.settings import NodeSettings
from hub.wire import TEXT_FRAMES
from storage.contract import Position, Publication
from tests.support.inprocess import InProcessHub, Peer, namespace, running
from tests.support.reading import subscriptions


@pytest.fixture
async def sliced(node_hub: InProcessHub, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[InProcessHub]:
    """A fan-out of two writes at a time."""
    monkeypatch.setattr(fanout, "SLICE", 2)
    yield node_hub


def publication(data: Any, **fields: Any) -> Publication:
    return Publication(data=json.dumps(data).encode(), **fields)


async def until_half_way(hub: InProcessHub, peers: list[Peer], channel: str) -> None:
    """Let the loop turn until some peers have got something and others have not."""
    for _ in range(100):
        if any(each.data(channel) for each in peers):
            break
        await asyncio.sleep(0)
    assert not all(each.data(channel) for each in peers)
    assert hub.node.fanouts[channel]._jobs


class TestCohorts:
    async def test_everybody_gets_the_same_bytes(self, node_hub: InProcessHub) -> None:
        peers = [await node_hub.subscribed("plain:x") for _ in range(5)]
        await node_hub.publish("plain:x", {"a": 1})
        await node_hub.settled()
        last = [each.transport.writes[-1] for each in peers]
        assert last == [b'{"push":{"channel":"plain:x","pub":{"data":{"a": 1}}}}'] * 5
        assert all(each is last[0] for each in last), "rendered once"

    async def test_what_arrives_together_is_written_together_and_in_order(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.subscribed("recent:x")
        before = len(peer.transport.writes)
        await node_hub.publish("recent:x", *range(10))
        await node_hub.settled()
        assert peer.data("recent:x") == list(range(10))
        assert len(peer.transport.writes) == before + 1

    async def test_cohorts_by_wire_and_delta_and_filter(self, node_hub: InProcessHub) -> None:
        frames = node_hub.peer(wire=TEXT_FRAMES)
        frames.receive({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "delta:x"}})
        plain = await node_hub.subscribed("delta:x")
        delta = await node_hub.subscribed("delta:x", delta="fossil")
        another = await node_hub.subscribed("delta:x", delta="fossil")
        await node_hub.publish("delta:x", {"text": "hello " * 20}, {"text": "hello " * 20 + "!"})
        await node_hub.settled()
        found = node_hub.node.fanouts["delta:x"]
        assert sorted(len(each.members) for each in found.cohorts.values()) == [1, 1, 2]
        assert not found.loose
        assert plain.data("delta:x")[1] == {"text": "hello " * 20 + "!"}
        assert delta.pushes("delta:x")[1]["delta"] is True
        assert delta.raw().count(b'"delta":true') == another.raw().count(b'"delta":true') == 2
        assert frames.transport.writes[-1][0] == 0x81
        for each in (delta, another):
            await each.result(unsubscribe={"channel": "delta:x"})
        assert sorted(len(each.members) for each in found.cohorts.values()) == [1, 1]

    async def test_metrics(self, node_hub: InProcessHub) -> None:
        for _ in range(3):
            await node_hub.subscribed("plain:x")
        await node_hub.publish("plain:x", 1, 2)
        await node_hub.settled()
        metrics = node_hub.metrics
        assert metrics.deliveries == 6
        assert sum(metrics.delivery_seconds.counts) == 1
        assert metrics.publications_in == {"test": 2}


class TestJoining:
    @pytest.mark.parametrize("channel", ["plain:x", "recent:x"])
    async def test_while_publications_wait_to_be_rendered(self, node_hub: InProcessHub, channel: str) -> None:
        first = await node_hub.subscribed(channel)
        await node_hub.publish(channel, 1, 2)
        second = await node_hub.subscribed(channel)
        await node_hub.publish(channel, 3)
        await node_hub.settled()
        assert first.data(channel) == [1, 2, 3]
        assert second.data(channel) == [3]
        assert not node_hub.node.fanouts[channel].loose

    async def test_the_reply_says_where_the_stream_is_although_nothing_was_rendered(
        self, node_hub: InProcessHub
    ) -> None:
        await node_hub.subscribed("recent:x")
        await node_hub.publish("recent:x", 1, 2)
        peer = await node_hub.connected()
        assert (await peer.result(subscribe={"channel": "recent:x"}))["offset"] == 2

    async def test_between_the_slices_of_a_publication(self, sliced: InProcessHub) -> None:
        early = [await sliced.subscribed("recent:x") for _ in range(7)]
        await sliced.publish("recent:x", 1)
        await until_half_way(sliced, early, "recent:x")
        late = await sliced.subscribed("recent:x")
        await sliced.publish("recent:x", 2)
        await sliced.settled()
        assert all(each.data("recent:x") == [1, 2] for each in early)
        assert late.data("recent:x") == [2]

    async def test_delta_begins_with_a_whole_payload(self, node_hub: InProcessHub) -> None:
        text = "hello " * 20
        first = await node_hub.subscribed("plaindelta:x", delta="fossil")
        await node_hub.publish("plaindelta:x", text + "1")
        second = await node_hub.subscribed("plaindelta:x", delta="fossil")
        await node_hub.publish("plaindelta:x", text + "2", text + "3")
        await node_hub.settled()
        assert [each.get("delta", False) for each in first.pushes("plaindelta:x")] == [False, True, True]
        assert [each.get("delta", False) for each in second.pushes("plaindelta:x")] == [False, True]
        await node_hub.publish("plaindelta:x", text + "4")
        await node_hub.settled()
        assert first.pushes("plaindelta:x")[-1] == second.pushes("plaindelta:x")[-1]
        assert second.pushes("plaindelta:x")[-1]["delta"] is True


class TestLeaving:
    async def test_nothing_follows_the_reply(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.subscribed("recent:x")
        await node_hub.publish("recent:x", 1)
        await node_hub.settled()
        await node_hub.publish("recent:x", 2)
        number = peer.start(unsubscribe={"channel": "recent:x"})
        await node_hub.publish("recent:x", 3)
        await node_hub.settled()
        assert peer.messages()[-1]["id"] == number
        assert not node_hub.node.fanouts

    async def test_in_the_middle_of_a_fan_out(self, sliced: InProcessHub) -> None:
        peers = [await sliced.subscribed("recent:x") for _ in range(9)]
        await sliced.publish("recent:x", 1)
        await until_half_way(sliced, peers, "recent:x")
        leaving = next(each for each in peers if not each.data("recent:x"))
        number = leaving.start(unsubscribe={"channel": "recent:x"})
        await sliced.publish("recent:x", 2)
        await sliced.settled()
        messages = leaving.messages()
        assert messages[-1].get("id") == number, "what was on its way came before the reply"
        assert leaving.data("recent:x") == [1]
        assert all(each.data("recent:x") == [1, 2] for each in peers if each is not leaving)

    async def test_lost_in_the_middle_of_a_fan_out(self, sliced: InProcessHub) -> None:
        """The transport of a session that has ended refuses to write: the others must not notice."""
        peers = [await sliced.subscribed("recent:x") for _ in range(9)]
        await sliced.publish("recent:x", 1)
        await until_half_way(sliced, peers, "recent:x")
        waiting = [each for each in peers if not each.data("recent:x")]
        for each in waiting[1:4]:
            each.transport.drop()
        await sliced.settled()
        assert sum(each.data("recent:x") == [1] for each in peers) == 6
        assert sliced.node.fanouts["recent:x"].count == 6

    async def test_all_in_the_middle_of_a_fan_out(self, sliced: InProcessHub) -> None:
        peers = [await sliced.subscribed("plain:x") for _ in range(6)]
        await sliced.publish("plain:x", 1, 2)
        await until_half_way(sliced, peers, "plain:x")
        for each in peers:
            each.transport.drop()
        await sliced.settled()
        sliced.assert_nothing_left()

    async def test_everything_goes_with_the_last(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.subscribed("recent:x")
        fan = node_hub.node.fanouts["recent:x"]
        await peer.result(unsubscribe={"channel": "recent:x"})
        assert (fan.count, fan.watchers, fan.holds) == (0, 0, 0)
        assert not fan.cohorts and not fan.loose
        peer.transport.drop()
        await node_hub.settled()
        node_hub.assert_nothing_left()


class TestExcluding:
    async def test_the_sender_is_spared(self, node_hub: InProcessHub) -> None:
        sender, other = [await node_hub.subscribed("recent:x") for _ in range(2)]
        await node_hub.publish("recent:x", 1)
        await sender.result(publish={"channel": "recent:x", "data": 2, "exclude_client": True})
        await sender.result(publish={"channel": "recent:x", "data": 3})
        await node_hub.settled()
        assert sender.data("recent:x") == [1, 3]
        assert other.data("recent:x") == [1, 2, 3]
        assert not node_hub.node.fanouts["recent:x"].loose, "it stays in its cohort"

    async def test_nobody_of_that_name(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.subscribed("plain:x")
        elsewhere = await node_hub.connected()
        await node_hub.publish("plain:x", 1, exclude_client="nobody")
        await node_hub.publish("plain:x", 2, exclude_client=elsewhere.session.client)
        await node_hub.settled()
        assert peer.data("plain:x") == [1, 2]

    async def test_a_delta_subscriber_that_was_spared_is_not_sent_a_delta_against_it(
        self, node_hub: InProcessHub
    ) -> None:
        text = "hello " * 20
        sender, other = [await node_hub.connected() for _ in range(2)]
        replies = {each: {each.start(subscribe={"channel": "delta:x", "delta": "fossil"}): "subscribe"}
                   for each in (sender, other)}  # fmt: skip
        for number in range(6):
            exclude = sender.session.client if number in (1, 2, 4) else ""
            await node_hub.publish("delta:x", f"{text}{number}", exclude_client=exclude)
            if number % 2:
                await node_hub.settled()
        await node_hub.settled()
        [seen] = subscriptions(sender, "delta:x", replies=replies[sender])
        assert seen.data == [f"{text}{number}" for number in (0, 3, 5)]
        [seen] = subscriptions(other, "delta:x", replies=replies[other])
        assert seen.data == [f"{text}{number}" for number in range(6)]

    async def test_what_follows_does_not_overtake_what_is_on_its_way(self, sliced: InProcessHub) -> None:
        """A delta subscriber was spared the second of three publications that arrived together.

        It left its cohort for that, and got the third at once, while the first was still on its way to the cohort.
        """
        sender = await sliced.subscribed("plaindelta:x", delta="fossil")
        for _ in range(5):
            await sliced.subscribed("plaindelta:x", delta="fossil")
        await sliced.publish("plaindelta:x", "zero")
        await sliced.settled()
        await sliced.publish("plaindelta:x", "one")
        await sliced.publish("plaindelta:x", "two", exclude_client=sender.session.client)
        await sliced.publish("plaindelta:x", "three")
        await sliced.settled()
        assert sender.data("plaindelta:x") == ['"zero"', '"one"', '"three"']


FILTER = {"key": "kind", "cmp": "eq", "val": "good"}


class TestFilters:
    async def test_only_what_matches(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.subscribed("tags:x", tf=FILTER)
        everything = await node_hub.subscribed("tags:x")
        for number in range(6):
            await node_hub.publish("tags:x", number, tags={"kind": "good" if number % 3 else "bad"})
            if number == 2:
                await node_hub.settled()
        await node_hub.settled()
        assert peer.data("tags:x") == [1, 2, 4, 5]
        assert everything.data("tags:x") == list(range(6))
        assert not node_hub.node.fanouts["tags:x"].loose

    async def test_what_was_left_out_counts_for_the_position(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.subscribed("tags:x", tf=FILTER)
        peer.transport.stall()
        await node_hub.publish("tags:x", 1, 2, tags={"kind": "bad"})
        await node_hub.settled()
        peer.transport.read()
        await node_hub.publish("tags:x", 3, tags={"kind": "good"})
        await node_hub.settled()
        assert peer.data("tags:x") == [3]
        assert not node_hub.node.fanouts["tags:x"].loose, "it is back in its cohort"


class TestSlowReaders:
    @pytest.mark.parametrize("channel", ["plain:x", "recent:x", "durable:x"])
    async def test_nothing_is_lost_or_repeated(self, node_hub: InProcessHub, channel: str) -> None:
        slow, quick = [await node_hub.subscribed(channel) for _ in range(2)]
        await node_hub.publish(channel, 1)
        slow.transport.stall()
        await node_hub.publish(channel, 2)
        await node_hub.settled()
        await node_hub.publish(channel, 3)
        slow.transport.read()
        await node_hub.publish(channel, 4)
        await node_hub.settled()
        slow.transport.stall()
        slow.transport.read()
        await node_hub.publish(channel, 5)
        await node_hub.settled()
        assert slow.data(channel) == quick.data(channel) == [1, 2, 3, 4, 5]
        assert not node_hub.node.fanouts[channel].loose

    async def test_paused_in_the_middle_of_a_fan_out(self, sliced: InProcessHub) -> None:
        peers = [await sliced.subscribed("recent:x") for _ in range(7)]
        await sliced.publish("recent:x", 1)
        await until_half_way(sliced, peers, "recent:x")
        slow = next(each for each in peers if not each.data("recent:x"))
        slow.transport.stall()
        await sliced.publish("recent:x", 2)
        await sliced.settled()
        slow.transport.read()
        await sliced.publish("recent:x", 3)
        await sliced.settled()
        assert all(each.data("recent:x") == [1, 2, 3] for each in peers)

    async def test_a_delta_chain_goes_on_through_a_pause(self, node_hub: InProcessHub) -> None:
        text = "hello " * 20
        peer = await node_hub.connected()
        replies = {peer.start(subscribe={"channel": "delta:x", "delta": "fossil"}): "subscribe"}
        for number in range(9):
            if number == 3:
                peer.transport.stall()
            elif number == 6:
                peer.transport.read()
            await node_hub.publish("delta:x", f"{text}{number}")
            if number % 2:
                await node_hub.settled()
        await node_hub.settled()
        [seen] = subscriptions(peer, "delta:x", replies=replies)
        assert seen.data == [f"{text}{number}" for number in range(9)]
        assert [each.get("delta", False) for each in seen.publications] == [False] + [True] * 8

    async def test_the_bound(self, node_hub: InProcessHub) -> None:
        slow, quick = [await node_hub.subscribed("recent:x") for _ in range(2)]
        slow.transport.stall()
        for _ in range(20):
            await node_hub.publish("recent:x", "x" * 20_000)
            await node_hub.settled()
        assert await slow.disconnected() == 3008
        assert slow.transport.aborted
        assert 12 <= len(slow.pushes("recent:x")) <= 13, "256 KiB"
        assert len(quick.pushes("recent:x")) == 20
        assert node_hub.node.fanouts["recent:x"].count == 1

    async def test_conflate_keeps_only_the_newest(self, node_hub: InProcessHub) -> None:
        slow, quick = [await node_hub.subscribed("conflate:x") for _ in range(2)]
        await node_hub.publish("conflate:x", 0)
        await node_hub.settled()
        slow.transport.stall()
        for number in range(1, 50):
            await node_hub.publish("conflate:x", {"number": number, "text": "x" * 20_000})
            await node_hub.settled()
        assert slow.closed is None
        assert slow.data("conflate:x") == [0]
        slow.transport.read()
        assert [each["number"] for each in slow.data("conflate:x")[1:]] == [49]
        await node_hub.publish("conflate:x", 50)
        await node_hub.settled()
        assert slow.data("conflate:x")[2:] == [50]
        assert len(quick.data("conflate:x")) == 51
        assert node_hub.metrics.conflated == 48
        assert not node_hub.node.fanouts["conflate:x"].loose

    async def test_conflate_pausing_again_at_once(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.subscribed("conflate:x")
        await node_hub.subscribed("conflate:y", peer)
        peer.transport.stall()
        for name in ("conflate:x", "conflate:y"):
            await node_hub.publish(name, 1, {"large": "x" * 70_000})
        await node_hub.settled()
        peer.transport.stalled = True
        peer.session.write_resumed()
        assert peer.session.paused, "the first of the two newest filled the socket again"
        peer.transport.read()
        await node_hub.publish("conflate:x", 2)
        await node_hub.publish("conflate:y", 2)
        await node_hub.settled()
        for name in ("conflate:x", "conflate:y"):
            assert [type(each) for each in peer.data(name)] == [dict, int]


class TestBacklog:
    async def test_a_large_batch_goes_out_in_parts(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.subscribed("plain:x")
        before = len(peer.transport.writes)
        await node_hub.publish("plain:x", *("x" * 10_000 for _ in range(50)))
        await node_hub.settled()
        written = peer.transport.writes[before:]
        assert len(peer.data("plain:x")) == 50
        assert max(map(len, written)) < fanout.AT_ONCE + 2000

    async def test_one_that_is_larger_goes_out_alone(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.subscribed("plain:x")
        before = len(peer.transport.writes)
        await node_hub.publish("plain:x", 1, "x" * 100_000, 2)
        await node_hub.settled()
        assert len(peer.transport.writes) - before == 3

    async def test_publishers_wait_for_a_channel_that_is_behind(self, tmp_path: Path) -> None:
        async with running(tmp_path, node=NodeSettings(fanout_backlog=100_000)) as hub:
            peer = await hub.subscribed("plain:x")
            publishers = [asyncio.create_task(hub.publish_one("plain:x", "x" * 30_000)) for _ in range(10)]
            await asyncio.sleep(0)
            fan = hub.node.fanouts["plain:x"]
            assert (fan.crowded, all(each.done() for each in publishers)) == (True, False)
            await asyncio.gather(*publishers)
            assert (fan.crowded, all(each.done() for each in publishers)) == (False, True)
            await hub.settled()
            assert len(peer.data("plain:x")) == 10


class TestWhatJsonCannotCarry:
    async def test_who_would_get_it_is_disconnected(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.subscribed("binary:x")
        await node_hub.publish("binary:x", b'"before"', b"\xff\xfe", b'"after"')
        assert await peer.disconnected() == 3506
        assert peer.data("binary:x") == ["before"]
        await node_hub.settled()
        other = await node_hub.subscribed("binary:x")
        await node_hub.publish("binary:x", b'"later"')
        await node_hub.settled()
        assert other.data("binary:x") == ["later"]

    async def test_who_filters_it_out_stays(self, node_hub: InProcessHub) -> None:
        peer = await node_hub.subscribed("tags:x", tf=FILTER)
        await node_hub.publish("tags:x", 1, tags={"kind": "good"})
        await node_hub.publish("tags:x", b"not json", tags={"kind": "bad"})
        await node_hub.publish("tags:x", 3, tags={"kind": "good"})
        await node_hub.settled()
        assert peer.closed is None
        assert peer.data("tags:x") == [1, 3]


class TestJoinsAndLeaves:
    async def test_watchers_are_told(self, node_hub: InProcessHub) -> None:
        watcher = await node_hub.subscribed("here:x")
        other = await node_hub.subscribed("here:x")
        client = {"user": "", "client": other.session.client}
        assert [each["info"] for each in watcher.pushes("here:x", "join")][1:] == [client]
        assert [each["info"] for each in other.pushes("here:x", "join")] == [client], "its own, after its reply"
        await other.result(unsubscribe={"channel": "here:x"})
        assert [each["info"] for each in watcher.pushes("here:x", "leave")] == [client]
        assert not other.pushes("here:x", "leave")
        await watcher.result(unsubscribe={"channel": "here:x"})
        assert not node_hub.node.fanouts

    async def test_others_are_not(self, tmp_path: Path) -> None:
        options = {"join_leave": True, "presence": True, "allow_presence_for_anonymous": True}
        quiet = namespace("quiet", allow_presence_for_subscriber=True, **options)
        async with running(tmp_path, channel=ChannelSettings(namespaces=(quiet,))) as hub:
            asking = await hub.subscribed("quiet:x", join_leave=True)
            silent = await hub.subscribed("quiet:x")
            assert len(asking.pushes("quiet:x", "join")) == 2
            assert not silent.pushes("quiet:x", "join")
            assert hub.node.fanouts["quiet:x"].watchers == 1


async def test_nothing_that_could_be_sent_makes_the_channel_deaf(
    node_hub: InProcessHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One failure while rendering left the channel's turn unscheduled for good: nobody got anything any more."""
    peer = await node_hub.subscribed("recent:x")
    plain = await node_hub.subscribed("loose:x")
    with monkeypatch.context() as patch:
        patch.setattr(Batch, "render", lambda *_: 1 / 0)
        await node_hub.publish("recent:x", 1)
        await node_hub.publish("loose:x", 1)
        await node_hub.settled()
    assert [each["code"] for each in peer.pushes("recent:x", "unsubscribe")] == [2500]
    result = await peer.result(subscribe={"channel": "recent:x", "recover": True})
    assert [each["data"] for each in result["publications"]] == [1]
    await node_hub.publish("recent:x", 2)
    await node_hub.publish("loose:x", 2)
    await node_hub.settled()
    assert peer.data("recent:x") == [2]
    assert plain.data("loose:x") == [2]


async def test_arrivals_that_come_too_late(tmp_path: Path) -> None:
    async with running(tmp_path, client={"channel_position_max_time_lag": timedelta(seconds=5)}) as hub:
        peer = await hub.subscribed("recent:x")
        epoch = hub.node.fanouts["recent:x"].position.epoch
        now = int(hub.loop.wall() * 1000)
        hub.node.on_publications("recent:x", [publication(1, offset=1, time=now - 4900)], epoch)
        await hub.settled()
        assert peer.data("recent:x") == [1]
        hub.node.on_publications("recent:x", [publication(2, offset=2, time=now - 5100)], epoch)
        await hub.settled()
        assert [each["code"] for each in peer.pushes("recent:x", "unsubscribe")] == [2500]
        assert hub.metrics.lags == 1


CHANNELS = st.sampled_from(["plain:x", "recent:x", "plaindelta:x", "delta:x"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 8)),
        st.tuples(st.just("publish"), st.integers(0, 8)),
        st.tuples(st.just("join"), st.booleans()),
        st.tuples(st.just("leave"), st.integers(0, 8)),
        st.tuples(st.just("drop"), st.integers(0, 8)),
        st.tuples(st.just("stall"), st.integers(0, 8)),
        st.tuples(st.just("read"), st.integers(0, 8)),
        st.tuples(st.just("turn"), st.integers(1, 3)),
    ),
    max_size=60,
)


@examples(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CHANNELS, STEPS, st.sampled_from([1, 2, 1000]), st.sampled_from([1, 300, 65536]))
def test_every_subscriber_sees_what_was_published_from_its_coming_to_its_leaving(
    channel: str, steps: list[tuple[str, int]], size: int, at_once: int
) -> None:
    """Whatever happens between two turns of the loop."""

    async def play() -> None:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setattr(fanout, "SLICE", size)
            patch.setattr(fanout, "AT_ONCE", at_once)
            async with running(Path(folder)) as hub:
                await _play(hub, channel, steps)

    asyncio.run(play())


class _Player:
    def __init__(self, peer: Peer, begun: int) -> None:
        self.peer = peer
        self.begun = begun
        self.ended: int | None = None
        self.spared: set[int] = set()
        self.replies: dict[int, str] = {}


async def _play(hub: InProcessHub, channel: str, steps: list[tuple[str, int]]) -> None:
    text = "some text that is worth a delta " * 3
    here: list[_Player] = []
    gone: list[_Player] = []
    count = 0
    for step, argument in steps:
        chosen = here[argument] if step != "join" and argument < len(here) else None
        if step == "publish":
            exclude = ""
            if chosen is not None:
                exclude = chosen.peer.session.client
                chosen.spared.add(count)
            await hub.publish(channel, f"{text}{count}", exclude_client=exclude)
            count += 1
        elif step == "join":
            player = _Player(await hub.connected(), count)
            request = {"channel": channel, **({"delta": "fossil"} if argument else {})}
            player.replies[player.peer.start(subscribe=request)] = "subscribe"
            here.append(player)
        elif step == "turn":
            for _ in range(argument):
                await asyncio.sleep(0)
        elif chosen is None:
            continue
        elif step == "stall":
            chosen.peer.transport.stall()
        elif step == "read":
            chosen.peer.transport.read()
        else:
            here.remove(chosen)
            gone.append(chosen)
            chosen.ended = count
            chosen.peer.transport.read()
            if step == "drop":
                chosen.peer.transport.drop()
            else:
                chosen.replies[chosen.peer.start(unsubscribe={"channel": channel})] = "unsubscribe"
    for player in here:
        player.peer.transport.read()
    await hub.settled()
    await hub.publish(channel, f"{text}{count}")
    await hub.settled()
    for player in (*here, *gone):
        [seen] = subscriptions(player.peer, channel, replies=player.replies)
        end = count + 1 if player.ended is None else player.ended
        due = [f"{text}{each}" for each in range(player.begun, end) if each not in player.spared]
        if player.ended is None:
            assert seen.data == due
        else:
            assert seen.data == due[: len(seen.data)]
    fan = hub.node.fanouts.get(channel)
    assert (fan.count if fan is not None else 0) == len(here)
    if fan is not None:
        assert not fan.loose, "all are back in their cohorts"
        assert fan.position in (Position(0, ""), Position(count + 1, fan.position.epoch))
