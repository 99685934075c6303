"""Tests of hub.compose: everything from settings."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from auth.errors import BadSetting
from auth.secret import Secret
from auth.settings import SubscriptionTokenSettings, TokenSettings
from hub.app import App, AppNotLoaded
from hub.compose import Hub
from hub.settings import StorageSettings
from tests.support.inprocess import Peer, settings


async def test_a_hub_from_settings(tmp_path: Path) -> None:
    app = App()
    built = Hub(settings(tmp_path), asyncio.get_running_loop(), app)
    await built.start()
    try:
        peer = Peer(built.node)
        await peer.result(connect={})
        await peer.result(subscribe={"channel": "durable:x"})
        await peer.result(publish={"channel": "durable:x", "data": 1})
        await peer.until(lambda: peer.data("durable:x") == [1])
        await built._expire()
        assert built.node.app is app
        assert built.node.subscription_tokens is built.node.connection_tokens
        assert (tmp_path / "hub.sqlite3").exists()
        assert "commit" in built.node.metrics.store
    finally:
        await built.stop()
    assert await peer.disconnected() == 3001


async def test_subscription_tokens_may_have_keys_of_their_own(tmp_path: Path) -> None:
    other = SubscriptionTokenSettings(enabled=True, hmac_secret_key=Secret("another-secret-of-at-least-32-bytes!"))
    built = Hub(settings(tmp_path, client={"subscription_token": other}), asyncio.get_running_loop())
    assert built.node.subscription_tokens is not built.node.connection_tokens
    await built.start()
    await built.stop()


def test_what_is_wrong_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    with pytest.raises(AppNotLoaded):
        Hub(settings(tmp_path, app="no_such_module:app"), loop)
    with pytest.raises(BadSetting):
        Hub(settings(tmp_path, client={"token": TokenSettings(user_id_claim="not a claim!")}), loop)
    assert not list(tmp_path.iterdir())
    loop.close()


async def test_the_database_may_be_elsewhere(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'other' / 'events.sqlite3'}"
    built = Hub(settings(tmp_path, storage=StorageSettings(url=url)), asyncio.get_running_loop())
    await built.start()
    await built.stop()
    assert (tmp_path / "other" / "events.sqlite3").exists()
