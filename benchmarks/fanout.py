"""Fan-out: what one delivery costs, paced and at full speed, beside a C program that only calls send().

Paced, a publisher on a connection of its own publishes at a fixed rate; the CPU time of the whole hub process over that
time, divided by the deliveries, is the cost, so that reading, checking and answering the publish command is in it. The
C program sends frames of the same size, at the same rate, to the same sink. Latency is from just before the publisher's
send() to the sink's recv(). At full speed there are as many publications under way as the window allows: so many that
the slowest reader has not yet seen.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.load import UNLIMITED, HubProcess, start_hub
from benchmarks.options import Options
from benchmarks.report import Goal, Result, Table, median, number, progress
from benchmarks.tools import Event, Option, Tool, cpus

TEXT_SIZE = 163
WINDOW = 256
CONFIG = {"rate_limit": UNLIMITED}


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured stretch: CPU microseconds for a delivery, deliveries a second, latencies in milliseconds."""

    cpu_us: float
    rate: float
    p50: float
    p95: float
    p99: float
    text_size: float


def sample(summary: Event, cpu_seconds: float, measured: int, stretch: float) -> Sample:
    latency = summary["latency_ms"]
    return Sample(
        cpu_us=cpu_seconds / measured * 1e6,
        rate=measured / stretch if stretch else 0.0,
        p50=latency["p50"],
        p95=latency["p95"],
        p99=latency["p99"],
        text_size=summary["text_bytes"] / max(1, summary["deliveries"]),
    )


def problems(summary: Event, what: str) -> list[str]:
    """What a sink saw that must not be."""
    counts = {
        name: summary[name] for name in ("failed", "missing", "duplicates", "out_of_order", "offset_gaps", "extra")
    }
    counts["lost connections"] = summary["lost_connections"]
    wrong = ", ".join(f"{value} {name}" for name, value in counts.items() if value)
    if not summary["complete"]:
        wrong += f"{', ' if wrong else ''}not complete: {summary['least']} messages at the slowest reader"
    codes = f" (closed: {summary['closes']})" if summary["closes"] and wrong else ""
    return [f"{what}: {wrong}{codes}."] if wrong else []


def rate_for(subscribers: int) -> int:
    """Publications a second when paced: few enough that no side is busy."""
    return 50 if subscribers >= 1000 else 200


