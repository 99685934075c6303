"""The door: what a connection must fulfil before it becomes a session, whatever transport it comes by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import NamedTuple, Protocol

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from hub.node import Node
from hub.wire import CompressedFrames

WEBSOCKET_PATH = "/connection/websocket"
JSON_PROTOCOL = "centrifuge-json"
"""The WebSocket subprotocol for JSON, which is spoken without any as well."""


class PendingHead(Protocol):
    """A connection whose request is not complete yet."""

    def give_way(self) -> None:
        """Close, since there are too many of them and this one waits longest."""


class Refusal(NamedTuple):
    """An HTTP answer instead of a connection."""

    status: int
    text: str

    @property
    def phrase(self) -> str:
        return HTTPStatus(self.status).phrase


HeaderValues = Callable[[str], list[str]]
"""All values of a header, by its name in whatever case."""


class Door:
    """Decides who may open a connection to this node. ``clock`` counts seconds."""

    def __init__(self, node: Node, *, clock: Callable[[], float]) -> None:
        self.node = node
        self.settings = node.settings
        self.path = WEBSOCKET_PATH
        self.heads: dict[PendingHead, None] = {}
        """Connections whose request is still being received, oldest first."""
        websocket = node.settings.websocket
        self._compressed: dict[int, CompressedFrames] = {}
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

    def refusal(self, headers: HeaderValues, query: Mapping[str, list[str]]) -> Refusal | None:
        """Why this connection is not taken, counted; ``None`` if it is."""
        refused = self._refusal(headers) or _not_json(headers, query)
        if refused is not None:
            self.node.metrics.refused[refused.text] += 1
        return refused

    def _refusal(self, headers: HeaderValues) -> Refusal | None:
        node, settings = self.node, self.settings
        if settings.websocket.disabled:
            return Refusal(404, "This transport is disabled.")
        if node.draining:
            return Refusal(503, "This node is shutting down.")
        origins = headers("Origin")
        trusted = settings.client.user_id_http_header
        if len(origins) > 1 or (trusted and len(headers(trusted)) > 1):
            return Refusal(400, "A header that counts once was sent twice.")
        if trusted and any(as_utf8(each) is None for each in headers(trusted)):
            return Refusal(400, "The user id in the header is not UTF-8.")
        if origins and not self._origins.fullmatch(origins[0].lower()):
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

    def compressed(self, window_bits: int) -> CompressedFrames:
        """The wire for clients that agreed on compression with a window of that many bits, the same for all of them."""
        websocket = self.settings.websocket
        return self._compressed.setdefault(
            window_bits,
            CompressedFrames(
                level=websocket.compression_level,
                min_size=websocket.compression_min_size,
                window_bits=window_bits,
            ),
        )

    def header_user(self, headers: HeaderValues) -> str | None:
        """The user that a trusted proxy names, if the hub is set to believe one."""
        name = self.settings.client.user_id_http_header
        named = headers(name) if name else []
        return as_utf8(named[0]) if named else None


def _not_json(headers: HeaderValues, query: Mapping[str, list[str]]) -> Refusal | None:
    """Why a client that reads nothing but Protobuf is not taken."""
    offered = {each.strip() for value in headers("Sec-WebSocket-Protocol") for each in value.split(",")}
    asked = query.get("format", []) + query.get("cf_protocol", [])
    if "protobuf" in asked or ("centrifuge-protobuf" in offered and JSON_PROTOCOL not in offered):
        return Refusal(400, "This hub speaks JSON only: let the client use the JSON protocol.")
    return None


def as_utf8(value: str) -> str | None:
    """A header's value, which servers hand on in Latin-1, as the UTF-8 that it is; ``None`` if it is not."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return None


def origin_pattern(globs: Iterable[str]) -> re.Pattern[str]:
    """One expression for a list of origins, each with ``*`` for any part; it matches nothing if the list is empty."""
    alternatives = [".*".join(re.escape(part) for part in each.lower().split("*")) for each in globs]
    return re.compile("|".join(f"(?:{each})" for each in alternatives) if alternatives else r"(?!)")
