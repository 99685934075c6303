"""The door: what a connection must fulfil before it becomes a session, whatever transport it comes by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import NamedTuple, Protocol

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from hub.node import Node
from hub.wire import CompressedFrames

WEBSOCKET_PATH = "/connection/websocket"


class Refusal(NamedTuple):
    """An HTTP answer instead of a connection."""

    status: int
    text: str

    @property
    def phrase(self) -> str:
        return HTTPStatus(self.status).phrase


class RequestHeaders(Protocol):
    """Headers by name, whatever its case."""

    def get(self, key: str, /) -> str | None: ...


class Door:
    """Decides who may open a connection to this node; ``allowed_origins`` are globs with ``*``."""

    def __init__(self, node: Node, *, clock: Callable[[], float]) -> None:
        self.node = node
        self.settings = node.settings
        self.path = WEBSOCKET_PATH
        self.heads = 0
        """Requests whose head is still being received."""
        websocket = node.settings.websocket
        self.compressed = CompressedFrames(
            level=websocket.compression_level,
            min_size=websocket.compression_min_size,
        )
        self.extensions = (
            # Without context takeover one compressed frame serves everybody.
            [ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)]
            if websocket.compression
            else None
        )
        self._clock = clock
        self._origins = origin_pattern(node.settings.client.allowed_origins)
        self._second = 0
        self._this_second = 0

    def refusal(self, headers: RequestHeaders) -> Refusal | None:
        """Why this connection is not taken, counted; ``None`` if it is."""
        refused = self._refusal(headers)
        if refused is not None:
            self.node.metrics.refused[refused.text] += 1
        return refused

    def _refusal(self, headers: RequestHeaders) -> Refusal | None:
        node, settings = self.node, self.settings
        if settings.websocket.disabled:
            return Refusal(404, "This transport is disabled.")
        if node.draining:
            return Refusal(503, "This node is shutting down.")
        origin = headers.get("Origin")
        if origin is not None and not self._origins.fullmatch(origin.lower()):
            return Refusal(403, "This origin is not in client.allowed_origins.")
        limit = settings.client.connection_limit
        if limit and len(node.sessions) + len(node.pending) >= limit:
            return Refusal(503, "This node has reached client.connection_limit.")
        rate = settings.client.connection_rate_limit
        if rate:
            second = int(self._clock())
            if second != self._second:
                self._second, self._this_second = second, 0
            self._this_second += 1
            if self._this_second > rate:
                return Refusal(503, "This node has reached client.connection_rate_limit.")
        return None

    def header_user(self, headers: RequestHeaders) -> str | None:
        """The user that a trusted proxy names, if the hub is set to believe one."""
        name = self.settings.client.user_id_http_header
        return headers.get(name) if name else None


def origin_pattern(globs: Iterable[str]) -> re.Pattern[str]:
    """One expression for a list of origins, each with ``*`` for any part; it matches nothing if the list is empty."""
    alternatives = [".*".join(re.escape(part) for part in each.lower().split("*")) for each in globs]
    return re.compile("|".join(f"(?:{each})" for each in alternatives) if alternatives else r"(?!)")
