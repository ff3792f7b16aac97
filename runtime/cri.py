"""Containers through containerd or CRI-O: the Container Runtime Interface on a local socket.

The runtime beneath makes sandboxes, containers, images and, by the CNI plugins, the pods' network. Kept here: the pods'
/etc/hosts, their logs, their parent cgroups and the CNI configuration, all below one data directory. Connections to a
pod's port are made in its network namespace rather than asked of the runtime: so a refusal is told at once.
Source: https://github.com/kubernetes/cri-api/blob/master/pkg/apis/runtime/v1/api.proto
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc.aio
import orjson

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
from steersman.pb import cri_pb2
from steersman.runtime import cri_config, crilog, mounts, podfiles
from steersman.runtime.cgroups import Cgroups, pod_path
from steersman.runtime.cri_client import CriClient
from steersman.runtime.cri_images import CriImages
from steersman.runtime.cri_network import CniNetwork
from steersman.runtime.cri_streams import CriProcess
from steersman.runtime.cri_watch import CriWatch
from steersman.runtime.ownership import Ownership
from steersman.runtime.streams import SocketStream, connect_in

#: a sandbox may have to wait for the pull of its image
_SANDBOX_DEADLINE_S = 240.0
_KILL_DEADLINE_S = 15.0
_ROTATE_PERIOD_S = 10.0
#: output of a command that is run to its end is cut here
_SYNC_BYTES_MAX = 16 * 1024
_KILLED = 137


class CriRuntime:
    """Implements `protocol.Runtime`.

    Args:
        endpoint: of the CRI runtime, as `unix:///run/containerd/containerd.sock`.
        root: data directory of this runtime alone; what belongs to it carries a tag derived from its path.
        now: the wall clock.
    """

    def __init__(self, endpoint: str, root: Path, *, now: Callable[[], float]) -> None:
        self._root = root
        self._now = now
        self.tag = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]
        self._owner = f"steersman-{self.tag}"
        self._client = CriClient(endpoint)
        self._watch = CriWatch(self._client, self._owner, str(self._logs))
        self._images = CriImages(self._client, root / "tmp", self._watch.images_in_use)
        self._network = CniNetwork(self._client, self._owner, root / "network")
        self._ownership = Ownership(root)
        self._cgroups = Cgroups()
        self._slices = False
        self._rotation: asyncio.Task[None] | None = None
        #: commands past their deadline, which the runtime is about to end
        self._late: set[asyncio.Task[cri_pb2.ExecSyncResponse]] = set()

    @property
    def _logs(self) -> Path:
        return self._root / "logs"

    def _sandbox_dir(self, sandbox_id: str) -> Path:
        return self._root / "sandboxes" / sandbox_id

    # --- the runtime itself

    async def start(self) -> RuntimeInfo:
        await self._ownership.take()
        try:
            return await self._start()
        except BaseException as error:
            await self._client.close()
            self._ownership.release()
            if isinstance(error, OSError):
                raise RuntimeFailure("RuntimeNotReady", f"{type(error).__name__}: {error}") from error
            raise

    async def _start(self) -> RuntimeInfo:
        await self._client.open()
        mounts.make_shared_mount(self._root)
        self._slices = await self._client.makes_cgroups_by_systemd()
        reduced = [await self._network.start(), await self._images.start()]
        if self._slices:
            reduced.append(f"{self._client.name} makes cgroups through systemd: limits of whole pods are not enforced")
        elif missing := self._cgroups.missing:
            reduced.append(f"no cgroup controllers {', '.join(missing)}: limits are not enforced")
        await self._watch.start()
        self._network.collect({status.id for status in await self._watch.sandboxes() if status.ready})
        self._rotation = asyncio.create_task(self._rotate())
        return RuntimeInfo(
            name=self._client.name,
            version=self._client.version,
            pod_network="bridge",
            isolation=True,
            reduced=tuple(filter(None, reduced)),
        )

    async def stop(self) -> None:
        for task in (self._rotation, *self._late):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, RuntimeFailure):
                    await task
        self._rotation = None
        await self._watch.stop()
        await self._client.close()
        self._ownership.release()

    async def purge(self) -> None:
        for sandbox in await self._watch.sandboxes():
            await self.remove_sandbox(sandbox.id)
        await asyncio.to_thread(self._purge_machine)

    def _purge_machine(self) -> None:
        self._network.purge()
        if not self._slices:
            self._cgroups.remove(f"/{self._owner}")
        mounts.unmount_below(self._root)
        for part in ("sandboxes", "logs", "tmp"):
            shutil.rmtree(self._root / part, ignore_errors=True)

    async def set_pod_cidr(self, cidr: str) -> None:
        await self._network.set_range(cidr)

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(_ROTATE_PERIOD_S)
            with contextlib.suppress(RuntimeFailure):
                for row in await self._watch.container_rows():
                    path = self._logs / cri_config.kept_of(row).log
                    if cri_config.state_of(row) is ContainerState.RUNNING and crilog.rotate(path):
                        request = cri_pb2.ReopenContainerLogRequest(container_id=row.id)
                        await self._client.call(self._client.runtime.ReopenContainerLog, request, "ContainerLogError")

    # --- sandboxes

    async def sandboxes(self) -> list[SandboxStatus]:
        return await self._watch.sandboxes()

    def changes(self) -> AsyncIterator[str]:
        return self._watch.changes()

    def _sandbox_config(self, spec: SandboxSpec, *, privileged: bool = False) -> cri_pb2.PodSandboxConfig:
        parent = f"{self._owner}.slice" if self._slices else pod_path(f"/{self._owner}", spec.qos_class, spec.pod_uid)
        return cri_config.sandbox_config(
            spec, owner=self._owner, log_directory=str(self._logs), cgroup_parent=parent, privileged=privileged
        )

    async def run_sandbox(self, spec: SandboxSpec) -> SandboxStatus:
        if not spec.host_network and not self._network.cidr:
            raise RuntimeFailure("FailedCreatePodSandBox", "this node has no pod address range yet")
        config = self._sandbox_config(spec)
        if not self._slices:
            await asyncio.to_thread(self._cgroups.make, config.linux.cgroup_parent, spec.resources)
        request = cri_pb2.RunPodSandboxRequest(config=config)
        method = self._client.runtime.RunPodSandbox
        answer = await self._client.call(method, request, "FailedCreatePodSandBox", _SANDBOX_DEADLINE_S)
        found = await self._watch.sandbox(answer.pod_sandbox_id)
        if found is None:
            raise RuntimeFailure("FailedCreatePodSandBox", "the sandbox was removed while it was made")
        status = cri_config.sandbox_status(found.status, cri_config.ips_of(found.status))
        await asyncio.to_thread(self._write_hosts, spec, status)
        return status

    def _write_hosts(self, spec: SandboxSpec, status: SandboxStatus) -> None:
        directory = self._sandbox_dir(status.id)
        directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        host_file = Path("/etc/hosts").read_text() if spec.host_network else ""
        (directory / "hosts").write_text(podfiles.hosts(spec, status.ips, host_file))
        (directory / "hosts").chmod(0o644)

    async def stop_sandbox(self, sandbox_id: str) -> None:
        request = cri_pb2.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)
        method = self._client.runtime.StopPodSandbox
        await self._client.call_unless_gone(method, request, "KillPodSandboxError", _SANDBOX_DEADLINE_S)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        known = await self._watch.sandboxes()
        sandbox = next((status for status in known if status.id == sandbox_id), None)
        if sandbox is None:
            return
        await self.stop_sandbox(sandbox_id)
        logs = [row for row in await self._watch.container_rows() if row.pod_sandbox_id == sandbox_id]
        found = await self._watch.sandbox(sandbox_id)
        request = cri_pb2.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id)
        method = self._client.runtime.RemovePodSandbox
        await self._client.call_unless_gone(method, request, "RemovePodSandboxError", _SANDBOX_DEADLINE_S)
        for row in logs:
            self._remove_log(cri_config.kept_of(row).log)
        await asyncio.to_thread(shutil.rmtree, self._sandbox_dir(sandbox_id), True)
        if found is None or self._slices:
            return
        if sum(status.pod_uid == sandbox.pod_uid for status in known) == 1:
            spec = cri_config.spec_of(found.status)
            group = pod_path(f"/{self._owner}", spec.qos_class, spec.pod_uid)
            await asyncio.to_thread(self._cgroups.remove, group)

    def _remove_log(self, log: str) -> None:
        path = self._logs / log
        path.unlink(missing_ok=True)
        crilog.rotated(path).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()

    # --- containers

    async def containers(self) -> list[ContainerStatus]:
        return await self._watch.containers()

    async def create_container(self, sandbox_id: str, spec: ContainerSpec) -> str:
        found = await self._watch.sandbox(sandbox_id)
        if found is None or found.status.state != cri_pb2.SANDBOX_READY:
            raise RuntimeFailure("CreateContainerError", f"sandbox {sandbox_id} is not ready")
        image = await self._images.image(spec.image)
        if image is None:
            raise RuntimeFailure("CreateContainerError", f"image {spec.image} is not on this node")
        log = f"{spec.pod_uid}/{spec.name}-{spec.attempt}-{secrets.token_hex(4)}.log"
        (self._logs / log).parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        sandbox = cri_config.spec_of(found.status)
        hosts = str(self._sandbox_dir(sandbox_id) / "hosts")
        request = cri_pb2.CreateContainerRequest(
            pod_sandbox_id=sandbox_id,
            config=cri_config.container_config(
                spec, sandbox, owner=self._owner, image_user=image.user, log=log, hosts=hosts
            ),
            sandbox_config=self._sandbox_config(sandbox, privileged=spec.security.privileged),
        )
        answer = await self._client.call(self._client.runtime.CreateContainer, request, "CreateContainerError")
        self._watch.expect(answer.container_id, spec.pod_uid)
        return str(answer.container_id)

    async def start_container(self, container_id: str) -> None:
        request = cri_pb2.StartContainerRequest(container_id=container_id)
        await self._client.call(self._client.runtime.StartContainer, request, "RunContainerError")

    async def stop_container(self, container_id: str, grace_s: float) -> None:
        # the CRI counts whole seconds; 0 kills at once
        request = cri_pb2.StopContainerRequest(container_id=container_id, timeout=math.ceil(max(0.0, grace_s)))
        method = self._client.runtime.StopContainer
        await self._client.call_unless_gone(method, request, "KillContainerError", grace_s + _KILL_DEADLINE_S)

    async def remove_container(self, container_id: str) -> None:
        rows = await self._watch.container_rows()
        row = next((row for row in rows if row.id == container_id), None)
        if row is None:
            return
        if cri_config.state_of(row) is ContainerState.RUNNING:
            raise RuntimeFailure("RemoveContainerError", f"container {container_id} is running")
        request = cri_pb2.RemoveContainerRequest(container_id=container_id)
        method = self._client.runtime.RemoveContainer
        await self._client.call_unless_gone(method, request, "RemoveContainerError")
        self._remove_log(cri_config.kept_of(row).log)

    # --- streams

    async def exec_sync(self, container_id: str, command: tuple[str, ...], deadline_s: float) -> ExecResult:
        request = cri_pb2.ExecSyncRequest(container_id=container_id, cmd=command, timeout=max(1, math.ceil(deadline_s)))
        # past the deadline the call goes on: only its own end, in whole seconds, makes the runtime kill the command
        task = asyncio.ensure_future(self._client.runtime.ExecSync(request, timeout=deadline_s + _KILL_DEADLINE_S))
        done, _ = await asyncio.wait({task}, timeout=deadline_s)
        overdue = f"command {' '.join(command)!r} timed out after {deadline_s:g} s"
        if not done:
            self._late.add(task)
            task.add_done_callback(self._forget_late)
            raise TimeoutError(overdue)
        try:
            answer = task.result()
        except grpc.aio.AioRpcError as error:
            details = str(error.details())
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED or "deadline exceeded" in details:
                raise TimeoutError(overdue) from error
            raise RuntimeFailure("ExecError", details.removesuffix(": unknown")) from error
        return ExecResult(
            exit_code=answer.exit_code, stdout=answer.stdout[:_SYNC_BYTES_MAX], stderr=answer.stderr[:_SYNC_BYTES_MAX]
        )

    def _forget_late(self, task: asyncio.Task[cri_pb2.ExecSyncResponse]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            # seen, or asyncio complains of an error nobody looked at
            task.exception()

    async def exec(self, container_id: str, command: tuple[str, ...], *, stdin: bool, tty: bool) -> CriProcess:
        """The command's process ends by itself when its stdin or terminal closes; the CRI cannot kill it."""
        request = cri_pb2.ExecRequest(
            container_id=container_id, cmd=command, tty=tty, stdin=stdin, stdout=True, stderr=not tty
        )
        answer = await self._client.call(self._client.runtime.Exec, request, "NotRunning")
        process = CriProcess(stdin=stdin, tty=tty, abandoned=_KILLED)
        await process.open(answer.url)
        return process

    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> CriProcess:
        request = cri_pb2.AttachRequest(container_id=container_id, stdin=stdin, tty=tty, stdout=True, stderr=not tty)
        answer = await self._client.call(self._client.runtime.Attach, request, "NotRunning")
        process = CriProcess(stdin=stdin, tty=tty, abandoned=0)
        await process.open(answer.url)
        return process

    async def connect(self, sandbox_id: str, port: int) -> SocketStream:
        found = await self._watch.sandbox(sandbox_id, verbose=True)
        if found is None or found.status.state != cri_pb2.SANDBOX_READY:
            raise RuntimeFailure("NotFound", f"sandbox {sandbox_id} does not run")
        pin = None
        if not cri_config.spec_of(found.status).host_network:
            pin = _network_namespace(found.info.get("info", "{}"))
            if pin is None:
                raise RuntimeFailure("ConnectionFailed", f"{self._client.name} does not tell the pod's namespaces")
        addresses = ("127.0.0.1", *cri_config.ips_of(found.status))
        return await connect_in(pin, addresses, port, sandbox_id)

    async def log_lines(self, container_id: str, *, follow: bool) -> AsyncIterator[crilog.Line]:
        rows = await self._watch.container_rows()
        row = next((row for row in rows if row.id == container_id), None)
        if row is None:
            raise RuntimeFailure("NotFound", f"container {container_id} does not exist")
        path = self._logs / cri_config.kept_of(row).log
        async for line in crilog.lines(path, follow=follow, is_over=lambda: self._watch.is_over(container_id)):
            yield line

    async def stats(self) -> list[ContainerStats]:
        selector = cri_pb2.ContainerStatsFilter(label_selector={cri_config.OWNER_LABEL: self._owner})
        request = cri_pb2.ListContainerStatsRequest(filter=selector)
        answer = await self._client.call(self._client.runtime.ListContainerStats, request, "ContainerStatsError")
        return [cri_config.stats_of(row, self._now()) for row in answer.stats if row.HasField("cpu")]

    # --- images

    async def pull(self, reference: str, auths: tuple[RegistryAuth, ...]) -> Image:
        return await self._images.pull(reference, auths)

    async def image(self, reference: str) -> Image | None:
        return await self._images.image(reference)

    async def images(self) -> list[Image]:
        return await self._images.images()

    async def remove_image(self, image_id: str) -> None:
        await self._images.remove(image_id)

    async def load_image(self, archive: AsyncIterator[bytes]) -> list[str]:
        return await self._images.load(archive)


def _network_namespace(info: str) -> Path | None:
    """Finds a sandbox's network namespace in what the runtime tells of it in JSON."""
    document = orjson.loads(info)
    for row in ((document.get("runtimeSpec") or {}).get("linux") or {}).get("namespaces") or ():
        if row.get("type") == "network" and row.get("path"):
            return Path(row["path"])
    return Path(f"/proc/{document['pid']}/ns/net") if document.get("pid") else None
