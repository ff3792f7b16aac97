"""Pods as plain processes of this machine: no engine, no rights, no isolation.

A container is a command of the host under a small keeper (`shim`) that outlives the agent; a pod is a loopback address
that its processes are asked to use. It runs what needs neither a root file system nor limits, and says what is missing.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import replace
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
from steersman.runtime import conmon, crilog, oci_spec, process_tree, records, shim
from steersman.runtime.addresses import AddressPool, PoolExhausted, loopback_cidr
from steersman.runtime.image_service import ImageService
from steersman.runtime.ledger import Ledger
from steersman.runtime.machine_runtime import MachineRuntime
from steersman.runtime.oci_containers import signal_number
from steersman.runtime.oci_spec import ImageConfig
from steersman.runtime.records import ContainerRecord, SandboxRecord
from steersman.runtime.streams import AttachProcess, ExecProcess, SocketStream, collect, connect_failure, read_pid

_CONNECT_DEADLINE_S = 10.0
_KILL_DEADLINE_S = 10.0
_START_DEADLINE_S = 30.0

_REDUCED = (
    "containers are plain processes of this machine: there is no isolation between them",
    "images have no root file system here: their commands are looked up on this machine",
    "cpu and memory limits are not enforced",
    "pods have loopback addresses of this machine, which servers must bind (they find it in $HOST and $POD_IP)",
    "volumes are not mounted at their paths but linked below $STEERSMAN_ROOT",
    "pods ask this machine's resolver: Services are found by their environment variables and addresses, not by name",
)


class ProcessRuntime(MachineRuntime):
    """Implements `protocol.Runtime`.

    Args:
        root: data directory of this runtime alone.
        now: the wall clock.
        insecure_registries: hosts that are spoken to over plain HTTP, beside those on loopback.
    """

    def __init__(self, root: Path, *, now: Callable[[], float], insecure_registries: Collection[str] = ()) -> None:
        self._root = root
        self._now = now
        self._pool: AddressPool | None = None
        ledger = Ledger(root, lambda _: "")
        images = ImageService(
            root / "images",
            unpacks=False,
            in_use=ledger.images_in_use,
            insecure_registries=insecure_registries,
        )
        super().__init__(ledger, images)

    # --- the runtime itself

    async def start(self) -> RuntimeInfo:
        await self._ledger.own()
        try:
            self._ledger.open()
            await self._images.start()
            self._adopt()
        except BaseException as error:
            self._ledger.close()
            if isinstance(error, OSError):
                raise RuntimeFailure("RuntimeNotReady", f"{type(error).__name__}: {error}") from error
            raise
        return RuntimeInfo(
            name="process", version="process 1", pod_network="loopback", isolation=False, reduced=_REDUCED
        )

    def _adopt(self) -> None:
        """Removes what was being made when an agent died, and finds the processes it was about to note."""
        sandboxes, containers = self._ledger.rubbish()
        for sandbox_id in sandboxes:
            shutil.rmtree(self._ledger.sandbox_dir(sandbox_id))
        for container_id in containers:
            shutil.rmtree(self._ledger.container_dir(container_id))
        for record in list(self._ledger.containers.values()):
            if record.starting and not record.finished_at:
                directory = self._ledger.container_dir(record.id)
                self._note_start(record, read_pid(directory / "pid"), read_pid(directory / "conmon.pid"))

    def _note_start(self, record: ContainerRecord, pid: int, monitor: int) -> None:
        self._ledger.put_container(
            replace(
                record,
                starting=False,
                started_at=self._now() if pid else 0.0,
                pid=pid,
                pid_start=records.process_start(pid) if pid else 0,
                monitor=monitor,
                monitor_start=records.process_start(monitor) if monitor else 0,
            )
        )

    async def stop(self) -> None:
        self._ledger.close()

    async def purge(self) -> None:
        for sandbox_id in list(self._ledger.sandboxes):
            await self.remove_sandbox(sandbox_id)
        await asyncio.to_thread(self._purge_machine)

    def _purge_machine(self) -> None:
        """Kills and removes what is left, recorded or not; images stay. Blocks."""
        left = {path.name for path in (self._root / "containers").glob("*")}
        for pid in process_tree.marked(left) if left else ():
            records.kill(pid, records.process_start(pid), signal.SIGKILL)
        for part in ("sandboxes", "containers", "exits"):
            shutil.rmtree(self._root / part, ignore_errors=True)

    async def set_pod_cidr(self, cidr: str) -> None:
        pool = AddressPool(loopback_cidr(cidr))
        for record in self._ledger.sandboxes.values():
            if self._ledger.sandbox_status(record).ready:
                for address in record.ips:
                    pool.mark(address)
        self._pool = pool

    # --- sandboxes

    async def run_sandbox(self, spec: SandboxSpec) -> SandboxStatus:
        record = SandboxRecord(
            id=secrets.token_hex(32),
            spec=spec,
            boot_id=self._ledger.boot_id,
            created_at=self._now(),
            ips=() if spec.host_network else (self._take_address(),),
        )
        self._ledger.sandbox_dir(record.id).mkdir(mode=0o711)
        self._ledger.put_sandbox(record)
        return self._ledger.sandbox_status(record)

    def _take_address(self) -> str:
        if self._pool is None:
            raise RuntimeFailure("FailedCreatePodSandBox", "this node has no pod address range yet")
        try:
            return self._pool.take()
        except PoolExhausted as error:
            raise RuntimeFailure("FailedCreatePodSandBox", str(error)) from None

    async def stop_sandbox(self, sandbox_id: str) -> None:
        record = self._ledger.sandboxes.get(sandbox_id)
        if record is None:
            return
        for container in self._ledger.of_sandbox(sandbox_id):
            await self.stop_container(container.id, 0)
        if not record.stopped:
            self._ledger.put_sandbox(replace(record, stopped=True))
            for address in record.ips:
                if self._pool is not None:
                    self._pool.release(address)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self.stop_sandbox(sandbox_id)
        for container in self._ledger.of_sandbox(sandbox_id):
            await self.remove_container(container.id)
        if self._ledger.sandboxes.pop(sandbox_id, None) is not None:
            shutil.rmtree(self._ledger.sandbox_dir(sandbox_id))

    # --- containers

    async def create_container(self, sandbox_id: str, spec: ContainerSpec) -> str:
        sandbox = self._ledger.sandboxes.get(sandbox_id)
        if sandbox is None or not self._ledger.sandbox_status(sandbox).ready:
            raise RuntimeFailure("CreateContainerError", f"sandbox {sandbox_id} is not ready")
        config = self._config(spec)
        oci_spec.process_args(spec, config)
        record = ContainerRecord(
            id=secrets.token_hex(32),
            sandbox_id=sandbox_id,
            spec=spec,
            boot_id=self._ledger.boot_id,
            created_at=self._now(),
            stop_signal=signal_number(config.stop_signal),
        )
        directory = self._ledger.container_dir(record.id)
        (directory / "work").mkdir(parents=True, mode=0o755)
        for mount in spec.mounts:
            link = directory / "root" / mount.container_path.strip("/")
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(mount.host_path)
        self._ledger.put_container(record)
        return record.id

    def _config(self, spec: ContainerSpec) -> ImageConfig:
        image = self._images.store.find(spec.image)
        if image is None:
            raise RuntimeFailure("CreateContainerError", f"image {spec.image} is not on this node")
        return self._images.store.config(image.id)

    async def start_container(self, container_id: str) -> None:
        record = self._ledger.look(self._known(container_id).id)
        if record.started_at or record.finished_at:
            raise RuntimeFailure("RunContainerError", f"container {container_id} has been started before")
        self._ledger.put_container(replace(record, starting=True))
        try:
            pid, monitor = await self._launch(record)
        except (OSError, RuntimeFailure) as error:
            self._ledger.put_container(
                replace(record, finished_at=self._now(), exit_code=128, reason="StartError", message=str(error))
            )
            raise RuntimeFailure("RunContainerError", str(error)) from error
        self._note_start(record, pid, monitor)
        self._ledger.look(container_id)

    async def _launch(self, record: ContainerRecord) -> tuple[int, int]:
        """Starts a keeper with its process; returns the numbers of (process, keeper)."""
        spec, directory = record.spec, self._ledger.container_dir(record.id)
        config = self._config(spec)
        command = _on_this_machine(oci_spec.process_args(spec, config))
        flags = ("t" if spec.tty else "") + ("i" if spec.stdin else "") + ("" if spec.stdin_once else "l")
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", shim.__file__,
                str(writing), record.id, str(directory), str(self._ledger.exits), _user(spec), flags,
                self._working_dir(record, config), *command,
                env=self._env(record, config), pass_fds=(writing,), start_new_session=True,
            )  # fmt: skip
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        try:
            async with asyncio.timeout(_START_DEADLINE_S):
                said = (await conmon.read_line(reading)).decode(errors="replace").strip()
                await process.wait()
        except TimeoutError:
            raise RuntimeFailure("RunContainerError", "the container's keeper did not answer in time") from None
        kind, _, rest = said.partition(" ")
        if kind != "pid":
            raise RuntimeFailure("RunContainerError", rest or "the container's keeper ended without a word")
        pid, monitor = rest.split()
        return int(pid), int(monitor)

    def _working_dir(self, record: ContainerRecord, config: ImageConfig) -> str:
        wanted = record.spec.working_dir or config.working_dir
        if wanted and os.path.isdir(wanted):
            return wanted
        return str(self._ledger.container_dir(record.id) / "work")

    def _env(self, record: ContainerRecord, config: ImageConfig) -> dict[str, str]:
        sandbox = self._ledger.sandboxes[record.sandbox_id]
        hostname = sandbox.spec.hostname
        lines = oci_spec.process_env(record.spec, config, hostname, str(self._ledger.container_dir(record.id) / "work"))
        found = dict(line.split("=", 1) for line in lines)
        if "PATH" not in dict(record.spec.env):
            found["PATH"] = os.environ.get("PATH", found["PATH"])
        address = sandbox.ips[0] if sandbox.ips else "0.0.0.0"
        found.setdefault("HOST", address)
        found.setdefault("POD_IP", address)
        found["STEERSMAN_ROOT"] = str(self._ledger.container_dir(record.id) / "root")
        found[shim.MARK] = record.id
        return found

    async def stop_container(self, container_id: str, grace_s: float) -> None:
        if container_id not in self._ledger.containers:
            return
        record = self._ledger.look(container_id)
        if record.finished_at:
            return
        if not record.pid:
            self._ledger.put_container(
                replace(record, finished_at=self._now(), exit_code=137, reason="Error", message="never started")
            )
            return
        if grace_s > 0:
            records.kill(record.pid, record.pid_start, record.stop_signal)
            if await self._ledger.wait_for_exit(container_id, grace_s):
                return
        records.kill(record.pid, record.pid_start, signal.SIGKILL)
        if not await self._ledger.wait_for_exit(container_id, _KILL_DEADLINE_S):
            raise RuntimeFailure("KillContainerError", f"container {container_id} does not die")

    async def remove_container(self, container_id: str) -> None:
        if container_id not in self._ledger.containers:
            return
        record = self._ledger.look(container_id)
        if record.started_at and not record.finished_at:
            raise RuntimeFailure("RemoveContainerError", f"container {container_id} is running")
        await asyncio.to_thread(shutil.rmtree, self._ledger.container_dir(container_id), True)
        self._ledger.forget_container(container_id)

    def _known(self, container_id: str) -> ContainerRecord:
        record = self._ledger.containers.get(container_id)
        if record is None:
            raise RuntimeFailure("NotFound", f"container {container_id} does not exist")
        return record

    def _running(self, container_id: str) -> ContainerRecord:
        record = self._ledger.look(self._known(container_id).id)
        if not record.started_at or record.finished_at:
            raise RuntimeFailure("NotRunning", f"container {container_id} is not running")
        return record

    # --- streams

    async def exec(self, container_id: str, command: tuple[str, ...], *, stdin: bool, tty: bool) -> ExecProcess:
        record = self._running(container_id)
        config = self._config(record.spec)
        process = ExecProcess(None)
        try:
            await process.start(
                _on_this_machine(list(command)),
                stdin=stdin,
                tty=tty,
                env=self._env(record, config) | ({"TERM": "xterm"} if tty else {}),
                cwd=self._working_dir(record, config),
            )
        except OSError as error:
            raise RuntimeFailure("ExecError", str(error)) from error
        return process

    async def exec_sync(self, container_id: str, command: tuple[str, ...], deadline_s: float) -> ExecResult:
        return await collect(await self.exec(container_id, command, stdin=False, tty=False), command, deadline_s)

    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> AttachProcess:
        directory = self._ledger.container_dir(self._running(container_id).id)
        process = AttachProcess(lambda width, height: conmon.resize(directory, width, height))
        try:
            await process.start(directory)
        except OSError as error:
            raise RuntimeFailure("NotRunning", f"cannot attach to container {container_id}: {error}") from error
        return process

    async def connect(self, sandbox_id: str, port: int) -> SocketStream:
        record = self._ledger.sandboxes.get(sandbox_id)
        if record is None or record.stopped:
            raise RuntimeFailure("NotFound", f"sandbox {sandbox_id} does not run")
        try:
            return await SocketStream.connect(_open_socket, record.ips or ("127.0.0.1",), port, _CONNECT_DEADLINE_S)
        except OSError as error:
            raise connect_failure(error, port, sandbox_id) from error

    def log_lines(self, container_id: str, *, follow: bool) -> AsyncIterator[crilog.Line]:
        path = self._ledger.container_dir(self._known(container_id).id) / "log"
        return crilog.lines(path, follow=follow, is_over=lambda: self._ledger.is_over(container_id))

    async def stats(self) -> list[ContainerStats]:
        return await asyncio.to_thread(self._stats)

    def _stats(self) -> list[ContainerStats]:
        found = []
        for record in list(self._ledger.containers.values()):
            usage = process_tree.usage(record.pid) if record.started_at and not record.finished_at else None
            if usage is not None:
                found.append(self._ledger.stats_row(record, usage, self._now()))
        return found


async def _open_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


def _user(spec: ContainerSpec) -> str:
    """Returns `uid:gid:groups` to become, empty to stay who we are, as without root one must."""
    security = spec.security
    if os.geteuid() != 0 or security.run_as_user is None:
        return ""
    groups = ",".join(str(group) for group in security.supplemental_groups)
    return f"{security.run_as_user}:{security.run_as_group or 0}:{groups}"


def _on_this_machine(command: list[str]) -> list[str]:
    """Returns the command with the built-in image's server replaced by the one in Python."""
    if command[0] == "/bin/serve":
        return [sys.executable, "-I", str(Path(__file__).with_name("web.py"))]
    return command
