from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.errors import BadRequest
from channels.filters import (
    MAX_DEPTH,
    MAX_NODES,
    MAX_TEXT,
    MAX_VALUES,
    FilterNode,
    TagsFilter,
    compile_filter,
    decode_filter,
    number,
)


def made(tree: Any) -> TagsFilter:
    return decode_filter(json.dumps(tree).encode())


def leaf(cmp: str, val: str = "", *, key: str = "k", vals: list[str] | None = None) -> dict[str, Any]:
    return {"key": key, "cmp": cmp, "val": val} | ({"vals": vals} if vals is not None else {})


@pytest.mark.parametrize(
    ("tree", "yes", "no"),
    [
        (leaf("eq", "a"), ["a"], ["b", "", "aa", None]),
        (leaf("neq", "a"), ["b", "", None], ["a"]),
        (leaf("in", vals=["a", "b"]), ["a", "b"], ["c", None]),
        (leaf("in", vals=["a", ""]), ["a", "", None], ["c"]),
        (leaf("nin", vals=["a", "b"]), ["c", "", None], ["a", "b"]),
        (leaf("nin", vals=["a", ""]), ["c", None], ["a", ""]),
        (leaf("ex"), ["a", ""], [None]),
        (leaf("nex"), [None], ["a", ""]),
        (leaf("sw", "ab"), ["ab", "abc"], ["a", "xab", None]),
        (leaf("ew", "ab"), ["ab", "xab"], ["b", "abx", None]),
        (leaf("ct", "ab"), ["ab", "xabx"], ["a b", None]),
        (leaf("gt", "10"), ["10.1", "11", "+100"], ["10", "9", "x", "", None, "1e9", "٣٣"]),
        (leaf("gte", "10"), ["10", "10.0", "11"], ["9.999", None]),
        (leaf("lt", "-1.5"), ["-2", "-1.51"], ["-1.5", "0", None]),
        (leaf("lte", "0.30"), ["0.3", "-1"], ["0.31", "NaN", "inf"]),
        (leaf("gt", "9007199254740992"), ["9007199254740993"], ["9007199254740992"]),
        (leaf("gt", "ten"), [], ["1", "ten", "zzz", None]),
        ({"op": "and", "nodes": [leaf("sw", "a"), leaf("ew", "b")]}, ["ab", "axb"], ["a", "b", None]),
        ({"op": "or", "nodes": [leaf("eq", "a"), leaf("nex")]}, ["a", None], ["b"]),
        ({"op": "not", "nodes": [leaf("eq", "a")]}, ["b", None], ["a"]),
    ],
)
def test_matches(tree: Any, yes: list[str | None], no: list[str | None]) -> None:
    compiled = made(tree)
    for value in yes + no:
        assert compiled.matches(None if value is None else {"k": value}) is (value in yes)
    assert compiled.matches({"other": "x"}) is compiled.matches(None)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"key": "k"},
        leaf("like", "x"),
        leaf("eq", "a", key=""),
        leaf("ex", key=""),
        leaf("eq"),
        leaf("eq", "a", vals=["b"]),
        leaf("in"),
        leaf("in", "a"),
        leaf("nin", "a", vals=["a"]),
        leaf("ex", "a"),
        leaf("nex", vals=["a"]),
        leaf("eq", "a") | {"nodes": [leaf("ex")]},
        {"op": "and"},
        {"op": "or", "nodes": []},
        {"op": "not", "nodes": []},
        {"op": "not", "nodes": [leaf("ex"), leaf("ex")]},
        {"op": "xor", "nodes": [leaf("ex")]},
        {"op": "and", "key": "k", "nodes": [leaf("ex")]},
        {"op": "and", "nodes": [{}]},
        {"op": 1},
        {"key": "k", "cmp": "in", "vals": "abc"},
        [],
        "x",
        None,
    ],
)
def test_malformed(tree: Any) -> None:
    with pytest.raises(BadRequest):
        made(tree)


