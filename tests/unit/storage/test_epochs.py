from __future__ import annotations

import re

import pytest

from storage.epochs import SECRET_SIZE, EpochNames

SECRET = b"0123456789abcdef"


def test_an_epoch_depends_on_secret_channel_and_generation_only() -> None:
    names = EpochNames(SECRET)
    assert names.of("news") == names.of("news", 0) == EpochNames(SECRET).of("news")
    others = [
        names.of("news", 1),
        names.of("news", 2**64 - 1),
        names.of("New"),
        EpochNames(b"x" * SECRET_SIZE).of("news"),
    ]
    assert len({names.of("news"), *others}) == 5


def test_it_stays_the_same_in_every_version_of_the_program() -> None:
    """Databases keep the secret: another way of deriving would rename streams that clients were told of."""
    assert [EpochNames(SECRET).of("news", generation) for generation in (0, 1)] == ["LJZYSoeK", "cruC94EX"]


def test_many_channels_and_generations_are_apart_in_the_alphabet_of_urls() -> None:
    names = EpochNames(SECRET)
    made = {names.of(f"c{number}", generation) for number in range(2000) for generation in range(5)}
    assert len(made) == 10_000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{8}", epoch) for epoch in made)


def test_any_text_is_a_channel() -> None:
    names = EpochNames(SECRET)
    assert len({names.of(channel) for channel in ("", "\0", "\0\0", "e\u0301", "\u00e9", "\ud800", "x" * 100_000)}) == 7


@pytest.mark.parametrize("size", [0, 15, 65])
def test_a_secret_is_neither_short_nor_too_long(size: int) -> None:
    with pytest.raises(ValueError, match="16 to 64 bytes"):
        EpochNames(b"x" * size)
