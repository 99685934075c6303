"""The composition root: one hub, built from its settings."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from auth.tokens import TokenVerifier
from channels.broker_memory import MemoryBroker
from channels.names import ChannelRules
from channels.presence_memory import MemoryPresence
from hub.app import App, load_app
from hub.app_actions import NodeActions
from hub.door import Door
from hub.metrics import Metrics
from hub.node import Node
from hub.settings import Settings
from storage.sqlite import SQLiteStore

PRESENCE_TTL = 60.0
"""Seconds that a presence entry lives without being renewed, at least."""
STORE_CLOSE = timedelta(seconds=5)
"""Time that the store has at most to commit what it has accepted when the hub leaves."""
HOUSEKEEPING = 1.0
"""Seconds between removals of what has expired in memory."""


class Hub:
    """One node with everything it needs, and the door to it."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop, app: App | None = None) -> None:
        """Build, and open nothing yet. Raises ``AppNotLoaded`` and ``auth.errors.BadSetting``."""
        metrics = Metrics()
        client = settings.client
        self.close_timeout = min(STORE_CLOSE, (settings.drain.timeout - settings.drain.window) / 2)
        """What of ``drain.timeout`` is kept for closing the store."""
        connection_tokens = TokenVerifier(
            client.token,
            skip_signature=client.insecure_skip_token_signature_verify,
        )
        subscription_tokens = connection_tokens
        if client.subscription_token.enabled:
            subscription_tokens = TokenVerifier(
                client.subscription_token,
                skip_signature=client.insecure_skip_token_signature_verify,
                prefix="client.subscription_token",
            )
        personal = client.subscribe_to_user_personal_channel
        memory = settings.engine.memory
        broker = MemoryBroker(
            max_streams=memory.max_streams, max_keys=memory.max_idempotency_keys, max_bytes=memory.max_bytes
        )
        # An entry outlives the renewal that is due, and one that comes late.
        presence = MemoryPresence(ttl=max(PRESENCE_TTL, 2 * client.presence_update_interval.total_seconds()))
        store = SQLiteStore(
            settings.storage.path(settings.data_dir),
            queue_max=settings.storage.queue_max,
            commit_timeout=settings.storage.commit_timeout,
            observe=metrics.observe_store,
            failed=metrics.store_failed,
            close_timeout=self.close_timeout,
        )
        if app is None:
            app = load_app(settings.app) if settings.app else App()
        self.settings = settings
        self.node = Node(
            settings,
            loop=loop,
            broker=broker,
            store=store,
            presence=presence,
            rules=ChannelRules(
                settings.channel,
                personal_namespace=personal.personal_channel_namespace if personal.enabled else None,
            ),
            connection_tokens=connection_tokens,
            subscription_tokens=subscription_tokens,
            app=app,
            metrics=metrics,
        )
        app.actions = NodeActions(self.node)
        self.door = Door(self.node, clock=loop.time)
        self._broker = broker
        self._presence = presence

    async def start(self) -> None:
        """Open store and broker; raises ``storage.errors.StoreError``."""
        await self.node.start()
        self.node.every(timedelta(seconds=HOUSEKEEPING), self._expire)

    async def stop(self, timeout: float = 5.0) -> None:
        """Close everything; what runs in the background has ``timeout`` seconds to end."""
        await self.node.stop(timeout)

    async def _expire(self) -> None:
        self._broker.expire()
        self._presence.expire()
