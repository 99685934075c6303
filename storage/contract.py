"""What must survive: the publication store's contract and the values that travel through it.

A *publication* is one message of a channel. Its *position* is its offset in the channel's stream (dense, from 1)
together with the stream's epoch, which changes only when the stream really starts anew. A store keeps the streams of
durable channels; every home of this contract (SQLite, PostgreSQL) promises the same:

* ``append`` returns after the commit, never before; offsets are given in commit order;
* ``on_commit`` is called on the event loop once per commit with what it made, in offset order within each channel,
  also when the caller of ``append`` has gone away meanwhile;
* an idempotency key that is still within its window, or a version that is not newer, gives a position back and writes
  nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct


class Position(NamedTuple):
    """A place in a channel's stream: everything up to ``offset`` (0 = nothing yet) of the stream named ``epoch``."""

    offset: int
    epoch: str


class ClientInfo(Struct, frozen=True, gc=False):
    """Who published, joined or is present. ``conn_info`` and ``chan_info`` are raw JSON, empty when there is none."""

    user: str
    client: str
    conn_info: bytes = b""
    chan_info: bytes = b""


class Publication(Struct, frozen=True):
    """One message of a channel; ``data`` is the publisher's own bytes."""

    data: bytes
    offset: int = 0
    """Offset in the stream, from 1; 0 when the channel keeps no history."""
    time: int = 0
    """When it was accepted, in milliseconds since the Unix epoch."""
    info: ClientInfo | None = None
    tags: dict[str, str] | None = None
    delta: bool = False
    """The publisher allows this publication to be sent as a delta against the one before it."""
    exclude_client: str = ""
    """Client id of a session that is not to receive it. Not stored."""
    removed: bool = False
    """Redacted: the offset stays taken, the content is gone (``data`` is empty)."""


class AppendRequest(Struct, frozen=True):
    """A publication on its way into a durable stream."""

    channel: str
    publication: Publication
    namespace: str = ""
    """Name of the channel's namespace, kept with the stream so that retention can find it."""
    idempotency_key: str = ""
    idempotency_window: float = 300.0
    """Seconds for which ``idempotency_key`` is remembered for this channel."""
    version: int = 0
    """When above 0, a publication whose version is not above the stream's stored one is dropped."""
    version_epoch: str = ""
    """A version is only compared with a stored one of the same version epoch; an empty one matches any."""


class Appended(Struct, frozen=True):
    """The outcome of an append: ``fresh`` is false when it was a repeat or an old version and nothing was written."""

    position: Position
    fresh: bool


class Committed(Struct, frozen=True):
    """One publication that a commit has just made durable, with its offset and time filled in."""

    channel: str
    epoch: str
    publication: Publication


class ReadQuery(Struct, frozen=True):
    """What to read of a stream. With neither ``since`` nor a time, reading starts at the oldest (newest if reversed)."""

    limit: int = 0
    """0 = only the position, -1 = no limit, n = at most n publications."""
    since: int = -1
    """Exclusive: offsets above it, or below it when reversed; -1 = from the end that reading starts at."""
    since_time: int = 0
    """Inclusive lower bound in milliseconds since the Unix epoch; 0 = none."""
    until_time: int = 0
    """Exclusive upper bound in milliseconds since the Unix epoch; 0 = none."""
    reverse: bool = False
    """Newest first."""
    max_bytes: int = 0
    """The page ends early once its payloads have this many bytes together, after one publication at least; 0 = never."""


class Page(Struct, frozen=True):
    """Publications in the order asked for, redacted ones included, and the top of the stream, from one snapshot."""

    publications: list[Publication]
    position: Position


class Retention(Struct, frozen=True):
    """How much of a durable stream is kept: 0 means no bound. A stream's offset and epoch outlive its publications."""

    size: int = 0
    """At most this many newest publications per channel."""
    age: float = 0.0
    """Only publications younger than this many seconds."""


CommitListener = Callable[[Sequence[Committed]], None]


class PublicationStore(Protocol):
    """The home of durable streams. All methods raise ``StoreUnavailable`` when the store cannot be reached in time."""

    on_commit: CommitListener
    """Set by the owner before ``open``."""

    @property
    def trouble(self) -> str:
        """Why writes fail now; empty when the last one did not. It goes on from "the store": ``cannot be …``.

        It is what failed for the store's own sake, not for what was to be written. The store tries again by itself, so
        that this is empty soon after the cause has gone.
        """

    async def open(self) -> None:
        """Open or create the store and bring its schema up to date; raises ``StoreError`` with a sentence for a person."""

    async def close(self) -> None:
        """Finish what was accepted, then release everything. Safe to call twice."""

    async def append(self, request: AppendRequest) -> Appended:
        """Commit one publication; raises ``StoreUnavailable`` at once when too many are waiting already."""

    async def positions(self, channels: Sequence[str]) -> dict[str, Position]:
        """The tops of the given streams in one query; of those that do not exist yet what ``read`` says of them."""

    async def read(self, channel: str, query: ReadQuery) -> Page:
        """Read one page.

        A stream that does not exist yet has offset 0 and the epoch that its first publication will keep. Nothing is
        written for that, nor held: strangers choose the names of channels.
        """

    async def remove(self, channel: str) -> None:
        """Delete all publications of a stream; its offset and epoch stay."""

    async def redact(self, channel: str, offset: int, data: bytes | None) -> bool:
        """Replace the payload at ``offset``, or with ``None`` remove it; false if there is nothing at that offset."""

    async def prune(self, rules: Mapping[str, Retention]) -> int:
        """Apply retention by namespace name, in short transactions; returns how many publications were deleted."""
