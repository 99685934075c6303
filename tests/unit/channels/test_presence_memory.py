"""What is particular to the memory presence; what every presence promises is in tests/integration/channels."""

from __future__ import annotations

from channels.presence_memory import MemoryPresence
from storage.contract import ClientInfo


async def test_expire_gives_memory_back_a_few_channels_at_a_time() -> None:
    now = 0.0
    presence = MemoryPresence(ttl=60.0, clock=lambda: now)
    for number in range(10):
        await presence.add(f"room {number}", ClientInfo("42", "c"))
    now = 30.0
    presence.expire()
    assert len(presence._rooms) == 10
    await presence.refresh([("room 3", ClientInfo("42", "c"))])
    now = 60.0
    for left in (6, 3, 1):
        presence.expire(limit=4)
        assert len(presence._rooms) == left
    presence.expire(90.0)
    assert presence._rooms == {}


async def test_an_empty_room_takes_no_memory() -> None:
    presence = MemoryPresence()
    await presence.add("room", ClientInfo("42", "c"))
    await presence.remove("room", ClientInfo("42", "c"))
    assert presence._rooms == {}


async def test_statistics_follow_a_session_whose_user_changed() -> None:
    presence = MemoryPresence()
    await presence.add("room", ClientInfo("a", "c"))
    await presence.add("room", ClientInfo("b", "c"))
    await presence.add("room", ClientInfo("b", "d"))
    assert await presence.stats("room") == (2, 1)
    await presence.remove("room", ClientInfo("a", "c"))
    assert await presence.stats("room") == (1, 1)
