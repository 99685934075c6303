"""Fuzz a running hub with everything a stranger can send, and see that it stays well.

    python -m tests.faults.fuzz --inputs 100000 --seed 1

Frames, handshakes, commands, tokens and API requests are mutated from valid ones and sent to a hub of its own; each answer
is compared with what the protocol allows for exactly that input. Meanwhile a healthy client must get every message, and
at the end nothing may have piled up: no traceback in the log, memory and open files as before, no session left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import time
from typing import Any

from tests.faults.fuzz_commands import fuzz_commands
from tests.faults.fuzz_frames import fuzz_frames, fuzz_handshakes
from tests.faults.fuzz_http import fuzz_bodies, fuzz_requests
from tests.faults.fuzz_report import Report
from tests.faults.fuzz_settings import fuzz_settings
from tests.faults.fuzz_tokens import fuzz_connection_tokens, fuzz_subscription_tokens
from tests.faults.measure import MEGABYTE, open_files, resident
from tests.faults.wire import Closed, Hang, Wire
from tests.support.hub_config import default_config
from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token

FREE = {"rate": 0, "burst": 1}
SHARES: dict[str, tuple[Any, float, int]] = {
    "commands": (fuzz_commands, 0.60, 4),
    "subscription tokens": (fuzz_subscription_tokens, 0.09, 2),
    "connection tokens": (fuzz_connection_tokens, 0.01, 1),
    "api bodies": (fuzz_bodies, 0.20, 2),
    "http requests": (fuzz_requests, 0.03, 1),
    "frames": (fuzz_frames, 0.06, 2),
    "handshakes": (fuzz_handshakes, 0.01, 1),
}
"""Who makes what part of the inputs, and how many do so side by side."""
GROWTH = 60 * MEGABYTE
"""Streams of recent history that valid publications made may stay; what grows with the inputs would be far more."""
CALM = 10.0


def config() -> dict[str, Any]:
    """A hub without limits on how much: what is tested is the answer to each single input."""
    settings = default_config()
    settings["rate_limit"] = dict.fromkeys(("publish", "subscribe", "rpc", "history", "other", "bytes"), FREE)
    settings["client"]["ping_interval"] = "0s"
    settings["websocket"] = {"ping_flood_limit": 1_000_000}
    return settings


class Canary:
    """A healthy client beside the storm: every message published to it must come, in order, in time."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub
        self.seen = 0
        self.slowest = 0.0
        self.failure = ""

    async def run(self) -> None:
        wire = await Wire.open(self.hub.port)
        try:
            await wire.connect(connection_token("canary"))
            assert "subscribe" in await wire.call(subscribe={"channel": "ask:canary"})
            while True:
                began = time.monotonic()
                answer = await self.hub.api_async("publish", {"channel": "ask:canary", "data": self.seen})
                assert "result" in answer, answer
                push = json.loads(await wire.line())
                assert push["push"]["pub"]["data"] == self.seen, push
                self.seen += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
                await asyncio.sleep(0.1)
        except (Closed, Hang, OSError, AssertionError) as error:
            self.failure = f"{type(error).__name__}: {error}"
        finally:
            wire.drop()


async def run(*, inputs: int, seed: int, settings: int = 0) -> Report:
    """Send ``inputs`` mutated inputs to a running hub, and ``settings`` more through the loader."""
    report = Report(seed)
    fuzz_settings(report, settings, f"{seed} settings")
    began = time.monotonic()
    async with HubProcess(config=config(), app="tests.faults.fuzz_app:app") as hub:
        await _storm(hub, Report(seed), 600, f"{seed} warm-up")
        await _calm(hub, report, None)
        memory, files = resident(hub.pid), open_files(hub.pid)
        canary = Canary(hub)
        singing = asyncio.create_task(canary.run())
        try:
            await _storm(hub, report, inputs, str(seed))
        finally:
            singing.cancel()
            await asyncio.gather(singing, return_exceptions=True)
        await _calm(hub, report, files)
        growth = resident(hub.pid) - memory
        report.notes.append(
            f"{time.monotonic() - began:.0f} s; memory grew {growth / MEGABYTE:.1f} MB; canary saw {canary.seen}, "
            f"slowest {canary.slowest:.2f} s"
        )
        if canary.failure or not canary.seen:
            report.complaints.append(f"the healthy client failed: {canary.failure or 'it saw nothing'}")
        if growth > GROWTH:
            report.complaints.append(f"memory grew by {growth / MEGABYTE:.1f} MB")
        await _well(hub, report)
        _look_at_log(report, hub.log())
    return report


async def _storm(hub: HubProcess, report: Report, inputs: int, seed: str) -> None:
    tasks = []
    for name, (fuzzer, share, workers) in SHARES.items():
        for worker in range(workers):
            count = max(round(inputs * share / workers), 1)
            tasks.append(asyncio.create_task(_guard(fuzzer, hub, report, count, f"{seed} {name} {worker}")))
    await asyncio.gather(*tasks)


async def _guard(fuzzer: Any, hub: HubProcess, report: Report, count: int, seed: str) -> None:
    """A fuzzer that cannot go on is itself a finding."""
    try:
        await fuzzer(hub, report, count, seed)
    except (Closed, Hang, OSError, AssertionError) as error:
        report.complaints.append(f"{seed}: cannot go on: {type(error).__name__}: {error}")


async def _calm(hub: HubProcess, report: Report, files: int | None) -> None:
    """Wait until all sessions have left and their files are closed."""
    deadline = time.monotonic() + CALM
    while True:
        nodes = (await hub.api_async("info"))["result"]["nodes"]
        sessions = nodes[0]["num_clients"]
        opened = open_files(hub.pid)
        if not sessions and (files is None or opened <= files + 3):
            return
        if time.monotonic() > deadline:
            report.complaints.append(
                f"after the storm {sessions} sessions and {opened} open files are left, before {files}"
            )
            return
        await asyncio.sleep(0.2)


async def _well(hub: HubProcess, report: Report) -> None:
    """A new client finds everything in order."""
    wire = await Wire.open(hub.port)
    await wire.connect(connection_token("after"))
    for channel in ("plain:after", "durable:after"):
        assert "subscribe" in await wire.call(subscribe={"channel": channel})
        answer = await hub.api_async("publish", {"channel": channel, "data": "well"})
        assert "result" in answer, answer
        push = json.loads(await wire.line())
        if push.get("push", {}).get("pub", {}).get("data") != "well":
            report.complaints.append(f"a healthy client after the storm got {push}")
    wire.drop()


def _look_at_log(report: Report, log: str) -> None:
    for mark in (
        "Traceback",
        "Task exception",
        "never retrieved",
        "never awaited",
        "unhandled",
        "Exception in callback",
    ):
        at = log.find(mark)
        if at >= 0:
            report.complaints.append(f"the log has {mark!r}: {log[max(at - 200, 0) : at + 3000]}")
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs to the running hub (default 100000)")
    parser.add_argument("--settings", type=int, default=5_000, help="settings through the loader (default 5000)")
    parser.add_argument("--seed", type=int, default=None, help="repeat a run (default: a new one, printed)")
    options = parser.parse_args()
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    report = asyncio.run(run(inputs=options.inputs, seed=seed, settings=options.settings))
    print(report)
    return 1 if report.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
