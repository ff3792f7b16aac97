"""The OCI configuration of a container, as a function of values.

Decides capabilities, namespaces, mounts, devices, limits and masked paths; reads nothing from the machine: what must be
known of it stands in `Surroundings`.
Source: https://github.com/opencontainers/runtime-spec/blob/main/config.md and Docker's defaults
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from steersman.cluster.node.values import ContainerSpec, Mount, RuntimeFailure, SandboxSpec
from steersman.runtime import seccomp
from steersman.runtime.cgroups import CPU_PERIOD_US
from steersman.runtime.users import Account

#: in the order of their numbers
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip

#: what every container may do by default
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP",
)  # fmt: skip

#: hidden from containers
MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
#: shown to containers, not to be written
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_PATH_DEFAULT = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROPAGATION = {"None": "rprivate", "HostToContainer": "rslave", "Bidirectional": "rshared", "": "rprivate"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a container's configuration needs to know of its machine and its pod.

    Args:
        rootfs: host path of the mounted root file system.
        namespaces: kind (`network`, `ipc`, `uts`, `pid`) to the host path of a pinned namespace; a kind that is
            missing is the host's, except `pid` and `mount`, which are new.
        cgroup: path of the container's own group.
        files: host files shown in the container: (host path, container path), as hosts and resolv.conf.
        shm: host path of the pod's /dev/shm.
        held: bit mask of the capabilities that this process can give.
        oom_score_adj_min: the lowest score this process may set.
        devices: of the host, for privileged containers: rows of `linux.devices`.
        with_seccomp: whether the engine can filter system calls.
        controllers: the cgroup controllers that can be limited with.
        cgroup_version: 1 or 2, 0 where there are none.
    """

    rootfs: str
    namespaces: Mapping[str, str]
    cgroup: str
    files: tuple[tuple[str, str], ...] = ()
    shm: str = ""
    held: int = (1 << 41) - 1
    oom_score_adj_min: int = -1000
    devices: tuple[Mapping[str, Any], ...] = ()
    with_seccomp: bool = True
    controllers: tuple[str, ...] = ("cpu", "memory", "pids")
    cgroup_version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """The parts of an image's configuration that a container inherits."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def process_args(container: ContainerSpec, image: ImageConfig) -> list[str]:
    """Returns the command line: the pod's command replaces the image's entrypoint and its arguments.

    Raises:
        RuntimeFailure: neither names a command.
    """
    if container.command:
        found = [*container.command, *container.args]
    else:
        found = [*image.entrypoint, *(container.args or image.command)]
    if not found:
        raise RuntimeFailure("CreateContainerError", "no command specified")
    return found


def process_env(container: ContainerSpec, image: ImageConfig, hostname: str, home: str) -> list[str]:
    """Returns `NAME=value` lines: the image's, overridden by the pod's."""
    found = {"PATH": _PATH_DEFAULT, "HOSTNAME": hostname, "HOME": home}
    if container.tty:
        found["TERM"] = "xterm"
    for line in image.env:
        name, _, value = line.partition("=")
        found[name] = value
    found |= dict(container.env)
    return [f"{name}={value}" for name, value in found.items()]


def capabilities(container: ContainerSpec, held: int) -> list[str]:
    """Returns the capabilities of the container, of those that can be given at all."""
    security = container.security
    if security.privileged:
        wanted = set(CAPABILITIES)
    else:
        added, dropped = _names(security.capabilities_add), _names(security.capabilities_drop)
        wanted = set(CAPABILITIES) if "CAP_ALL" in added else set(DEFAULT_CAPABILITIES)
        wanted = set() if "CAP_ALL" in dropped else wanted - dropped
        wanted |= added - {"CAP_ALL"}
    return [name for number, name in enumerate(CAPABILITIES) if name in wanted and held >> number & 1]


def _names(found: tuple[str, ...]) -> set[str]:
    return {f"CAP_{name.upper().removeprefix('CAP_')}" for name in found}


def build(
    container: ContainerSpec, sandbox: SandboxSpec, image: ImageConfig, account: Account, around: Surroundings
) -> dict[str, Any]:
    """Returns the `config.json` of a container."""
    security = container.security
    held = capabilities(container, around.held)
    # a process that is not root keeps nothing across exec; its bounding set still limits what set-uid files can give
    caps = dict.fromkeys(("bounding", "effective", "permitted"), held)
    process = {
        "terminal": container.tty,
        "user": {"uid": account.uid, "gid": account.gid, "additionalGids": list(account.groups), "umask": 0o022},
        "args": process_args(container, image),
        "env": process_env(container, image, sandbox.hostname, account.home),
        "cwd": container.working_dir or image.working_dir or "/",
        "capabilities": caps | {"inheritable": [], "ambient": []},
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": max(container.resources.oom_score_adj, around.oom_score_adj_min),
    }
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": around.rootfs, "readonly": security.read_only_root},
        "mounts": _mounts(container, around, host_network=sandbox.host_network),
        "linux": _linux(container, held, around),
        "annotations": {
            "io.kubernetes.pod.uid": container.pod_uid,
            "io.kubernetes.pod.name": container.pod_name,
            "io.kubernetes.pod.namespace": container.namespace,
            "io.kubernetes.container.name": container.name,
        },
    }


def _linux(container: ContainerSpec, held: list[str], around: Surroundings) -> dict[str, Any]:
    privileged = container.security.privileged
    namespaces: list[dict[str, str]] = [{"type": "mount"}]
    for kind, path in sorted(around.namespaces.items()):
        if path != "host":
            namespaces.append({"type": kind, "path": path} if path else {"type": kind})
    if around.cgroup_version == 2 and not privileged:
        namespaces.append({"type": "cgroup"})
    found: dict[str, Any] = {
        "namespaces": namespaces,
        "cgroupsPath": around.cgroup,
        "rootfsPropagation": "rslave",
        "resources": _resources(container, around),
    }
    if any(mount.propagation == "Bidirectional" for mount in container.mounts):
        found["rootfsPropagation"] = "rshared"
    if privileged:
        found["devices"] = [dict(row) for row in around.devices]
    else:
        found |= {"maskedPaths": list(MASKED_PATHS), "readonlyPaths": list(READ_ONLY_PATHS)}
        if around.with_seccomp:
            found["seccomp"] = seccomp.profile(held)
    return found


def _resources(container: ContainerSpec, around: Surroundings) -> dict[str, Any]:
    found: dict[str, Any] = {"devices": [{"allow": container.security.privileged, "access": "rwm"}]}
    limits = container.resources
    if "cpu" in around.controllers:
        found["cpu"] = {"shares": max(2, limits.cpu_shares)}
        if limits.cpu_quota_us:
            found["cpu"] |= {"quota": limits.cpu_quota_us, "period": CPU_PERIOD_US}
    if limits.memory_limit_bytes and "memory" in around.controllers:
        found["memory"] = {"limit": limits.memory_limit_bytes}
    if limits.pids_limit and "pids" in around.controllers:
        found["pids"] = {"limit": limits.pids_limit}
    return found


def _mounts(container: ContainerSpec, around: Surroundings, *, host_network: bool) -> list[dict[str, Any]]:
    privileged = container.security.privileged
    safe = ["nosuid", "noexec", "nodev"]
    access = "rw" if privileged else "ro"
    found: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": safe},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": safe},
    ]
    if host_network:
        # a sysfs of one's own shows one's own network; the host's is shown as it is
        found.append({"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", *safe, access]})
    else:
        found.append({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*safe, access]})
        if around.cgroup_version:
            options = [*safe, "relatime", access]
            found.append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options})
    if around.shm:
        found.append(_bind(Mount(host_path=around.shm, container_path="/dev/shm")))
    taken = {mount.container_path.rstrip("/") for mount in container.mounts}
    found += [
        _bind(Mount(host_path=host, container_path=path, read_only=container.security.read_only_root))
        for host, path in around.files
        if path not in taken
    ]
    return found + [_bind(mount) for mount in sorted(container.mounts, key=lambda m: m.container_path.count("/"))]


def _bind(mount: Mount) -> dict[str, Any]:
    access = "ro" if mount.read_only else "rw"
    return {
        "destination": mount.container_path,
        "type": "bind",
        "source": mount.host_path,
        "options": ["rbind", _PROPAGATION.get(mount.propagation, "rprivate"), access],
    }
