"""Which process runs the containers of a data directory: one at a time, since two would undo each other's work."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

from steersman.cluster.node.values import RuntimeFailure

#: how long a dying predecessor may hold the root
_DEADLINE_S = 5.0


class Ownership:
    """A lock on a directory, held until it is released or the process dies."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = -1

    async def take(self) -> None:
        """Takes the directory for this process alone; an agent that was killed lets go of it by dying.

        Raises:
            RuntimeFailure: `RuntimeNotReady`: another agent lives there.
        """
        self._root.mkdir(parents=True, exist_ok=True, mode=0o711)
        loop = asyncio.get_running_loop()
        end = loop.time() + _DEADLINE_S
        fd = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if loop.time() > end:
                    os.close(fd)
                    message = f"another process runs containers in {self._root}"
                    raise RuntimeFailure("RuntimeNotReady", message) from None
                await asyncio.sleep(0.05)
                continue
            self._lock = fd
            return

    def release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
