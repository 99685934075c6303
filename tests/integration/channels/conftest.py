"""The homes of the broker and of presence; every test of the contracts runs against each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest

from channels.broker import Broker
from channels.broker_memory import MemoryBroker
from channels.presence import Presence
from channels.presence_memory import MemoryPresence
from storage.contract import ClientInfo, Publication


@dataclass
class Events:
    """Records what a broker tells, for tests to wait for."""

    publications: list[tuple[str, Publication, str]] = field(default_factory=list)
    joins: list[tuple[str, ClientInfo]] = field(default_factory=list)
    leaves: list[tuple[str, ClientInfo]] = field(default_factory=list)
    control: list[bytes] = field(default_factory=list)
    _happened: asyncio.Event = field(default_factory=asyncio.Event)

    def on_publications(self, channel: str, publications: Sequence[Publication], epoch: str) -> None:
        self.publications.extend((channel, each, epoch) for each in publications)
        self._happened.set()

    def on_join(self, channel: str, info: ClientInfo) -> None:
        self.joins.append((channel, info))
        self._happened.set()

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        self.leaves.append((channel, info))
        self._happened.set()

    def on_control(self, message: bytes) -> None:
        self.control.append(message)
        self._happened.set()

    def on_doubt(self, channels: Sequence[str] | None) -> None:
        self._happened.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._happened.clear()
                await self._happened.wait()

    async def data(self, channel: str, count: int) -> list[bytes]:
        """The payloads of the first ``count`` publications that arrive on ``channel``."""
        await self.until(lambda: sum(name == channel for name, _, _ in self.publications) >= count)
        return [publication.data for name, publication, _ in self.publications if name == channel]


@dataclass
class Clock:
    """Seconds that pass only when told."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    async def passes(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class BrokerHome:
    broker: Broker
    events: Events
    passes: Callable[[float], Awaitable[None]]
    """Let seconds pass for the home; a test asks for few, since a real server really takes them."""


@dataclass
class PresenceHome:
    presence: Presence
    ttl: float
    passes: Callable[[float], Awaitable[None]]


@pytest.fixture(params=["memory"])
async def broker_home(request: pytest.FixtureRequest) -> AsyncIterator[BrokerHome]:
    assert request.param == "memory"
    clock = Clock()
    home = BrokerHome(MemoryBroker(clock=clock), Events(), clock.passes)
    await home.broker.open(home.events)
    yield home
    await home.broker.close()


@pytest.fixture(params=["memory"])
async def presence_home(request: pytest.FixtureRequest) -> PresenceHome:
    assert request.param == "memory"
    clock = Clock()
    return PresenceHome(MemoryPresence(ttl=1.0, clock=clock), 1.0, clock.passes)
