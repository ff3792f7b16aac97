"""What a CRI runtime has of ours: lists of sandboxes and containers, and hints when something in them has changed.

The runtime's lists are the truth and are read again and again, since not every runtime tells of changes by itself. What
cannot change any more (an exit) and what does not while a state lasts (an address, a start) is asked for once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from steersman.cluster.node.values import ContainerState, ContainerStatus, RuntimeFailure, SandboxStatus
from steersman.pb import cri_pb2
from steersman.runtime import cri_config
from steersman.runtime.changes import Changes
from steersman.runtime.cri_client import CriClient

#: how soon an exit is noticed; a list of 60 containers costs the runtime 1.5 ms
_LOOK_PERIOD_S = 0.25


class CriWatch:
    """The sandboxes and containers that carry our label.

    Args:
        log_directory: host path below which every log lies.
    """

    def __init__(self, client: CriClient, owner: str, log_directory: str) -> None:
        self._client = client
        self._labels = {cri_config.OWNER_LABEL: owner}
        self._log_directory = log_directory
        self._changes = Changes()
        self._task: asyncio.Task[None] | None = None
        #: per container: its pod and its state when last seen
        self._seen: dict[str, tuple[str, ContainerState]] = {}
        #: per pod sandbox: its pod and whether it was ready when last seen
        self._ready: dict[str, tuple[str, bool]] = {}
        self._containers: dict[str, ContainerStatus] = {}
        self._sandboxes: dict[str, SandboxStatus] = {}

    async def start(self) -> None:
        await self.look()
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._changes.close()

    def changes(self) -> AsyncIterator[str]:
        return self._changes.subscribe()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_PERIOD_S)
            # a runtime that is being restarted answers again later; until then nobody can tell what changes
            with contextlib.suppress(RuntimeFailure):
                await self.look()

    async def look(self) -> None:
        """Reads both lists and tells of what has changed."""
        await self.container_rows()
        await self._sandbox_rows()

    # --- containers

    def expect(self, container_id: str, pod_uid: str) -> None:
        """Notes a container that has just been made."""
        self._seen[container_id] = (pod_uid, ContainerState.CREATED)

    def is_over(self, container_id: str) -> bool:
        """Whether a container had ended or gone when it was last looked for."""
        found = self._seen.get(container_id)
        return found is None or found[1] is ContainerState.EXITED

    async def images_in_use(self) -> set[str]:
        """The ids of the images that containers are made of."""
        return {cri_config.kept_of(row).image for row in await self.container_rows()}

    async def container_rows(self) -> list[cri_pb2.Container]:
        known = list(self._seen)
        request = cri_pb2.ListContainersRequest(filter=cri_pb2.ContainerFilter(label_selector=self._labels))
        answer = await self._client.call(self._client.runtime.ListContainers, request, "ContainerStatusError")
        rows = sorted(answer.containers, key=lambda row: (row.created_at, row.id))
        for row in rows:
            state, before = cri_config.state_of(row), self._seen.get(row.id)
            self._seen[row.id] = (cri_config.pod_uid_of(row), state)
            if state is ContainerState.EXITED and (before is None or before[1] is not state):
                self._changes.publish(cri_config.pod_uid_of(row))
        listed = {row.id for row in rows}
        for container_id in known:
            if container_id not in listed and (gone := self._seen.pop(container_id, None)):
                self._containers.pop(container_id, None)
                self._changes.publish(gone[0])
        return rows

    async def containers(self) -> list[ContainerStatus]:
        """Every container, the oldest first."""
        rows = await self.container_rows()
        fresh = [row for row in rows if not self._is_known(row)]
        await asyncio.gather(*(self._learn(row) for row in fresh))
        return [self._containers[row.id] for row in rows if row.id in self._containers]

    def _is_known(self, row: cri_pb2.Container) -> bool:
        status = self._containers.get(row.id)
        return (
            status is not None
            and status.state is not ContainerState.UNKNOWN
            and status.state is cri_config.state_of(row)
        )

    async def _learn(self, row: cri_pb2.Container) -> None:
        request = cri_pb2.ContainerStatusRequest(container_id=row.id)
        method = self._client.runtime.ContainerStatus
        found = await self._client.call_unless_gone(method, request, "ContainerStatusError")
        if found is None:
            self._containers.pop(row.id, None)
        else:
            self._containers[row.id] = cri_config.container_status(row, found.status, self._log_directory)

    # --- sandboxes

    async def _sandbox_rows(self) -> list[cri_pb2.PodSandbox]:
        request = cri_pb2.ListPodSandboxRequest(filter=cri_pb2.PodSandboxFilter(label_selector=self._labels))
        answer = await self._client.call(self._client.runtime.ListPodSandbox, request, "SandboxStatusError")
        rows = sorted(answer.items, key=lambda row: (row.created_at, row.id))
        before, self._ready = self._ready, {}
        for row in rows:
            now = (row.metadata.uid, row.state == cri_pb2.SANDBOX_READY)
            self._ready[row.id] = now
            if before.get(row.id, now) != now:
                self._changes.publish(row.metadata.uid)
        for sandbox_id in list(self._sandboxes):
            if sandbox_id not in self._ready:
                del self._sandboxes[sandbox_id]
        return rows

    async def sandboxes(self) -> list[SandboxStatus]:
        """Every sandbox, the oldest first."""
        rows = await self._sandbox_rows()
        for row in rows:
            known = self._sandboxes.get(row.id)
            ready = row.state == cri_pb2.SANDBOX_READY
            if known is None or known.ready != ready:
                ips = known.ips if known else await self._ips(row.id)
                self._sandboxes[row.id] = cri_config.sandbox_status(row, ips)
        return [self._sandboxes[row.id] for row in rows]

    async def _ips(self, sandbox_id: str) -> tuple[str, ...]:
        found = await self.sandbox(sandbox_id)
        return cri_config.ips_of(found.status) if found is not None else ()

    async def sandbox(self, sandbox_id: str, *, verbose: bool = False) -> cri_pb2.PodSandboxStatusResponse | None:
        """Returns what the runtime knows of a sandbox, or None when it is gone."""
        request = cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=verbose)
        method = self._client.runtime.PodSandboxStatus
        found: cri_pb2.PodSandboxStatusResponse | None = await self._client.call_unless_gone(
            method, request, "SandboxStatusError"
        )
        return found
