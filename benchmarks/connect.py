"""Connecting: how many connections a second a hub takes, each with an HS256 token and one subscription.

The sink keeps a fixed number of openings under way: TCP connect, WebSocket handshake, and then the connect and the
subscribe command in one frame. Counted from the first connect() to the last subscribe reply.
"""

from __future__ import annotations

from benchmarks.load import start_hub
from benchmarks.options import Options
from benchmarks.report import Result, Table, median, number, progress
from benchmarks.tools import need_files

UNDER_WAY = 64


def run(options: Options) -> Result:
    connections = 300 if options.quick else 3000
    need_files(connections + 200)
    result = Result("connect")
    rates: list[float] = []
    costs: list[float] = []
    p50: list[float] = []
    p99: list[float] = []
    for turn in range(options.rounds):
        with start_hub(root=options.root, pin=options.pin) as hub:
            with hub.sink(connections=50, channel="warm") as warming:
                warming.wait_for("ready", timeout=30)
                warming.stop()
            tokens = hub.tokens(connections)
            before = hub.cpu_seconds()
            with hub.sink(
                connections=connections, tokens=tokens, channel="news", concurrency=UNDER_WAY, duration=120
            ) as sink:
                ready = sink.wait_for("ready", timeout=100)
                spent = hub.cpu_seconds() - before
                summary = sink.stop()
        if ready["subscribed"] != connections:
            result.failures.append(
                f"{ready['failed']} of {connections} connections failed: {summary['closes']} {summary['errors']}."
            )
            continue
        rates.append(connections / ready["seconds"])
        costs.append(spent / connections * 1e6)
        p50.append(summary["handshake_ms"]["p50"])
        p99.append(summary["handshake_ms"]["p99"])
        progress(f"connect, round {turn + 1}/{options.rounds}: {rates[-1]:,.0f}/s, {costs[-1]:.0f} µs CPU each")
    cells = [
        f"{connections:,}",
        number(median(rates), 0),
        number(median(costs), 0),
        number(median(p50)),
        number(median(p99)),
    ]
    columns = ["connections", "connects/s", "hub CPU µs each", "p50 ms", "p99 ms"]
    result.tables.append(
        Table(f"Connecting with a JWT and subscribing, {UNDER_WAY} under way at a time", columns, [cells])
    )
    result.data = {"connects_per_s": rates, "cpu_us": costs, "p50_ms": p50, "p99_ms": p99}
    return result
