"""The network of a node's pods: a veth pair each, routed by the host.

Every pod has its address as a /32 behind a veth of its own and sends everything to the node's gateway address, so
pods of one node also meet in the host's forwarding path, where service rules apply, whatever the bridge module does.
Addresses of the range that no pod holds are unreachable rather than sent away. What a pod holds follows from its name,
so a half-made or forgotten network is found again and removed.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from steersman.cluster.node.values import PortMapping
from steersman.runtime import netns

_SCOPE_LINK = 253
_RTN_UNREACHABLE = "unreachable"
#: prefer any route to a pod over the range's unreachable one
_UNREACHABLE_PRIORITY = 4096


class PodNetwork:
    """Links and routes in the host, one worker thread at a time.

    Args:
        tag: 4 hex digits that tell this runtime's links from another's on the same machine.
    """

    def __init__(self, tag: str) -> None:
        self._prefix = f"st{tag}"
        self._table = f"steersman-{tag}-hostports"
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="steersman-net")
        self._ipr: Any = None
        self.gateway = ""
        #: what the host's rules say; None until this process has written them
        self._published: tuple[tuple[str, PortMapping], ...] | None = None

    def link_name(self, sandbox_id: str) -> str:
        return self._prefix + hashlib.sha256(sandbox_id.encode()).hexdigest()[:9]

    async def _run(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function, *args)

    async def start(self) -> None:
        await self._run(self._open)

    def _open(self) -> None:
        self._ipr = IPRoute()

    async def stop(self) -> None:
        if self._ipr is not None:
            await self._run(self._ipr.close)
            self._ipr = None
        self._worker.shutdown(wait=False)

    async def set_range(self, cidr: str, gateway: str) -> None:
        """Makes addresses of the range that nobody holds unreachable, and lets the host forward."""
        self.gateway = gateway
        await self._run(self._set_range, cidr)

    def _set_range(self, cidr: str) -> None:
        forward = Path("/proc/sys/net/ipv4/ip_forward")
        if forward.read_text().strip() != "1":
            forward.write_text("1")
        self._ipr.route("replace", dst=cidr, type=_RTN_UNREACHABLE, priority=_UNREACHABLE_PRIORITY)

    async def attach(self, sandbox_id: str, pin: Path, address: str, *, localhost_ports: bool) -> None:
        """Connects a pinned network namespace; `localhost_ports` lets the host's 127/8 reach it."""
        await self._run(self._make_link, self.link_name(sandbox_id), pin, address, localhost_ports)
        await netns.in_thread(lambda: self._set_up_inside(pin, address, self.gateway))

    def _make_link(self, name: str, pin: Path, address: str, localhost_ports: bool) -> None:
        ipr = self._ipr
        fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
        try:
            ipr.link("add", ifname=name, kind="veth", peer={"ifname": "eth0", "net_ns_fd": fd})
        finally:
            os.close(fd)
        index = ipr.link_lookup(ifname=name)[0]
        ipr.link("set", index=index, state="up")
        ipr.addr("add", index=index, address=self.gateway, prefixlen=32)
        ipr.route("replace", dst=f"{address}/32", oif=index, scope=_SCOPE_LINK, prefsrc=self.gateway)
        if localhost_ports:
            Path(f"/proc/sys/net/ipv4/conf/{name}/route_localnet").write_text("1")

    @staticmethod
    def _set_up_inside(pin: Path, address: str, gateway: str) -> None:
        netns.enter_network(pin)
        with IPRoute() as ipr:
            ipr.link("set", index=1, state="up")
            index = ipr.link_lookup(ifname="eth0")[0]
            ipr.addr("add", index=index, address=address, prefixlen=32)
            ipr.link("set", index=index, state="up")
            ipr.route("add", dst=f"{gateway}/32", oif=index, scope=_SCOPE_LINK)
            ipr.route("add", dst="default", gateway=gateway, oif=index)

    async def loopback_up(self, pin: Path) -> None:
        """Brings up the loopback of a namespace that gets no other network."""

        def work() -> None:
            netns.enter_network(pin)
            with IPRoute() as ipr:
                ipr.link("set", index=1, state="up")

        await netns.in_thread(work)

    async def detach(self, sandbox_id: str) -> None:
        """Removes a pod's link, with its routes; one that is gone needs none."""
        await self._run(self._remove_link, self.link_name(sandbox_id))

    def _remove_link(self, name: str) -> None:
        for index in self._ipr.link_lookup(ifname=name):
            try:
                self._ipr.link("del", index=index)
            except NetlinkError as error:
                if error.code != errno.ENODEV:
                    raise

    async def links(self) -> list[str]:
        """The names of every link of this runtime, whether or not a pod still claims it."""
        return list(await self._run(self._list_links))

    def _list_links(self) -> list[str]:
        names = [link.get("ifname") for link in self._ipr.get_links()]
        return [name for name in names if name and name.startswith(self._prefix)]

    async def collect(self, claimed: list[str]) -> None:
        """Removes the links that none of these sandboxes claims."""
        wanted = {self.link_name(sandbox_id) for sandbox_id in claimed}
        for name in await self.links():
            if name not in wanted:
                await self._run(self._remove_link, name)

    async def purge(self, cidr: str) -> None:
        await self.collect([])
        await self.publish(())
        if cidr:
            await self._run(self._remove_range, cidr)

    def _remove_range(self, cidr: str) -> None:
        try:
            self._ipr.route("del", dst=cidr, type=_RTN_UNREACHABLE, priority=_UNREACHABLE_PRIORITY)
        except NetlinkError as error:
            if error.code != errno.ESRCH:
                raise

    # --- host ports

    async def publish(self, ports: tuple[tuple[str, PortMapping], ...]) -> None:
        """Makes exactly these (pod address, port) reachable on the host; the rules change all at once.

        Raises OSError when nft is missing or refuses.
        """
        if ports == self._published or (not ports and shutil.which("nft") is None):
            return
        process = await asyncio.create_subprocess_exec(
            "nft", "-f", "-", stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate(host_port_rules(self._table, self.gateway, ports).encode())
        if process.returncode:
            raise OSError(process.returncode, f"nft: {errors.decode().strip()}")
        self._published = ports


def host_port_rules(table: str, gateway: str, ports: tuple[tuple[str, PortMapping], ...]) -> str:
    """The nftables script that publishes ports; with none it only removes the table."""
    script = f"table ip {table} {{}}\ndelete table ip {table}\n"
    if not ports:
        return script
    rules = []
    for address, port in ports:
        host = f"ip daddr {port.host_ip} " if port.host_ip not in ("", "0.0.0.0") else ""
        protocol = port.protocol.lower()
        rules.append(f"    {host}{protocol} dport {port.host_port} dnat to {address}:{port.container_port}")
    pods = ", ".join(sorted({address for address, _ in ports}))
    return script + "\n".join(
        [
            f"table ip {table} {{",
            "  chain ports {",
            *rules,
            "  }",
            "  chain prerouting { type nat hook prerouting priority -105; fib daddr type local jump ports; }",
            "  chain output { type nat hook output priority -105; fib daddr type local jump ports; }",
            "  chain postrouting {",
            "    type nat hook postrouting priority 95;",
            f"    ip saddr 127.0.0.0/8 ip daddr {{ {pods} }} snat to {gateway}",
            "  }",
            "}\n",
        ]
    )
