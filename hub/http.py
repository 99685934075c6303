"""The HTTP side of uvicorn, with bounds: how long and how large a request's head may be, and how many may be pending."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import is_ssl
from uvicorn.server import ServerState

from hub.door import Door

if TYPE_CHECKING:
    from hub.wheel import Timer

_quiet = logging.getLogger("uvicorn.error.http")
_quiet.setLevel(logging.ERROR)  # malformed requests are anybody's to send: they are counted, not logged

_REFUSED = b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def protocol_class(door: Door) -> type[asyncio.Protocol]:
    """The HTTP protocol for uvicorn's ``http`` setting, bound to one hub."""

    class BoundProtocol(HubHttp):
        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None:
            super().__init__(door, config, server_state, app_state, _loop)

    return BoundProtocol


class HeadTooLarge(Exception):
    """Stops the parser in a request that was refused already."""


class HubHttp(HttpToolsProtocol):
    """One HTTP connection, until a WebSocket takes it over."""

    def __init__(
        self,
        door: Door,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self.logger = _quiet
        self._door = door
        self._head_size = 0
        self._incomplete = 0
        self._cycles: list[RequestResponseCycle] = []
        self._deadline: Timer | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        # uvicorn tells only the newest of several pipelined requests that the connection is gone.
        for cycle in self._cycles:
            cycle.disconnected = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        before = self._deadline
        super().data_received(data)
        if self._deadline is not None and self._deadline is before:
            self._incomplete += len(data)
            if self._incomplete > self._door.settings.websocket.max_header_size:
                self._refuse(b"431 Request Header Fields Too Large", "header too large")

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A client that has asked and will say no more still gets its answer."""
        if not self._in_cycle() or self.cycle.more_body or is_ssl(self.transport):
            return None
        self.cycle.keep_alive = False
        return True

    def _in_cycle(self) -> bool:
        newest: RequestResponseCycle | None = self.cycle  # None before the first request, whatever its annotation says
        return newest is not None and not newest.response_complete

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._deadline is None and not self._in_cycle():
            self._await_head()

    def on_url(self, url: bytes) -> None:
        self._head_size += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value) + 4
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._head_size > self._door.settings.websocket.max_header_size:
            self._refuse(b"431 Request Header Fields Too Large", "header too large")
            raise HeadTooLarge
        self._have_head()
        super().on_headers_complete()
        newest: RequestResponseCycle | None = self.cycle  # None on an upgrade, whatever its annotation says
        self._cycles = [each for each in (*self._cycles, newest) if each is not None and not each.response_complete]

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            self._door.node.metrics.refused["malformed request"] += 1
            super().send_400_response(msg)

    def _await_head(self) -> None:
        heads = self._door.heads
        if len(heads) >= self._door.settings.websocket.max_pending_handshakes:
            next(iter(heads)).give_way()
        heads[self] = None
        self._head_size = self._incomplete = 0
        timeout = self._door.settings.websocket.handshake_timeout.total_seconds()
        self._deadline = self._door.node.wheel.call_later(timeout, self._too_late)

    def _have_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            self._door.heads.pop(self, None)

    def give_way(self) -> None:
        self._refuse(b"503 Service Unavailable", "too many pending requests")

    def _too_late(self) -> None:
        self._refuse(b"408 Request Timeout", "header too slow")

    def _refuse(self, status: bytes, reason: str) -> None:
        self._door.node.metrics.refused[reason] += 1
        self._have_head()
        if not self.transport.is_closing():
            self.transport.write(_REFUSED % status)
            self.transport.close()
