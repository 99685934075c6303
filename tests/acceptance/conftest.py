"""Hubs that the acceptance tests share, and what is needed to run the JavaScript SDK."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_config import APP
from tests.support.hub_process import HubProcess

JS = Path(__file__).parent / "js"
SHORT_TIMES = {
    "client": {
        "expired_close_delay": "1s",
        "expired_sub_close_delay": "1s",
        "presence_update_interval": "1s",
        "ping_interval": "2s",
        "pong_timeout": "1500ms",
        "stale_close_delay": "2s",
        "channel_position_check_delay": "1s",
        "channel_limit": 5,
        "subscribe_to_user_personal_channel": {"enabled": True, "personal_channel_namespace": "personal"},
    }
}


@pytest.fixture(scope="session")
def hub() -> Iterator[HubProcess]:
    """A hub with the default test configuration and the application of tests/support/app.py."""
    with HubProcess(app=APP) as process:
        yield process
        _check_log(process)


@pytest.fixture(scope="session")
def short_hub() -> Iterator[HubProcess]:
    """As `hub`, but times are short, five channels are the limit, and users have a personal channel."""
    with HubProcess(app=APP, changes=SHORT_TIMES) as process:
        yield process
        _check_log(process)


@pytest.fixture(scope="session")
def node() -> str:
    """Path of Node, with the SDK installed; without Node skips, or fails where HUB_TEST_REQUIRE_NODE is set."""
    problem = None
    executable, npm = shutil.which("node"), shutil.which("npm")
    if executable is None or npm is None:
        problem = "the JavaScript SDK needs node and npm"
    elif not (JS / "node_modules" / "centrifuge").is_dir():
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=JS, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            problem = f"npm ci failed: {done.stderr[-500:]}"
    if problem is not None:
        if os.environ.get("HUB_TEST_REQUIRE_NODE"):
            pytest.fail(problem)
        pytest.skip(problem)
    assert executable is not None
    return executable


def _check_log(process: HubProcess) -> None:
    """No test may have made the hub stumble: the only traceback allowed is that of the application's own bug."""
    log = process.log()
    tracebacks = log.count("Traceback (most recent call last)")
    expected = log.count("RuntimeError: a bug in the application")
    assert tracebacks <= expected, f"unexpected tracebacks in the log:\n{log[-8000:]}"
    assert process.running, "the hub ended during the tests"
