"""A reader that stops reading costs only itself: it is gone within seconds, and the hub does not grow.

    python -m tests.faults.slow_reader --megabytes 1024

The publisher goes as fast as the healthy readers read, so that nobody but the one that stopped can be too slow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass, field

import aiohttp

from tests.faults.measure import MEGABYTE, resident
from tests.faults.wire import Wire
from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token

PAYLOAD = 32 * 1024
AHEAD = 8
"""Publications that may be on their way to a healthy reader: well below its buffer in the hub."""
WARM_UP = 64
"""Publications before the baseline of memory is taken, so that pools and buffers have their size."""


@dataclass(slots=True)
class Outcome:
    """What was seen of one run."""

    published: int = 0
    gone_after: float | None = None
    """Seconds from the first publication that was not read to the slow session leaving the API's list."""
    published_until_gone: int = 0
    growth: int = 0
    """Most resident memory above the baseline, in bytes."""
    received: list[list[int]] = field(default_factory=list)
    """Numbers that each healthy reader saw."""
    slow_close: int = 0
    """How the slow reader's connection ended once it read again; 1006 is a cut without a close frame."""
    slow_received: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        complete = sum(numbers == list(range(self.published)) for numbers in self.received)
        return (
            f"published {self.published} x {PAYLOAD} bytes; slow reader gone after "
            f"{'never' if self.gone_after is None else f'{self.gone_after:.2f} s'} "
            f"({self.published_until_gone * PAYLOAD / MEGABYTE:.0f} MB), closed {self.slow_close}; memory grew "
            f"{self.growth / MEGABYTE:.1f} MB; healthy readers complete {complete} of {len(self.received)}"
        )


class Reader:
    """Reads one subscription to its end and notes the numbers of its publications."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.numbers: list[int] = []
        self.moved = asyncio.Event()

    async def run(self) -> None:
        while True:
            line = await self.wire.line(within=60)
            if line.startswith(b'{"push"'):
                self.numbers.append(number_of(line))
                self.moved.set()


def number_of(line: bytes) -> int:
    """The number that ``body`` put at the start of a payload."""
    start = line.index(b'"data":{"n":') + len(b'"data":{"n":')
    return int(line[start : line.index(b",", start)])


def body(channel: str, number: int) -> bytes:
    """An API request that publishes a numbered payload of about ``PAYLOAD`` bytes."""
    return b'{"channel":"%b","data":{"n":%d,"pad":"%b"}}' % (channel.encode(), number, b"x" * (PAYLOAD - 24))


async def subscriber(hub: HubProcess, channel: str, user: str, *, receive_buffer: int = 0) -> Wire:
    """A connection that is subscribed to ``channel``."""
    wire = await Wire.open(hub.port, receive_buffer=receive_buffer)
    await wire.connect(connection_token(user))
    reply = await wire.call(subscribe={"channel": channel})
    assert "subscribe" in reply, reply
    return wire


async def users_connected(hub: HubProcess) -> set[str]:
    """The users that the hub's own list of sessions shows."""
    result = (await hub.api_async("connections", {}))["result"]
    sessions = result["connections"]
    entries = sessions.values() if isinstance(sessions, dict) else sessions
    return {entry["user"] for entry in entries}


async def run(hub: HubProcess, channel: str, *, megabytes: int, healthy: int = 2) -> Outcome:
    """Publish ``megabytes`` while one reader does not read; the hub must be running and idle."""
    outcome = Outcome()
    readers = [Reader(await subscriber(hub, channel, f"healthy-{number}")) for number in range(healthy)]
    tasks = [asyncio.create_task(reader.run()) for reader in readers]
    count = max(megabytes * MEGABYTE // PAYLOAD, 2 * WARM_UP)
    async with aiohttp.ClientSession(headers={"X-API-Key": hub.api_key}) as http:

        async def publish(number: int) -> None:
            while any(len(reader.numbers) < number - AHEAD for reader in readers):
                behind = next(reader for reader in readers if len(reader.numbers) < number - AHEAD)
                behind.moved.clear()
                async with asyncio.timeout(30):
                    await behind.moved.wait()
            async with http.post(f"{hub.api_url}/publish", data=body(channel, number)) as reply:
                assert "result" in (answer := await reply.json()), answer

        for number in range(WARM_UP):
            await publish(number)
        slow = await subscriber(hub, channel, "slow", receive_buffer=4096)
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket transport, which has it
        baseline = resident(hub.pid)
        watch = asyncio.create_task(_watch(hub, outcome, baseline))
        for number in range(WARM_UP, count):
            await publish(number)
            outcome.published = number + 1
        async with asyncio.timeout(60):
            await asyncio.gather(*(_reached(reader, count) for reader in readers))
        try:
            async with asyncio.timeout(10):
                await watch
        except TimeoutError:
            outcome.gone_after = None
        outcome.growth = max(outcome.growth, resident(hub.pid) - baseline)
        slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
        outcome.slow_close = (await slow.closed()).code
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for reader in readers:
        reader.wire.drop()
    outcome.received = [reader.numbers for reader in readers]
    return outcome


async def _reached(reader: Reader, count: int) -> None:
    while len(reader.numbers) < count:
        reader.moved.clear()
        await reader.moved.wait()


async def _watch(hub: HubProcess, outcome: Outcome, baseline: int) -> None:
    """Sample memory until the slow session is no longer listed, and for as long as the caller goes on."""
    began = time.monotonic()
    while "slow" in await users_connected(hub):
        outcome.growth = max(outcome.growth, resident(hub.pid) - baseline)
        await asyncio.sleep(0.05)
    outcome.gone_after = time.monotonic() - began
    outcome.published_until_gone = outcome.published


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024)
    options = parser.parse_args()
    with HubProcess() as hub:
        outcome = asyncio.run(run(hub, "plain:slow", megabytes=options.megabytes))
    print(outcome)
    print(json.dumps({"growth": outcome.growth, "gone_after": outcome.gone_after}))
    complete = all(numbers == list(range(outcome.published)) for numbers in outcome.received)
    return 0 if complete and outcome.gone_after is not None else 1


if __name__ == "__main__":
    sys.exit(main())
