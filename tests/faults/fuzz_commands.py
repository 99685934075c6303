"""Mutated client commands on live sessions, each answer compared with what ``tests.faults.oracle`` allows."""

from __future__ import annotations

import copy
import random
from typing import Any

from tests.faults.fuzz_report import Report
from tests.faults.mutate import dump, mutate_bytes, mutate_tree
from tests.faults.oracle import Verdict, judge_frame
from tests.faults.wire import TEXT, Closed, Hang, Wire, frame_bytes, loads
from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token, subscription_token

CHUNK = 24
"""Frames sent before answers are read; each is followed by a sentinel, so that every answer has its cause."""
FIRST_SENTINEL = 4_000_000_000
CHANNELS = [
    "plain:f",
    "recent:f",
    "durable:f",
    "room:f",
    "lobby:f",
    "anon:f",
    "tags:f",
    "delta:f",
    "closed:f",
    "cache:f",
]
LIMIT = 65_536


def valid_commands(token: str) -> list[dict[str, Any]]:
    """Every command in a few valid forms, to start from."""
    commands: list[dict[str, Any]] = []
    for channel in CHANNELS:
        commands += [
            {"subscribe": {"channel": channel}},
            {"subscribe": {"channel": channel, "recover": True, "offset": 3, "epoch": "abcd", "flag": 1}},
            {"unsubscribe": {"channel": channel}},
            {"publish": {"channel": channel, "data": {"a": [1, 2.5, None, "x"]}}},
            {"presence": {"channel": channel}},
            {"presence_stats": {"channel": channel}},
            {"history": {"channel": channel, "limit": 10}},
            {"history": {"channel": channel, "limit": 5, "reverse": True, "since": {"offset": 7, "epoch": "abcd"}}},
        ]
    commands += [
        {
            "subscribe": {
                "channel": "tags:f",
                "tf": {"op": "and", "nodes": [{"key": "k", "cmp": "in", "vals": ["a", "b"]}]},
            }
        },
        {"subscribe": {"channel": "tags:f", "tf": {"key": "n", "cmp": "gte", "val": "10"}}},
        {"subscribe": {"channel": "delta:f", "delta": "fossil"}},
        {"subscribe": {"channel": "closed:f", "token": subscription_token("closed:f")}},
        {"subscribe": {"channel": "recent:f", "positioned": True, "recoverable": True, "join_leave": True, "data": {}}},
        {"sub_refresh": {"channel": "closed:f", "token": subscription_token("closed:f")}},
        {"publish": {"channel": "plain:f", "data": "x", "exclude_client": True}},
        {"history": {"channel": "durable:f", "limit": 5, "since_time": 1, "until_time": 2**40}},
        {"rpc": {"method": "echo", "data": {"x": 1}}},
        {"rpc": {"method": "nothing", "data": 1}},
        {"send": {"data": {"x": 1}}},
        {"ping": {}},
        {"refresh": {"token": token}},
        {
            "connect": {
                "token": token,
                "name": "fuzz",
                "version": "1",
                "subs": {"recent:f": {"recover": True, "offset": 1}},
            }
        },
    ]
    return commands


