"""The hub mounted in another application under stock uvicorn: the plain ASGI way passes what the hub's own server does."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest

from tests.acceptance import js_scenario
from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token
from tests.support.ws_client import RawClient

PREFIX = "/realtime"
SCENARIOS = [
    ("session.mjs", "connects_and_disconnects"),
    ("session.mjs", "invalid_tokens_are_terminal"),
    ("session.mjs", "expired_token_on_connect_is_renewed"),
    ("session.mjs", "rpc_results_and_errors"),
    ("session.mjs", "commands_batched_into_one_frame"),
    ("session.mjs", "api_disconnect"),
    ("session.mjs", "application_hears_of_the_end"),
    ("session.mjs", "reconnects_after_a_cut"),
    ("channels.mjs", "publishes_to_all_subscribers"),
    ("channels.mjs", "history_of_a_durable_channel"),
    ("channels.mjs", "joins_and_leaves_of_two_clients"),
    ("channels.mjs", "channels_of_the_token"),
    ("channels.mjs", "subscriptions_refused_with_the_right_code"),
    ("recovery.mjs", "recovers_after_a_cut"),
    ("recovery.mjs", "recovers_while_publishing_goes_on"),
    ("recovery.mjs", "durable_recovery_after_a_cut"),
    ("recovery.mjs", "deltas"),
    ("recovery.mjs", "tags_filters"),
]


@pytest.fixture(scope="module")
def mounted() -> Iterator[HubProcess]:
    command = [sys.executable, "-m", "uvicorn", "tests.support.mounted:app", "--host", "127.0.0.1", "--port", "{port}"]
    hub = HubProcess(command=command, health_path=f"{PREFIX}/health")
    hub.env["MOUNTED_HUB_FOLDER"] = str(hub.folder)
    with hub:
        yield hub
        log = hub.log()
        assert log.count("Traceback") <= log.count("RuntimeError: a bug in the application"), hub.log_tail(100)


@pytest.mark.needs("js-sdk")
@pytest.mark.parametrize(("file", "name"), SCENARIOS, ids=[name for _, name in SCENARIOS])
def test_scenario(node: str, mounted: HubProcess, file: str, name: str) -> None:
    js_scenario.run(node, mounted, file, name, prefix=PREFIX)


async def test_close_codes(mounted: HubProcess) -> None:
    url = f"ws://127.0.0.1:{mounted.port}{PREFIX}/connection/websocket"
    async with RawClient(url) as client:
        await client.connect(connection_token())
        await client.send_frame("nonsense")
        assert await client.wait_closed() == (3501, "bad request")
    async with RawClient(url) as client:
        await client.send({"connect": {"token": "nonsense"}})
        assert await client.wait_closed() == (3500, "invalid token")


def test_stops_with_its_server(mounted: HubProcess) -> None:
    """SIGTERM ends the hub's lifespan too, and what was published before is there after the restart."""
    fresh = HubProcess(command=mounted.command, health_path=mounted.health_path)
    fresh.env["MOUNTED_HUB_FOLDER"] = str(fresh.folder)
    with fresh:
        assert _publish(fresh) == 1
        assert fresh.terminate() in (0, -signal.SIGTERM)  # uvicorn ends with the signal that it was sent
        fresh.start()
        assert _publish(fresh) == 2


def _publish(hub: HubProcess) -> int:
    answer = hub.api("publish", {"channel": "durable:mounted", "data": 1}, prefix=PREFIX)
    offset: int = answer["result"]["offset"]
    return offset
