"""The homes of the store contract. A new one joins by a class like ``SQLiteHome`` in ``HOMES``, the suite stays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio

from storage.contract import PublicationStore
from storage.sqlite import SQLiteStore


class Clock:
    """Seconds since the Unix epoch, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Home(Protocol):
    """One place for streams: each ``make`` gives a store on the same streams, as after a restart."""

    def __init__(self, folder: Path) -> None: ...

    def make(self, **options: Any) -> PublicationStore: ...


class SQLiteHome:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "hub.db"

    def make(self, **options: Any) -> SQLiteStore:
        return SQLiteStore(self.path, **options)


HOMES: list[type[Home]] = [SQLiteHome]


@pytest.fixture(scope="module", params=HOMES, ids=lambda home: home.__name__)
def home_type(request: pytest.FixtureRequest) -> Callable[[Path], Home]:
    return request.param


@pytest.fixture
def home(home_type: Callable[[Path], Home], tmp_path: Path) -> Home:
    return home_type(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def store(home: Home, clock: Clock) -> AsyncIterator[PublicationStore]:
    store = home.make(clock=clock)
    await store.open()
    yield store
    await store.close()
