"""A subscriber that behaves as the SDKs do when the hub goes away: it comes back and recovers from its last position.

Small enough to run fifty of in one process, and unlike an SDK it keeps every publication's position for the reckoning.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults.wire import Closed, HandshakeRefused, Hang, Wire

RESUBSCRIBE_FROM = 2500


@dataclass(slots=True)
class Stream:
    """What a subscriber knows of one channel: its position and everything delivered, in the order it came."""

    channel: str
    offset: int = 0
    epoch: str = ""
    subscribed: bool = False
    started: bool = False
    delivered: list[tuple[int, str]] = field(default_factory=list)
    """(offset, id of the publication's payload)."""
    surprises: list[str] = field(default_factory=list)
    """What must never happen: recovery refused, another epoch."""

    def take(self, publication: dict[str, Any]) -> None:
        """Note one delivered publication and move the position, as an SDK does."""
        self.delivered.append((publication.get("offset", 0), publication["data"]["id"]))
        self.offset = publication.get("offset", self.offset)

    def subscribed_with(self, result: dict[str, Any], *, recovering: bool) -> None:
        """Adopt a subscribe result."""
        if recovering and not result.get("recovered"):
            self.surprises.append(f"recovery from {self.offset} refused: {result}")
        if self.epoch and result.get("epoch") != self.epoch:
            self.surprises.append(f"epoch {self.epoch} became {result.get('epoch')}")
        self.epoch = result.get("epoch", "")
        if not recovering:
            self.offset = result.get("offset", 0)
        for publication in result.get("publications", ()):
            self.take(publication)
        self.subscribed = self.started = True


class Subscriber:
    """Keeps one connection to the hub until ``stop``, with back-off as the SDKs have it but shorter."""

    def __init__(self, port: int, token: str, channels: Sequence[str], chance: random.Random) -> None:
        self.port = port
        self.token = token
        self.streams = {channel: Stream(channel) for channel in channels}
        self.reconnects = 0
        self.failures: list[str] = []
        self._chance = chance
        self._asked: dict[int, tuple[Stream, bool]] = {}
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for task in self._background:
            task.cancel()
        if self._wire is not None:
            self._wire.drop()

    @property
    def settled(self) -> bool:
        """All subscriptions are established at this moment."""
        return all(stream.subscribed for stream in self.streams.values())

    async def _run(self) -> None:
        attempt = 0
        while True:
            try:
                await self._live()
            except (Closed, HandshakeRefused, OSError) as error:
                code = getattr(error, "code", 0)
                if 3500 <= code <= 3999:
                    self.failures.append(f"closed for good: {error}")
                    return
            except Hang:
                pass
            except Exception as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                return
            attempt = 0 if self.settled else attempt + 1
            self.reconnects += 1
            for stream in self.streams.values():
                stream.subscribed = False
            self._asked.clear()
            await asyncio.sleep(self._chance.uniform(0.02, min(0.05 * 2**attempt, 0.5)))

    async def _live(self) -> None:
        wire = self._wire = await Wire.open(self.port)
        try:
            reply = await wire.call(connect={"token": self.token, "name": "raw"})
            if "connect" not in reply:
                raise Closed(1006, f"connect refused: {reply}")
            for stream in self.streams.values():
                self._subscribe(wire, stream)
            while True:
                self._take(wire, json.loads(await wire.line(within=60.0)))
        finally:
            wire.drop()

    def _subscribe(self, wire: Wire, stream: Stream) -> None:
        request: dict[str, Any] = {"channel": stream.channel, "flag": 1}
        if stream.started:
            request |= {"recover": True, "offset": stream.offset, "epoch": stream.epoch}
        self._asked[wire.command(subscribe=request)] = (stream, stream.started)

    def _take(self, wire: Wire, message: dict[str, Any]) -> None:
        if "push" in message:
            push = message["push"]
            stream = self.streams[push["channel"]]
            if "pub" in push:
                stream.take(push["pub"])
            elif "unsubscribe" in push:
                stream.subscribed = False
                if push["unsubscribe"]["code"] < RESUBSCRIBE_FROM:
                    raise AssertionError(f"unsubscribed for good: {push}")
                self._subscribe(wire, stream)
            return
        stream, recovering = self._asked.pop(message["id"])
        if "subscribe" in message:
            stream.subscribed_with(message["subscribe"], recovering=recovering)
            return
        error = message["error"]
        if not error.get("temporary"):
            raise AssertionError(f"subscribe refused: {error}")
        task = asyncio.create_task(self._subscribe_later(wire, stream))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _subscribe_later(self, wire: Wire, stream: Stream) -> None:
        await asyncio.sleep(self._chance.uniform(0.05, 0.2))
        self._subscribe(wire, stream)
