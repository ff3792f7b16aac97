"""Keeps the Node object true: registers it, renews its lease, writes its status when it changes and at intervals.

Source: https://kubernetes.io/docs/concepts/architecture/nodes/#node-heartbeats
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from steersman.actors.nodeagent.host import Host
from steersman.actors.ports import monotonic
from steersman.cluster.meta.errors import AlreadyExists, ApiError, NotFound
from steersman.cluster.meta.objects import Obj, labels_of
from steersman.cluster.meta.resources import LEASES, NODES
from steersman.cluster.node.config import LEASE_NAMESPACE
from steersman.cluster.node.eviction import Pressure
from steersman.cluster.node.node_object import is_same_status, lease_object, node_labels, node_object, node_status
from steersman.cluster.node.values import Image, RuntimeFailure, RuntimeInfo

_log = logging.getLogger(__name__)

RETRY_S = 0.2
RETRY_S_MAX = 10.0


class Registration:
    """One node's heartbeat.

    Args:
        pressure: measures what the machine has left.
        on_node: called with each version of the Node object that is learnt by writing it.
    """

    def __init__(
        self, host: Host, info: RuntimeInfo, pressure: Callable[[], Pressure], on_node: Callable[[Obj], None]
    ) -> None:
        self._host = host
        self._info = info
        self._pressure = pressure
        self._on_node = on_node
        self._written_at = float("-inf")
        self._leased = False
        self._wake = asyncio.Event()

    async def register(self) -> None:
        """Creates the Node, or brings its labels up to date; returns when that has succeeded."""
        delay_s = RETRY_S
        while True:
            try:
                await self._register()
                await self._write_status(force=True)
                await self._renew()
                return
            except (ApiError, OSError) as error:
                _log.info("node %s: not registered yet, again in %.1f s: %s", self._host.config.name, delay_s, error)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_S_MAX)

    async def _register(self) -> None:
        host = self._host
        try:
            node = await host.client.create(NODES, node_object(host.config, self._info))
        except AlreadyExists:
            node = await host.client.get(NODES, host.config.name)
            labels = node_labels(host.config, self._info)
            if any(labels_of(node).get(key) != value for key, value in labels.items()):
                node = await host.client.patch(NODES, host.config.name, {"metadata": {"labels": labels}})
        self._on_node(node)
        host.recorder.event(node, "Normal", "Starting", "Starting kubelet.")

    def wake(self) -> None:
        """Something that the status shows has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Beats until it is cancelled; a server that is away is asked again with the next beat."""
        host = self._host
        while True:
            try:
                async with asyncio.timeout(host.config.heartbeat_s):
                    await self._wake.wait()
                woken = True
            except TimeoutError:
                woken = False
            self._wake.clear()
            try:
                if not woken:
                    await self._renew()
                await self._write_status(force=False)
            except (ApiError, OSError) as error:
                _log.warning("node %s: heartbeat failed: %s", host.config.name, error)
                if woken:
                    await asyncio.sleep(RETRY_S)

    async def _renew(self) -> None:
        host = self._host
        lease = lease_object(host.config, (host.node or {"metadata": {}})["metadata"].get("uid", ""), host.now())
        if not self._leased:
            try:
                await host.client.create(LEASES, lease)
            except AlreadyExists:
                pass
            else:
                self._leased = True
                return
        try:
            await host.client.patch(LEASES, host.config.name, {"spec": lease["spec"]}, LEASE_NAMESPACE)
            self._leased = True
        except NotFound:
            self._leased = False

    def _readiness(self) -> tuple[bool, str]:
        host = self._host
        if host.view.trouble:
            return False, f"container runtime is down: {host.view.trouble}"
        if not host.prepared:
            return False, "container runtime network not ready: the node has no pod address range yet"
        return True, "kubelet is posting ready status"

    async def _write_status(self, *, force: bool) -> None:
        host = self._host
        if host.node is None:
            return
        try:
            images: list[Image] = await host.runtime.images()
        except RuntimeFailure:
            images = []
        before = host.node.get("status") or {}
        ready, message = self._readiness()
        status = node_status(
            host.config, self._info, images, self._pressure(), host.now(), ready=ready, message=message, before=before
        )
        lately = monotonic() - self._written_at < host.config.status_interval_s
        if not force and lately and is_same_status(before, status):
            return
        patch = {field: value for field, value in status.items() if field == "conditions" or before.get(field) != value}
        was_ready = any(row["type"] == "Ready" and row["status"] == "True" for row in before.get("conditions") or ())
        node = await host.client.patch(
            NODES, host.config.name, {"status": patch}, kind="strategic", subresource="status"
        )
        self._written_at = monotonic()
        self._on_node(node)
        if ready is not was_ready:
            state = "NodeReady" if ready else "NodeNotReady"
            host.recorder.event(node, "Normal", state, f"Node {host.config.name} status is now: {state}")
