"""Charges writes to the quotas of their namespaces, in the transaction that stores them.

What they are charged is decided in `cluster/api/admission/quota`. Those that come together do not wait for one another:
each is charged to what a quota will be once the ones before it are stored, and its transaction holds only if that is
what the quota then is. So they go to the store together, each with a revision of its own; when one fails, so do those
that were charged after it, and all of them are decided anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from msgspec import structs

from steersman.actors.apiserver.cache import Shelf, WatchCache
from steersman.actors.apiserver.change import Change
from steersman.actors.apiserver.entry import Entry, encode
from steersman.cluster.api.admission.plugins import is_on
from steersman.cluster.api.admission.quota import Charge, begun, settle
from steersman.cluster.api.context import ApiSettings
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import RESOURCE_QUOTAS
from steersman.cluster.store.values import Compare, CompareTarget, Put


@dataclass(slots=True)
class _Chain:
    """A quota as it is once everything that was charged to it is stored.

    Args:
        compare: holds if that is so.
        revision: of the quota then; 0 while the last charge is under way.
        last: resolved with whether the last charge was stored.
        line: the same for all charges that build on one another.
    """

    obj: Obj
    compare: Compare
    last: asyncio.Future[bool]
    line: object
    revision: int = 0


class Charges:
    """What one transaction charges: the changes of quotas that it makes."""

    def __init__(self, changes: Sequence[Change] = (), chains: Sequence[tuple[bytes, _Chain]] = ()) -> None:
        self.changes = changes
        self.chains = chains


class Quotas:
    """The quotas that the cache shows, and what is being charged to them.

    Args:
        seals: whether the value of a key is encrypted in the store, so that it cannot be compared there.
        settings: whether quotas count at all, and what nobody may use without one.
    """

    def __init__(
        self, cache: WatchCache, registry: Registry, seals: Callable[[bytes], bool], settings: ApiSettings
    ) -> None:
        self._cache = cache
        self._registry = registry
        self._seals = seals
        self._counts = is_on("ResourceQuota", settings)
        self._limited = settings.admission.limited
        kind = registry.kind(RESOURCE_QUOTAS.group, RESOURCE_QUOTAS.version, RESOURCE_QUOTAS.plural)
        if kind is None:
            raise LookupError("this version of Kubernetes has no ResourceQuotas")
        self._kind: Kind = kind
        #: by store key, of quotas that the cache does not show yet as they were charged
        self._chains: dict[bytes, _Chain] = {}
        #: by namespace: held by those who write a quota itself and were overtaken; lives as long as somebody has it
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def _shelf(self) -> Shelf:
        return self._cache.shelf(self._kind.prefix())

    @property
    def exist(self) -> bool:
        """Whether there are any that writes have to be charged to, or must not go without."""
        return self._counts and (bool(self._shelf().entries) or bool(self._limited))

    # ---- charging

    def begun(self, changes: Sequence[Change]) -> list[Change]:
        """The changes, where quotas are written with the counts that begin with that."""
        return [
            self._begun(change) if change.kind is self._kind and change.operations else change for change in changes
        ]

    def _begun(self, change: Change) -> Change:
        quota = begun(change.obj, self._stored)
        if quota is change.obj or change.value is None:
            return change
        key, value = self._kind.key(quota["metadata"]["namespace"], quota["metadata"]["name"]).encode(), encode(quota)
        kept = tuple(row for row in change.operations if not (isinstance(row, Put) and row.key == key))
        return structs.replace(change, obj=quota, value=value, operations=(Put(key=key, value=value), *kept))

    async def charge(self, changes: Sequence[Change], turns: Sequence[asyncio.Lock]) -> Charges | None:
        """What writes charge to quotas; to be given to `sent` before anybody else is let run.

        Args:
            turns: those that the caller holds.

        Returns:
            None when it has to be decided anew: what was charged before was not stored.

        Raises:
            Forbidden: a quota does not allow it, whatever becomes of the charges under way.
        """
        quotas = self._shelf()
        own = {change.operations[0].key for change in changes if change.kind is self._kind and change.operations}
        charges = [
            Charge(change.kind, change.before.obj if change.before else None, change.obj if change.value else None)
            for change in changes
            if change.operations and change.kind.resource.namespaced
        ]
        found = {charge.namespace for charge in charges}
        spaces = sorted(space for space in found if self._limited or quotas.within(space))
        if not spaces:
            return Charges()
        await self._let_pass(spaces, turns)
        prefix = self._kind.prefix().encode()
        entries = {prefix + entry.key.encode(): entry for space in spaces for entry in quotas.within(space)}
        entries = {key: entry for key, entry in entries.items() if key not in own}
        while busy := [key for key in entries if self._seals(key) and self._is_under_way(key)]:
            await asyncio.wait([self._chains[busy[0]].last])
        now = self._cache.revision
        self._chains = {key: chain for key, chain in self._chains.items() if not 0 < chain.revision <= now}
        ground = {key: self._ground(key, entry) for key, entry in entries.items()}
        under_way = [self._chains[key].last for key in entries if self._is_under_way(key)]
        try:
            settled = settle(charges, [obj for obj, _ in ground.values()], self._stored, self._limited)
        except Exception:
            if under_way:
                await asyncio.wait(under_way)
                if not all(last.result() for last in under_way):
                    return None
            raise
        return self._charges(settled, ground, entries)

    def _charges(
        self, settled: Sequence[Obj], ground: dict[bytes, tuple[Obj, Compare]], entries: dict[bytes, Entry]
    ) -> Charges:
        loop = asyncio.get_running_loop()
        changes, chains = [], []
        for quota in settled:
            key = self._kind.key(quota["metadata"]["namespace"], quota["metadata"]["name"]).encode()
            value = encode(quota)
            changes.append(
                Change(
                    kind=self._kind, obj=quota, value=value, compare=(ground[key][1],),
                    operations=(Put(key=key, value=value),), before=entries[key],
                )
            )  # fmt: skip
            same = Compare(key=key, target=CompareTarget.VALUE, operand=value)
            former = self._chains.get(key)
            chains.append((key, _Chain(quota, same, loop.create_future(), former.line if former else object())))
        return Charges(changes, chains)

    def _is_under_way(self, key: bytes) -> bool:
        chain = self._chains.get(key)
        return chain is not None and not chain.revision

    def _ground(self, key: bytes, entry: Entry) -> tuple[Obj, Compare]:
        """A quota to be charged next, and what holds if that is still so."""
        chain = self._chains.get(key)
        if chain is not None:
            return chain.obj, chain.compare
        return entry.obj, Compare(key=key, target=CompareTarget.MOD, operand=entry.revision)

    def sent(self, charges: Charges) -> None:
        """The transaction of these charges goes to the store now; what is charged next builds on them."""
        self._chains.update(charges.chains)

    def ended(self, charges: Charges, revision: int) -> None:
        """What became of their transaction.

        Args:
            revision: of the store; 0 when they are not stored, or perhaps not.
        """
        for key, chain in charges.chains:
            newest = self._chains.get(key)
            if revision:
                chain.revision = revision
                chain.compare = Compare(key=key, target=CompareTarget.MOD, operand=revision)
            elif newest is not None and newest.line is chain.line:
                del self._chains[key]
            if not chain.last.done():
                chain.last.set_result(bool(revision))

    # ---- writes of quotas themselves

    async def _let_pass(self, spaces: Sequence[str], turns: Sequence[asyncio.Lock]) -> None:
        for space in spaces:
            turn = self._turns.get(space)
            if turn is not None and turn not in turns:
                async with turn:
                    pass

    async def hold(self, changes: Sequence[Change], turns: list[asyncio.Lock]) -> None:
        """Keeps others from charging the quotas that are written here until the caller has released the turns.

        Args:
            turns: those that are held already; grows.
        """
        spaces = sorted({change.obj["metadata"]["namespace"] for change in changes if change.kind is self._kind})
        if turns or not spaces:
            return
        for space in spaces:
            turn = self._turns.setdefault(space, asyncio.Lock())
            await turn.acquire()
            turns.append(turn)
        under_way = [chain.last for chain in self._chains.values() if not chain.revision]
        if under_way:
            await asyncio.wait(under_way)
        await self._cache.fresh()

    def _stored(self, group: str, plural: str, namespace: str) -> Iterable[Obj]:
        for kind in self._registry.all():
            if kind.resource.group == group and kind.resource.plural == plural:
                return [entry.obj for entry in self._cache.shelf(kind.prefix()).within(namespace)]
        return ()
