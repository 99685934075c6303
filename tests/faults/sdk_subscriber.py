"""The same subscriber made of the official Python SDK, unmodified: it must see what the raw one sees."""

from __future__ import annotations

from collections.abc import Sequence

import centrifuge

from tests.faults.reconnecting import Stream


class _Events(centrifuge.SubscriptionEventHandler):
    """Notes what one subscription of the SDK reports."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    async def on_subscribed(self, ctx: centrifuge.SubscribedContext) -> None:
        stream = self.stream
        if ctx.was_recovering and not ctx.recovered:
            stream.surprises.append(f"recovery from {stream.offset} refused")
        if ctx.stream_position is not None:
            if stream.epoch and ctx.stream_position.epoch != stream.epoch:
                stream.surprises.append(f"epoch {stream.epoch} became {ctx.stream_position.epoch}")
            stream.epoch = ctx.stream_position.epoch
        stream.subscribed = stream.started = True

    async def on_subscribing(self, ctx: centrifuge.SubscribingContext) -> None:
        self.stream.subscribed = False

    async def on_unsubscribed(self, ctx: centrifuge.UnsubscribedContext) -> None:
        self.stream.surprises.append(f"unsubscribed for good: {ctx.code} {ctx.reason}")

    async def on_publication(self, ctx: centrifuge.PublicationContext) -> None:
        self.stream.delivered.append((ctx.pub.offset, ctx.pub.data["id"]))
        self.stream.offset = ctx.pub.offset


class _ClientEvents(centrifuge.ClientEventHandler):
    """Notes the SDK client giving up."""

    def __init__(self, failures: list[str]) -> None:
        self.failures = failures
        self.closing = False
        self.connects = 0

    async def on_connected(self, ctx: centrifuge.ConnectedContext) -> None:
        self.connects += 1

    async def on_disconnected(self, ctx: centrifuge.DisconnectedContext) -> None:
        if not self.closing:
            self.failures.append(f"closed for good: {ctx.code} {ctx.reason}")


class SdkSubscriber:
    """One ``centrifuge.Client`` with a recoverable subscription to each channel."""

    def __init__(self, port: int, token: str, channels: Sequence[str]) -> None:
        self.streams = {channel: Stream(channel) for channel in channels}
        self.failures: list[str] = []
        self._events = _ClientEvents(self.failures)
        self._client = centrifuge.Client(
            f"ws://127.0.0.1:{port}/connection/websocket",
            events=self._events,
            token=token,
            min_reconnect_delay=0.05,
            max_reconnect_delay=0.5,
            proxy=None,
        )

    @property
    def reconnects(self) -> int:
        return max(self._events.connects - 1, 0)

    async def start(self) -> None:
        for channel, stream in self.streams.items():
            subscription = self._client.new_subscription(
                channel,
                events=_Events(stream),
                recoverable=True,
                min_resubscribe_delay=0.05,
                max_resubscribe_delay=0.5,
            )
            await subscription.subscribe()
        await self._client.connect()

    async def stop(self) -> None:
        self._events.closing = True
        await self._client.disconnect()

    @property
    def settled(self) -> bool:
        """All subscriptions are established at this moment."""
        return all(stream.subscribed for stream in self.streams.values())
