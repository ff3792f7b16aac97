"""What every part of a node agent shares: its ports, its configuration, and where it stands."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from steersman.actors.client import Client
from steersman.actors.nodeagent.handlers import Handlers
from steersman.actors.nodeagent.materials import Materials
from steersman.actors.nodeagent.view import RuntimeView
from steersman.actors.ports import Now
from steersman.actors.recorder import EventRecorder
from steersman.cluster.meta.objects import Obj
from steersman.cluster.node.config import NodeConfig
from steersman.cluster.node.containers import field_path
from steersman.cluster.node.values import Image, RegistryAuth, RuntimeInfo
from steersman.runtime.protocol import Runtime, Volumes

#: writes of pod statuses that one node has under way at once
STATUS_WRITES_MAX = 8


@dataclass(slots=True)
class Host:
    """One node, as the workers of its pods see it.

    Args:
        info: of the runtime, once it has started.
        node: the Node object as last seen; None before registration.
        prepared: whether pods can have addresses.
        taken: what each admitted pod takes that has not ended, by uid.
        pulls: images being fetched, so that one download serves every pod that waits for it.
    """

    client: Client
    runtime: Runtime
    volumes: Volumes
    config: NodeConfig
    now: Now
    rng: random.Random
    view: RuntimeView
    recorder: EventRecorder
    materials: Materials
    handlers: Handlers
    info: RuntimeInfo | None = None
    node: Obj | None = None
    prepared: bool = False
    taken: dict[str, dict[str, int]] = field(default_factory=dict)
    pulls: dict[tuple[str, tuple[RegistryAuth, ...]], asyncio.Task[Image]] = field(default_factory=dict)
    status_writes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STATUS_WRITES_MAX))

    @property
    def runtime_name(self) -> str:
        return self.info.name if self.info is not None else "unknown"

    def event(self, pod: Obj, type_: str, reason: str, message: str, container: str = "") -> None:
        """Records an event of a pod, or of one of its containers."""
        path = field_path(pod, container) if container else ""
        self.recorder.event(pod, type_, reason, message, field_path=path)

    async def pull(self, reference: str, auths: tuple[RegistryAuth, ...]) -> Image:
        """Fetches an image; those who ask meanwhile with the same credentials share the download."""
        key = (reference, auths)
        task = self.pulls.get(key)
        if task is None:
            task = asyncio.ensure_future(self.runtime.pull(reference, auths))
            self.pulls[key] = task
            task.add_done_callback(lambda done: self._pulled(key, done))
        return await asyncio.shield(task)

    def _pulled(self, key: tuple[str, tuple[RegistryAuth, ...]], done: asyncio.Task[Image]) -> None:
        self.pulls.pop(key, None)
        if not done.cancelled():
            done.exception()  # everyone who waited has it; nobody may be waiting any more
