"""What outlives a kill, and the short form of `python -m tests.faults.kill_restart`: every publication accounted for."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from tests.faults import kill_restart
from tests.faults.reconnecting import Subscriber
from tests.faults.wire import Wire
from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token


@pytest.mark.timeout(150)
async def test_nothing_is_lost_or_doubled_when_the_hub_is_killed_under_load() -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}: repeat with python -m tests.faults.kill_restart --rounds 3 --calm 0.8 --seed {seed}")
    report = await kill_restart.run(rounds=3, seed=seed, calm=0.8)
    print(report)
    assert report.kills >= 3
    assert report.acknowledged > 100
    assert report.delivered > report.acknowledged
    assert report.good, str(report)


def told(**acknowledged: int) -> kill_restart.Ledger:
    """A ledger of publications acknowledged at these offsets of one channel."""
    ledger = kill_restart.Ledger(attempted=len(acknowledged))
    ledger.acknowledged = {identity: ("c", offset, "e") for identity, offset in acknowledged.items()}
    return ledger


def saw(*entries: tuple[int, str]) -> Subscriber:
    subscriber = Subscriber(0, "", ["c"], random.Random(0))
    subscriber.streams["c"].delivered = list(entries)
    return subscriber


RECKONINGS: dict[str, tuple[kill_restart.Ledger, list[tuple[int, str]], Subscriber, tuple[bool, bool, bool]]] = {
    "all well": (told(a=1, b=2), [(1, "a"), (2, "b")], saw((1, "a"), (2, "b")), (False, False, False)),
    "not in history": (told(a=1, b=2), [(1, "a")], saw((1, "a")), (True, False, False)),
    "twice in history": (told(a=1), [(1, "a"), (2, "a")], saw((1, "a"), (2, "a")), (False, True, True)),
    "at another offset": (told(a=2, b=1), [(1, "a"), (2, "b")], saw((1, "a"), (2, "b")), (False, False, True)),
    "a gap in the offsets": (told(a=1, b=3), [(1, "a"), (3, "b")], saw((1, "a"), (3, "b")), (False, False, True)),
    "told to nobody": (told(a=1), [(1, "a"), (2, "x")], saw((1, "a"), (2, "x")), (False, False, True)),
    "not delivered": (told(a=1, b=2), [(1, "a"), (2, "b")], saw((1, "a")), (True, False, False)),
    "delivered twice": (told(a=1), [(1, "a")], saw((1, "a"), (1, "a")), (False, True, False)),
    "out of order": (told(a=1, b=2), [(1, "a"), (2, "b")], saw((2, "b"), (1, "a")), (False, False, True)),
    "from nowhere": (told(a=1), [(1, "a")], saw((1, "a"), (2, "z")), (False, False, True)),
}


@pytest.mark.parametrize("name", list(RECKONINGS))
def test_the_reckoning_finds_each_kind_of_fault(name: str) -> None:
    """The long run is worth nothing if its accounts cannot be wrong."""
    ledger, history, subscriber, (lost, duplicated, unexpected) = RECKONINGS[name]
    report = kill_restart.Report(seed=0)
    kill_restart.reckon(report, ledger, {"c": history}, [subscriber], {"c": "e"})
    assert (bool(report.lost), bool(report.duplicated), bool(report.unexpected)) == (lost, duplicated, unexpected)


async def test_recent_history_begins_anew_after_a_kill_and_says_so() -> None:
    """What was only in memory is gone: another epoch, recovered: false, and no offset that means something else now."""
    async with HubProcess() as hub:
        wire = await Wire.open(hub.port)
        await wire.connect(connection_token())
        before = (await wire.call(subscribe={"channel": "recent:anew"}))["subscribe"]
        for number in range(5):
            await hub.api_async("publish", {"channel": "recent:anew", "data": number})
        wire.drop()
        await asyncio.to_thread(hub.restart, kill=True)
        await hub.api_async("publish", {"channel": "recent:anew", "data": "new"})
        wire = await Wire.open(hub.port)
        await wire.connect(connection_token())
        request = {"channel": "recent:anew", "recover": True, "offset": 1, "epoch": before["epoch"]}
        after = (await wire.call(subscribe=request))["subscribe"]
        assert after["was_recovering"] is True
        assert not after.get("recovered")
        assert not after.get("publications")
        assert after["epoch"] != before["epoch"]
        assert after["offset"] == 1
        wire.drop()


async def test_versions_and_idempotency_keys_outlive_a_kill() -> None:
    async with HubProcess() as hub:
        channel = "durable:memory"
        first = await hub.api_async("publish", {"channel": channel, "data": 1, "idempotency_key": "k"})
        second = await hub.api_async("publish", {"channel": channel, "data": 2, "version": 7, "version_epoch": "v"})
        await asyncio.to_thread(hub.restart, kill=True)
        assert await hub.api_async("publish", {"channel": channel, "data": 3, "idempotency_key": "k"}) == first
        assert (
            await hub.api_async("publish", {"channel": channel, "data": 4, "version": 7, "version_epoch": "v"})
            == second
        )
        third = await hub.api_async("publish", {"channel": channel, "data": 5, "version": 8, "version_epoch": "v"})
        assert third["result"]["offset"] == 3
        answer = await hub.api_async("history", {"channel": channel, "limit": 10})
        assert [publication["data"] for publication in answer["result"]["publications"]] == [1, 2, 5]


async def test_one_key_at_once_from_many_is_one_publication() -> None:
    async with HubProcess() as hub:
        for channel in ("durable:once", "recent:once"):
            wire = await Wire.open(hub.port)
            await wire.connect(connection_token())
            assert "subscribe" in await wire.call(subscribe={"channel": channel})
            body = {"channel": channel, "data": 1, "idempotency_key": "once"}
            answers = await asyncio.gather(*(hub.api_async("publish", body) for _ in range(30)))
            assert {answer["result"]["offset"] for answer in answers} == {1}
            await hub.api_async("publish", {"channel": channel, "data": 2})
            got = [json.loads(await wire.line())["push"]["pub"]["data"] for _ in range(2)]
            assert got == [1, 2]
            wire.drop()
