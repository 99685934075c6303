"""The commands of the client protocol, one function each: ``(session, command id, request)``.

``COMMANDS`` lists them in the order in which the protocol looks for them in a message, with the kind of rate limit each
falls under.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from auth.ratelimit import HISTORY, OTHER, PUBLISH, RPC, SUBSCRIBE
from hub.commands.connect import connect, refresh
from hub.commands.messages import ping, rpc, send
from hub.commands.publish import publish
from hub.commands.reads import history, presence, presence_stats
from hub.commands.subscribe import sub_refresh, subscribe, unsubscribe

COMMANDS: tuple[tuple[str, int, Callable[[Any, int, Any], Awaitable[None]]], ...] = (
    ("connect", OTHER, connect),
    ("ping", OTHER, ping),
    ("subscribe", SUBSCRIBE, subscribe),
    ("unsubscribe", SUBSCRIBE, unsubscribe),
    ("publish", PUBLISH, publish),
    ("presence", HISTORY, presence),
    ("presence_stats", HISTORY, presence_stats),
    ("history", HISTORY, history),
    ("rpc", RPC, rpc),
    ("send", RPC, send),
    ("refresh", OTHER, refresh),
    ("sub_refresh", SUBSCRIBE, sub_refresh),
)
