"""A runtime without containers: for clusters of thousands of nodes, and for virtual time.

Everything happens in memory on the running loop's timers; no thread, file, socket or process is touched. A container's
`simulation` says how it behaves; without one it runs until it is stopped. Keys (values are text):

- `exit-after-s`, `exit-code`: ends by itself; `oom-after-s`: is killed as the kernel would for its memory.
- `ready-after-s`: probes (exec, and connections to its ports) fail until then; `fail-probe`: they always fail.
- `start-delay-s`: how long starting takes; `fail-start`: it cannot be started, the value is the message.
- `stop-after-s`: how long it takes to end after the stop signal; beyond the grace it is killed (137).
- `cpu`, `memory`: what the statistics say it uses, as quantities; `log`: lines it prints at its start.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field, replace
from hashlib import sha256

from steersman.cluster.meta import quantity
from steersman.cluster.node.values import (
    ContainerSpec,
    ContainerState,
    ContainerStats,
    ContainerStatus,
    ExecResult,
    Image,
    RegistryAuth,
    RuntimeFailure,
    RuntimeInfo,
    SandboxSpec,
    SandboxStatus,
)
from steersman.runtime.addresses import AddressPool, PoolExhausted
from steersman.runtime.changes import Changes
from steersman.runtime.names import BUILT_IN_IMAGES, normalize
from steersman.runtime.simulated_streams import SimulatedConnection, SimulatedProcess, run_command

Now = Callable[[], float]

#: what a container uses when its simulation does not say
_CPU_DEFAULT = "1m"
_MEMORY_DEFAULT = "8Mi"


@dataclass(slots=True)
class _Sandbox:
    spec: SandboxSpec
    status: SandboxStatus


@dataclass(slots=True)
class _Container:
    """Args: began: to run, by the loop's clock; timers: what will still happen by itself; log: (time, stream, line)."""

    spec: ContainerSpec
    status: ContainerStatus
    simulation: dict[str, str]
    exited: asyncio.Event
    began: float = 0.0
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    log: list[tuple[float, int, bytes]] = field(default_factory=list)

    def seconds(self, key: str) -> float | None:
        text = self.simulation.get(key)
        return float(text) if text else None


