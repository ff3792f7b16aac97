"""Real containers without a daemon: crun or runc under conmon, with namespaces, overlay and cgroups of our own making.

Everything that must be known again after this process dies stands in the root directory and in the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path

from steersman.cluster.node.values import (
    ContainerSpec,
    ContainerStats,
    ExecResult,
    RuntimeFailure,
    RuntimeInfo,
    SandboxSpec,
    SandboxStatus,
)
from steersman.runtime import crilog, mounts, records
from steersman.runtime.image_service import ImageService
from steersman.runtime.machine_runtime import MachineRuntime
from steersman.runtime.oci_containers import Containers
from steersman.runtime.oci_host import OciHost
from steersman.runtime.oci_sandboxes import Sandboxes
from steersman.runtime.streams import AttachProcess, ExecProcess, SocketStream, connect_in

_ROTATE_PERIOD_S = 10.0


class OciRuntime(MachineRuntime):
    """Implements `protocol.Runtime`.

    Args:
        root: data directory of this runtime alone.
        engine: `crun`, `runc` or None for the best installed.
        now: the wall clock.
        insecure_registries: hosts that are spoken to over plain HTTP, beside those on loopback.
    """

    def __init__(
        self,
        root: Path,
        *,
        engine: str | None = None,
        now: Callable[[], float],
        insecure_registries: Collection[str] = (),
    ) -> None:
        self._host = OciHost(root, engine=engine, now=now)
        images = ImageService(
            root / "images",
            unpacks=True,
            in_use=self._host.ledger.images_in_use,
            insecure_registries=insecure_registries,
        )
        super().__init__(self._host.ledger, images)
        self._sandboxes = Sandboxes(self._host)
        self._containers = Containers(self._host, images.store)
        self._rotation: asyncio.Task[None] | None = None

    # --- the runtime itself

    async def start(self) -> RuntimeInfo:
        await self._ledger.own()
        try:
            await self._host.look()
            await self._host.network.start()
            self._host.open()
            missing = await self._images.start()
            await self._containers.adopt()
            await self._sandboxes.adopt()
        except BaseException as error:
            self._ledger.close()
            if isinstance(error, OSError):
                raise RuntimeFailure("RuntimeNotReady", f"{type(error).__name__}: {error}") from error
            raise
        self._rotation = asyncio.create_task(self._rotate())
        return RuntimeInfo(
            name="oci",
            version=self._host.engine.version,
            pod_network="bridge",
            isolation=True,
            reduced=tuple(self._host.reduced + ([missing] if missing else [])),
        )

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(_ROTATE_PERIOD_S)
            await asyncio.to_thread(self._containers.rotate_logs)

    async def stop(self) -> None:
        if self._rotation is not None:
            self._rotation.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._rotation
            self._rotation = None
        self._host.ledger.close()
        await self._host.network.stop()

    async def purge(self) -> None:
        for sandbox_id in list(self._host.ledger.sandboxes):
            await self.remove_sandbox(sandbox_id)
        await self._sandboxes.purge_network()
        await asyncio.to_thread(self._purge_machine)

    def _purge_machine(self) -> None:
        """Removes what is left below the cgroup and the root directory, recorded or not; images stay. Blocks."""
        host = self._host
        for pid in host.cgroups.pids(host.base_cgroup):
            records.kill(pid, records.process_start(pid), signal.SIGKILL)
        host.cgroups.remove(host.base_cgroup)
        mounts.unmount_below(host.root)
        for part in ("sandboxes", "containers", "exits", "engine"):
            shutil.rmtree(host.root / part, ignore_errors=True)

    async def set_pod_cidr(self, cidr: str) -> None:
        await self._sandboxes.set_range(cidr)

    # --- sandboxes

    async def run_sandbox(self, spec: SandboxSpec) -> SandboxStatus:
        return await self._sandboxes.run(spec)

    async def stop_sandbox(self, sandbox_id: str) -> None:
        await self._sandboxes.stop(sandbox_id)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self._sandboxes.stop(sandbox_id)
        for record in self._host.ledger.of_sandbox(sandbox_id):
            await self._containers.remove(record.id)
        await self._sandboxes.remove(sandbox_id)

    # --- containers

    async def create_container(self, sandbox_id: str, spec: ContainerSpec) -> str:
        record = self._host.ledger.sandboxes.get(sandbox_id)
        if record is None or not self._host.ledger.sandbox_status(record).ready:
            raise RuntimeFailure("CreateContainerError", f"sandbox {sandbox_id} is not ready")
        return await self._containers.create(record, spec)

    async def start_container(self, container_id: str) -> None:
        await self._containers.start(container_id)

    async def stop_container(self, container_id: str, grace_s: float) -> None:
        await self._containers.stop(container_id, grace_s)

    async def remove_container(self, container_id: str) -> None:
        await self._containers.remove(container_id)

    # --- streams

    async def exec_sync(self, container_id: str, command: tuple[str, ...], deadline_s: float) -> ExecResult:
        return await self._containers.exec_sync(container_id, command, deadline_s)

    async def exec(self, container_id: str, command: tuple[str, ...], *, stdin: bool, tty: bool) -> ExecProcess:
        return await self._containers.exec(container_id, command, stdin=stdin, tty=tty)

    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> AttachProcess:
        return await self._containers.attach(container_id)

    async def connect(self, sandbox_id: str, port: int) -> SocketStream:
        record = self._host.ledger.sandboxes.get(sandbox_id)
        if record is None or record.stopped:
            raise RuntimeFailure("NotFound", f"sandbox {sandbox_id} does not run")
        pin = None if record.spec.host_network else self._host.ledger.sandbox_dir(sandbox_id) / "ns" / "net"
        return await connect_in(pin, ("127.0.0.1", *record.ips), port, sandbox_id)

    def log_lines(self, container_id: str, *, follow: bool) -> AsyncIterator[crilog.Line]:
        return self._containers.log_lines(container_id, follow=follow)

    async def stats(self) -> list[ContainerStats]:
        return await asyncio.to_thread(self._containers.stats)
