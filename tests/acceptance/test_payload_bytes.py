"""A payload is the publisher's: its bytes arrive as they were sent, whatever the way in and the way out."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.raw_json import BROKEN_LINES, TRICKY, cut, on_one_line, payloads, without_blanks
from tests.faults.raw_tokens import raw_token
from tests.faults.wire import Wire, http
from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token

NAMESPACES = ["plain", "recent", "cache", "durable"]
KEPT = ["recent", "durable"]
names = itertools.count(1)


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProcess]:
    limits = {"websocket": {"message_size_limit": 1 << 20}}
    with HubProcess(app="tests.support.app:app", changes=limits) as process:
        yield process


async def post(hub: HubProcess, path: str, body: bytes) -> bytes:
    """One API request with exactly this body; the body of its answer, which must be a success."""
    headers = {"X-API-Key": hub.api_key, "Content-Type": "application/json"}
    status, _, answer = await http(hub.port, "POST", path, body, headers)
    assert status == 200, (status, answer)
    assert b'"error"' not in answer[:20], answer
    return answer


async def by_client(hub: HubProcess, channel: str, payload: bytes) -> None:
    wire = await Wire.open(hub.port)
    await wire.connect(connection_token("publisher"))
    wire.send_text(b'{"id":2,"publish":{"channel":"%b","data":%b}}' % (channel.encode(), payload))
    reply = await wire.reply(2)
    assert "publish" in reply, reply
    wire.drop()


async def by_publish(hub: HubProcess, channel: str, payload: bytes) -> None:
    await post(hub, "/api/publish", b'{"channel":"%b","data":%b}' % (channel.encode(), payload))


async def by_base64(hub: HubProcess, channel: str, payload: bytes) -> None:
    body = b'{"channel":"%b","b64data":"%b"}' % (channel.encode(), base64.b64encode(payload))
    await post(hub, "/api/publish", body)


async def by_broadcast(hub: HubProcess, channel: str, payload: bytes) -> None:
    await post(hub, "/api/broadcast", b'{"channels":["%b"],"data":%b}' % (channel.encode(), payload))


async def by_batch(hub: HubProcess, channel: str, payload: bytes) -> None:
    publish = b'{"publish":{"channel":"%b","data":%b}}' % (channel.encode(), payload)
    await post(hub, "/api/batch", b'{"commands":[%b]}' % publish)


async def by_legacy(hub: HubProcess, channel: str, payload: bytes) -> None:
    params = b'{"channel":"%b","data":%b}' % (channel.encode(), payload)
    await post(hub, "/api", b'{"method":"publish","params":%b}' % params)


WAYS_IN = {
    "client": by_client,
    "publish": by_publish,
    "base64": by_base64,
    "broadcast": by_broadcast,
    "batch": by_batch,
    "legacy": by_legacy,
}


def fresh(namespace: str) -> str:
    return f"{namespace}:payload-{next(names)}"


async def subscribed(hub: HubProcess, channel: str, **options: Any) -> tuple[Wire, bytes]:
    """A subscriber and the raw reply to its subscribe."""
    wire = await Wire.open(hub.port, receive_buffer=0)
    await wire.connect(connection_token("reader"))
    number = wire.command(subscribe={"channel": channel, **options})
    line = await wire.line()
    assert json.loads(line)["id"] == number, line
    return wire, line


async def round_trip(hub: HubProcess, way: str, namespace: str, sent: list[bytes]) -> None:
    """Publish all payloads in one way and look at every way out: live, history by API and client, recovery."""
    channel = fresh(namespace)
    wanted = [on_one_line(payload) for payload in sent]
    wire, reply = await subscribed(hub, channel)
    epoch = json.loads(reply)["subscribe"].get("epoch", "")
    for payload in sent:
        await WAYS_IN[way](hub, channel, payload)
    live = [cut(await wire.line(), "push", "pub", "data") for _ in sent]
    assert live == wanted, "live"
    if namespace in KEPT:
        query = json.dumps({"channel": channel, "limit": 1000}).encode()
        answer = await post(hub, "/api/history", query)
        assert [cut(answer, "result", "publications", i, "data") for i in range(len(sent))] == wanted, "API history"
        wire.command(history={"channel": channel, "limit": 300})
        line = await wire.line()
        assert [cut(line, "history", "publications", i, "data") for i in range(len(sent))] == wanted, "client history"
        late, line = await subscribed(hub, channel, recover=True, offset=0, epoch=epoch)
        got = [cut(line, "subscribe", "publications", i, "data") for i in range(len(sent))]
        assert got == wanted, "recovery"
        late.drop()
    if namespace == "cache":
        late, line = await subscribed(hub, channel, recover=True, offset=0, epoch=epoch)
        assert cut(line, "subscribe", "publications", 0, "data") == wanted[-1], "cache recovery"
        late.drop()
    wire.drop()


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("way", [way for way in WAYS_IN if way != "legacy"])
async def test_tricky_payloads_arrive_byte_for_byte(hub: HubProcess, way: str, namespace: str) -> None:
    await round_trip(hub, way, namespace, list(TRICKY.values()))


async def test_the_legacy_endpoint_keeps_bytes_too(hub: HubProcess) -> None:
    await round_trip(hub, "legacy", "recent", list(TRICKY.values()))


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("way", ["publish", "base64", "broadcast", "batch"])
async def test_only_line_breaks_between_tokens_are_taken_out(hub: HubProcess, way: str, namespace: str) -> None:
    await round_trip(hub, way, namespace, list(BROKEN_LINES.values()))


@settings(
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    sent=st.lists(payloads(line_breaks=True), min_size=1, max_size=8),
    way=st.sampled_from(["publish", "base64", "broadcast", "batch"]),
    namespace=st.sampled_from(NAMESPACES),
)
def test_any_json_arrives_by_the_api(hub: HubProcess, sent: list[bytes], way: str, namespace: str) -> None:
    asyncio.run(round_trip(hub, way, namespace, sent))


@settings(
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    sent=st.lists(payloads(line_breaks=False), min_size=1, max_size=8),
    namespace=st.sampled_from(NAMESPACES),
)
def test_any_json_arrives_from_a_client(hub: HubProcess, sent: list[bytes], namespace: str) -> None:
    asyncio.run(round_trip(hub, "client", namespace, sent))


@pytest.mark.parametrize("name", list(TRICKY))
async def test_rpc_passes_bytes_both_ways(hub: HubProcess, name: str) -> None:
    wire = await Wire.open(hub.port)
    await wire.connect(connection_token())
    wire.send_text(b'{"id":7,"rpc":{"method":"echo","data":%b}}' % TRICKY[name])
    assert cut(await wire.line(), "rpc", "data") == TRICKY[name]
    wire.drop()


@pytest.mark.parametrize("name", [name for name in TRICKY if name not in ("long", "nothing", "half an emoji")])
async def test_info_of_tokens_reaches_publications_and_presence_unchanged(hub: HubProcess, name: str) -> None:
    """
    `info` of a connection token becomes conn_info, of a subscription token chan_info, `data` its subscribe data.

    Kept with every session, they are kept without the blanks between tokens; the tokens themselves are untouched.
    """
    info = TRICKY[name]
    kept = without_blanks(info)
    channel = fresh("room")
    expires = b"%d" % (time.time() + 600)
    connection = raw_token(b'{"sub":"7","exp":%b,"info":%b}' % (expires, info))
    subscription = raw_token(
        b'{"sub":"7","exp":%b,"channel":"%b","info":%b,"data":%b}' % (expires, channel.encode(), info, info)
    )
    wire = await Wire.open(hub.port)
    client = (await wire.connect(connection))["client"]
    wire.command(subscribe={"channel": channel, "token": subscription})
    line = await wire.line()
    assert cut(line, "subscribe", "data") == kept
    joined = await wire.line()
    assert cut(joined, "push", "join", "info", "conn_info") == kept
    assert cut(joined, "push", "join", "info", "chan_info") == kept
    wire.send_text(b'{"id":8,"publish":{"channel":"%b","data":1}}' % channel.encode())
    lines = [await wire.line(), await wire.line()]
    push = next(line for line in lines if line.startswith(b'{"push"'))
    assert cut(push, "push", "pub", "info", "conn_info") == kept
    assert cut(push, "push", "pub", "info", "chan_info") == kept
    wire.command(presence={"channel": channel})
    line = await wire.line()
    assert cut(line, "presence", "presence", client, "conn_info") == kept
    answer = await post(hub, "/api/presence", json.dumps({"channel": channel}).encode())
    assert cut(answer, "result", "presence", client, "conn_info") == kept
    assert cut(answer, "result", "presence", client, "chan_info") == kept
    wire.drop()


@pytest.mark.parametrize("name", [name for name in TRICKY if name not in ("long", "nothing")])
async def test_api_subscribe_passes_info_and_data_unchanged(hub: HubProcess, name: str) -> None:
    payload = TRICKY[name]
    channel = fresh("room")
    user = f"user-{next(names)}"
    wire = await Wire.open(hub.port)
    client = (await wire.connect(connection_token(user)))["client"]
    body = b'{"user":"%b","channel":"%b","info":%b,"data":%b}' % (user.encode(), channel.encode(), payload, payload)
    await post(hub, "/api/subscribe", body)
    pushes = [await wire.line(), await wire.line()]
    push = next(line for line in pushes if b'"subscribe":' in line)
    assert cut(push, "push", "subscribe", "data") == payload
    answer = await post(hub, "/api/presence", json.dumps({"channel": channel}).encode())
    assert cut(answer, "result", "presence", client, "chan_info") == payload
    wire.drop()


async def test_payloads_survive_a_restart(hub: HubProcess) -> None:
    """Durable history after SIGKILL holds the same bytes: a hub of its own, since it is killed."""
    with HubProcess() as own:
        channel = fresh("durable")
        for payload in TRICKY.values():
            await by_publish(own, channel, payload)
        await asyncio.to_thread(own.restart, kill=True)
        answer = await post(own, "/api/history", json.dumps({"channel": channel, "limit": 1000}).encode())
        got = [cut(answer, "result", "publications", index, "data") for index in range(len(TRICKY))]
        assert got == list(TRICKY.values())
