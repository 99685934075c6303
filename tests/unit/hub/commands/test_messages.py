"""Tests of hub.commands.messages: rpc, send and ping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hub.app import App, ClientContext, DisconnectClient, MessageEvent, Refuse
from hub.commands.messages import encode_result
from tests.support.inprocess import InProcessHub, running


async def test_without_an_application(node_hub: InProcessHub) -> None:
    peer = await node_hub.connected()
    assert await peer.error(rpc={"method": "x"}) == 108
    assert await peer.error(ping={}) == 108
    peer.receive({"send": {"data": 1}})
    assert await peer.disconnected() == 3508


async def test_rpc(tmp_path: Path) -> None:
    app = App()

    @app.rpc("echo")
    async def echo(context: ClientContext, data: bytes) -> bytes:
        return data

    @app.rpc("nothing")
    async def nothing(context: ClientContext, data: bytes) -> None:
        assert context.client

    @app.rpc("refuse")
    async def refuse(context: ClientContext, data: bytes) -> None:
        raise Refuse(1004, "no", temporary=True)

    @app.rpc("go")
    async def go(context: ClientContext, data: bytes) -> None:
        raise DisconnectClient(4000, "go")

    async with running(tmp_path, app=app) as hub:
        peer = await hub.connected()
        peer.session.receive(b'{"id":77,"rpc":{"method":"echo","data":{"b":1.0,"a":123456789012345678901}}}')
        await peer.until(lambda: peer.reply_to(77) is not None)
        assert b'{"id":77,"rpc":{"data":{"b":1.0,"a":123456789012345678901}}}' in peer.raw()
        assert await peer.result(rpc={"method": "nothing"}) == {}
        assert await peer.error(rpc={"method": "unknown"}) == 104
        assert (await peer.call(rpc={"method": "refuse"}))["error"] == {
            "code": 1004,
            "message": "no",
            "temporary": True,
        }
        peer.start(rpc={"method": "go"})
        assert await peer.disconnected() == 4000


async def test_send(tmp_path: Path) -> None:
    app = App()
    told: list[MessageEvent] = []

    @app.on_message
    async def message(event: MessageEvent) -> None:
        told.append(event)

    async with running(tmp_path, app=app) as hub:
        peer = await hub.connected()
        peer.receive({"send": {"data": [1]}}, {"id": 5, "send": {"data": [2]}})
        await hub.settled()
        assert [each.data for each in told] == [b"[1]", b"[2]"]
        assert len(peer.messages()) == 1, "there is no reply"


@pytest.mark.parametrize(
    ("result", "encoded"),
    [
        (None, b""),
        (b'{\n"a": 1}', b'{"a": 1}'),
        ({"a": [1]}, b'{"a":[1]}'),
        ("x", b'"x"'),
        (0, b"0"),
        (False, b"false"),
    ],
)
def test_results(result: Any, encoded: bytes) -> None:
    assert encode_result(result) == encoded


@pytest.mark.parametrize("result", [b"not json", object(), b""])
def test_results_that_cannot_be_sent(result: Any) -> None:
    with pytest.raises(TypeError):
        encode_result(result)
