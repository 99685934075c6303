"""Tests of hub.door: who may open a connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hub.door import Door, as_utf8, origin_pattern
from hub.settings import WebSocketSettings
from tests.support.inprocess import InProcessHub, running


def refused(door: Door, **headers: str | list[str]) -> int | None:
    """The status with which these headers are refused."""
    given = {
        name.lower().replace("_", "-"): value if isinstance(value, list) else [value] for name, value in headers.items()
    }
    refusal = door.refusal(lambda name: given.get(name.lower(), []), {})
    return None if refusal is None else refusal.status


def door_of(hub: InProcessHub) -> Door:
    return Door(hub.node, clock=hub.loop.time)


@pytest.mark.parametrize(
    ("globs", "origin", "allowed"),
    [
        ((), "https://a.example", False),
        (("*",), "https://a.example", True),
        (("*",), "", True),
        (("https://a.example",), "https://a.example", True),
        (("https://a.example",), "https://a.example.evil.example", False),
        (("https://a.example",), "https://aXexample", False),
        (("https://*.example.com",), "https://x.y.example.com", True),
        (("https://*.example.com",), "https://example.com", False),
        (("https://A.example",), "https://a.EXAMPLE", True),
        (("https://a.example", "http://localhost:*"), "http://localhost:3000", True),
    ],
)
async def test_origins(tmp_path: Path, globs: tuple[str, ...], origin: str, allowed: bool) -> None:
    assert bool(origin_pattern(globs).fullmatch(origin.lower())) is allowed
    async with running(tmp_path, client={"allowed_origins": globs}) as hub:
        assert refused(door_of(hub), Origin=origin) == (None if allowed else 403)
        assert refused(door_of(hub)) is None, "programs send none"
        assert refused(door_of(hub), Origin=[origin, origin]) == 400


async def test_a_node_that_is_shutting_down(node_hub: InProcessHub) -> None:
    door = door_of(node_hub)
    node_hub.node.draining = True
    assert refused(door) == 503
    assert node_hub.node.not_ready() == ["draining"]
    assert sum(node_hub.metrics.refused.values()) == 1


async def test_a_transport_that_is_disabled(tmp_path: Path) -> None:
    async with running(tmp_path, websocket=WebSocketSettings(disabled=True)) as hub:
        assert refused(door_of(hub)) == 404


async def test_the_limit_of_connections(tmp_path: Path) -> None:
    async with running(tmp_path, client={"connection_limit": 2}) as hub:
        door = door_of(hub)
        first = await hub.connected()
        assert refused(door) is None
        hub.peer()
        assert refused(door) == 503, "pending ones count too"
        first.transport.drop()
        assert refused(door) is None


async def test_the_rate_of_connections(tmp_path: Path) -> None:
    async with running(tmp_path, client={"connection_rate_limit": 2}) as hub:
        door = door_of(hub)
        hub.passes(1 - hub.loop.time() % 1 + 0.05)
        assert [refused(door) for _ in range(4)] == [None, None, 503, 503]
        hub.passes(1)
        assert refused(door) is None


@pytest.mark.parametrize("sent", [{"X_User": "42"}, {"x_user": "42"}])
async def test_the_user_that_a_proxy_names(tmp_path: Path, sent: dict[str, Any]) -> None:
    async with running(tmp_path, client={"user_id_http_header": "X-User"}) as hub:
        door = door_of(hub)
        assert refused(door, **sent) is None
        assert refused(door, X_User=["42", "43"]) == 400
        assert door.header_user(lambda name: ["42"] if name == "X-User" else []) == "42"
        assert door.header_user(lambda _: []) is None


async def test_without_a_proxy_nobody_is_named(node_hub: InProcessHub) -> None:
    assert door_of(node_hub).header_user(lambda _: ["42"]) is None


def test_as_utf8() -> None:
    assert as_utf8("é".encode().decode("latin-1")) == "é"
    assert as_utf8("\xe9") is None


async def test_compression(tmp_path: Path, node_hub: InProcessHub) -> None:
    assert door_of(node_hub).extensions is None
    async with running(tmp_path / "other", websocket=WebSocketSettings(compression=True)) as hub:
        door = door_of(hub)
        assert door.extensions is not None
        assert door.compressed(15) is door.compressed(15)
        assert door.compressed(15) is not door.compressed(10)


@pytest.mark.parametrize(
    ("protocols", "query", "status"),
    [
        ([], {}, None),
        (["centrifuge-json"], {}, None),
        (["centrifuge-protobuf, centrifuge-json"], {}, None),
        (["something-else"], {}, None),
        (["centrifuge-protobuf"], {}, 400),
        (["something-else", "centrifuge-protobuf"], {}, 400),
        ([], {"format": ["protobuf"]}, 400),
        ([], {"cf_protocol": ["protobuf"]}, 400),
        ([], {"format": ["json"]}, None),
    ],
)
async def test_who_reads_nothing_but_protobuf(
    tmp_path: Path, protocols: list[str], query: dict[str, list[str]], status: int | None
) -> None:
    """Refused with a sentence at the door, by every transport, instead of being talked JSON to."""
    async with running(tmp_path) as hub:
        refusal = door_of(hub).refusal(lambda name: protocols if name == "Sec-WebSocket-Protocol" else [], query)
        assert (None if refusal is None else refusal.status) == status
