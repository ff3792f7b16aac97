"""What clients and watchers of a simulated store saw, and whether it keeps every promise that the store makes.

The changes in order of revision, as one watcher saw them from the first on, are the witness: every confirmed operation
must fit it exactly, unconfirmed ones must appear in it once or never, and every other watcher must have seen the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.sim.linearizable import Action, Moment, Verdict, judge

from steersman.cluster.store.rules import contains
from steersman.cluster.store.values import KeyValue, WatchBatch, WatchEvent

#: revision of a store in which nothing was written
FIRST_REVISION = 1


@dataclass(slots=True, kw_only=True)
class Operation(Action):
    """Args: revision: of the answer; found: the versions that a read found, where it looked at all of `seen`."""

    name: str
    revision: int = 0
    found: Sequence[KeyValue] | None = None

    @property
    def has_effect(self) -> bool:
        """Whether a confirmed operation changed something: to delete what is not there changes nothing."""
        return self.succeeded and any(
            value is not None or self.seen.get(key) is not None for key, value in self.writes.items()
        )


@dataclass(slots=True)
class Watched:
    """What one watch was shown.

    Args:
        start: the first revision it asked for.
    """

    key: bytes
    end: bytes
    start: int
    batches: list[WatchBatch] = field(default_factory=list)

    @property
    def next(self) -> int:
        """Where to resume."""
        return max([self.start, *(batch.revision + 1 for batch in self.batches)])

    def events(self) -> Iterator[WatchEvent]:
        return (event for batch in self.batches for event in batch.events)


@dataclass(slots=True)
class LeaseLife:
    """Args: keys: bound to it, perhaps; ends_after: it may not end before; ended: perhaps revoked from then on."""

    keys: dict[bytes, bytes]
    ends_after: Moment
    ended: Moment | None = None


class Broken(AssertionError):
    """A promise was broken."""


def _demand(condition: object, what: str) -> None:
    if not condition:
        raise Broken(what)


class Witness:
    """The changes in order of revision, and the states between them."""

    def __init__(self, watched: Watched) -> None:
        self.changes: list[tuple[WatchEvent, ...]] = []
        #: the state after each revision, from `FIRST_REVISION` on
        self.states: list[Mapping[bytes, KeyValue]] = [{}]
        rows: dict[int, list[WatchEvent]] = {}
        for event in watched.events():
            rows.setdefault(event.kv.mod_revision, []).append(event)
        _demand(
            list(rows) == list(range(FIRST_REVISION + 1, len(rows) + 2)),
            f"revisions are missing or out of order: {list(rows)}",
        )
        for events in rows.values():
            self._take(tuple(events))

    @property
    def revision(self) -> int:
        return FIRST_REVISION + len(self.changes)

    def state(self, revision: int) -> Mapping[bytes, KeyValue]:
        _demand(FIRST_REVISION <= revision <= self.revision, f"revision {revision} never was")
        return self.states[revision - FIRST_REVISION]

    def _take(self, events: tuple[WatchEvent, ...]) -> None:
        state = dict(self.states[-1])
        revision = self.revision + 1
        for event in events:
            kv, before = event.kv, state.get(event.kv.key)
            _demand(event.prev_kv == before, f"a wrong previous value in {event}, it was {before}")
            if event.deleted:
                _demand(before is not None, f"{kv.key!r} was deleted though it was not there")
                del state[kv.key]
            else:
                created, version = (before.create_revision, before.version + 1) if before else (revision, 1)
                _demand((kv.create_revision, kv.version) == (created, version), f"wrong revisions in {event}")
                state[kv.key] = kv
        self.changes.append(events)
        self.states.append(state)


def check(
    operations: Sequence[Operation],
    watches: Sequence[Watched],
    leases: Mapping[int, LeaseLife],
    past: Mapping[int, Sequence[KeyValue]],
) -> Witness:
    """Judges a whole story; the first of the watches saw everything from the first revision on.

    Raises:
        Broken: says which promise.
    """
    witness = Witness(watches[0])
    for watched in watches:
        _check_watch(watched, witness)
    _check_effects(operations, leases, witness)
    _check_answers(operations, witness)
    for revision, found in past.items():
        wanted = [kv for key, kv in sorted(witness.state(revision).items()) if key.startswith(b"/t/")]
        _demand(list(found) == wanted, f"revision {revision} was {wanted}, a later read of it found {found}")
    _check_order(operations)
    verdict, part = judge([*operations, *_ends(leases)])
    _demand(verdict is Verdict.LINEARIZABLE, f"the history is {verdict.value}: {part}")
    return witness


def _check_watch(watched: Watched, witness: Witness) -> None:
    """Ordered, unique, atomic, reliable, and every batch's revision is true: all up to it was shown.

    A member that is behind may report a progress that is behind, too.
    """
    shown, upto = 0, watched.start - 1
    events = list(watched.events())
    for batch in watched.batches:
        _demand(batch.revision <= witness.revision, f"a watch was told of revision {batch.revision}, which never was")
        wanted = [
            event
            for change in witness.changes[max(0, upto - FIRST_REVISION) : batch.revision - FIRST_REVISION]
            for event in change
            if contains(event.kv.key, watched.key, watched.end)
        ]
        got = events[shown : shown + len(batch.events)]
        _demand(
            got == wanted,
            f"a watch of {watched.key!r} was shown {got} between {upto} and {batch.revision}, not {wanted}",
        )
        shown, upto = shown + len(got), max(upto, batch.revision)


def _check_effects(operations: Sequence[Operation], leases: Mapping[int, LeaseLife], witness: Witness) -> None:
    """Every change has one cause, and every confirmed write one change."""
    confirmed = {op.revision: op for op in operations if op.returned and op.has_effect}
    by_value = {value: op for op in operations for value in op.writes.values() if value is not None}
    deletes = [op for op in operations if not op.returned and None in op.writes.values()]
    leased = {key for life in leases.values() for key in life.keys}
    caused: set[int] = set()
    for offset, events in enumerate(witness.changes):
        revision = FIRST_REVISION + 1 + offset
        changed = {event.kv.key: None if event.deleted else event.kv.value for event in events}
        cause = next((by_value[value] for value in changed.values() if value in by_value), None)
        cause = cause or confirmed.get(revision)
        if cause is None and set(changed) <= leased:
            continue  # a lease ended; when it might is judged with the rest of the history
        if cause is None:
            cause = next((op for op in deletes if set(changed) <= set(op.writes) and id(op) not in caused), None)
        _demand(cause is not None, f"revision {revision} has no cause: {events}")
        assert cause is not None
        _demand(id(cause) not in caused, f"{cause.name} took effect twice, the second time as revision {revision}")
        caused.add(id(cause))
        before = witness.state(revision - 1)
        wanted = {key: value for key, value in cause.writes.items() if value is not None or key in before}
        _demand(changed == wanted, f"{cause.name} changed {changed} as revision {revision}, not {wanted}")
        _demand(
            not cause.returned or cause.revision == revision,
            f"{cause.name} was confirmed as {cause.revision}, not {revision}",
        )
        cause.revision = revision
    for op in operations:
        if op.returned and op.has_effect:
            _demand(id(op) in caused, f"the confirmed write {op.name} (revision {op.revision}) is lost")


def _check_answers(operations: Sequence[Operation], witness: Witness) -> None:
    """What was seen is the state at the revision of the answer, or just before the operation's own change."""
    for op in operations:
        if not op.returned:
            continue
        state = witness.state(op.revision - 1 if op.has_effect else op.revision)
        for key, value in op.seen.items():
            kv = state.get(key)
            _demand(
                (kv.value if kv else None) == value,
                f"{op.name} saw {key!r}={value!r} at revision {op.revision}, it was {kv}",
            )
        if op.found is not None:
            wanted = [state[key] for key in sorted(op.seen) if key in state]
            _demand(list(op.found) == wanted, f"{op.name} found {op.found} at revision {op.revision}, not {wanted}")


def _check_order(operations: Iterable[Operation]) -> None:
    """An operation called after another one's answer has a revision at least as high, a write a higher one."""
    known = [op for op in operations if op.revision]
    returns = sorted((op for op in known if op.returned), key=lambda op: op.returned or (0.0, 0))
    newest, position = FIRST_REVISION, 0
    for op in sorted(known, key=lambda op: op.called):
        while position < len(returns) and (returns[position].returned or (0.0, 0)) < op.called:
            newest = max(newest, returns[position].revision)
            position += 1
        least = newest + 1 if op.has_effect or not op.returned else newest
        _demand(op.revision >= least, f"{op.name} was answered at revision {op.revision} after another at {newest}")


def _ends(leases: Mapping[int, LeaseLife]) -> Iterator[Action]:
    """The end of a lease as operations that nobody confirms: each of its keys goes, not before it may."""
    for life in leases.values():
        begin = min(life.ends_after, life.ended or life.ends_after)
        for key, value in life.keys.items():
            yield Action(compare={key: value}, writes={key: None}, called=begin)
