"""The revisioned key-value state: applies commands in the order of the log, answers ranges, remembers recent changes.

Every change gets the next revision. The newest version of each live key lies in a sorted map; older ones are not kept
per key: the log of changes since the last compaction holds each change with the version before it, and a read of the
past starts from the present and undoes what came after. It knows no clock, no quorum and no client; two members that
apply the same commands hold equal states.

Source: https://etcd.io/docs/v3.5/learning/data_model/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from sortedcontainers import SortedDict

from steersman.cluster.store.commands import Alarm, Command, Compact, LeaseGrant, LeaseRevoke, Name, grows
from steersman.cluster.store.rules import contains
from steersman.cluster.store.selection import keys_needed, select
from steersman.cluster.store.values import (
    Compacted,
    Compare,
    CompareOperator,
    CompareTarget,
    DeleteRange,
    DeleteResult,
    FutureRevision,
    InvalidRequest,
    KeyValue,
    LeaseExists,
    LeaseNotFound,
    NoSpace,
    Put,
    PutResult,
    Range,
    RangeResult,
    Txn,
    TxnResult,
    WatchEvent,
)

#: what one transaction changed
Change = tuple[WatchEvent, ...]
Results = tuple[RangeResult | PutResult | DeleteResult | TxnResult, ...]
#: the revision of a store in which nothing was ever written
FIRST_REVISION = 1


class Mvcc:
    """The state of the store.

    Attributes:
        revision: of the newest change.
        compacted: the oldest revision that can be read or watched; 0 while all can.
        size_bytes: keys and values of the live versions.
        alarms: members whose disks are full.
        names: member id to name, of those that have told it.
    """

    def __init__(self) -> None:
        self.revision = FIRST_REVISION
        self.compacted = 0
        self.size_bytes = 0
        self.alarms: frozenset[int] = frozenset()
        self.names: dict[int, str] = {}
        self._live: Any = SortedDict()
        #: the changes of revisions `_log_start ..= revision`, one item a revision, none missing
        self._log: list[Change] = []
        self._log_start = FIRST_REVISION + 1
        self._listeners: list[Callable[[KeyValue], None]] = []
        #: lease id to (ttl in seconds, keys bound to it in order of binding)
        self._leases: dict[int, tuple[int, dict[bytes, None]]] = {}

    @property
    def keys(self) -> int:
        """How many keys live."""
        return len(self._live)

    @property
    def newest(self) -> Change:
        """The change of the newest revision, which must be remembered."""
        return self._log[-1]

    # reading

    def range(self, request: Range, pending: Sequence[WatchEvent] = ()) -> RangeResult:
        """Answers a range.

        Args:
            pending: what the transaction that asks has changed so far; a revision that is named is read without it.

        Raises:
            Compacted: the revision asked for is gone.
            FutureRevision: it has not been reached.
        """
        self._check_revision(request.revision)
        selection, limit = request.selection, request.limit
        looked_at = limit if selection is None else keys_needed(selection, limit)
        if 0 < request.revision < self.revision or (request.revision and pending):
            found, count = self._range_past(request, looked_at, pending)
        elif not request.range_end:
            kv = self._live.get(request.key)
            found, count = ([], 0) if kv is None else ([kv], 1)
        else:
            found, count = self._range_live(request, looked_at)
        revision = self.revision + 1 if pending else self.revision
        if request.count_only:
            return RangeResult(kvs=(), count=count, more=False, revision=revision)
        more = len(found) < count
        if selection is not None:
            found, more = select(selection, found, limit)
        kvs = tuple(_without_value(kv) for kv in found) if request.keys_only else tuple(found)
        return RangeResult(kvs=kvs, count=count, more=more, revision=revision)

    def _check_revision(self, revision: int) -> None:
        if revision > self.revision:
            raise FutureRevision(f"required revision {revision} is a future revision; the store is at {self.revision}")
        if 0 < revision < self.compacted:
            raise Compacted(self.compacted)

    def _keys(self, start: bytes, end: bytes) -> Iterator[bytes]:
        if not end:
            return iter((start,) if start in self._live else ())
        keys: Iterator[bytes] = self._live.irange(start, None if end == b"\0" else end, (True, False))
        return keys

    def _count(self, start: bytes, end: bytes) -> int:
        stop = len(self._live) if end == b"\0" else self._live.bisect_left(end)
        return max(0, int(stop - self._live.bisect_left(start)))

    def _range_live(self, request: Range, limit: int) -> tuple[list[KeyValue], int]:
        start, end, live = request.key, request.range_end, self._live
        if request.count_only:
            return [], self._count(start, end)
        keys = self._keys(start, end)
        if not limit:
            found = [live[key] for key in keys]
            return found, len(found)
        found = [live[key] for key in islice(keys, limit)]
        return found, len(found) if len(found) < limit else self._count(start, end)

    def _range_past(self, request: Range, limit: int, pending: Sequence[WatchEvent]) -> tuple[list[KeyValue], int]:
        start, end = request.key, request.range_end
        undone: dict[bytes, KeyValue | None] = {}
        for change in (*self._log[request.revision + 1 - self._log_start :], pending):
            for event in change:
                if contains(event.kv.key, start, end):
                    undone.setdefault(event.kv.key, event.prev_kv)
        versions: dict[bytes, KeyValue | None] = {key: self._live[key] for key in self._keys(start, end)}
        versions.update(undone)
        found = [kv for _, kv in sorted(versions.items()) if kv is not None]
        return found[: limit or None], len(found)

    # the past, for watches

    def changes(self, start_revision: int, revisions_max: int) -> tuple[int, list[Change]]:
        """Returns the changes of at most `revisions_max` revisions from `start_revision` on, and the next revision.

        Raises:
            Compacted: `start_revision` is gone.
        """
        first = max(start_revision, FIRST_REVISION + 1)
        if first < self._log_start:
            raise Compacted(self._log_start)
        offset = first - self._log_start
        found = self._log[offset : offset + revisions_max]
        return first + len(found), found

    # leases

    def lease_ttl_s(self, lease: int) -> int:
        """Returns the granted time to live.

        Raises:
            LeaseNotFound: there is no such lease.
        """
        row = self._leases.get(lease)
        if row is None:
            raise LeaseNotFound("requested lease not found")
        return row[0]

    def lease_keys(self, lease: int) -> list[bytes]:
        """Returns the keys bound to a lease, in order.

        Raises:
            LeaseNotFound: there is no such lease.
        """
        self.lease_ttl_s(lease)
        return sorted(self._leases[lease][1])

    def leases(self) -> list[tuple[int, int]]:
        """Returns (id, time to live in seconds) of every lease, by id."""
        return sorted((lease, ttl_s) for lease, (ttl_s, _) in self._leases.items())

    # writing

    def apply(self, command: Command) -> TxnResult | int:
        """Applies one command of the log; nothing is changed when it raises.

        Returns: the result of a transaction; for every other command the revision after it.

        Raises:
            StoreError: the command is refused, the same on every member.
        """
        if self.alarms and grows(command):
            raise NoSpace(f"the disk of store member {min(self.alarms)} is full: writes are refused until it has space")
        match command:
            case Txn():
                return self._apply_txn(command)
            case Compact(revision=revision):
                self._compact(revision)
            case LeaseGrant(lease=lease, ttl_s=ttl_s):
                if lease in self._leases:
                    raise LeaseExists("lease already exists")
                self._leases[lease] = (ttl_s, {})
            case LeaseRevoke(lease=lease):
                self._revoke(lease)
            case Alarm(member=member, raised=raised):
                self.alarms = self.alarms | {member} if raised else self.alarms - {member}
            case Name(member=member, name=name):
                others = {other: known for other, known in self.names.items() if other != member}
                self.names = others | ({member: name} if name else {})
        return self.revision

    def _apply_txn(self, txn: Txn) -> TxnResult:
        chosen = self._decide(txn)
        self._check_chosen(chosen)
        events: list[WatchEvent] = []
        result = self._execute(chosen, events)
        self._record(events)
        return result

    def _decide(self, txn: Txn) -> _Chosen:
        """Which branch runs, at every depth; comparisons see the state before the transaction."""
        succeeded = all(self._holds(compare) for compare in txn.compare)
        branch = txn.success if succeeded else txn.failure
        return _Chosen(succeeded, [self._decide(op) if isinstance(op, Txn) else op for op in branch])

    def _check_chosen(self, chosen: _Chosen) -> None:
        operations = list(_flat(chosen))
        for operation in operations:
            if isinstance(operation, Put):
                self._check_put(operation)
        for operation in operations:
            if isinstance(operation, Range):
                if operation.revision < 0:
                    raise Compacted(self.compacted)
                self._check_revision(operation.revision)

    def _check_put(self, put: Put) -> None:
        if (put.keep_value or put.keep_lease) and put.key not in self._live:
            raise InvalidRequest("key not found")
        if put.lease and put.lease not in self._leases:
            raise LeaseNotFound("requested lease not found")

    def _execute(self, chosen: _Chosen, events: list[WatchEvent]) -> TxnResult:
        results: list[RangeResult | PutResult | DeleteResult | TxnResult] = []
        for operation in chosen.operations:
            match operation:
                case Put():
                    results.append(self._put(operation, events))
                case DeleteRange():
                    results.append(self._delete(operation, events))
                case Range():
                    results.append(self.range(operation, events))
                case _Chosen():
                    results.append(self._execute(operation, events))
        revision = self.revision + 1 if events else self.revision
        return TxnResult(revision=revision, succeeded=chosen.succeeded, results=tuple(results))

    def _put(self, put: Put, events: list[WatchEvent]) -> PutResult:
        key, revision, lease = put.key, self.revision + 1, put.lease
        old: KeyValue | None = self._live.get(key)
        if old is None:
            kv = KeyValue(key, put.value, revision, revision, 1, lease)
            self.size_bytes += len(key) + len(put.value)
        else:
            value = old.value if put.keep_value else put.value
            lease = old.lease if put.keep_lease else lease
            # the key of the old version is kept: equal bytes are not held twice
            kv = KeyValue(old.key, value, old.create_revision, revision, old.version + 1, lease)
            self.size_bytes += len(value) - len(old.value)
            if old.lease and old.lease != lease:
                self._unbind(old)
            if self._listeners:
                self._tell(old)
        if lease:
            self._leases[lease][1][kv.key] = None
        self._live[kv.key] = kv
        events.append(WatchEvent(False, kv, old))
        return PutResult(revision=revision, prev_kv=old if put.prev_kv else None)

    def _delete(self, request: DeleteRange, events: list[WatchEvent]) -> DeleteResult:
        keys = list(self._keys(request.key, request.range_end))
        deleted = tuple(self._remove(key, events) for key in keys)
        revision = self.revision + 1 if events else self.revision
        return DeleteResult(revision=revision, deleted=len(keys), prev_kvs=deleted if request.prev_kv else ())

    def _remove(self, key: bytes, events: list[WatchEvent]) -> KeyValue:
        old: KeyValue = self._live.pop(key)
        self.size_bytes -= len(old.key) + len(old.value)
        if old.lease:
            self._unbind(old)
        if self._listeners:
            self._tell(old)
        events.append(WatchEvent(True, KeyValue(old.key, b"", 0, self.revision + 1, 0), old))
        return old

    def _unbind(self, kv: KeyValue) -> None:
        row = self._leases.get(kv.lease)
        if row is not None:
            row[1].pop(kv.key, None)

    def _revoke(self, lease: int) -> None:
        keys = self.lease_keys(lease)
        events: list[WatchEvent] = []
        for key in keys:
            self._remove(key, events)
        del self._leases[lease]
        self._record(events)

    def _record(self, events: list[WatchEvent]) -> None:
        if events:
            self.revision += 1
            self._log.append(tuple(events))

    def _compact(self, revision: int) -> None:
        if revision > self.revision:
            raise FutureRevision(f"required revision {revision} is a future revision; the store is at {self.revision}")
        if revision <= self.compacted:
            raise Compacted(self.compacted)
        self.compacted = revision
        if revision > self._log_start:
            del self._log[: revision - self._log_start]
            self._log_start = revision

    def _holds(self, compare: Compare) -> bool:
        """A range without keys is compared like a key that does not exist, as in etcd."""
        keys = list(self._keys(compare.key, compare.range_end))
        return all(_compare(compare, self._live[key]) for key in keys) if keys else _compare(compare, None)

    # whole states

    def history(self) -> tuple[int, list[Change]]:
        """Returns the revision of the oldest remembered change and every remembered change, one item a revision."""
        return self._log_start, list(self._log)

    def live(self) -> list[KeyValue]:
        """Returns the newest version of every key, in order of keys."""
        return list(self._live.values())

    def live_after(self, key: bytes, count: int) -> list[KeyValue]:
        """Returns the newest versions of so many keys that follow a key."""
        live = self._live
        return [live[each] for each in islice(live.irange(key, None, (False, True)), count)]

    def tell_replaced(self, listener: Callable[[KeyValue], None]) -> Callable[[], None]:
        """Calls the listener with each version that a change is about to replace or delete; returns how to end that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _tell(self, old: KeyValue) -> None:
        for listener in self._listeners:
            listener(old)

    @classmethod
    def restored(
        cls,
        *,
        compacted: int,
        log_start: int,
        base: list[KeyValue],
        log: list[Change],
        leases: list[tuple[int, int]],
        alarms: frozenset[int] = frozenset(),
        names: dict[int, str] | None = None,
    ) -> Mvcc:
        """Returns the state made of a base, the changes after it, and the leases (id, time to live in seconds)."""
        state = cls()
        state.compacted, state._log_start, state._log, state.alarms = compacted, log_start, log, alarms
        state.names = names or {}
        state.revision = log_start - 1 + len(log)
        live = {kv.key: kv for kv in base}
        for change in log:
            for event in change:
                if event.deleted:
                    live.pop(event.kv.key, None)
                else:
                    live[event.kv.key] = event.kv
        state._live = SortedDict(live)
        state._leases = {lease: (ttl_s, {}) for lease, ttl_s in leases}
        size_bytes = 0
        for key, kv in live.items():
            size_bytes += len(key) + len(kv.value)
            if kv.lease:
                state._leases[kv.lease][1][key] = None
        state.size_bytes = size_bytes
        return state


