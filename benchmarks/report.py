"""Tables for the terminal and for docs/performance.md, and results as JSON."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.tools import HERE, ROOT, BenchmarkError

RESULTS = HERE / "results"
DOCS = ROOT / "docs" / "performance.md"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a heading; the first column is left-aligned, the others right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        widths = [max(len(line[i]) for line in (self.columns, *self.rows)) for i in range(len(self.columns))]

        def line(cells: Sequence[str]) -> str:
            first = cells[0].ljust(widths[0])
            return "  " + "  ".join(
                [first, *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))]
            )

        return "\n".join([self.title, line(self.columns), *(line(row) for row in self.rows)])

    def markdown(self) -> str:
        rule = "|---|" + "---:|" * (len(self.columns) - 1)
        rows = ["| " + " | ".join(row) + " |" for row in (self.columns, *self.rows)]
        return "\n".join([self.title + ":", "", rows[0], rule, *rows[1:]])


@dataclass(slots=True)
class Result:
    """What one benchmark found. ``facts`` are sentences; ``failures`` say what must not be (a lost message)."""

    name: str
    tables: list[Table] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        parts = [table.text() for table in self.tables]
        parts += ["\n".join(f"  {fact}" for fact in self.facts)] if self.facts else []
        parts += ["\n".join(f"  FAILED: {failure}" for failure in self.failures)] if self.failures else []
        return "\n\n".join(parts)


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that must not be above a limit."""

    what: str
    value: float
    limit: float
    unit: str

    @property
    def met(self) -> bool:
        return self.value <= self.limit

    def __str__(self) -> str:
        verdict = "met" if self.met else "MISSED"
        return f"{self.what}: {self.value:.2f}{self.unit}; goal at most {self.limit:g}{self.unit}: {verdict}."


def progress(text: str) -> None:
    """Say on standard error how far a benchmark has come."""
    print(f"  … {text}", file=sys.stderr, flush=True)


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def number(value: float, digits: int = 2) -> str:
    """Like ``12.34``; from 1,000 on without decimals and with thousands separated."""
    return f"{value:,.0f}" if abs(value) >= 1000 or digits == 0 else f"{value:.{digits}f}"


def machine() -> str:
    """The machine in one line, without its name."""
    model = ""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        model = found.group(1).strip() if found else ""
    except OSError:
        pass
    versions = []
    for package in ("uvloop", "uvicorn"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    hardware = f"{cores} cores" + (f" ({model})" if model else "")
    software = [f"{platform.system()} {platform.release()}", f"Python {platform.python_version()}", *versions]
    return ", ".join([hardware, *software])


def save(result: Result, command: str) -> Path:
    """Write the result to ``results/<name>.json`` and return the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{result.name}.json"
    content = {
        "name": result.name,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "command": command,
        "facts": result.facts,
        "failures": result.failures,
        "tables": [{"title": t.title, "columns": t.columns, "rows": t.rows} for t in result.tables],
        "data": result.data,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def write_docs(result: Result, command: str, path: Path = DOCS) -> None:
    """Replace what stands between the markers of this benchmark in the performance page."""
    begin, end = f"<!-- figures of {result.name}: begin -->", f"<!-- figures of {result.name}: end -->"
    page = path.read_text() if path.exists() else ""
    head, found, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise BenchmarkError(f"{path.name} lacks the markers “{begin}” and “{end}”.")
    day = datetime.now(UTC).date().isoformat()
    parts = [f"`{command}`, {day}, on {machine()}.", *(table.markdown() for table in result.tables)]
    parts += ["\n".join(f"* {fact}" for fact in [*result.facts, *result.failures])]
    path.write_text(f"{head}{begin}\n\n" + "\n\n".join(part for part in parts if part) + f"\n\n{end}{tail}")
