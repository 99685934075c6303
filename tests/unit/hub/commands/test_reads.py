"""Tests of hub.commands.reads: history, presence and presence_stats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.inprocess import InProcessHub, running
from tests.support.tokens import connection_token


@pytest.mark.parametrize("channel", ["recent:x", "durable:x"])
class TestHistory:
    @pytest.mark.parametrize(
        ("request_", "found"),
        [
            ({}, []),
            ({"limit": -1}, [1, 2, 3, 4]),
            ({"limit": 2}, [1, 2]),
            ({"limit": 2, "reverse": True}, [4, 3]),
            ({"limit": -1, "since": {"offset": 2}}, [3, 4]),
            ({"limit": -1, "since": {"offset": 3}, "reverse": True}, [2, 1]),
            ({"limit": -1, "since": {"offset": 2**64 - 1}}, []),
            ({"limit": -1, "since_time": 1}, [1, 2, 3, 4]),
            ({"limit": -1, "until_time": 1}, []),
        ],
    )
    async def test_pages(
        self, node_hub: InProcessHub, channel: str, request_: dict[str, Any], found: list[int]
    ) -> None:
        top = (await node_hub.publish(channel, 1, 2, 3, 4))[-1]
        peer = await node_hub.connected()
        result = await peer.result(history={"channel": channel, **request_})
        assert [each["data"] for each in result["publications"]] == found
        assert (result["offset"], result["epoch"]) == top
        assert all(each["time"] > 0 for each in result["publications"])

    async def test_another_epoch(self, node_hub: InProcessHub, channel: str) -> None:
        peer = await node_hub.connected()
        assert await peer.error(history={"channel": channel, "since": {"offset": 1, "epoch": "another"}}) == 112

    async def test_backwards_from_nothing(self, node_hub: InProcessHub, channel: str) -> None:
        peer = await node_hub.connected()
        assert await peer.error(history={"channel": channel, "since": {"offset": 0}, "reverse": True}) == 107

    async def test_redacted_ones_are_left_out(self, node_hub: InProcessHub, channel: str) -> None:
        await node_hub.publish(channel, 1, 2, 3)
        await node_hub.node.history.redact(node_hub.node.rules.resolve(channel), 2, None)
        result = await (await node_hub.connected()).result(history={"channel": channel, "limit": -1})
        assert [each["offset"] for each in result["publications"]] == [1, 3]

    async def test_what_json_cannot_carry(self, node_hub: InProcessHub, channel: str) -> None:
        await node_hub.publish(channel, b"not json")
        peer = await node_hub.connected()
        peer.start(history={"channel": channel, "limit": 1})
        assert await peer.disconnected() == 3506


async def test_the_limit(tmp_path: Path) -> None:
    async with running(tmp_path, client={"history_max_publication_limit": 3}) as hub:
        await hub.publish("recent:x", *range(5))
        peer = await hub.connected()
        for limit in (-1, 4, 2**31 - 1, -7):
            result = await peer.result(history={"channel": "recent:x", "limit": limit})
            assert len(result["publications"]) == 3
    async with running(tmp_path, client={"history_max_publication_limit": 0}) as hub:
        await hub.publish("recent:x", *range(500))
        result = await (await hub.connected()).result(history={"channel": "recent:x", "limit": -1})
        assert len(result["publications"]) == 500


@pytest.mark.parametrize("kind", ["history", "presence", "presence_stats"])
async def test_refused(node_hub: InProcessHub, kind: str) -> None:
    peer = await node_hub.connected()
    assert await peer.error(**{kind: {"channel": "nowhere:x"}}) == 102
    assert await peer.error(**{kind: {"channel": "plain:x"}}) == 108
    peer.start(**{kind: {}})
    assert await peer.disconnected() == 3501


async def test_presence(node_hub: InProcessHub) -> None:
    peers = [await node_hub.connected(token=connection_token(user, info={"n": 1})) for user in ("1", "1", "2")]
    for each in peers:
        await each.result(subscribe={"channel": "here:x"})
    outside = await node_hub.connected()
    result = await outside.result(presence={"channel": "here:x"})
    assert set(result["presence"]) == {each.session.client for each in peers}
    client = peers[0].session.client
    assert result["presence"][client] == {"user": "1", "client": client, "conn_info": {"n": 1}}
    assert await outside.result(presence_stats={"channel": "here:x"}) == {"num_clients": 3, "num_users": 2}
    peers[0].transport.drop()
    assert await outside.result(presence_stats={"channel": "here:x"}) == {"num_clients": 2, "num_users": 2}
    assert await outside.result(presence={"channel": "here:nobody"}) == {"presence": {}}
