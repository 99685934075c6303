"""The short form of `python -m tests.faults.fuzz`: every answer right, nothing piled up, nobody else disturbed."""

from __future__ import annotations

import random

import pytest

from tests.faults import fuzz
from tests.faults.fuzz_report import Report
from tests.faults.fuzz_settings import fuzz_settings

INPUTS = 16_000


@pytest.mark.timeout(180)
async def test_a_storm_of_mutated_inputs() -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}: repeat with python -m tests.faults.fuzz --inputs {INPUTS} --seed {seed}")
    report = await fuzz.run(inputs=INPUTS, seed=seed)
    print(report)
    assert not report.complaints, str(report)
    assert report.total >= INPUTS * 0.99


def test_mutated_settings() -> None:
    seed = random.randrange(10**6)
    report = Report(seed)
    fuzz_settings(report, 800, str(seed))
    print(report)
    assert not report.complaints, str(report)
    assert report.answers["settings accepted"] > 10
    assert report.answers["settings refused"] > 200
