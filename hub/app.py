"""An application's own code inside the hub: RPC methods and handlers, loaded with ``--app package.module:object``.

    from hub.app import App, Refuse

    app = App()

    @app.rpc("sum")
    async def add(context, data):
        numbers = orjson.loads(data)
        return {"sum": sum(numbers)}

    @app.on_publish
    async def no_shouting(event):
        if event.data.isupper():
            raise Refuse(1001, "please do not shout")

A handler returns ``None`` to let the hub's own rules decide, a reply object to allow or change, or raises ``Refuse`` (an
error reply) or ``DisconnectClient``. Anything else that it raises is logged and becomes error 100.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from hub.codes import DISCONNECTS, ERRORS, CloseSession, Disconnect, Error, ReplyError
from storage.contract import Position


class Refuse(ReplyError):
    """Answer the command with an error: ``code`` from 400 to 1999, or one of the protocol's own."""

    def __init__(self, code: int, message: str, *, temporary: bool = False) -> None:
        if not 400 <= code <= 1999 and all(code != known.code for known in ERRORS):
            raise ValueError(f"an error code is 400 to 1999 or one of the protocol's own, not {code}")
        super().__init__(Error(code, message, temporary))


class DisconnectClient(CloseSession):
    """Close the client's connection: ``code`` from 4000 to 4999 (from 4500 on, SDKs do not come back)."""

    def __init__(self, code: int, reason: str) -> None:
        if not 4000 <= code <= 4999 and all(code != known.code for known in DISCONNECTS):
            raise ValueError(f"a disconnect code is 4000 to 4999 or one of the protocol's own, not {code}")
        if len(reason.encode()) > 123:
            raise ValueError("the reason of a disconnect is at most 123 bytes")
        super().__init__(Disconnect(code, reason))


@dataclass(frozen=True, slots=True)
class ClientContext:
    """The session that asks. ``info`` is the raw JSON that others see of it, ``meta`` the token's own."""

    client: str
    user: str
    info: bytes = b""
    meta: bytes = b""


@dataclass(frozen=True, slots=True)
class ConnectEvent:
    """A client wants to connect. ``user`` is the verified token's, ``None`` when there was no token."""

    client: str
    user: str | None
    data: bytes
    name: str
    version: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class ConnectReply:
    """Lets a client in. Fields left at their default keep what the token said. JSON values are raw bytes."""

    user: str | None = None
    info: bytes | None = None
    data: bytes = b""
    channels: Sequence[str] = ()
    expire_at: int | None = None
    """Unix seconds at which the connection is closed unless refreshed by the server API; ``None`` keeps the token's."""


@dataclass(frozen=True, slots=True)
class SubscribeEvent:
    """A client wants to subscribe; ``token_granted`` when a valid subscription token allows it already."""

    context: ClientContext
    channel: str
    data: bytes
    token_granted: bool


@dataclass(frozen=True, slots=True)
class SubscribeReply:
    """Allows a subscription, whatever the namespace says."""

    info: bytes | None = None
    data: bytes = b""
    expire_at: int = 0


@dataclass(frozen=True, slots=True)
class PublishEvent:
    """A client wants to publish."""

    context: ClientContext
    channel: str
    data: bytes


@dataclass(frozen=True, slots=True)
class PublishReply:
    """Allows a publication, whatever the namespace says, and may change it."""

    data: bytes | None = None
    tags: dict[str, str] | None = None
    skip_history: bool = False
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True)
class DisconnectEvent:
    """A connected client has gone; ``code`` and ``reason`` as in the table of disconnects."""

    context: ClientContext
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class MessageEvent:
    """A client sent an asynchronous message (``send``)."""

    context: ClientContext
    data: bytes


ApiMethod = Callable[[bytes], Awaitable[Any]]
RpcMethod = Callable[[ClientContext, bytes], Awaitable[Any]]
ConnectHandler = Callable[[ConnectEvent], Awaitable[ConnectReply | None]]
SubscribeHandler = Callable[[SubscribeEvent], Awaitable[SubscribeReply | None]]
PublishHandler = Callable[[PublishEvent], Awaitable[PublishReply | None]]
DisconnectHandler = Callable[[DisconnectEvent], Awaitable[None]]
MessageHandler = Callable[[MessageEvent], Awaitable[None]]
Method = TypeVar("Method", bound=RpcMethod)
OwnApiMethod = TypeVar("OwnApiMethod", bound=ApiMethod)


