"""Tests of hub.metrics: what is counted and how Prometheus gets it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from hub import codes
from hub.metrics import SECONDS, Histogram, Metrics, NodeCollector, exposition
from tests.support.inprocess import InProcessHub


def samples(metrics: Metrics) -> dict[str, float]:
    text = exposition(
        NodeCollector(metrics, lambda: [("connections", "Connected.", 3)], lambda: [("reads", "Reads.", 5)])
    ).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(each.labels.items()))
            found[f"{each.name}{{{labels}}}" if labels else each.name] = each.value
    return found


def test_histogram() -> None:
    histogram = Histogram()
    for seconds in (0.00005, SECONDS[0], 0.003, 99.0):
        histogram.observe(seconds)
    buckets = dict(histogram.buckets())
    assert buckets["0.0001"] == 2, "a bound belongs to its bucket"
    assert buckets["0.0025"] == 2
    assert buckets["0.005"] == 3
    assert buckets["10.0"] == 3
    assert buckets["+Inf"] == 4
    assert histogram.total == 0.00005 + SECONDS[0] + 0.003 + 99.0


def test_exposition() -> None:
    metrics = Metrics()
    metrics.connects = 2
    metrics.disconnects[codes.SLOW] += 1
    metrics.errors["subscribe", 103] += 4
    metrics.observe_store("commit", 0.002, 30)
    metrics.observe_store("commit", 0.002, 10)
    metrics.store_failed("commit")
    found = samples(metrics)
    assert found["hub_connections"] == 3
    assert found["hub_connects_total"] == 2
    assert found["hub_reads_total"] == 5
    assert found["hub_disconnects_total{code=3008,reason=slow}"] == 1
    assert found["hub_command_errors_total{code=103,command=subscribe}"] == 4
    assert found["hub_store_rows_total{operation=commit}"] == 40
    assert found["hub_store_seconds_count{operation=commit}"] == 2
    assert found["hub_store_failures_total{operation=commit}"] == 1
    assert found["hub_publish_seconds_count"] == 0


async def test_what_a_node_counts(node_hub: InProcessHub) -> None:
    peer = await node_hub.subscribed("recent:x")
    await peer.error(subscribe={"channel": "nowhere:x"})
    await node_hub.publish("recent:x", 1)
    await node_hub.settled()
    gauges = {name: value for name, _, value in node_hub.node.gauges()}
    assert (gauges["connections"], gauges["channels"], gauges["subscriptions"], gauges["users"]) == (1, 1, 1, 1)
    found = samples(node_hub.metrics)
    assert found["hub_commands_total{command=subscribe}"] == 2
    assert found["hub_command_errors_total{code=102,command=subscribe}"] == 1
    assert found["hub_deliveries_total"] == 1
    assert found["hub_received_bytes_total"] > 0
    assert found["hub_sent_bytes_total"] == len(b"".join(peer.transport.writes))