class Generator:
    """An endless source of frames, most of them wrong in one way."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.token = connection_token()
        self.valid = valid_commands(self.token)
        self.next_id = 2

    def frame(self) -> bytes:
        chance = self.chance
        lines = [self.line() for _ in range(chance.choice([1, 1, 1, 1, 2, 3, 5]))]
        frame = b"\n".join(lines)
        if chance.random() < 0.02:
            frame = chance.choice(
                [frame + b"\n", b"\n" + frame, frame.replace(b"\n", b"\n\n"), frame.replace(b"\n", b"\r\n")]
            )
        return frame[: LIMIT - 1]

    def line(self) -> bytes:
        chance = self.chance
        self.next_id = self.next_id % 1_000_000 + 1
        command = {"id": self.next_id, **copy.deepcopy(chance.choice(self.valid))}
        if "send" in command and chance.random() < 0.9:
            del command["id"]
        if "connect" in command and chance.random() < 0.8:
            return self.line()
        chosen = chance.random()
        if chosen < 0.15:
            return dump(command, chance, loose=True)
        if chosen < 0.55:
            return dump(self._changed_request(command), chance, loose=chance.random() < 0.3)
        if chosen < 0.8:
            changed: Any = command
            for _ in range(chance.choice([1, 1, 2, 3])):
                changed = mutate_tree(changed, chance)
            return dump(changed, chance, loose=chance.random() < 0.3)
        if chosen < 0.85:
            return dump({**command, **chance.choice(self.valid)}, chance)
        return mutate_bytes(dump(command, chance), chance)

    def _changed_request(self, command: dict[str, Any]) -> dict[str, Any]:
        """Wrong only inside of the request, and more often in value than in type: this gets past the decoder."""
        chance = self.chance
        kind = next(key for key in command if key != "id")
        request = command[kind]
        choices: dict[str, list[Any]] = {
            "channel": [
                "",
                "nowhere:f",
                "plain:é",
                "p" * 300,
                "$plain:f",
                "users:a#42",
                "users:a#7",
                ":",
                "plain:",
                "digits:x",
            ],
            "token": ["", "x", "a.b.c", self.token, subscription_token("closed:f"), subscription_token("closed:g")],
            "epoch": ["", "x", "y" * 1000],
            "offset": [0, 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1],
            "limit": [0, 1, -1, -2, 300, 301, 2**31 - 1, -(2**31)],
            "delta": ["", "fossil", "xdelta", "FOSSIL"],
            "flag": [0, 1, 2, 3, -1, 2**31],
            "type": [0, 1, 4, -1],
            "method": ["", "echo", "nothing", "é", "x" * 300],
            "recover": [True, False],
            "reverse": [True, False],
            "data": [None, 0, "", [], {}, "x" * 3000, [[[[1]]]]],
            "since": [None, {}, {"offset": 0}, {"offset": 2**64 - 1, "epoch": "x"}],
            "since_time": [0, 1, 2**63 - 1, 2**64 - 1],
            "until_time": [0, 1, 2**63 - 1, 2**64 - 1],
            "tf": [
                None,
                {},
                {"op": "not"},
                {"op": "and", "nodes": []},
                {"key": "a", "cmp": "lt", "val": "x"},
                {"key": "", "cmp": "ex"},
            ],
        }
        for _ in range(chance.choice([1, 1, 2])):
            name = chance.choice([*(key for key in request if key in choices), *choices])
            request[name] = chance.choice(choices[name])
        return command


async def fuzz_commands(hub: HubProcess, report: Report, count: int, seed: str) -> None:
    """Send ``count`` frames; every one is answered as its verdict allows, or closes the connection so."""
    generator = Generator(random.Random(seed))
    wire: Wire | None = None
    waiting: list[tuple[bytes, list[Verdict]]] = []
    done = 0
    held: list[tuple[bytes, list[Verdict]]] = []
    while done < count:
        while len(waiting) < CHUNK and not (waiting and any(v.may_close for v in waiting[-1][1])):
            frame = generator.frame()
            entry = held.pop() if held else (frame, judge_frame(frame))
            if waiting and 1007 in entry[1][0].closes:
                # This ends the connection at once, whatever is still being worked at: only alone has it one outcome.
                held.append(entry)
                break
            waiting.append(entry)
        if wire is None:
            wire = await Wire.open(hub.port)
            await wire.connect(connection_token())
        for index, (frame, _) in enumerate(waiting):
            wire.send(frame_bytes(TEXT, frame))
            wire.send(frame_bytes(TEXT, b'{"id":%d,"ping":{}}' % (FIRST_SENTINEL + index)))
        await wire.drain()
        for index, (frame, verdicts) in enumerate(waiting):
            ended = await _read_answers(wire, report, FIRST_SENTINEL + index, frame, verdicts)
            done += 1
            report.inputs["commands"] += 1
            if ended:
                waiting = waiting[index + 1 :]
                wire.drop()
                wire = None
                break
        else:
            waiting = []
    if wire is not None:
        wire.drop()


async def _read_answers(wire: Wire, report: Report, sentinel: int, frame: bytes, verdicts: list[Verdict]) -> bool:
    """Read up to the sentinel's answer and compare; true when the connection has ended."""
    got: list[dict[str, Any]] = []
    while True:
        try:
            line = await wire.line()
        except Closed as closed:
            report.answers[f"close {closed.code}"] += 1
            _compare(report, frame, verdicts, got, closed.code)
            return True
        except Hang:
            report.complain("HANG", frame, "nothing", verdicts)
            return True
        message = loads(line)
        if "push" in message:
            continue
        if message.get("id") == sentinel and message.get("error", {}).get("code") == 108:
            _compare(report, frame, verdicts, got, None)
            return False
        report.answers[f"error {message['error']['code']}" if "error" in message else "ok"] += 1
        got.append(message)


def _compare(
    report: Report, frame: bytes, verdicts: list[Verdict], got: list[dict[str, Any]], close: int | None
) -> None:
    """Complain unless the replies, in order, and the close can be explained by the verdicts."""
    if not _explained(verdicts, got, close):
        report.complain("commands", frame, f"{got} close {close}", verdicts)


def _explained(verdicts: list[Verdict], got: list[dict[str, Any]], close: int | None) -> bool:
    """Whether some reading of doubtful verdicts leads to just these replies and this end."""
    if not verdicts:
        return not got and close is None
    first, *rest = verdicts
    if not got and close is not None and close in first.closes:
        return True
    if got and _fits(first, got[0]) and _explained(rest, got[1:], close):
        return True
    return first.silent and _explained(rest, got, close)


def _fits(verdict: Verdict, reply: dict[str, Any]) -> bool:
    code = reply["error"]["code"] if "error" in reply else 0
    if code not in verdict.replies or verdict.number not in (None, reply.get("id")):
        return False
    return bool(code) or not verdict.kind or verdict.kind in reply
