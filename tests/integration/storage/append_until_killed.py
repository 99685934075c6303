"""A program for ``test_sqlite_kill``: appends for ever and prints a line for every acknowledged publication."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from storage.contract import AppendRequest, Publication
from storage.sqlite import SQLiteStore


async def main(path: Path, life: str) -> None:
    store = SQLiteStore(path)
    await store.open()

    async def appender(number: int) -> None:
        count = 0
        while True:
            count += 1
            channel, data = f"c{number % 4}", f"{life}-{number}-{count}"
            made = await store.append(AppendRequest(channel, Publication(data.encode()), idempotency_key=data))
            line = f"{channel} {made.position.offset} {made.position.epoch} {data}\n"
            os.write(1, line.encode())  # one write, shorter than PIPE_BUF: whole or not at all

    async with asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(appender(number))
        tasks.create_task(store.prune({}))


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
