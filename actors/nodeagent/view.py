"""The runtime's last listing, by pod: the truth that events only hint at.

Whoever needs to see the outcome of something asks for a listing that begins after it; askers share listings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from steersman.cluster.node.values import ContainerStatus, RuntimeFailure, SandboxStatus
from steersman.runtime.protocol import Runtime


class _OfPod(Protocol):
    @property
    def pod_uid(self) -> str: ...


Row = TypeVar("Row", bound=_OfPod)


class RuntimeView:
    """What the runtime shows.

    Args:
        on_change: called with the uid of each pod whose sandboxes or containers differ from the listing before.
    """

    def __init__(self, runtime: Runtime, on_change: Callable[[str], None]) -> None:
        self._runtime = runtime
        self._on_change = on_change
        self._sandboxes: dict[str, tuple[SandboxStatus, ...]] = {}
        self._containers: dict[str, tuple[ContainerStatus, ...]] = {}
        self._lock = asyncio.Lock()
        #: the listing that has been asked for and has not begun
        self._next: asyncio.Task[None] | None = None
        #: why the last listing failed; empty when it did not
        self.trouble = ""

    def sandboxes(self, pod_uid: str) -> tuple[SandboxStatus, ...]:
        return self._sandboxes.get(pod_uid, ())

    def containers(self, pod_uid: str) -> tuple[ContainerStatus, ...]:
        return self._containers.get(pod_uid, ())

    def pods(self) -> list[str]:
        """The uids of every pod that has anything in the runtime."""
        return list(dict.fromkeys([*self._sandboxes, *self._containers]))

    async def refresh(self) -> None:
        """Returns after a listing that began after this call."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._list())
        await asyncio.shield(self._next)

    async def _list(self) -> None:
        async with self._lock:
            self._next = None
            try:
                sandboxes = _by_pod(await self._runtime.sandboxes())
                containers = _by_pod(await self._runtime.containers())
            except RuntimeFailure as failure:
                self.trouble = failure.message
                return
            self.trouble = ""
            old_sandboxes, old_containers = self._sandboxes, self._containers
            self._sandboxes, self._containers = sandboxes, containers
            for uid in dict.fromkeys([*old_sandboxes, *old_containers, *sandboxes, *containers]):
                if old_sandboxes.get(uid) != sandboxes.get(uid) or old_containers.get(uid) != containers.get(uid):
                    self._on_change(uid)


def _by_pod(rows: Iterable[Row]) -> dict[str, tuple[Row, ...]]:
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.pod_uid, []).append(row)
    return {uid: tuple(found) for uid, found in grouped.items()}
