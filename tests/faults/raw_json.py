"""JSON as bytes: make payloads that a parse and re-encode would not survive, and cut values out of frames untouched."""

from __future__ import annotations

import re

from hypothesis import strategies as st

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SCALAR = re.compile(rb"[^,\]}\s]+")

TRICKY: dict[str, bytes] = {
    "beyond 64 bits": b"123456789012345678901234567890",
    "max uint64": b"18446744073709551615",
    "below int64": b"-9223372036854775809",
    "one point nought": b"1.0",
    "trailing noughts": b"[1.10, 0.10, 100.000, 1.0E0]",
    "beyond double": b"1e400",
    "below double": b"1e-400",
    "many digits": b"0.1234567890123456789012345678901234567890",
    "exponents": b"[1E5, 1e+5, 1e-05, -0, -0.0, 0e0]",
    "key order": b'{"z": 1, "a": 2, "m": {"y": 1, "b": 2}}',
    "duplicate keys": b'{"a": 1, "a": 2, "a": {"a": 3, "a": 4}}',
    "escaped slash": rb'"\/ and / and \u002f"',
    "escaped nul": rb'"a\u0000b"',
    "escapes in capitals": rb'"\u00E9 \u00e9"',
    "all short escapes": rb'"\" \\ \/ \b \f \n \r \t"',
    "surrogate pair": rb'"\ud83d\ude00 \uD83D\uDE00"',
    "half an emoji": rb'["\ud83d", "x\uDE00y", "\ud83d\ud83d\ude00"]',
    "unicode": '"é ü 漢字 😀 \u2028 \u2029 \ufeff \ufffd"'.encode(),
    "unicode key": '{"é": 1, "漢": 2, "": 3}'.encode(),
    "control as DEL": b'"\x7f"',
    "spaces kept": b'{ "a" :  1 ,\t"b" : [ 1 ,  2 ] }',
    "nothing": b"null",
    "false": b"false",
    "nought": b"0",
    "empty string": b'""',
    "empty object": b"{}",
    "empty array": b"[ ]",
    "looks like a ping": b"[{},{}]",
    "looks like a frame": rb'{"push":{"channel":"x","pub":{"data":{}}},"id":1,"s":"{\"id\":1}\n{}"}',
    "deep but legal": b"[" * 200 + b"]" * 200,
    "deep objects": b'{"a":' * 100 + b"1" + b"}" * 100,
    "long": b'"' + b"x" * 30_000 + b'"',
}
"""Payloads without line breaks between tokens: these must come through byte for byte."""

BROKEN_LINES: dict[str, bytes] = {
    "line feeds": b'{\n  "a": 1,\n  "b": [\n    1,\n    2\n  ]\n}',
    "carriage returns": b'{\r\n\t"a": 1,\r\n\t"b": [1]\r\n}',
    "only the breaks between tokens": b'{\n"a":"x\\ny\\r\\n"\n}',
    "number last": b"[\n1\n,\n2.0\n]",
}
"""Payloads with line breaks between tokens, which are taken out; all else stays."""


def on_one_line(payload: bytes) -> bytes:
    """What must arrive of ``payload``: within valid JSON every raw line break is between tokens."""
    return payload.replace(b"\r", b"").replace(b"\n", b"")


def without_blanks(payload: bytes) -> bytes:
    """``payload`` without the white space between its tokens."""
    parts = re.split(rb'("(?:[^"\\]|\\.)*")', payload)
    return b"".join(part if index % 2 else re.sub(rb"[ \t\r\n]+", b"", part) for index, part in enumerate(parts))


def payloads(*, line_breaks: bool) -> st.SearchStrategy[bytes]:
    """Random JSON texts, built token by token, with all the freedom of notation that the grammar allows."""
    blank = st.sampled_from(["", "", "", " ", "  ", "\t"] + (["\n", "\r\n", " \n "] if line_breaks else []))
    digits = st.from_regex(r"\A(0|[1-9][0-9]{0,40})\Z")
    numbers = st.builds(
        "".join,
        st.tuples(
            st.sampled_from(["", "-"]),
            digits,
            st.one_of(st.just(""), st.from_regex(r"\A\.[0-9]{1,30}\Z")),
            st.one_of(st.just(""), st.from_regex(r"\A[eE][+-]?[0-9]{1,3}\Z")),
        ),
    )
    plain = st.characters(exclude_categories=["Cs"], exclude_characters='"\\', min_codepoint=32)
    escape = st.one_of(
        st.sampled_from(['\\"', "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t", "\\u0000", "\\uD83D\\uDE00"]),
        st.integers(0, 0xD7FF).map(lambda point: f"\\u{point:04x}"),
        st.integers(0, 0xD7FF).map(lambda point: f"\\u{point:04X}"),
    )
    strings = st.lists(st.one_of(plain, plain, escape), max_size=12).map(lambda parts: '"' + "".join(parts) + '"')
    scalars = st.one_of(numbers, strings, st.sampled_from(["null", "true", "false"]))

    def inside(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        padded = st.builds(lambda left, value, right: left + value + right, blank, children, blank)
        member = st.builds(lambda left, key, mid, value: f"{left}{key}{mid}:{value}", blank, strings, blank, padded)
        return st.one_of(
            st.lists(padded, max_size=5).map(lambda items: "[" + ",".join(items) + "]"),
            st.lists(member, max_size=5).map(lambda items: "{" + ",".join(items) + "}"),
        )

    return st.recursive(scalars, inside, max_leaves=12).map(str.encode)


def cut(text: bytes, *path: str | int) -> bytes:
    """The raw bytes of the value at ``path`` (keys and indexes) within the JSON text; raises ``KeyError``."""
    start, end = _skip(text, 0)
    for step in path:
        start, end = _enter(text, start, step)
    return text[start:end]


def _enter(text: bytes, at: int, step: str | int) -> tuple[int, int]:
    assert text[at : at + 1] in (b"{", b"["), text[at : at + 20]
    index = 0
    position = _blank(text, at + 1)
    while text[position : position + 1] not in (b"}", b"]"):
        key: str | int = index
        if text[at : at + 1] == b"{":
            start, position = _skip(text, position)
            key = text[start + 1 : position - 1].decode()
            position = _blank(text, position)
            assert text[position : position + 1] == b":"
            position += 1
        start, position = _skip(text, position)
        if key == step:
            return start, position
        index += 1
        position = _blank(text, position)
        if text[position : position + 1] == b",":
            position = _blank(text, position + 1)
    raise KeyError(step)


def _skip(text: bytes, position: int) -> tuple[int, int]:
    """Where the value at ``position`` starts (after blanks) and ends."""
    start = _blank(text, position)
    first = text[start : start + 1]
    if first == b'"':
        found = _STRING.match(text, start)
        assert found is not None
        return start, found.end()
    if first not in (b"{", b"["):
        found = _SCALAR.match(text, start)
        assert found is not None, text[start : start + 20]
        return start, found.end()
    depth, position = 0, start
    while True:
        byte = text[position : position + 1]
        if byte == b'"':
            found = _STRING.match(text, position)
            assert found is not None
            position = found.end()
            continue
        depth += (byte in b"{[") - (byte in b"}]")
        position += 1
        if not depth:
            return start, position


def _blank(text: bytes, position: int) -> int:
    found = _SPACE.match(text, position)
    assert found is not None
    return found.end()
