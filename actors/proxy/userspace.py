"""Services without rights: this process listens on every service address and passes the bytes on.

A service port without endpoints is not listened on, so that clients are refused at once. Where routes may be made, the
service range becomes this host's own; where not, only a range of loopback addresses can be listened on.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
from collections.abc import Mapping
from typing import NamedTuple

from steersman.actors.proxy.tcp import TcpFrontend
from steersman.actors.proxy.udp import UdpFrontend
from steersman.cluster.net.services import Backend, ServicePort
from steersman.runtime.routes import Routes

#: how long an address that could not be listened on is left alone
RETRY_S = 30.0


class _Front(NamedTuple):
    protocol: str
    address: str
    port: int


class UserspacePlane:
    """Listening sockets, one per service address and port."""

    def __init__(self, *, listen_on: str, service_cidr: str, pod_cidr: str) -> None:
        self._listen_on = listen_on
        self._service_cidr = service_cidr
        self._pod_cidr = pod_cidr
        #: None where routes may not be made
        self._routes: Routes | None = None
        self._open: dict[_Front, TcpFrontend | UdpFrontend] = {}
        #: no longer listened on, but with connections that go on
        self._leaving: list[TcpFrontend | UdpFrontend] = []
        #: what could not be listened on -> (sentence, when)
        self._refused: dict[_Front, tuple[str, float]] = {}

    async def start(self) -> None:
        """Makes the service range this host's own, unless it is or may not be."""
        if ipaddress.ip_network(self._service_cidr).is_loopback:
            return
        routes = Routes(self._pod_cidr)
        try:
            await routes.start()
            await routes.lead_to_self(self._service_cidr)
        except OSError:
            await routes.stop()  # what cannot be listened on will be told one by one
        else:
            self._routes = routes

    async def apply(self, ports: list[ServicePort]) -> list[str]:
        wanted = self._wanted(ports)
        for front in [front for front in self._open if front not in wanted]:
            frontend = self._open.pop(front)
            await frontend.close()
            self._leaving.append(frontend)
        self._leaving = [frontend for frontend in self._leaving if frontend.connections]
        now = asyncio.get_running_loop().time()
        self._refused = {front: row for front, row in self._refused.items() if front in wanted}
        for front, (port, backends) in wanted.items():
            held = self._open.get(front)
            if held is None:
                if front in self._refused and now - self._refused[front][1] < RETRY_S:
                    continue
                held = await self._listen(front, port, now)
            if held is not None:
                held.lead_to(backends, port.affinity_s)
        return [text for text, _ in self._refused.values()]

    def _wanted(self, ports: list[ServicePort]) -> dict[_Front, tuple[ServicePort, tuple[Backend, ...]]]:
        wanted: dict[_Front, tuple[ServicePort, tuple[Backend, ...]]] = {}
        for port in ports:
            if port.protocol not in ("TCP", "UDP"):
                continue
            if port.internal:
                wanted.setdefault(_Front(port.protocol, port.cluster_ip, port.port), (port, port.internal))
            if port.node_port and port.external:
                wanted.setdefault(_Front(port.protocol, self._listen_on, port.node_port), (port, port.external))
            for address in port.external_ips:
                if port.external:
                    wanted.setdefault(_Front(port.protocol, address, port.port), (port, port.external))
        return wanted

    async def _listen(self, front: _Front, port: ServicePort, now: float) -> TcpFrontend | UdpFrontend | None:
        frontend: TcpFrontend | UdpFrontend = TcpFrontend() if front.protocol == "TCP" else UdpFrontend()
        try:
            await frontend.open(front.address, front.port)
        except OSError as error:
            self._refused[front] = (_sentence(front, port, error), now)
            return None
        self._refused.pop(front, None)
        self._open[front] = frontend
        return frontend

    async def route(self, wanted: Mapping[str, str], own_address: str) -> list[str]:
        if self._routes is None:
            return []
        try:
            refused = await self._routes.set(wanted)
        except OSError as error:
            return [f"routes to the pods of other nodes cannot be made: {error}"]
        return [f"pods of {cidr} cannot be reached: {reason}" for cidr, reason in sorted(refused.items())]

    async def check(self) -> bool:
        return True

    async def stop(self) -> None:
        for frontend in self._open.values():
            await frontend.close()
        for frontend in (*self._open.values(), *self._leaving):
            frontend.abort()
        self._open.clear()
        self._leaving.clear()
        if self._routes is not None:
            await self._routes.stop()
            self._routes = None

    async def purge(self) -> None:
        """Removes the routes made here, whoever made them; needs no `start`."""
        routes = Routes(self._pod_cidr)
        try:
            await routes.start()
            await routes.purge(self._service_cidr)
        finally:
            await routes.stop()


def _sentence(front: _Front, port: ServicePort, error: OSError) -> str:
    what = f"service {port.namespace}/{port.name}: cannot listen on {front.address}:{front.port}/{front.protocol}"
    if error.errno == errno.EACCES:
        return f"{what}: ports below 1024 need root here"
    if error.errno == errno.EADDRINUSE:
        return f"{what}: another process has it"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{what}: it is no address of this host"
    return f"{what}: {error.strerror or error}"
