"""Tags filters: a subscriber's condition over the tags of publications.

A filter is a tree. A leaf compares one tag: ``{"key": "ticker", "cmp": "eq", "val": "BTC"}``; an inner node is
``and``, ``or`` or ``not`` over its ``nodes``. A filter saves bandwidth, it is no permission: the client has chosen it
itself.

| ``cmp`` | true if the tag ... |
|---|---|
| ``eq`` ``neq`` | is ``val``; is missing or is something else |
| ``in`` | is one of ``vals``; a missing tag counts as "" |
| ``nin`` | is missing, whatever ``vals`` are, or is none of them |
| ``ex`` ``nex`` | is there; is missing |
| ``sw`` ``ew`` ``ct`` | begins with, ends with, contains ``val`` |
| ``lt`` ``lte`` ``gt`` ``gte`` | is a number that compares so with ``val``; false if either is no decimal number |
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

from channels.errors import BadRequest

MAX_DEPTH = 16
"""How deep a tree may be, the root counted."""
MAX_NODES = 128
"""How many nodes a tree may have, the root and the leaves counted."""
MAX_VALUES = 1_024
"""How many values all ``vals`` of a tree may have together."""
MAX_TEXT = 256
"""How many characters a key or a value may have."""

_NUMBER = re.compile(r"[-+]?[0-9]{1,64}(\.[0-9]{1,64})?", re.ASCII)
_NO_TAGS: Mapping[str, str] = {}

Tags = Mapping[str, str]
Test = Callable[[Tags], bool]
Key = tuple[Any, ...]


class FilterNode(Struct, frozen=True, omit_defaults=True):
    """A node as it comes over the wire."""

    op: str = ""
    key: str = ""
    cmp: str = ""
    val: str = ""
    vals: list[str] = []
    nodes: list[FilterNode] = []


class TagsFilter:
    """A filter that has been checked. Equal trees are equal and hash alike, so that one evaluation can serve many."""

    __slots__ = ("_hash", "_key", "_test")

    def __init__(self, key: Key, test: Test) -> None:
        self._key = key
        self._test = test
        self._hash = hash(key)

    def matches(self, tags: Tags | None) -> bool:
        """Whether a publication with these tags is wanted."""
        return self._test(_NO_TAGS if tags is None else tags)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TagsFilter) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"TagsFilter({self._key!r})"


def decode_filter(raw: bytes | msgspec.Raw) -> TagsFilter:
    """Read and check a filter in JSON; raises ``BadRequest`` with what is wrong."""
    try:
        node = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest("the tags filter is not a tree of filter nodes") from error
    return compile_filter(node)


def compile_filter(node: FilterNode) -> TagsFilter:
    """Check a filter and make it fast; raises ``BadRequest`` with what is wrong."""
    return TagsFilter(*_Compiler().node(node, 1))


_decoder = msgspec.json.Decoder(FilterNode)


class _Compiler:
    """Counts while it descends, so that no tree is walked beyond the bounds."""

    def __init__(self) -> None:
        self._nodes = 0
        self._values = 0

    def node(self, node: FilterNode, depth: int) -> tuple[Key, Test]:
        self._nodes += 1
        if depth > MAX_DEPTH:
            raise BadRequest(f"a tags filter is at most {MAX_DEPTH} levels deep")
        if self._nodes > MAX_NODES:
            raise BadRequest(f"a tags filter has at most {MAX_NODES} nodes")
        if node.op == "":
            return self._leaf(node)
        if node.op not in ("and", "or", "not"):
            raise BadRequest('the op of a filter node is "and", "or", "not" or empty')
        if node.key or node.cmp or node.val or node.vals:
            raise BadRequest(f'a filter node with op "{node.op}" has only nodes')
        if node.op == "not" and len(node.nodes) != 1:
            raise BadRequest('a filter node with op "not" has exactly one node')
        if not node.nodes:
            raise BadRequest(f'a filter node with op "{node.op}" has at least one node')
        children = [self.node(child, depth + 1) for child in node.nodes]
        key = (node.op, *(child_key for child_key, _ in children))
        tests = tuple(test for _, test in children)
        if node.op == "not":
            return key, _negation(tests[0])
        return key, _conjunction(tests) if node.op == "and" else _disjunction(tests)

    def _leaf(self, node: FilterNode) -> tuple[Key, Test]:
        key, cmp, val, vals = node.key, node.cmp, node.val, node.vals
        if node.nodes:
            raise BadRequest("a filter leaf has no nodes")
        if not key:
            raise BadRequest("a filter leaf needs a key")
        self._values += len(vals)
        if self._values > MAX_VALUES:
            raise BadRequest(f"a tags filter has at most {MAX_VALUES} values")
        if max(len(key), len(val), *map(len, vals)) > MAX_TEXT:
            raise BadRequest(f"keys and values of a tags filter have at most {MAX_TEXT} characters")
        if cmp in ("in", "nin"):
            if not vals or val:
                raise BadRequest(f'the comparison "{cmp}" needs vals, and no val')
            members = frozenset(vals)
            return (cmp, key, *sorted(members)), (_member if cmp == "in" else _no_member)(key, members)
        if cmp in ("ex", "nex"):
            if vals or val:
                raise BadRequest(f'the comparison "{cmp}" has neither val nor vals')
            return (cmp, key), _existence(key, cmp == "ex")
        if (make := _COMPARISONS.get(cmp)) is None:
            raise BadRequest("the comparison of a filter leaf is missing or unknown")
        if not val or vals:
            raise BadRequest(f'the comparison "{cmp}" needs a val, and no vals')
        return (cmp, key, val), make(key, val)


def number(text: str) -> Decimal | None:
    """A decimal number without exponent and of bounded length, or ``None``."""
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _conjunction(tests: tuple[Test, ...]) -> Test:
    return lambda tags: all(test(tags) for test in tests)


def _disjunction(tests: tuple[Test, ...]) -> Test:
    return lambda tags: any(test(tags) for test in tests)


def _negation(test: Test) -> Test:
    return lambda tags: not test(tags)


def _member(key: str, members: frozenset[str]) -> Test:
    return lambda tags: tags.get(key, "") in members


def _no_member(key: str, members: frozenset[str]) -> Test:
    return lambda tags: tags.get(key) not in members


def _existence(key: str, wanted: bool) -> Test:
    return lambda tags: (key in tags) is wanted


def _equal(key: str, val: str) -> Test:
    return lambda tags: tags.get(key) == val


def _unequal(key: str, val: str) -> Test:
    return lambda tags: tags.get(key) != val


# ``val`` is never empty, so that a missing tag, taken as "", fails these three.
def _begins(key: str, val: str) -> Test:
    return lambda tags: tags.get(key, "").startswith(val)


def _ends(key: str, val: str) -> Test:
    return lambda tags: tags.get(key, "").endswith(val)


def _contains(key: str, val: str) -> Test:
    return lambda tags: val in tags.get(key, "")


def _numeric(compare: Callable[[Decimal, Decimal], bool]) -> Callable[[str, str], Test]:
    def make(key: str, val: str) -> Test:
        bound = number(val)
        if bound is None:
            return lambda tags: False

        def test(tags: Tags) -> bool:
            value = number(tags.get(key, ""))
            return value is not None and compare(value, bound)

        return test

    return make


_COMPARISONS: dict[str, Callable[[str, str], Test]] = {
    "eq": _equal,
    "neq": _unequal,
    "sw": _begins,
    "ew": _ends,
    "ct": _contains,
    "lt": _numeric(operator.lt),
    "lte": _numeric(operator.le),
    "gt": _numeric(operator.gt),
    "gte": _numeric(operator.ge),
}