@pytest.mark.parametrize("raw", [b"", b"{", b'{"key":"\xff","cmp":"ex"}', b"[" * 100_000, b'{"nodes":[' * 100_000])
def test_what_is_no_json(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_filter(raw)


def nested(depth: int) -> dict[str, Any]:
    tree = leaf("ex")
    for _ in range(depth - 1):
        tree = {"op": "not", "nodes": [tree]}
    return tree


@pytest.mark.parametrize(
    ("largest", "too_large"),
    [
        (nested(MAX_DEPTH), nested(MAX_DEPTH + 1)),
        (
            {"op": "or", "nodes": [leaf("ex")] * (MAX_NODES - 1)},
            {"op": "or", "nodes": [leaf("ex")] * MAX_NODES},
        ),
        (leaf("in", vals=["a"] * MAX_VALUES), leaf("in", vals=["a"] * (MAX_VALUES + 1))),
        (leaf("eq", "a" * MAX_TEXT), leaf("eq", "a" * (MAX_TEXT + 1))),
        (leaf("ex", key="a" * MAX_TEXT), leaf("ex", key="a" * (MAX_TEXT + 1))),
        (leaf("in", vals=["a" * MAX_TEXT]), leaf("in", vals=["a" * (MAX_TEXT + 1)])),
    ],
)
def test_bounds(largest: Any, too_large: Any) -> None:
    assert made(largest).matches({"k": "x"}) in (True, False)
    with pytest.raises(BadRequest, match="at most"):
        made(too_large)


def test_equal_trees_are_equal() -> None:
    one = made({"op": "and", "nodes": [leaf("eq", "a"), leaf("in", vals=["x", "y", "x"])]})
    two = made({"nodes": [leaf("eq", "a"), leaf("in", vals=["y", "x"])], "op": "and"})
    assert one == two
    assert hash(one) == hash(two)
    assert len({one, two, made(leaf("eq", "a"))}) == 2
    assert made(leaf("eq", "a")) != made(leaf("neq", "a"))
    assert made(leaf("eq", "a")) != "eq"
    assert repr(made(leaf("eq", "a"))) == "TagsFilter(('eq', 'k', 'a'))"


def test_a_node_can_be_made_in_code() -> None:
    assert compile_filter(FilterNode(key="k", cmp="eq", val="a")) == made(leaf("eq", "a"))


@pytest.mark.parametrize("text", ["", "-", ".5", "5.", "1e5", "0x1", " 1", "1 ", "1_000", "9" * 65, "Infinity", "1\n"])
def test_not_a_number(text: str) -> None:
    assert number(text) is None


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_a_number(value: Any) -> None:
    assert number(f"{value:f}") == value


trees = st.recursive(
    st.builds(leaf, st.sampled_from(["eq", "neq", "sw", "gt"]), st.sampled_from(["a", "b", "1"])),
    lambda nodes: (
        st.builds(
            lambda op, of: {"op": op, "nodes": of},
            st.sampled_from(["and", "or"]),
            st.lists(nodes, min_size=1, max_size=3),
        )
        | nodes.map(lambda node: {"op": "not", "nodes": [node]})
    ),
    max_leaves=8,
)


def slow(tree: dict[str, Any], tags: dict[str, str]) -> bool:
    match tree.get("op"):
        case "and":
            return all(slow(node, tags) for node in tree["nodes"])
        case "or":
            return any(slow(node, tags) for node in tree["nodes"])
        case "not":
            return not slow(tree["nodes"][0], tags)
    value, wanted = tags.get("k"), str(tree["val"])
    match tree["cmp"]:
        case "eq":
            return value == wanted
        case "neq":
            return value != wanted
        case "sw":
            return value is not None and value.startswith(wanted)
    return value is not None and value.isdigit() and wanted.isdigit() and int(value) > int(wanted)


@given(trees, st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["", "a", "ab", "b", "1", "2"])))
def test_trees_mean_what_their_nodes_mean(tree: dict[str, Any], tags: dict[str, str]) -> None:
    assert made(tree).matches(tags) is slow(tree, tags)
