"""Strict order out of whatever order the broker delivers in: one channel's position on one node.

What is at or below the position was seen and is dropped. What follows it directly is taken. What leaves a gap, or names
another epoch, is held, and a repair is due: whoever repairs reads history and calls ``advance``, or ``restart`` where history
no longer has what is missing, ``forget`` for what history will never have, and then ``release``.
"""

from __future__ import annotations

from collections.abc import Sequence

from storage.contract import Position, Publication

HELD_MAX = 10_000
"""Publications held during a repair; what comes beyond is dropped and read from history by a further repair."""


class Ordering:
    """The position of one channel's subscribers, and what waits for a repair. No I/O."""

    __slots__ = ("_epoch_held", "_held", "_overflowed", "mark", "position", "repair_due")

    def __init__(self) -> None:
        self.position: Position | None = None
        """How far the stream has been taken; ``None`` until ``open``: everything is held."""
        self.repair_due = False
        """Something is missing: nothing is taken until ``release``."""
        self.mark = 0
        """How many publications were held until now, for ``forget``."""
        self._held: list[Publication] = []
        self._epoch_held = ""
        self._overflowed = False

    def open(self, top: Position) -> list[Publication]:
        """Start at ``top``; returns what has arrived above it meanwhile."""
        self.position = top
        return self.release()

    def take(self, publications: Sequence[Publication], epoch: str) -> list[Publication]:
        """Returns those to deliver now, in order. Publications without an offset are always delivered."""
        taken: list[Publication] = []
        for each in publications:
            if not each.offset:
                taken.append(each)
            elif self.position is None or self.repair_due:
                self._hold(each, epoch)
            elif epoch == self.position.epoch and each.offset <= self.position.offset:
                continue
            elif epoch == self.position.epoch and each.offset == self.position.offset + 1:
                self.position = Position(each.offset, epoch)
                taken.append(each)
            else:
                self.repair_due = True
                self._hold(each, epoch)
        return taken

    def advance(self, publications: Sequence[Publication]) -> list[Publication]:
        """Take the next publications of the stream as read from history; redacted ones only move the position."""
        assert self.position is not None
        taken = []
        for each in publications:
            if each.offset == self.position.offset + 1:
                self.position = Position(each.offset, self.position.epoch)
                if not each.removed:
                    taken.append(each)
        return taken

    def restart(self, top: Position) -> None:
        """Give up what is missing: go on with what is held, or from ``top``."""
        first = next((each for each in self._held), None) if self._epoch_held == top.epoch else None
        self.position = Position(first.offset - 1, top.epoch) if first is not None else top

    def forget(self, mark: int) -> None:
        """Drop what was held before ``mark``: history, read since, has it below the position or not at all."""
        surplus = mark - (self.mark - len(self._held))
        if surplus > 0:
            del self._held[:surplus]

    def release(self) -> list[Publication]:
        """End a repair; returns what was held and now fits. ``repair_due`` may be true again."""
        held, self._held = self._held, []
        overflowed, self._overflowed = self._overflowed, False
        self.repair_due = False
        taken = self.take(held, self._epoch_held)
        self.repair_due = self.repair_due or overflowed
        return taken

    def _hold(self, publication: Publication, epoch: str) -> None:
        if epoch != self._epoch_held:
            self._held.clear()
            self._epoch_held = epoch
        if len(self._held) < HELD_MAX:
            self._held.append(publication)
            self.mark += 1
        else:
            self._overflowed = True
