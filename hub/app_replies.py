"""What an application's handlers return, checked before it goes into anybody's frame.

A wrong reply raises ``TypeError``: the client that asked gets error 100, the log says which handler and what was wrong, and
nobody else notices.
"""

from __future__ import annotations

from dataclasses import replace

from hub.app import ConnectReply, PublishReply, SubscribeReply
from hub.protocol import is_json, one_line


def checked_connect_reply(reply: ConnectReply | None) -> ConnectReply | None:
    """The reply of ``on_connect`` with its JSON on one line each; raises ``TypeError``."""
    if reply is None:
        return None
    _expect("on_connect", "reply", reply, ConnectReply)
    _expect("on_connect", "user", reply.user, str, type(None))
    _expect("on_connect", "expire_at", reply.expire_at, int, type(None))
    for channel in reply.channels:
        _expect("on_connect", "channels", channel, str)
    return replace(
        reply,
        info=None if reply.info is None else _json("on_connect", "info", reply.info),
        data=_json("on_connect", "data", reply.data),
    )


def checked_subscribe_reply(reply: SubscribeReply | None) -> SubscribeReply | None:
    """The reply of ``on_subscribe`` with its JSON on one line each; raises ``TypeError``."""
    if reply is None:
        return None
    _expect("on_subscribe", "reply", reply, SubscribeReply)
    _expect("on_subscribe", "expire_at", reply.expire_at, int)
    return replace(
        reply,
        info=None if reply.info is None else _json("on_subscribe", "info", reply.info),
        data=_json("on_subscribe", "data", reply.data),
    )


def checked_publish_reply(reply: PublishReply | None) -> PublishReply | None:
    """The reply of ``on_publish``; its payload is checked with the channel's own rules later. Raises ``TypeError``."""
    if reply is None:
        return None
    _expect("on_publish", "reply", reply, PublishReply)
    _expect("on_publish", "data", reply.data, bytes, type(None))
    _expect("on_publish", "idempotency_key", reply.idempotency_key, str)
    for key, value in (reply.tags or {}).items():
        _expect("on_publish", "tags", key, str)
        _expect("on_publish", "tags", value, str)
    return reply


def _expect(handler: str, name: str, value: object, *kinds: type) -> None:
    if not isinstance(value, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{handler} returned {name} of type {type(value).__name__} where {wanted} is due")


def _json(handler: str, name: str, value: bytes) -> bytes:
    _expect(handler, name, value, bytes)
    if value and not is_json(value):
        raise TypeError(f"{handler} returned {name} that is not JSON")
    return one_line(value)
