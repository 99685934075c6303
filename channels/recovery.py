"""Recovery decisions: given where a client stands and what history has, what does it get?

No I/O here. A client stands at a position; history answers with a page of what lies above it and its own top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from storage.contract import Page, Position, Publication


class Recovered(NamedTuple):
    """The outcome of a recovery.

    ``complete`` tells whether ``publications`` reach the top; if not, what is above ``position`` is still to be sent.
    ``position`` is how far the client is once it has read ``publications``.
    """

    recovered: bool
    publications: Sequence[Publication]
    position: Position
    complete: bool


def visible(publications: Sequence[Publication]) -> list[Publication]:
    """Those that were not redacted."""
    return [each for each in publications if not each.removed]


def recover_stream(asked: Position, page: Page, *, paged: bool) -> Recovered:
    """Decide a stream recovery from ``page``, read above the offset asked for.

    ``paged`` (durable channels) means that a page which ends below the top is no loss: the rest follows.
    """
    top = page.position
    lost = Recovered(False, (), top, True)
    if asked.epoch and asked.epoch != top.epoch:
        return lost
    if not page.publications:
        return Recovered(True, (), top, True) if asked.offset == top.offset else lost
    if page.publications[0].offset != asked.offset + 1:
        return lost
    last = page.publications[-1].offset
    if last != page.publications[0].offset + len(page.publications) - 1:
        return lost
    complete = last == top.offset
    if not complete and not paged:
        return lost
    return Recovered(True, visible(page.publications), Position(last, top.epoch), complete)


def recover_cache(asked: Position | None, page: Page) -> Recovered:
    """Decide a cache recovery, where only the newest publication counts; ``page`` was read newest first, limit 1."""
    top = page.position
    if asked is not None and asked.offset == top.offset and asked.epoch == top.epoch:
        return Recovered(True, (), top, True)
    if page.publications and page.publications[0].offset == top.offset:
        return Recovered(True, visible(page.publications), top, True)
    return Recovered(False, (), top, True)
