"""rpc and send: messages to the application rather than to a channel; ping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from channels.eager import in_task
from hub import codes, protocol
from hub.app import MessageEvent
from hub.codes import CloseSession, ReplyError
from hub.protocol import PingRequest, RpcRequest, SendRequest, is_json, one_line

if TYPE_CHECKING:
    from hub.session import Session


async def rpc(session: Session, command_id: int, request: RpcRequest) -> None:
    app = session.node.app
    if not app.methods:
        raise ReplyError(codes.NOT_AVAILABLE)
    method = app.methods.get(request.method)
    if method is None:
        raise ReplyError(codes.METHOD_NOT_FOUND)
    await in_task()
    result = encode_result(await method(session.context(), bytes(request.data)))
    body = b'{"data":' + result + b"}" if result else b"{}"
    session.send(protocol.reply(command_id, b"rpc", body))


def encode_result(result: Any) -> bytes:
    """What a method returned, as raw JSON; raises ``TypeError`` if it cannot be."""
    if result is None:
        return b""
    if isinstance(result, bytes):
        if not is_json(result):
            raise TypeError("an RPC method returned bytes that are not JSON")
        return one_line(result)
    return orjson.dumps(result, option=orjson.OPT_NON_STR_KEYS)


async def send(session: Session, command_id: int, request: SendRequest) -> None:
    handler = session.node.app.message_handler
    if handler is None:
        raise CloseSession(codes.NOT_AVAILABLE_DISCONNECT)
    await in_task()
    await handler(MessageEvent(session.context(), bytes(request.data)))


async def ping(session: Session, command_id: int, request: PingRequest) -> None:
    raise ReplyError(codes.NOT_AVAILABLE)
