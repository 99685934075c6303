"""Homes that misbehave as real ones can, around the real embedded ones.

``LossyBroker`` drops, repeats, delays and reorders what it delivers, ``GatedStore`` and ``GatedPresence`` take their time
until they are let go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from channels.broker import Broker, BrokerEvents, RecentOptions
from channels.presence import Presence, PresenceStats
from storage.contract import (
    Appended,
    AppendRequest,
    ClientInfo,
    CommitListener,
    Page,
    Position,
    Publication,
    PublicationStore,
    ReadQuery,
    Retention,
)


class Fate(Enum):
    """What becomes of a publication on its way to the node."""

    DELIVER = "deliver"
    DROP = "drop"
    TWICE = "twice"
    DELAY = "delay"


class LossyBroker:
    """A ``Broker`` that loses what it is told to; what is kept as history is right all the same."""

    def __init__(self, inner: Broker) -> None:
        self._inner = inner
        self._events: BrokerEvents | None = None
        self.fate = Fate.DELIVER
        self.delayed: list[tuple[str, Publication, str]] = []

    def deliver_delayed(self, index: int = 0) -> None:
        """Deliver one of those that were delayed, whichever came before it."""
        channel, publication, epoch = self.delayed.pop(index)
        if self._events is not None:
            self._events.on_publications(channel, [publication], epoch)

    # BrokerEvents

    def on_publications(self, channel: str, publications: Sequence[Publication], epoch: str) -> None:
        assert self._events is not None
        if self.fate is Fate.DELAY:
            self.delayed += [(channel, each, epoch) for each in publications]
        elif self.fate is not Fate.DROP:
            self._events.on_publications(channel, publications, epoch)
            if self.fate is Fate.TWICE:
                self._events.on_publications(channel, publications, epoch)

    def on_join(self, channel: str, info: ClientInfo) -> None:
        assert self._events is not None
        self._events.on_join(channel, info)

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        assert self._events is not None
        self._events.on_leave(channel, info)

    def on_control(self, message: bytes) -> None:
        assert self._events is not None
        self._events.on_control(message)

    def on_doubt(self, channels: Sequence[str] | None) -> None:
        assert self._events is not None
        self._events.on_doubt(channels)

    # Broker

    async def open(self, events: BrokerEvents) -> None:
        self._events = events
        await self._inner.open(self)

    async def close(self) -> None:
        await self._inner.close()

    async def subscribe(self, channel: str) -> None:
        await self._inner.subscribe(channel)

    async def unsubscribe(self, channel: str) -> None:
        await self._inner.unsubscribe(channel)

    async def publish(self, channel: str, publication: Publication, options: RecentOptions) -> Appended:
        return await self._inner.publish(channel, publication, options)

    async def carry(self, channel: str, publications: Sequence[Publication], epoch: str) -> None:
        await self._inner.carry(channel, publications, epoch)

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        await self._inner.publish_join(channel, info)

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        await self._inner.publish_leave(channel, info)

    async def publish_control(self, message: bytes) -> None:
        await self._inner.publish_control(message)

    async def read(self, channel: str, query: ReadQuery, meta_ttl: float) -> Page:
        return await self._inner.read(channel, query, meta_ttl)

    async def remove(self, channel: str) -> None:
        await self._inner.remove(channel)

    def gauges(self) -> Iterable[tuple[str, str, float]]:
        return self._inner.gauges()

    async def redact(self, channel: str, offset: int, data: bytes | None) -> bool:
        return await self._inner.redact(channel, offset, data)


class Gate:
    """Open at first. While it is shut, whoever passes waits; ``reached`` tells that somebody does."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.reached = asyncio.Event()
        self.passed = 0

    def shut(self) -> None:
        self._open.clear()
        self.reached.clear()

    def open(self) -> None:
        self._open.set()

    async def passing(self) -> None:
        self.passed += 1
        self.reached.set()
        await self._open.wait()


class GatedStore:
    """A ``PublicationStore`` whose answers wait at a gate: the work is done, its outcome not told yet."""

    def __init__(self, inner: PublicationStore) -> None:
        self._inner = inner
        self.appends = Gate()
        self.reads = Gate()
        self.redacts = Gate()
        self.failure: Exception | None = None
        """What reads raise instead, while it is set."""
        self.failed = asyncio.Event()
        """A read has raised it."""

    @property
    def on_commit(self) -> CommitListener:
        return self._inner.on_commit

    @on_commit.setter
    def on_commit(self, listener: CommitListener) -> None:
        self._inner.on_commit = listener

    @property
    def trouble(self) -> str:
        return self._inner.trouble

    async def open(self) -> None:
        await self._inner.open()

    async def close(self) -> None:
        await self._inner.close()

    async def append(self, request: AppendRequest) -> Appended:
        appended = await self._inner.append(request)
        await self.appends.passing()
        return appended

    async def positions(self, channels: Sequence[str]) -> dict[str, Position]:
        self._fail()
        positions = await self._inner.positions(channels)
        await self.reads.passing()
        return positions

    async def read(self, channel: str, query: ReadQuery) -> Page:
        self._fail()
        page = await self._inner.read(channel, query)
        await self.reads.passing()
        return page

    async def remove(self, channel: str) -> None:
        await self._inner.remove(channel)

    async def redact(self, channel: str, offset: int, data: bytes | None) -> bool:
        done = await self._inner.redact(channel, offset, data)
        await self.redacts.passing()
        return done

    async def prune(self, rules: Mapping[str, Retention]) -> int:
        return await self._inner.prune(rules)

    def _fail(self) -> None:
        if self.failure is not None:
            self.failed.set()
            raise self.failure


class GatedPresence:
    """A ``Presence`` whose changes wait at a gate before they are made."""

    def __init__(self, inner: Presence) -> None:
        self._inner = inner
        self.adds = Gate()
        self.removes = Gate()

    async def add(self, channel: str, info: ClientInfo) -> None:
        await self._inner.add(channel, info)
        await self.adds.passing()

    async def remove(self, channel: str, info: ClientInfo) -> None:
        await self.removes.passing()
        await self._inner.remove(channel, info)

    async def refresh(self, entries: Sequence[tuple[str, ClientInfo]]) -> None:
        await self._inner.refresh(entries)

    async def get(self, channel: str) -> dict[str, ClientInfo]:
        return await self._inner.get(channel)

    async def stats(self, channel: str) -> PresenceStats:
        return await self._inner.stats(channel)
