"""What a process has used so far, as the kernel counts it: CPU time, memory, sockets. Linux only."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

KIB = 1024


class Memory(NamedTuple):
    """Resident, proportional and private memory, in bytes."""

    rss: int
    pss: int
    uss: int


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of ``pid``, dead ones too, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | 2)  # the clock id that clock_getcpuclockid(3) gives for a process


def memory(pid: int) -> Memory:
    """The memory of ``pid`` now."""
    fields: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        fields[name.rstrip(":")] = int(value) * KIB
    return Memory(
        rss=fields["Rss"], pss=fields["Pss"], uss=fields.get("Private_Clean", 0) + fields.get("Private_Dirty", 0)
    )


def rss(pid: int) -> int:
    """Resident memory of ``pid`` in bytes; cheaper than ``memory``, for sampling."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    """Open file descriptors of ``pid``."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def established(port: int) -> int:
    """TCP connections to ``port`` of this machine whose server side an application still holds open (IPv4)."""
    wanted = f":{port:04X}"
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        # state 01 is ESTABLISHED, 08 CLOSE_WAIT; inode 0 belongs to no process any more
        count += fields[1].endswith(wanted) and fields[3] in {"01", "08"} and fields[9] != "0"
    return count
