"""The official JavaScript SDK against the hub: each test is a scenario of tests/acceptance/js."""

from __future__ import annotations

import subprocess

import pytest

from tests.acceptance import js_scenario
from tests.support.hub_config import APP
from tests.support.hub_process import HubProcess

pytestmark = pytest.mark.needs("js-sdk")
SHORT = {
    "token_refreshed_on_the_live_connection",
    "refresh_with_an_expired_token_reconnects",
    "refresh_with_an_invalid_token_is_terminal",
    "refresh_that_changes_the_channels_reconnects",
    "subscription_token_refreshed_on_the_live_subscription",
    "subscription_refresh_with_an_expired_token_subscribes_again",
    "subscription_refresh_with_another_channels_token_is_terminal",
    "pings_are_answered",
    "personal_channel",
}
APART = {"hub_restarts", "twenty_thousand_missed"}
ALL = {file: js_scenario.scenarios(file) for file in ("session.mjs", "channels.mjs", "recovery.mjs")}


def test_every_scenario_is_run() -> None:
    names = [name for names in ALL.values() for name in names]
    assert len(names) == len(set(names)) > 50
    assert set(names) >= SHORT | APART


@pytest.mark.parametrize("name", [name for name in ALL["session.mjs"] if name not in SHORT])
def test_session(node: str, hub: HubProcess, name: str) -> None:
    js_scenario.run(node, hub, "session.mjs", name)


@pytest.mark.parametrize("name", sorted(SHORT))
def test_session_with_short_times(node: str, short_hub: HubProcess, name: str) -> None:
    js_scenario.run(node, short_hub, "session.mjs", name)


@pytest.mark.parametrize("name", ALL["channels.mjs"])
def test_channels(node: str, hub: HubProcess, name: str) -> None:
    js_scenario.run(node, hub, "channels.mjs", name)


@pytest.mark.parametrize("name", [name for name in ALL["recovery.mjs"] if name not in APART])
def test_recovery(node: str, hub: HubProcess, name: str) -> None:
    js_scenario.run(node, hub, "recovery.mjs", name)


@pytest.mark.parametrize(("kill", "code"), [(False, 3001), (True, 1)], ids=["SIGTERM", "SIGKILL"])
def test_client_survives_a_restart_of_the_hub(node: str, kill: bool, code: int) -> None:
    """SIGTERM closes with 3001, SIGKILL without a word; durable channels recover, recent ones start anew."""
    with HubProcess(app=APP) as hub:
        process = subprocess.Popen(
            [node, "recovery.mjs", "hub_restarts"],
            cwd=js_scenario.JS,
            env=js_scenario.environment(hub, timeout=40),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdin is not None and process.stdout is not None
            line = process.stdout.readline()
            if line == "ready\n":
                hub.restart(kill=kill)
                process.stdin.write("restarted\n")
                process.stdin.flush()
            rest, errors = process.communicate(timeout=60)
        finally:
            process.kill()
        assert js_scenario.judge(hub, process.returncode, line + rest, errors) == {"code": code}
