"""Cohorts: the subscribers of a channel that receive the very same bytes.

A cohort is named by what shapes its bytes: the wire of its transports, whether it takes deltas, and its tags filter. A
publication is rendered once for each cohort; the loop over its members does nothing but write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from channels.delta import create_delta
from channels.filters import TagsFilter
from hub.protocol import encode_text_publication, publication_push
from hub.wire import Wire
from storage.contract import Publication

if TYPE_CHECKING:
    from hub.subscription import Subscription

Write = Callable[[bytes], None]


class CohortKey(NamedTuple):
    """What subscribers must have in common to receive the same bytes."""

    wire: Wire
    delta: bool = False
    filter: TagsFilter | None = None


class Cohort:
    """Members with the same key; ``writes`` is made anew only after members came or went."""

    __slots__ = ("_writes", "key", "members")

    def __init__(self, key: CohortKey) -> None:
        self.key = key
        self.members: dict[Subscription, Write] = {}
        self._writes: list[Write] | None = None

    def add(self, subscription: Subscription, write: Write) -> None:
        self.members[subscription] = write
        self._writes = None

    def discard(self, subscription: Subscription) -> bool:
        """Remove a member; false if it is none."""
        if self.members.pop(subscription, None) is None:
            return False
        self._writes = None
        return True

    def writes_but(self, excluded: Subscription | None) -> list[Write]:
        """The write functions of all members but one; never changed in place, so that a fan-out may go on over it."""
        if excluded is not None and excluded in self.members:
            return [write for member, write in self.members.items() if member is not excluded]
        if self._writes is None:
            self._writes = list(self.members.values())
        return self._writes


class Batch:
    """Publications of one channel on their way out together, and what was rendered of them. All are readable as JSON.

    ``base`` is the payload of the publication before them, the first delta's base. ``first`` counts publications on this
    node's channel from 1, so that a subscriber who came in between can be spared what is older than it.
    """

    __slots__ = ("_deltas", "_plain", "base", "first", "head", "publications")

    def __init__(self, head: bytes, publications: Sequence[Publication], first: int, base: bytes | None) -> None:
        self.head = head
        self.publications = publications
        self.first = first
        self.base = base
        self._plain: list[bytes] | None = None
        self._deltas: list[bytes] | None = None

    def plain(self) -> list[bytes]:
        """Each publication as a message for those who take it as it is."""
        if self._plain is None:
            self._plain = [publication_push(self.head, each) for each in self.publications]
        return self._plain

    def deltas(self) -> list[bytes]:
        """Each publication as a message for those who have read the one before it."""
        if self._deltas is None:
            bases = (self.base, *(each.data for each in self.publications))
            pairs = zip(self.publications, bases, strict=False)
            self._deltas = [delta_push(self.head, each, base if each.delta else None) for each, base in pairs]
        return self._deltas

    def message(self, index: int, key: CohortKey, *, full: bool) -> bytes:
        """One publication for one subscriber; ``full`` when it does not hold the one before."""
        if not key.delta:
            return self.plain()[index]
        return delta_push(self.head, self.publications[index], None) if full else self.deltas()[index]

    def render(self, key: CohortKey) -> tuple[bytes, int]:
        """What to write to each member of a cohort and how many publications that is."""
        if key.delta:
            messages = self.deltas()
        elif key.filter is None:
            messages = self.plain()
        else:
            wanted = key.filter.matches
            pairs = zip(self.plain(), self.publications, strict=True)
            messages = [message for message, each in pairs if wanted(each.tags)]
        if not messages:
            return b"", 0
        return key.wire.pack_all(messages), len(messages)


def delta_push(head: bytes, publication: Publication, base: bytes | None) -> bytes:
    """One publication for a delta subscriber that holds ``base`` (``None``: nothing, or it must not be used)."""
    data = publication.data
    patch = create_delta(base, data) if base else None
    if patch is None:
        return head + b'"pub":' + encode_text_publication(publication, data, delta=False) + b"}}"
    return head + b'"pub":' + encode_text_publication(publication, patch, delta=True) + b"}}"
