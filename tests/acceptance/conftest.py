"""Hubs that the acceptance tests share, and Node for those with the JavaScript SDK."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.support.hub_config import APP
from tests.support.hub_process import HubProcess

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
    """Path of Node; tests that use it are marked `needs("js-sdk")`."""
    executable = shutil.which("node")
    assert executable is not None
    return executable


def _check_log(process: HubProcess) -> None:
    """No test may have made the hub stumble: the only traceback allowed is that of the application's own bug."""
    log = process.log()
    tracebacks = log.count("Traceback (most recent call last)")
    expected = log.count("RuntimeError: a bug in the application")
    assert tracebacks <= expected, f"unexpected tracebacks in the log:\n{log[-8000:]}"
    assert process.running, "the hub ended during the tests"
