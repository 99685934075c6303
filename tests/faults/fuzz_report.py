"""What a fuzzing run counts and complains about."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MOST_OF_A_KIND = 4
"""Complaints of one kind that are printed; all are counted."""


@dataclass(slots=True)
class Report:
    """Counts of inputs by class, of answers by code, and every answer that was not allowed."""

    seed: int
    inputs: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.inputs.values())

    def complain(self, what: str, sent: bytes, got: object, allowed: object) -> None:
        """An answer was wrong for its input."""
        shown = sent if len(sent) <= 400 else sent[:200] + b"..." + sent[-100:] + b" (%d bytes)" % len(sent)
        self.complaints.append(f"{what}: {shown!r} -> {got}, allowed {allowed}")

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.total} inputs: " + ", ".join(f"{n} {k}" for k, n in sorted(self.inputs.items()))
        ]
        lines.append("answers: " + ", ".join(f"{key} x{count}" for key, count in sorted(self.answers.items())))
        lines += self.notes
        lines.append(f"complaints: {len(self.complaints)}")
        shown: Counter[str] = Counter()
        for complaint in self.complaints:
            kind = complaint.partition(":")[0]
            shown[kind] += 1
            if shown[kind] <= MOST_OF_A_KIND:
                lines.append(f"  {complaint}")
        return "\n".join(lines)
