"""What keeps a store from working now, and a log of it that does not fill the disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

QUIET = 60.0
"""Seconds from one line about trouble to the next."""


class Trouble:
    """The last outcome of a kind of operations (``what``, in the plural) of the store called ``name``.

    The first failure is logged, then one line in ``QUIET`` seconds with the number of those in between, and one line
    when the operations work again. ``clock`` gives seconds and never goes back.
    """

    def __init__(
        self, name: str, what: str, *, log: logging.Logger, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.reason = ""
        """Why the last one failed; empty when it did not."""
        self._name = name
        self._what = what
        self._log = log
        self._clock = clock
        self._untold = 0
        self._quiet_until = float("-inf")
        self._told = False

    def failed(self, reason: str, count: int = 1) -> None:
        """``count`` operations have failed; ``reason`` goes on from the store's name: ``cannot be written: …``."""
        self.reason = reason
        self._untold += count
        now = self._clock()
        if now >= self._quiet_until:
            self._log.error("%s %s (%s that failed: %d)", self._name, reason, self._what, self._untold)
            self._untold = 0
            self._quiet_until = now + QUIET
            self._told = True

    def worked(self) -> None:
        """One has succeeded."""
        if not self.reason:
            return
        self.reason = ""
        # If the failures were too soon after the last line to be told, so is their end; the next line counts them.
        if self._told:
            more = f" ({self._untold} more failed meanwhile)" if self._untold else ""
            self._log.warning("%s: %s work again%s", self._name, self._what, more)
            self._told = False
            self._untold = 0
