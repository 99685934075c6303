"""The short form of `python -m tests.faults.kill_restart`: three kills under load, and every publication accounted for."""

from __future__ import annotations

import random

import pytest

from tests.faults import kill_restart


@pytest.mark.timeout(150)
async def test_nothing_is_lost_or_doubled_when_the_hub_is_killed_under_load() -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}: repeat with python -m tests.faults.kill_restart --rounds 3 --calm 0.8 --seed {seed}")
    report = await kill_restart.run(rounds=3, seed=seed, calm=0.8)
    print(report)
    assert report.kills >= 3
    assert report.acknowledged > 100
    assert report.delivered > report.acknowledged
    assert report.good, str(report)
