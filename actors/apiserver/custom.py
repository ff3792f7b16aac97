"""Serves the kinds of CustomResourceDefinitions as soon as they exist, and takes them away again.

The cache tells which definitions there are. When one is deleted its objects go with it; when it changes, watches of
its objects end, so that clients begin anew with what is served now.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from steersman.actors.apiserver.authenticator import SERVER
from steersman.actors.apiserver.cache import WatchCache
from steersman.actors.apiserver.conversions import Conversions
from steersman.actors.apiserver.entry import Event
from steersman.actors.apiserver.writes import Writer
from steersman.cluster.api.custom.naming import CLEANUP, is_accepted, names_of, terminating
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.errors import ApiError, NotFound
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import CUSTOM_RESOURCE_DEFINITIONS as CRDS
from steersman.cluster.store.values import StoreError

log = logging.getLogger(__name__)

#: between two looks at whether the objects of a definition are gone: short at first, then longer
_FIRST_S, _RETRY_S = 0.02, 1.0


class CustomKinds:
    """Keeps the registry in step with the definitions in the cache; a Component."""

    def __init__(self, cache: WatchCache, registry: Registry, writer: Writer, conversions: Conversions) -> None:
        self._cache = cache
        self._registry = registry
        self._writer = writer
        self._conversions = conversions
        kind = registry.kind(CRDS.group, CRDS.version, CRDS.plural)
        if kind is None:
            raise LookupError("this version of Kubernetes has no CustomResourceDefinitions")
        self._kind: Kind = kind
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._namings: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        shelf = self._cache.shelf(self._kind.prefix())
        for entry in shelf.within():
            self._take(entry.obj)
        shelf.listeners.append(self._follow)

    async def stop(self) -> None:
        tasks = [*self._removals.values(), *self._namings]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self, event: Event) -> None:
        before, now = event.previous.obj if event.previous is not None else None, event.entry.obj
        if event.type == "DELETED":
            gone = self._registry.remove_crd(event.entry.key)
            self._end_watches(gone)
            self._name_others(now["spec"]["group"])
            return
        if before is not None and before["spec"] != now["spec"]:
            self._end_watches(self._registry.custom().get(event.entry.key, ()))
        self._take(now)
        if before is not None and names_of(before) - names_of(now):
            self._name_others(now["spec"]["group"])

    def _take(self, crd: Obj) -> None:
        name = crd["metadata"]["name"]
        try:
            rows = self._registry.add_crd(crd)
        except (ApiError, KeyError, ValueError) as error:
            log.warning("CustomResourceDefinition %s cannot be served: %s", name, error)
            return
        if rows:
            shelf = self._cache.shelf(rows[0].prefix())
            self._conversions.watch(shelf, converts=rows[0].converter is not None)
        if crd["metadata"].get("deletionTimestamp") and name not in self._removals:
            self._removals[name] = asyncio.create_task(self._remove_objects(name))

    def _end_watches(self, rows: tuple[Kind, ...]) -> None:
        if rows:
            shelf = self._cache.shelf(rows[0].prefix())
            self._conversions.watch(shelf, converts=False)
            shelf.close()

    # ---- names that have become free

    def _name_others(self, group: str) -> None:
        """Lets the definitions of a group that lack a name ask for it again."""
        for entry in self._cache.shelf(self._kind.prefix()).within():
            if entry.obj["spec"].get("group") == group and not is_accepted(entry.obj):
                task = asyncio.create_task(self._name(entry.key))
                self._namings.add(task)
                task.add_done_callback(self._namings.discard)

    async def _name(self, name: str) -> None:
        context = self._writer.context(SERVER, "steersman")
        try:
            await self._writer.run(self._writer.transform(self._kind, "", name, context, lambda crd: crd))
        except (ApiError, StoreError) as error:
            log.info("the names of %s could not be looked at again: %s", name, error)

    # ---- removal

    async def _remove_objects(self, name: str) -> None:
        """Deletes every object of a definition that is being deleted, then lets the definition go."""
        delay_s = _FIRST_S
        try:
            if not await self._removed(name):
                await self._say(name, "InstanceDeletionInProgress", "CustomResource deletion is in progress")
            while not await self._removed(name):
                await asyncio.sleep(delay_s)
                delay_s = min(_RETRY_S, delay_s * 2)
        finally:
            self._removals.pop(name, None)

    async def _removed(self, name: str) -> bool:
        try:
            definition = self._writer.current(self._kind, "", name)[1]
        except NotFound:
            return True
        if CLEANUP not in (definition["metadata"].get("finalizers") or ()):
            return True
        try:
            if not await self._delete_objects(definition):
                context = self._writer.context(SERVER, "steersman")
                await self._writer.run(self._writer.transform(self._kind, "", name, context, _without_cleanup))
                return True
        except (ApiError, StoreError) as error:
            log.info("objects of %s are not all gone yet: %s", name, error)
        return False

    async def _delete_objects(self, definition: Obj) -> bool:
        """Asks for the deletion of every object; returns whether there were any."""
        context = self._writer.context(SERVER, "steersman")
        stored = self._registry.stored(definition)
        if stored is None:
            return False
        kind = replace(stored, converter=None)  # which version an object is shown in does not matter here
        left = False
        for entry in list(self._cache.shelf(kind.prefix()).within()):
            left = True
            namespace, _, item = entry.key.rpartition("/")
            if not entry.obj["metadata"].get("deletionTimestamp"):
                await self._writer.run(self._writer.delete(kind, namespace, item, None, context))
        return left

    async def _say(self, name: str, reason: str, message: str) -> None:
        """Puts the state of a removal into the definition's status."""
        context = self._writer.context(SERVER, "steersman")

        def change(crd: Obj) -> Obj:
            return terminating(crd, context.now, reason, message)

        try:
            await self._writer.run(self._writer.transform(self._kind, "", name, context, change, "status"))
        except (ApiError, StoreError) as error:
            log.info("the state of %s could not be told: %s", name, error)


def _without_cleanup(crd: Obj) -> Obj:
    left = [item for item in crd["metadata"].get("finalizers") or () if item != CLEANUP]
    return {**crd, "metadata": {**crd["metadata"], "finalizers": left}}
