"""A value that must not be seen: it prints as stars and is only had by asking for it."""

from __future__ import annotations

import hmac
from typing import Any, Final, Self

MASK: Final = "**********"


class Secret:
    """Holds a string whose ``repr``, ``str`` and ``format`` are masked.

    Equality takes the same time wherever two secrets of one length differ, and holds only between secrets. An empty
    secret is false, which is how "not configured" is told. Encoders refuse the type, so that it cannot slip into JSON.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value; the only way to it."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret('{MASK}')" if self._value else "Secret('')"

    def __str__(self) -> str:
        return MASK if self._value else ""

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_encoded(self._value), _encoded(other._value))

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("A Secret is not to be pickled.")


def _encoded(value: str) -> bytes:
    # A value from the environment may hold undecodable bytes as surrogates.
    return value.encode("utf-8", "surrogatepass")
