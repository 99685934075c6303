"""The store in trouble: a locked database, a full disk, a slow reader of much history. Nothing is lost, nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sqlite3
from collections.abc import Iterator

from tests.faults.measure import MEGABYTE, resident
from tests.faults.slow_reader import PAYLOAD, body, number_of
from tests.faults.wire import Wire, http
from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token

CHANNEL = "durable:trouble"


@contextlib.contextmanager
def locked(hub: HubProcess) -> Iterator[None]:
    """Another program holds the database's write lock, as a backup or a shell does."""
    database = sqlite3.connect(hub.data_dir / "hub.sqlite3", isolation_level=None)
    try:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")
    finally:
        database.close()


@contextlib.contextmanager
def disk_full(hub: HubProcess) -> Iterator[None]:
    """No file of the hub may grow any more."""
    largest = max(path.stat().st_size for path in hub.data_dir.iterdir())
    soft, hard = resource.prlimit(hub.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(hub.pid, resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        resource.prlimit(hub.pid, resource.RLIMIT_FSIZE, (soft, hard))


async def publish(hub: HubProcess, number: int, *, size: int = 0) -> int:
    """Publish with an idempotency key; the error's code, or 0."""
    data = {"n": number, "pad": "x" * size}
    answer = await hub.api_async("publish", {"channel": CHANNEL, "data": data, "idempotency_key": f"k{number}"})
    code: int = answer.get("error", {}).get("code", 0)
    return code


async def published(hub: HubProcess, *numbers: int) -> None:
    """Repeat until all are acknowledged, as a publisher does after temporary errors."""
    async with asyncio.timeout(20):
        while True:
            if not any(await asyncio.gather(*(publish(hub, number) for number in numbers))):
                return
            await asyncio.sleep(0.1)


async def next_number(wire: Wire) -> int:
    number: int = json.loads(await wire.line())["push"]["pub"]["data"]["n"]
    return number


async def history(hub: HubProcess) -> list[int]:
    answer = await hub.api_async("history", {"channel": CHANNEL, "limit": 1000})
    return [publication["data"]["n"] for publication in answer["result"]["publications"]]


async def subscriber(hub: HubProcess) -> Wire:
    wire = await Wire.open(hub.port)
    await wire.connect(connection_token())
    assert "subscribe" in await wire.call(subscribe={"channel": CHANNEL})
    return wire


async def test_a_locked_database_is_a_temporary_error_and_repeats_make_it_once() -> None:
    changes = {"storage": {"commit_timeout": "1s"}}
    async with HubProcess(changes=changes) as hub:
        wire = await subscriber(hub)
        assert await publish(hub, 0) == 0
        assert await next_number(wire) == 0
        with locked(hub):
            codes = await asyncio.gather(*(publish(hub, number) for number in range(1, 11)))
            assert set(codes) == {100}
            reply = await wire.call(publish={"channel": CHANNEL, "data": {"n": -1}})
            assert reply["error"] == {"code": 100, "message": "internal server error", "temporary": True}
            # What needs no store goes on.
            assert "presence_stats" in await wire.call(presence_stats={"channel": "lobby:a"})
        await published(hub, *range(1, 11))
        kept = await history(hub)
        assert sorted(set(kept) - {-1}) == list(range(11))
        assert len(kept) == len(set(kept))
        assert [await next_number(wire) for _ in kept[1:]] == kept[1:]
        wire.drop()
        assert "Traceback" not in hub.log()


async def test_a_full_disk_is_a_temporary_error_until_there_is_room() -> None:
    async with HubProcess() as hub:
        wire = await subscriber(hub)
        for number in range(20):
            assert await publish(hub, number) == 0
        before = await history(hub)
        with disk_full(hub):
            refused = 0
            for number in range(20, 200):
                code = await publish(hub, number, size=50_000)
                assert code in (0, 100)
                refused += code == 100
                if refused >= 3:
                    break
            assert refused
            assert (await history(hub))[:20] == before
        await published(hub, 1000)
        kept = await history(hub)
        assert len(kept) == len(set(kept))
        assert kept[-1] == 1000
        assert [await next_number(wire) for _ in kept] == kept
        wire.drop()
        await asyncio.to_thread(hub.restart, kill=True)
        assert await history(hub) == kept
        assert "Traceback" not in hub.log()


async def test_much_history_is_paced_by_its_reader() -> None:
    """
    60 MB of missed publications for one that reads slowly, while new ones come.

    The hub reads no further ahead than its buffer, disconnects nobody who goes on reading, and loses nothing.
    """
    count, live = 60 * MEGABYTE // PAYLOAD, 100
    async with HubProcess() as hub:
        headers = {"X-API-Key": hub.api_key}

        async def produce(start: int, end: int) -> None:
            for number in range(start, end):
                status, _, answer = await http(hub.port, "POST", "/api/publish", body(CHANNEL, number), headers)
                assert (status, answer[:10]) == (200, b'{"result":')

        await produce(0, count)
        epoch = (await hub.api_async("history", {"channel": CHANNEL, "limit": 0}))["result"]["epoch"]
        baseline = resident(hub.pid)
        wire = await Wire.open(hub.port, receive_buffer=65536)
        await wire.connect(connection_token())
        wire.command(subscribe={"channel": CHANNEL, "recover": True, "offset": 0, "epoch": epoch})
        reply = json.loads(await wire.line())["subscribe"]
        assert reply["recovered"] is True
        seen = [publication["data"]["n"] for publication in reply.get("publications", ())]
        producing = asyncio.create_task(produce(count, count + live))
        highest = 0
        while len(seen) < count + live:
            seen.append(number_of(await wire.line(within=20)))
            if len(seen) % 200 == 0:
                wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket transport, which has it
                await asyncio.sleep(0.2)
                highest = max(highest, resident(hub.pid))
                wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await producing
        wire.drop()
        assert seen == list(range(count + live))
        assert highest - baseline < 30 * MEGABYTE
        assert "Traceback" not in hub.log()
