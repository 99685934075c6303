"""What every home of presence promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.contract import ClientInfo

if TYPE_CHECKING:
    from tests.integration.channels.conftest import PresenceHome

A1 = ClientInfo("a", "client-1", b'{"name":"A"}', b'"x"')
A2 = ClientInfo("a", "client-2")
B1 = ClientInfo("b", "client-3")


async def test_nobody(presence_home: PresenceHome) -> None:
    assert await presence_home.presence.get("room") == {}
    assert await presence_home.presence.stats("room") == (0, 0)


async def test_sessions_and_users_are_counted(presence_home: PresenceHome) -> None:
    for info in (A1, A2, B1):
        await presence_home.presence.add("room", info)
    assert await presence_home.presence.get("room") == {each.client: each for each in (A1, A2, B1)}
    assert await presence_home.presence.stats("room") == (3, 2)
    assert await presence_home.presence.stats("other room") == (0, 0)


async def test_removal_counts_at_once(presence_home: PresenceHome) -> None:
    presence = presence_home.presence
    for info in (A1, A2, B1):
        await presence.add("room", info)
    await presence.remove("room", A1)
    assert await presence.stats("room") == (2, 2)
    await presence.remove("room", A2)
    assert await presence.stats("room") == (1, 1)
    await presence.remove("room", B1)
    assert await presence.stats("room") == (0, 0)
    assert await presence.get("room") == {}


async def test_what_is_not_there_can_be_removed(presence_home: PresenceHome) -> None:
    await presence_home.presence.remove("room", A1)
    await presence_home.presence.add("room", A2)
    await presence_home.presence.remove("room", A1)
    assert await presence_home.presence.stats("room") == (1, 1)


async def test_adding_again_replaces(presence_home: PresenceHome) -> None:
    changed = ClientInfo("a", "client-1", b'{"name":"B"}')
    await presence_home.presence.add("room", A1)
    await presence_home.presence.add("room", changed)
    assert await presence_home.presence.get("room") == {"client-1": changed}
    assert await presence_home.presence.stats("room") == (1, 1)


async def test_the_anonymous_user_is_a_user(presence_home: PresenceHome) -> None:
    await presence_home.presence.add("room", ClientInfo("", "client-4"))
    await presence_home.presence.add("room", ClientInfo("", "client-5"))
    assert await presence_home.presence.stats("room") == (2, 1)


async def test_entries_expire_unless_refreshed(presence_home: PresenceHome) -> None:
    presence, part = presence_home.presence, presence_home.ttl * 0.6
    for info in (A1, A2, B1):
        await presence.add("room", info)
    await presence_home.passes(part)
    await presence.refresh([("room", A2), ("room", B1)])
    await presence_home.passes(part)
    assert await presence.stats("room") == (2, 2)
    await presence.add("room", B1)
    await presence_home.passes(part)
    assert await presence.get("room") == {"client-3": B1}
    await presence_home.passes(part)
    assert await presence.get("room") == {}
    assert await presence.stats("room") == (0, 0)


async def test_refresh_brings_back_what_expired(presence_home: PresenceHome) -> None:
    await presence_home.presence.add("room", A1)
    await presence_home.passes(presence_home.ttl * 1.5)
    await presence_home.presence.refresh([("room", A1), ("hall", B1)])
    assert await presence_home.presence.get("room") == {"client-1": A1}
    assert await presence_home.presence.get("hall") == {"client-3": B1}
    await presence_home.presence.refresh([])
