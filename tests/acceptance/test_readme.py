"""What README.md tells people to copy works as it stands there, but for the port and the folder of a hub of the test's own."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_process import ROOT, HubProcess

SERVE = [sys.executable, "-m", "hub", "serve", "--port", "{port}", "--data-dir", "{data}"]
TEXT = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def demo() -> Iterator[HubProcess]:
    """A hub that was given no settings, as `make run` starts it."""
    with HubProcess(command=SERVE) as process:
        yield process


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def fitted(block: str, process: HubProcess) -> str:
    """A block for the test's hub: its port, its data folder, the Python that runs the tests."""
    assert "127.0.0.1:8000" in block or ".hub/" in block
    block = block.replace("127.0.0.1:8000", f"127.0.0.1:{process.port}")
    block = block.replace(".hub/secrets.json", str(process.data_dir / "secrets.json"))
    token = f"{shlex.quote(sys.executable)} -m hub token --data-dir {shlex.quote(str(process.data_dir))}"
    return block.replace(".venv/bin/python -m hub token", token)


def variables(process: HubProcess) -> dict[str, str]:
    """KEY and TOKEN, made by the README's own lines."""
    [lines] = [block for block in blocks("sh") if "TOKEN=" in block]
    script = fitted(lines, process) + 'printf "%s\\n%s\\n" "$KEY" "$TOKEN"'
    key, token = run(["sh", "-ec", script]).split()
    return {"KEY": key, "TOKEN": token}


def run(command: list[str], *, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    environment = {**os.environ, "no_proxy": "*", "PYTHONPATH": str(ROOT), **(env or {})}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.needs("curl")
def test_curl(demo: HubProcess) -> None:
    [lines] = [block for block in blocks("sh") if "/api/publish" in block]
    output = run(["sh", "-ec", fitted(lines, demo)], env=variables(demo))
    published, history = [json.loads(each) for each in re.findall(r"\{.*?\}(?=\{\"result|\s*$)", output, re.DOTALL)]
    assert published["result"]["offset"] == history["result"]["publications"][-1]["offset"]
    assert history["result"]["publications"][-1]["data"] == {"text": "hello"}


def test_python(demo: HubProcess, tmp_path: Path) -> None:
    [program] = blocks("python")
    (tmp_path / "subscribe.py").write_text(fitted(program, demo))
    output = run([sys.executable, "subscribe.py"], cwd=tmp_path, env=variables(demo))
    assert "{'text': 'from a backend'}" in output
    assert "{'text': 'from a client'}" in output


@pytest.mark.needs("js-sdk")
def test_javascript(demo: HubProcess) -> None:
    [program] = blocks("js")
    # It goes on for ever, as it should: end it at the first publication.
    program = fitted(program, demo) + '\nnews.on("publication", () => setTimeout(() => process.exit(0), 10));\n'
    path = ROOT / "tests" / "acceptance" / "js"  # where its packages are
    output = run(["node", "--input-type=module", "--eval", program], cwd=path, env=variables(demo))
    assert "{ text: 'from JavaScript' }" in output


def test_configuration(tmp_path: Path) -> None:
    [file] = blocks("toml")
    (tmp_path / "hub.toml").write_text(file)
    config, data = str(tmp_path / "hub.toml"), str(tmp_path / "data")
    output = run([sys.executable, "-m", "hub", "check", "--config", config, "--data-dir", data, "--port", "0"])
    assert "failed" not in output
    with HubProcess(command=[*SERVE, "--config", config]) as configured:
        secrets = json.loads((configured.data_dir / "secrets.json").read_text())
        configured.api_key = secrets["api_key"]
        offsets = {}
        for channel in ("cursor:board-7", "chat:lobby", "orders:#42"):
            result = configured.api("publish", {"channel": channel, "data": 1})["result"]
            offsets[channel.partition(":")[0]] = result.get("offset")
        assert offsets == {"cursor": None, "chat": 1, "orders": 1}


def test_metrics_are_listed(demo: HubProcess) -> None:
    """docs/operations.md has every metric that is exported, and no other."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(demo.http_url + "/metrics", timeout=10) as response:
        exported = set(re.findall(r"^# TYPE (hub_\w+)", response.read().decode(), re.MULTILINE))
    page = (ROOT / "docs" / "operations.md").read_text("utf-8").partition("\n## Metrics\n")[2]
    assert set(re.findall(r"\bhub_[a-z_]+", page)) == exported
