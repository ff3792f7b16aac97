"""Starting a container under conmon, which keeps its log, its exit code and its terminal while agents come and go.

conmon forks twice and leads a session of its own; a small shell first moves it into a cgroup of its own and takes back
the scheduling and memory-killer handicaps that an agent may have inherited.
Source: https://github.com/containers/conmon/blob/main/docs/conmon.8.md
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path

from steersman.cluster.node.values import RuntimeFailure
from steersman.runtime import crilog
from steersman.runtime.engine import Engine, clean_message

#: conmon itself starts a log anew beyond this, should no agent rotate it in time
_LOG_BYTES_HARD_MAX = 4 * crilog.LOG_BYTES_MAX
_CREATE_DEADLINE_S = 60.0
_SYNC_BYTES_MAX = 64 * 1024

_PRELUDE = """
while [ "$1" != -- ]; do echo 0 > "$1"; shift; done; shift
echo 0 > /proc/self/oom_score_adj
[ "$NICE_FROM" = 0 ] || renice -n 0 -p $$
exec "$@"
"""

_RESIZE, _REOPEN_LOG = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitored:
    """Args: pid: of the container's first process; monitor: of conmon."""

    pid: int
    monitor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What conmon is told. Args: cgroup_procs: the files by which it joins its own cgroup."""

    container_id: str
    name: str
    bundle: Path
    exits: Path
    tty: bool
    stdin: bool
    stdin_once: bool
    cgroup_procs: tuple[str, ...]


def argv(conmon: str, engine: Engine, launch: Launch, mount_namespace: int) -> list[str]:
    """Returns the command line that creates the container, in a mount namespace by its descriptor or (-1) in ours."""
    enter = ("nsenter", f"--mount=/proc/self/fd/{mount_namespace}") if mount_namespace >= 0 else ()
    found = [
        "sh", "-c", _PRELUDE, "sh", *launch.cgroup_procs, "--", *enter,
        conmon, "--api-version", "1", "-c", launch.container_id, "-u", launch.container_id, "-n", launch.name,
        "-r", engine.path, "--runtime-arg", f"--root={engine.state}",
        "-b", str(launch.bundle), "--persist-dir", str(launch.bundle), "--exit-dir", str(launch.exits),
        "-p", str(launch.bundle / "pid"), "-P", str(launch.bundle / "conmon.pid"),
        "-l", f"k8s-file:{launch.bundle / 'log'}", "--log-size-max", str(_LOG_BYTES_HARD_MAX), "--no-sync-log",
        "--full-attach", "--socket-dir-path", str(launch.bundle), "--log-level", "error",
    ]  # fmt: skip
    if launch.tty:
        found.append("-t")
    if launch.stdin:
        found.append("-i")
        if not launch.stdin_once:
            found.append("--leave-stdin-open")
    return found


async def create(conmon: str, engine: Engine, launch: Launch) -> Monitored:
    """Creates the container (its process waits to be started). Raises RuntimeFailure("CreateContainerError")."""
    mount_namespace = await engine.creation_namespace()
    reading, writing = os.pipe()
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    # conmon lives long: nothing of the agent's environment, which may hold secrets, stays with it
    environment = {"PATH": os.environ.get("PATH", os.defpath), "_OCI_SYNCPIPE": str(writing), "NICE_FROM": str(nice)}
    try:
        process = await asyncio.create_subprocess_exec(
            *argv(conmon, engine, launch, mount_namespace),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(writing,) if mount_namespace < 0 else (writing, mount_namespace),
            env=environment,
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
        if mount_namespace >= 0:
            os.close(mount_namespace)
    try:
        async with asyncio.timeout(_CREATE_DEADLINE_S):
            said = await read_line(reading)
            await process.wait()
    except TimeoutError:
        raise RuntimeFailure("CreateContainerError", "conmon did not answer in time") from None
    pid, message = _answer(said)
    if pid <= 0:
        raise RuntimeFailure("CreateContainerError", message or "conmon ended without a word")
    return Monitored(pid=pid, monitor=int((launch.bundle / "conmon.pid").read_text() or 0))


async def read_line(fd: int) -> bytes:
    """Reads one line from a pipe, and closes it.

    Not through a loop's transport: uvloop's closes the number twice, which by then may be another thread's file.
    """
    loop = asyncio.get_running_loop()
    os.set_blocking(fd, False)
    readable, said = asyncio.Event(), b""
    loop.add_reader(fd, readable.set)
    try:
        while b"\n" not in said and len(said) < _SYNC_BYTES_MAX:
            await readable.wait()
            readable.clear()
            try:
                piece = os.read(fd, _SYNC_BYTES_MAX)
            except BlockingIOError:
                continue
            if not piece:
                break
            said += piece
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    return said.partition(b"\n")[0]


def _answer(said: bytes) -> tuple[int, str]:
    """Returns (pid or a negative code, message) of what conmon wrote to the pipe."""
    try:
        found = json.loads(said)
    except ValueError:
        return -1, said.decode(errors="replace").strip()
    lines = [line for line in str(found.get("message") or "").splitlines() if line.strip()]
    return int(found.get("data", found.get("pid", -1))), clean_message(lines[-1]) if lines else ""


def _control(bundle: Path, message: str) -> None:
    """Writes to conmon's control pipe; a monitor that is gone needs no word."""
    try:
        fd = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return
        raise
    try:
        os.write(fd, message.encode())
    finally:
        os.close(fd)


def resize(bundle: Path, width: int, height: int) -> None:
    """Changes the size of the container's terminal."""
    _control(bundle, f"{_RESIZE} {height} {width}\n")


def reopen_log(bundle: Path) -> None:
    """Has conmon open its log file anew, after the old one was renamed."""
    _control(bundle, f"{_REOPEN_LOG} 0 0\n")
