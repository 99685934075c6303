"""Token buckets: how much one connection may ask for.

A bucket holds up to ``burst`` tokens and gains ``rate`` of them a second; a command takes one, a frame as many as it
has bytes. No I/O and no clock here: ``now`` is handed in, in monotonic seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

PUBLISH: Final = 0
SUBSCRIBE: Final = 1
RPC: Final = 2
HISTORY: Final = 3
OTHER: Final = 4
BYTES: Final = 5

KINDS: Final = ("publish", "subscribe", "rpc", "history", "other", "bytes")
"""The names of the kinds, by number; also the names of their settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A steady rate with a burst. Raises ValueError for values that cannot work."""

    rate: float
    """Units per second that are allowed for good; 0: unlimited."""
    burst: int
    """Units that may come at once after a quiet time; at least 1 unless the rate is 0."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.rate) or self.rate < 0:
            raise ValueError("rate has to be 0 (unlimited) or a positive number of units per second")
        if self.rate and self.burst < 1:
            raise ValueError("burst has to be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitSettings:
    """``rate_limit.*``: what one connection may do; the excess is answered with error 111."""

    publish: Rate = Rate(rate=100, burst=200)
    """Publish commands."""
    subscribe: Rate = Rate(rate=100, burst=512)
    """Subscribe, unsubscribe and sub_refresh commands."""
    rpc: Rate = Rate(rate=100, burst=200)
    """Rpc and send commands."""
    history: Rate = Rate(rate=100, burst=200)
    """History, presence and presence_stats commands."""
    other: Rate = Rate(rate=50, burst=200)
    """All other commands."""
    bytes: Rate = Rate(rate=1024 * 1024, burst=4 * 1024 * 1024)
    """Bytes received, in frames of any kind."""
    max_violations: int = 100
    """Refused commands after which the client is disconnected (3013); 0: never."""
    violation_window: timedelta = timedelta(seconds=10)
    """Violations are forgotten after this long without a new one."""

    def __post_init__(self) -> None:
        if self.max_violations < 0:
            raise ValueError("max_violations has to be 0 (never disconnect) or more")
        if self.violation_window.total_seconds() <= 0:
            raise ValueError("violation_window has to be more than 0s")


class TokenBucket:
    """The state of one limit: full at first."""

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._tokens = float(rate.burst)
        self._at = now

    def take(self, now: float, cost: float = 1.0) -> bool:
        """Take ``cost`` tokens and return True, or take none and return False.

        What costs more than the whole burst passes when the bucket is full, and leaves a debt.
        """
        limit = self._rate
        if not limit.rate:
            return True
        elapsed = now - self._at
        if elapsed > 0:
            self._at = now
            self._tokens = min(self._tokens + elapsed * limit.rate, float(limit.burst))
        if self._tokens < min(cost, limit.burst):
            return False
        self._tokens -= cost
        return True


class ConnectionLimiter:
    """The limits of one connection. Buckets are made at their first use: an idle connection has none."""

    __slots__ = ("_buckets", "_settings", "_violated_at", "_violations")

    def __init__(self, settings: RateLimitSettings) -> None:
        self._settings = settings
        self._buckets: list[TokenBucket | None] | None = None
        self._violations = 0
        self._violated_at = 0.0

    def allow(self, kind: int, now: float) -> bool:
        """Tell whether a command of this kind (PUBLISH to OTHER) is within its limit, and count it."""
        return self._take(kind, now, 1.0)

    def allow_bytes(self, count: int, now: float) -> bool:
        """Tell whether ``count`` more received bytes are within the limit, and count them."""
        return self._take(BYTES, now, float(count))

    def violated(self, now: float) -> bool:
        """Count a refusal; True when the client has had its last and is to be disconnected (3013)."""
        settings = self._settings
        if now - self._violated_at > settings.violation_window.total_seconds():
            self._violations = 0
        self._violations += 1
        self._violated_at = now
        return 0 < settings.max_violations <= self._violations

    def _take(self, kind: int, now: float, cost: float) -> bool:
        buckets = self._buckets
        if buckets is None:
            buckets = self._buckets = [None] * len(KINDS)
        bucket = buckets[kind]
        if bucket is None:
            rate: Rate = getattr(self._settings, KINDS[kind])
            bucket = buckets[kind] = TokenBucket(rate, now)
        return bucket.take(now, cost)
