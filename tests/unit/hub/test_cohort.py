"""Tests of hub.cohort: rendered once, for all who receive the same bytes."""

from __future__ import annotations

import json
from typing import Any, cast

from channels.delta import apply_delta
from channels.filters import decode_filter
from hub.cohort import Batch, Cohort, CohortKey
from hub.protocol import push_head
from hub.subscription import Subscription
from hub.wire import MESSAGES, TEXT_FRAMES
from storage.contract import Publication

HEAD = push_head("x")
TEXT = "hello " * 20
PLAIN = CohortKey(MESSAGES)
DELTA = CohortKey(MESSAGES, delta=True)
GOOD = CohortKey(MESSAGES, filter=decode_filter(b'{"key":"kind","cmp":"eq","val":"good"}'))


def publications(*payloads: Any, delta: bool = True, tags: dict[str, str] | None = None) -> list[Publication]:
    return [Publication(json.dumps(each).encode(), delta=delta, tags=tags) for each in payloads]


def pushed(frame: bytes) -> list[dict[str, Any]]:
    return [json.loads(line)["push"]["pub"] for line in frame.split(b"\n")]


class TestBatch:
    def test_plain(self) -> None:
        frame, count = Batch(HEAD, publications(1, "two"), 1, None).render(PLAIN)
        assert count == 2
        assert frame == b'{"push":{"channel":"x","pub":{"data":1}}}\n{"push":{"channel":"x","pub":{"data":"two"}}}'

    def test_by_wire(self) -> None:
        batch = Batch(HEAD, publications(1), 1, None)
        frame, _ = batch.render(CohortKey(TEXT_FRAMES))
        assert frame[2:] == batch.render(PLAIN)[0]

    def test_a_chain_of_deltas(self) -> None:
        base = json.dumps(TEXT).encode()
        batch = Batch(HEAD, publications(TEXT + "1", TEXT + "2"), 1, base)
        for each, expected in zip(pushed(batch.render(DELTA)[0]), (TEXT + "1", TEXT + "2"), strict=True):
            assert each["delta"] is True
            base = apply_delta(base, each["data"].encode())
            assert json.loads(base) == expected

    def test_without_a_base_and_where_it_would_not_be_shorter(self) -> None:
        found = pushed(Batch(HEAD, publications(TEXT, 1), 1, None).render(DELTA)[0])
        assert found == [{"data": json.dumps(TEXT)}, {"data": "1"}]

    def test_a_publication_that_may_not_be_a_delta_is_the_next_base(self) -> None:
        batch = Batch(HEAD, [*publications(TEXT, delta=False), *publications(TEXT + "!")], 1, json.dumps(TEXT).encode())
        first, second = pushed(batch.render(DELTA)[0])
        assert "delta" not in first
        assert apply_delta(first["data"].encode(), second["data"].encode()) == json.dumps(TEXT + "!").encode()

    def test_filtered(self) -> None:
        good, bad = ({"kind": kind} for kind in ("good", "bad"))
        batch = Batch(HEAD, [*publications(1, tags=good), *publications(2, tags=bad), *publications(3)], 1, None)
        frame, count = batch.render(GOOD)
        assert ([each["data"] for each in pushed(frame)], count) == ([1], 1)
        assert Batch(HEAD, publications(2, tags=bad), 1, None).render(GOOD) == (b"", 0)

    def test_one_message_for_one_subscriber(self) -> None:
        batch = Batch(HEAD, publications(TEXT + "1", TEXT + "2"), 1, json.dumps(TEXT).encode())
        assert pushed(batch.message(1, PLAIN, full=False))[0]["data"] == TEXT + "2"
        assert pushed(batch.message(1, DELTA, full=False))[0]["delta"] is True
        assert pushed(batch.message(1, DELTA, full=True)) == [{"data": json.dumps(TEXT + "2")}]

    def test_rendered_once(self) -> None:
        batch = Batch(HEAD, publications(1, 2), 1, None)
        assert batch.plain() is batch.plain()
        assert batch.deltas() is batch.deltas()


class TestCohort:
    def test_members(self) -> None:
        got: list[tuple[str, bytes]] = []
        a, b = cast("list[Subscription]", ["a", "b"])
        cohort = Cohort(PLAIN)
        cohort.add(a, lambda frame: got.append(("a", frame)))
        cohort.add(b, lambda frame: got.append(("b", frame)))
        on_its_way = cohort.writes_but(None)
        assert len(cohort.writes_but(a)) == 1
        assert cohort.writes_but(cast("Subscription", "not a member")) is on_its_way
        assert cohort.discard(a)
        assert not cohort.discard(a)
        for write in on_its_way:
            write(b"1")
        for write in cohort.writes_but(None):
            write(b"2")
        assert got == [("a", b"1"), ("b", b"1"), ("b", b"2")], "a list that is being written is never changed"
