"""The OCI engine on this machine (crun or runc): how to call it here, and what it answers.

Source: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md, crun(1), runc(8)
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steersman.runtime import netns, syscalls
from steersman.runtime.cgroups import Cgroups

#: the engines we know, the lighter one first
KNOWN = ("crun", "runc")
_PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: what an engine may print at most before it is cut
_OUTPUT_BYTES_MAX = 64 * 1024
_CALL_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    stdout: bytes
    stderr: bytes

    @property
    def message(self) -> str:
        """The last thing it said, without time stamps and JSON around it."""
        lines = [line for line in self.stderr.decode(errors="replace").splitlines() if line.strip()]
        return clean_message(lines[-1]) if lines else f"exit code {self.code}"


def clean_message(line: str) -> str:
    """Takes the sentence out of an engine's log line (`time=... level=error msg="..."`)."""
    if match := re.search(r'msg="((?:[^"\\]|\\.)*)"', line):
        return match[1].replace('\\"', '"').replace("\\\\", "\\")
    return re.sub(r"^\d{4}-\d\d-\d\dT[\d:.]+Z?:?\s*", "", line)


def find(preferred: str | None, cgroup_version: int = 1) -> str | None:
    """Returns the path of the preferred or else of the best engine that is installed and can work."""
    found = [path for name in ((preferred,) if preferred else KNOWN) if (path := shutil.which(name, path=_PLACES))]
    if len(found) > 1 and cgroup_version == 2 and not _may_lock_memory():
        # on cgroup version 2 crun raises its limit of locked memory first, and gives up where it may not
        found = [path for path in found if Path(path).name != "crun"]
    return found[0] if found else None


def _may_lock_memory() -> bool:
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    return hard == resource.RLIM_INFINITY or syscalls.has_capability(syscalls.CAP_SYS_RESOURCE)


class Engine:
    """Calls one engine over one state directory."""

    def __init__(self, path: str, state: Path, cgroups: Cgroups) -> None:
        self.path = path
        self.name = Path(path).name
        self.state = state
        self.version = ""
        self.has_seccomp = False
        #: a mount that crun's `create` takes for a misconfigured machine: cgroup2 inside a cgroup v1 tree
        self.hidden_mount = cgroups.hybrid if self.name == "crun" and cgroups.version == 1 else ""

    async def look(self) -> None:
        """Learns the version. Raises OSError when the engine cannot be run."""
        text = (await run((self.path, "--version"))).stdout.decode()
        match = re.search(r"version (\S+)", text)
        self.version = f"{self.name} {match[1] if match else '?'}"
        self.has_seccomp = "SECCOMP" in text or "libseccomp" in text

    def argv(self, *arguments: str) -> tuple[str, ...]:
        return (self.path, f"--root={self.state}", *arguments)

    async def call(self, *arguments: str, deadline_s: float = _CALL_DEADLINE_S) -> Outcome:
        return await run(self.argv(*arguments), deadline_s=deadline_s)

    async def delete(self, container_id: str) -> None:
        """Removes a container by force; one that is gone needs none."""
        await self.call("delete", "--force", container_id)

    async def creation_namespace(self) -> int:
        """Returns a descriptor of the mount namespace in which `create` works here, -1 for our own.

        It is as the host's is now, but for the mount that has to be hidden; all others go on passing mounts to and fro.
        """
        if not self.hidden_mount:
            return -1

        def work() -> int:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("", str(Path(self.hidden_mount).parent), flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
            syscalls.umount(self.hidden_mount)
            return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

        return await netns.in_thread(work)


async def run(argv: Sequence[str], *, deadline_s: float = _CALL_DEADLINE_S, cwd: Path | None = None) -> Outcome:
    """Runs a program to its end. Raises TimeoutError, and OSError when it cannot be started."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        cwd=cwd,
    )
    try:
        async with asyncio.timeout(deadline_s):
            out, errors = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    return Outcome(process.returncode or 0, out[:_OUTPUT_BYTES_MAX], errors[-_OUTPUT_BYTES_MAX:])
