"""Kill the hub again and again under load, then account for every publication: nothing lost, nothing twice.

    python -m tests.faults.kill_restart --rounds 10 --seed 1

Twenty publishers speak to the HTTP API, fifty subscribers (ten of them the unmodified Python SDK) listen on durable
channels, and SIGKILL comes at random moments. A publisher whose request's outcome is unknown repeats it with the same
idempotency key; half of the publishers have no key and must never repeat, so what became of those is counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.faults.reconnecting import Stream, Subscriber
from tests.faults.sdk_subscriber import SdkSubscriber
from tests.support.hub_process import HubFailed, HubProcess
from tests.support.tokens import connection_token

CHANNELS = [f"durable:fault-{number}" for number in range(6)]
CATCH_UP_WITHIN = 60.0
"""Seconds that subscribers have to reach the top after the last restart; exceeding it is reported as lost."""
PAGE = 500
LATECOMERS = 3


@dataclass(slots=True)
class Ledger:
    """What the publishers know: every attempt, and what was said about it."""

    attempted: int = 0
    requests: int = 0
    acknowledged: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    """Payload id to (channel, offset, epoch) as the acknowledgement said."""
    unknown: set[str] = field(default_factory=set)
    """Ids sent once without a key, whose request ended without an answer: they may be there once, or not at all."""
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Report:
    """The reckoning of one run."""

    seed: int
    kills: int = 0
    attempted: int = 0
    acknowledged: int = 0
    unknown: int = 0
    in_history: int = 0
    delivered: int = 0
    reconnects: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.duplicated or self.unexpected)

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}, kills {self.kills}, reconnects {self.reconnects}, in history {self.in_history}, "
            f"outcome unknown {self.unknown}",
            f"attempted {self.attempted} / acknowledged {self.acknowledged} / delivered {self.delivered} / "
            f"lost {len(self.lost)} / duplicated {len(self.duplicated)} / unexpected {len(self.unexpected)}",
        ]
        for name in ("lost", "duplicated", "unexpected"):
            lines += [f"  {name}: {what}" for what in getattr(self, name)[:10]]
        return "\n".join(lines)


class Publisher:
    """Publishes one message after another until told to stop, and enters each outcome in the ledger."""

    def __init__(self, number: int, hub: HubProcess, http: aiohttp.ClientSession, ledger: Ledger, seed: int) -> None:
        self.name = f"p{number}"
        self.keyed = number % 2 == 0
        self.hub = hub
        self.http = http
        self.ledger = ledger
        self.chance = random.Random(f"{seed} {self.name}")
        self.stopping = False

    async def run(self) -> None:
        number = 0
        while not self.stopping:
            number += 1
            await self._publish(f"{self.name}-{number}", self.chance.choice(CHANNELS))
            await asyncio.sleep(self.chance.uniform(0.0, 0.01))

    async def _publish(self, identity: str, channel: str) -> None:
        ledger = self.ledger
        ledger.attempted += 1
        body: dict[str, Any] = {"channel": channel, "data": {"id": identity}}
        if self.keyed:
            body["idempotency_key"] = identity
        while True:
            ledger.requests += 1
            try:
                answer = await self._ask(body)
            except aiohttp.ClientConnectorError:
                # Never reached the hub: nothing was published, so it may be sent again even without a key.
                await asyncio.sleep(0.05)
                continue
            except (aiohttp.ClientError, TimeoutError, OSError):
                if not self.keyed:
                    ledger.unknown.add(identity)
                    return
                await asyncio.sleep(0.02)
                continue
            result = answer.get("result")
            if result is not None:
                ledger.acknowledged[identity] = (channel, result.get("offset", 0), result.get("epoch", ""))
                return
            ledger.refused[str(answer)] += 1
            if not self.keyed:
                ledger.unknown.add(identity)
                return
            await asyncio.sleep(0.05)

    async def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"X-API-Key": self.hub.api_key}
        timeout = aiohttp.ClientTimeout(total=10)
        async with self.http.post(f"{self.hub.api_url}/publish", json=body, headers=headers, timeout=timeout) as reply:
            if reply.status >= 500:
                return {"error": {"code": reply.status}}
            answer: dict[str, Any] = await reply.json(content_type=None)
            return answer


async def run(
    *, rounds: int, seed: int, publishers: int = 20, subscribers: int = 50, sdk: int = 10, calm: float = 0.8
) -> Report:
    """Run the whole scenario; ``calm`` is the mean of the seconds between a start and the next kill."""
    chance = random.Random(seed)
    report = Report(seed)
    ledger = Ledger()
    hub = HubProcess()
    await asyncio.to_thread(hub.start)
    listeners: list[Subscriber | SdkSubscriber] = []
    try:
        before = {channel: (await _top(hub, channel))[1] for channel in CHANNELS}
        for number in range(subscribers):
            token = connection_token(f"u{number}")
            chosen = chance.sample(CHANNELS, 2)
            if number < sdk:
                listener = SdkSubscriber(hub.port, token, chosen)
                await listener.start()
                listeners.append(listener)
            else:
                raw = Subscriber(hub.port, token, chosen, random.Random(f"{seed} s{number}"))
                raw.start()
                listeners.append(raw)
        await _until(lambda: all(listener.settled for listener in listeners), "subscribers did not settle", 30.0)

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            senders = [Publisher(number, hub, http, ledger, seed) for number in range(publishers)]
            tasks = [asyncio.create_task(sender.run()) for sender in senders]
            for _ in range(rounds):
                await asyncio.sleep(chance.uniform(0.25, 2 * calm - 0.25))
                await asyncio.to_thread(hub.kill)
                report.kills += 1
                if chance.random() < 0.2:
                    report.kills += await _kill_while_starting(hub, chance)
                await asyncio.sleep(chance.uniform(0.0, 0.2))
                await asyncio.to_thread(hub.start)
            await asyncio.sleep(1.0)
            for sender in senders:
                sender.stopping = True
            await asyncio.wait_for(asyncio.gather(*tasks), CATCH_UP_WITHIN)

        listeners += await _latecomers(hub, report, before)
        history = {channel: await _history(hub, channel) for channel in CHANNELS}
        tops = {channel: await _top(hub, channel) for channel in CHANNELS}
        await _caught_up(listeners, {channel: top for channel, (top, _) in tops.items()})
        for channel, (_, epoch) in tops.items():
            if epoch != before[channel]:
                report.unexpected.append(f"{channel}: epoch {before[channel]} became {epoch}")
        reckon(report, ledger, history, listeners, before)
        _look_at_log(report, hub.log())
    finally:
        await asyncio.gather(*(listener.stop() for listener in listeners), return_exceptions=True)
        await asyncio.to_thread(hub.close)
    return report


async def _latecomers(hub: HubProcess, report: Report, epochs: dict[str, str]) -> list[Subscriber]:
    """Subscribers that were away all the time come for everything, and the hub is killed while they are at it."""
    late: list[Subscriber] = []
    for number in range(LATECOMERS):
        subscriber = Subscriber(hub.port, connection_token(f"late{number}"), CHANNELS, random.Random(number))
        for channel, stream in subscriber.streams.items():
            stream.started, stream.epoch = True, epochs[channel]
        subscriber.start()
        late.append(subscriber)
    await _until(
        lambda: any(stream.delivered for each in late for stream in each.streams.values()), "no recovery", 30.0
    )
    await asyncio.to_thread(hub.kill)
    report.kills += 1
    await asyncio.to_thread(hub.start)
    return late


async def _kill_while_starting(hub: HubProcess, chance: random.Random) -> int:
    """Start the hub and kill it at a random moment of its start; returns how many kills that made."""
    starting = asyncio.create_task(asyncio.to_thread(hub.start))
    await asyncio.sleep(chance.uniform(0.05, 0.8))
    await asyncio.to_thread(hub.kill)
    # `start` may have won (the hub was up), or noticed that its process is gone; both are fine here.
    outcome = (await asyncio.gather(starting, return_exceptions=True))[0]
    if isinstance(outcome, BaseException) and not isinstance(outcome, (HubFailed, AssertionError)):
        raise outcome
    await asyncio.to_thread(hub.kill)
    return 1


def reckon(
    report: Report,
    ledger: Ledger,
    history: dict[str, list[tuple[int, str]]],
    listeners: list[Subscriber | SdkSubscriber],
    epochs: dict[str, str],
) -> None:
    """Compare what publishers were told, what history holds and what subscribers saw."""
    report.attempted = ledger.attempted
    report.acknowledged = len(ledger.acknowledged)
    report.unknown = len(ledger.unknown)
    report.in_history = sum(map(len, history.values()))
    report.reconnects = sum(listener.reconnects for listener in listeners)
    kept: dict[str, tuple[str, int]] = {}
    for channel, entries in history.items():
        if [offset for offset, _ in entries] != list(range(1, len(entries) + 1)):
            report.unexpected.append(f"{channel}: the offsets of history are not 1, 2, 3 …")
        for offset, identity in entries:
            if identity in kept:
                report.duplicated.append(f"{identity} is in history at {kept[identity]} and {(channel, offset)}")
            kept[identity] = (channel, offset)
            if identity not in ledger.acknowledged and identity not in ledger.unknown:
                report.unexpected.append(f"{identity} is in history, and nobody was told so")
    for identity, (channel, offset, epoch) in ledger.acknowledged.items():
        if identity not in kept:
            report.lost.append(f"{identity} was acknowledged at {channel} {offset} and is not in history")
        elif kept[identity] != (channel, offset):
            report.unexpected.append(f"{identity} was acknowledged at {(channel, offset)}, is at {kept[identity]}")
        if epoch != epochs[channel]:
            report.unexpected.append(f"{identity} was acknowledged in epoch {epoch}, not {epochs[channel]}")
    for number, listener in enumerate(listeners):
        who = f"{type(listener).__name__} {number}"
        report.unexpected += [f"{who}: {failure}" for failure in listener.failures]
        for channel, stream in listener.streams.items():
            report.delivered += len(stream.delivered)
            report.unexpected += [f"{who} {channel}: {surprise}" for surprise in stream.surprises]
            _compare(report, f"{who} {channel}", stream, history[channel])


def _compare(report: Report, who: str, stream: Stream, entries: list[tuple[int, str]]) -> None:
    """Enter how one subscriber's deliveries differ from history."""
    if stream.delivered == entries:
        return
    seen = Counter(stream.delivered)
    before = len(report.lost) + len(report.duplicated) + len(report.unexpected)
    report.lost += [f"{who} never saw {entry}" for entry in entries if entry not in seen]
    report.duplicated += [f"{who} saw {entry} {times} times" for entry, times in seen.items() if times > 1]
    known = set(entries)
    report.unexpected += [f"{who} saw {entry}, which is not in history" for entry in seen if entry not in known]
    if before == len(report.lost) + len(report.duplicated) + len(report.unexpected):
        report.unexpected.append(f"{who} saw the right publications in another order")


