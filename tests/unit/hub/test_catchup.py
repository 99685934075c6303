"""Tests of hub.catchup: from where a client stands to the present, at the client's own pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from storage.errors import StoreUnavailable
from storage.sqlite import SQLiteStore
from tests.support.doubtful import GatedStore
from tests.support.inprocess import InProcessHub, Peer, running
from tests.support.reading import Seen, subscriptions


@pytest.fixture
async def paged(tmp_path: Path) -> AsyncIterator[tuple[InProcessHub, GatedStore]]:
    """Pages of three publications."""
    store = GatedStore(SQLiteStore(tmp_path / "hub.sqlite3"))
    async with running(tmp_path, store=store, client={"recovery_max_publication_limit": 3}) as hub:
        yield hub, store
        store.reads.open()


def recover(peer: Peer, channel: str, offset: int = 0, **request: Any) -> int:
    return peer.start(subscribe={"channel": channel, "recover": True, "offset": offset, **request})


def only(peer: Peer, channel: str, number: int) -> Seen:
    [seen] = subscriptions(peer, channel, replies={number: "subscribe"})
    return seen


async def test_the_first_page_is_in_the_reply_and_the_rest_follows(paged: tuple[InProcessHub, GatedStore]) -> None:
    hub, _ = paged
    await hub.publish("durable:x", *range(20))
    peer = await hub.connected()
    number = recover(peer, "durable:x", 5)
    result = (await peer.reply(number))["subscribe"]
    assert (result["recovered"], result["offset"], len(result["publications"])) == (True, 5, 3)
    await hub.settled()
    assert only(peer, "durable:x", number).offsets == list(range(6, 21))
    fan = hub.node.fanouts["durable:x"]
    assert not fan.loose, "it is like everybody else now"
    await hub.publish("durable:x", 20)
    await hub.settled()
    assert only(peer, "durable:x", number).data == list(range(5, 21))


async def test_live_publications_wait_their_turn(paged: tuple[InProcessHub, GatedStore]) -> None:
    hub, store = paged
    other = await hub.subscribed("durable:x")
    await hub.publish("durable:x", *range(8))
    peer = await hub.connected()
    number = recover(peer, "durable:x")
    await peer.reply(number)
    store.reads.shut()
    await hub.publish("durable:x", 8, 9)
    await other.until(lambda: len(other.data("durable:x")) == 10)
    assert 9 not in only(peer, "durable:x", number).data
    store.reads.open()
    await hub.publish("durable:x", 10)
    await hub.settled()
    assert only(peer, "durable:x", number).data == list(range(11))
    assert other.data("durable:x") == list(range(11))


async def test_many_share_the_reads(paged: tuple[InProcessHub, GatedStore]) -> None:
    hub, store = paged
    await hub.publish("durable:x", *range(30))
    await hub.subscribed("durable:x")
    peers = [await hub.connected() for _ in range(40)]
    before = store.reads.passed
    numbers = [recover(each, "durable:x") for each in peers]
    await hub.settled()
    for peer, number in zip(peers, numbers, strict=True):
        assert only(peer, "durable:x", number).data == list(range(30))
    assert store.reads.passed - before == 10


async def test_it_goes_at_the_peers_pace(paged: tuple[InProcessHub, GatedStore]) -> None:
    hub, _ = paged
    await hub.publish("durable:x", *("x" * 30_000 for _ in range(40)))
    peer = await hub.connected()
    number = recover(peer, "durable:x")
    peer.transport.stalled = True
    await peer.reply(number)
    async with asyncio.timeout(10):
        while not peer.session.paused:  # noqa: ASYNC110  # pausing is the session's own affair and tells nobody
            await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    got = len(only(peer, "durable:x", number).offsets)
    assert got < 12, "no more is sent than what it reads"
    assert peer.closed is None
    for _ in range(60):
        peer.transport.read(90_000)
        await asyncio.sleep(0.002)
    peer.transport.read()
    await hub.settled()
    assert only(peer, "durable:x", number).offsets == list(range(1, 41))
    assert peer.closed is None


async def test_unsubscribing_on_the_way(paged: tuple[InProcessHub, GatedStore]) -> None:
    hub, store = paged
    await hub.publish("durable:x", *range(20))
    peer = await hub.connected()
    await peer.reply(recover(peer, "durable:x"))
    store.reads.shut()
    await peer.result(unsubscribe={"channel": "durable:x"})
    before = len(peer.messages())
    store.reads.open()
    await hub.settled()
    assert len(peer.messages()) == before
    assert not hub.node.fanouts


async def test_subscribing_again_on_the_way(paged: tuple[InProcessHub, GatedStore]) -> None:
    """The catching up of the subscription before must not go on for the one after it."""
    hub, store = paged
    await hub.publish("durable:x", *range(20))
    peer = await hub.connected()
    first = recover(peer, "durable:x")
    await peer.reply(first)
    store.reads.shut()
    leave = peer.start(unsubscribe={"channel": "durable:x"})
    second = recover(peer, "durable:x", 3)
    store.reads.open()
    await peer.reply(second)
    await hub.settled()
    replies = {first: "subscribe", leave: "unsubscribe", second: "subscribe"}
    seen = subscriptions(peer, "durable:x", replies=replies)
    assert seen[0].offsets == list(range(1, len(seen[0].offsets) + 1))
    assert seen[1].offsets == list(range(4, 21))


async def test_history_is_taken_away_on_the_way(paged: tuple[InProcessHub, GatedStore]) -> None:
    hub, store = paged
    await hub.publish("durable:x", *range(20))
    peer = await hub.connected()
    store.reads.shut()
    number = recover(peer, "durable:x")
    for _ in ("the position", "the first page"):
        await store.reads.reached.wait()
        store.reads.open()
        store.reads.shut()  # the one that waits goes on, the next will wait
    await peer.reply(number)
    await hub.node.history.remove(hub.node.rules.resolve("durable:x"))
    store.reads.open()
    await hub.settled()
    seen = only(peer, "durable:x", number)
    assert seen.offsets == list(range(1, len(seen.offsets) + 1))
    assert len(seen.offsets) < 20
    assert seen.ended == 2500


async def test_history_is_out_of_reach_on_the_way(paged: tuple[InProcessHub, GatedStore]) -> None:
    hub, store = paged
    await hub.publish("durable:x", *range(20))
    peer = await hub.connected()
    store.reads.shut()
    number = recover(peer, "durable:x")
    await store.reads.reached.wait()
    await asyncio.sleep(0)
    store.reads.open()
    await peer.reply(number)
    store.failure = StoreUnavailable("the disk is gone")
    await store.failed.wait()
    assert peer.closed is None
    store.failure = None
    await hub.settled()
    assert only(peer, "durable:x", number).offsets == list(range(1, 21))


async def test_redacted_ones_are_passed_over(paged: tuple[InProcessHub, GatedStore]) -> None:
    hub, _ = paged
    await hub.publish("durable:x", *range(10))
    resolved = hub.node.rules.resolve("durable:x")
    for offset in (2, 5, 6, 7, 8, 9, 10):
        await hub.node.history.redact(resolved, offset, None)
    peer = await hub.connected()
    number = recover(peer, "durable:x")
    await peer.reply(number)
    await hub.settled()
    await hub.publish("durable:x", 10)
    await hub.settled()
    assert only(peer, "durable:x", number).offsets == [1, 3, 4, 11]


async def test_deltas_begin_anew_after_it(paged: tuple[InProcessHub, GatedStore]) -> None:
    hub, _ = paged
    text = "hello " * 20
    await hub.publish("durabledelta:x", *(f"{text}{each}" for each in range(8)))
    peer = await hub.connected()
    number = recover(peer, "durabledelta:x", delta="fossil")
    await peer.reply(number)
    await hub.settled()
    await hub.publish("durabledelta:x", f"{text}8", f"{text}9")
    await hub.settled()
    seen = only(peer, "durabledelta:x", number)
    assert seen.data == [f"{text}{each}" for each in range(10)]
    assert [each.get("delta", False) for each in seen.publications] == [False] * 9 + [True]


async def test_filters_hold_on_the_way(paged: tuple[InProcessHub, GatedStore]) -> None:
    hub, _ = paged
    for number in range(20):
        await hub.publish("durabletags:x", number, tags={"kind": "good" if number in (1, 2, 17) else "bad"})
    peer = await hub.connected()
    number = recover(peer, "durabletags:x", tf={"key": "kind", "cmp": "eq", "val": "good"})
    await peer.reply(number)
    await hub.settled()
    assert only(peer, "durabletags:x", number).data == [1, 2, 17]
    assert not hub.node.fanouts["durabletags:x"].loose


async def test_what_json_cannot_carry(paged: tuple[InProcessHub, GatedStore]) -> None:
    hub, _ = paged
    await hub.publish("durable:x", 1, 2, 3, b"not json", 5)
    peer = await hub.connected()
    await peer.reply(recover(peer, "durable:x"))
    assert await peer.disconnected() == 3506


async def test_a_reply_is_cut_where_it_would_be_too_large(node_hub: InProcessHub) -> None:
    """Also on recent channels, where the rest follows likewise."""
    await node_hub.publish("recent:x", *("x" * 50_000 for _ in range(12)))
    peer = await node_hub.connected()
    number = recover(peer, "recent:x")
    result = (await peer.reply(number))["subscribe"]
    assert (result["recovered"], len(result["publications"])) == (True, 2)
    await node_hub.settled()
    assert only(peer, "recent:x", number).offsets == list(range(1, 13))
