"""What a running hub does for its application: publish, and send to one client."""

from __future__ import annotations

from typing import Any

from channels.errors import BadRequest
from channels.history import Guard
from hub.commands.messages import encode_result
from hub.node import Node
from hub.payload import checked_payload
from hub.protocol import message_push
from storage.contract import Position, Publication


class NodeActions:
    """``hub.app.Actions`` of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def publish(self, channel: str, data: Any, *, tags: dict[str, str] | None, idempotency_key: str) -> Position:
        resolved = self._node.rules.resolve(channel)
        publication = Publication(
            data=checked_payload(resolved.options, encode_result(data)),
            tags=tags,
            delta=resolved.options.delta_publish,
        )
        guard = Guard(idempotency_key=idempotency_key)
        return (await self._node.publish(resolved, publication, guard, way="app")).position

    def send(self, client: str, data: Any) -> bool:
        session = self._node.sessions.get(client)
        encoded = encode_result(data)
        if not encoded:
            raise BadRequest("there is nothing to send")
        if session is None:
            return False
        session.send(message_push(encoded))
        return True
