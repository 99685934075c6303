"""docs/limits.md names settings that exist, with the defaults that they have, and metrics that are exported."""

from __future__ import annotations

import re
from pathlib import Path

from hub.metrics import NodeCollector
from hub.settings_docs import describe
from tests.support.inprocess import running

LIMITS = (Path(__file__).resolve().parents[2] / "docs" / "limits.md").read_text("utf-8")


def test_settings_and_defaults() -> None:
    defaults = {each.path: each.default for _, _, settings in describe() for each in settings}
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", LIMITS, re.MULTILINE)
    assert len(rows) > 40
    assert dict(rows) == {path: defaults.get(path, "no such setting").strip("`") for path, _ in rows}


def test_every_rate_limit_is_there() -> None:
    known = {each.path for _, _, settings in describe() for each in settings if each.path.startswith("rate_limit.")}
    assert known == set(re.findall(r"`(rate_limit\.[a-z_.]+)` \|", LIMITS))


async def test_metrics(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        node = hub.node
        exported = {family.name for family in NodeCollector(node.metrics, node.gauges, node.counters).collect()}
    for name in re.findall(r"hub_[a-z_]+", LIMITS):
        assert name.removesuffix("_total") in exported, name
