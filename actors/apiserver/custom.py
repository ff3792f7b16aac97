"""Serves the kinds of CustomResourceDefinitions as soon as they exist, and marks them so.

The cache tells which definitions there are; a definition is accepted and established by whichever API server sees it
first. When one is deleted its objects go with it.
"""

from __future__ import annotations

import asyncio
import logging

from steersman.actors.apiserver.access import SERVER
from steersman.actors.apiserver.cache import WatchCache
from steersman.actors.apiserver.entry import Event
from steersman.actors.apiserver.writes import Writer
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.errors import ApiError, NotFound
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import CUSTOM_RESOURCE_DEFINITIONS as CRDS
from steersman.cluster.store.values import StoreError

log = logging.getLogger(__name__)

_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_RETRY_S = 1.0


class CustomKinds:
    """Keeps the registry in step with the definitions in the cache; a Component."""

    def __init__(self, cache: WatchCache, registry: Registry, writer: Writer) -> None:
        self._cache = cache
        self._registry = registry
        self._writer = writer
        kind = registry.kind(CRDS.group, CRDS.version, CRDS.plural)
        if kind is None:
            raise LookupError("this version of Kubernetes has no CustomResourceDefinitions")
        self._kind: Kind = kind
        self._removals: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        shelf = self._cache.shelf(self._kind.prefix())
        for entry in shelf.within():
            self._take(entry.obj)
        shelf.listeners.append(self._follow)

    async def stop(self) -> None:
        tasks = list(self._removals.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self, event: Event) -> None:
        if event.type == "DELETED":
            self._registry.remove_crd(event.entry.key)
        else:
            self._take(event.entry.obj)

    def _take(self, crd: Obj) -> None:
        name = crd["metadata"]["name"]
        try:
            self._registry.add_crd(crd)
        except (ApiError, KeyError, ValueError) as error:
            log.warning("CustomResourceDefinition %s cannot be served: %s", name, error)
            return
        if crd["metadata"].get("deletionTimestamp") and name not in self._removals:
            self._removals[name] = asyncio.create_task(self._remove_objects(name))

    async def _remove_objects(self, name: str) -> None:
        """Deletes every object of a definition that is being deleted, then lets the definition go."""
        try:
            done = False
            while not done:
                await asyncio.sleep(_RETRY_S)
                done = await self._removed(name)
        finally:
            self._removals.pop(name, None)

    async def _removed(self, name: str) -> bool:
        context = self._writer.context(SERVER, "steersman")
        try:
            definition = self._writer.current(self._kind, "", name)[1]
        except NotFound:
            return True
        if _CLEANUP not in (definition["metadata"].get("finalizers") or ()):
            return True
        left = False
        try:
            for kind in self._registry.custom().get(name, ())[:1]:
                for entry in list(self._cache.shelf(kind.prefix()).within()):
                    left = True
                    namespace, _, item = entry.key.rpartition("/")
                    await self._writer.run(self._writer.delete(kind, namespace, item, None, context))
            if not left:
                await self._writer.run(self._writer.transform(self._kind, "", name, context, _without_cleanup))
        except (ApiError, StoreError) as error:
            log.info("objects of %s are not all gone yet: %s", name, error)
        return False


def _without_cleanup(crd: Obj) -> Obj:
    left = [item for item in crd["metadata"].get("finalizers") or () if item != _CLEANUP]
    return {**crd, "metadata": {**crd["metadata"], "finalizers": left}}
