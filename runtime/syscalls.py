"""The Linux system calls that Python 3.11 does not offer: namespaces, mounts and inotify, through libc.

Each raises OSError as Python's own would. Source: mount(2), umount2(2), unshare(2), setns(2), inotify(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWNET = 0x40000000

IN_CLOSE_WRITE = 0x8
IN_MOVED_TO = 0x80

CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
CAP_NET_ADMIN = 12

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    result = _libc.mount(
        source.encode() or None, target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    _check(result, f"mount {kind or source} on {target}")


def umount(target: str, flags: int = MNT_DETACH | UMOUNT_NOFOLLOW) -> None:
    _check(_libc.umount2(target.encode(), flags), f"umount {target}")


def unshare(flags: int) -> None:
    """Moves the calling thread into new namespaces; use a thread that ends afterwards."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int = 0) -> None:
    """Moves the calling thread into a namespace; use a thread that ends afterwards."""
    _check(_libc.setns(fd, kind), "setns")


def sethostname(name: str) -> None:
    raw = name.encode()
    _check(_libc.sethostname(raw, len(raw)), "sethostname")


def inotify(path: str, mask: int) -> int:
    """Returns a non-blocking descriptor that reports changes in a directory."""
    fd = _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")
    try:
        _check(_libc.inotify_add_watch(fd, path.encode(), mask), f"inotify {path}")
    except OSError:
        os.close(fd)
        raise
    return fd


def inotify_names(fd: int) -> list[str]:
    """Reads the names of the files that changed since the last call."""
    names, data, offset = [], b"", 0
    try:
        data = os.read(fd, 64 * 1024)
    except BlockingIOError:
        return []
    while offset < len(data):
        _, _, _, length = struct.unpack_from("iIII", data, offset)
        names.append(data[offset + 16 : offset + 16 + length].rstrip(b"\0").decode())
        offset += 16 + length
    return names


def capabilities() -> int:
    """The bounding set of this process, as a bit mask of effective capabilities."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def has_capability(number: int) -> bool:
    return bool(capabilities() >> number & 1)


def keep_descriptors() -> None:
    """Closes every descriptor of now, but the three standard ones, in programs started later.

    The event loop hands its programs whatever is open; a container's monitor would hold it for the container's life.
    """
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            # the one that this listing used is gone already
            with contextlib.suppress(OSError):
                os.set_inheritable(int(name), False)
