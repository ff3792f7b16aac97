"""The system calls that containers may not make unless a capability says they may.

A list of refusals rather than of permissions: what a kernel adds later stays usable. It covers what Docker documents
as blocked. Source: https://docs.docker.com/engine/security/seccomp/
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

#: refused unless the container has the capability; an empty one means always
_REFUSED: dict[str, tuple[str, ...]] = {
    "": (
        "add_key", "create_module", "get_kernel_syms", "io_uring_enter", "io_uring_register", "io_uring_setup",
        "keyctl", "move_pages", "nfsservctl", "query_module", "request_key", "sysfs", "_sysctl", "uselib",
        "userfaultfd", "ustat", "vm86", "vm86old", "kexec_file_load", "kexec_load",
    ),
    "CAP_SYS_ADMIN": (
        "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie", "mount", "mount_setattr", "move_mount",
        "open_tree", "pivot_root", "quotactl", "quotactl_fd", "setns", "swapoff", "swapon", "umount", "umount2",
        "unshare",
    ),
    "CAP_DAC_READ_SEARCH": ("name_to_handle_at", "open_by_handle_at"),
    "CAP_SYS_BOOT": ("reboot",),
    "CAP_SYS_MODULE": ("delete_module", "finit_module", "init_module"),
    "CAP_SYS_PACCT": ("acct",),
    "CAP_SYS_PTRACE": ("kcmp", "process_madvise", "process_vm_readv", "process_vm_writev"),
    "CAP_SYS_RAWIO": ("ioperm", "iopl"),
    "CAP_SYS_TIME": ("clock_settime", "clock_settime64", "settimeofday", "stime"),
    "CAP_BPF": ("bpf",),
    "CAP_PERFMON": ("perf_event_open",),
    "CAP_SYS_NICE": ("mbind", "set_mempolicy", "set_mempolicy_home_node"),
}  # fmt: skip

#: capabilities that imply others here, as the kernel treats them
_IMPLIED_BY_SYS_ADMIN = ("CAP_BPF", "CAP_PERFMON", "CAP_SYS_PACCT")

#: the bits by which clone makes new namespaces
_CLONE_NEW = 0x7E020000
_ENOSYS = 38
_EPERM = 1


def profile(capabilities: Collection[str]) -> dict[str, Any]:
    """Returns the `linux.seccomp` object for a container with these capabilities."""
    held = set(capabilities)
    if "CAP_SYS_ADMIN" in held:
        held.update(_IMPLIED_BY_SYS_ADMIN)
    refused = sorted(name for capability, names in _REFUSED.items() if capability not in held for name in names)
    rules: list[dict[str, Any]] = [{"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM}]
    if "CAP_SYS_ADMIN" not in held:
        flags = {"index": 0, "value": 0, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": 0}
        for bit in range(32):
            if _CLONE_NEW >> bit & 1:
                masked = flags | {"value": 1 << bit, "valueTwo": 1 << bit}
                rules.append({"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM, "args": [masked]})
        # clone3 passes its flags where a filter cannot look: its callers then fall back to clone
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
