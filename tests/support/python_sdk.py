"""Handlers for the official Python SDK that remember every event and let a test wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from centrifuge import Client, ClientEventHandler, ReplyError, Subscription, SubscriptionEventHandler

from tests.support.tokens import connection_token

TIMEOUT = 10.0


class _Log:
    """Events in order, as (name, context) pairs; `wait` returns the context of the count-th event of a name."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self._changed = asyncio.Event()

    def of(self, name: str) -> list[Any]:
        return [context for event, context in self.events if event == name]

    async def wait(self, name: str, count: int = 1, *, timeout: float = TIMEOUT) -> Any:
        await self.until(lambda: len(self.of(name)) >= count, f"{name} number {count}", timeout=timeout)
        return self.of(name)[count - 1]

    async def until(self, condition: Callable[[], bool], what: str, *, timeout: float = TIMEOUT) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(f"waited {timeout} s for {what}; came: {self.events[-20:]}") from None

    def _add(self, name: str, context: Any) -> None:
        self.events.append((name, context))
        self._changed.set()

    @property
    def data(self) -> list[Any]:
        """The payloads of all publications so far."""
        return [context.pub.data for context in self.of("publication")]

    async def publications(self, count: int, *, timeout: float = TIMEOUT) -> list[Any]:
        """The payloads of all publications, as soon as there are `count`."""
        await self.wait("publication", count, timeout=timeout)
        return self.data


class ClientLog(_Log, ClientEventHandler):  # type: ignore[misc]
    """Events of a client and of its server-side subscriptions."""

    async def on_connecting(self, ctx: Any) -> None:
        self._add("connecting", ctx)

    async def on_connected(self, ctx: Any) -> None:
        self._add("connected", ctx)

    async def on_disconnected(self, ctx: Any) -> None:
        self._add("disconnected", ctx)

    async def on_error(self, ctx: Any) -> None:
        self._add("error", ctx)

    async def on_subscribed(self, ctx: Any) -> None:
        self._add("subscribed", ctx)

    async def on_subscribing(self, ctx: Any) -> None:
        self._add("subscribing", ctx)

    async def on_unsubscribed(self, ctx: Any) -> None:
        self._add("unsubscribed", ctx)

    async def on_publication(self, ctx: Any) -> None:
        self._add("publication", ctx)

    async def on_join(self, ctx: Any) -> None:
        self._add("join", ctx)

    async def on_leave(self, ctx: Any) -> None:
        self._add("leave", ctx)


class SubscriptionLog(_Log, SubscriptionEventHandler):  # type: ignore[misc]
    """Events of one subscription."""

    async def on_subscribing(self, ctx: Any) -> None:
        self._add("subscribing", ctx)

    async def on_subscribed(self, ctx: Any) -> None:
        self._add("subscribed", ctx)

    async def on_unsubscribed(self, ctx: Any) -> None:
        self._add("unsubscribed", ctx)

    async def on_publication(self, ctx: Any) -> None:
        self._add("publication", ctx)

    async def on_join(self, ctx: Any) -> None:
        self._add("join", ctx)

    async def on_leave(self, ctx: Any) -> None:
        self._add("leave", ctx)

    async def on_error(self, ctx: Any) -> None:
        self._add("error", ctx)


class Clients:
    """Makes clients for a test and disconnects them all at its end."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._clients: list[Client] = []

    def make(self, user: str = "42", *, url: str | None = None, **options: Any) -> tuple[Client, ClientLog]:
        """A client that is not connected yet, and its log; a token of `user` unless the options bring one."""
        if "get_token" not in options:
            options.setdefault("token", connection_token(user))
        options = {"proxy": None, "min_reconnect_delay": 0.02, "max_reconnect_delay": 0.2, **options}
        log = ClientLog()
        client = Client(url or self.url, events=log, **options)
        self._clients.append(client)
        return client, log

    async def connected(self, user: str = "42", **options: Any) -> tuple[Client, ClientLog]:
        client, log = self.make(user, **options)
        await client.connect()
        await log.wait("connected")
        return client, log

    async def close(self) -> None:
        """Disconnect all, and wait for the sockets, which the SDK closes in tasks of its own."""
        for client in self._clients:
            await client.disconnect()
            await asyncio.gather(*client._background_tasks, return_exceptions=True)


async def subscribed(client: Client, channel: str, **options: Any) -> tuple[Subscription, SubscriptionLog]:
    """Subscribe and wait until it is done."""
    log = SubscriptionLog()
    options = {"min_resubscribe_delay": 0.02, **options}
    subscription = client.new_subscription(channel, log, **options)
    await subscription.subscribe()
    await log.wait("subscribed")
    return subscription, log


async def error_code(call: Any) -> int:
    """The code of the error with which the call ends; a success fails the test."""
    try:
        result = await call
    except ReplyError as error:
        code: int = error.code
        return code
    raise AssertionError(f"expected an error, got {result}")
