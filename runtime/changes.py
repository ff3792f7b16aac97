"""Hints that something happened to a pod, fanned out to whoever listens.

A hint may be lost when a listener sleeps too long: the truth is always the runtime's list.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

#: pending hints a listener may have; beyond it the oldest is dropped, since a relist will tell anyway
PENDING_MAX = 1024


class Changes:
    """One writer, any number of listeners."""

    def __init__(self) -> None:
        #: in order of arrival, so that delivery is the same on every run
        self._listeners: list[asyncio.Queue[str | None]] = []

    def publish(self, pod_uid: str) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(pod_uid)

    def subscribe(self) -> AsyncIterator[str]:
        """Listens from now on, not from the first `anext`."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(PENDING_MAX)
        self._listeners.append(queue)
        return self._drain(queue)

    async def _drain(self, queue: asyncio.Queue[str | None]) -> AsyncIterator[str]:
        try:
            while (pod_uid := await queue.get()) is not None:
                yield pod_uid
        finally:
            if queue in self._listeners:
                self._listeners.remove(queue)

    def close(self) -> None:
        """Ends every listener's iteration."""
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
        self._listeners.clear()
