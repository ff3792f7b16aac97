"""Answers what of the components can be asked for: get and list of ComponentStatus, made anew each time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import orjson

from steersman.actors.apiserver.call import Call
from steersman.actors.apiserver.entry import Entry
from steersman.actors.apiserver.forms import JSON_HEADERS
from steersman.actors.apiserver.reads import Page, Reader, listed
from steersman.actors.apiserver.selection import read_selection
from steersman.actors.http.messages import Response
from steersman.actors.ports import Now
from steersman.cluster.api.components import BY_LEASE, component_status, fault_of
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.meta import errors
from steersman.cluster.meta.resources import LEASES

_LEASES_OF = "kube-system"


class Components:
    """Knows how the components are.

    Args:
        store: asks what is wrong with the store; empty where nothing is.
        beside: by status, what is wrong with a component that runs in this process; others are known by their leases.
    """

    def __init__(
        self,
        registry: Registry,
        reader: Reader,
        store: Callable[[], Awaitable[str]],
        beside: Mapping[str, Callable[[], str]],
        now: Now,
    ) -> None:
        self._registry = registry
        self._reader = reader
        self._store = store
        self._beside = beside
        self._now = now

    async def __call__(self, call: Call, kind: Kind) -> Response:
        """Answers a get or a list; raises NotFound."""
        form = self._reader.form(call, kind, "list" if call.attributes.verb == "list" else "object")
        selection = read_selection(call, kind)
        selects = selection.test()
        found = [entry for entry in await self._all() if selects is None or selects(entry)]
        if call.attributes.verb == "list":
            return await listed(form, Page(found, 0))
        if not found:
            raise errors.not_found(kind.resource.plural, call.attributes.name)
        return Response(200, JSON_HEADERS, form.one(found[0]))

    async def _all(self) -> list[Entry]:
        store = await self._store()
        if not store:
            await self._reader.fresh()
        faults = {"etcd-0": store, **{name: self._fault(name) for name in BY_LEASE}}
        statuses = (component_status(name, faults[name]) for name in sorted(faults))
        return [Entry(status["metadata"]["name"], 0, orjson.dumps(status)) for status in statuses]

    def _fault(self, name: str) -> str:
        if name in self._beside:
            return self._beside[name]()
        leases = self._registry.kind(LEASES.group, LEASES.version, LEASES.plural)
        assert leases is not None
        found = (entry.obj for entry in self._reader.shelf(leases).within(_LEASES_OF))
        return fault_of(BY_LEASE[name], found, self._now())
