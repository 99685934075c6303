"""Issue 2, must show 4: 20,000 durable publications pass while a client is away; it recovers them all, in order."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import cent
import pytest

from tests.acceptance import js_scenario
from tests.support.hub_process import HubProcess
from tests.support.python_sdk import Clients, subscribed
from tests.support.tcp_proxy import TcpProxy

TOTAL = 20_000
BATCH = 500
# The hub may grow by this much while 20,000 publications are stored, read and sent to one client.
HUB_GROWTH_MIB = 32


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM in /proc status")


def check(outcome: dict[str, Any], growth: float) -> None:
    print(f"\n20,000 missed: {outcome}, hub grew by {growth:.1f} MiB")
    expected = {"attempted": TOTAL, "delivered": TOTAL, "lost": 0, "duplicated": 0, "out_of_order": 0}
    assert {name: outcome[name] for name in expected} == expected
    assert outcome["recovered"] is True and outcome["was_recovering"] is True and outcome["resubscribed"] == 0
    assert growth < HUB_GROWTH_MIB


@pytest.mark.needs("js-sdk")
def test_javascript_sdk_recovers_all(node: str) -> None:
    with HubProcess() as hub:
        before = resident_mib(hub.pid)
        outcome = js_scenario.run(node, hub, "recovery.mjs", "twenty_thousand_missed", timeout=90)
        check(outcome, resident_mib(hub.pid) - before)


async def test_python_sdk_recovers_all() -> None:
    channel = "durable:long-absence"
    async with (
        HubProcess() as hub,
        TcpProxy(hub.port) as proxy,
        cent.AsyncClient(hub.api_url, hub.api_key, timeout=30) as api,
    ):
        clients = Clients(proxy.ws_url)
        try:
            client, _ = await clients.connected()
            _, log = await subscribed(client, channel)
            await api.publish(cent.PublishRequest(channel=channel, data={"n": 0}))
            assert await log.publications(1) == [{"n": 0}]
            before = resident_mib(hub.pid)

            proxy.cut()
            await log.wait("subscribing", 2)
            started = time.monotonic()
            attempted = 0
            for first in range(1, TOTAL + 1, BATCH):
                numbers = range(first, first + BATCH)
                requests = [cent.PublishRequest(channel=channel, data={"n": n}) for n in numbers]
                replies = (await api.batch(cent.BatchRequest(requests=requests))).replies
                assert [reply.offset for reply in replies] == [n + 1 for n in numbers]  # type: ignore[attr-defined]
                attempted += len(replies)
            published = time.monotonic()

            proxy.heal()
            context = await log.wait("subscribed", 2, timeout=20)
            await api.publish(cent.PublishRequest(channel=channel, data={"n": TOTAL + 1}))
            last: list[Any] = []

            def arrived() -> bool:
                last[:] = log.events[-1:]
                return bool(last) and last[0][0] == "publication" and last[0][1].pub.data["n"] == TOTAL + 1

            await log.until(arrived, "the publication after all", timeout=60)
            recovered = time.monotonic()
        finally:
            await clients.close()

        missed = [(pub.pub.data["n"], pub.pub.offset) for pub in log.of("publication")[1:-1]]
        seen = Counter(n for n, _ in missed)
        outcome = {
            "attempted": attempted,
            "delivered": len(missed),
            "lost": sum(n not in seen for n in range(1, TOTAL + 1)),
            "duplicated": sum(times > 1 for times in seen.values()),
            "out_of_order": sum(after[1] != before_it[1] + 1 for before_it, after in pairwise(missed)),
            "recovered": context.recovered,
            "was_recovering": context.was_recovering,
            "resubscribed": len(log.of("subscribed")) - 2,
            "publish_ms": round((published - started) * 1000),
            "recover_ms": round((recovered - published) * 1000),
        }
        check(outcome, resident_mib(hub.pid) - before)
