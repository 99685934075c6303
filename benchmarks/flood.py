"""A flood: what 200 subscribers notice while one client sends publish commands at 20 times its limit.

Rounds without and with the flood take turns in one run, with the same paced publications. The flooding client gets
error 111 for the excess, is disconnected with 3013 when it goes on, connects again and goes on flooding.
"""

from __future__ import annotations

from collections import Counter

from benchmarks.fanout import problems
from benchmarks.load import HubProcess, start_hub
from benchmarks.options import Options
from benchmarks.report import Goal, Result, Table, median, number, progress
from benchmarks.tools import Event, Option

SUBSCRIBERS = 200
RATE = 50
LIMIT = 100  # the default, said here because the flood is a multiple of it
TIMES = 20
FLOOD = LIMIT * TIMES
CONFIG = {"rate_limit": {"publish": {"rate": LIMIT, "burst": 2 * LIMIT}}}


def stretch(hub: HubProcess, channel: str, seconds: int, flooded: bool) -> tuple[Event, Event | None, float]:
    """One round: the sink's summary, the flood's, and the share of a CPU that the hub used."""
    count = RATE * seconds
    with hub.sink(connections=SUBSCRIBERS, channel=channel, messages=count, skip=10, duration=seconds + 60) as sink:
        sink.wait_for("ready", timeout=30)
        flooding: dict[str, Option] = {"mode": "flood", "channel": "elsewhere", "rate": FLOOD, "duration": seconds + 60}
        flood = hub.publisher("flooder", **flooding, stdin=True) if flooded else None
        try:
            if flood:
                flood.wait_for("ready", timeout=10)
                flood.say("go")
            with hub.publisher(channel=channel, count=count, rate=RATE, data_size=46, stdin=True) as publisher:
                publisher.wait_for("ready", timeout=20)
                before = hub.cpu_seconds()
                publisher.say("go")
                sink.wait_for("complete", timeout=seconds + 40)
                used = (hub.cpu_seconds() - before) / seconds
            summary = sink.summary(timeout=10)
            return summary, flood.end() if flood else None, used
        finally:
            if flood:
                flood.__exit__(None, None, None)


def run(options: Options) -> Result:
    seconds = 2 if options.quick else 5
    result = Result("flood")
    calm: list[Event] = []
    loud: list[Event] = []
    used: dict[bool, list[float]] = {False: [], True: []}
    refused: Counter[str] = Counter()
    closed: Counter[str] = Counter()
    sent = connects = 0
    with start_hub(CONFIG, root=options.root, pin=options.pin) as hub:
        for turn in range(options.rounds):
            for flooded, found in ((False, calm), (True, loud)):
                summary, flood, cpu = stretch(hub, f"news{turn}{'f' if flooded else 'c'}", seconds, flooded)
                result.failures += problems(summary, "with the flood" if flooded else "without the flood")
                found.append(summary["latency_ms"])
                used[flooded].append(cpu)
                if flood:
                    refused.update(flood["errors"])
                    closed.update(flood["closes"])
                    sent += flood["sent"]
                    connects += flood["connects"]
                said = f", flood: errors {flood['errors']}, closes {flood['closes']}" if flood else ""
                progress(f"flood, round {turn + 1}/{options.rounds}: p99 {summary['latency_ms']['p99']:.2f} ms{said}")
    rows = []
    for name, found, share in (("without", calm, used[False]), ("with the flood", loud, used[True])):
        cells = [number(median([one[key] for one in found])) for key in ("p50", "p95", "p99", "max")]
        rows.append([name, *cells, f"{median(share) * 100:.0f} %"])
    columns = ["round", "p50 ms", "p95 ms", "p99 ms", "max ms", "hub CPU"]
    result.tables.append(
        Table(f"{SUBSCRIBERS} subscribers, {RATE} publications/s; flood of {FLOOD:,} commands/s", columns, rows)
    )
    before = median([one["p99"] for one in calm])
    ratio = median([one["p99"] for one in loud]) / before if before else 0.0
    result.facts.append(str(Goal("p99 latency with the flood / without", ratio, 2.0, "")))
    result.facts.append(
        f"The flooding client sent {sent:,} commands over {connects} connections; it got error 111 "
        f"{refused['111']:,} times and was disconnected with 3013 {closed['3013']} times "
        f"(all errors: {dict(refused)}; all closes: {dict(closed)})."
    )
    if not refused["111"] or not closed["3013"]:
        result.failures.append("The flood was not answered with both 111 and 3013.")
    result.data = {"without": calm, "with": loud, "errors": refused, "closes": closed, "sent": sent, "ratio": ratio}
    return result
