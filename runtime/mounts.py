"""What is mounted below a directory, and taking it all down again.

Source: proc_pid_mountinfo(5).
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from steersman.runtime import syscalls

#: longest option string the mount system call takes: one page, less its end
MOUNT_DATA_BYTES_MAX = 4095

_OCTAL = re.compile(r"\\([0-7]{3})")


def mount_points(below: str | Path) -> list[str]:
    """Returns the mount points at or below a path, the deepest first."""
    prefix = str(below).rstrip("/")
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), line.split(" ", 5)[4])
            if point == prefix or point.startswith(prefix + "/"):
                found.append(point)
    return sorted(found, key=len, reverse=True)


def is_mount(path: str | Path) -> bool:
    return str(path) in mount_points(path)


def unmount_below(path: str | Path) -> None:
    """Unmounts everything at or below a path; what is gone already is well."""
    for point in mount_points(path):
        try:
            syscalls.umount(point)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise


def remove_tree(path: str | Path) -> None:
    """Unmounts and removes a directory with all that is in it."""
    if not os.path.lexists(path):
        return
    if mount_points(path):
        unmount_below(path)
    shutil.rmtree(path, ignore_errors=False, onerror=_tolerate_gone)


def _tolerate_gone(_function: object, _path: str, info: tuple[type[BaseException], BaseException, object]) -> None:
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]


def bind(source: str, target: str, *, recursive: bool = False, read_only: bool = False) -> None:
    syscalls.mount(source, target, flags=syscalls.MS_BIND | (syscalls.MS_REC if recursive else 0))
    if read_only:
        syscalls.mount(source, target, flags=syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY)


def make_shared_mount(path: Path) -> None:
    """Makes a directory a mount of its own that passes mounts on to the containers that see it."""
    if not is_mount(path):
        bind(str(path), str(path))
    syscalls.mount("", str(path), flags=syscalls.MS_SHARED)


def tmpfs(target: str, *, size_bytes: int = 0, mode: int = 0o755) -> None:
    options = f"mode={mode:o}" + (f",size={size_bytes}" if size_bytes else "")
    syscalls.mount("tmpfs", target, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)
