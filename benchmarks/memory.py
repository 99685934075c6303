"""Memory of an idle connection: a JWT and one subscription each, measured as the growth of the whole process.

What the kernel keeps for a socket is not in it, as it belongs to no process.
"""

from __future__ import annotations

import time

from benchmarks.load import start_hub
from benchmarks.options import Options
from benchmarks.report import Goal, Result, Table, number, progress
from benchmarks.tools import need_files

GOAL_KB = 12.0


def run(options: Options) -> Result:
    connections = 500 if options.quick else options.connections
    settle = 1.0 if options.quick else 4.0
    need_files(connections + 200)
    result = Result("memory")
    with start_hub(root=options.root, pin=options.pin) as hub:
        with hub.sink(connections=20, channel="warm") as warming:  # what is loaded on first use is not a connection's
            warming.wait_for("ready", timeout=30)
            warming.stop()
        tokens = hub.tokens(connections)
        time.sleep(settle)
        before = hub.memory()
        with hub.sink(connections=connections, tokens=tokens, channel="news", duration=180) as sink:
            ready = sink.wait_for("ready", timeout=120)
            progress(f"memory: {ready['subscribed']} connections subscribed, settling")
            time.sleep(settle)
            after = hub.memory()
            idle_from = hub.cpu_seconds()
            time.sleep(settle)
            idle = (hub.cpu_seconds() - idle_from) / settle
            summary = sink.stop()
        time.sleep(settle)
        left = hub.memory()
    if ready["subscribed"] != connections:
        result.failures.append(f"{ready['failed']} of {connections} connections failed: {summary['closes']}.")
    each = {name: (getattr(after, name) - getattr(before, name)) / connections / 1024 for name in after._fields}
    row = [f"{connections:,}", number(before.rss / 2**20, 1), number(after.rss / 2**20, 1)]
    row += [
        number(each["rss"]),
        number(each["pss"]),
        number(each["uss"]),
        number(left.rss / 2**20, 1),
        f"{idle * 100:.1f} %",
    ]
    columns = [
        "connections",
        "RSS before MB",
        "RSS with MB",
        "RSS KB each",
        "PSS KB each",
        "USS KB each",
        "RSS after MB",
        "CPU idle",
    ]
    result.tables.append(Table("Idle connections with a JWT and one subscription", columns, [row]))
    result.facts.append(str(Goal(f"Memory for each of {connections:,} idle connections", each["rss"], GOAL_KB, " KB")))
    result.data = {
        "before": before._asdict(),
        "after": after._asdict(),
        "left": left._asdict(),
        "kb_each": each,
        "idle_cpu": idle,
    }
    return result