def _look_at_log(report: Report, log: str) -> None:
    if "Traceback" in log:
        start = log.index("Traceback")
        report.unexpected.append(f"a traceback in the hub's log: {log[start : start + 1500]}")


async def _top(hub: HubProcess, channel: str) -> tuple[int, str]:
    result = (await hub.api_async("history", {"channel": channel, "limit": 0}))["result"]
    return result["offset"], result["epoch"]


async def _history(hub: HubProcess, channel: str) -> list[tuple[int, str]]:
    """The whole history, read through the API page by page."""
    entries: list[tuple[int, str]] = []
    _, epoch = await _top(hub, channel)
    since = 0
    while True:
        query = {"channel": channel, "limit": PAGE, "since": {"offset": since, "epoch": epoch}}
        page = (await hub.api_async("history", query))["result"]["publications"]
        if not page:
            return entries
        entries += [(publication["offset"], publication["data"]["id"]) for publication in page]
        since = page[-1]["offset"]


async def _caught_up(listeners: list[Subscriber | SdkSubscriber], tops: dict[str, int]) -> None:
    """Wait until all have reached the tops; whoever has not by then shows up as lost in the reckoning."""

    def all_there() -> bool:
        return all(
            stream.subscribed and stream.offset >= tops[channel]
            for listener in listeners
            for channel, stream in listener.streams.items()
        )

    try:
        await _until(all_there, "", CATCH_UP_WITHIN)
    except TimeoutError:
        pass
    # A repeat would come right behind; give it a moment to show itself.
    await asyncio.sleep(0.5)


async def _until(condition: Any, what: str, within: float) -> None:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        await asyncio.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="how often to kill (default 10)")
    parser.add_argument("--seed", type=int, default=None, help="repeat a run (default: a new one, printed)")
    parser.add_argument("--publishers", type=int, default=20)
    parser.add_argument("--subscribers", type=int, default=50)
    parser.add_argument("--calm", type=float, default=2.0, help="mean seconds between a start and the next kill")
    options = parser.parse_args()
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    report = asyncio.run(
        run(
            rounds=options.rounds,
            seed=seed,
            publishers=options.publishers,
            subscribers=options.subscribers,
            calm=options.calm,
        )
    )
    print(report)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
