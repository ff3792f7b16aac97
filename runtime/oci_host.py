"""What the parts of the oci runtime share: its tools, directories and what the machine allows."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steersman.cluster.node.values import RuntimeFailure
from steersman.runtime import cgroups, mounts, syscalls
from steersman.runtime import engine as engines
from steersman.runtime.cgroups import Cgroups, pod_path
from steersman.runtime.engine import Engine
from steersman.runtime.ledger import Ledger
from steersman.runtime.podnet import PodNetwork
from steersman.runtime.records import ContainerRecord, SandboxRecord


class OciHost:
    """Tools and places of one oci runtime.

    Args:
        root: the data directory; everything on the machine that belongs to it carries a tag derived from its path.
    """

    def __init__(self, root: Path, *, engine: str | None, now: Callable[[], float]) -> None:
        self.root = root
        self.now = now
        self.wanted_engine = engine
        self.tag = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:4]
        self.base_cgroup = f"/steersman-{self.tag}"
        self.cgroups = Cgroups()
        self.network = PodNetwork(self.tag)
        self.ledger = Ledger(root, self._why)
        self.engine: Engine
        self.conmon = ""
        self.held = 0
        self.controllers: tuple[str, ...] = ()
        self.oom_score_adj_min = -1000
        self.reduced: list[str] = []

    @property
    def conmon_cgroup(self) -> str:
        return f"{self.base_cgroup}/conmon"

    async def look(self) -> None:
        """Finds the tools and learns what the machine allows. Raises RuntimeFailure("RuntimeNotReady")."""
        if os.geteuid() != 0 or not syscalls.has_capability(syscalls.CAP_SYS_ADMIN):
            raise RuntimeFailure("RuntimeNotReady", "the oci runtime needs root with CAP_SYS_ADMIN")
        path = engines.find(self.wanted_engine, self.cgroups.version)
        conmon = shutil.which("conmon")
        if path is None or conmon is None:
            missing = "conmon" if path else (self.wanted_engine or "crun or runc")
            raise RuntimeFailure("RuntimeNotReady", f"{missing} is not installed")
        self.conmon = conmon
        self.root.mkdir(parents=True, exist_ok=True, mode=0o711)
        mounts.make_shared_mount(self.root)
        self.engine = Engine(path, self.root / "engine", self.cgroups)
        await self.engine.look()
        self.held = syscalls.capabilities()
        self._look_at_oom_score()
        missing_controllers = self.cgroups.missing
        self.controllers = tuple(name for name in cgroups.WANTED if name not in missing_controllers)
        if missing_controllers:
            self.reduced.append(f"no cgroup controllers {', '.join(missing_controllers)}: limits are not enforced")
        if not self.engine.has_seccomp:
            self.reduced.append(f"{self.engine.name} has no seccomp: system calls are not filtered")
        if shutil.which("nft") is None:
            self.reduced.append("nft is not installed: hostPort does not work")

    def _look_at_oom_score(self) -> None:
        """Learns the lowest oom_score_adj that can be set; takes back what a parent has put on this process."""
        score = Path("/proc/self/oom_score_adj")
        if int(score.read_text()) > 0:
            with contextlib.suppress(OSError):
                score.write_text("0")
        if not syscalls.has_capability(syscalls.CAP_SYS_RESOURCE):
            self.oom_score_adj_min = int(score.read_text())
            self.reduced.append("no CAP_SYS_RESOURCE: important pods cannot be spared by the memory killer")

    def open(self) -> None:
        self.ledger.open()
        self.cgroups.make(self.conmon_cgroup)

    # --- containers seen from the kernel

    def pod_cgroup(self, record: SandboxRecord) -> str:
        return pod_path(self.base_cgroup, record.spec.qos_class, record.spec.pod_uid)

    def container_cgroup(self, record: ContainerRecord) -> str:
        sandbox = self.ledger.sandboxes.get(record.sandbox_id)
        return f"{self.pod_cgroup(sandbox)}/{record.id}" if sandbox else ""

    def _why(self, record: ContainerRecord) -> str:
        """Whether a container that ended was killed for its memory."""
        if (self.ledger.container_dir(record.id) / "oom").exists():
            return "OOMKilled"
        group = self.container_cgroup(record)
        return "OOMKilled" if group and self.cgroups.oom_kills(group) and record.boot_id == self.ledger.boot_id else ""


def host_devices() -> tuple[dict[str, Any], ...]:
    """Returns the machine's devices as rows of `linux.devices`, for privileged containers."""
    rows: list[dict[str, Any]] = []
    skipped = {"/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd"}
    for directory, names, files in os.walk("/dev"):
        names[:] = [name for name in names if os.path.join(directory, name) not in skipped]
        for name in files:
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                found = os.lstat(path)
                if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
                    rows.append(_device(path, found))
    return tuple(sorted(rows, key=lambda row: str(row["path"])))


def _device(path: str, found: os.stat_result) -> dict[str, Any]:
    return {
        "path": path,
        "type": "c" if stat.S_ISCHR(found.st_mode) else "b",
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }
