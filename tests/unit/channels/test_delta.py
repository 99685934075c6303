from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.delta import BLOCK, MAX_LOOKUPS, DeltaError, apply_delta, checksum, create_delta

# Checked against the decoder of the official JavaScript SDK.
GOLDEN = [
    (
        b'{"ticker":"BTC","price":50000.10,"volume":12345}',
        b'{"ticker":"BTC","price":50001.10,"volume":12345}',
    ),
    ("日本語のテキストはここにあります".encode(), "日本語のテキストはそこにあります".encode()),
    (b"0123456789abcdef" * 4, b"0123456789abcdef" * 5),
]


@pytest.mark.parametrize(("source", "target"), GOLDEN)
def test_small_changes_make_small_deltas(source: bytes, target: bytes) -> None:
    delta = create_delta(source, target)
    assert delta is not None
    assert len(delta) < len(target) // 2
    assert apply_delta(source, delta) == target


def test_the_format_is_fossils() -> None:
    assert [create_delta(source, target) for source, target in GOLDEN] == [
        b"l\nS@0,1:1J@T,kHLwF;",
        "l\nR@0,3:そI@U,1WB~hs;".encode(),
        b"1G\n10@0,G@0,5Ekv;",
    ]


@pytest.mark.parametrize(
    ("data", "sum32"),
    [
        (b"", 0),
        (b"\x01", 0x01000000),
        (b"\x01\x02", 0x01020000),
        (b"\x01\x02\x03", 0x01020300),
        (b"\x01\x02\x03\x04\x01", 0x02020304),
        (b"\xff" * 8, 0xFFFFFFFE),
    ],
)
def test_checksum(data: bytes, sum32: int) -> None:
    assert checksum(data) == sum32


@pytest.mark.parametrize(
    ("source", "target"),
    [(b"", b""), (b"abc", b""), (b"", b"abc"), (b"a", b"a"), (bytes(100), bytes(range(100)))],
)
def test_no_delta_where_it_would_not_be_shorter(source: bytes, target: bytes) -> None:
    assert create_delta(source, target) is None


def test_moved_parts_are_found() -> None:
    parts = [json.dumps({"id": i, "text": f"entry number {i}"}).encode() for i in range(50)]
    source, target = b",".join(parts), b",".join(reversed(parts))
    delta = create_delta(source, target)
    assert delta is not None
    assert len(delta) < len(target) * 0.8
    assert apply_delta(source, delta) == target


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # The same first bytes, the same last bytes, both: a difference by bytes would cut the characters.
        ("éé", "èè"),
        ("日", "旦"),
        ("é", "ĩ"),
        ("日", "憥"),
        ("😀é", "😁ĩ"),
    ],
)
def test_text_is_inserted_by_whole_characters(old: str, new: str) -> None:
    between = "0123456789abcdef0123456789"
    source, target = (f'{{"a":"{x}","b":"{between}","c":"{x}{x}"}}'.encode() for x in (old, new))
    delta = create_delta(source, target)
    assert delta is not None
    assert apply_delta(source, delta.decode().encode()) == target


def test_beyond_the_bound_of_lookups_the_rest_is_inserted() -> None:
    generator = random.Random(1)
    first, second = generator.randbytes(MAX_LOOKUPS), generator.randbytes(3 * BLOCK)
    source = b"<" + second + first + b">"
    target = b"[" + first + b"|" + second + b"]"
    delta = create_delta(source, target)
    assert delta is not None
    assert second in delta
    assert apply_delta(source, delta) == target


@pytest.mark.parametrize(
    "delta",
    [
        b"",
        b"3",
        b"3 abc",
        b"3\n",
        b"3\n3:ab",
        b"3\n3@0;",
        b"3\n3@0",
        b"3\n9@0,",
        b"3\n3?",
        b"2\n3@0,2qLDM0;",
        b"3\n2@0,2qLDM0;",
        b"3\n3@0,1;",
        b"3\n3@0,1XOZ0m0;",
        b"~~~~~~~~~~~~\n",
    ],
)
def test_what_is_no_delta_is_refused(delta: bytes) -> None:
    with pytest.raises(DeltaError):
        apply_delta(b"abc", delta)


def test_a_delta_for_another_source_is_refused() -> None:
    source, target = GOLDEN[0]
    delta = create_delta(source, target)
    assert delta is not None
    with pytest.raises(DeltaError, match="checksum"):
        apply_delta(source.replace(b"BTC", b"ETH"), delta)


documents = st.lists(st.sampled_from([b"a", b"bc", b"\x80", b"\xff", b"0123456789abcdef", bytes(17)]), max_size=60).map(
    b"".join
)
texts = st.lists(
    st.sampled_from(["a", "é", "è", "ĩ", "日本", "旦", "憥", "😀", "😁", "0123456789abcdef"]), max_size=60
).map("".join)


@given(documents | st.binary(max_size=100), documents | st.binary(max_size=100))
def test_any_bytes_come_back(source: bytes, target: bytes) -> None:
    delta = create_delta(source, target)
    if delta is not None:
        assert len(delta) < len(target)
        assert apply_delta(source, delta) == target


@given(texts, texts)
def test_a_delta_of_texts_is_text(source: str, target: str) -> None:
    delta = create_delta(source.encode(), target.encode())
    if delta is not None:
        as_string = delta.decode()
        assert apply_delta(source.encode(), as_string.encode()).decode() == target


@given(texts, st.integers(0, 60), st.text(max_size=5), st.integers(0, 60))
def test_an_edited_text_comes_back(source: str, at: int, inserted: str, removed: int) -> None:
    target = source[:at] + inserted + source[at + removed :]
    delta = create_delta(source.encode(), target.encode())
    if delta is not None:
        assert apply_delta(source.encode(), delta.decode().encode()).decode() == target


@given(st.binary(max_size=40), st.binary(max_size=60))
def test_any_delta_is_applied_or_refused(source: bytes, delta: bytes) -> None:
    try:
        apply_delta(source, delta)
    except DeltaError:
        pass
