"""Control groups, version 1 and 2: the tree of pods, their limits, what they use, and taking them away.

The tree is `<base>/kubepods[/burstable|/besteffort]/pod<uid>/<container>`. A container's own directory is made by the
engine; pods' and the monitors' are made here. Missing controllers are told (`missing`), never an error by themselves.
Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

from steersman.cluster.node.values import Resources

#: controllers that limits and statistics need
WANTED = ("cpu", "memory", "pids")
CPU_PERIOD_US = 100_000
#: how long a directory whose processes are dying may refuse to go
_REMOVE_DEADLINE_S = 2.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Args: working_set_bytes: usage less what the kernel could take back at once."""

    cpu_ns: int
    memory_bytes: int
    working_set_bytes: int


def pod_path(base: str, qos_class: str, pod_uid: str) -> str:
    """Returns a pod's path in every hierarchy, as `/steersman/kubepods/burstable/podUID`."""
    level = {"Burstable": "/burstable", "BestEffort": "/besteffort"}.get(qos_class, "")
    return f"{base}/kubepods{level}/pod{pod_uid}"


def shares_to_weight(shares: int) -> int:
    """Maps cpu.shares (2..262144) onto cpu.weight (1..10000) as runc and the kubelet do."""
    return 1 + (max(2, min(shares, 262144)) - 2) * 9999 // 262142


class Cgroups:
    """The machine's cgroup hierarchies; `version` is 1, 2, or 0 where there are none to write to."""

    def __init__(self, mountinfo: str = "/proc/self/mountinfo") -> None:
        self.version = 0
        #: controller (or `systemd` for the named hierarchy) to mount point; for version 2 the one key is `unified`
        self.mounts: dict[str, str] = {}
        #: a version-2 hierarchy mounted inside a version-1 tree
        self.hybrid = ""
        unified = ""
        with open(mountinfo) as file:
            for line in file:
                left, _, right = line.partition(" - ")
                kind, _, options = right.split()[:3]
                point = left.split()[4]
                if kind == "cgroup2":
                    unified = point
                elif kind == "cgroup":
                    names = {option.removeprefix("name=") for option in options.split(",")} - {"rw", "ro"}
                    self.mounts |= {name: point for name in names if name not in self.mounts}
        if self.mounts:
            self.version, self.hybrid = 1, unified
        elif unified:
            self.version, self.mounts = 2, {"unified": unified}

    @property
    def missing(self) -> tuple[str, ...]:
        """The wanted controllers that this process cannot use."""
        if self.version == 1:
            return tuple(n for n in WANTED if n not in self.mounts or not os.access(self.mounts[n], os.W_OK))
        if self.version == 2 and os.access(self.mounts["unified"], os.W_OK):
            enabled = (Path(self.mounts["unified"]) / "cgroup.controllers").read_text().split()
            return tuple(name for name in WANTED if name not in enabled)
        return WANTED

    def _roots(self) -> list[str]:
        """The distinct mount points."""
        return list(dict.fromkeys(self.mounts.values()))

    def make(self, path: str, resources: Resources | None = None) -> None:
        """Makes a group in every hierarchy and sets its limits."""
        for root in self._roots():
            os.makedirs(root + path, exist_ok=True)
        if self.version == 2:
            self._enable_controllers(path)
        if resources is not None:
            self.limit(path, resources)

    def _enable_controllers(self, path: str) -> None:
        """Lets every parent of a version-2 group hand its controllers down."""
        current = Path(self.mounts["unified"])
        for part in ("", *Path(path).relative_to("/").parent.parts):
            current = current / part if part else current
            available = (current / "cgroup.controllers").read_text().split()
            for name in ("cpu", "cpuset", "io", "memory", "pids"):
                if name in available:
                    # busy where processes live, as in a container's own root: the limits do not hold there
                    with contextlib.suppress(OSError):
                        (current / "cgroup.subtree_control").write_text(f"+{name}")

    def limit(self, path: str, resources: Resources) -> None:
        """Sets limits; 0 leaves a limit off."""
        if self.version == 2:
            quota = resources.cpu_quota_us or "max"
            rows = [
                ("unified", "cpu.weight", str(shares_to_weight(resources.cpu_shares))),
                ("unified", "cpu.max", f"{quota} {CPU_PERIOD_US}"),
                ("unified", "memory.max", str(resources.memory_limit_bytes or "max")),
                ("unified", "pids.max", str(resources.pids_limit or "max")),
            ]
        else:
            rows = [
                ("cpu", "cpu.shares", str(resources.cpu_shares)),
                ("cpu", "cpu.cfs_period_us", str(CPU_PERIOD_US)),
                ("cpu", "cpu.cfs_quota_us", str(resources.cpu_quota_us or -1)),
                ("memory", "memory.limit_in_bytes", str(resources.memory_limit_bytes or -1)),
                ("pids", "pids.max", str(resources.pids_limit or "max")),
            ]
        for controller, name, value in rows:
            root = self.mounts.get(controller)
            file = Path(f"{root}{path}/{name}")
            if root and file.exists():
                file.write_text(value)

    def procs_files(self, path: str) -> list[str]:
        """The files to write a process's number to so that it joins the group."""
        return [f"{root}{path}/cgroup.procs" for root in self._roots()]

    def pids(self, path: str) -> list[int]:
        """Every process in the group and the groups below it."""
        root = self.mounts.get("pids") or self.mounts.get("memory") or self.mounts.get("unified")
        found: list[int] = []
        for directory, _, _ in os.walk(f"{root}{path}") if root else ():
            with contextlib.suppress(OSError):
                found += [int(text) for text in Path(directory, "cgroup.procs").read_text().split()]
        return found

    def usage(self, path: str) -> Usage | None:
        """Returns what the group uses, or None when it is gone."""
        try:
            if self.version == 2:
                base = self.mounts["unified"] + path
                cpu_ns = _row(f"{base}/cpu.stat", "usage_usec") * 1000
                memory = int(Path(base, "memory.current").read_text())
                inactive = _row(f"{base}/memory.stat", "inactive_file")
            else:
                cpu_ns = int(Path(f"{self.mounts['cpuacct']}{path}/cpuacct.usage").read_text())
                memory = int(Path(f"{self.mounts['memory']}{path}/memory.usage_in_bytes").read_text())
                inactive = _row(f"{self.mounts['memory']}{path}/memory.stat", "total_inactive_file")
        except (OSError, KeyError, ValueError):
            return None
        return Usage(cpu_ns, memory, max(0, memory - inactive))

    def oom_kills(self, path: str) -> int:
        """How often the kernel has killed for memory in the group; 0 when that cannot be told."""
        try:
            if self.version == 2:
                return _row(f"{self.mounts['unified']}{path}/memory.events", "oom_kill")
            return _row(f"{self.mounts['memory']}{path}/memory.oom_control", "oom_kill")
        except (OSError, KeyError):
            return 0

    def remove(self, path: str) -> None:
        """Removes the group and every group below it; waits shortly for dying processes."""
        end = time.monotonic() + _REMOVE_DEADLINE_S
        # engines also leave directories in a version-2 hierarchy that only stands beside the one in use
        for root in [*self._roots(), *filter(None, [self.hybrid])]:
            for directory, _, _ in os.walk(f"{root}{path}", topdown=False):
                _remove_directory(directory, end)


def _remove_directory(directory: str, end: float) -> None:
    while True:
        try:
            return os.rmdir(directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise
        time.sleep(0.01)


def _row(path: str, name: str) -> int:
    """Reads one `name value` row of a statistics file; 0 when the row is missing."""
    with open(path) as file:
        for line in file:
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
