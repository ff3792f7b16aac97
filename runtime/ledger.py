"""Which sandboxes and containers a real runtime has, as its directory and the kernel tell.

The directory is the truth: a record for each, an exit file for each container that has ended (written by its monitor,
whether or not an agent lives). Memory is a copy of it. An exit file's appearance wakes whoever waits.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

from steersman.cluster.node.values import ContainerState, ContainerStats, ContainerStatus, SandboxStatus
from steersman.runtime import records, syscalls
from steersman.runtime.cgroups import Usage
from steersman.runtime.changes import Changes
from steersman.runtime.ownership import Ownership
from steersman.runtime.records import ContainerRecord, SandboxRecord

#: how often a wait looks by itself, should the kernel's word be lost
_LOOK_PERIOD_S = 1.0


class Ledger:
    """The records below one root, with the exits as they come.

    Args:
        explain: returns the reason (`OOMKilled`) of a container that has just ended, or an empty string.
    """

    def __init__(self, root: Path, explain: Callable[[ContainerRecord], str]) -> None:
        self.root = root
        self._explain = explain
        self.boot_id = ""
        self.sandboxes: dict[str, SandboxRecord] = {}
        self.containers: dict[str, ContainerRecord] = {}
        #: one per container somebody waits for; set when it has ended
        self._exited: dict[str, asyncio.Event] = {}
        self._changes = Changes()
        self._inotify = -1
        self._ownership = Ownership(root)

    def sandbox_dir(self, sandbox_id: str) -> Path:
        return self.root / "sandboxes" / sandbox_id

    def container_dir(self, container_id: str) -> Path:
        return self.root / "containers" / container_id

    @property
    def exits(self) -> Path:
        return self.root / "exits"

    async def own(self) -> None:
        """Takes the root for this process alone. Raises as `Ownership.take` does."""
        await self._ownership.take()

    def open(self) -> None:
        """Makes the directories, reads every record and listens for exits."""
        for part in ("sandboxes", "containers", "exits"):
            (self.root / part).mkdir(parents=True, exist_ok=True, mode=0o711)
        self.boot_id = records.boot_id()
        for path in sorted((self.root / "sandboxes").iterdir()):
            if sandbox := records.load(path / "sandbox.json", SandboxRecord):
                self.sandboxes[sandbox.id] = sandbox
        for path in sorted((self.root / "containers").iterdir()):
            if container := records.load(path / "container.json", ContainerRecord):
                self.containers[container.id] = container
        self.sandboxes = dict(sorted(self.sandboxes.items(), key=lambda item: item[1].created_at))
        self.containers = dict(sorted(self.containers.items(), key=lambda item: item[1].created_at))
        self._inotify = syscalls.inotify(str(self.exits), syscalls.IN_MOVED_TO | syscalls.IN_CLOSE_WRITE)
        asyncio.get_running_loop().add_reader(self._inotify, self._on_exit_file)

    def close(self) -> None:
        if self._inotify >= 0:
            asyncio.get_running_loop().remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = -1
        self._ownership.release()
        self._changes.close()

    def rubbish(self) -> tuple[list[str], list[str]]:
        """Returns ids of (sandboxes, containers) whose making was cut short."""
        found = []
        for part, known in (("sandboxes", self.sandboxes), ("containers", self.containers)):
            found.append([path.name for path in (self.root / part).iterdir() if path.name not in known])
        return found[0], found[1]

    def changes(self) -> AsyncIterator[str]:
        return self._changes.subscribe()

    # --- records

    def put_sandbox(self, record: SandboxRecord) -> None:
        records.save(self.sandbox_dir(record.id) / "sandbox.json", record)
        self.sandboxes[record.id] = record

    def put_container(self, record: ContainerRecord) -> None:
        records.save(self.container_dir(record.id) / "container.json", record)
        self.containers[record.id] = record

    def forget_container(self, container_id: str) -> None:
        self.containers.pop(container_id, None)
        self._exited.pop(container_id, None)
        (self.exits / container_id).unlink(missing_ok=True)

    def of_sandbox(self, sandbox_id: str) -> list[ContainerRecord]:
        return [record for record in self.containers.values() if record.sandbox_id == sandbox_id]

    def images_in_use(self) -> set[str]:
        """The ids of the images that containers are made of."""
        return {record.spec.image for record in self.containers.values()}

    # --- exits

    def _on_exit_file(self) -> None:
        for name in syscalls.inotify_names(self._inotify):
            if name in self.containers:
                self.look(name)

    def look(self, container_id: str) -> ContainerRecord:
        """Returns the container's record, brought up to date with its exit file and its processes."""
        record = self.containers[container_id]
        if record.finished_at or not record.pid:
            return record
        found = self._ending(record)
        if found is None:
            return record
        finished_at, code, message = found
        # a clock behind the file system's must not let it end before it started
        finished_at = max(finished_at, record.started_at, record.created_at)
        reason = self._explain(record) or ("Error" if code else "Completed")
        record = replace(
            record, finished_at=finished_at, exit_code=code, reason=reason, message=message, starting=False
        )
        self.put_container(record)
        if event := self._exited.pop(container_id, None):
            event.set()
        self._changes.publish(record.spec.pod_uid)
        return record

    def _ending(self, record: ContainerRecord) -> tuple[float, int, str] | None:
        """Returns (time, exit code, message) of a container that has ended."""
        path = self.exits / record.id
        try:
            return path.stat().st_mtime, int(path.read_text() or "255"), ""
        except (FileNotFoundError, ValueError):
            pass
        if record.boot_id != self.boot_id:
            return record.started_at, 255, "the machine was restarted"
        if records.is_alive(record.pid, record.pid_start) or records.is_alive(record.monitor, record.monitor_start):
            return None
        if path.exists():
            return None
        return record.started_at, 255, "the container ended while nothing watched over it"

    async def wait_for_exit(self, container_id: str, deadline_s: float) -> bool:
        """Returns whether the container has ended (or is gone) within the time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        while container_id in self.containers and not self.look(container_id).finished_at:
            event = self._exited.setdefault(container_id, asyncio.Event())
            left_s = end - loop.time()
            if left_s <= 0:
                return False
            try:
                async with asyncio.timeout(min(left_s, _LOOK_PERIOD_S)):
                    await event.wait()
            except TimeoutError:
                continue
        return True

    def is_over(self, container_id: str) -> bool:
        """Whether a container has ended or is gone."""
        return container_id not in self.containers or bool(self.look(container_id).finished_at)

    # --- what the agent sees

    def stats_row(self, record: ContainerRecord, usage: Usage, now: float) -> ContainerStats:
        return ContainerStats(
            id=record.id,
            pod_uid=record.spec.pod_uid,
            pod_name=record.spec.pod_name,
            namespace=record.spec.namespace,
            name=record.spec.name,
            timestamp=now,
            cpu_usage_ns=usage.cpu_ns,
            memory_usage_bytes=usage.memory_bytes,
            memory_working_set_bytes=usage.working_set_bytes,
        )

    def sandbox_status(self, record: SandboxRecord) -> SandboxStatus:
        return SandboxStatus(
            id=record.id,
            pod_uid=record.spec.pod_uid,
            name=record.spec.name,
            namespace=record.spec.namespace,
            attempt=record.spec.attempt,
            ready=not record.stopped and record.boot_id == self.boot_id,
            ips=record.ips,
            created_at=record.created_at,
        )

    def container_status(self, container_id: str) -> ContainerStatus:
        record = self.look(container_id)
        spec = record.spec
        if record.finished_at:
            state = ContainerState.EXITED
        elif record.started_at:
            state = ContainerState.RUNNING
        else:
            state = ContainerState.CREATED
        return ContainerStatus(
            id=record.id,
            sandbox_id=record.sandbox_id,
            pod_uid=spec.pod_uid,
            pod_name=spec.pod_name,
            namespace=spec.namespace,
            name=spec.name,
            attempt=spec.attempt,
            state=state,
            image=spec.image,
            image_ref=spec.image_ref,
            created_at=record.created_at,
            started_at=record.started_at,
            finished_at=record.finished_at,
            exit_code=record.exit_code,
            reason=record.reason,
            message=record.message,
            spec_hash=spec.spec_hash,
            log_path=str(self.container_dir(record.id) / "log"),
        )
