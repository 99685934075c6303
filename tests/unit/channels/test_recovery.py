"""Tests of channels.recovery: what a client that comes back gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.recovery import Recovered, recover_cache, recover_stream, visible
from storage.contract import Page, Position, Publication


def page(*offsets: int, top: int, epoch: str = "a", removed: tuple[int, ...] = ()) -> Page:
    return Page([Publication(b"x", each, removed=each in removed) for each in offsets], Position(top, epoch))


def offsets(outcome: Recovered) -> list[int]:
    return [each.offset for each in outcome.publications]


class TestStream:
    @pytest.mark.parametrize("epoch", ["a", ""])
    def test_all_that_was_missed(self, epoch: str) -> None:
        outcome = recover_stream(Position(2, epoch), page(3, 4, 5, top=5), paged=False)
        assert (outcome.recovered, offsets(outcome), outcome.complete) == (True, [3, 4, 5], True)
        assert outcome.position == Position(5, "a")

    def test_nothing_was_missed(self) -> None:
        assert recover_stream(Position(5, "a"), page(top=5), paged=False) == Recovered(True, (), Position(5, "a"), True)

    @pytest.mark.parametrize(
        ("asked", "found"),
        [
            (Position(2, "b"), page(3, 4, 5, top=5)),  # another stream
            (Position(1, "a"), page(3, 4, 5, top=5)),  # 2 is no longer there
            (Position(2, "a"), page(top=5)),  # nothing is there any more
            (Position(9, "a"), page(top=5)),  # the client is ahead of the stream
            (Position(2, "a"), page(3, 5, top=5)),  # a hole
        ],
    )
    @pytest.mark.parametrize("paged", [False, True])
    def test_lost(self, asked: Position, found: Page, paged: bool) -> None:
        outcome = recover_stream(asked, found, paged=paged)
        assert outcome == Recovered(False, (), found.position, True)

    def test_a_page_that_ends_below_the_top(self) -> None:
        found = page(3, 4, top=9)
        assert not recover_stream(Position(2, "a"), found, paged=False).recovered
        outcome = recover_stream(Position(2, "a"), found, paged=True)
        assert (outcome.recovered, offsets(outcome), outcome.complete) == (True, [3, 4], False)
        assert outcome.position == Position(4, "a")

    def test_redacted_ones_count_and_are_not_sent(self) -> None:
        outcome = recover_stream(Position(2, "a"), page(3, 4, 5, top=5, removed=(3, 5)), paged=False)
        assert (outcome.recovered, offsets(outcome), outcome.position) == (True, [4], Position(5, "a"))


class TestCache:
    def test_the_newest_is_sent(self) -> None:
        outcome = recover_cache(Position(2, "a"), page(5, top=5))
        assert (outcome.recovered, offsets(outcome), outcome.position) == (True, [5], Position(5, "a"))

    def test_who_has_it_gets_nothing(self) -> None:
        assert recover_cache(Position(5, "a"), page(5, top=5)) == Recovered(True, (), Position(5, "a"), True)

    @pytest.mark.parametrize("asked", [None, Position(5, "b"), Position(5, "")])
    def test_without_exactly_that_position_it_is_sent(self, asked: Position | None) -> None:
        assert offsets(recover_cache(asked, page(5, top=5))) == [5]

    def test_it_is_gone(self) -> None:
        assert not recover_cache(Position(2, "a"), page(top=5)).recovered
        assert not recover_cache(None, page(4, top=5)).recovered

    def test_it_was_redacted(self) -> None:
        outcome = recover_cache(None, page(5, top=5, removed=(5,)))
        assert (outcome.recovered, offsets(outcome)) == (True, [])


def test_visible() -> None:
    assert [each.offset for each in visible(page(1, 2, 3, top=3, removed=(2,)).publications)] == [1, 3]


@given(
    st.integers(0, 12), st.integers(0, 12), st.integers(1, 13), st.integers(1, 20), st.sampled_from("ab"), st.booleans()
)
def test_recovered_means_that_nothing_is_missing(
    asked: int, top: int, oldest: int, limit: int, epoch: str, paged: bool
) -> None:
    kept = [each for each in range(oldest, top + 1) if each > asked][:limit]
    outcome = recover_stream(Position(asked, epoch), page(*kept, top=top), paged=paged)
    missing = list(range(asked + 1, top + 1))
    if outcome.recovered:
        assert epoch == "a"
        assert offsets(outcome) == missing[: len(outcome.publications)]
        assert outcome.position.offset == (offsets(outcome) or [asked])[-1]
        assert outcome.complete is (outcome.position.offset == top)
        assert outcome.complete or paged
    else:
        assert offsets(outcome) == []
        assert outcome.position == Position(top, "a")
        assert epoch != "a" or asked > top or missing[:1] != kept[:1] or not paged
