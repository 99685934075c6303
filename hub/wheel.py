"""A timing wheel: many coarse timers (pings, expiries, deadlines) on one timer of the event loop.

A timer of the loop per connection costs memory and a heap operation each; a slot of a wheel costs a dictionary entry.
Resolution is one tick (default 0.1 s): a callback comes at its time or up to a tick later, never earlier.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

logger = logging.getLogger("hub.wheel")

Callback = Callable[[], None]
Slots = dict[int, dict["Timer", None]]


class Timer:
    """A pending callback; ``cancel`` is safe at any time and leaves nothing behind."""

    __slots__ = ("_slot", "_slots", "callback")

    def __init__(self, callback: Callback, slots: Slots, slot: int) -> None:
        self.callback: Callback | None = callback
        self._slots = slots
        self._slot = slot

    def cancel(self) -> None:
        self.callback = None
        timers = self._slots.get(self._slot)
        if timers is not None:
            timers.pop(self, None)
            if not timers:
                del self._slots[self._slot]


class Wheel:
    """Calls back on the event loop; ``tick`` is its resolution in seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, tick: float = 0.1) -> None:
        self._loop = loop
        self._tick = tick
        self._slots: Slots = {}
        self._now = int(loop.time() / tick)
        self._handle: asyncio.TimerHandle | None = None
        self._closed = False

    def call_later(self, delay: float, callback: Callback) -> Timer:
        """Call ``callback`` after ``delay`` seconds."""
        if self._handle is None:
            self._now = int(self._loop.time() / self._tick)
        slot = max(int((self._loop.time() + delay) / self._tick) + 1, self._now + 1)
        timer = Timer(callback, self._slots, slot)
        self._slots.setdefault(slot, {})[timer] = None
        if self._handle is None and not self._closed:
            self._arm()
        return timer

    def close(self) -> None:
        """Drop all timers."""
        self._closed = True
        self._slots.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        self._handle = self._loop.call_later(self._tick, self._turn)

    def _turn(self) -> None:
        reached = int(self._loop.time() / self._tick)
        while self._now < reached:
            self._now += 1
            for timer in self._slots.pop(self._now, ()):
                callback, timer.callback = timer.callback, None
                if callback is not None:
                    try:
                        callback()
                    except Exception:
                        logger.exception("a timer failed")
        if self._slots:
            self._arm()
        else:
            self._handle = None
