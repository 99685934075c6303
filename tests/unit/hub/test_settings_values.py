from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.secret import Secret
from hub.settings_values import (
    Between,
    Wrong,
    collect,
    convert,
    element_type,
    format_duration,
    is_secret,
    parse_duration,
    show,
    show_scheme,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("300s", 300),
        ("5m", 300),
        ("24h", 86400),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("0s", 0),
        ("1.5s", 1.5),
        ("2d", 172800),
        ("1h1m1s1ms", 3661.001),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "5x", "5s5", "five", "1e3s", "5S", "s5", "5..5s", "٣s"])
def test_what_is_no_duration_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(Wrong, match="duration with a unit"):
        parse_duration(text)


def test_a_number_without_unit_gets_the_likeliest_unit_as_an_example() -> None:
    with pytest.raises(Wrong, match='"300s"'):
        parse_duration("300")
    with pytest.raises(Wrong, match='"300s"'):
        convert(timedelta, 300, text=False)


def test_durations_longer_than_a_century_are_refused() -> None:
    with pytest.raises(Wrong, match="36500d"):
        parse_duration("9999999999999h")


@given(st.integers(0, 36500 * 86_400_000))
def test_a_formatted_duration_is_read_back(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("YES", True), ("off", False), ("0", False)])
def test_booleans_of_variables(text: str, value: bool) -> None:
    assert convert(bool, text, text=True) is value


@pytest.mark.parametrize(
    ("hint", "value", "text", "made"),
    [
        (int, 5, False, 5),
        (int, "5", True, 5),
        (int, " -5 ", True, -5),
        (float, 2, False, 2.0),
        (float, "2.5", True, 2.5),
        (str, "a b", False, "a b"),
        (Path, "x/y", False, Path("x/y")),
        (Secret, "s", False, Secret("s")),
        (int | None, None, False, None),
        (int | None, 3, False, 3),
        (Literal["a", "b"], "b", False, "b"),
        (Annotated[int, Between(1, 3)], 3, False, 3),
        (re.Pattern[str], "a+", False, re.compile("a+")),
    ],
)
def test_values_of_the_right_type(hint: Any, value: object, text: bool, made: object) -> None:
    assert convert(hint, value, text=text) == made


@pytest.mark.parametrize(
    ("hint", "value", "text", "right"),
    [
        (bool, "true", False, "true or false"),
        (bool, 1, False, "true or false"),
        (bool, "maybe", True, "true or false"),
        (int, True, False, "whole number"),
        (int, 1.0, False, "whole number"),
        (int, "5", False, "whole number"),
        (int, "5.0", True, "whole number"),
        (int, "0x10", True, "whole number"),
        (int, "9" * 5000, True, "whole number"),
        (int, 2**63, False, "64 bits"),
        (int, "9" * 30, True, "64 bits"),
        (float, 10**400, False, "a number"),
        (timedelta, 10**400, False, "a duration"),
        (timedelta, float("nan"), False, "a duration"),
        (float, "nan", True, "a number"),
        (float, float("inf"), False, "a number"),
        (float, "x", True, "a number"),
        (str, 5, False, "text"),
        (str, "a\x00b", False, "NUL"),
        (str, None, False, "null"),
        (Secret, ["a"], False, "text"),
        (Path, "", False, "path"),
        (re.Pattern[str], "(", False, "regular expression"),
        (Literal["a", "b"], "c", False, '"a" or "b"'),
        (Literal["a", "b"], ["a"], False, '"a" or "b"'),
        (Annotated[int, Between(1, 3)], 4, False, "from 1 to 3"),
        (Annotated[int, Between(1, None)], 0, False, "1 or more"),
        (Annotated[int, Between(None, 3)], 4, False, "3 or less"),
        (Annotated[timedelta, Between(timedelta(seconds=1), None)], "5ms", False, "1s or more"),
    ],
)
def test_values_of_the_wrong_type(hint: Any, value: object, text: bool, right: str) -> None:
    with pytest.raises(Wrong, match=re.escape(right)):
        convert(hint, value, text=text)


def test_secrets_are_never_shown() -> None:
    assert show("abc", secret=True) == "******"
    assert show(Secret("abc"), secret=False) == "******"
    assert show("postgresql://user:pass@host/db", secret=False) == '"postgresql://******@host/db"'


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("https://u:S3CR/ET@S3CRET@h", "https://******@h"),
        ("postgres://h/d?password=S3CRET", "postgres://h/d?******"),
        ("host=h password = S3CRET", "host=h password = ******"),
        ("amqp:/u:S3CRET@h", "amqp://******@h"),
        ("a@b", "a@b"),
        ("https://*.example.com", "https://*.example.com"),
        ("^(a?b)@c$", "^(a?b)@c$"),
    ],
)
def test_r2_credentials_within_what_is_shown(value: str, shown: str) -> None:
    assert show(value, secret=False) == f'"{shown}"'


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("postgres://u:S3CRET@h", '"postgres://…"'),
        ("amqp:/u", '"amqp://…"'),
        ("u:S3CRET@h", "******"),
        ("", "******"),
    ],
)
def test_r2_only_the_scheme_of_an_address_is_shown(value: str, shown: str) -> None:
    assert show_scheme(value) == shown


def test_what_is_shown_is_one_short_line() -> None:
    shown = show("line\nbreak\x1b[31m" + "x" * 500, secret=False)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) < 120


def test_collections() -> None:
    assert element_type(tuple[str, ...]) == ("list", str)
    assert element_type(list[int]) == ("list", int)
    assert element_type(dict[str, int]) == ("map", int)
    assert element_type(str) == ("", str)
    assert element_type(re.Pattern[str])[0] == ""
    assert collect(tuple[int, ...], [1, 2]) == (1, 2)
    assert collect(frozenset[int], [1, 1]) == frozenset({1})
    assert is_secret(tuple[Secret, ...])
    assert is_secret(Secret | None)
    assert not is_secret(tuple[str, ...])
