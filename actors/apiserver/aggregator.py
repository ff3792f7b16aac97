"""Which groups and versions other servers serve: follows the APIServices, and says in their status how each is.

It finds who answers a path; how a server is asked is the matter of `remote`, what its state means that of
`cluster/api/apiservices`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any

from steersman.actors.apiserver.authenticator import SERVER
from steersman.actors.apiserver.config import ApiServerConfig
from steersman.actors.apiserver.entry import DELETED, Event
from steersman.actors.apiserver.remote import Remote, RemoteOpenApi
from steersman.actors.apiserver.services import Services, service_of
from steersman.actors.apiserver.writes import Writer
from steersman.actors.ports import Now
from steersman.cluster.api import apiservices
from steersman.cluster.api.apiservices import LOCAL, Availability, Order
from steersman.cluster.api.extensions import Extension
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.auth.attributes import Attributes
from steersman.cluster.meta.errors import ApiError, NotFound
from steersman.cluster.meta.objects import Obj, condition
from steersman.cluster.meta.resources import API_SERVICES, ENDPOINT_SLICES, SERVICES
from steersman.cluster.store.values import StoreError

log = logging.getLogger(__name__)

_MANAGER = "kube-aggregator"


class Aggregator:
    """Knows the APIServices; a Component of the API server."""

    def __init__(
        self, registry: Registry, writer: Writer, services: Services, config: ApiServerConfig, now: Now
    ) -> None:
        kind = registry.kind(API_SERVICES.group, API_SERVICES.version, API_SERVICES.plural)
        if kind is None:
            raise LookupError("this version of Kubernetes has no APIServices")
        self._kind: Kind = kind
        self._writer = writer
        self._services = services
        self._config = config
        self._now = now
        #: by name of the APIService
        self._remotes: dict[str, Remote] = {}
        #: by group and version
        self._routes: dict[tuple[str, str], Remote] = {}
        #: what the documents show of each of them
        self._shown: dict[str, tuple[Extension, RemoteOpenApi]] = {}
        self._order: Order | None = None
        #: grows with every change of what other servers serve, and of the order of all
        self.generation = 0
        self._unavailable: Counter[tuple[str, str]] = Counter()
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        shelf = self._services.shelf(API_SERVICES)
        for entry in list(shelf.within()):
            self._follow(Event("ADDED", entry, None))
        shelf.listeners.append(self._follow)
        self._services.shelf(SERVICES).listeners.append(self._follow_service)
        self._services.shelf(ENDPOINT_SLICES).listeners.append(self._follow_slice)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(
            *self._tasks, *(remote.stop() for remote in self._remotes.values()), return_exceptions=True
        )

    # ---- following

    def _follow(self, event: Event) -> None:
        name, obj = event.entry.key, event.entry.obj
        spec, remote = obj["spec"], self._remotes.get(name)
        before = None if event.previous is None else event.previous.obj
        if before is None or event.type == DELETED or before["spec"] != spec:
            self._order = None
            self.generation += 1
        serves = event.type != DELETED and apiservices.is_remote(spec)
        if remote is not None and (not serves or remote.spec != spec):
            self._drop(remote)
            remote = None
        if serves and remote is None:
            remote = self._remotes[name] = Remote(name, spec, self._services, self._config, self._found)
            self._routes[spec["group"], spec["version"]] = remote
            remote.start()
        if remote is not None:
            remote.available = apiservices.is_available(obj)
            if remote.verdict is not None and _differs(obj, remote.verdict):
                remote.poke()
        elif event.type != DELETED and not spec.get("service") and _differs(obj, LOCAL):
            self._spawn(self._tell(name, LOCAL))

    def _drop(self, remote: Remote) -> None:
        del self._remotes[remote.name]
        self._shown.pop(remote.name, None)
        self._routes.pop((remote.spec["group"], remote.spec["version"]), None)
        self._spawn(remote.stop())

    def _follow_service(self, event: Event) -> None:
        self._poke(event.entry.key)

    def _follow_slice(self, event: Event) -> None:
        if self._remotes:
            self._poke(f"{event.entry.key.partition('/')[0]}/{service_of(event.entry.obj)}")

    def _poke(self, key: str) -> None:
        for remote in self._remotes.values():
            if "/".join(remote.service) == key:
                remote.poke()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- status

    async def _found(self, remote: Remote, found: Availability) -> None:
        if self._services.shelf(API_SERVICES).get(remote.name) is None:
            # deleted while the cache could not follow
            self._drop(remote)
            self._order, self.generation = None, self.generation + 1
            return
        shown = remote.extension, remote.openapi
        if self._shown.get(remote.name) != shown:
            self._shown[remote.name] = shown
            self.generation += 1
        await self._tell(remote.name, found)

    async def _tell(self, name: str, found: Availability) -> None:
        """Puts a finding into an APIService's status, where it is new."""
        entry = self._services.shelf(API_SERVICES).get(name)
        if entry is None or not _differs(entry.obj, found):
            return
        if found.status != "True" and apiservices.is_available(entry.obj):
            self._unavailable[name, found.reason] += 1
        context = self._writer.context(SERVER, _MANAGER)

        def change(old: Obj) -> Obj:
            return {**old, "status": apiservices.with_availability(old, found, self._now())}

        try:
            await self._writer.run(self._writer.transform(self._kind, "", name, context, change, "status"))
        except NotFound:
            return
        except (ApiError, StoreError) as error:
            log.info("the state of APIService %s could not be told: %s", name, error)

    # ---- what others ask

    def route(self, attributes: Attributes) -> Remote | None:
        """Who answers a request; None when this server does, or nobody."""
        if attributes.is_resource:
            return self.route_to(attributes.group, attributes.version)
        parts = attributes.path.strip("/").split("/")
        return self.route_to(parts[1], parts[2]) if len(parts) == 3 and parts[0] == "apis" else None

    def route_to(self, group: str, version: str) -> Remote | None:
        """Who serves a group and version; None when this server does, or nobody."""
        return self._routes.get((group, version))

    @property
    def is_empty(self) -> bool:
        return not self._routes

    def order(self) -> Order:
        if self._order is None:
            self._order = Order(entry.obj for entry in self._services.shelf(API_SERVICES).within())
        return self._order

    def remotes(self) -> Sequence[Remote]:
        return list(self._remotes.values())

    def extensions(self) -> list[Extension]:
        return [remote.extension for remote in self._remotes.values()]

    def metrics(self) -> list[str]:
        """Lines of the page that a scraper reads."""
        gauge, counter = "aggregator_unavailable_apiservice", "aggregator_unavailable_apiservice_total"
        text = "APIServices which are marked as unavailable broken down by APIService name"
        lines = [f"# HELP {gauge} [ALPHA] Gauge of {text}.", f"# TYPE {gauge} gauge"]
        for entry in self._services.shelf(API_SERVICES).within():
            lines.append(f'{gauge}{{name="{entry.key}"}} {int(not apiservices.is_available(entry.obj))}')
        lines += [f"# HELP {counter} [ALPHA] Counter of {text} and reason.", f"# TYPE {counter} counter"]
        for (name, reason), count in self._unavailable.items():
            lines.append(f'{counter}{{name="{name}",reason="{reason}"}} {count}')
        return lines


def _differs(service: Obj, found: Availability) -> bool:
    row = condition(service, apiservices.AVAILABLE) or {}
    return (row.get("status"), row.get("reason"), row.get("message")) != (found.status, found.reason, found.message)
