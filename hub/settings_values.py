"""One value of a setting: from what a file or a variable holds to what a field's type asks for.

``convert`` raises ``Wrong`` with what would be right; the caller adds the setting's name, its source and its value.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

from auth.secret import Secret

UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_RUN = re.compile(r"\S+")
_PASSWORD = re.compile(r"(?i)(password\s*=\s*)\S+")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,20}(?=:/)")
TRUE = {"1", "t", "true", "yes", "on"}
FALSE = {"0", "f", "false", "no", "off"}
LONGEST = timedelta(days=36500)
SHOWN = 80


class Wrong(ValueError):
    """A value that does not fit; the text says what would, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Between:
    """Bounds of a number or duration, both inclusive; ``None`` is no bound. Goes into ``Annotated``."""

    low: int | float | timedelta | None
    high: int | float | timedelta | None

    def check(self, value: Any) -> None:
        if (self.low is None or value >= self.low) and (self.high is None or value <= self.high):
            return
        low, high = (None if bound is None else show(bound, secret=False) for bound in (self.low, self.high))
        if low is not None and high is not None:
            raise Wrong(f"must be from {low} to {high}")
        raise Wrong(f"must be {low} or more" if low is not None else f"must be {high} or less")


def parse_duration(text: str) -> timedelta:
    """``"300s"``, ``"1h30m"``, ``"250ms"``: numbers with a unit of ms, s, m, h or d each; raises ``Wrong``."""
    total = position = 0
    amount = 0.0
    for match in _DURATION.finditer(text):
        if match.start() != position:
            break
        position = match.end()
        amount += float(match[1]) * UNITS[match[2]]
        total += 1
    if not total or position != len(text):
        hint = f', for example "{text}s"' if re.fullmatch(r"[0-9.]{1,12}", text) else ' such as "300s", "5m" or "1h30m"'
        raise Wrong(f"must be a duration with a unit (ms, s, m, h, d){hint}")
    if amount > LONGEST.total_seconds():
        raise Wrong("must be a duration of at most 36500d")
    return timedelta(seconds=amount)


def format_duration(value: timedelta) -> str:
    """The shortest text that ``parse_duration`` reads as ``value``: ``90s`` is ``1m30s``, nothing is ``0s``."""
    left = round(value / timedelta(milliseconds=1))
    text = "-" if left < 0 else ""
    left = abs(left)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return text if text.strip("-") else "0s"


def seconds(value: timedelta) -> float:
    """A duration as a number of seconds."""
    return value / timedelta(seconds=1)


def unwrap(hint: Any) -> tuple[Any, tuple[Between, ...], bool]:
    """Take ``Annotated`` and ``| None`` off a field's type: (type, bounds, may be None)."""
    bounds: tuple[Between, ...] = ()
    optional = False
    while True:
        if typing.get_origin(hint) is typing.Annotated:
            bounds += tuple(item for item in hint.__metadata__ if isinstance(item, Between))
            hint = hint.__origin__
        elif typing.get_origin(hint) in (typing.Union, types.UnionType):
            arms = [arm for arm in typing.get_args(hint) if arm is not type(None)]
            if len(arms) != 1:
                raise TypeError(f"a setting has one type, not {hint}")
            optional, hint = True, arms[0]
        else:
            return hint, bounds, optional


def is_secret(hint: Any) -> bool:
    """Whether a type is a secret or holds some."""
    hint = unwrap(hint)[0]
    return hint is Secret or any(is_secret(arm) for arm in typing.get_args(hint) if isinstance(arm, type))


def show(value: object, *, secret: bool) -> str:
    """A value as it stands in a message: masked if secret, shortened if long."""
    if secret or isinstance(value, Secret):
        return "******"
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    text = _PASSWORD.sub(r"\1******", _RUN.sub(_without_credentials, str(value)))
    if len(text) > SHOWN:
        text = text[: SHOWN - 1] + "…"
    return '"' + text.encode("unicode_escape").decode("ascii") + '"' if isinstance(value, str) else text


def _without_credentials(found: re.Match[str]) -> str:
    # Up to the last @: a password may hold any character that its owner forgot to encode.
    before, at, rest = found[0].rpartition("@")
    scheme, colon, _ = before.partition(":")
    text = f"{scheme}://******@{rest}" if at and colon else found[0]
    if "://" in text and "?" in text:
        text = text.partition("?")[0] + "?******"
    return text


