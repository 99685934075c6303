"""The WebSocket transport: uvicorn's sans-I/O protocol, driving a session directly on the hub's own path.

An idle connection has no ASGI task, scope, queue or event; frames that are the same for many are written as they are. What
uvicorn leaves open is closed here: peers that do not read, floods of pings and fragments, endless handshakes, tokens in the
log, empty subprotocol headers. Any other path goes to the application through uvicorn's own protocol.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.exceptions import PayloadTooBig
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.streams import StreamReader
from websockets.typing import Subprotocol

from hub import codes
from hub.codes import Disconnect
from hub.door import JSON_PROTOCOL, Door, Refusal
from hub.frames import whole_texts
from hub.session import CLOSE_TIMEOUT, HIGH_WATER, Session
from hub.wire import TEXT_FRAMES, Wire, frame

if TYPE_CHECKING:
    from hub.wheel import Timer

_silent = logging.getLogger("hub.websocket.frames")
_silent.setLevel(logging.WARNING)

SUBPROTOCOLS = [Subprotocol(JSON_PROTOCOL)]
SLICE = 8 * 1024
"""Bytes given to the parser at a time: what a flood of small frames makes of them is what it can cost at once."""
NATIVE_PING = frame(0x89, b"")
"""A whole, empty WebSocket ping frame."""
_AT_EOF = StreamReader.at_eof.__code__
"""Where the parser stands between frames; ``tests/unit/hub/test_frames.py`` notices if that changes."""


def protocol_class(door: Door) -> type[asyncio.Protocol]:
    """The WebSocket protocol for uvicorn's ``ws`` setting, bound to one hub."""

    class BoundProtocol(HubWebSocket):
        __slots__ = ()

        def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
            super().__init__(door, config, server_state, app_state)

    return BoundProtocol


