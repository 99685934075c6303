"""Tests of storage.trouble: what is remembered, and how little of it is logged."""

from __future__ import annotations

import logging

import pytest

from storage.trouble import QUIET, Trouble

log = logging.getLogger("test")


class Home:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.now = 5.0
        self.trouble = Trouble("a.db", "writes", log=log, clock=lambda: self.now)
        self._caplog = caplog

    def lines(self) -> list[str]:
        found = [record.getMessage() for record in self._caplog.records]
        self._caplog.clear()
        return found


@pytest.fixture
def home(caplog: pytest.LogCaptureFixture) -> Home:
    return Home(caplog)


def test_the_last_outcome_is_remembered(home: Home) -> None:
    assert home.trouble.reason == ""
    home.trouble.failed("is full")
    home.trouble.failed("is locked")
    assert home.trouble.reason == "is locked"
    home.trouble.worked()
    assert home.trouble.reason == ""


def test_one_line_a_minute_and_one_at_the_end(home: Home) -> None:
    """A full disk was filled with a line for each publication that it had no room for."""
    for _ in range(1000):
        home.trouble.failed("is full", 2)
    assert home.lines() == ["a.db is full (writes that failed: 2)"]
    home.now += QUIET
    home.trouble.failed("is full")
    assert home.lines() == ["a.db is full (writes that failed: 1999)"]
    home.trouble.failed("is full", 3)
    home.trouble.worked()
    home.trouble.worked()
    assert home.lines() == ["a.db: writes work again (3 more failed meanwhile)"]


def test_coming_and_going_is_not_told_each_time(home: Home) -> None:
    for _ in range(100):
        home.trouble.failed("is full")
        home.trouble.worked()
    assert home.lines() == ["a.db is full (writes that failed: 1)", "a.db: writes work again"]
    home.now += QUIET
    home.trouble.failed("is full")
    assert home.lines() == ["a.db is full (writes that failed: 100)"]
