"""Writes: runs the pipeline of `cluster/api` on what the cache shows, and commits its outcome with preconditions.

A write is decided on cached state and committed in one store transaction that holds only if that state is still the
newest; when it is not, the cache catches up and the write is decided again. A refusal counts only when it was decided
on state no older than the request, so does a write that changes nothing, and nobody outside (a webhook) is asked about
an older one, nor is anything decided at length. Several writes can be committed together, all or nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import orjson
from msgspec.structs import replace

from steersman.actors.apiserver.aside import aside, at_home
from steersman.actors.apiserver.cache import WatchCache
from steersman.actors.apiserver.call import Call
from steersman.actors.apiserver.change import Change, Outcome
from steersman.actors.apiserver.entry import Entry, encode
from steersman.actors.apiserver.forms import prefix_of
from steersman.actors.apiserver.quotas import Charges, Quotas
from steersman.actors.apiserver.webhooks import Webhooks
from steersman.actors.ports import Now, Store, User
from steersman.cluster.api import write as pipeline
from steersman.cluster.api.admission.attempt import DELETE, Attempt
from steersman.cluster.api.cel import Decision, Question
from steersman.cluster.api.context import ApiSettings, Deletion, WriteContext, Written
from steersman.cluster.api.eviction import evict as pipeline_evict
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.api.steps import TAKES_LONG, HookCall, HookReply, Steps
from steersman.cluster.meta import errors
from steersman.cluster.meta.errors import ApiError
from steersman.cluster.meta.names import SAFE_ALPHABET
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import Resource
from steersman.cluster.store.values import Compare, CompareTarget, DeleteRange, Put, Range, Txn, TxnResult

#: for how long a write is decided anew because its ground moves, as Kubernetes does
DECIDE_S_MAX = 34.0
#: how many names are made up for an object before its client is told to try again; Kubernetes' number
NAMES_MAX = 8

#: groups whose objects this server itself works by: their writes are answered once this server shows them
_OWN_GROUPS = frozenset(
    {
        "rbac.authorization.k8s.io", "apiextensions.k8s.io", "admissionregistration.k8s.io",
        "flowcontrol.apiserver.k8s.io",
    }
)  # fmt: skip
_OWN_KINDS = frozenset(
    {
        "IngressClass", "LimitRange", "Namespace", "PriorityClass", "ResourceQuota", "RuntimeClass", "ServiceAccount",
        "StorageClass",
    }
)  # fmt: skip


#: the bits of a version 4 UUID that are drawn, and those that are fixed
_UUID_RANDOM, _UUID_MARKS = ~(0xF << 76) & ~(0x3 << 62), 0x4 << 76 | 0x2 << 62


class Operation(Protocol):
    """A write as a decision that can be made again on fresher state."""

    def __call__(self) -> Steps[Change]:
        """Raises ApiError when it is refused."""
        ...


class _Stale(Exception):
    """The cache has moved on before somebody outside was to be asked."""


@dataclass(slots=True)
class _Ground:
    """The state a decision stands on. Args: verified: it is no older than the request."""

    revision: int
    verified: bool


T = TypeVar("T")


#: what the other writes of the transaction being decided come to, by store key; None where one removes
_beside: ContextVar[dict[str, Obj | None]] = ContextVar("beside")
_NOTHING: dict[str, Obj | None] = {}

#: a last look at an object before it is stored, and at what it was; raises ApiError
Check = Callable[[Kind, Obj, Entry | None], None]


def _accept(_kind: Kind, _obj: Obj, _old: Entry | None) -> None:
    return None


def _never(_key: bytes) -> bool:
    return False


class Writer:
    """Carries writes out.

    Args:
        is_stale: whether the value of a key is to be stored anew even by a write that changes nothing.
        seals: whether the value of a key is encrypted in the store.
    """

    def __init__(
        self,
        store: Store,
        cache: WatchCache,
        registry: Registry,
        webhooks: Webhooks,
        authorize: Callable[[User, Question], Decision],
        settings: ApiSettings,
        now: Now,
        rng: random.Random,
        is_stale: Callable[[bytes], bool] = _never,
        seals: Callable[[bytes], bool] = _never,
    ) -> None:
        self._store = store
        self._cache = cache
        self._registry = registry
        self._webhooks = webhooks
        self._authorize = authorize
        self._settings = settings
        self._now = now
        self._rng = rng
        self._is_stale = is_stale
        self._quotas = Quotas(cache, registry, seals, settings)

    # ---- what the pipeline may ask

    def context(
        self,
        user: User,
        field_manager: str,
        field_validation: str = "Warn",
        *,
        dry_run: bool = False,
        call: Call | None = None,
    ) -> WriteContext:
        """What a write depends on.

        Args:
            call: the request, which is told the warnings and annotations of the write; None of a write that the server
                makes by itself, about which nobody is asked: a webhook must not keep it from starting.
        """
        told: dict[str, Any] = {} if call is None else call.told()
        return WriteContext(
            now=self._now(),
            new_uid=self.new_uid,
            random_suffix=self.random_suffix,
            user=user.name,
            groups=user.groups,
            user_uid=user.uid,
            user_extra=user.extra,
            dry_run=dry_run,
            hooks=None if call is None else self._webhooks.hooks(),
            authorize=partial(at_home, self._authorize, user),
            field_manager=field_manager,
            field_validation=field_validation,
            lookup=self.lookup,
            list=partial(at_home, self.objects),
            settings=self._settings,
            by_kind=self._registry.by_kind,
            **told,
        )

    def new_uid(self) -> str:
        digits = f"{self._rng.getrandbits(128) & _UUID_RANDOM | _UUID_MARKS:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def random_suffix(self) -> str:
        return "".join(self._rng.choices(SAFE_ALPHABET, k=5))

    def lookup(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        kind = self._registry.kind(resource.group, resource.version, resource.plural)
        if kind is None:
            return None
        key = f"{namespace}/{name}" if resource.namespaced else name
        beside = _beside.get(_NOTHING)
        if beside and kind.prefix() + key in beside:
            return beside[kind.prefix() + key]
        entry = self._cache.shelf(kind.prefix()).get(key)
        return None if entry is None else entry.obj

    def objects(self, resource: Resource, namespace: str | None) -> Iterable[Obj]:
        kind = self._registry.kind(resource.group, resource.version, resource.plural)
        if kind is None:
            return ()
        entries = self._cache.shelf(kind.prefix()).within(namespace or "")
        beside = _beside.get(_NOTHING)
        if not beside:
            return [entry.obj for entry in entries]
        base = kind.prefix(namespace or "")
        others = [obj for key, obj in beside.items() if obj is not None and key.startswith(base)]
        return [entry.obj for entry in entries if kind.prefix() + entry.key not in beside] + others

    def current(self, kind: Kind, namespace: str, name: str) -> tuple[Entry, Obj]:
        """Returns the cached entry and an own copy of its object in the kind's version; raises NotFound."""
        entry = self._cache.shelf(kind.prefix()).get(f"{namespace}/{name}" if kind.resource.namespaced else name)
        if entry is None:
            raise errors.not_found(kind.resource.plural, name, kind.resource.group)
        return entry, orjson.loads(entry.body(kind, prefix_of(kind)))

    def _current(self, kind: Kind, namespace: str, name: str) -> Steps[tuple[Entry, Obj]]:
        """As `current`, for a kind that a webhook may have to convert."""
        entry = self._cache.shelf(kind.prefix()).get(f"{namespace}/{name}" if kind.resource.namespaced else name)
        if entry is not None and len(entry.raw) > pipeline.LARGE_BYTES:
            yield TAKES_LONG
        if entry is not None and kind.converter is not None and entry.lacks(kind):
            stored = orjson.loads(entry.raw)
            entry.keep(kind, (yield from kind.converter.convert(stored, kind.api_version, self.new_uid())))
        return self.current(kind, namespace, name)

    def _value(self, kind: Kind, obj: Obj) -> Steps[bytes]:
        """The bytes of an object as it is stored."""
        if kind.converter is None or kind.converter.storage == kind.api_version:
            return encode(kind.stored(obj))
        return encode((yield from kind.converter.convert(obj, kind.converter.storage, self.new_uid())))

    # ---- the four writes, as decisions

    def create(
        self,
        kind: Kind,
        namespace: str,
        read: Callable[[], tuple[Obj, list[str]]],
        ctx: WriteContext,
        check: Check = _accept,
        *,
        takes_long: bool = False,
    ) -> Operation:
        """Args: read: gives the object anew for every try, with warnings; takes_long: what is read is large."""

        def decide() -> Steps[Change]:
            if takes_long:
                yield TAKES_LONG
            for _ in range(NAMES_MAX):
                obj, warnings = read()
                generates = not (obj.get("metadata") or {}).get("name")
                written = yield from pipeline.create(self._registry, kind, obj, ctx, namespace)
                try:
                    return (yield from self._created(kind, written, warnings, check))
                except errors.AlreadyExists as error:
                    if not generates:
                        raise
                    taken = error
            raise errors.generated_name_conflict(taken.kind, taken.name, taken.group)

        return decide

    def _created(self, kind: Kind, written: Written, warnings: Sequence[str], check: Check) -> Steps[Change]:
        obj = written.obj
        at_home(check, kind, obj, None)
        meta = obj["metadata"]
        namespace = meta.get("namespace", "")
        if self.lookup(kind.resource, namespace, meta["name"]) is not None:
            raise errors.already_exists(kind.resource.plural, meta["name"], kind.resource.group)
        key = kind.key(namespace, meta["name"]).encode()
        value = yield from self._value(kind, obj)
        puts = (Put(key=key, value=value), *(yield from self._reserved(key, written)))
        return Change(
            kind=kind,
            obj=obj,
            value=value,
            compare=tuple(Compare(key=put.key, target=CompareTarget.CREATE) for put in puts),
            operations=puts,
            status=201,
            warnings=(*warnings, *written.warnings),
        )

    def update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        subresource: str,
        read: Callable[[], tuple[Obj, list[str]]],
        ctx: WriteContext,
        check: Check = _accept,
        *,
        takes_long: bool = False,
    ) -> Operation:
        """Args: as of `create`."""

        def decide() -> Steps[Change]:
            if takes_long:
                yield TAKES_LONG
            new, warnings = read()
            try:
                entry, old = yield from self._current(kind, namespace, name)
            except errors.NotFound:
                pipeline.check_uid(kind, new, namespace, name, "")
                if not kind.create_on_update or subresource:
                    raise
                pipeline.check_name(new, name)
                written = yield from pipeline.create(self._registry, kind, new, ctx, namespace)
                return (yield from self._created(kind, written, warnings, check))
            written = yield from pipeline.update(self._registry, kind, new, old, subresource, ctx)
            return (yield from self._modified(kind, entry, written, warnings, check))

        return decide

    def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        subresource: str,
        patch_type: str,
        body: bytes,
        ctx: WriteContext,
        *,
        force: bool = False,
        check: Check = _accept,
    ) -> Operation:
        applies = patch_type.startswith("application/apply-patch")
        takes_long = pipeline.takes_long(body, patch_type)

        def decide() -> Steps[Change]:
            if takes_long:
                yield TAKES_LONG
            entry: Entry | None = None
            old: Obj | None = None
            try:
                entry, old = yield from self._current(kind, namespace, name)
            except errors.NotFound:
                if not applies or subresource:
                    raise
            written = yield from pipeline.patch(
                self._registry, kind, old, patch_type, body, subresource, ctx, force, namespace, name
            )
            if entry is None:
                return (yield from self._created(kind, written, (), check))
            return (yield from self._modified(kind, entry, written, (), check))

        return decide

    def transform(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        ctx: WriteContext,
        change: Callable[[Obj], Obj],
        subresource: str = "",
    ) -> Operation:
        """A write that the server makes itself: `change` gets an own copy of the object and returns the new one."""

        def decide() -> Steps[Change]:
            entry, old = yield from self._current(kind, namespace, name)
            new = change(orjson.loads(orjson.dumps(old)))
            written = yield from pipeline.update(self._registry, kind, new, old, subresource, ctx)
            return (yield from self._modified(kind, entry, written, (), _accept))

        return decide

    def decided(self, attempt: Attempt, ctx: WriteContext, make: Callable[[Obj, Obj], Written]) -> Operation:
        """A change of the object that a subresource stands for.

        Args:
            make: gets what was sent, as admission left it, and an own copy of the object.
        """
        kind = attempt.kind

        def decide() -> Steps[Change]:
            asked = attempt.again()
            yield from pipeline.admit(self._registry, asked, ctx)
            entry, old = yield from self._current(kind, attempt.namespace, attempt.name)
            return (yield from self._modified(kind, entry, make(asked.obj or {}, old), (), _accept))

        return decide

    def evict(self, attempt: Attempt, budgets: Kind, ctx: WriteContext) -> Operation:
        """A delete that takes one disruption off the pod's budget in the same transaction."""
        kind, namespace = attempt.kind, attempt.namespace

        def decide() -> Steps[Change]:
            asked = attempt.again()
            yield from pipeline.admit(self._registry, asked, ctx)
            entry, pod = self.current(kind, namespace, attempt.name)
            evicted = pipeline_evict(self._registry, pod, asked.obj or {}, ctx)
            change = yield from self._deleted(kind, entry, evicted.deletion)
            if evicted.budget is None:
                return change
            spent = self.current(budgets, namespace, evicted.budget["metadata"]["name"])[0]
            budget = yield from self._modified(budgets, spent, Written(obj=evicted.budget), (), _accept)
            return replace(
                change, compare=change.compare + budget.compare, operations=change.operations + budget.operations
            )

        return decide

    def _modified(
        self, kind: Kind, entry: Entry, written: Written, warnings: Sequence[str], check: Check
    ) -> Steps[Change]:
        obj = written.obj
        at_home(check, kind, obj, entry)
        warned = (*warnings, *written.warnings)
        key = kind.prefix().encode() + entry.key.encode()
        if not written.changed and not written.remove and not at_home(self._is_stale, key):
            value = yield from self._value(kind, obj)
            return Change(kind=kind, obj=obj, value=value, revision=entry.revision, warnings=warned)
        reserved = yield from self._reserved(key, written)
        compare = (
            Compare(key=key, target=CompareTarget.MOD, operand=entry.revision),
            *(Compare(key=put.key, target=CompareTarget.CREATE) for put in reserved),
        )
        released = tuple(DeleteRange(key=text.encode()) for text in written.releases)
        if written.remove:
            operations: tuple[Put | DeleteRange, ...] = (DeleteRange(key=key), *released)
            return Change(
                kind=kind, obj=obj, value=None, compare=compare, operations=operations, before=entry, warnings=warned
            )
        value = yield from self._value(kind, obj)
        puts = (Put(key=key, value=value), *reserved)
        return Change(
            kind=kind, obj=obj, value=value, compare=compare, operations=(*puts, *released), before=entry,
            warnings=warned,
        )  # fmt: skip

    def _reserved(self, key: bytes, written: Written) -> Steps[list[Put]]:
        """What is put beside an object: others that stand for what it holds, or its own key."""
        puts = []
        for place, obj in written.reservations.items():
            kind = None if obj is None else self._registry.by_kind(obj["apiVersion"], obj["kind"])
            value = key if kind is None or obj is None else (yield from self._value(kind, obj))
            puts.append(Put(key=place.encode(), value=value))
        return puts

    def delete(self, kind: Kind, namespace: str, name: str, options: Obj | None, ctx: WriteContext) -> Operation:
        def decide() -> Steps[Change]:
            entry, old = yield from self._current(kind, namespace, name)
            deletion = pipeline.delete(self._registry, kind, old, options, ctx)
            attempt = Attempt(
                operation=DELETE, kind=kind, namespace=namespace, name=name, old=old, options=options or {}
            )
            yield from pipeline.admit(self._registry, attempt, ctx)
            return (yield from self._deleted(kind, entry, deletion))

        return decide

    def _deleted(self, kind: Kind, entry: Entry, deletion: Deletion) -> Steps[Change]:
        obj, warnings = deletion.obj, deletion.warnings
        key = kind.prefix().encode() + entry.key.encode()
        compare = (Compare(key=key, target=CompareTarget.MOD, operand=entry.revision),)
        if deletion.remove:
            released = tuple(DeleteRange(key=text.encode()) for text in deletion.releases)
            return Change(
                kind=kind, obj=obj, value=None, compare=compare, operations=(DeleteRange(key=key), *released),
                before=entry, warnings=warnings, removed=True,
            )  # fmt: skip
        value = yield from self._value(kind, obj)
        if not deletion.changed:
            return Change(kind=kind, obj=obj, value=value, revision=entry.revision, warnings=warnings)
        return Change(
            kind=kind, obj=obj, value=value, compare=compare, operations=(Put(key=key, value=value),), before=entry,
            warnings=warnings,
        )  # fmt: skip

    # ---- committing

    async def run(self, operation: Operation, *, dry_run: bool = False) -> Outcome:
        """Decides and commits one write; raises ApiError or StoreError."""
        return (await self.run_all((operation,), dry_run=dry_run))[0]

    async def run_all(self, operations: Sequence[Operation], *, dry_run: bool = False) -> list[Outcome]:
        """Decides several writes and commits them in one transaction: all or none.

        Raises:
            ApiError: one is refused. ServerTimeout: the ground keeps moving. StoreError: the store does not answer.
        """
        turns: list[asyncio.Lock] = []
        try:
            return await self._run_all(operations, dry_run, turns)
        finally:
            for turn in turns:
                turn.release()

    async def _run_all(
        self, operations: Sequence[Operation], dry_run: bool, turns: list[asyncio.Lock]
    ) -> list[Outcome]:
        ground = _Ground(0, False)
        clock = asyncio.get_running_loop().time
        end = clock() + DECIDE_S_MAX
        while clock() < end:
            ground.revision = self._cache.revision
            try:
                changes = self._quotas.begun(await self._decide(operations, ground))
                charges = await self._quotas.charge(changes, turns) if self._quotas.exist else Charges()
                if charges is None:
                    continue
            except _Stale:
                continue
            except ApiError:
                if not await self._outdated(ground):
                    raise
                continue
            if dry_run or not any(change.operations for change in changes):
                if await self._outdated(ground):
                    continue
                return [Outcome(change=change, revision=_dry_revision(change)) for change in changes]
            result = await self._commit(changes, charges)
            if result.succeeded:
                if any(_is_own(change.kind) for change in changes):
                    await self._cache.reach(result.revision)
                return [
                    Outcome(change=change, revision=result.revision if change.operations else change.revision)
                    for change in changes
                ]
            ground.verified = True
            await self._cache.reach(result.revision)
            await self._quotas.hold(changes, turns)
        raise errors.out_of_time()

    async def _commit(self, changes: Sequence[Change], charges: Charges) -> TxnResult:
        revision = 0
        self._quotas.sent(charges)
        try:
            result = await self._store.txn(_transaction((*changes, *charges.changes)))
            revision = result.revision if result.succeeded else 0
            return result
        finally:
            self._quotas.ended(charges, revision)

    async def admit(self, attempt: Attempt, ctx: WriteContext) -> Obj | None:
        """Admits what writes nothing, as a connection; returns the object as admission left it, or raises ApiError."""
        asked = attempt.again()
        await self._carry(pipeline.admit(self._registry, asked, ctx), _Ground(self._cache.revision, True))
        return asked.obj

    async def _outdated(self, ground: _Ground) -> bool:
        """Whether a decision that writes nothing, be it a refusal, was made on older state than there is now."""
        if ground.verified:
            return False
        await self._verify(ground)
        return self._cache.revision != ground.revision

    async def _verify(self, ground: _Ground) -> None:
        await self._cache.fresh()
        ground.verified = True

    async def _decide(self, operations: Sequence[Operation], ground: _Ground) -> list[Change]:
        """Decides writes one after the other, each seeing what the ones before it come to."""
        if len(operations) == 1:
            return [await self._carry(operations[0](), ground)]
        changes = []
        beside: dict[str, Obj | None] = {}
        token = _beside.set(beside)
        try:
            for operation in operations:
                change = await self._carry(operation(), ground)
                meta = change.obj["metadata"]
                key = change.kind.key(meta.get("namespace", ""), meta["name"])
                if key in beside:
                    raise errors.BadRequest(
                        f"{change.kind.resource} {meta['name']} is written twice in one transaction"
                    )
                beside[key] = None if change.value is None else change.obj
                changes.append(change)
        finally:
            _beside.reset(token)
        return changes

    async def _carry(self, steps: Steps[T], ground: _Ground) -> T:
        """Takes a decision to its end, asking whom it wants to have asked."""
        replies: Sequence[HookReply] | None = None
        takes_long = False
        while True:
            calls, result = await aside(_step, steps, replies) if takes_long else _step(steps, replies)
            if calls is None:
                return result
            if not ground.verified:
                await self._verify(ground)
                if self._cache.revision != ground.revision:
                    raise _Stale
            if calls == TAKES_LONG:
                takes_long, replies = True, ()
            else:
                replies = await self._webhooks.ask(calls)


def _step(steps: Steps[T], replies: Sequence[HookReply] | None) -> tuple[tuple[HookCall, ...] | None, T]:
    """Takes a decision to its next calls, or (None) to its end and outcome."""
    try:
        return next(steps) if replies is None else steps.send(replies), cast(T, None)
    except StopIteration as done:
        return None, done.value


def _is_own(kind: Kind) -> bool:
    return kind.resource.group in _OWN_GROUPS or kind.resource.kind in _OWN_KINDS


def _dry_revision(change: Change) -> int:
    version: Any = change.obj["metadata"].get("resourceVersion", "")
    return change.revision or (int(version) if version else 0)


def _transaction(changes: Sequence[Change]) -> Txn:
    compare = tuple(row for change in changes for row in change.compare)
    return Txn(
        compare=compare,
        success=tuple(row for change in changes for row in change.operations),
        failure=(Range(key=compare[0].key, count_only=True),),
    )
