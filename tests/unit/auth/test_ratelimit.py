from __future__ import annotations

import sys
from dataclasses import fields
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.ratelimit import (
    BYTES,
    HISTORY,
    KINDS,
    OTHER,
    PUBLISH,
    RPC,
    SUBSCRIBE,
    ConnectionLimiter,
    Rate,
    RateLimitSettings,
    TokenBucket,
)


def test_a_bucket_gives_its_burst_and_then_its_rate():
    bucket = TokenBucket(Rate(rate=10, burst=3), now=100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(100.05)
    assert bucket.take(100.11)
    assert not bucket.take(100.11)


def test_a_bucket_never_holds_more_than_its_burst():
    bucket = TokenBucket(Rate(rate=10, burst=3), now=0.0)
    assert [bucket.take(1e6) for _ in range(4)] == [True, True, True, False]


def test_rate_zero_is_unlimited():
    bucket = TokenBucket(Rate(rate=0, burst=0), now=0.0)
    assert all(bucket.take(0.0, cost=1e9) for _ in range(1000))


def test_a_refused_cost_takes_nothing():
    bucket = TokenBucket(Rate(rate=1, burst=10), now=0.0)
    assert bucket.take(0.0, cost=8)
    assert not bucket.take(0.0, cost=3)
    assert bucket.take(0.0, cost=2)


def test_what_is_larger_than_the_burst_passes_a_full_bucket_and_leaves_a_debt():
    bucket = TokenBucket(Rate(rate=10, burst=10), now=0.0)
    assert bucket.take(0.0, cost=50)
    assert not bucket.take(4.0)
    assert bucket.take(4.2)


def test_a_clock_that_goes_back_neither_gives_nor_takes():
    bucket = TokenBucket(Rate(rate=10, burst=2), now=100.0)
    assert bucket.take(50.0)
    assert bucket.take(50.0)
    assert not bucket.take(50.0)
    assert not bucket.take(100.0)
    assert bucket.take(100.2)


@given(
    st.floats(0.1, 1000),
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50)), max_size=60),
)
def test_never_more_than_rate_times_time_plus_burst(rate: float, burst: int, steps: list[tuple[float, int]]):
    bucket, now, taken = TokenBucket(Rate(rate=rate, burst=burst), now=0.0), 0.0, 0
    largest = 0
    for wait, cost in steps:
        now += wait
        largest = max(largest, cost)
        if bucket.take(now, cost=cost):
            taken += cost
    assert taken <= (rate * now + burst) * 1.000001 + max(0, largest - burst)


@pytest.mark.parametrize(
    "values", [{"rate": -1, "burst": 1}, {"rate": 1, "burst": 0}, {"rate": float("nan"), "burst": 1}]
)
def test_rates_that_cannot_work_are_refused(values: dict[str, float]):
    with pytest.raises(ValueError, match="has to be"):
        Rate(**values)


@pytest.mark.parametrize("values", [{"max_violations": -1}, {"violation_window": timedelta(0)}])
def test_settings_that_cannot_work_are_refused(values: dict[str, object]):
    with pytest.raises(ValueError, match="has to be"):
        RateLimitSettings(**values)


def test_every_kind_has_its_setting():
    rates = {field.name for field in fields(RateLimitSettings) if isinstance(field.default, Rate)}
    assert rates == set(KINDS)
    assert tuple(range(len(KINDS))) == (PUBLISH, SUBSCRIBE, RPC, HISTORY, OTHER, BYTES)


def test_the_kinds_of_a_connection_do_not_disturb_each_other():
    limiter = ConnectionLimiter(RateLimitSettings(publish=Rate(rate=1, burst=2), bytes=Rate(rate=10, burst=100)))
    assert [limiter.allow(PUBLISH, 0.0) for _ in range(3)] == [True, True, False]
    assert limiter.allow(SUBSCRIBE, 0.0)
    assert limiter.allow_bytes(100, 0.0)
    assert not limiter.allow_bytes(1, 0.0)
    assert limiter.allow_bytes(1, 1.0)


def test_disconnected_after_too_many_violations():
    limiter = ConnectionLimiter(RateLimitSettings(max_violations=3))
    assert [limiter.violated(float(at)) for at in range(3)] == [False, False, True]


def test_violations_are_forgotten_after_a_quiet_time():
    limiter = ConnectionLimiter(RateLimitSettings(max_violations=3, violation_window=timedelta(seconds=10)))
    assert not limiter.violated(100.0)
    assert not limiter.violated(105.0)
    assert not limiter.violated(115.1)
    assert not limiter.violated(125.0)
    assert limiter.violated(126.0)


def test_never_disconnected_when_told_so():
    limiter = ConnectionLimiter(RateLimitSettings(max_violations=0))
    assert not any(limiter.violated(0.0) for _ in range(1000))


def test_an_idle_connection_has_no_buckets():
    limiter = ConnectionLimiter(RateLimitSettings())
    assert sys.getsizeof(limiter) < 200
    assert limiter._buckets is None