class SimulatedRuntime:
    """Implements `protocol.Runtime` in memory.

    Args:
        now: the wall clock.
        rng: where ids come from.
        start_delay_s: time that starting a container takes.
        pull_delay_s: time that fetching an image takes.
        missing_images: references that no registry has.
    """

    def __init__(
        self,
        *,
        now: Now,
        rng: random.Random,
        start_delay_s: float = 0.0,
        pull_delay_s: float = 0.0,
        missing_images: Collection[str] = (),
    ) -> None:
        self._now = now
        self._rng = rng
        self._start_delay_s = start_delay_s
        self._pull_delay_s = pull_delay_s
        self._missing = {normalize(name) for name in missing_images}
        self._sandboxes: dict[str, _Sandbox] = {}
        self._containers: dict[str, _Container] = {}
        self._images: dict[str, Image] = {}
        self._pool: AddressPool | None = None
        self._changes = Changes()

    # --- the runtime itself

    async def start(self) -> RuntimeInfo:
        for name in BUILT_IN_IMAGES:
            self._add_image(name)
        return RuntimeInfo(
            name="simulated",
            version="simulated 1",
            pod_network="simulated",
            isolation=False,
            reduced=("containers are simulated: nothing is run",),
        )

    async def stop(self) -> None:
        self._changes.close()

    async def purge(self) -> None:
        for sandbox_id in list(self._sandboxes):
            await self.remove_sandbox(sandbox_id)
        self._images.clear()

    async def set_pod_cidr(self, cidr: str) -> None:
        pool = AddressPool(cidr)
        for sandbox in self._sandboxes.values():
            for address in sandbox.status.ips:
                pool.mark(address)
        self._pool = pool

    def changes(self) -> AsyncIterator[str]:
        return self._changes.subscribe()

    # --- sandboxes

    async def sandboxes(self) -> list[SandboxStatus]:
        return [sandbox.status for sandbox in self._sandboxes.values()]

    async def run_sandbox(self, spec: SandboxSpec) -> SandboxStatus:
        status = SandboxStatus(
            id=f"{self._rng.getrandbits(128):032x}",
            pod_uid=spec.pod_uid,
            name=spec.name,
            namespace=spec.namespace,
            attempt=spec.attempt,
            ready=True,
            ips=() if spec.host_network else (self._take_address(),),
            created_at=self._now(),
        )
        self._sandboxes[status.id] = _Sandbox(spec, status)
        return status

    def _take_address(self) -> str:
        if self._pool is None:
            raise RuntimeFailure("FailedCreatePodSandBox", "this node has no pod address range yet")
        try:
            return self._pool.take()
        except PoolExhausted as error:
            raise RuntimeFailure("FailedCreatePodSandBox", str(error)) from None

    async def stop_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        for container in self._of_sandbox(sandbox_id):
            self._finish(container, 137, signal=9)
        for address in sandbox.status.ips:
            if self._pool is not None and sandbox.status.ready:
                self._pool.release(address)
        sandbox.status = replace(sandbox.status, ready=False)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self.stop_sandbox(sandbox_id)
        for container in self._of_sandbox(sandbox_id):
            del self._containers[container.status.id]
        self._sandboxes.pop(sandbox_id, None)

    def _of_sandbox(self, sandbox_id: str) -> list[_Container]:
        return [found for found in self._containers.values() if found.status.sandbox_id == sandbox_id]

    # --- containers

    async def containers(self) -> list[ContainerStatus]:
        return [container.status for container in self._containers.values()]

    async def create_container(self, sandbox_id: str, spec: ContainerSpec) -> str:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or not sandbox.status.ready:
            raise RuntimeFailure("CreateContainerError", f"sandbox {sandbox_id} is not ready")
        if await self.image(spec.image) is None:
            raise RuntimeFailure("CreateContainerError", f"image {spec.image} is not on this node")
        status = ContainerStatus(
            id=f"{self._rng.getrandbits(128):032x}",
            sandbox_id=sandbox_id,
            pod_uid=spec.pod_uid,
            pod_name=spec.pod_name,
            namespace=spec.namespace,
            name=spec.name,
            attempt=spec.attempt,
            state=ContainerState.CREATED,
            image=spec.image,
            image_ref=spec.image_ref,
            created_at=self._now(),
            spec_hash=spec.spec_hash,
        )
        self._containers[status.id] = _Container(spec, status, dict(spec.simulation), asyncio.Event())
        return status.id

    async def start_container(self, container_id: str) -> None:
        container = self._container(container_id)
        if container.status.state is not ContainerState.CREATED:
            raise RuntimeFailure("RunContainerError", f"container {container_id} is {container.status.state}")
        if message := container.simulation.get("fail-start"):
            self._finish(container, 128, reason="StartError", message=message)
            raise RuntimeFailure("RunContainerError", message)
        delay_s = container.seconds("start-delay-s")
        if (delay_s := self._start_delay_s if delay_s is None else delay_s) > 0:
            await asyncio.sleep(delay_s)
            if container.status.state is not ContainerState.CREATED:
                return
        container.status = replace(container.status, state=ContainerState.RUNNING, started_at=self._now())
        lines = container.simulation.get("log") or f"{container.spec.name} started"
        container.log += [(self._now(), 1, f"{line}\n".encode()) for line in lines.split("\n")]
        loop = asyncio.get_running_loop()
        container.began = loop.time()
        if (after_s := container.seconds("exit-after-s")) is not None:
            code = int(container.simulation.get("exit-code", "0"))
            container.timers.append(loop.call_later(after_s, self._finish, container, code))
        if (after_s := container.seconds("oom-after-s")) is not None:
            container.timers.append(loop.call_later(after_s, self._run_out_of_memory, container))

    def _run_out_of_memory(self, container: _Container) -> None:
        self._finish(container, 137, reason="OOMKilled")

    def _finish(
        self, container: _Container, exit_code: int, signal: int = 0, reason: str = "", message: str = ""
    ) -> None:
        if container.status.state is ContainerState.EXITED:
            return
        for timer in container.timers:
            timer.cancel()
        container.timers.clear()
        container.status = replace(
            container.status,
            state=ContainerState.EXITED,
            finished_at=self._now(),
            exit_code=exit_code,
            signal=signal,
            reason=reason or ("Error" if exit_code else "Completed"),
            message=message,
        )
        container.exited.set()
        self._changes.publish(container.status.pod_uid)

    async def stop_container(self, container_id: str, grace_s: float) -> None:
        container = self._containers.get(container_id)
        if container is None or container.status.state is ContainerState.EXITED:
            return
        if container.status.state is ContainerState.CREATED:
            self._finish(container, 0)
            return
        needs_s = container.seconds("stop-after-s") or 0.0
        loop = asyncio.get_running_loop()
        if grace_s <= 0:
            self._finish(container, 137, signal=9)
        elif needs_s > grace_s:
            container.timers.append(loop.call_later(grace_s, self._finish, container, 137, 9))
        elif needs_s > 0:
            container.timers.append(loop.call_later(needs_s, self._finish, container, 143, 15))
        else:
            self._finish(container, 143, signal=15)
        await container.exited.wait()

    async def remove_container(self, container_id: str) -> None:
        container = self._containers.get(container_id)
        if container is None:
            return
        if container.status.state is ContainerState.RUNNING:
            raise RuntimeFailure("RemoveContainerError", f"container {container_id} is running")
        del self._containers[container_id]

    def _container(self, container_id: str) -> _Container:
        container = self._containers.get(container_id)
        if container is None:
            raise RuntimeFailure("NotFound", f"container {container_id} does not exist")
        return container

    def _running(self, container_id: str) -> _Container:
        container = self._container(container_id)
        if container.status.state is not ContainerState.RUNNING:
            raise RuntimeFailure("NotRunning", f"container {container_id} is not running")
        return container

    def _answers(self, container: _Container) -> bool:
        """Whether probes of the container succeed now."""
        if "fail-probe" in container.simulation:
            return False
        running_s = asyncio.get_running_loop().time() - container.began
        return running_s >= (container.seconds("ready-after-s") or 0.0)

    # --- streams

    async def exec_sync(self, container_id: str, command: tuple[str, ...], deadline_s: float) -> ExecResult:
        container = self._running(container_id)
        if not self._answers(container):
            return ExecResult(exit_code=1, stderr=b"not ready\n")
        result, duration_s = run_command(command)
        if duration_s > deadline_s:
            await asyncio.sleep(deadline_s)
            raise TimeoutError(f"command {command[0]!r} timed out after {deadline_s:g} s")
        if duration_s > 0:
            await asyncio.sleep(duration_s)
        return result

    async def exec(self, container_id: str, command: tuple[str, ...], *, stdin: bool, tty: bool) -> SimulatedProcess:
        self._running(container_id)
        return SimulatedProcess.of_command(command, stdin=stdin)

    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> SimulatedProcess:
        return SimulatedProcess.of_container(self._running(container_id).exited)

    async def connect(self, sandbox_id: str, port: int) -> SimulatedConnection:
        running = [c for c in self._of_sandbox(sandbox_id) if c.status.state is ContainerState.RUNNING]
        if not any(self._answers(container) for container in running):
            raise RuntimeFailure("ConnectionRefused", f"nothing listens on port {port}")
        return SimulatedConnection(self._sandboxes[sandbox_id].status.name)

    async def log_lines(self, container_id: str, *, follow: bool) -> AsyncIterator[tuple[float, int, bytes]]:
        container = self._container(container_id)
        shown = 0
        while True:
            while shown < len(container.log):
                yield container.log[shown]
                shown += 1
            if not follow or container.status.state is ContainerState.EXITED:
                return
            await container.exited.wait()

    async def stats(self) -> list[ContainerStats]:
        return [
            self._stats(container)
            for container in self._containers.values()
            if container.status.state is ContainerState.RUNNING
        ]

    def _stats(self, container: _Container) -> ContainerStats:
        now, status = self._now(), container.status
        cpu_milli = quantity.milli(container.simulation.get("cpu", _CPU_DEFAULT))
        memory = quantity.whole(container.simulation.get("memory", _MEMORY_DEFAULT))
        return ContainerStats(
            id=status.id,
            pod_uid=status.pod_uid,
            pod_name=status.pod_name,
            namespace=status.namespace,
            name=status.name,
            timestamp=now,
            cpu_usage_ns=int(cpu_milli * 1_000_000 * (asyncio.get_running_loop().time() - container.began)),
            memory_usage_bytes=memory,
            memory_working_set_bytes=memory,
        )

    # --- images

    def _add_image(self, name: str) -> Image:
        digest = sha256(name.encode()).hexdigest()
        self._images[f"sha256:{digest}"] = found = Image(id=f"sha256:{digest}", names=(name,), size_bytes=1 << 20)
        return found

    async def pull(self, reference: str, auths: tuple[RegistryAuth, ...]) -> Image:
        name = normalize(reference)
        if self._pull_delay_s > 0:
            await asyncio.sleep(self._pull_delay_s)
        if name in self._missing:
            raise RuntimeFailure("ErrImagePull", f'failed to pull image "{reference}": {name}: not found')
        return await self.image(reference) or self._add_image(name)

    async def image(self, reference: str) -> Image | None:
        if reference in self._images:
            return self._images[reference]
        name = normalize(reference)
        return next((image for image in self._images.values() if name in image.names), None)

    async def images(self) -> list[Image]:
        return list(self._images.values())

    async def remove_image(self, image_id: str) -> None:
        self._images.pop(image_id, None)

    async def load_image(self, archive: AsyncIterator[bytes]) -> list[str]:
        """Takes any archive as one image named by the hash of its bytes."""
        digest = sha256()
        async for piece in archive:
            digest.update(piece)
        name = f"localhost/loaded:{digest.hexdigest()[:12]}"
        self._add_image(name)
        return [name]
