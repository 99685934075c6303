"""Runs one scenario of tests/acceptance/js against a hub and judges its report."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.support.hub_process import HubProcess

JS = Path(__file__).parent / "js"


def scenarios(file: str) -> list[str]:
    """The names of a file's scenarios: the methods of the object that it gives to `main`."""
    return re.findall(r"^  async (\w+)\(", (JS / file).read_text(), re.MULTILINE)


def environment(hub: HubProcess, *, prefix: str = "", timeout: float = 30.0) -> dict[str, str]:
    return {
        **os.environ,
        "HUB_WS_URL": f"ws://127.0.0.1:{hub.port}{prefix}/connection/websocket",
        "HUB_API_URL": f"{hub.http_url}{prefix}/api",
        "HUB_API_KEY": hub.api_key,
        "HUB_TOKEN_SECRET": hub.token_secret,
        "SCENARIO_TIMEOUT_MS": str(int(timeout * 1000)),
    }


def run(node: str, hub: HubProcess, file: str, name: str, *, prefix: str = "", timeout: float = 30.0) -> Any:
    """Run the scenario to its end and return what it reports; fails with its report and the hub's last lines."""
    done = subprocess.run(
        [node, file, name],
        cwd=JS,
        env=environment(hub, prefix=prefix, timeout=timeout),
        capture_output=True,
        text=True,
        timeout=timeout + 10,
        check=False,
    )
    return judge(hub, done.returncode, done.stdout, done.stderr)


def judge(hub: HubProcess, code: int, output: str, errors: str) -> Any:
    lines = [line for line in output.splitlines() if line.startswith("{")]
    report = json.loads(lines[-1]) if lines else {}
    detail = report.get("error", output[-2000:]), report.get("client_errors"), errors[-2000:]
    assert code == 0 and report.get("ok"), "\n".join(
        [f"exit {code}", *(str(part) for part in detail if part), "--- hub", hub.log_tail(15)]
    )
    return report["result"]
