"""What may come of one message of a client, decided independently of the hub's own code.

The rules are those of docs/protocol.md, read a second time. Where it leaves a choice, every choice is allowed; where it does
not, the one right answer is. Python's JSON parser stands against the hub's: what it refuses the hub must refuse.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

KINDS = (
    "connect",
    "ping",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_stats",
    "history",
    "rpc",
    "send",
    "refresh",
    "sub_refresh",
)
OK = 0
CLOSES = {3500, 3501, 3005, 3508}


class NotJson(Exception):
    """The strict reading of a message failed."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number that is no plain integer, as written."""

    text: str


@dataclass(slots=True)
class Verdict:
    """What is allowed: reply codes (0 = success), close codes, silence; ``number`` is the id of the reply, if certain."""

    replies: set[int] = field(default_factory=set)
    closes: set[int] = field(default_factory=set)
    silent: bool = False
    number: int | None = None
    kind: str = ""

    @property
    def may_close(self) -> bool:
        return bool(self.closes)


MALFORMED = Verdict(closes={3501})


class Parse:
    """A strict parse that remembers what implementations may differ about."""

    def __init__(self) -> None:
        self.doubtful = False

    def __call__(self, line: bytes) -> Any:
        try:
            text = line.decode()
            value = json.loads(
                text,
                parse_constant=self._refuse,
                parse_float=Number,
                parse_int=self._int,
                object_pairs_hook=self._object,
            )
        except RecursionError:
            self.doubtful = True
            return {}
        except (ValueError, UnicodeDecodeError) as error:
            raise NotJson(str(error)) from None
        if _has_lone_surrogate(line) or _depth(line) > 400:
            self.doubtful = True
        return value

    def _refuse(self, name: str) -> Any:
        raise ValueError(name)

    def _int(self, text: str) -> Any:
        return int(text[:4000])

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            self.doubtful = True
        return made


def _has_lone_surrogate(line: bytes) -> bool:
    lowered = line.lower()
    return any(b"\\ud" + digit in lowered for digit in (b"8", b"9", b"a", b"b", b"c", b"d", b"e", b"f"))


def _depth(line: bytes) -> int:
    """An upper bound of the nesting; brackets within strings count too, which only makes a verdict milder."""
    return line.count(b"[") + line.count(b"{")


def text(value: Any) -> bool:
    return isinstance(value, str)


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def anything(value: Any) -> bool:
    return True


def whole(low: int, high: int) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return check


def struct(**fields: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return isinstance(value, dict) and all(name not in value or test(value[name]) for name, test in fields.items())

    return check


def mapping(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return isinstance(value, dict) and all(of(item) for item in value.values())

    return check


uint64 = whole(0, 2**64 - 1)
int32 = whole(-(2**31), 2**31 - 1)
SUBSCRIBE = struct(
    channel=text,
    token=text,
    recover=flag,
    epoch=text,
    offset=uint64,
    data=anything,
    positioned=flag,
    recoverable=flag,
    join_leave=flag,
    delta=text,
    tf=anything,
    flag=whole(-(2**63), 2**63 - 1),
    type=int32,
)
CHANNEL = struct(channel=text)
SHAPES: dict[str, Callable[[Any], bool]] = {
    "connect": struct(
        token=text, data=anything, subs=mapping(SUBSCRIBE), name=text, version=text, headers=mapping(text)
    ),
    "ping": struct(),
    "subscribe": SUBSCRIBE,
    "unsubscribe": CHANNEL,
    "publish": struct(channel=text, data=anything, exclude_client=flag),
    "presence": CHANNEL,
    "presence_stats": CHANNEL,
    "history": struct(
        channel=text,
        limit=int32,
        since=struct(offset=uint64, epoch=text),
        reverse=flag,
        since_time=uint64,
        until_time=uint64,
    ),
    "rpc": struct(data=anything, method=text),
    "send": struct(data=anything),
    "refresh": struct(token=text),
    "sub_refresh": struct(channel=text, token=text),
}
REPLIES: dict[str, set[int]] = {
    "subscribe": {OK, 102, 103, 105, 106, 107, 109, 112},
    "unsubscribe": {OK},
    "publish": {OK, 102, 103, 107},
    "presence": {OK, 102, 103, 107, 108},
    "presence_stats": {OK, 102, 103, 107, 108},
    "history": {OK, 102, 103, 107, 108, 112},
    "rpc": {OK, 104, 107, 108},
    "refresh": {OK, 110},
    "sub_refresh": {OK, 103, 107, 109, 110},
    "ping": {108},
}


def judge_frame(frame: bytes) -> list[Verdict]:
    """The verdicts of a text frame's messages, in order; nothing is expected after one that must close."""
    try:
        frame.decode()
    except UnicodeDecodeError:
        return [Verdict(closes={1007})]
    lines = frame.split(b"\n")
    if len(lines) > 1 and not lines[-1]:
        lines.pop()
    verdicts: list[Verdict] = []
    for line in lines:
        verdict = judge(line)
        verdicts.append(verdict)
        if not verdict.replies and not verdict.silent:
            break
    return verdicts


def judge(line: bytes) -> Verdict:
    """The verdict of one message on a connected session without outstanding pings."""
    parse = Parse()
    try:
        command = parse(line)
    except NotJson:
        return MALFORMED
    if parse.doubtful:
        return Verdict(replies=set.union(*REPLIES.values()), closes=CLOSES, silent=True)
    if not isinstance(command, dict):
        return MALFORMED
    verdict = _typed(command)
    if has_null(command):
        # A null may be read as the field's absence or as a wrong type.
        absent = _typed(_without_nulls(command))
        verdict = Verdict(
            verdict.replies | absent.replies, verdict.closes | absent.closes | {3501}, verdict.silent or absent.silent
        )
    return verdict


def _typed(command: dict[str, Any]) -> Verdict:
    number = command.get("id", 0)
    if not whole(0, 2**32 - 1)(number):
        return MALFORMED
    for kind in KINDS:
        if command.get(kind) is not None and not SHAPES[kind](command[kind]):
            return MALFORMED
    kind = next((kind for kind in KINDS if command.get(kind) is not None), "")
    if kind == "send":
        return Verdict(closes={3501} if "data" not in command["send"] else set(), silent=True)
    if not number or not kind or kind == "connect":
        return MALFORMED
    verdict = _rules(kind, command[kind])
    verdict.number, verdict.kind = number, kind
    return verdict


def _rules(kind: str, request: dict[str, Any]) -> Verdict:
    """Beyond types: what the protocol asks of each command."""
    verdict = Verdict(set(REPLIES[kind]))
    channel = request.get("channel", "")
    token = request.get("token", "")
    if kind == "refresh":
        return Verdict({OK, 110} if token else set(), {3501} if not token else {3500, 3005})
    if kind == "sub_refresh":
        verdict.closes = {3500, 3501}
    if kind in ("ping", "rpc", "unsubscribe"):
        if kind == "unsubscribe" and not channel:
            verdict.replies.add(107)
            verdict.closes = {3501}
        return verdict
    if not channel:
        return Verdict(set() if kind == "subscribe" else {107, 103} if kind == "sub_refresh" else {107}, {3501})
    if kind == "subscribe":
        if request.get("delta", "") not in ("", "fossil"):
            return Verdict({102, 103, 107}, {3501})
        if token:
            verdict.closes.add(3500)
    if kind != "sub_refresh" and (len(channel) > 255 or not channel.isascii()):
        verdict.replies &= {102, 105, 107}
    return verdict


def has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(item is None or has_null(item) for item in value.values())
    return False


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value
