"""The node agent: what the kubelet is, as a component.

Holds a worker for every pod bound to its node, the runtime's listing, the node's heartbeat, and the streams that the
API server asks for. Decisions are `cluster.node`'s; containers are the runtime's and outlive this.

Source: https://kubernetes.io/docs/reference/command-line-tools-reference/kubelet/
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from steersman.actors.client import Client
from steersman.actors.informer import Informer
from steersman.actors.nodeagent.handlers import Handlers
from steersman.actors.nodeagent.host import Host
from steersman.actors.nodeagent.materials import Materials
from steersman.actors.nodeagent.registration import Registration
from steersman.actors.nodeagent.streams import Streams
from steersman.actors.nodeagent.view import RuntimeView
from steersman.actors.nodeagent.worker import PodWorker
from steersman.actors.ports import Channel, ExecRequest, LogRequest, Now, monotonic
from steersman.actors.recorder import EventRecorder
from steersman.cluster.meta.objects import Obj, is_true, key
from steersman.cluster.meta.resources import NODES, PODS
from steersman.cluster.node.config import NodeConfig
from steersman.cluster.node.eviction import Pressure, eviction, victim
from steersman.cluster.node.values import ContainerState, RuntimeFailure, RuntimeInfo
from steersman.runtime.protocol import Runtime, Volumes

_log = logging.getLogger(__name__)

#: grace of containers whose pod nobody knows any more
ORPHAN_GRACE_S = 2.0
#: pause before the runtime's announcements are listened to again after they broke off
LISTEN_RETRY_S = 1.0
#: the least time between two evictions, so that the first can take effect
EVICTION_PAUSE_S = 30.0


def no_pressure() -> Pressure:
    """The answer of a machine that nobody measures."""
    return Pressure()


class NodeAgent:
    """Component: runs the pods of one node; implements `steersman.actors.ports.NodeStreams`.

    Args:
        pressure: measures what the machine has left; called at every relist, so it must be quick.
    """

    def __init__(
        self,
        client: Client,
        runtime: Runtime,
        volumes: Volumes,
        config: NodeConfig,
        *,
        now: Now,
        rng: random.Random,
        pressure: Callable[[], Pressure] = no_pressure,
    ) -> None:
        self._config = config
        self._pressure = pressure
        self._workers: dict[str, PodWorker] = {}
        self._host = Host(
            client=client,
            runtime=runtime,
            volumes=volumes,
            config=config,
            now=now,
            rng=rng,
            view=RuntimeView(runtime, self._runtime_changed),
            recorder=EventRecorder(client, "kubelet", config.name, now, rng),
            materials=Materials(client, now, rng),
            handlers=Handlers(runtime),
        )
        self._streams = Streams(self._host, self._find)
        self._pods = Informer(
            client,
            PODS,
            field_selector=f"spec.nodeName={config.name}",
            on_change=self._pod_changed,
            rng=random.Random(rng.getrandbits(64)),
        )
        self._nodes = Informer(
            client,
            NODES,
            field_selector=f"metadata.name={config.name}",
            on_change=self._node_changed,
            rng=random.Random(rng.getrandbits(64)),
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._orphans: dict[str, asyncio.Task[None]] = {}
        self._pod_cidr = ""
        self._registration: Registration | None = None
        self._evicted_at = float("-inf")
        #: set once the node is registered and its pods are known
        self.serving = asyncio.Event()

    async def start(self) -> None:
        """Starts the runtime and begins to serve; registration goes on until it succeeds, `serving` says when."""
        host = self._host
        host.info = await host.runtime.start()
        host.handlers.simulated = host.info.pod_network == "simulated"
        host.prepared = not self._config.wait_for_pod_cidr
        await host.view.refresh()
        self._registration = Registration(host, host.info, self._pressure, self._learn_node)
        self._spawn("register", self._serve(self._registration))
        self._spawn("listen", self._listen())

    @property
    def name(self) -> str:
        return self._config.name

    @property
    def runtime_info(self) -> RuntimeInfo | None:
        """What the runtime said of itself; None before it has started."""
        return self._host.info

    @property
    def is_ready(self) -> bool:
        """Whether the API shows this node as Ready."""
        node = self._host.node
        return self.serving.is_set() and node is not None and is_true(node, "Ready")

    async def stop(self) -> None:
        """Lets go of everything; containers run on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._pods.stop()
        await self._nodes.stop()
        await asyncio.gather(*(worker.stop() for worker in self._workers.values()))
        self._workers.clear()
        for task in self._orphans.values():
            task.cancel()
        await asyncio.gather(*self._orphans.values(), return_exceptions=True)
        await self._streams.stop()
        await self._host.recorder.stop()
        await self._host.runtime.stop()

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work, name=f"{name} of node {self._config.name}"))

    async def _serve(self, registration: Registration) -> None:
        await registration.register()
        await self._nodes.start()
        self._spawn("heartbeat", registration.run())
        await self._pods.start()
        await self._pods.synced.wait()
        self._spawn("relist", self._relist())
        self._spawn("refresh", self._refresh())
        self.serving.set()

    # --- the node itself

    def _learn_node(self, node: Obj) -> None:
        self._host.node = node
        self._nodes.observe(node)

    def _node_changed(self, before: Obj | None, after: Obj | None) -> None:
        if after is None:
            return
        self._host.node = after
        cidr = (after.get("spec") or {}).get("podCIDR") or ""
        if cidr and cidr != self._pod_cidr:
            self._pod_cidr = cidr
            self._spawn("addresses", self._set_pod_cidr(cidr))

    async def _set_pod_cidr(self, cidr: str) -> None:
        try:
            await self._host.runtime.set_pod_cidr(cidr)
        except RuntimeFailure as failure:
            _log.error("node %s: its pod address range %s cannot be used: %s", self._config.name, cidr, failure.message)
            self._pod_cidr = ""
            return
        self._host.prepared = True
        if self._registration is not None:
            self._registration.wake()
        for worker in self._workers.values():
            worker.wake()

    # --- pods

    def _pod_changed(self, before: Obj | None, after: Obj | None) -> None:
        uid = "" if after is None else after["metadata"]["uid"]
        if before is not None and before["metadata"]["uid"] != uid:
            self._forget(before["metadata"]["uid"])
        if after is None:
            return
        worker = self._workers.get(uid)
        if worker is None:
            self._workers[uid] = worker = PodWorker(self._host, after, self._pods.observe)
            worker.start()
        else:
            worker.update(after)

    def _forget(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is None:
            return
        if worker.finished:
            del self._workers[uid]
        else:
            worker.pod_gone()

    def _runtime_changed(self, pod_uid: str) -> None:
        worker = self._workers.get(pod_uid)
        if worker is not None:
            worker.runtime_changed()

    def _find(self, namespace: str, name: str) -> PodWorker | None:
        pod = self._pods.get(f"{namespace}/{name}")
        return self._workers.get(pod["metadata"]["uid"]) if pod is not None else None

    # --- rounds

    async def _listen(self) -> None:
        """Looks again whenever the runtime says that something happened."""
        while True:
            try:
                async for _ in self._host.runtime.changes():
                    await self._host.view.refresh()
            except RuntimeFailure as failure:
                _log.warning("node %s: the runtime's changes broke off: %s", self._config.name, failure.message)
            await asyncio.sleep(LISTEN_RETRY_S)

    async def _relist(self) -> None:
        """Looks at everything now and then, whatever was announced; what belongs to no pod is removed."""
        while True:
            trouble = self._host.view.trouble
            await self._host.view.refresh()
            if trouble != self._host.view.trouble and self._registration is not None:
                self._registration.wake()
            for uid in [uid for uid, worker in self._workers.items() if worker.finished and not self._is_held(uid)]:
                del self._workers[uid]
            await self._remove_orphans()
            await self._relieve()
            await asyncio.sleep(self._config.relist_s)

    def _is_held(self, uid: str) -> bool:
        """Whether the API still has a pod of this uid here."""
        worker = self._workers[uid]
        held = self._pods.get(key(worker.pod))
        return held is not None and held["metadata"]["uid"] == uid

    async def _remove_orphans(self) -> None:
        try:
            known = [*self._host.view.pods(), *await self._host.volumes.pods()]
        except RuntimeFailure as failure:
            _log.warning("node %s: cannot look for orphans: %s", self._config.name, failure.message)
            return
        for uid in dict.fromkeys(known):
            if uid not in self._workers and uid not in self._orphans:
                task = asyncio.create_task(self._remove_orphan(uid), name=f"orphan {uid}")
                self._orphans[uid] = task
                task.add_done_callback(lambda _, uid=uid: self._orphans.pop(uid, None))  # type: ignore[misc]

    async def _remove_orphan(self, uid: str) -> None:
        host = self._host
        _log.info("node %s: removing what is left of pod %s", self._config.name, uid)
        try:
            containers = host.view.containers(uid)
            alive = [row for row in containers if row.state is not ContainerState.EXITED]
            await asyncio.gather(*(host.runtime.stop_container(row.id, ORPHAN_GRACE_S) for row in alive))
            for container in containers:
                await host.runtime.remove_container(container.id)
            for sandbox in host.view.sandboxes(uid):
                await host.runtime.stop_sandbox(sandbox.id)
                await host.runtime.remove_sandbox(sandbox.id)
            await host.volumes.teardown(uid)
        except RuntimeFailure as failure:
            _log.warning("node %s: pod %s is not removed yet: %s", self._config.name, uid, failure.message)
        await host.view.refresh()

    async def _relieve(self) -> None:
        """Evicts one pod when the machine runs short of memory."""
        available, minimum = self._pressure().memory_available_bytes, self._config.memory_available_bytes_min
        now = monotonic()
        if available is None or available >= minimum or now - self._evicted_at < EVICTION_PAUSE_S:
            return
        try:
            rows = await self._host.runtime.stats()
        except RuntimeFailure:
            return
        usage: dict[str, dict[str, int]] = {}
        for row in rows:
            usage.setdefault(row.pod_uid, {})[row.name] = row.memory_working_set_bytes
        pod = victim([worker.pod for worker in self._workers.values() if worker.is_active], usage)
        if pod is None:
            return
        self._evicted_at = now
        uid = pod["metadata"]["uid"]
        self._workers[uid].refuse(eviction(pod, usage.get(uid, {}), available, minimum))
        if self._registration is not None:
            self._registration.wake()

    async def _refresh(self) -> None:
        """Compares mounted configuration with the API, and renews tokens in time."""
        while True:
            await asyncio.sleep(self._config.refresh_s * self._host.rng.uniform(0.9, 1.1))
            workers = list(self._workers.values())
            changed = set(
                await self._host.materials.refresh(row for worker in workers for row in worker.configuration())
            )
            for worker in workers:
                if worker.token_due() or not changed.isdisjoint(worker.configuration()):
                    worker.refresh_volumes()

    # --- streams

    async def logs(self, request: LogRequest) -> AsyncIterator[bytes]:
        return await self._streams.logs(request)

    async def exec(self, request: ExecRequest) -> Channel:
        return await self._streams.exec(request)

    async def attach(self, request: ExecRequest) -> Channel:
        return await self._streams.attach(request)

    async def port_forward(self, namespace: str, pod: str, port: int) -> Channel:
        return await self._streams.port_forward(namespace, pod, port)

    async def stats(self) -> dict[str, Any]:
        return await self._streams.stats([worker.pod for worker in self._workers.values()])

    async def load_image(self, archive: AsyncIterator[bytes]) -> list[str]:
        names = await self._streams.load_image(archive)
        if self._registration is not None:
            self._registration.wake()
        return names

    async def list_images(self) -> list[dict[str, Any]]:
        return await self._streams.list_images()
