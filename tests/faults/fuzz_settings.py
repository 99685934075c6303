"""Mutated settings through the loader, in this process: it returns settings or raises its own error, nothing else."""

from __future__ import annotations

import copy
import json
import random
import re
import tempfile
from pathlib import Path
from typing import Any

from hub.settings_checks import require_private_or_secure, require_sound
from hub.settings_load import SettingsError, load, variable
from hub.settings_load import paths as setting_paths
from tests.faults.fuzz_report import Report
from tests.faults.mutate import dump, mutate_bytes, mutate_tree, odd
from tests.support.hub_config import API_KEY, TOKEN_SECRET, default_config

PATHS = [path for path, _ in setting_paths()]
SCALARS = [
    "1s",
    "5m",
    "-1s",
    "1e9h",
    "1h30m",
    "0s",
    "99999999d",
    "true",
    "no",
    "8000",
    "-1",
    "1.5",
    "",
    " ",
    "[]",
    "{}",
    "[{",
    "é",
]
TOML = b"""
workers = 1
[http_server]
port = 8000
[client]
allowed_origins = ["http://a.example"]
ping_interval = "25s"
[client.token]
hmac_secret_key = "0123456789012345678901234567890123456789"
[rate_limit.publish]
rate = 5.5
burst = 10
[[channel.namespaces]]
name = "news"
history_size = 10
history_ttl = "60s"
"""


def fuzz_settings(report: Report, count: int, seed: str) -> None:
    """Files, trees and variables in turn; a complaint for every exception that is not ``SettingsError``."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="hub-fuzz-") as folder:
        for _ in range(count):
            file, content, environ = _input(Path(folder), chance)
            report.inputs["settings"] += 1
            try:
                loaded = load(file, environ)
                require_sound(loaded)
                require_private_or_secure(loaded)
                report.answers["settings accepted"] += 1
            except SettingsError as error:
                report.answers["settings refused"] += 1
                _check(report, content, environ, error)
            except Exception as error:
                report.complain("settings", content + repr(environ).encode(), repr(error)[:300], "SettingsError")


def _check(report: Report, content: bytes, environ: dict[str, str], error: SettingsError) -> None:
    """The message is sentences without secrets, each on one printable line."""
    if not error.problems:
        report.complain("settings", content, "no problem named", "a sentence")
    for problem in error.problems:
        if "\n" in problem or len(problem) > 2000 or not re.search(r"\w", problem):
            report.complain("settings", content, problem[:300], "one line")
        if TOKEN_SECRET in problem or API_KEY in problem:
            report.complain("settings", content, problem[:300], "no secret")


def _input(folder: Path, chance: random.Random) -> tuple[Path | None, bytes, dict[str, str]]:
    choice = chance.random()
    environ: dict[str, str] = {}
    if choice < 0.2:
        for _ in range(chance.choice([1, 1, 2, 4])):
            name = (
                variable(chance.choice(PATHS))
                if chance.random() < 0.9
                else "HUB_" + chance.choice(["X", "", "CLIENT_", "é"])
            )
            environ[name] = _text(chance)
        if chance.random() < 0.2:
            environ[chance.choice(["PORT", "DATABASE_URL", "REDIS_URL", "AMQP_URL", "CLOUDAMQP_URL"])] = _text(chance)
        return None, b"", environ
    if choice < 0.35:
        file = folder / "hub.toml"
        content = mutate_bytes(TOML, chance)
    else:
        file = folder / "hub.json"
        tree: Any = copy.deepcopy(default_config())
        tree["channel"]["namespaces"] = chance.sample(tree["channel"]["namespaces"], 3)
        _set(tree, chance.choice(PATHS), chance.choice([odd(chance), chance.choice(SCALARS), [chance.choice(SCALARS)]]))
        for _ in range(chance.choice([0, 1, 2])):
            tree = mutate_tree(tree, chance)
        content = dump(tree, chance)
        if chance.random() < 0.1:
            content = mutate_bytes(content, chance)
    file.write_bytes(content)
    return file, content, environ


def _set(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        below = tree.get(name)
        if not isinstance(below, dict):
            below = tree[name] = {}
        tree = below
    tree[last] = value


def _text(chance: random.Random) -> str:
    choice = chance.random()
    if choice < 0.5:
        return chance.choice(SCALARS)
    value = odd(chance)
    text = (
        value.decode("latin-1") if isinstance(value, bytes) else value if isinstance(value, str) else json.dumps(value)
    )
    # What an environment cannot hold cannot come from it either.
    return text.replace("\x00", "")