class HubWebSocket(asyncio.Protocol):
    """One connection from its upgrade request on; itself the ``SessionTransport`` of its session."""

    name = "websocket"

    __slots__ = (
        "_budget",
        "_budget_second",
        "_close_timer",
        "_closing",
        "_config",
        "_connection",
        "_delegate",
        "_door",
        "_frames",
        "_reading",
        "_server_state",
        "_session",
        "_size",
        "_state",
        "_transport",
        "_write_timer",
        "buffered",
        "native_pings",
        "wire",
        "write",
    )

    write: Callable[[bytes], None]
    buffered: Callable[[], int]
    wire: Wire

    def __init__(self, door: Door, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        self._door = door
        self._config: Config | None = config
        self._server_state = server_state
        self._state: dict[str, Any] | None = app_state
        self._connection: ServerProtocol | None = None
        self._delegate: asyncio.Protocol | None = None
        self._session: Session | None = None
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._frames: list[bytes] | None = None
        self._size = 0
        self._budget = 0
        self._budget_second = 0
        self._closing = False
        self.native_pings = False
        self._reading = True
        self._close_timer: Timer | None = None
        self._write_timer: Timer | None = None

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server_state.connections.add(self)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        connection = self._connection
        if connection is None:
            if self._delegate is not None:
                self._delegate.data_received(data)
            else:
                self._upgrade(data)
            return
        if self._closing:
            self._drain(connection, data)
            return
        if self._frames is None and at_boundary(connection):
            data = self._take_texts(data)
            if self._session is None:
                self._drain(connection, data)
                return
        for start in range(0, len(data), SLICE):
            connection.receive_data(data[start : start + SLICE] if len(data) > SLICE else data)
            self._handle(connection.events_received())
            if self._session is None:
                return
            if connection.parser_exc is not None:
                self._broken(connection)
                return

    def _take_texts(self, data: bytes) -> bytes:
        """Handle the whole text messages at the front of ``data`` and return what is behind them."""
        behind = 0
        for message, end in whole_texts(data, self._door.settings.websocket.message_size_limit):
            behind = end
            self._message(message)
            if self._session is None:
                break
        return data[behind:] if behind else data

    def _drain(self, connection: ServerProtocol, data: bytes) -> None:
        """Our close frame is out: look for the peer's, for a bounded number of bytes, and answer nothing else."""
        self._size += len(data)
        if self._size > self._door.settings.websocket.message_size_limit:
            self._transport.abort()
            return
        for start in range(0, len(data), SLICE):
            connection.receive_data(data[start : start + SLICE])
            connection.events_received()
            connection.data_to_send()
        if connection.close_rcvd is not None:
            self._transport.close()

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._delegate is not None:
            self._delegate.connection_lost(exc)
            return
        self._server_state.connections.discard(self)
        self._closing = True
        for timer in (self._close_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        if self._session is not None:
            self._session.lost()
            self._session = None
        self._connection = None

    def pause_writing(self) -> None:
        if self._session is not None:
            self._session.write_paused()
            if self._write_timer is None:
                self._watch_writing(self.buffered())

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if self._session is not None:
            self._session.write_resumed()

    def shutdown(self) -> None:
        """uvicorn's call to end this connection now."""
        self.close(codes.SHUTDOWN)

    def abort(self) -> None:
        """Drop this connection without waiting for the peer."""
        self.close(codes.SHUTDOWN, abort=True)
        self._transport.abort()

    # Handshake

    def _upgrade(self, data: bytes) -> None:
        """Take the upgrade request that uvicorn has parsed and put together again, always in one piece."""
        assert self._config is not None
        path = data.split(b" ", 2)[1].partition(b"?")[0].decode("latin-1")
        if path != self._door.path:
            self._hand_over(data)
            return
        connection = ServerProtocol(
            extensions=self._door.extensions,
            subprotocols=SUBPROTOCOLS,
            select_subprotocol=_json_or_none,
            max_size=self._door.settings.websocket.message_size_limit,
            logger=_silent,
        )
        connection.receive_data(without_empty_subprotocol(data))
        events = connection.events_received()
        request = next((each for each in events if isinstance(each, Request)), None)
        if request is None or connection.parser_exc is not None:
            self._refuse(connection, Refusal(400, "The WebSocket handshake cannot be read."))
            return
        query = parse_qs(request.path.partition("?")[2])
        refusal = self._door.refusal(request.headers.get_all, query)
        if refusal is not None:
            self._refuse(connection, refusal)
            return
        response = connection.accept(request)
        connection.send_response(response)
        self._transport.write(b"".join(connection.data_to_send()))
        if response.status_code != 101:
            self._transport.close()
            return
        self.native_pings = query.get("cf_ws_frame_ping_pong") == ["true"]
        self._accepted(connection, request)

    def _accepted(self, connection: ServerProtocol, request: Request) -> None:
        self._config = None
        self._state = None
        self._connection = connection
        self.wire = TEXT_FRAMES
        for extension in connection.extensions:
            if isinstance(extension, PerMessageDeflate):
                self.wire = self._door.compressed(extension.local_max_window_bits)
        transport = self._transport
        transport.set_write_buffer_limits(high=min(HIGH_WATER, self._door.settings.client.queue_max_size))
        self.write = transport.write
        self.buffered = transport.get_write_buffer_size
        self._session = Session(self._door.node, self, header_user=self._door.header_user(request.headers.get_all))

    def _refuse(self, connection: ServerProtocol, refusal: Refusal) -> None:
        headers = Headers({"Connection": "close", "Content-Length": str(len(refusal.text.encode()))})
        headers["Content-Type"] = "text/plain; charset=utf-8"
        response = Response(refusal.status, refusal.phrase, headers, refusal.text.encode())
        self._transport.write(response.serialize())
        self._transport.close()
        self._closing = True
        self._connection = connection

    def _hand_over(self, data: bytes) -> None:
        """Not a path of the hub: let uvicorn and the application have the connection."""
        assert self._config is not None and self._state is not None
        self._server_state.connections.discard(self)
        other = WebSocketsSansIOProtocol(self._config, self._server_state, self._state)
        other.logger = _silent  # whoever asks for what is not there is nobody's business
        other.connection_made(self._transport)
        other.data_received(data)
        self._delegate = other
        # uvicorn sets this protocol once more after it has fed the request: be replaced after that.
        asyncio.get_running_loop().call_soon(self._transport.set_protocol, other)

    # Frames

    def _handle(self, events: list[Any]) -> None:
        for event in events:
            if self._session is None:
                return
            if not isinstance(event, Frame):
                continue
            if event.opcode is Opcode.TEXT or event.opcode is Opcode.CONT:
                self._message_part(event)
            elif event.opcode is Opcode.BINARY:
                self._session.close(codes.BAD_REQUEST_DISCONNECT)
            elif event.opcode is Opcode.PING or event.opcode is Opcode.PONG:
                self._control()
                if event.opcode is Opcode.PONG and self._session is not None:
                    self._session.native_pong()
            elif event.opcode is Opcode.CLOSE:
                self._closed_by_peer()

    def _message_part(self, event: Frame) -> None:
        data = bytes(event.data)
        if self._frames is None:
            if event.fin:
                self._message(data)
                return
            self._frames = [data]
            return
        self._frames.append(data)
        if len(self._frames) > self._door.settings.websocket.max_fragments:
            self._frames = None
            self._fail(1008, "too many fragments")
        elif event.fin:
            whole, self._frames = b"".join(self._frames), None
            self._message(whole)

    def _message(self, data: bytes) -> None:
        assert self._session is not None
        if not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError:
                self._fail(1007, "invalid UTF-8")
                return
        self._session.receive(data)

    def _control(self) -> None:
        """Answer a ping, within a budget: an answer is written whether or not the peer reads."""
        assert self._session is not None and self._connection is not None
        second = int(self._door.node.loop.time())
        if second != self._budget_second:
            self._budget_second, self._budget = second, self._door.settings.websocket.ping_flood_limit
        self._budget -= 1
        if self._budget < 0:
            self._session.close(codes.TOO_MANY_REQUESTS_DISCONNECT)
        elif self._connection.state is State.OPEN:
            # Otherwise a close frame waits behind the pong, and answers to what came before it are still to be written.
            self.write(b"".join(self._connection.data_to_send()))

    def _closed_by_peer(self) -> None:
        """The peer has sent a close frame; ours, if it was not sent already, is waiting to be."""
        assert self._connection is not None
        output = b"".join(self._connection.data_to_send())
        if output:
            self._transport.write(output)
        self._closing = True
        session, self._session = self._session, None
        if session is not None:
            session.lost()
        self._transport.close()

    def _broken(self, connection: ServerProtocol) -> None:
        """The peer broke the WebSocket protocol; websockets has chosen the close code."""
        if isinstance(connection.parser_exc, PayloadTooBig):
            self._door.node.metrics.refused["message too big"] += 1
        output = b"".join(connection.data_to_send())
        self._end_with(output)

    def _fail(self, code: int, reason: str) -> None:
        assert self._connection is not None
        if self._connection.state is State.OPEN:
            self._connection.fail(code, reason)
        self._end_with(b"".join(self._connection.data_to_send()))

    def _end_with(self, output: bytes) -> None:
        """Write a last frame and end; the peer's answer to it is of no interest."""
        if output:
            self._transport.write(output)
        self._closing = True
        session, self._session = self._session, None
        if session is not None:
            session.lost()
        self._linger()

    # SessionTransport

    def ping(self) -> None:
        self.write(NATIVE_PING)

    def close(self, disconnect: Disconnect, *, abort: bool = False) -> None:
        if self._closing:
            return
        self._closing = True
        session, self._session = self._session, None
        if session is not None and not session.closed:
            session.lost()
        if abort or self._connection is None:
            self._transport.abort()
            return
        if self._connection.state is State.OPEN:
            self._connection.send_close(disconnect.code, disconnect.reason)
        self._transport.write(b"".join(self._connection.data_to_send()))
        self._session = None
        self._linger()

    def _linger(self) -> None:
        """Give the peer a moment to close, then drop it, whatever it still has not read."""
        if not self._transport.is_closing():
            self._close_timer = self._door.node.wheel.call_later(CLOSE_TIMEOUT, self._transport.abort)
            if not self._reading:
                self.resume_reading()

    def pause_reading(self) -> None:
        if self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def _watch_writing(self, before: int) -> None:
        """Drop a peer that takes nothing at all for ``websocket.write_timeout``."""
        timeout = self._door.settings.websocket.write_timeout.total_seconds()
        self._write_timer = self._door.node.wheel.call_later(timeout, lambda: self._check_writing(before))

    def _check_writing(self, before: int) -> None:
        self._write_timer = None
        session = self._session
        if session is None or not session.paused:
            return
        left = self.buffered() - session.paused_bytes
        if left >= before and not session.is_conflating:
            session.close(codes.WRITE_ERROR)
        else:
            self._watch_writing(left)


def at_boundary(connection: ServerProtocol) -> bool:
    """Whether the parser waits for the first byte of a frame, so that what comes next may be read without it."""
    if connection.state is not State.OPEN:
        return False
    waiting: Any = connection.parser
    while waiting.gi_yieldfrom is not None:
        waiting = waiting.gi_yieldfrom
    return waiting.gi_code is _AT_EOF


def without_empty_subprotocol(data: bytes) -> bytes:
    """Take out an empty ``Sec-WebSocket-Protocol`` header, which some clients send and the parser refuses."""
    lowered = data.lower()
    at = lowered.find(b"\r\nsec-websocket-protocol:")
    while at >= 0:
        end = data.find(b"\r\n", at + 2)
        if not data[data.find(b":", at) + 1 : end].strip(b" \t,"):
            data = data[:at] + data[end:]
            lowered = data.lower()
            at = lowered.find(b"\r\nsec-websocket-protocol:", at)
        else:
            at = lowered.find(b"\r\nsec-websocket-protocol:", end)
    return data


def _json_or_none(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """JSON if it was offered; otherwise none, which means JSON as well."""
    return SUBPROTOCOLS[0] if SUBPROTOCOLS[0] in offered else None
