"""Presence: which sessions are subscribed to a channel right now, on all nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from storage.contract import ClientInfo


class PresenceStats(NamedTuple):
    """How many sessions, and how many different users, are present."""

    num_clients: int
    num_users: int


class Presence(Protocol):
    """Keeps the present sessions of channels. An entry that is not refreshed within its time to live expires."""

    async def add(self, channel: str, info: ClientInfo) -> None:
        """Add or refresh an entry; when it returns, ``get`` and ``stats`` include it."""

    async def remove(self, channel: str, info: ClientInfo) -> None:
        """Remove an entry; when it returns, ``get`` and ``stats`` no longer include it."""

    async def refresh(self, entries: Sequence[tuple[str, ClientInfo]]) -> None:
        """Refresh many (channel, info) entries at once; called every ``client.presence_update_interval``."""

    async def get(self, channel: str) -> dict[str, ClientInfo]:
        """All entries by client id."""

    async def stats(self, channel: str) -> PresenceStats: ...