class Actions(Protocol):
    """What a running hub does for its application."""

    async def publish(
        self, channel: str, data: Any, *, tags: dict[str, str] | None, idempotency_key: str
    ) -> Position: ...

    def send(self, client: str, data: Any) -> bool: ...


@dataclass(slots=True)
class App:
    """The registry of an application's methods and handlers. Setting a handler twice replaces it."""

    methods: dict[str, RpcMethod] = field(default_factory=dict)
    api_methods: dict[str, ApiMethod] = field(default_factory=dict)
    connect_handler: ConnectHandler | None = None
    subscribe_handler: SubscribeHandler | None = None
    publish_handler: PublishHandler | None = None
    disconnect_handler: DisconnectHandler | None = None
    message_handler: MessageHandler | None = None
    actions: Actions | None = None
    """Set by the hub that runs the application."""

    def rpc(self, name: str) -> Callable[[Method], Method]:
        """Register an RPC method. It gets raw JSON bytes and returns bytes (raw JSON) or anything that is JSON."""

        def register(method: Method) -> Method:
            if name in self.methods:
                raise ValueError(f"the RPC method {name!r} is registered twice")
            self.methods[name] = method
            return method

        return register

    def api(self, name: str) -> Callable[[OwnApiMethod], OwnApiMethod]:
        """Register a method for ``rpc`` of the server API: a backend calls it, with raw JSON ``params``."""

        def register(method: OwnApiMethod) -> OwnApiMethod:
            if name in self.api_methods:
                raise ValueError(f"the API method {name!r} is registered twice")
            self.api_methods[name] = method
            return method

        return register

    def on_connect(self, handler: ConnectHandler) -> ConnectHandler:
        """Called after the token was verified (or with ``user=None`` when there is none)."""
        self.connect_handler = handler
        return handler

    def on_subscribe(self, handler: SubscribeHandler) -> SubscribeHandler:
        """Called before the namespace's own permissions are asked."""
        self.subscribe_handler = handler
        return handler

    def on_publish(self, handler: PublishHandler) -> PublishHandler:
        """Called before the namespace's own permissions are asked."""
        self.publish_handler = handler
        return handler

    def on_disconnect(self, handler: DisconnectHandler) -> DisconnectHandler:
        """Called once after a session that had connected is gone."""
        self.disconnect_handler = handler
        return handler

    def on_message(self, handler: MessageHandler) -> MessageHandler:
        """Called for each ``send`` of a client."""
        self.message_handler = handler
        return handler

    async def publish(
        self, channel: str, data: Any, *, tags: dict[str, str] | None = None, idempotency_key: str = ""
    ) -> Position:
        """Publish from within the hub, with no permission asked; ``data`` is raw JSON bytes or anything that is JSON.

        Returns the position; (0, "") in a channel without history. Raises ``channels.errors.ChannelError``.
        """
        return await self._running().publish(channel, data, tags=tags, idempotency_key=idempotency_key)

    def send(self, client: str, data: Any) -> bool:
        """Send an asynchronous message (``message`` event of SDKs) to one client; false if it is not connected here."""
        return self._running().send(client, data)

    def _running(self) -> Actions:
        if self.actions is None:
            raise RuntimeError("the application is not loaded into a running hub")
        return self.actions


class AppNotLoaded(Exception):
    """``--app`` names something that cannot be loaded; the text says what and why."""


def load_app(path: str) -> App:
    """Import ``package.module:object`` and return the ``App`` it names; raises ``AppNotLoaded``."""
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise AppNotLoaded(f"app: {path!r} is not of the form package.module:object, for example myproject.hooks:app")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise AppNotLoaded(f"app: cannot import {module_name!r}: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not isinstance(found, App):
        raise AppNotLoaded(f"app: {name!r} in {module_name!r} is not a hub.app.App but {type(found).__name__}")
    return found
