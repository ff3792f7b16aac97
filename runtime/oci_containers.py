"""Containers of the oci runtime: from an image and a specification to a process under conmon, and back to nothing."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from steersman.cluster.node.values import (
    ContainerSpec,
    ContainerStats,
    ExecResult,
    RuntimeFailure,
)
from steersman.runtime import conmon, crilog, layers, mounts, oci_spec, process_tree, records, syscalls, users
from steersman.runtime.conmon import Launch
from steersman.runtime.engine import run
from steersman.runtime.images import ImageStore
from steersman.runtime.oci_host import OciHost, host_devices
from steersman.runtime.oci_spec import ImageConfig, Surroundings
from steersman.runtime.records import ContainerRecord, SandboxRecord
from steersman.runtime.streams import AttachProcess, Console, ExecProcess, collect

#: how long a killed process may take to be gone
_KILL_DEADLINE_S = 10.0


class Containers:
    """Makes, runs and removes containers."""

    def __init__(self, host: OciHost, store: ImageStore) -> None:
        self._host = host
        self._store = store

    async def adopt(self) -> None:
        """Removes containers whose making was cut short, and learns which of those being started have started."""
        for container_id in self._host.ledger.rubbish()[1]:
            await self._clear(container_id)
        for record in list(self._host.ledger.containers.values()):
            if record.starting and not self._host.ledger.look(record.id).finished_at:
                outcome = await self._host.engine.call("state", record.id)
                started = b'"running"' in outcome.stdout
                self._host.ledger.put_container(
                    replace(record, starting=False, started_at=self._host.now() if started else 0.0)
                )

    # --- making

    async def create(self, sandbox: SandboxRecord, spec: ContainerSpec) -> str:
        image = self._store.find(spec.image)
        if image is None:
            raise RuntimeFailure("CreateContainerError", f"image {spec.image} is not on this node")
        container_id = secrets.token_hex(32)
        directory = self._host.ledger.container_dir(container_id)
        config = self._store.config(image.id)
        try:
            await self._mount_root(directory, [self._store.layer_dir(layer) for layer in image.layers])
            document = await asyncio.to_thread(self._configure, container_id, sandbox, spec, config)
            (directory / "config.json").write_bytes(msgspec.json.encode(document))
            monitored = await conmon.create(self._host.conmon, self._host.engine, self._launch(container_id, spec))
        except (OSError, RuntimeFailure, TimeoutError) as error:
            await self._clear(container_id)
            if isinstance(error, RuntimeFailure):
                raise
            raise RuntimeFailure("CreateContainerError", f"{type(error).__name__}: {error}") from error
        self._host.ledger.put_container(
            ContainerRecord(
                id=container_id,
                sandbox_id=sandbox.id,
                spec=spec,
                boot_id=self._host.ledger.boot_id,
                created_at=self._host.now(),
                pid=monitored.pid,
                pid_start=records.process_start(monitored.pid),
                monitor=monitored.monitor,
                monitor_start=records.process_start(monitored.monitor),
                stop_signal=signal_number(config.stop_signal),
            )
        )
        return container_id

    async def _mount_root(self, directory: Path, lower: list[Path]) -> None:
        """Makes the container's directory and mounts its root file system over the image's layers."""
        for part in ("", "rootfs", "upper", "work"):
            (directory / part).mkdir(mode=0o711 if not part else 0o755)
        if not lower:
            raise RuntimeFailure("CreateContainerError", "the image has no file system")
        stack = ":".join(str(path) for path in reversed(lower))
        options = f"lowerdir={stack},upperdir={directory}/upper,workdir={directory}/work"
        target = str(directory / "rootfs")
        if len(options) <= mounts.MOUNT_DATA_BYTES_MAX:
            await asyncio.to_thread(syscalls.mount, "overlay", target, "overlay", 0, options)
            return
        # too many layers for one page of options: their bare names, seen from their directory, fit
        stack = ":".join(path.name for path in reversed(lower))
        options = f"lowerdir={stack},upperdir={directory}/upper,workdir={directory}/work"
        outcome = await run(("mount", "-t", "overlay", "overlay", "-o", options, target), cwd=lower[0].parent)
        if outcome.code:
            raise RuntimeFailure("CreateContainerError", f"cannot mount {len(lower)} layers: {outcome.message}")

    def _configure(
        self, container_id: str, sandbox: SandboxRecord, spec: ContainerSpec, config: ImageConfig
    ) -> dict[str, object]:
        """Returns the container's OCI configuration. Blocks; looks into the mounted root file system."""
        host, directory = self._host, self._host.ledger.container_dir(container_id)
        rootfs = directory / "rootfs"
        account = users.resolve(
            spec.security, config.user, _text(rootfs, "etc", "passwd"), _text(rootfs, "etc", "group")
        )
        working_dir = spec.working_dir or config.working_dir
        if working_dir:
            os.makedirs(layers.inside(rootfs, working_dir.split("/")), exist_ok=True)
        pod_files = host.ledger.sandbox_dir(sandbox.id)
        around = Surroundings(
            rootfs=str(rootfs),
            namespaces=_namespaces(sandbox, pod_files / "ns") | self._targeted(spec),
            cgroup=f"{host.pod_cgroup(sandbox)}/{container_id}",
            files=tuple((str(pod_files / name), f"/etc/{name}") for name in ("hosts", "resolv.conf", "hostname")),
            shm="/dev/shm" if sandbox.spec.host_ipc else str(pod_files / "shm"),
            held=host.held,
            oom_score_adj_min=host.oom_score_adj_min,
            devices=host_devices() if spec.security.privileged else (),
            with_seccomp=host.engine.has_seccomp,
            controllers=host.controllers,
            cgroup_version=host.cgroups.version,
        )
        return oci_spec.build(spec, sandbox.spec, config, account, around)

    def _targeted(self, spec: ContainerSpec) -> dict[str, str]:
        """The process namespace of the container that this one is to look at."""
        return {"pid": f"/proc/{self._running(spec.target).pid}/ns/pid"} if spec.target else {}

    def _launch(self, container_id: str, spec: ContainerSpec) -> Launch:
        return Launch(
            container_id=container_id,
            name=spec.name,
            bundle=self._host.ledger.container_dir(container_id),
            exits=self._host.ledger.exits,
            tty=spec.tty,
            stdin=spec.stdin,
            stdin_once=spec.stdin_once,
            cgroup_procs=tuple(self._host.cgroups.procs_files(self._host.conmon_cgroup)),
        )

    async def start(self, container_id: str) -> None:
        ledger = self._host.ledger
        record = ledger.look(self.known(container_id).id)
        if record.started_at or record.finished_at:
            raise RuntimeFailure("RunContainerError", f"container {container_id} has been started before")
        ledger.put_container(replace(record, starting=True))
        outcome = await self._host.engine.call("start", container_id)
        if outcome.code:
            records.kill(record.pid, record.pid_start, signal.SIGKILL)
            ledger.put_container(
                replace(
                    record, finished_at=self._host.now(), exit_code=128, reason="StartError", message=outcome.message
                )
            )
            raise RuntimeFailure("RunContainerError", outcome.message)
        ledger.put_container(replace(record, started_at=self._host.now()))
        ledger.look(container_id)

    # --- ending

    async def stop(self, container_id: str, grace_s: float) -> None:
        ledger = self._host.ledger
        if container_id not in ledger.containers:
            return
        record = ledger.look(container_id)
        if record.finished_at:
            return
        if grace_s > 0 and record.started_at:
            records.kill(record.pid, record.pid_start, record.stop_signal)
            if await ledger.wait_for_exit(container_id, grace_s):
                return
        records.kill(record.pid, record.pid_start, signal.SIGKILL)
        if not await ledger.wait_for_exit(container_id, _KILL_DEADLINE_S):
            raise RuntimeFailure("KillContainerError", f"container {container_id} does not die")

    async def remove(self, container_id: str) -> None:
        ledger = self._host.ledger
        if container_id not in ledger.containers:
            return
        record = ledger.look(container_id)
        if not record.finished_at and record.started_at:
            raise RuntimeFailure("RemoveContainerError", f"container {container_id} is running")
        group = self._host.container_cgroup(record)
        await self._clear(container_id)
        if group:
            await asyncio.to_thread(self._host.cgroups.remove, group)
        ledger.forget_container(container_id)

    async def _clear(self, container_id: str) -> None:
        """Removes what the engine, conmon and the mounts have of a container."""
        directory = self._host.ledger.container_dir(container_id)
        await self._host.engine.delete(container_id)
        await asyncio.to_thread(mounts.remove_tree, directory)
        (self._host.ledger.exits / container_id).unlink(missing_ok=True)

    # --- looking and talking

    def known(self, container_id: str) -> ContainerRecord:
        record = self._host.ledger.containers.get(container_id)
        if record is None:
            raise RuntimeFailure("NotFound", f"container {container_id} does not exist")
        return record

    def _running(self, container_id: str) -> ContainerRecord:
        record = self._host.ledger.look(self.known(container_id).id)
        if not record.started_at or record.finished_at:
            raise RuntimeFailure("NotRunning", f"container {container_id} is not running")
        return record

    async def exec(self, container_id: str, command: tuple[str, ...], *, stdin: bool, tty: bool) -> ExecProcess:
        record = self._running(container_id)
        directory = self._host.ledger.container_dir(record.id)
        name = secrets.token_hex(4)
        pid_file, process_file = directory / f"exec-{name}.pid", directory / f"exec-{name}.json"
        process_file.write_bytes(msgspec.json.encode(exec_process(directory, command, tty=tty)))
        process = ExecProcess(pid_file, on_end=lambda: process_file.unlink(missing_ok=True))
        options = ["--pid-file", str(pid_file), "--process", str(process_file)]
        console = None
        if tty:
            # the container's own terminal: not every engine hands on a new size of a terminal that it is given
            console = Console(directory / f"exec-{name}.sock")
            options += ["--tty", "--console-socket", console.address]
        argv = self._host.engine.argv("exec", *options, container_id)
        await process.start(argv, stdin=stdin, tty=tty, console=console)
        return process

    async def exec_sync(self, container_id: str, command: tuple[str, ...], deadline_s: float) -> ExecResult:
        process = await self.exec(container_id, command, stdin=False, tty=False)
        return await collect(process, command, deadline_s)

    async def attach(self, container_id: str) -> AttachProcess:
        directory = self._host.ledger.container_dir(self._running(container_id).id)
        process = AttachProcess(lambda width, height: conmon.resize(directory, width, height))
        try:
            await process.start(directory)
        except OSError as error:
            raise RuntimeFailure("NotRunning", f"cannot attach to container {container_id}: {error}") from error
        return process

    def log_lines(self, container_id: str, *, follow: bool) -> AsyncIterator[crilog.Line]:
        path = self._host.ledger.container_dir(self.known(container_id).id) / "log"
        return crilog.lines(path, follow=follow, is_over=lambda: self._host.ledger.is_over(container_id))

    def rotate_logs(self) -> None:
        """Rotates the logs that have grown too large."""
        for record in list(self._host.ledger.containers.values()):
            directory = self._host.ledger.container_dir(record.id)
            if not record.finished_at and crilog.rotate(directory / "log"):
                conmon.reopen_log(directory)

    def stats(self) -> list[ContainerStats]:
        """What the running containers use. Blocks."""
        found = []
        for record in list(self._host.ledger.containers.values()):
            if record.finished_at or not record.started_at:
                continue
            group = self._host.container_cgroup(record)
            # without controllers to ask, the processes themselves tell
            usage = self._host.cgroups.usage(group) or process_tree.usage(record.pid)
            if usage is not None:
                found.append(self._host.ledger.stats_row(record, usage, self._host.now()))
        return found


