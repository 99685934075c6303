"""Tests of hub.wheel: never early, hardly late, and nothing left of what was cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.wheel import Wheel
from tests.support.inprocess import ManualLoop


@pytest.fixture
def loop() -> Iterator[ManualLoop]:
    real = asyncio.new_event_loop()
    yield ManualLoop(real)
    real.close()


@pytest.fixture
def wheel(loop: ManualLoop) -> Wheel:
    return Wheel(cast("asyncio.AbstractEventLoop", loop))


def test_in_order_of_time(loop: ManualLoop, wheel: Wheel) -> None:
    called: list[int] = []
    for delay in (3, 1, 2):
        wheel.call_later(delay, lambda delay=delay: called.append(delay))  # type: ignore[misc]
    loop.advance(5)
    assert called == [1, 2, 3]


@given(st.lists(st.floats(0, 50), min_size=1, max_size=20), st.floats(0, 0.1))
def test_never_early_and_at_most_two_ticks_late(delays: list[float], pause: float) -> None:
    real = asyncio.new_event_loop()
    loop = ManualLoop(real)
    wheel = Wheel(cast("asyncio.AbstractEventLoop", loop))
    late: list[float] = []
    for delay in delays:
        due = loop.time() + delay
        wheel.call_later(delay, lambda due=due: late.append(loop.time() - due))  # type: ignore[misc]
        loop.advance(pause)
    loop.advance(60)
    real.close()
    assert len(late) == len(delays)
    assert all(-1e-6 <= each < 0.31 for each in late)


def test_cancelled_ones_leave_nothing(loop: ManualLoop, wheel: Wheel) -> None:
    called: list[int] = []
    first, second = (wheel.call_later(1, lambda: called.append(1)) for _ in range(2))
    first.cancel()
    first.cancel()
    loop.advance(2)
    assert called == [1]
    second.cancel()
    assert not wheel._slots


def test_one_that_cancels_another_of_the_same_moment(loop: ManualLoop, wheel: Wheel) -> None:
    called: list[str] = []

    def first() -> None:
        called.append("a")
        second.cancel()

    wheel.call_later(1, first)
    second = wheel.call_later(1, lambda: called.append("b"))
    loop.advance(2)
    assert called == ["a"]


def test_one_that_sets_another(loop: ManualLoop, wheel: Wheel) -> None:
    called: list[float] = []

    def again() -> None:
        called.append(loop.time())
        if len(called) < 4:
            wheel.call_later(0, again)

    wheel.call_later(0, again)
    loop.advance(2)
    assert len(called) == 4


def test_a_failure_does_not_stop_the_others(loop: ManualLoop, wheel: Wheel, caplog: pytest.LogCaptureFixture) -> None:
    called: list[int] = []
    wheel.call_later(1, lambda: called.append(1 // 0))
    wheel.call_later(1, lambda: called.append(2))
    wheel.call_later(2, lambda: called.append(3))
    loop.advance(3)
    assert called == [2, 3]
    assert "a timer failed" in caplog.text


def test_it_rests_when_there_is_nothing_to_do(loop: ManualLoop, wheel: Wheel) -> None:
    called: list[int] = []
    wheel.call_later(0.5, lambda: called.append(1))
    loop.advance(1000)
    assert wheel._handle is None
    wheel.call_later(0.5, lambda: called.append(2))
    loop.advance(0.8)
    assert called == [1, 2], "and does not go through the time in between"


def test_closed(loop: ManualLoop, wheel: Wheel) -> None:
    called: list[int] = []
    timer = wheel.call_later(1, lambda: called.append(1))
    wheel.close()
    timer.cancel()
    wheel.call_later(1, lambda: called.append(2))
    loop.advance(5)
    assert called == []
