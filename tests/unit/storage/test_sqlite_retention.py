from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from storage.sqlite_retention import STEP_ROWS, Span, in_steps

spans = st.lists(
    st.builds(
        lambda stream, low, count: Span(stream, low, low + count - 1),
        st.integers(1, 5),
        st.integers(1, 10_000),
        st.integers(1, 3 * STEP_ROWS),
    ),
    max_size=6,
)


@given(spans)
def test_steps_cover_the_same_offsets_in_order_and_are_full_but_the_last(spans: list[Span]) -> None:
    steps = list(in_steps(spans))
    sizes = [sum(high - low + 1 for _, low, high in step) for step in steps]
    assert all(size == STEP_ROWS for size in sizes[:-1])
    assert all(0 < size <= STEP_ROWS for size in sizes[-1:])
    cut = [(stream, offset) for step in steps for stream, low, high in step for offset in range(low, high + 1)]
    assert cut == [(stream, offset) for stream, low, high in spans for offset in range(low, high + 1)]
