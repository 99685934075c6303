"""SIGKILL at any moment: what was acknowledged is there once, offsets are dense, the epoch is the same."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage.contract import Page, ReadQuery
from storage.sqlite import SQLiteStore

ROUNDS = 8


def start(path: Path, life: int, root: Path) -> subprocess.Popen[bytes]:
    program = Path(__file__).parent / "append_until_killed.py"
    return subprocess.Popen(
        [sys.executable, str(program), str(path), str(life)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


async def read_all(path: Path, channels: list[str]) -> dict[str, Page]:
    store = SQLiteStore(path)
    await store.open()
    try:
        return {channel: await store.read(channel, ReadQuery(limit=-1)) for channel in channels}
    finally:
        await store.close()


def test_acknowledged_publications_survive(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    chance = random.Random(2)
    path = tmp_path / "hub.db"
    acknowledged: dict[str, dict[int, str]] = {f"c{number}": {} for number in range(4)}
    epochs: dict[str, set[str]] = {channel: set() for channel in acknowledged}
    for life in range(ROUNDS):
        with start(path, life, pytestconfig.rootpath) as process:
            assert process.stdout is not None
            told: list[bytes] = []
            for _ in range(chance.randrange(1, 3000)):
                told.append(process.stdout.readline())
                assert told[-1], "the program ended by itself"
            process.kill()
            told += process.stdout.readlines()  # what it wrote before it died
        for line in told:
            channel, offset, epoch, data = line.decode().split()
            assert acknowledged[channel].setdefault(int(offset), data) == data
            epochs[channel].add(epoch)

        for channel, page in asyncio.run(read_all(path, list(acknowledged))).items():
            assert [one.offset for one in page.publications] == list(range(1, page.position.offset + 1))
            found = {one.offset: one.data.decode() for one in page.publications}
            assert len(set(found.values())) == len(found)
            assert {offset: found.get(offset) for offset in acknowledged[channel]} == acknowledged[channel]
            assert epochs[channel] <= {page.position.epoch}
    assert all(acknowledged.values())


def test_a_file_half_made_is_made_whole(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    chance = random.Random(3)
    for life in range(10):
        path = tmp_path / f"hub{life}.db"
        with start(path, life, pytestconfig.rootpath) as process:
            while not path.exists():
                time.sleep(0.0002)
            time.sleep(chance.random() * 0.006)
            process.kill()
        assert asyncio.run(read_all(path, ["new"]))["new"].position.offset == 0