def exec_process(directory: Path, command: tuple[str, ...], *, tty: bool) -> dict[str, object]:
    """Returns the OCI process of a command in a container: the container's own with other arguments."""
    process: dict[str, Any] = msgspec.json.decode((directory / "config.json").read_bytes())["process"]
    if tty:
        process["env"] = [line for line in process["env"] if not line.startswith("TERM=")] + ["TERM=xterm"]
    return process | {"args": list(command), "terminal": tty}


def signal_number(name: str) -> int:
    """Returns the number of an image's stop signal (`SIGQUIT`, `QUIT`, `3`); SIGTERM for none or an unknown one."""
    if name.isdigit():
        return int(name)
    found = getattr(signal, f"SIG{name.upper().removeprefix('SIG')}", signal.SIGTERM)
    return int(found)


def _namespaces(sandbox: SandboxRecord, pins: Path) -> dict[str, str]:
    """Kind to path, an empty path for a new one, `host` for the host's."""
    spec = sandbox.spec
    host = "host"
    pid = host if spec.host_pid else str(pins / "pid") if spec.share_process_namespace else ""
    return {
        "network": host if spec.host_network else str(pins / "net"),
        "uts": host if spec.host_network else str(pins / "uts"),
        "ipc": host if spec.host_ipc else str(pins / "ipc"),
        "pid": pid,
    }


def _text(rootfs: Path, *parts: str) -> str:
    """Reads a file of the image without following its links out of it."""
    try:
        return Path(layers.inside(rootfs, list(parts))).read_text(errors="replace")
    except (OSError, layers.LayerError):
        return ""
