"""The WebSocket transport over plain ASGI, for a hub that is mounted in another application under any server."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from urllib.parse import parse_qs

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from hub import codes
from hub.codes import Disconnect
from hub.door import JSON_PROTOCOL, Door
from hub.session import CLOSE_TIMEOUT, HIGH_WATER, Session
from hub.wire import MESSAGES

logger = logging.getLogger("hub.websocket")


async def serve(door: Door, websocket: WebSocket) -> None:
    """Drive one connection from its handshake to its end."""
    refusal = door.refusal(websocket.headers.getlist, parse_qs(websocket.url.query))
    if refusal is not None:
        await websocket.send_denial_response(PlainTextResponse(refusal.text, refusal.status))
        return
    offered = websocket.scope.get("subprotocols", ())
    await websocket.accept(JSON_PROTOCOL if JSON_PROTOCOL in offered else None)
    transport = AsgiTransport(websocket, door.settings.websocket.write_timeout.total_seconds())
    session = Session(door.node, transport, header_user=door.header_user(websocket.headers.getlist))
    transport.session = session
    writer = asyncio.create_task(transport.write_all())
    try:
        await _read_all(transport, session, door.settings.websocket.message_size_limit)
    finally:
        session.lost()
        transport.end()
        # The writer may still have a close frame to send; whoever does not take that is left to the server.
        await asyncio.wait({writer}, timeout=CLOSE_TIMEOUT)
        writer.cancel()


async def _read_all(transport: AsgiTransport, session: Session, limit: int) -> None:
    receive = asyncio.ensure_future(transport.websocket.receive())
    closing = asyncio.ensure_future(transport.closing.wait())
    try:
        while True:
            await asyncio.wait({receive, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not receive.done():
                return
            event = receive.result()
            if event["type"] != "websocket.receive":
                return
            text = event.get("text")
            message = text.encode() if text is not None else b""
            if text is None:
                session.close(codes.BAD_REQUEST_DISCONNECT)
            elif len(message) > limit:
                session.close(Disconnect(codes.MESSAGE_TOO_BIG, "message too big"))
            else:
                session.receive(message)
            await transport.reading.wait()
            receive = asyncio.ensure_future(transport.websocket.receive())
    except RuntimeError:
        return
    finally:
        receive.cancel()
        closing.cancel()


class AsgiTransport:
    """The ``SessionTransport`` of a connection that another server holds."""

    name = "websocket"
    wire = MESSAGES
    native_pings = False

    def __init__(self, websocket: WebSocket, write_timeout: float) -> None:
        self.websocket = websocket
        self._write_timeout = write_timeout
        self._ended = False
        self.session: Session | None = None
        self.reading = asyncio.Event()
        self.reading.set()
        self.closing = asyncio.Event()
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._some = asyncio.Event()
        self._disconnect: Disconnect | None = None

    def write(self, message: bytes) -> None:
        self._queue.append(message)
        self._size += len(message)
        self._some.set()
        if self._size > HIGH_WATER and self.session is not None:
            self.session.write_paused()

    def close(self, disconnect: Disconnect, *, abort: bool = False) -> None:
        self._disconnect = disconnect
        if abort:
            self._queue.clear()
            self.closing.set()
        self._some.set()
        self.reading.set()

    def ping(self) -> None:
        """Never called: ASGI has no pings."""

    def end(self) -> None:
        """The peer has gone, or is to be left: nothing but a close frame that is due is written any more."""
        self._ended = True
        self._queue.clear()
        self._some.set()

    async def _send(self, text: str) -> None:
        """Send one message; a peer that takes nothing for ``websocket.write_timeout`` is left."""
        session = self.session
        try:
            async with asyncio.timeout(None if session is None or session.is_conflating else self._write_timeout):
                await self.websocket.send_text(text)
        except TimeoutError:
            if session is not None:
                session.close(codes.WRITE_ERROR)
            raise WebSocketDisconnect(codes.WRITE_ERROR.code, codes.WRITE_ERROR.reason) from None

    def pause_reading(self) -> None:
        self.reading.clear()

    def resume_reading(self) -> None:
        self.reading.set()

    def buffered(self) -> int:
        return self._size

    async def write_all(self) -> None:
        """Write what comes until the connection is to be closed, then say why and close it."""
        try:
            while True:
                while self._queue:
                    message = self._queue.popleft()
                    for each in message.split(b"\n"):
                        await self._send(each.decode())
                    self._size -= len(message)
                    if self._size < HIGH_WATER // 4 and self.session is not None:
                        self.session.write_resumed()
                if self._disconnect is not None:
                    await self.websocket.close(self._disconnect.code, self._disconnect.reason)
                    return
                if self._ended:
                    return
                self._some.clear()
                await self._some.wait()
        except (WebSocketDisconnect, WebSocketDisconnected, RuntimeError) as error:
            logger.debug("a connection ended while it was written to: %s", error)
        finally:
            self.closing.set()
