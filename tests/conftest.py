"""What all tests share: a clean environment, and programs that a test needs.

A test that runs a program says so with ``@pytest.mark.needs("node")``. Where the program is missing the test is skipped
with a reason; in CI (the variable ``CI`` is set) any skipped test makes the whole run fail, since it proves nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
WELL_KNOWN = {"PORT", "DATABASE_URL", "REDIS_URL", "AMQP_URL", "CLOUDAMQP_URL"}


def _node() -> bool:
    node = shutil.which("node")
    if node is None:
        return False
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    return version.startswith("v") and int(version[1:].split(".")[0]) >= 18


def _js_sdk() -> bool:
    return _node() and (HERE / "acceptance" / "js" / "node_modules" / "centrifuge").is_dir()


SPECIAL: dict[str, Callable[[], bool]] = {"node": _node, "js-sdk": _js_sdk}
"""Tools that are more than one program on the path; ``js-sdk`` is node with the packages that `make tools` installs."""


@cache
def available(tool: str) -> bool:
    """Whether a tool named in ``needs`` is here."""
    check = SPECIAL.get(tool)
    return check() if check is not None else shutil.which(tool) is not None


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        if missing := [tool for tool in marker.args if not available(tool)]:
            pytest.skip(f"needs {', '.join(missing)}, which is not here; `make tools` brings it, or says what does")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and exitstatus == pytest.ExitCode.OK and reporter is not None and _skipped(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if skipped := _skipped(terminalreporter):
        verdict = "in CI that fails the run" if os.environ.get("CI") else "in CI that would fail the run"
        terminalreporter.write_line(f"{skipped} tests did not run for want of a program or a system; {verdict}.")


def _skipped(reporter: pytest.TerminalReporter) -> int:
    return len(reporter.stats.get("skipped", []))


@pytest.fixture(autouse=True, scope="session")
def clean_environment() -> Iterator[None]:
    """Settings in the environment of whoever runs the tests are not the tests'."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name in WELL_KNOWN or (name.startswith("HUB_") and not name.startswith("HUB_TEST_")):
                patch.delenv(name)
        yield
