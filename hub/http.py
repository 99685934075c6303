"""The HTTP side of uvicorn, with bounds: how long and how large a request's head may be, and how many may be pending."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from hub.door import Door

if TYPE_CHECKING:
    from hub.wheel import Timer

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
        self._door = door
        self._head_size = 0
        self._deadline: Timer | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._door.heads >= self._door.settings.websocket.max_pending_handshakes:
            self._refuse(b"503 Service Unavailable", "too many pending requests")
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._deadline is None and not self._in_cycle():
            self._await_head()
        if self._deadline is not None:
            self._head_size += len(data)
        super().data_received(data)
        if self._deadline is not None and self._head_size > self._door.settings.websocket.max_header_size:
            self._refuse(b"431 Request Header Fields Too Large", "header too large")

    def on_headers_complete(self) -> None:
        if self._head_size > self._door.settings.websocket.max_header_size + 65536:
            self._refuse(b"431 Request Header Fields Too Large", "header too large")
        self._have_head()
        super().on_headers_complete()

    def _in_cycle(self) -> bool:
        """A request is being answered; what arrives meanwhile belongs to its body."""
        cycle: object = self.cycle  # None before the first request, whatever its annotation says
        return cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        self._door.heads += 1
        self._head_size = 0
        timeout = self._door.settings.websocket.handshake_timeout.total_seconds()
        self._deadline = self._door.node.wheel.call_later(timeout, self._too_late)

    def _have_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            self._door.heads -= 1

    def _too_late(self) -> None:
        self._refuse(b"408 Request Timeout", "header too slow")

    def _refuse(self, status: bytes, reason: str) -> None:
        self._door.node.metrics.refused[reason] += 1
        self._have_head()
        if not self.transport.is_closing():
            self.transport.write(_REFUSED % status)
            self.transport.close()
