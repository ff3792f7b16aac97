"""Keeps an APIService for each group and version that CustomResourceDefinitions serve, and takes it away with them.

Which there must be is decided in `cluster/api/apiservices`; every API server does this, and the one that is late finds
it done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

import orjson

from steersman.actors.apiserver.authenticator import SERVER
from steersman.actors.apiserver.cache import WatchCache
from steersman.actors.apiserver.entry import Event
from steersman.actors.apiserver.writes import Operation, Writer
from steersman.cluster.api import apiservices
from steersman.cluster.api.kinds import Registry
from steersman.cluster.meta.errors import AlreadyExists, ApiError, NotFound
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import API_SERVICES, CUSTOM_RESOURCE_DEFINITIONS
from steersman.cluster.store.values import StoreError

log = logging.getLogger(__name__)

_MANAGER = "kube-aggregator"
_RETRY_S = 1.0


class Registrations:
    """A Component of the API server."""

    def __init__(self, cache: WatchCache, registry: Registry, writer: Writer) -> None:
        self._writer = writer
        rows = [
            registry.kind(row.group, row.version, row.plural) for row in (API_SERVICES, CUSTOM_RESOURCE_DEFINITIONS)
        ]
        services, definitions = rows
        if services is None or definitions is None:
            raise LookupError("this version of Kubernetes has no APIServices")
        self._kind = services
        self._cache = cache
        self._services_prefix, self._definitions_prefix = services.prefix(), definitions.prefix()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        for prefix in (self._services_prefix, self._definitions_prefix):
            self._cache.shelf(prefix).listeners.append(self._follow)
        self._changed.set()
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _follow(self, event: Event) -> None:
        self._changed.set()

    async def _keep(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                for operation in self._missing():
                    try:
                        await self._writer.run(operation)
                    except (AlreadyExists, NotFound):
                        continue
            except (ApiError, StoreError) as error:
                log.info("the APIServices of custom resources are not all in place yet: %s", error)
                self._changed.set()
                await asyncio.sleep(_RETRY_S)

    def _missing(self) -> list[Operation]:
        """The writes that bring about what there must be."""
        definitions = [entry.obj for entry in self._cache.shelf(self._definitions_prefix).within()]
        wanted, shelf = apiservices.custom(definitions), self._cache.shelf(self._services_prefix)
        context = self._writer.context(SERVER, _MANAGER)
        found: list[Operation] = []
        for name, obj in wanted.items():
            entry = shelf.get(name)
            if entry is None:
                found.append(self._writer.create(self._kind, "", partial(_anew, orjson.dumps(obj)), context))
            elif apiservices.managed_as(entry.obj) and not apiservices.is_as(entry.obj, obj):
                found.append(self._writer.transform(self._kind, "", name, context, _with_spec(obj["spec"])))
        for entry in shelf.within():
            if entry.key not in wanted and apiservices.managed_as(entry.obj) == apiservices.ALWAYS:
                found.append(self._writer.delete(self._kind, "", entry.key, None, context))
        return found


def _anew(data: bytes) -> tuple[Obj, list[str]]:
    return orjson.loads(data), []


def _with_spec(spec: Obj) -> Callable[[Obj], Obj]:
    return lambda old: {**old, "spec": spec}
