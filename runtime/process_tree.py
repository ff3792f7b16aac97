"""What a process and everything below it use, and which processes carry a container's mark.

Source: proc_pid_stat(5), proc_pid_environ(5).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from steersman.runtime.cgroups import Usage
from steersman.runtime.shim import MARK
from steersman.runtime.streams import descendants

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def usage(pid: int) -> Usage | None:
    """Returns what a process tree uses, or None when it is gone. Blocks."""
    ticks = memory = 0
    found = False
    for number in descendants(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()
            found = True
            # user and system time, its own and that of children that have ended
            ticks += sum(int(field) for field in fields[11:15])
            memory += int(fields[21]) * _PAGE_BYTES
    return Usage(ticks * _TICK_NS, memory, memory) if found else None


def marked(container_ids: set[str]) -> list[int]:
    """Returns the processes that belong to any of these containers. Blocks."""
    wanted = {f"{MARK}={container_id}".encode() for container_id in container_ids}
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted & set(Path(f"/proc/{name}/environ").read_bytes().split(b"\0")):
                    found.append(int(name))
    return found
