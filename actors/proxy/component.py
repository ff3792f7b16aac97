"""The proxy of a node: services and their endpoints in, rules or listening sockets out.

What leads where is `cluster/net`'s to say. Rules stay in place while the proxy is away; `purge` removes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal, Protocol

from steersman.actors.background import failure_of
from steersman.actors.client import Client
from steersman.actors.informer import Informer
from steersman.actors.ports import Now
from steersman.actors.proxy.kernel import KernelPlane
from steersman.actors.proxy.userspace import UserspacePlane
from steersman.actors.recorder import EventRecorder
from steersman.cluster.meta.objects import Obj, labels_of
from steersman.cluster.meta.resources import ENDPOINT_SLICES, NODES, SERVICES
from steersman.cluster.net.routes import internal_address, routes
from steersman.cluster.net.rules import Frame
from steersman.cluster.net.services import SERVICE_NAME_LABEL, ZONE_LABEL, ServicePort, ports_of_service
from steersman.runtime.nftables import unavailable

#: looks whether all is still in place, and tries what failed again
RESYNC_S = 30.0
#: problems remembered as told
PROBLEMS_MAX = 1000


class Plane(Protocol):
    """What carries traffic to endpoints: the kernel or this process."""

    async def start(self) -> None: ...

    async def apply(self, ports: list[ServicePort]) -> list[str]:
        """Makes exactly these service ports reachable; returns sentences about those that cannot be."""
        ...

    async def route(self, wanted: Mapping[str, str], own_address: str) -> list[str]:
        """Makes exactly these pod ranges reachable by way of their gateways; returns what cannot be, in words."""
        ...

    async def check(self) -> bool:
        """Whether all is still in place; otherwise the next `apply` does everything anew."""
        ...

    async def stop(self) -> None: ...


class Proxy:
    """Component: one per host.

    Args:
        node_name: whose view is taken: its endpoints are the local ones.
        cluster_name: tells the tables of several clusters on one host apart.
        mode: `nftables` (needs the rights for it), `userspace`, or `auto` for the better one that works here;
            after `start` the one that was taken.
        pod_cidr, service_cidr: of the whole cluster.
        listen_on: where a userspace proxy listens for node ports.
    """

    def __init__(
        self,
        client: Client,
        *,
        node_name: str,
        now: Now,
        rng: random.Random,
        mode: Literal["auto", "nftables", "userspace"] = "auto",
        cluster_name: str = "default",
        pod_cidr: str = "10.244.0.0/16",
        service_cidr: str = "10.96.0.0/16",
        listen_on: str = "0.0.0.0",
    ) -> None:
        self._node_name = node_name
        self.mode = mode
        #: what is reduced in this mode and why, in words
        self.reduced: tuple[str, ...] = ()
        self._kernel = KernelPlane(
            Frame(table=f"steersman-{cluster_name}", pod_cidr=pod_cidr, service_cidr=service_cidr)
        )
        self._userspace = UserspacePlane(listen_on=listen_on, service_cidr=service_cidr, pod_cidr=pod_cidr)
        self._plane: Plane = self._userspace if mode == "userspace" else self._kernel
        self._recorder = EventRecorder(client, "kube-proxy", node_name, now, rng)
        self._dirty: OrderedDict[str, None] = OrderedDict()
        self._nodes_dirty = True
        self._wake = asyncio.Event()
        self._ports: dict[str, list[ServicePort]] = {}
        self._zone = ""
        self._told: OrderedDict[str, None] = OrderedDict()
        self._services = Informer(client, SERVICES, on_change=self._service_changed)
        self._slices = Informer(
            client, ENDPOINT_SLICES, on_change=self._slice_changed, indexes={"service": _services_of_slice}
        )
        self._nodes = Informer(client, NODES, on_change=self._node_changed)
        self._task: asyncio.Task[None] | None = None
        #: set once every service known at the start is reachable
        self.synced = asyncio.Event()
        #: what does not work now, in words
        self.problems: tuple[str, ...] = ()

    async def start(self) -> None:
        """Chooses how, and begins to watch. Raises OSError when kernel rules are wanted and not allowed."""
        if self.mode == "auto":
            reason = await unavailable()
            self.mode = "userspace" if reason else "nftables"
            self._plane = self._userspace if reason else self._kernel
            if reason:
                self.reduced = (f"services go through a userspace proxy: {reason}",)
        elif self.mode == "userspace":
            self.reduced = ("services go through a userspace proxy, as this node's networking is set up",)
        await self._plane.start()
        for informer in (self._services, self._slices, self._nodes):
            await informer.start()
        self._task = asyncio.create_task(self._run(), name="proxy")

    async def stop(self) -> None:
        """Ends; kernel rules stay, so that traffic goes on."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        for informer in (self._services, self._slices, self._nodes):
            await informer.stop()
        await self._plane.stop()
        await self._recorder.stop()

    async def purge(self) -> None:
        """Removes every rule and route of this cluster from the host; may be called before `start` or after `stop`.

        Raises OSError where rules or routes cannot be touched.
        """
        await (self._userspace if self.mode == "userspace" else self._kernel).purge()

    @property
    def failure(self) -> str:
        """What ended the background work unforeseen; empty while all is well."""
        return failure_of(self._task)

    # --- what is seen ---
    def _service_changed(self, before: Obj | None, after: Obj | None) -> None:
        obj = after or before
        if obj is not None:
            self._mark(f"{obj['metadata']['namespace']}/{obj['metadata']['name']}")

    def _slice_changed(self, before: Obj | None, after: Obj | None) -> None:
        for obj in (before, after):
            if obj is not None:
                for name in _services_of_slice(obj):
                    self._mark(name)

    def _node_changed(self, before: Obj | None, after: Obj | None) -> None:
        own = after if after is not None and after["metadata"]["name"] == self._node_name else None
        zone = labels_of(own).get(ZONE_LABEL, "") if own is not None else self._zone
        if zone != self._zone:
            self._zone = zone
            for name in self._ports:
                self._mark(name)
        if before is None or after is None or _route_facts(before) != _route_facts(after):
            self._nodes_dirty = True
            self._wake.set()

    def _mark(self, name: str) -> None:
        self._dirty[name] = None
        self._wake.set()

    # --- what is done ---
    async def _run(self) -> None:
        for informer in (self._services, self._slices, self._nodes):
            await informer.synced.wait()
        retry = False
        while True:
            if not self._dirty and not self._nodes_dirty and not retry:
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RESYNC_S):
                        await self._wake.wait()
            problems = await self._sync()
            self._tell(problems)
            self.problems = tuple(problems)
            self.synced.set()
            retry = not await self._plane.check()
            if retry and problems:
                await asyncio.sleep(RESYNC_S / 10)

    async def _sync(self) -> list[str]:
        dirty, self._dirty = self._dirty, OrderedDict()
        for name in dirty:
            service = self._services.get(name)
            slices = self._slices.by_index("service", name)
            found = ports_of_service(service, slices, self._node_name, self._zone) if service is not None else []
            if found:
                self._ports[name] = found
            else:
                self._ports.pop(name, None)
        problems = []
        if self._nodes_dirty:
            self._nodes_dirty = False
            own = self._nodes.get(self._node_name)
            address = internal_address(own) if own is not None else ""
            problems += await self._plane.route(routes(self._nodes.all(), self._node_name), address)
        return problems + await self._plane.apply([port for name in sorted(self._ports) for port in self._ports[name]])

    def _tell(self, problems: list[str]) -> None:
        """Records each problem once as an event on the node."""
        about = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self._node_name, "uid": self._node_name},
        }
        for problem in problems:
            if problem not in self._told:
                self._told[problem] = None
                if len(self._told) > PROBLEMS_MAX:
                    self._told.popitem(last=False)
                self._recorder.event(about, "Warning", "ServiceUnreachable", problem)


def _services_of_slice(obj: Obj) -> list[str]:
    name = labels_of(obj).get(SERVICE_NAME_LABEL)
    return [f"{obj['metadata']['namespace']}/{name}"] if name else []


def _route_facts(node: Obj) -> tuple[str, str]:
    return (node.get("spec") or {}).get("podCIDR") or "", internal_address(node)
