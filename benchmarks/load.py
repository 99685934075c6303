"""A running hub and load on it, for benchmarks and for acceptance tests.

with start_hub(config) as hub:
    with hub.sink(connections=200, channel="news", messages=100) as sink:
        sink.wait_for("ready", timeout=30)
        hub.publish("news", {"hello": 1})
        ...
        print(sink.summary(timeout=60)["latency_ms"])
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import procstat
from benchmarks.tools import ROOT, BenchmarkError, Event, Option, Tool, cpus

Config = Mapping[str, Any]

SECRET = "a secret of the benchmarks, known to everyone"
API_KEY = "benchmarks"
ENDPOINT = "/connection/websocket"

OPEN_NAMESPACE: Config = {
    "allow_subscribe_for_client": True,
    "allow_publish_for_client": True,
    "allow_history_for_client": True,
}
BASE_CONFIG: Config = {
    "client": {"token": {"hmac_secret_key": SECRET}},
    "http_api": {"key": API_KEY},
    "channel": {
        "without_namespace": OPEN_NAMESPACE,
        "namespaces": [
            {
                "name": "recent",
                **OPEN_NAMESPACE,
                "history_size": 1000,
                "history_ttl": "300s",
                "force_recovery": True,
                "force_positioning": True,
            },
            {"name": "durable", **OPEN_NAMESPACE, "durable": True, "force_recovery": True, "force_positioning": True},
        ],
    },
}


UNLIMITED: Config = {kind: {"rate": 0, "burst": 1} for kind in ("publish", "subscribe", "other", "bytes")}
"""For ``rate_limit``, where the load itself is not the point."""


def merge(base: Config, changes: Config) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it, object by object."""
    merged = dict(base)
    for key, value in changes.items():
        under = merged.get(key)
        merged[key] = merge(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return merged


def make_token(user: str, *, secret: str = SECRET, expires_in: int = 86_400, **claims: Any) -> str:
    """An HS256 connection token for ``user``, valid for ``expires_in`` seconds."""

    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    body = {"sub": user, "exp": int(time.time()) + expires_in, **claims}
    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(body, separators=(",", ":")).encode())
    return (signed + b"." + part(hmac.digest(secret.encode(), signed, hashlib.sha256))).decode()


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class HubProcess:
    """A hub in a process of its own; ``start_hub`` makes and ends it."""

    process: subprocess.Popen[bytes]
    port: int
    data_dir: Path
    log: Path
    secret: str = SECRET
    api_key: str = API_KEY
    load_cpu: int = -1

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}{ENDPOINT}"

    def cpu_seconds(self) -> float:
        """CPU time of the whole process so far."""
        return procstat.cpu_seconds(self.pid)

    def memory(self) -> procstat.Memory:
        return procstat.memory(self.pid)

    def request(self, method: str, path: str, body: bytes | None = None, *, timeout: float = 10) -> tuple[int, bytes]:
        """One HTTP request with the API key; the status and the body of its answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            headers = {"X-API-Key": self.api_key, "Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def api(self, method: str, params: Config | None = None) -> dict[str, Any]:
        """Call a method of the server API and return its result; BenchmarkError on anything else."""
        status, body = self.request("POST", f"/api/{method}", json.dumps(params or {}).encode())
        answer: dict[str, Any] = json.loads(body) if status == 200 else {"status": status}
        if "result" not in answer:
            raise BenchmarkError(f"The API method {method} answered {answer}.")
        result: dict[str, Any] = answer["result"]
        return result

    def publish(self, channel: str, data: Any) -> dict[str, Any]:
        return self.api("publish", {"channel": channel, "data": data})

    def clients(self) -> int:
        """Sessions that the hub itself counts."""
        return int(self.api("info")["nodes"][0].get("num_clients", 0))

    def tokens(self, count: int) -> Path:
        """A file with tokens of ``count`` users, one a line."""
        path = self.data_dir / f"tokens-{count}"
        if not path.exists():
            path.write_text("".join(make_token(f"user{i}", secret=self.secret) + "\n" for i in range(count)))
        return path

    def sink(self, *, connections: int, **options: Option) -> Tool:
        """Start the C sink on this hub; ``options`` are those of ``c/sink.c``. Every connection is another user."""
        given: dict[str, Option] = {
            "port": self.port,
            "path": ENDPOINT,
            "connections": connections,
            "tokens": self.tokens(connections),
            "cpu": self.load_cpu,
            "stdin": True,
        }
        return Tool("sink", given | options)

    def publisher(self, user: str = "publisher", /, **options: Option) -> Tool:
        """Start the C publisher on this hub as ``user``; ``options`` are those of ``c/publisher.c``."""
        given: dict[str, Option] = {
            "port": self.port,
            "path": ENDPOINT,
            "token": make_token(user, secret=self.secret),
            "api_key": self.api_key,
            "cpu": self.load_cpu,
        }
        return Tool("publisher", given | options)

    def log_tail(self, lines: int = 20) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait_ready(self, timeout: float) -> None:
        """Wait until ``GET /health`` answers 200; BenchmarkError with the end of the log otherwise."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            code = self.process.poll()
            if code is not None:
                raise BenchmarkError(f"The hub ended at start with status {code}:\n{self.log_tail()}")
            try:
                if self.request("GET", "/health", timeout=2)[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise BenchmarkError(f"The hub was not ready within {timeout:.0f} s:\n{self.log_tail()}")

    def stop(self, timeout: float = 10) -> int:
        """End it: SIGTERM twice (the second leaves at once), then SIGKILL; its exit status."""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                self.process.send_signal(number)
                try:
                    self.process.wait(timeout=timeout if number == signal.SIGKILL else min(timeout, 3))
                except subprocess.TimeoutExpired:
                    continue
        return self.process.wait(timeout=timeout)


@contextmanager
def start_hub(
    config: Config | None = None,
    *,
    root: Path = ROOT,
    data_dir: Path | None = None,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    pin: bool = False,
    timeout: float = 30,
) -> Iterator[HubProcess]:
    """Run ``python -m hub serve`` of the checkout ``root`` with ``config`` laid over BASE_CONFIG.

    Without ``data_dir`` it lives in a new temporary folder. ``pin`` gives it the first CPU and leaves the second to the
    load. The hub is ended when the block is left, whatever happened in it.

    Raises BenchmarkError when it does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="hub-benchmark-") as folder:
        home = data_dir or Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        settings = Path(folder) / "settings.json"
        settings.write_text(json.dumps(merge(BASE_CONFIG, config or {}), indent=1))
        chosen = port or free_port()
        command = [sys.executable, "-m", "hub", "serve", "--config", str(settings), "--port", str(chosen)]
        command += ["--data-dir", str(home), *arguments]
        ignored = {"PORT", "DATABASE_URL", "REDIS_URL", "AMQP_URL", "CLOUDAMQP_URL"}
        surroundings = {k: v for k, v in os.environ.items() if not k.startswith("HUB_") and k not in ignored}
        log = Path(folder) / "hub.log"
        hub_cpu, load_cpu = cpus() if pin else (-1, -1)
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=root,
                env=surroundings | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        hub = HubProcess(process=process, port=chosen, data_dir=home, log=log, load_cpu=load_cpu)
        try:
            if hub_cpu >= 0:
                os.sched_setaffinity(process.pid, {hub_cpu})
            hub.wait_ready(timeout)
            yield hub
        finally:
            hub.stop()


def run_sink(hub: HubProcess, *, connections: int, timeout: float = 120, **options: Option) -> Event:
    """Run the sink until its ``messages`` or ``duration`` and return its summary."""
    with hub.sink(connections=connections, **options) as sink:
        return sink.summary(timeout=timeout)
