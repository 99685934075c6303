"""A reader that stops reading while 1 GB goes to its channel as fast as the healthy readers take it.

Watched meanwhile, every few milliseconds: the hub's sockets (the kernel may keep a closed one for a while, to deliver
what was sent: that is not the hub's any more) and its memory; at the end, the sessions that the hub itself counts.
"""

from __future__ import annotations

import threading
import time

from benchmarks import procstat
from benchmarks.fanout import problems
from benchmarks.load import UNLIMITED, HubProcess, start_hub
from benchmarks.options import Options
from benchmarks.report import Goal, Result, Table, number, progress
from benchmarks.tools import Option

PAYLOAD = 16_384
HEALTHY = 5
WINDOW = 16
WARM = 200
QUEUE = 2**20  # the default of client.queue_max_size
CONFIG = {"rate_limit": UNLIMITED}


class Watch:
    """Samples the hub's memory and sockets in a thread while the block runs."""

    def __init__(self, hub: HubProcess) -> None:
        self._hub = hub
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._sockets = procstat.established(hub.port)
        self.gone = threading.Event()
        self.gone_at = 0.0
        """Monotonic seconds at which the hub held a socket less than at the start; 0 until then."""
        self.rss_before = procstat.rss(hub.pid)
        self.rss_max = self.rss_before

    def _run(self) -> None:
        while not self._over.wait(0.01):
            self.rss_max = max(self.rss_max, procstat.rss(self._hub.pid))
            if not self.gone_at and procstat.established(self._hub.port) < self._sockets:
                self.gone_at = time.monotonic()
                self.gone.set()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=5)


def run(options: Options) -> Result:
    total = 2**27 if options.quick else 2**30
    count = total // PAYLOAD + WARM
    result = Result("stalled")
    with start_hub(CONFIG, root=options.root, pin=options.pin) as hub:
        shared = hub.data_dir / "progress"
        given: dict[str, Option] = {"channel": "big", "progress": shared, "duration": 300}
        with (
            hub.sink(connections=HEALTHY + 1, stall=1, messages=count, linger=3000, **given) as sink,
            hub.publisher(count=count, data_size=PAYLOAD, window=WINDOW, stdin=True, **given) as publisher,
        ):
            sink.wait_for("ready", timeout=30)
            publisher.wait_for("ready", timeout=20)
            time.sleep(0.5)
            sessions = hub.clients()
            with Watch(hub) as watch:
                started = time.monotonic()
                publisher.say("go")
                if watch.gone.wait(timeout=200):
                    progress(f"stalled: the reader was cut off after {watch.gone_at - started:.2f} s")
                sink.wait_for("complete", timeout=280)
                took = time.monotonic() - started
            published = publisher.summary(timeout=20)
            left = hub.clients()
            patience = time.monotonic() + 2
            while left > HEALTHY and time.monotonic() < patience:
                time.sleep(0.05)
                left = hub.clients()
            summary = sink.summary(timeout=20)
        after = procstat.rss(hub.pid)
    result.failures += problems(summary, "the healthy readers")
    if not watch.gone_at:
        result.failures.append("The hub never closed the stalled reader's socket.")
    if left != HEALTHY:
        result.failures.append(f"The hub counts {left} sessions at the end instead of {HEALTHY}.")
    if published["acknowledged"] != count:
        result.failures.append(
            f"{published['acknowledged']} of {count} publications acknowledged: {published['errors']}."
        )
    growth = (watch.rss_max - watch.rss_before) / 2**20
    gone = watch.gone_at - started if watch.gone_at else -1.0
    room = (QUEUE + WINDOW * PAYLOAD * (HEALTHY + 1)) / 2**20
    cells = [f"{total / 2**30:.2f} GB in {took:.1f} s", number(gone), number(growth)]
    cells += [number((after - watch.rss_before) / 2**20), f"{sessions} → {left}"]
    columns = ["published", "cut off after s", "max growth MB", "growth at the end MB", "sessions"]
    title = f"One of {HEALTHY + 1} readers stops reading, {PAYLOAD // 1024} KB publications"
    result.tables.append(Table(title, columns, [cells]))
    result.facts.append(
        f"The {HEALTHY} others got {summary['deliveries']:,} of {HEALTHY * count:,} messages: "
        f"{summary['missing']} missing, {summary['duplicates']} twice, {summary['out_of_order']} out of order."
    )
    result.facts.append(
        f"Room for one queue of {QUEUE / 2**20:.0f} MB and for what is on its way to all: {room:.1f} MB."
    )
    result.facts.append(str(Goal("Growth of memory", growth, room, " MB")))
    result.data = {"gone_seconds": gone, "growth_mb": growth, "sink": summary, "publisher": published}
    return result
