"""Acknowledged appends per second of the embedded store, beside a bare sqlite3 loop of the same batches.

Run ``python -m benchmarks.store``. Each line is one run: so many appenders, each waiting for its acknowledgement before
its next append; then the same number of rows by a loop that does nothing but one transaction per so many rows, in the
same tables, with the same durability. Both write to the same disk, in a fresh file each.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from storage.contract import AppendRequest, Publication, ReadQuery
from storage.sqlite import SQLiteStore
from storage.sqlite_append import INSERT_PUBLICATIONS, INSERT_STREAMS
from storage.sqlite_file import open_database, take
from storage.sqlite_rows import key_of

CHANNELS = 50


def _channel(appender: int) -> str:
    return f"bench:{appender % CHANNELS}"


async def run_store(path: Path, appenders: int, seconds: float, data: bytes) -> tuple[int, float, list[float], int]:
    """Append for ``seconds``; returns how many, in what time, each one's latency, and the number of commits."""
    commits = 0

    def observe(kind: str, _seconds: float, _rows: int) -> None:
        nonlocal commits
        commits += kind == "commit"

    store = SQLiteStore(path, observe=observe)
    await store.open()
    latencies: list[float] = []
    started = time.perf_counter()
    end = started + seconds

    async def appender(number: int) -> None:
        channel = _channel(number)
        while (before := time.perf_counter()) < end:
            await store.append(AppendRequest(channel, Publication(data)))
            latencies.append(time.perf_counter() - before)

    await asyncio.gather(*(appender(number) for number in range(appenders)))
    took = time.perf_counter() - started
    await store.close()
    return len(latencies), took, latencies, commits


def run_bare(path: Path, per_commit: int, rows: int, data: bytes) -> float:
    """Insert ``rows`` publications, ``per_commit`` in a transaction; returns the seconds that took."""
    lock = take(path)
    connection = open_database(path, busy_timeout=1.0)
    insert_stream = INSERT_STREAMS.replace(":rows", "(?, ?, ?, ?, ?, ?, ?, ?, ?)")
    insert = INSERT_PUBLICATIONS.replace(":rows", "(?, ?, ?, ?, ?, ?, ?)")
    for stream in range(CHANNELS):
        connection.execute(insert_stream, (stream, _channel(stream), "", "e", 0, 0, 0, "", 0))
    tops = [0] * CHANNELS
    started = time.perf_counter()
    done = 0
    while done < rows:
        batch = []
        for stream in range(per_commit):
            stream %= CHANNELS
            tops[stream] += 1
            batch.append((key_of(stream, tops[stream]), int(time.time() * 1000), data, None, None, 0, 0))
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(insert, batch)
        connection.executemany(
            "UPDATE streams SET top_offset = ? WHERE id = ?", [(tops[s], s) for s in range(min(per_commit, CHANNELS))]
        )
        connection.execute("COMMIT")
        done += per_commit
    took = time.perf_counter() - started
    connection.close()
    lock.release()
    return took * rows / done


async def run_reads(path: Path, pages: int, size: int) -> float:
    """Read pages of ``size`` publications one after the other; returns seconds per page."""
    store = SQLiteStore(path)
    await store.open()
    started = time.perf_counter()
    for number in range(pages):
        await store.read(_channel(number), ReadQuery(limit=size))
    took = time.perf_counter() - started
    await store.close()
    return took / pages


def main() -> None:
    """Print one line per number of appenders, then reading."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of each run (default 5)")
    parser.add_argument("--size", type=int, default=163, help="bytes of payload (default 163)")
    parser.add_argument("--dir", type=Path, default=None, help="where to write (default: the temporary folder)")
    parser.add_argument("--appenders", type=int, nargs="+", default=[1, 20, 200, 1000])
    options = parser.parse_args()
    data = b'"' + b"x" * (options.size - 2) + b'"'
    print("appenders  appends/s  p50 ms  p99 ms  rows/commit   bare sqlite3 rows/s   ratio")
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        path = Path(folder)
        for appenders in options.appenders:
            file = path / f"store{appenders}.db"
            count, took, latencies, commits = asyncio.run(run_store(file, appenders, options.seconds, data))
            bare = run_bare(path / f"bare{appenders}.db", appenders, count, data)
            cuts = statistics.quantiles(latencies, n=100)
            print(
                f"{appenders:9}  {count / took:9.0f}  {cuts[49] * 1000:6.2f}  {cuts[98] * 1000:6.2f}"
                f"  {count / commits:11.1f}   {count / bare:19.0f}   {bare / took:5.2f}",
                flush=True,
            )
        each = asyncio.run(run_reads(path / f"store{options.appenders[-1]}.db", 200, 300))
        print(f"reading a page of 300 publications: {each * 1000:.2f} ms")


if __name__ == "__main__":
    main()
