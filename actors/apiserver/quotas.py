"""Charges writes to the quotas of their namespaces, in the transaction that stores them.

What they are charged is decided in `cluster/api/admission/quota`; here those of one namespace wait for their turn, as
otherwise each would find that the one before it has changed the quota.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from weakref import WeakValueDictionary

from steersman.actors.apiserver.cache import Shelf, WatchCache
from steersman.actors.apiserver.change import Change
from steersman.actors.apiserver.entry import encode
from steersman.cluster.api.admission.quota import Charge, settle
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import RESOURCE_QUOTAS
from steersman.cluster.store.values import Compare, CompareTarget, Put


class Quotas:
    """The quotas that the cache shows, and whose turn it is to be charged."""

    def __init__(self, cache: WatchCache, registry: Registry) -> None:
        self._cache = cache
        self._registry = registry
        kind = registry.kind(RESOURCE_QUOTAS.group, RESOURCE_QUOTAS.version, RESOURCE_QUOTAS.plural)
        if kind is None:
            raise LookupError("this version of Kubernetes has no ResourceQuotas")
        self._kind: Kind = kind
        #: by namespace; a lock lives as long as somebody holds or awaits it
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def _shelf(self) -> Shelf:
        return self._cache.shelf(self._kind.prefix())

    @property
    def exist(self) -> bool:
        return bool(self._shelf().entries)

    async def charged(self, changes: Sequence[Change], turns: list[asyncio.Lock]) -> list[Change]:
        """The changes of quotas that writes come to; those that are charged in one namespace take turns.

        Args:
            turns: those that are held already; grows.
        """
        quotas = self._shelf()
        own = {(change.obj["metadata"].get("namespace"), change.obj["metadata"]["name"])
               for change in changes if change.kind is self._kind}  # fmt: skip
        charges = [
            Charge(change.kind, change.before.obj if change.before else None, change.obj if change.value else None)
            for change in changes
            if change.operations and change.kind.resource.namespaced
        ]
        spaces = sorted({charge.namespace for charge in charges if quotas.within(charge.namespace)})
        if not spaces:
            return []
        if not turns:
            for space in spaces:
                turn = self._turns.setdefault(space, asyncio.Lock())
                await turn.acquire()
                turns.append(turn)
        entries = {
            (space, entry.obj["metadata"]["name"]): entry
            for space in spaces
            for entry in quotas.within(space)
            if (space, entry.obj["metadata"]["name"]) not in own
        }
        settled = settle(charges, [entry.obj for entry in entries.values()], self._stored)
        found = []
        for quota in settled:
            entry = entries[quota["metadata"]["namespace"], quota["metadata"]["name"]]
            key, value = self._kind.prefix().encode() + entry.key.encode(), encode(quota)
            found.append(
                Change(
                    kind=self._kind, obj=quota, value=value,
                    compare=(Compare(key=key, target=CompareTarget.MOD, operand=entry.revision),),
                    operations=(Put(key=key, value=value),), before=entry,
                )
            )  # fmt: skip
        return found

    def _stored(self, group: str, plural: str, namespace: str) -> Iterable[Obj]:
        for kind in self._registry.all():
            if kind.resource.group == group and kind.resource.plural == plural:
                return [entry.obj for entry in self._cache.shelf(kind.prefix()).within(namespace)]
        return ()
