"""What controllers see: one informer for each watched resource, shared by all, and the catalog of the server's kinds.

Implements `cluster.control.spec.View`. It moves changes to whoever declared an interest and decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence

from steersman.actors.client import Client, Discovered
from steersman.actors.informer import Informer
from steersman.actors.ports import monotonic
from steersman.cluster.control.indexes import INDEXES
from steersman.cluster.control.spec import ControlSettings
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.meta.objects import Obj, key
from steersman.cluster.meta.resources import API_SERVICES, CUSTOM_RESOURCE_DEFINITIONS, EVENTS, Resource

#: told (resource, before, after)
Listener = Callable[[Resource, Obj | None, Obj | None], None]
#: after a definition or an APIService changed, how long to gather more changes before asking for the kinds again
SETTLE_S = 0.3
RETRY_S = 5.0
#: indexes that every resource gets when everything is watched
GRAPH_INDEXES = ("owner", "namespace")
_IGNORED = frozenset({EVENTS.plural})


class LiveView:
    """The shared caches.

    Args:
        everything: watch every resource that the server offers, not only the declared ones.
        listener: called for each change, on the event loop.
    """

    def __init__(
        self,
        client: Client,
        settings: ControlSettings,
        listener: Listener,
        *,
        everything: bool = False,
        discovers: bool = False,
    ) -> None:
        self._client = client
        self._settings = settings
        self._listener = listener
        self._everything = everything
        self._discovers = everything or discovers
        self._informers: dict[Resource, Informer] = {}
        self._changed: dict[Resource, dict[str, float]] = {}
        self._catalog: list[Resource] = []
        self._by_kind: dict[tuple[str, str], Resource] = {}
        self._by_name: dict[str, Resource] = {}
        self._undiscovered: Sequence[str] = ()
        self._stale = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        #: set once the kinds are known (at once when nobody asks for them)
        self.discovered = asyncio.Event()

    def want(self, resource: Resource, indexes: Iterable[str], *, timed: bool = False) -> None:
        """Has a resource watched, with these indexes; to be called before `start`."""
        if resource not in self._informers:
            self._informers[resource] = self._informer(resource)
        for index in indexes:
            self._informers[resource].add_index(index, INDEXES[index])
        if timed:
            self._changed.setdefault(resource, {})

    def _informer(self, resource: Resource) -> Informer:
        def on_change(before: Obj | None, after: Obj | None) -> None:
            self._note(resource, before, after)

        return Informer(self._client, resource, on_change=on_change)

    def _note(self, resource: Resource, before: Obj | None, after: Obj | None) -> None:
        times = self._changed.get(resource)
        if times is not None:
            if after is not None:
                times[key(after)] = monotonic()
            elif before is not None:
                times.pop(key(before), None)
        if resource in (CUSTOM_RESOURCE_DEFINITIONS, API_SERVICES):
            self._stale.set()
        self._listener(resource, before, after)

    async def start(self) -> None:
        if self._discovers:
            self.want(CUSTOM_RESOURCE_DEFINITIONS, ())
            self.want(API_SERVICES, ())
            self._task = asyncio.create_task(self._keep_catalog(), name="kinds")
        else:
            self.discovered.set()
        for informer in list(self._informers.values()):
            await informer.start()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        for informer in self._informers.values():
            await informer.stop()

    async def synced(self, resources: Iterable[Resource]) -> None:
        """Waits until the first lists of these resources are in."""
        for resource in resources:
            await self._informers[resource].synced.wait()

    async def synced_all(self, patience_s: float) -> None:
        """Waits for every resource, but not longer than so for those that cannot be listed."""
        await self.discovered.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self.synced(list(self._informers))

    @property
    def troubles(self) -> list[str]:
        """What keeps informers from being up to date, in words."""
        return [informer.trouble for informer in self._informers.values() if informer.trouble]

    async def _keep_catalog(self) -> None:
        while True:
            self._stale.clear()
            try:
                rows, self._undiscovered = await self._client.discover_all()
                await self._learn(rows)
            except (ApiError, OSError):
                await asyncio.sleep(RETRY_S)
                continue
            self.discovered.set()
            await self._stale.wait()
            await asyncio.sleep(SETTLE_S)

    async def _learn(self, rows: Sequence[Discovered]) -> None:
        catalog: list[Resource] = []
        by_kind: dict[tuple[str, str], Resource] = {}
        for row in rows:
            chosen = row.resource
            if not row.preferred:
                preferred = [old for old in catalog if (old.group, old.plural) == (chosen.group, chosen.plural)]
                by_kind[chosen.api_version, chosen.kind] = preferred[0] if preferred else chosen
                continue
            by_kind[chosen.api_version, chosen.kind] = chosen
            if {"list", "watch", "delete"} <= set(row.verbs):
                catalog.append(chosen)
        self._catalog, self._by_kind = catalog, by_kind
        self._by_name = {str(resource): resource for resource in catalog}
        if not self._everything:
            return
        wanted = [resource for resource in catalog if resource.plural not in _IGNORED]
        for gone in [old for old in self._informers if (old.api_version, old.kind) not in by_kind]:
            await self._drop(gone)
        for resource in wanted:
            if resource in self._informers:
                self._index_graph(resource)
                continue
            self._informers[resource] = self._informer(resource)
            self._index_graph(resource)
            await self._informers[resource].start()

    def _index_graph(self, resource: Resource) -> None:
        informer = self._informers[resource]
        for index in GRAPH_INDEXES:
            if not informer.has_index(index):
                informer.add_index(index, INDEXES[index])

    async def _drop(self, resource: Resource) -> None:
        """A kind is no more: its objects count as gone."""
        informer = self._informers.pop(resource)
        await informer.stop()
        for obj in informer.all():
            self._note(resource, obj, None)

    # --- what controllers read -------------------------------------------------------------------------------------

    @property
    def settings(self) -> ControlSettings:
        return self._settings

    def get(self, resource: Resource, key: str) -> Obj | None:
        informer = self._informers.get(resource)
        return None if informer is None else informer.get(key)

    def all(self, resource: Resource) -> list[Obj]:
        informer = self._informers.get(resource)
        return [] if informer is None else informer.all()

    def by_index(self, resource: Resource, index: str, value: str) -> list[Obj]:
        informer = self._informers.get(resource)
        return [] if informer is None else informer.by_index(index, value)

    def index_values(self, resource: Resource, index: str) -> list[str]:
        informer = self._informers.get(resource)
        return [] if informer is None else informer.index_values(index)

    def unchanged_s(self, resource: Resource, key: str) -> float | None:
        changed_at = self._changed[resource].get(key)
        return None if changed_at is None else monotonic() - changed_at

    def resources(self) -> Sequence[Resource]:
        return self._catalog

    def undiscovered(self) -> Sequence[str]:
        return self._undiscovered

    def resource_of(self, api_version: str, kind: str) -> Resource | None:
        return self._by_kind.get((api_version, kind))

    def resource_named(self, name: str) -> Resource | None:
        return self._by_name.get(name)

    # --- what writes teach ------------------------------------------------------------------------------------------

    def observe(self, resource: Resource, obj: Obj) -> None:
        """Takes in the answer to a write, so that the next decision sees it even before the watch brings it."""
        informer = self._informers.get(resource)
        if informer is not None:
            informer.observe(obj)

    def forget(self, resource: Resource, key: str, uid: str) -> None:
        """Takes in that a deletion was final."""
        informer = self._informers.get(resource)
        if informer is not None:
            informer.forget(key, uid)
