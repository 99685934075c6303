"""Readers that stop reading: a bounded buffer, then 3008 and an abort; or, with `conflate`, only the newest."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from tests.faults import slow_reader
from tests.faults.measure import MEGABYTE, resident
from tests.faults.slow_reader import PAYLOAD, Reader, body, number_of, subscriber, users_connected
from tests.support.hub_process import HubProcess

BOUND = 40 * MEGABYTE


@pytest.mark.parametrize("namespace", ["plain", "recent"])
async def test_a_reader_that_stops_is_gone_and_costs_no_memory(namespace: str) -> None:
    """The short form of `python -m tests.faults.slow_reader`."""
    changes = {"channel": {"namespaces": NAMESPACES}}
    async with HubProcess(changes=changes) as hub:
        outcome = await slow_reader.run(hub, f"{namespace}:slow", megabytes=200 if namespace == "plain" else 60)
    print(outcome)
    assert outcome.gone_after is not None, "the slow session is still listed"
    assert outcome.published_until_gone < outcome.published, "it was there until the publishing ended"
    assert outcome.slow_close in (3008, 1006)
    assert outcome.growth < BOUND
    for numbers in outcome.received:
        assert numbers == list(range(outcome.published))
    assert "Traceback" not in hub.log()


async def test_the_reason_is_in_the_metrics() -> None:
    async with HubProcess() as hub:
        await slow_reader.run(hub, "plain:slow", megabytes=30)
        async with aiohttp.ClientSession() as http, http.get(f"{hub.http_url}/metrics") as reply:
            metrics = await reply.text()
    lines = [line for line in metrics.splitlines() if "disconnect" in line and ("3008" in line or "slow" in line)]
    assert any(float(line.rsplit(" ", 1)[1]) >= 1 for line in lines if not line.startswith("#")), metrics


async def test_conflate_keeps_only_the_newest_for_a_slow_reader() -> None:
    """A dashboard that sleeps is not disconnected; when it wakes it sees the newest, in order, not the backlog."""
    changes = {"channel": {"namespaces": NAMESPACES}}
    count = 60 * MEGABYTE // PAYLOAD
    async with HubProcess(changes=changes) as hub:
        channel = "board:numbers"
        healthy = Reader(await subscriber(hub, channel, "healthy"))
        task = asyncio.create_task(healthy.run())
        slow = await subscriber(hub, channel, "slow", receive_buffer=4096)
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket transport, which has it
        async with aiohttp.ClientSession(headers={"X-API-Key": hub.api_key}) as http:
            for number in range(count):
                async with http.post(f"{hub.api_url}/publish", data=body(channel, number)) as reply:
                    assert "result" in await reply.json()
                if number == count // 4:
                    baseline = resident(hub.pid)
            assert resident(hub.pid) - baseline < BOUND
            assert "slow" in await users_connected(hub)
            slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
            seen: list[int] = []
            while not seen or seen[-1] < count - 1:
                line = await slow.line()
                assert line.startswith(b'{"push"'), line[:80]
                seen.append(number_of(line))
            assert seen == sorted(set(seen))
            assert len(seen) < count
            async with asyncio.timeout(10):
                while not healthy.numbers or healthy.numbers[-1] < count - 1:
                    healthy.moved.clear()
                    await healthy.moved.wait()
            assert healthy.numbers == sorted(set(healthy.numbers))
            # The woken reader goes on as any other.
            async with http.post(f"{hub.api_url}/publish", data=body(channel, count)) as reply:
                assert "result" in json.loads(await reply.read())
            assert number_of(await slow.line()) == count
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        healthy.wire.drop()
        slow.drop()
        assert "Traceback" not in hub.log()


NAMESPACES = [
    {"name": "plain", "allow_subscribe_for_client": True},
    {"name": "recent", "allow_subscribe_for_client": True, "history_size": 100, "history_ttl": "60s"},
    {"name": "board", "allow_subscribe_for_client": True, "conflate": True},
]
