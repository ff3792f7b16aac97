"""What this machine is: the facts that a node reports of itself.

Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/node-v1/#NodeStatus
"""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path

#: pods a node takes unless told otherwise, as the kubelet's default
PODS_MAX = 110

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Args: cpus: that this process may use; memory_bytes: the lower of the machine's and our own cgroup's limit."""

    hostname: str
    address: str
    cpus: int
    memory_bytes: int
    disk_bytes: int
    architecture: str
    kernel_version: str
    os_image: str
    machine_id: str
    system_uuid: str
    boot_id: str

    def capacity(self) -> dict[str, str]:
        """Returns the quantities of `Node.status.capacity`."""
        return {
            "cpu": str(self.cpus),
            "memory": f"{self.memory_bytes // 1024}Ki",
            "ephemeral-storage": f"{self.disk_bytes // 1024}Ki",
            "pods": str(PODS_MAX),
        }

    def node_info(self, container_runtime: str, version: str) -> dict[str, str]:
        """Returns `Node.status.nodeInfo`.

        Args:
            container_runtime: as `oci://crun 1.8`; version: of the node agent, as `v1.36.0`.
        """
        return {
            "architecture": self.architecture,
            "bootID": self.boot_id,
            "containerRuntimeVersion": container_runtime,
            "kernelVersion": self.kernel_version,
            "kubeProxyVersion": version,
            "kubeletVersion": version,
            "machineID": self.machine_id,
            "operatingSystem": "linux",
            "osImage": self.os_image,
            "systemUUID": self.system_uuid,
        }


def look(data_dir: Path = Path("/")) -> Machine:
    """Reads the machine's facts; what cannot be read is empty or 0.

    Args:
        data_dir: on the file system whose size counts as ephemeral storage.
    """
    while not data_dir.exists():
        data_dir = data_dir.parent
    disk = os.statvfs(data_dir)
    machine_id = _text("/etc/machine-id") or _text("/var/lib/dbus/machine-id")
    return Machine(
        hostname=socket.gethostname().lower(),
        address=primary_address(),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=_memory_bytes(),
        disk_bytes=disk.f_blocks * disk.f_frsize,
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        kernel_version=platform.release(),
        os_image=_os_image(),
        machine_id=machine_id,
        system_uuid=_text("/sys/class/dmi/id/product_uuid") or machine_id,
        boot_id=_text("/proc/sys/kernel/random/boot_id"),
    )


def primary_address() -> str:
    """Returns the address from which this machine would reach the world; 127.0.0.1 when it has no way there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # connecting a datagram socket only asks the routing table; nothing is sent (the address is for examples)
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _memory_bytes() -> int:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _text(path)
        if text.isdigit():
            total = min(total, int(text))
    return total


def _os_image() -> str:
    for line in _text("/etc/os-release").splitlines():
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return value.strip('"')
    return "Linux"


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
