"""A node for each test, with real parts; see ``tests.support.inprocess``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import hub.catchup
import hub.repair
from tests.support.inprocess import InProcessHub, running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts are not what these tests are about."""
    monkeypatch.setattr(hub.repair, "RETRY", 0.005)
    monkeypatch.setattr(hub.repair, "GRACE", 0.0)
    monkeypatch.setattr(hub.catchup, "RETRY", 0.005)


@pytest.fixture
async def node_hub(tmp_path: Path) -> AsyncIterator[InProcessHub]:
    async with running(tmp_path) as found:
        yield found
