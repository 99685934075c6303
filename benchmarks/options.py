"""What the command line says about all benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.tools import ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How long and on what."""

    quick: bool = False
    """A few seconds a benchmark, to see that it works; the figures are rough."""
    rounds: int = 5
    """Rounds of each measurement, hub and comparison taking turns; medians are shown."""
    root: Path = ROOT
    """The checkout whose hub is measured."""
    pin: bool = True
    """One CPU for the measured process, another for the load."""
    history: str = "none"
    """Kind of history of the fan-out's channel: none, recent or durable."""
    subscribers: tuple[int, ...] = (1, 10, 100, 1000)
    """Sizes of the fan-out."""
    connections: int = 5000
    """Idle connections of the memory benchmark."""
