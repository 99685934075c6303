"""Every kind of command has its limit; who goes on beyond it is closed, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.faults.wire import Closed, Wire
from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token

BURST = 5
VIOLATIONS = 7
SLOW = {"rate": 0.001, "burst": BURST}
"""One in a thousand seconds: no test waits long enough to get another."""
FREE = {"rate": 0, "burst": 1}

KINDS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "publish": ("publish", [{"publish": {"channel": "plain:a", "data": 1}}]),
    "subscribe": ("subscribe", [{"subscribe": {"channel": "plain:x"}}, {"unsubscribe": {"channel": "plain:x"}}]),
    "sub_refresh": ("subscribe", [{"sub_refresh": {"channel": "plain:x", "token": ""}}]),
    "rpc": ("rpc", [{"rpc": {"method": "echo", "data": 1}}]),
    "history": ("history", [{"history": {"channel": "anon:a", "limit": 1}}]),
    "presence": ("history", [{"presence": {"channel": "lobby:a"}}, {"presence_stats": {"channel": "lobby:a"}}]),
    "other": ("other", [{"ping": {}}]),
}


def limits(kind: str, **more: Any) -> dict[str, Any]:
    every = dict.fromkeys(("publish", "subscribe", "rpc", "history", "other", "bytes"), FREE)
    return {"rate_limit": every | {kind: SLOW, "max_violations": VIOLATIONS, **more}}


def code_of(reply: dict[str, Any]) -> int:
    code: int = reply.get("error", {}).get("code", 0)
    return code


@pytest.mark.parametrize("name", list(KINDS))
async def test_the_excess_is_refused_and_going_on_is_the_end(name: str) -> None:
    kind, commands = KINDS[name]
    async with HubProcess(changes=limits(kind), app="tests.support.app:app") as hub:
        other = await Wire.open(hub.port)
        await other.connect(connection_token("other"))
        wire = await Wire.open(hub.port)
        await wire.connect(connection_token("greedy"))
        # A connect command may itself be one of the "other" kind.
        codes: list[int] = []
        ended = None
        for number in range(BURST + VIOLATIONS + 5):
            try:
                codes.append(code_of(await wire.call(**commands[number % len(commands)])))
            except Closed as closed:
                ended = closed
                break
        assert ended is not None, codes
        assert (ended.code, ended.reason) == (3013, "too many requests")
        allowed = codes.index(111)
        assert allowed in (BURST, BURST - 1 if kind == "other" else BURST)
        assert set(codes[allowed:]) == {111}
        assert len(codes) - allowed in (VIOLATIONS - 1, VIOLATIONS)
        # Another connection, also one of the same user, has its own bucket.
        for who in (other, await again(hub)):
            for number in range(2):
                assert code_of(await who.call(**commands[number % len(commands)])) != 111
            who.drop()
        assert "Traceback" not in hub.log()


async def again(hub: HubProcess) -> Wire:
    wire = await Wire.open(hub.port)
    await wire.connect(connection_token("greedy"))
    return wire


async def test_error_111_is_temporary_and_other_kinds_go_on() -> None:
    async with HubProcess(changes=limits("publish")) as hub:
        wire = await Wire.open(hub.port)
        await wire.connect(connection_token())
        for _ in range(BURST):
            assert code_of(await wire.call(publish={"channel": "plain:a", "data": 1})) == 0
        reply = await wire.call(publish={"channel": "plain:a", "data": 1})
        assert reply["error"] == {"code": 111, "message": "too many requests", "temporary": True}
        assert "subscribe" in await wire.call(subscribe={"channel": "plain:a"})
        assert "presence_stats" in await wire.call(presence_stats={"channel": "lobby:a"})
        wire.drop()


async def test_commands_of_one_frame_count_one_by_one() -> None:
    async with HubProcess(changes=limits("publish", max_violations=100)) as hub:
        wire = await Wire.open(hub.port)
        await wire.connect(connection_token())
        count = 20
        lines = [{"id": 10 + number, "publish": {"channel": "plain:a", "data": number}} for number in range(count)]
        wire.send_text("\n".join(map(json.dumps, lines)))
        codes = [code_of(json.loads(await wire.line())) for _ in range(count)]
        assert codes == [0] * BURST + [111] * (count - BURST)
        wire.drop()


async def test_bytes_have_a_limit_too() -> None:
    """Frames beyond the burst of bytes are refused whatever they hold, and going on is the end."""
    limit = {"bytes": {"rate": 1, "burst": 20_000}, "max_violations": VIOLATIONS}
    async with HubProcess(changes={"rate_limit": limit}) as hub:
        wire = await Wire.open(hub.port)
        await wire.connect(connection_token())
        codes: list[int] = []
        with pytest.raises(Closed) as ended:
            while len(codes) < 100:
                codes.append(code_of(await wire.call(publish={"channel": "plain:a", "data": "x" * 2000})))
        assert ended.value.code == 3013
        assert 5 <= codes.index(111) <= 10
        assert set(codes[codes.index(111) :]) == {111}


async def test_a_flood_does_not_reach_the_others() -> None:
    """While one floods and is thrown out again and again, the others get every message in order."""
    async with HubProcess() as hub:
        readers = []
        for number in range(5):
            reader = await Wire.open(hub.port)
            await reader.connect(connection_token(f"reader-{number}"))
            assert "subscribe" in await reader.call(subscribe={"channel": "plain:calm"})
            readers.append(reader)
        thrown_out = asyncio.Event()

        batch = "\n".join(
            json.dumps({"id": number, "publish": {"channel": "plain:flood", "data": 1}}) for number in range(2, 202)
        )

        async def flood() -> None:
            while True:
                wire = await Wire.open(hub.port)
                try:
                    await wire.connect(connection_token("flood"))
                    for _ in range(50):
                        wire.send_text(batch)
                        await wire.drain()
                        await asyncio.sleep(0)
                    if (await wire.closed()).code in (3013, 1006):
                        thrown_out.set()
                finally:
                    wire.drop()

        flooding = asyncio.create_task(flood())
        count = 100
        for number in range(count):
            assert "result" in await hub.api_async("publish", {"channel": "plain:calm", "data": number})
        for reader in readers:
            got = [json.loads(await reader.line())["push"]["pub"]["data"] for _ in range(count)]
            assert got == list(range(count))
            reader.drop()
        async with asyncio.timeout(20):
            await thrown_out.wait()
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        assert "Traceback" not in hub.log()