def hub_round(
    hub: HubProcess, channel: str, subscribers: int, rate: float, count: int, mode: str, size: int
) -> tuple[Sample, list[str]]:
    """Publish ``count`` messages to a fresh channel with that many subscribers."""
    warm = min(200, max(20, count // 5))
    progress_file: Path | None = None if rate else hub.data_dir / f"progress-{channel.replace(':', '-')}"
    options: dict[str, Option] = {"channel": channel, "data_size": size, "mode": mode, "rate": rate, "duration": 120}
    options["window"] = WINDOW
    unordered = mode == "http"  # several connections publish at a time
    with hub.sink(
        connections=subscribers,
        channel=channel,
        messages=warm + count,
        skip=warm,
        progress=progress_file,
        unordered=unordered,
        duration=150,
    ) as sink:
        sink.wait_for("ready", timeout=60)
        with hub.publisher(count=warm, progress=progress_file, **options) as warming:
            warming.summary(timeout=60)
        with hub.publisher(count=count, first_seq=warm + 1, progress=progress_file, stdin=True, **options) as publisher:
            publisher.wait_for("ready", timeout=20)
            before = hub.cpu_seconds()
            started = time.monotonic()
            publisher.say("go")
            done = sink.wait_for("complete", timeout=130)
            spent = hub.cpu_seconds() - before
            published = publisher.summary(timeout=30)
        summary = sink.summary(timeout=20)
    wrong = problems(summary, f"hub, {subscribers} subscribers, {mode}{' paced' if rate else ' at full speed'}")
    if published["errors"] or published["acknowledged"] != count:
        wrong.append(
            f"hub: {published['acknowledged']} of {count} publications acknowledged, errors {published['errors']}."
        )
    return sample(summary, spent, subscribers * count, done["at_ns"] / 1e9 - started), wrong


def payload_size(hub: HubProcess, prefix: str, mode: str) -> int:
    """The payload that makes a message of TEXT_SIZE bytes: what surrounds it depends on the way in and the history."""
    probe = 60
    got, _ = hub_round(hub, f"{prefix}p1000x{mode}", 1, 0, 20, mode, probe)
    return probe + TEXT_SIZE - round(got.text_size)


def baseline_round(subscribers: int, rate: float, count: int, text_size: int) -> tuple[Sample, list[str]]:
    """The same from the C program."""
    under_test, load = cpus()
    warm = min(200, max(20, count // 5))
    given = {
        "connections": subscribers,
        "rate": rate,
        "count": count,
        "warm": warm,
        "frame": text_size,
        "duration": 120,
    }
    with Tool("baseline", {**given, "cpu": under_test, "stdin": True}) as baseline:
        port = baseline.wait_for("listening", timeout=10)["port"]
        options = {"port": port, "connections": subscribers, "messages": warm + count, "skip": warm, "duration": 150}
        with Tool("sink", {**options, "cpu": load, "stdin": True}) as sink:
            sink.wait_for("ready", timeout=60)
            baseline.wait_for("ready", timeout=60)
            baseline.say("go")
            own = baseline.summary(timeout=130)
            sink.wait_for("complete", timeout=60)
            summary = sink.summary(timeout=20)
            baseline.say("stop")
    found = sample(summary, own["cpu_us"] / 1e6, own["sends"], own["seconds"])
    return found, problems(summary, f"C program, {subscribers} subscribers")


def middle(samples: list[Sample]) -> Sample:
    """The median of each figure."""
    return Sample(*(median([getattr(one, name) for one in samples]) for name in Sample.__dataclass_fields__))


def row(subscribers: int, how: str, hub: Sample, base: Sample | None) -> list[str]:
    cells = [f"{subscribers:,}, {how}", number(hub.rate, 0), number(hub.cpu_us)]
    cells += [number(base.cpu_us), f"{hub.cpu_us / base.cpu_us:.2f}"] if base and base.cpu_us else ["", ""]
    cells += [number(hub.p50), number(hub.p95), number(hub.p99)]
    return [*cells, number(base.p50) if base else "", number(base.p99) if base else ""]


COLUMNS = [
    "subscribers",
    "deliveries/s",
    "hub µs",
    "C µs",
    "hub / C",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "C p50 ms",
    "C p99 ms",
]


def measure_paced(hub: HubProcess, options: Options, result: Result) -> list[list[str]]:
    seconds = 1.0 if options.quick else 5.0
    prefix = "" if options.history == "none" else f"{options.history}:"
    size = payload_size(hub, prefix, "ws")
    rows = []
    for subscribers in options.subscribers:
        rate = rate_for(subscribers)
        count = int(rate * seconds)
        ours: list[Sample] = []
        theirs: list[Sample] = []
        for turn in range(options.rounds):
            channel = f"{prefix}p{subscribers}x{turn}"
            got, wrong = hub_round(hub, channel, subscribers, rate, count, "ws", size)
            result.failures += wrong
            ours.append(got)
            base, wrong = baseline_round(subscribers, rate, count, round(got.text_size))
            result.failures += wrong
            theirs.append(base)
            progress(
                f"{subscribers} paced, round {turn + 1}/{options.rounds}: hub {got.cpu_us:.2f} µs, "
                f"C {base.cpu_us:.2f} µs a delivery of {got.text_size:.0f} bytes; "
                f"p99 {got.p99:.2f} and {base.p99:.2f} ms"
            )
        hub_median, base_median = middle(ours), middle(theirs)
        rows.append(row(subscribers, f"{rate}/s", hub_median, base_median))
        ratio = hub_median.cpu_us / base_median.cpu_us if base_median.cpu_us else 0.0
        result.facts.append(str(Goal(f"CPU for a delivery at {subscribers:,}, hub / C", ratio, 2.0, "")))
        result.data[f"paced {subscribers}"] = {"hub": [asdict(s) for s in ours], "c": [asdict(s) for s in theirs]}
    return rows


def measure_full(hub: HubProcess, options: Options, result: Result) -> list[list[str]]:
    counts = {1: 20_000, 10: 20_000, 100: 5_000, 1000: 2_000}
    prefix = "" if options.history == "none" else f"{options.history}:"
    sizes = {mode: payload_size(hub, prefix, mode) for mode in ("ws", "http")}
    rows = []
    for subscribers in options.subscribers:
        count = counts.get(subscribers, max(1000, 1_000_000 // subscribers)) // (10 if options.quick else 1)
        base_samples: list[Sample] = []
        found: dict[str, list[Sample]] = {"ws": [], "http": []}
        for turn in range(options.rounds):
            for mode, samples in found.items():
                channel = f"{prefix}f{subscribers}{mode}{turn}"
                publications = count if mode == "ws" else min(count, 4000)
                got, wrong = hub_round(hub, channel, subscribers, 0, publications, mode, sizes[mode])
                result.failures += wrong
                samples.append(got)
                turns = f"{turn + 1}/{options.rounds}"
                progress(f"{subscribers} full speed by {mode}, round {turns}: {got.rate:,.0f} deliveries/s")
            base, wrong = baseline_round(subscribers, 0, count, round(found["ws"][-1].text_size))
            result.failures += wrong
            base_samples.append(base)
        for mode, name in (("ws", "WebSocket"), ("http", "HTTP API")):
            rows.append(row(subscribers, name, middle(found[mode]), None))
        base = middle(base_samples)
        rows.append([f"{subscribers:,}, C send() one by one", number(base.rate, 0), number(base.cpu_us), *[""] * 7])
        result.data[f"full {subscribers}"] = {
            "c": [asdict(s) for s in base_samples],
            **{mode: [asdict(s) for s in samples] for mode, samples in found.items()},
        }
    return rows


def run(options: Options) -> Result:
    result = Result("fanout")
    with start_hub(CONFIG, root=options.root, pin=options.pin) as hub:
        paced = measure_paced(hub, options, result)
        full = measure_full(hub, options, result)
    kind = "" if options.history == "none" else f", {options.history} history"
    result.tables.append(Table(f"Paced, {TEXT_SIZE}-byte messages{kind}, CPU time for each delivery", COLUMNS, paced))
    shown = [[*line[:3], *line[5:8]] for line in full]
    columns = [*COLUMNS[:3], *COLUMNS[5:8]]
    title = f"Full speed, {TEXT_SIZE}-byte messages{kind}, window of {WINDOW} publications"
    result.tables.append(Table(title, columns, shown))
    return result
