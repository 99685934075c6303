"""The C load programs: compiled on first use, started, spoken to by lines, and always ended.

Each program prints one JSON object a line on its standard output, the last of which is its summary.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SOURCES = HERE / "c"
BUILD = HERE / ".build"

Event = dict[str, Any]
Option = str | int | float | bool | Path | None


class BenchmarkError(Exception):
    """What went wrong, in one sentence for whoever started the benchmark."""


def compile_program(name: str) -> Path:
    """Return the program ``name``, compiled from ``c/<name>.c`` unless that was done since its sources changed.

    Raises BenchmarkError when there is no C compiler or it fails.
    """
    binary = BUILD / name
    sources = [SOURCES / f"{name}.c", SOURCES / "client.h"]
    if binary.exists() and all(binary.stat().st_mtime >= source.stat().st_mtime for source in sources):
        return binary
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise BenchmarkError(
            "The benchmarks need a C compiler for their load programs: install gcc or clang, or name one in CC."
        )
    BUILD.mkdir(parents=True, exist_ok=True)
    fresh = BUILD / f"{name}.{os.getpid()}"  # renamed when done, so that two runs do not see half a program
    command = [compiler, "-O2", "-std=gnu11", "-Wall", "-Wextra", str(sources[0]), "-o", str(fresh)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except OSError as error:
        raise BenchmarkError(f"The C compiler {compiler} does not start: {error.strerror}.") from error
    if result.returncode != 0:
        raise BenchmarkError(f"Compiling {sources[0].name} failed:\n{result.stderr.strip()}")
    os.replace(fresh, binary)
    return binary


def need_files(count: int) -> None:
    """Raise the limit of open files as far as allowed; BenchmarkError when ``count`` are not possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, count)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < count:
        raise BenchmarkError(
            f"This needs {count} open files and the limit is {hard}: raise it with `ulimit -n {count}`."
        )


def cpus() -> tuple[int, int]:
    """The CPU for the program under test and the one for the load, or (-1, -1) where there is only one."""
    try:
        allowed = sorted(os.sched_getaffinity(0))
    except AttributeError:
        return -1, -1
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (-1, -1)


class Tool:
    """One running load program.

    ``options`` become ``--name value``; True gives a bare ``--name``, None and False leave it out. Use it as a context
    manager: leaving it ends the program.
    """

    def __init__(self, name: str, options: Mapping[str, Option]) -> None:
        command = [str(compile_program(name))]
        for key, value in options.items():
            if value is None or value is False:
                continue
            command.append(f"--{key.replace('_', '-')}")
            if value is not True:
                command.append(str(value))
        self.name = name
        self.events: list[Event] = []
        self._arrived: queue.Queue[Event | None] = queue.Queue()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, name=f"{name} output", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                event: Event = json.loads(line)
            except ValueError:
                event = {"event": "garbled", "line": line}
            self._arrived.put(event)
        self._arrived.put(None)

    def wait_for(self, event: str, *, timeout: float) -> Event:
        """Return the next event of that name, at once when it has come before.

        Raises BenchmarkError when the program ends without it or ``timeout`` seconds pass.
        """
        for seen in self.events:
            if seen.get("event") == event:
                return seen
        deadline = time.monotonic() + timeout
        while True:
            try:
                arrived = self._arrived.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise BenchmarkError(f"{self.name} did not report “{event}” within {timeout:.0f} s.") from None
            if arrived is None:
                self._arrived.put(None)
                self._process.wait(timeout=10)
                said = self._process.stderr.read().strip() if self._process.stderr else ""
                raise BenchmarkError(f"{self.name} ended before “{event}”{': ' + said if said else '.'}")
            self.events.append(arrived)
            if arrived.get("event") == event:
                return arrived

    def happened(self, event: str) -> list[Event]:
        """The events of that name that have come so far, without waiting."""
        while True:
            try:
                arrived = self._arrived.get_nowait()
            except queue.Empty:
                break
            if arrived is None:
                self._arrived.put(None)
                break
            self.events.append(arrived)
        return [seen for seen in self.events if seen.get("event") == event]

    def say(self, line: str) -> None:
        """Write one line to the program; a program that has ended is no error here (its events tell)."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass

    def summary(self, *, timeout: float) -> Event:
        """Wait for the program's end and return its summary."""
        return self.wait_for("summary", timeout=timeout)

    def end(self) -> Event:
        """Ask it to end by SIGTERM, and return its summary."""
        self._process.terminate()
        return self.summary(timeout=20)

    def stop(self) -> Event:
        """Tell it to end, and return its summary."""
        self.say("stop")
        return self.summary(timeout=20)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._process.stdin:
                self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(timeout=0.5 if kind else 5)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(timeout=5)
        self._reader.join(timeout=5)
        for stream in (self._process.stdout, self._process.stderr):
            if stream:
                stream.close()
