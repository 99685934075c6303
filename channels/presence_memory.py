"""Presence of a single process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from channels.presence import PresenceStats
from storage.contract import ClientInfo


class _Room:
    """Who is present in one channel. ``clients`` is in the order of the last refresh, hence in that of ending."""

    __slots__ = ("clients", "users")

    def __init__(self) -> None:
        self.clients: dict[str, tuple[float, ClientInfo]] = {}
        self.users: dict[str, int] = {}
        """How many sessions each user has here, so that statistics need no counting."""

    def add(self, info: ClientInfo, ends: float) -> None:
        self.remove(info.client)
        self.clients[info.client] = (ends, info)
        self.users[info.user] = self.users.get(info.user, 0) + 1

    def remove(self, client: str) -> None:
        entry = self.clients.pop(client, None)
        if entry is not None:
            user = entry[1].user
            left = self.users[user] - 1
            if left:
                self.users[user] = left
            else:
                del self.users[user]

    def expire(self, now: float) -> None:
        ended = []
        for client, (ends, _) in self.clients.items():
            if ends > now:
                break
            ended.append(client)
        for client in ended:
            self.remove(client)


class MemoryPresence:
    """A ``Presence`` within the process. An entry lasts ``ttl`` seconds by ``clock`` after it was added or refreshed.

    There is no bound of its own: entries are made by subscriptions, which are bounded per session.
    """

    def __init__(self, *, ttl: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._clock = clock
        self._rooms: dict[str, _Room] = {}
        self._unchecked: list[str] = []

    async def add(self, channel: str, info: ClientInfo) -> None:
        self._add(channel, info, self._clock() + self._ttl)

    async def remove(self, channel: str, info: ClientInfo) -> None:
        if (room := self._rooms.get(channel)) is not None:
            room.remove(info.client)
            if not room.clients:
                del self._rooms[channel]

    async def refresh(self, entries: Sequence[tuple[str, ClientInfo]]) -> None:
        ends = self._clock() + self._ttl
        for channel, info in entries:
            self._add(channel, info, ends)

    async def get(self, channel: str) -> dict[str, ClientInfo]:
        room = self._current(channel)
        return {client: info for client, (_, info) in room.clients.items()} if room is not None else {}

    async def stats(self, channel: str) -> PresenceStats:
        room = self._current(channel)
        return PresenceStats(len(room.clients), len(room.users)) if room is not None else PresenceStats(0, 0)

    def expire(self, now: float | None = None, *, limit: int = 10_000) -> None:
        """Free what has ended by ``now`` (default: the clock) in the next ``limit`` channels of the round."""
        if now is None:
            now = self._clock()
        if not self._unchecked:
            self._unchecked = list(self._rooms)
        for channel in self._unchecked[-limit:]:
            self._current(channel, now)
        del self._unchecked[-limit:]

    def _add(self, channel: str, info: ClientInfo, ends: float) -> None:
        room = self._rooms.get(channel)
        if room is None:
            room = self._rooms[channel] = _Room()
        room.add(info, ends)

    def _current(self, channel: str, now: float | None = None) -> _Room | None:
        room = self._rooms.get(channel)
        if room is None:
            return None
        room.expire(self._clock() if now is None else now)
        if not room.clients:
            del self._rooms[channel]
            return None
        return room
