"""A hub process of the tests' own: started with `python -m hub serve`, always stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.support.hub_config import API_KEY, TOKEN_SECRET, default_config, merged

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 20.0
STOP_TIMEOUT = 20.0


class HubFailed(RuntimeError):
    """The process did not start, or ended when it should not have; the message carries the end of its log."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class HubProcess:
    """
    One hub, its configuration, data folder and log, in a temporary folder.

    `changes` are laid over the default configuration (`tests/support/hub_config.py`), `config` replaces it.
    `app` is given as `--app`, `args` are further arguments of `serve`, `env` further variables.
    `command` replaces the whole command line (`{port}`, `{config}` and `{data}` are filled in).
    Use it as a context manager, plain or asynchronous, or call `start()` and `close()`.
    """

    def __init__(
        self,
        *,
        changes: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        app: str | None = None,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        health_path: str = "/health",
        start_timeout: float = START_TIMEOUT,
    ) -> None:
        base = default_config() if config is None else dict(config)
        self.config: dict[str, Any] = merged(base, dict(changes or {}))
        self.app = app
        self.args = list(args)
        self.env = dict(env or {})
        self.command = list(command) if command is not None else None
        self.health_path = health_path
        self.start_timeout = start_timeout
        self.api_key: str = self.config.get("http_api", {}).get("key", API_KEY)
        self.token_secret: str = self.config.get("client", {}).get("token", {}).get("hmac_secret_key", TOKEN_SECRET)
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="hub-test-"))
        self.data_dir = self.folder / "data"
        self.config_path = self.folder / "config.json"
        self.log_path = self.folder / "hub.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    # Where it is

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/connection/websocket"

    @property
    def api_url(self) -> str:
        return f"{self.http_url}/api"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise HubFailed("the hub is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """All that the process wrote to its standard output and error, over all of its lives."""
        try:
            return self.log_path.read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def wait_log(self, words: str, timeout: float = 10.0) -> None:
        """Wait until `words` stand in the log; blocks (use `asyncio.to_thread` in a coroutine)."""
        deadline = time.monotonic() + timeout
        while words not in self.log():
            if time.monotonic() > deadline:
                raise HubFailed(f"{words!r} was not logged within {timeout} s\n{self.log_tail()}")
            time.sleep(0.01)

    def log_tail(self, lines: int = 60) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    # Its life

    def start(self) -> HubProcess:
        """Start the process and return when it answers on its port; raises HubFailed with the end of the log."""
        if self.running:
            raise HubFailed("the hub is running already")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.config_path.write_text(json.dumps(self.config, indent=1))
        self._log = self.log_path.open("ab")
        env = {name: value for name, value in os.environ.items() if not _is_hub_setting(name)}
        env.update({"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}, **self.env)
        self._process = subprocess.Popen(
            self._command_line(), cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        try:
            self._wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def terminate(self, timeout: float = STOP_TIMEOUT) -> int:
        """SIGTERM, then wait; returns the exit code. A process that stays is killed and HubFailed is raised."""
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise HubFailed(f"no exit within {timeout} s of SIGTERM\n{self.log_tail()}") from None
        self._forget()
        return process.returncode

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """Wait for a process that was told to stop; its exit code. Raises HubFailed when it stays."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise HubFailed(f"no exit within {timeout} s\n{self.log_tail()}") from None
        self._forget()
        return code

    def send_signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait(STOP_TIMEOUT)
        self._forget()

    kill9 = kill

    def restart(self, *, kill: bool = False) -> HubProcess:
        """Stop it (SIGTERM, or SIGKILL) and start it on the same port and data folder."""
        if kill:
            self.kill()
        else:
            self.terminate()
        return self.start()

    def close(self) -> None:
        """Kill the process if it runs and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    stop = close

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            print(f"--- end of the hub's log ({self.http_url})\n{self.log_tail()}", file=sys.stderr)
        self.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    # Asking it

    def api(self, method: str, payload: Any = None, *, timeout: float = 10.0, prefix: str = "") -> dict[str, Any]:
        """POST /api/<method> and return the decoded answer, whatever it is."""
        request = urllib.request.Request(
            f"{self.http_url}{prefix}/api/{method}",
            data=json.dumps({} if payload is None else payload).encode(),
            headers={"Content-Type": "application/json", "X-API-Key": self.api_key},
            method="POST",
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout) as response:
            answer: dict[str, Any] = json.loads(response.read())
            return answer

    async def api_async(self, method: str, payload: Any = None) -> dict[str, Any]:
        """`api` from a coroutine."""
        return await asyncio.to_thread(self.api, method, payload)

    # Inside

    def _command_line(self) -> list[str]:
        if self.command is not None:
            values = {"port": str(self.port), "config": str(self.config_path), "data": str(self.data_dir)}
            return [part.format(**values) for part in self.command]
        line = [sys.executable, "-m", "hub", "serve", "--config", str(self.config_path), "--host", "127.0.0.1"]
        line += ["--port", str(self.port), "--data-dir", str(self.data_dir)]
        if self.app is not None:
            line += ["--app", self.app]
        return line + self.args

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + self.start_timeout
        while time.monotonic() < deadline:
            assert self._process is not None
            code = self._process.poll()
            if code is not None:
                raise HubFailed(f"the hub ended with exit code {code} instead of serving\n{self.log_tail()}")
            if self._answers():
                return
            time.sleep(0.03)
        raise HubFailed(f"no answer on port {self.port} within {self.start_timeout} s\n{self.log_tail()}")

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.http_url}{self.health_path}", timeout=2):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def _forget(self) -> None:
        self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None


def _is_hub_setting(name: str) -> bool:
    well_known = {"PORT", "DATABASE_URL", "REDIS_URL", "AMQP_URL", "CLOUDAMQP_URL"}
    return name.startswith("HUB_") or name in well_known
