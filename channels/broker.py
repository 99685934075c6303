"""The broker: what carries publications between nodes, and keeps the recent history of channels.

A broker is *told* what to carry and *tells* its node what arrived, through ``BrokerEvents``. The embedded home
(``broker_memory``) delivers within the process; another home may lose messages, deliver them twice or late, and
says so by ``on_doubt``. Whatever it does, positions let the node put things right.

Example: the first publication of a channel with history has position (1, "Xk3d"), the next (2, "Xk3d"). A subscriber
that knows (1, "Xk3d") asks for what is above 1. After the stream was lost and began anew, positions are (1, "9fQz"): the epoch
tells that offset 1 is not the offset 1 of before.

Methods may be called outside of any task and run up to their first wait there (``channels.eager``): a home that needs a
task, for a timeout say, begins with ``await in_task()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from storage.contract import Appended, ClientInfo, Page, Publication, ReadQuery


class BrokerEvents(Protocol):
    """What a broker tells its node, always on the event loop. None of these may block or raise."""

    def on_publications(self, channel: str, publications: Sequence[Publication], epoch: str) -> None:
        """Publications of one channel arrived, in the order in which they were published."""

    def on_join(self, channel: str, info: ClientInfo) -> None: ...

    def on_leave(self, channel: str, info: ClientInfo) -> None: ...

    def on_control(self, message: bytes) -> None:
        """A control message of another node arrived."""

    def on_doubt(self, channels: Sequence[str] | None) -> None:
        """Something may have been missed on these channels (``None``: on all), compare positions with history."""


class RecentOptions(Struct, frozen=True):
    """How a publish with recent history is kept and guarded."""

    history_size: int = 0
    """How many publications to keep; 0 = keep none, publish without an offset."""
    history_ttl: float = 0.0
    """Seconds after the last publication for which the stream is kept."""
    history_meta_ttl: float = 0.0
    """Seconds for which offset and epoch outlive the last use of the stream."""
    idempotency_key: str = ""
    idempotency_window: float = 300.0
    version: int = 0
    version_epoch: str = ""


class BrokerError(Exception):
    """The broker is out of reach or refuses; nothing was published, or it is safe to repeat."""


class Broker(Protocol):
    """Carries publications, joins, leaves and control messages to every node that is subscribed."""

    async def open(self, events: BrokerEvents) -> None: ...

    async def close(self) -> None: ...

    async def subscribe(self, channel: str) -> None:
        """Deliver this channel's traffic to this node from now on: when it returns, nothing later is missed."""

    async def unsubscribe(self, channel: str) -> None: ...

    async def publish(self, channel: str, publication: Publication, options: RecentOptions) -> Appended:
        """Give the publication its place in recent history, if the options ask for one, and carry it to all nodes.

        Raises ``BrokerError``. Without history the position is (0, "").
        """

    async def carry(self, channel: str, publications: Sequence[Publication], epoch: str) -> None:
        """Carry publications that a store has already committed, in order. At most once: the store is the truth."""

    async def publish_join(self, channel: str, info: ClientInfo) -> None: ...

    async def publish_leave(self, channel: str, info: ClientInfo) -> None: ...

    async def publish_control(self, message: bytes) -> None:
        """Send a control message to all other nodes."""

    async def read(self, channel: str, query: ReadQuery, meta_ttl: float) -> Page:
        """Read recent history; ``meta_ttl`` is how many seconds from now offset and epoch are kept at least (0 = always).

        A stream that does not exist has offset 0 and the epoch that its first publication will keep. Nothing is kept
        for that: strangers choose the names of channels. One that had publications and was forgotten has another epoch.
        """

    async def remove(self, channel: str) -> None:
        """Forget the publications of a stream; its offset and epoch stay."""

    def gauges(self) -> Iterable[tuple[str, str, float]]:
        """(name, help, value) of what this home holds, for metrics; names without the ``hub_`` in front."""

    async def redact(self, channel: str, offset: int, data: bytes | None) -> bool:
        """Replace or (``None``) remove the payload at ``offset``; false if there is nothing at that offset."""
