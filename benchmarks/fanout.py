"""Fan-out: what one delivery costs, paced and at full speed, beside a C program that only calls send().

Paced, a publisher on a connection of its own publishes at a fixed rate; the CPU time of the whole hub process over that
time, divided by the deliveries, is the cost, so that reading, checking and answering the publish command is in it. The
C program sends frames of the same size, at the same rate, to the same sink. Latency is from just before the publisher's
send() to the sink's recv(). At full speed there are as many publications under way as the window allows: so many that
the slowest reader has not yet seen.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
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


def baseline_round(
    subscribers: int, rate: float, count: int, text_size: int, *, relay: bool = False
) -> tuple[Sample, list[str]]:
    """The same from the C program, on its own timer or, as a relay, from the same publisher as the hub."""
    under_test, load = cpus()
    warm = min(200, max(20, count // 5))
    given: dict[str, Option] = {"connections": subscribers, "rate": rate, "count": count, "warm": warm, "relay": relay}
    given |= {"frame": text_size, "duration": 120, "cpu": under_test, "stdin": True}
    with ExitStack() as stack:
        baseline = stack.enter_context(Tool("baseline", given))
        port = baseline.wait_for("listening", timeout=10)["port"]
        options: dict[str, Option] = {"port": port, "connections": subscribers, "duration": 150, "cpu": load}
        options |= {"messages": warm + count, "skip": warm, "stdin": True}
        sink = stack.enter_context(Tool("sink", options))
        sink.wait_for("ready", timeout=60)
        if relay:
            size = text_size - len('{"push":{"channel":"bench","pub":{"data":}}}')
            published: dict[str, Option] = {"port": port, "count": warm + count, "rate": rate, "data_size": size}
            publisher = stack.enter_context(Tool("publisher", published | {"cpu": load, "stdin": True}))
            publisher.wait_for("ready", timeout=20)
        baseline.wait_for("ready", timeout=60)
        baseline.say("go")
        if relay:
            publisher.say("go")
        own = baseline.summary(timeout=130)
        sink.wait_for("complete", timeout=60)
        summary = sink.summary(timeout=20)
    found = sample(summary, own["cpu_us"] / 1e6, own["sends"], own["seconds"])
    return found, problems(summary, f"C {'relay' if relay else 'program'}, {subscribers} subscribers")


def middle(samples: list[Sample]) -> Sample:
    """The median of each figure."""
    return Sample(*(median([getattr(one, name) for one in samples]) for name in Sample.__dataclass_fields__))


def slope(cost: dict[int, float]) -> tuple[float, float]:
    """What a publication and what each of its deliveries costs, from the CPU time of publications by subscribers."""
    fit = statistics.linear_regression(list(cost), list(cost.values()))
    return fit.intercept, fit.slope


def ratio(one: Sample, other: Sample) -> float:
    return one.cpu_us / other.cpu_us if other.cpu_us else 0.0


PACED = ["subscribers", "deliveries/s", "hub µs", "C µs", "hub / C", "relay µs", "hub / relay"]
LATENCY = ["subscribers", *(f"{who} {which}" for who in ("hub", "C", "relay") for which in ("p50", "p95", "p99"))]


def measure_paced(hub: HubProcess, options: Options, result: Result, kind: str) -> None:
    seconds = 1.0 if options.quick else 3.0
    prefix = "" if options.history == "none" else f"{options.history}:"
    size = payload_size(hub, prefix, "ws")
    rows = []
    latencies = []
    medians: dict[int, tuple[Sample, Sample, Sample]] = {}
    for subscribers in options.subscribers:
        rate = rate_for(subscribers)
        count = int(rate * seconds)
        found: tuple[list[Sample], list[Sample], list[Sample]] = ([], [], [])
        for turn in range(options.rounds):
            channel = f"{prefix}p{subscribers}x{turn}"
            got, wrong = hub_round(hub, channel, subscribers, rate, count, "ws", size)
            text_size = round(got.text_size)
            base, base_wrong = baseline_round(subscribers, rate, count, text_size)
            relay, relay_wrong = baseline_round(subscribers, rate, count, text_size, relay=True)
            result.failures += wrong + base_wrong + relay_wrong
            for samples, one in zip(found, (got, base, relay), strict=True):
                samples.append(one)
            progress(
                f"{subscribers} paced, round {turn + 1}/{options.rounds}: hub {got.cpu_us:.2f} µs, "
                f"C {base.cpu_us:.2f} µs, C relay {relay.cpu_us:.2f} µs a delivery of {text_size} bytes; "
                f"p99 {got.p99:.2f}, {base.p99:.2f}, {relay.p99:.2f} ms"
            )
        ours, floor, relayed = medians[subscribers] = middle(found[0]), middle(found[1]), middle(found[2])
        cells = [f"{subscribers:,}, {rate}/s", number(ours.rate, 0), number(ours.cpu_us), number(floor.cpu_us)]
        cells += [number(ratio(ours, floor)), number(relayed.cpu_us), number(ratio(ours, relayed))]
        rows.append(cells)
        percentiles = [getattr(one, which) for one in (ours, floor, relayed) for which in ("p50", "p95", "p99")]
        latencies.append([cells[0], *map(number, percentiles)])
        result.facts.append(str(Goal(f"CPU for a delivery at {subscribers:,}, hub / C", ratio(ours, floor), 2.0, "")))
        names = ("hub", "c", "relay")
        result.data[f"paced {subscribers}"] = {
            name: [asdict(one) for one in samples] for name, samples in zip(names, found, strict=True)
        }
    few = [subscribers for subscribers in medians if subscribers < 1000]  # all of these at one rate
    if len(few) > 1:
        lines = [slope({n: medians[n][which].cpu_us * n for n in few}) for which in range(3)]
        says = [f"{name} {fixed:.0f} and {each:.2f} µs" for name, (fixed, each) in zip(NAMES, lines, strict=True)]
        sizes = ", ".join(str(n) for n in few)
        result.facts.append(
            f"A publication itself and each delivery of it cost, at {sizes} subscribers: {'; '.join(says)}."
        )
    what = f"Paced, {TEXT_SIZE}-byte messages{kind}"
    result.tables.append(Table(f"{what}: CPU time for each delivery", PACED, rows))
    result.tables.append(Table(f"{what}: latency in ms", LATENCY, latencies))


NAMES = ("hub", "C program", "C relay")
FULL = ["subscribers", "deliveries/s", "CPU µs", "p50 ms", "p95 ms", "p99 ms"]


def measure_full(hub: HubProcess, options: Options, result: Result, kind: str) -> None:
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
        for name, samples in (("WebSocket", found["ws"]), ("HTTP API", found["http"]), ("C program", base_samples)):
            one = middle(samples)
            cells = [f"{subscribers:,}, {name}", number(one.rate, 0), number(one.cpu_us)]
            # the C program sends without regard to what the sink has read, so that its latency would be a queue's
            rows.append([*cells, *([""] * 3 if name == NAMES[1] else map(number, (one.p50, one.p95, one.p99)))])
        result.data[f"full {subscribers}"] = {
            "c": [asdict(s) for s in base_samples],
            **{mode: [asdict(s) for s in samples] for mode, samples in found.items()},
        }
    title = f"Full speed, {TEXT_SIZE}-byte messages{kind}, window of {WINDOW} publications"
    result.tables.append(Table(title, FULL, rows))


def run(options: Options) -> Result:
    result = Result("fanout" if options.history == "none" else f"fanout-{options.history}")
    with start_hub(CONFIG, root=options.root, pin=options.pin) as hub:
        kind = "" if options.history == "none" else f", {options.history} history"
        measure_paced(hub, options, result, kind)
        measure_full(hub, options, result, kind)
    return result
