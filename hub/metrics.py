"""What the hub counts, and how Prometheus gets it.

The hot path adds to plain integers; names, labels and text are made only when somebody scrapes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histograms' buckets."""


class Histogram:
    """Counts observations in buckets; ``observe`` costs a few hundred nanoseconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus wants them."""
        made, running = [], 0
        for bound, count in zip((*map(str, SECONDS), "+Inf"), self.counts, strict=True):
            running += count
            made.append((bound, float(running)))
        return made


class Metrics:
    """All counters of one node."""

    def __init__(self) -> None:
        self.connects = 0
        self.refused: Counter[str] = Counter()
        """Connections refused before they became sessions, by reason."""
        self.disconnects: Counter[tuple[int, str]] = Counter()
        self.unsubscribes: Counter[tuple[int, str]] = Counter()
        self.commands: Counter[str] = Counter()
        self.errors: Counter[tuple[str, int]] = Counter()
        """Error replies to clients, by command and code."""
        self.api_calls: Counter[str] = Counter()
        self.api_errors: Counter[tuple[str, int]] = Counter()
        self.rate_limited: Counter[str] = Counter()
        self.publications_in: Counter[str] = Counter()
        """Publications accepted, by the way they came in."""
        self.deliveries = 0
        self.conflated = 0
        """Publications left out for peers that read too slowly, where the namespace allows it."""
        self.bytes_in = 0
        self.bytes_out = 0
        self.gaps = 0
        """Gaps in a channel's order that had to be repaired from history."""
        self.lags = 0
        """Arrivals later than ``client.channel_position_max_time_lag``."""
        self.repairs = 0
        self.recoveries: Counter[str] = Counter()
        """Recoveries asked for by clients, by outcome."""
        self.failures: Counter[str] = Counter()
        """Unexpected exceptions, mostly of an application's own handlers, by the command or event at work."""
        self.connect_seconds = Histogram()
        self.publish_seconds = Histogram()
        self.delivery_seconds = Histogram()
        self.history_seconds = Histogram()
        self.store: dict[str, Histogram] = {}
        self.store_rows: Counter[str] = Counter()
        self.store_failures: Counter[str] = Counter()
        """Calls of the store that failed, by operation."""

    def observe_store(self, kind: str, seconds: float, rows: int) -> None:
        """The store's observer: one operation, how long it took and how many rows it touched."""
        histogram = self.store.get(kind)
        if histogram is None:
            histogram = self.store[kind] = Histogram()
        histogram.observe(seconds)
        self.store_rows[kind] += rows

    def store_failed(self, kind: str) -> None:
        """The store's observer of failures."""
        self.store_failures[kind] += 1


Values = Callable[[], Iterable[tuple[str, str, float]]]
"""Yields (name, help, value) of what is counted elsewhere."""


class NodeCollector(Collector):
    """Turns a node's counters into Prometheus's metric families; ``gauges`` and ``counters`` add what others count."""

    def __init__(self, metrics: Metrics, gauges: Values, counters: Values) -> None:
        self._metrics = metrics
        self._gauges = gauges
        self._counters = counters

    def collect(self) -> Iterable[Metric]:
        metrics = self._metrics
        for name, text, value in self._gauges():
            yield GaugeMetricFamily(f"hub_{name}", text, value)
        for name, text, value in self._counters():
            yield CounterMetricFamily(f"hub_{name}", text, value)
        for name, text, value in (
            ("connects", "Sessions that were opened.", metrics.connects),
            ("deliveries", "Publications written to subscribers.", metrics.deliveries),
            ("conflated", "Publications left out for slow readers of conflated channels.", metrics.conflated),
            ("received_bytes", "Bytes of messages received from clients.", metrics.bytes_in),
            ("sent_bytes", "Bytes written to clients.", metrics.bytes_out),
            ("gaps", "Gaps in a channel's order.", metrics.gaps),
            ("lags", "Arrivals of publications later than their bound.", metrics.lags),
            ("repairs", "Repairs of a channel's order from history.", metrics.repairs),
        ):
            yield CounterMetricFamily(f"hub_{name}", text, value)
        yield _labelled("publications", "Publications accepted.", ("way",), metrics.publications_in)
        yield _labelled("commands", "Commands of clients.", ("command",), metrics.commands)
        yield _labelled("command_errors", "Error replies to clients.", ("command", "code"), metrics.errors)
        yield _labelled("rate_limited", "Commands refused by a rate limit.", ("kind",), metrics.rate_limited)
        yield _labelled("disconnects", "Connections closed, by why.", ("code", "reason"), metrics.disconnects)
        yield _labelled("unsubscribes", "Subscriptions ended by the hub.", ("code", "reason"), metrics.unsubscribes)
        yield _labelled("refused_connections", "Connections refused at the door.", ("reason",), metrics.refused)
        yield _labelled("recoveries", "Recoveries asked for by clients.", ("outcome",), metrics.recoveries)
        yield _labelled("failures", "Unexpected exceptions, mostly of handlers.", ("during",), metrics.failures)
        yield _labelled("api_calls", "Calls of the server API.", ("method",), metrics.api_calls)
        yield _labelled("api_errors", "Errors of the server API.", ("method", "code"), metrics.api_errors)
        yield _labelled("store_rows", "Rows that store operations touched.", ("operation",), metrics.store_rows)
        yield _labelled("store_failures", "Store operations that failed.", ("operation",), metrics.store_failures)
        for name, text, histogram in (
            ("connect_seconds", "Time from the connect command to its reply.", metrics.connect_seconds),
            ("publish_seconds", "Time from a publish to its acknowledgement.", metrics.publish_seconds),
            ("delivery_seconds", "Time from a publication's arrival to its last write.", metrics.delivery_seconds),
            ("history_seconds", "Time of history reads for clients and the API.", metrics.history_seconds),
        ):
            yield HistogramMetricFamily(f"hub_{name}", text, histogram.buckets(), histogram.total)
        family = HistogramMetricFamily("hub_store_seconds", "Time of store operations.", labels=("operation",))
        for kind, histogram in metrics.store.items():
            family.add_metric((kind,), histogram.buckets(), histogram.total)
        yield family


def _labelled(name: str, text: str, labels: tuple[str, ...], counter: Mapping[Any, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"hub_{name}", text, labels=labels)
    for key, value in sorted(counter.items(), key=lambda item: str(item[0])):
        values = key if isinstance(key, tuple) else (key,)
        family.add_metric([str(each) for each in values], value)
    return family


def exposition(collector: NodeCollector) -> bytes:
    """The text that a scrape gets."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)
