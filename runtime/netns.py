"""A pod's namespaces: made in a thread, pinned as files, entered for a moment to open a socket.

Namespaces belong to a thread, so each piece of work gets a thread that ends with it; a socket stays in the network
namespace in which it was opened, whoever uses it later.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from steersman.runtime import syscalls

_T = TypeVar("_T")

_FLAGS = {"net": syscalls.CLONE_NEWNET, "ipc": syscalls.CLONE_NEWIPC, "uts": syscalls.CLONE_NEWUTS}


async def in_thread(work: Callable[[], _T]) -> _T:
    """Runs work in a thread of its own, which may change its namespaces, and returns its result."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def body() -> None:
        try:
            result: _T | None = work()
        except BaseException as error:
            loop.call_soon_threadsafe(settle, None, error)
        else:
            loop.call_soon_threadsafe(settle, result, None)

    threading.Thread(target=body, name="steersman-netns", daemon=True).start()
    return await done


def make(directory: Path, kinds: tuple[str, ...], hostname: str, sysctls: tuple[tuple[str, str], ...]) -> None:
    """Makes namespaces of these kinds (`net`, `ipc`, `uts`) and pins each as `directory/KIND`.

    Runs in a thread of its own. Raises OSError when the machine refuses.
    """
    directory.mkdir(exist_ok=True)
    flags = 0
    for kind in kinds:
        flags |= _FLAGS[kind]
    syscalls.unshare(flags)
    if "uts" in kinds:
        syscalls.sethostname(hostname[:64])
    for name, value in sysctls:
        Path("/proc/sys", *name.split(".")).write_text(value)
    for kind in kinds:
        pin = directory / kind
        pin.touch()
        syscalls.mount(f"/proc/thread-self/ns/{kind}", str(pin), flags=syscalls.MS_BIND)


def enter_network(path: Path) -> None:
    """Moves the calling thread, which must end soon, into a pinned network namespace."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(fd, syscalls.CLONE_NEWNET)
    finally:
        os.close(fd)


def unpin(directory: Path) -> None:
    """Lets go of the pinned namespaces; they end with their last process."""
    for kind in ("net", "ipc", "uts", "pid"):
        pin = directory / kind
        try:
            syscalls.umount(str(pin))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
        pin.unlink(missing_ok=True)