def show_scheme(address: str) -> str:
    """An address that may hold a password, as it stands in a message: ``"postgres://…"``; stars without a scheme."""
    found = _SCHEME.match(address)
    return f'"{found[0]}://…"' if found else show(address, secret=True)


def convert(hint: Any, value: object, *, text: bool) -> Any:
    """Make a value of type ``hint``; with ``text`` the value came as the text of a variable or an argument.

    Covers everything but dataclasses and collections, which ``hub.settings_load`` takes apart itself.
    """
    hint, bounds, optional = unwrap(hint)
    if value is None:
        if optional:
            return None
        raise Wrong("must not be null")
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        if isinstance(value, str) and value not in choices and value.lower() in choices:
            value = value.lower()  # Centrifugo takes log levels in any case
        if value not in choices or isinstance(value, bool) is not isinstance(choices[0], bool):
            raise Wrong("must be " + _one_of(choices))
        return value
    if isinstance(hint, type) and issubclass(hint, Enum):
        for member in hint:
            if member.value == value:
                return member
        raise Wrong("must be " + _one_of([member.value for member in hint]))
    if typing.get_origin(hint) is re.Pattern:
        hint = re.Pattern
    make = _SCALARS.get(hint)
    if make is None:
        raise TypeError(f"no setting can have the type {hint}")
    made = make(value, text)
    for bound in bounds:
        bound.check(made)
    return made


def element_type(hint: Any) -> tuple[str, Any]:
    """Whether a type is a collection: ("list" | "map", type of its elements), or ("", the type itself)."""
    plain = unwrap(hint)[0]
    origin = typing.get_origin(plain)
    arguments = typing.get_args(plain)
    if isinstance(origin, type):
        if issubclass(origin, Mapping):
            return "map", arguments[1]
        if issubclass(origin, Sequence | AbstractSet):
            return "list", arguments[0]
    return "", plain


def collect(hint: Any, elements: Sequence[Any]) -> Any:
    """The elements of a list as the collection that ``hint`` names."""
    origin = typing.get_origin(unwrap(hint)[0])
    if origin in (list, set, frozenset):
        return origin(elements)
    return tuple(elements)


def _one_of(choices: Sequence[object]) -> str:
    shown = [show(choice, secret=False) for choice in choices]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " or " + shown[-1]


def _bool(value: object, text: bool) -> bool:
    if isinstance(value, bool):
        return value
    if text and isinstance(value, str):
        if value.strip().lower() in TRUE:
            return True
        if value.strip().lower() in FALSE:
            return False
    raise Wrong("must be true or false")


def _int(value: object, text: bool) -> int:
    if text and isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,30}\s*", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Wrong("must be a whole number")
    if not -(2**63) <= value < 2**63:
        raise Wrong("must be a whole number of at most 64 bits")
    return value


def _float(value: object, text: bool) -> float:
    number = math.nan
    if (isinstance(value, int | float) and not isinstance(value, bool)) or (text and isinstance(value, str)):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            pass
    if not math.isfinite(number):
        raise Wrong("must be a number")
    return number


def _str(value: object, text: bool) -> str:
    if not isinstance(value, str):
        raise Wrong("must be text")
    if "\x00" in value:
        raise Wrong("must not contain a NUL character")
    return value


def _duration(value: object, text: bool) -> timedelta:
    if isinstance(value, int | float) and not isinstance(value, bool):
        example = value if 0 <= value < 1e9 else 300
        raise Wrong(f'must be a duration with a unit, as text; for example "{example}s"')
    return parse_duration(_str(value, text).strip())


def _path(value: object, text: bool) -> Path:
    if not _str(value, text):
        raise Wrong("must be a path")
    return Path(_str(value, text))


def _pattern(value: object, text: bool) -> re.Pattern[str]:
    try:
        return re.compile(_str(value, text))
    except re.error as error:
        raise Wrong(f"must be a regular expression ({error})") from None


_SCALARS: dict[Any, Callable[[object, bool], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    timedelta: _duration,
    Secret: lambda value, text: Secret(_str(value, text)),
    Path: _path,
    re.Pattern: _pattern,
}
