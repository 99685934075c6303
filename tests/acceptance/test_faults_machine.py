"""The machine in trouble: a process that was stopped for a while, no file descriptors left."""

from __future__ import annotations

import asyncio
import json
import resource
import signal

import pytest

from tests.faults.measure import open_files
from tests.faults.wire import Closed, Hang, Wire
from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token


async def test_clients_outlive_a_hub_that_was_stopped_for_a_while() -> None:
    """A machine that sleeps, or a debugger: the pongs that came meanwhile count, and nobody is sent away."""
    changes = {"client": {"ping_interval": "1s", "pong_timeout": "500ms"}}
    async with HubProcess(changes=changes) as hub:
        wires = []
        for number in range(20):
            wire = await Wire.open(hub.port)
            await wire.connect(connection_token(f"u{number}"))
            assert "subscribe" in await wire.call(subscribe={"channel": "recent:pause"})
            wires.append(wire)
        got: list[list[int]] = [[] for _ in wires]

        async def listen(wire: Wire, numbers: list[int]) -> None:
            while len(numbers) < 2:
                numbers.append(json.loads(await wire.line())["push"]["pub"]["data"])

        listening = [asyncio.create_task(listen(wire, numbers)) for wire, numbers in zip(wires, got, strict=True)]
        await hub.api_async("publish", {"channel": "recent:pause", "data": 1})
        for _ in range(3):
            await asyncio.sleep(0.4)
            hub.send_signal(signal.SIGSTOP)
            await asyncio.sleep(1.2)
            hub.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.5)
        await hub.api_async("publish", {"channel": "recent:pause", "data": 2})
        await asyncio.gather(*listening)
        assert got == [[1, 2]] * len(wires)
        for wire in wires:
            wire.drop()


async def test_without_file_descriptors_those_who_are_in_stay_in() -> None:
    async with HubProcess() as hub:
        inside = await Wire.open(hub.port)
        await inside.connect(connection_token())
        assert "subscribe" in await inside.call(subscribe={"channel": "durable:files"})
        soft, hard = resource.prlimit(hub.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(hub.pid, resource.RLIMIT_NOFILE, (open_files(hub.pid) + 4, hard))
        crowd: list[Wire] = []
        opening = [asyncio.create_task(Wire.tcp(hub.port)) for _ in range(30)]
        crowd = [await task for task in opening]
        await asyncio.sleep(0.5)
        for number in range(5):
            assert "publish" in await until_replied(inside, number)
        for wire in crowd:
            wire.drop()
        resource.prlimit(hub.pid, resource.RLIMIT_NOFILE, (soft, hard))
        inside.drop()
        async with asyncio.timeout(15):
            while True:
                try:
                    after = await Wire.open(hub.port)
                    break
                except (Closed, Hang, OSError):
                    await asyncio.sleep(0.2)
        await after.connect(connection_token())
        after.drop()
        assert (await hub.api_async("history", {"channel": "durable:files", "limit": 0}))["result"]["offset"] == 5


async def until_replied(wire: Wire, number: int) -> dict[str, object]:
    """Publish and wait for the reply."""
    return await wire.call(publish={"channel": "durable:files", "data": number})


async def exit_code(hub: HubProcess) -> int:
    """Wait until the process has ended by itself."""
    async with asyncio.timeout(20):
        while True:
            if not hub.running:
                return await asyncio.to_thread(hub.terminate)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_under_load_ends_cleanly_and_keeps_what_was_acknowledged(number: signal.Signals) -> None:
    """Clients are told 3001, the process ends by itself, and acknowledged publications are there afterwards."""
    free = {"rate": 0, "burst": 1}
    async with HubProcess(changes={"rate_limit": {"publish": free, "other": free, "bytes": free}}) as hub:
        wires = []
        for index in range(10):
            wire = await Wire.open(hub.port)
            await wire.connect(connection_token(f"u{index}"))
            wires.append(wire)
        acknowledged: list[int] = []

        async def publish(wire: Wire, index: int) -> Closed:
            sent = 0
            try:
                while True:
                    identity = index * 100_000 + sent
                    sent += 1
                    reply = await wire.call(publish={"channel": "durable:signal", "data": identity})
                    if "publish" in reply:
                        acknowledged.append(identity)
            except Closed as closed:
                return closed

        publishing = [asyncio.create_task(publish(wire, index)) for index, wire in enumerate(wires)]
        await asyncio.sleep(0.5)
        hub.send_signal(number)
        ends = await asyncio.gather(*publishing)
        assert [closed.code for closed in ends] == [3001] * len(wires)
        assert await exit_code(hub) == 0
        assert "Traceback" not in hub.log()
        await asyncio.to_thread(hub.start)
        kept: list[int] = []
        epoch = (await hub.api_async("history", {"channel": "durable:signal", "limit": 0}))["result"]["epoch"]
        while True:
            query = {"channel": "durable:signal", "limit": 1000, "since": {"offset": len(kept), "epoch": epoch}}
            page = (await hub.api_async("history", query))["result"]["publications"]
            if not page:
                break
            kept += [publication["data"] for publication in page]
        assert len(kept) == len(set(kept))
        assert set(acknowledged) <= set(kept)
        assert len(acknowledged) > 20
