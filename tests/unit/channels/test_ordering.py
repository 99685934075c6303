"""Tests of channels.ordering: strict order out of whatever comes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels import ordering as module
from channels.ordering import Ordering
from storage.contract import Position, Publication


def publications(*offsets: int, removed: Sequence[int] = ()) -> list[Publication]:
    return [Publication(b"%d" % each, each, removed=each in removed) for each in offsets]


def offsets(taken: Sequence[Publication]) -> list[int]:
    return [each.offset for each in taken]


@pytest.fixture
def ordering() -> Ordering:
    found = Ordering()
    assert found.open(Position(5, "a")) == []
    return found


class TestOpening:
    def test_everything_is_held_until_the_top_is_known(self) -> None:
        ordering = Ordering()
        assert ordering.take(publications(4, 5, 6, 7), "a") == []
        assert offsets(ordering.open(Position(5, "a"))) == [6, 7]
        assert ordering.position == Position(7, "a")
        assert not ordering.repair_due

    def test_a_gap_above_the_top_is_due_for_repair(self) -> None:
        ordering = Ordering()
        ordering.take(publications(7), "a")
        assert ordering.open(Position(5, "a")) == []
        assert ordering.repair_due
        assert ordering.position == Position(5, "a")

    def test_what_has_no_offset_does_not_wait(self) -> None:
        ordering = Ordering()
        assert offsets(ordering.take(publications(0, 6, 0), "a")) == [0, 0]


class TestTaking:
    def test_in_order_is_taken(self, ordering: Ordering) -> None:
        assert offsets(ordering.take(publications(6, 7), "a")) == [6, 7]
        assert offsets(ordering.take(publications(8), "a")) == [8]

    def test_what_was_seen_is_dropped(self, ordering: Ordering) -> None:
        assert ordering.take(publications(3, 4, 5), "a") == []
        assert offsets(ordering.take(publications(5, 6, 6, 7), "a")) == [6, 7]
        assert not ordering.repair_due

    def test_a_gap_holds_what_is_behind_it(self, ordering: Ordering) -> None:
        assert offsets(ordering.take(publications(6, 8, 9), "a")) == [6]
        assert ordering.repair_due
        assert ordering.take(publications(10), "a") == []

    def test_without_an_offset_is_delivered_even_then(self, ordering: Ordering) -> None:
        ordering.take(publications(8), "a")
        assert offsets(ordering.take(publications(0), "a")) == [0]

    def test_another_epoch_is_held(self, ordering: Ordering) -> None:
        assert ordering.take(publications(6), "b") == []
        assert ordering.repair_due
        assert ordering.position == Position(5, "a")


class TestRepairing:
    def test_history_fills_the_gap(self, ordering: Ordering) -> None:
        ordering.take(publications(8, 9), "a")
        assert offsets(ordering.advance(publications(6, 7, 8))) == [6, 7, 8]
        assert offsets(ordering.release()) == [9]
        assert not ordering.repair_due

    def test_redacted_ones_only_move_the_position(self, ordering: Ordering) -> None:
        assert offsets(ordering.advance(publications(6, 7, 8, removed=[7]))) == [6, 8]
        assert ordering.position == Position(8, "a")

    def test_history_that_begins_below_is_not_taken_twice(self, ordering: Ordering) -> None:
        assert offsets(ordering.advance(publications(4, 5, 6))) == [6]

    def test_a_further_gap_is_a_further_repair(self, ordering: Ordering) -> None:
        ordering.take(publications(7, 9), "a")
        ordering.advance(publications(6))
        assert offsets(ordering.release()) == [7]
        assert ordering.repair_due

    def test_a_restart_goes_on_with_what_is_held(self, ordering: Ordering) -> None:
        ordering.take(publications(20, 21), "a")
        ordering.restart(Position(21, "a"))
        assert offsets(ordering.release()) == [20, 21]
        assert ordering.position == Position(21, "a")

    def test_a_restart_into_another_epoch(self, ordering: Ordering) -> None:
        ordering.take(publications(1, 2), "b")
        ordering.restart(Position(2, "b"))
        assert offsets(ordering.release()) == [1, 2]
        assert ordering.position == Position(2, "b")

    def test_a_restart_with_nothing_held_goes_on_from_the_top(self, ordering: Ordering) -> None:
        ordering.restart(Position(2, "b"))
        assert ordering.release() == []
        assert ordering.position == Position(2, "b")

    def test_more_than_can_be_held_is_read_from_history(
        self, ordering: Ordering, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "HELD_MAX", 2)
        ordering.take(publications(7, 8, 9, 10), "a")
        ordering.advance(publications(6))
        assert offsets(ordering.release()) == [7, 8]
        assert ordering.repair_due, "9 and 10 were not held"
        ordering.advance(publications(9, 10))
        assert ordering.release() == []
        assert not ordering.repair_due


class TestForgetting:
    def test_what_history_read_later_does_not_have_is_forgotten(self, ordering: Ordering) -> None:
        """A late message of a stream that had ended arrived after the new one had begun.

        It was held as the sign of yet another epoch; each repair found all well, released it, and found it again.
        """
        ordering.take(publications(9), "old")
        ordering.forget(ordering.mark)
        assert ordering.release() == []
        assert not ordering.repair_due
        assert offsets(ordering.take(publications(6), "a")) == [6]

    def test_what_came_after_the_mark_stays(self, ordering: Ordering) -> None:
        ordering.take(publications(9), "a")
        mark = ordering.mark
        ordering.take(publications(10), "a")
        ordering.forget(mark)
        assert ordering.release() == []
        assert ordering.repair_due
        ordering.advance(publications(6, 7, 8, 9))
        assert offsets(ordering.release()) == [10]

    def test_the_mark_holds_when_another_epoch_came_meanwhile(self, ordering: Ordering) -> None:
        ordering.take(publications(9, 10), "old")
        mark = ordering.mark
        ordering.take(publications(1), "new")
        ordering.forget(mark)
        ordering.restart(Position(1, "new"))
        assert offsets(ordering.release()) == [1]


@given(
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from("aab")), max_size=40),
    st.integers(0, 4),
)
def test_taken_is_always_the_next(arrivals: list[tuple[int, str]], start: int) -> None:
    """Whatever arrives: what is taken follows the position without a gap, and a repair leads to an end."""
    ordering = Ordering()
    ordering.open(Position(start, "a"))
    seen = [start]
    for offset, epoch in arrivals:
        seen += offsets(ordering.take(publications(offset), epoch))
        if ordering.repair_due:
            # History is at 12, and was read after the publication was held.
            mark = ordering.mark
            seen += offsets(ordering.advance(publications(*range(seen[-1] + 1, 13))))
            ordering.forget(mark)
            assert ordering.release() == []
            assert not ordering.repair_due
    assert seen == list(range(start, seen[-1] + 1))
