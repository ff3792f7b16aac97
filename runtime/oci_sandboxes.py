"""Pods' shells of the oci runtime: namespaces, address, files, shared memory and cgroup."""

from __future__ import annotations

import asyncio
import secrets
import signal
from dataclasses import replace
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError

from steersman.cluster.node.values import RuntimeFailure, SandboxSpec, SandboxStatus
from steersman.runtime import mounts, netns, podfiles, records
from steersman.runtime.addresses import AddressPool, PoolExhausted
from steersman.runtime.oci_host import OciHost
from steersman.runtime.records import SandboxRecord

#: of a pod's /dev/shm, as the CRI runtimes give it
_SHM_BYTES = 64 * 1024 * 1024
_KILL_DEADLINE_S = 10.0
_PAUSE_DEADLINE_S = 5.0

#: the first process of a pod whose containers share their process namespace: it only buries orphans
_PAUSE = 'trap "exit 0" TERM; while :; do sleep 86400 & wait; done'
_PAUSE_LAUNCH = """
while [ "$1" != -- ]; do echo 0 > "$1"; shift; done; shift
exec setsid --fork unshare --kill-child --pid="$1" --fork sh -c "$2" </dev/null >/dev/null 2>&1
"""


class Sandboxes:
    """Makes and takes down sandboxes."""

    def __init__(self, host: OciHost) -> None:
        self._host = host
        self._pool: AddressPool | None = None
        #: one change of the host's port rules at a time
        self._publishing = asyncio.Lock()

    @property
    def _range_file(self) -> Path:
        return self._host.root / "pod-cidr"

    def live(self) -> list[SandboxRecord]:
        """The sandboxes whose namespaces should stand."""
        ledger = self._host.ledger
        return [r for r in ledger.sandboxes.values() if not r.stopped and r.boot_id == ledger.boot_id]

    async def adopt(self) -> None:
        """Brings the network of the sandboxes found on disk in order; removes what nobody claims."""
        for sandbox_id in self._host.ledger.rubbish()[0]:
            await self._take_down(sandbox_id)
            await asyncio.to_thread(mounts.remove_tree, self._host.ledger.sandbox_dir(sandbox_id))
        await self._host.network.collect([record.id for record in self.live()])
        if self._range_file.exists():
            await self.set_range(self._range_file.read_text().strip())

    async def set_range(self, cidr: str) -> None:
        pool = AddressPool(cidr)
        for record in self.live():
            for address in record.ips:
                pool.mark(address)
        await self._host.network.set_range(str(pool.network), pool.gateway)
        records.write_atomically(self._range_file, cidr.encode())
        self._pool = pool
        await self._publish()

    async def purge_network(self) -> None:
        await self._host.network.purge(str(self._pool.network) if self._pool else "")
        self._range_file.unlink(missing_ok=True)

    async def _publish(self) -> None:
        """Makes the host's port rules those of the live sandboxes."""
        async with self._publishing:
            rows = [
                (record.ips[0], port)
                for record in self.live()
                if record.ips
                for port in record.spec.port_mappings
                if port.host_port
            ]
            await self._host.network.publish(tuple(rows))

    # --- making

    async def run(self, spec: SandboxSpec) -> SandboxStatus:
        sandbox_id = secrets.token_hex(32)
        ips = () if spec.host_network else (self._take_address(),)
        ledger = self._host.ledger
        record = SandboxRecord(id=sandbox_id, spec=spec, boot_id=ledger.boot_id, created_at=self._host.now(), ips=ips)
        try:
            await self._build(record)
            ledger.put_sandbox(record)
            if spec.port_mappings and ips:
                await self._publish()
        except (OSError, NetlinkError, RuntimeFailure) as error:
            ledger.sandboxes.pop(sandbox_id, None)
            await self._take_down(sandbox_id)
            await asyncio.to_thread(mounts.remove_tree, ledger.sandbox_dir(sandbox_id))
            self._release(ips)
            raise RuntimeFailure("FailedCreatePodSandBox", f"{type(error).__name__}: {error}") from error
        return ledger.sandbox_status(record)

    def _take_address(self) -> str:
        if self._pool is None:
            raise RuntimeFailure("FailedCreatePodSandBox", "this node has no pod address range yet")
        try:
            return self._pool.take()
        except PoolExhausted as error:
            raise RuntimeFailure("FailedCreatePodSandBox", str(error)) from None

    def _release(self, addresses: tuple[str, ...]) -> None:
        for address in addresses:
            if self._pool is not None:
                self._pool.release(address)

    async def _build(self, record: SandboxRecord) -> None:
        spec, directory = record.spec, self._host.ledger.sandbox_dir(record.id)
        kinds = tuple(
            kind
            for kind, shared in (("net", spec.host_network), ("ipc", spec.host_ipc), ("uts", spec.host_network))
            if not shared
        )
        await netns.in_thread(lambda: self._build_files(record, directory, kinds))
        if record.ips:
            await self._host.network.attach(
                record.id, directory / "ns" / "net", record.ips[0], localhost_ports=bool(spec.port_mappings)
            )
        if spec.share_process_namespace and not spec.host_pid:
            await self._start_pause(record, directory / "ns" / "pid")

    def _build_files(self, record: SandboxRecord, directory: Path, kinds: tuple[str, ...]) -> None:
        """Everything of a sandbox but its network. Blocks, and ends in the new namespaces."""
        spec = record.spec
        directory.mkdir(mode=0o711)
        self._host.cgroups.make(self._host.pod_cgroup(record), spec.resources)
        texts = {
            "hosts": podfiles.hosts(spec, record.ips, _text("/etc/hosts")),
            "resolv.conf": podfiles.resolv_conf(spec, _text("/etc/resolv.conf")),
            "hostname": f"{spec.hostname}\n",
        }
        for name, text in texts.items():
            (directory / name).write_text(text)
            (directory / name).chmod(0o644)
        if not spec.host_ipc:
            (directory / "shm").mkdir()
            mounts.tmpfs(str(directory / "shm"), size_bytes=_SHM_BYTES, mode=0o1777)
        if spec.share_process_namespace and not spec.host_pid:
            (directory / "ns").mkdir()
            (directory / "ns" / "pid").touch()
        netns.make(directory / "ns", kinds, spec.hostname, spec.sysctls)

    async def _start_pause(self, record: SandboxRecord, pin: Path) -> None:
        group = f"{self._host.pod_cgroup(record)}/pause"
        self._host.cgroups.make(group)
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", _PAUSE_LAUNCH, "sh", *self._host.cgroups.procs_files(group), "--", str(pin), _PAUSE
        )
        await process.wait()
        try:
            async with asyncio.timeout(_PAUSE_DEADLINE_S):
                while not mounts.is_mount(pin):  # noqa: ASYNC110 (the kernel tells nobody)
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise RuntimeFailure("FailedCreatePodSandBox", "the pod's first process did not start") from None

    # --- taking down

    async def stop(self, sandbox_id: str) -> None:
        ledger = self._host.ledger
        record = ledger.sandboxes.get(sandbox_id)
        if record is None:
            return
        running = [found for found in ledger.of_sandbox(sandbox_id) if not ledger.look(found.id).finished_at]
        for found in running:
            records.kill(found.pid, found.pid_start, signal.SIGKILL)
        for pid in self._host.cgroups.pids(self._host.pod_cgroup(record)):
            records.kill(pid, records.process_start(pid), signal.SIGKILL)
        for found in running:
            await ledger.wait_for_exit(found.id, _KILL_DEADLINE_S)
        if record.stopped:
            return
        await self._take_down(sandbox_id)
        ledger.put_sandbox(replace(record, stopped=True))
        self._release(record.ips)
        if record.spec.port_mappings:
            await self._publish()

    async def _take_down(self, sandbox_id: str) -> None:
        """Removes link, namespaces and mounts, whatever of them stands."""
        directory = self._host.ledger.sandbox_dir(sandbox_id)
        await self._host.network.detach(sandbox_id)
        await asyncio.to_thread(netns.unpin, directory / "ns")
        await asyncio.to_thread(mounts.unmount_below, directory)

    async def remove(self, sandbox_id: str) -> None:
        """Removes a stopped sandbox whose containers are gone."""
        ledger = self._host.ledger
        record = ledger.sandboxes.get(sandbox_id)
        if record is None:
            return
        same_pod = [r for r in ledger.sandboxes.values() if r.spec.pod_uid == record.spec.pod_uid]
        if len(same_pod) == 1:
            await asyncio.to_thread(self._host.cgroups.remove, self._host.pod_cgroup(record))
        await asyncio.to_thread(mounts.remove_tree, ledger.sandbox_dir(sandbox_id))
        ledger.sandboxes.pop(sandbox_id, None)


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