class _Chosen:
    """A transaction of which the branches to run are known."""

    __slots__ = ("operations", "succeeded")

    def __init__(self, succeeded: bool, operations: list[Range | Put | DeleteRange | _Chosen]) -> None:
        self.succeeded = succeeded
        self.operations = operations


def _flat(chosen: _Chosen) -> Iterator[Range | Put | DeleteRange]:
    """Yields every operation that will run, at every depth, in their order."""
    for operation in chosen.operations:
        if isinstance(operation, _Chosen):
            yield from _flat(operation)
        else:
            yield operation


def _without_value(kv: KeyValue) -> KeyValue:
    return KeyValue(kv.key, b"", kv.create_revision, kv.mod_revision, kv.version, kv.lease)


def _compare(compare: Compare, kv: KeyValue | None) -> bool:
    """Whether a comparison holds for one key; the value of a missing key equals nothing, as in etcd."""
    if compare.target is CompareTarget.VALUE:
        if kv is None:
            return False
        wanted = compare.operand if isinstance(compare.operand, bytes) else b""
        return _ordered(compare.operator, kv.value, wanted)
    found = 0
    if kv is not None:
        match compare.target:
            case CompareTarget.VERSION:
                found = kv.version
            case CompareTarget.CREATE:
                found = kv.create_revision
            case CompareTarget.MOD:
                found = kv.mod_revision
            case CompareTarget.LEASE:
                found = kv.lease
    return _ordered(compare.operator, found, compare.operand)


def _ordered(operator: CompareOperator, left: Any, right: Any) -> bool:
    match operator:
        case CompareOperator.EQUAL:
            return bool(left == right)
        case CompareOperator.GREATER:
            return bool(left > right)
        case CompareOperator.LESS:
            return bool(left < right)
        case CompareOperator.NOT_EQUAL:
            return bool(left != right)
