"""Every code that goes over the wire, in one table each: the client protocol's errors, disconnects and unsubscribes.

Error codes travel in replies and in the server API, disconnect codes as the WebSocket close code with their reason,
unsubscribe codes in a push. Applications may use error codes 400 to 1999, disconnect codes 4000 to 4999 and
unsubscribe codes 2000 to 2999 of their own.
"""

from __future__ import annotations

from typing import NamedTuple


class Error(NamedTuple):
    """An error reply; ``temporary`` tells the client that the same request may succeed later."""

    code: int
    message: str
    temporary: bool = False


class Disconnect(NamedTuple):
    """Why a connection is closed by the hub."""

    code: int
    reason: str

    @property
    def reconnect(self) -> bool:
        """Whether official SDKs connect again after this code."""
        return not (3500 <= self.code <= 3999 or 4500 <= self.code <= 4999)


class Unsubscribe(NamedTuple):
    """Why a subscription is ended by the hub; from 2500 on, SDKs subscribe again."""

    code: int
    reason: str


INTERNAL = Error(100, "internal server error", True)
UNAUTHORIZED = Error(101, "unauthorized")
UNKNOWN_CHANNEL = Error(102, "unknown channel")
PERMISSION_DENIED = Error(103, "permission denied")
METHOD_NOT_FOUND = Error(104, "method not found")
ALREADY_SUBSCRIBED = Error(105, "already subscribed")
LIMIT_EXCEEDED = Error(106, "limit exceeded")
BAD_REQUEST = Error(107, "bad request")
NOT_AVAILABLE = Error(108, "not available")
TOKEN_EXPIRED = Error(109, "token expired")
EXPIRED = Error(110, "expired")
TOO_MANY_REQUESTS = Error(111, "too many requests", True)
UNRECOVERABLE_POSITION = Error(112, "unrecoverable position")
CONCURRENT_PAGINATION = Error(113, "concurrent pagination", True)

ERRORS = (
    INTERNAL, UNAUTHORIZED, UNKNOWN_CHANNEL, PERMISSION_DENIED, METHOD_NOT_FOUND, ALREADY_SUBSCRIBED, LIMIT_EXCEEDED,
    BAD_REQUEST, NOT_AVAILABLE, TOKEN_EXPIRED, EXPIRED, TOO_MANY_REQUESTS, UNRECOVERABLE_POSITION,
    CONCURRENT_PAGINATION,
)  # fmt: skip

CONNECTION_CLOSED = Disconnect(3000, "connection closed")
SHUTDOWN = Disconnect(3001, "shutdown")
SERVER_ERROR = Disconnect(3004, "internal server error")
CONNECTION_EXPIRED = Disconnect(3005, "connection expired")
SUBSCRIPTION_EXPIRED = Disconnect(3006, "subscription expired")
SLOW = Disconnect(3008, "slow")
WRITE_ERROR = Disconnect(3009, "write error")
INSUFFICIENT_STATE = Disconnect(3010, "insufficient state")
FORCE_RECONNECT = Disconnect(3011, "force reconnect")
NO_PONG = Disconnect(3012, "no pong")
TOO_MANY_REQUESTS_DISCONNECT = Disconnect(3013, "too many requests")
STATE_INVALIDATED = Disconnect(3014, "state invalidated")
INVALID_TOKEN = Disconnect(3500, "invalid token")
BAD_REQUEST_DISCONNECT = Disconnect(3501, "bad request")
STALE = Disconnect(3502, "stale")
FORCE_DISCONNECT = Disconnect(3503, "force disconnect")
CONNECTION_LIMIT = Disconnect(3504, "connection limit")
CHANNEL_LIMIT = Disconnect(3505, "channel limit")
INAPPROPRIATE_PROTOCOL = Disconnect(3506, "inappropriate protocol")
PERMISSION_DENIED_DISCONNECT = Disconnect(3507, "permission denied")
NOT_AVAILABLE_DISCONNECT = Disconnect(3508, "not available")
TOO_MANY_ERRORS = Disconnect(3509, "too many errors")

DISCONNECTS = (
    CONNECTION_CLOSED, SHUTDOWN, SERVER_ERROR, CONNECTION_EXPIRED, SUBSCRIPTION_EXPIRED, SLOW, WRITE_ERROR,
    INSUFFICIENT_STATE, FORCE_RECONNECT, NO_PONG, TOO_MANY_REQUESTS_DISCONNECT, STATE_INVALIDATED, INVALID_TOKEN,
    BAD_REQUEST_DISCONNECT, STALE, FORCE_DISCONNECT, CONNECTION_LIMIT, CHANNEL_LIMIT, INAPPROPRIATE_PROTOCOL,
    PERMISSION_DENIED_DISCONNECT, NOT_AVAILABLE_DISCONNECT, TOO_MANY_ERRORS,
)  # fmt: skip

CLIENT_UNSUBSCRIBED = Unsubscribe(0, "client unsubscribed")
CLIENT_DISCONNECTED = Unsubscribe(1, "client disconnected")
SERVER_UNSUBSCRIBE = Unsubscribe(2000, "server unsubscribe")
UNSUBSCRIBE_INSUFFICIENT_STATE = Unsubscribe(2500, "insufficient state")
UNSUBSCRIBE_EXPIRED = Unsubscribe(2501, "subscription expired")
UNSUBSCRIBE_STATE_INVALIDATED = Unsubscribe(2502, "state invalidated")

UNSUBSCRIBES = (
    CLIENT_UNSUBSCRIBED, CLIENT_DISCONNECTED, SERVER_UNSUBSCRIBE, UNSUBSCRIBE_INSUFFICIENT_STATE, UNSUBSCRIBE_EXPIRED,
    UNSUBSCRIBE_STATE_INVALIDATED,
)  # fmt: skip

MESSAGE_TOO_BIG = 1009
"""WebSocket close code for a message above ``websocket.message_size_limit``."""


class ReplyError(Exception):
    """Ends a command with an error reply."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


class CloseSession(Exception):
    """Ends a command, and the session with it."""

    def __init__(self, disconnect: Disconnect) -> None:
        super().__init__(disconnect.reason)
        self.disconnect = disconnect
