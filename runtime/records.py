"""What a runtime keeps on disk about its sandboxes and containers, so that a new agent finds them all again.

A directory without a readable record was being made when its maker died: it is rubbish, and says so by lacking one.
Records are written whole under another name and renamed, so a reader never sees half of one.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from steersman.cluster.node.values import ContainerSpec, SandboxSpec

_R = TypeVar("_R", "SandboxRecord", "ContainerRecord")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRecord:
    """Args: boot_id: of the machine's boot in which it was made; stopped: its namespaces were given up."""

    id: str
    spec: SandboxSpec
    boot_id: str
    created_at: float
    ips: tuple[str, ...] = ()
    stopped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    """One container's life so far.

    Args:
        pid, pid_start: its first process, told apart from later owners of the number by its start in clock ticks.
        monitor, monitor_start: the process that keeps its log and writes its exit file.
        starting: whether it was being started when the record was written.
        started_at, finished_at: Unix seconds; 0 when not reached.
        stop_signal: number of the signal that asks it to end.
    """

    id: str
    sandbox_id: str
    spec: ContainerSpec
    boot_id: str
    created_at: float
    pid: int = 0
    pid_start: int = 0
    monitor: int = 0
    monitor_start: int = 0
    starting: bool = False
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    stop_signal: int = 15


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(fd, "wb") as file:
        file.write(data)
    os.replace(temporary, path)


def save(path: Path, record: SandboxRecord | ContainerRecord) -> None:
    write_atomically(path, msgspec.json.encode(record))


def load(path: Path, kind: type[_R]) -> _R | None:
    """Returns the record, or None when there is no readable one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def process_start(pid: int) -> int:
    """Returns when a process started, in clock ticks since boot; 0 when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def is_alive(pid: int, start: int) -> bool:
    """Whether the process that had this number at that time still runs."""
    return pid > 0 and start > 0 and process_start(pid) == start


def kill(pid: int, start: int, number: int) -> None:
    """Sends a signal to exactly that process; one that is gone needs none."""
    if pid <= 0:
        return
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if process_start(pid) == start:
            _send(fd, number)
    finally:
        os.close(fd)


def _send(pidfd: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)
