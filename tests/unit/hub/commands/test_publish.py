"""Tests of hub.commands.publish: who may, what, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hub.app import App, PublishEvent, PublishReply, Refuse
from storage.errors import StoreUnavailable
from tests.support.inprocess import InProcessHub, running
from tests.support.tokens import connection_token


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"channel": "nowhere:x", "data": 1}, 102),
        ({"channel": "closed:x", "data": 1}, 103),
        ({"channel": "plain:x"}, 107),
        ({"channel": "object:x", "data": [1]}, 107),
        ({"channel": "plain:" + "x" * 300, "data": 1}, 107),
    ],
)
async def test_refused(node_hub: InProcessHub, request_: dict[str, Any], code: int) -> None:
    assert await (await node_hub.connected()).error(publish=request_) == code
    assert not node_hub.metrics.publications_in


async def test_without_a_channel(node_hub: InProcessHub) -> None:
    peer = await node_hub.connected()
    peer.start(publish={"data": 1})
    assert await peer.disconnected() == 3501


@pytest.mark.parametrize("channel", ["plain:x", "recent:x", "durable:x"])
async def test_the_publisher_is_named(node_hub: InProcessHub, channel: str) -> None:
    watcher = await node_hub.subscribed(channel)
    peer = await node_hub.connected(token=connection_token(info={"name": "x"}))
    assert await peer.result(publish={"channel": channel, "data": {"a": 1}}) == {}, "no position for clients"
    await node_hub.settled()
    [publication] = watcher.pushes(channel)
    assert publication["data"] == {"a": 1}
    assert publication["info"] == {"user": "42", "client": peer.session.client, "conn_info": {"name": "x"}}
    assert node_hub.metrics.publications_in == {"client": 1}


async def test_its_own_message_comes_back(node_hub: InProcessHub) -> None:
    peer = await node_hub.subscribed("durable:x")
    await peer.result(publish={"channel": "durable:x", "data": 1})
    await node_hub.settled()
    assert peer.data("durable:x") == [1]


async def test_the_application(tmp_path: Path) -> None:
    app = App()

    @app.on_publish
    async def publish(event: PublishEvent) -> PublishReply | None:
        if event.data == b'"refuse"':
            raise Refuse(1003, "no")
        if event.channel == "closed:x":
            return PublishReply(data=b'{"checked":true}', tags={"t": "1"}, idempotency_key="once")
        return PublishReply(skip_history=True) if event.channel == "recent:x" else None

    async with running(tmp_path, app=app) as hub:
        watcher = await hub.subscribed("recent:x")
        peer = await hub.connected()
        assert await peer.error(publish={"channel": "plain:x", "data": "refuse"}) == 1003
        await peer.result(publish={"channel": "plain:x", "data": 1})
        await peer.result(publish={"channel": "closed:x", "data": 1})
        await peer.result(publish={"channel": "recent:x", "data": 1})
        await hub.settled()
        assert "offset" not in watcher.pushes("recent:x")[0]


async def test_out_of_reach(node_hub: InProcessHub, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: object) -> None:
        raise StoreUnavailable("the disk is full")

    peer = await node_hub.connected()
    monkeypatch.setattr(node_hub.store, "append", fail)
    reply = await peer.call(publish={"channel": "durable:x", "data": 1})
    assert reply["error"] == {"code": 100, "message": "internal server error", "temporary": True}
