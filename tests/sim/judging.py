"""Whether what clients and watchers of a simulated store saw keeps every promise that the store makes.

The changes in order of revision, as one watcher saw them from the first on, are the witness: every confirmed operation
must fit it exactly, unconfirmed ones must appear in it once or never, and every other watcher must have seen the same.
Beside that, operations must be linearizable by what they saw alone, whatever revisions they were told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tests.sim.history import FIRST_REVISION, LeaseLife, Operation, Watched, Witness, demand
from tests.sim.linearizable import Action, Verdict, judge
from tests.sim.watching import check_alone, check_watch

from steersman.cluster.store.values import KeyValue


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
    for watched in watches:
        check_alone(watched)
    witness = Witness(watches[0])
    for watched in watches:
        check_watch(watched, witness)
    _check_effects(operations, leases, witness)
    _check_answers(operations, witness)
    for revision, found in past.items():
        wanted = [kv for key, kv in sorted(witness.state(revision).items()) if key.startswith(b"/t/")]
        demand(list(found) == wanted, f"revision {revision} was {wanted}, a later read of it found {found}")
    _check_order(operations)
    verdict, part = judge([*operations, *_ends(leases)])
    demand(verdict is Verdict.LINEARIZABLE, f"the history is {verdict.value}: {part}")
    return witness


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
        demand(cause is not None, f"revision {revision} has no cause: {events}")
        assert cause is not None
        demand(id(cause) not in caused, f"{cause.name} took effect twice, the second time as revision {revision}")
        caused.add(id(cause))
        before = witness.state(revision - 1)
        wanted = {key: value for key, value in cause.writes.items() if value is not None or key in before}
        demand(changed == wanted, f"{cause.name} changed {changed} as revision {revision}, not {wanted}")
        demand(
            not cause.returned or cause.revision == revision,
            f"{cause.name} was confirmed as {cause.revision}, not {revision}",
        )
        cause.revision = revision
    for op in operations:
        if op.returned and op.has_effect:
            demand(id(op) in caused, f"the confirmed write {op.name} (revision {op.revision}) is lost")


def _check_answers(operations: Sequence[Operation], witness: Witness) -> None:
    """What was seen is the state at the revision of the answer, or just before the operation's own change."""
    for op in operations:
        if not op.returned:
            continue
        state = witness.state(op.revision - 1 if op.has_effect else op.revision)
        for key, value in op.seen.items():
            kv = state.get(key)
            demand(
                (kv.value if kv else None) == value,
                f"{op.name} saw {key!r}={value!r} at revision {op.revision}, it was {kv}",
            )
        if op.found is not None:
            wanted = [state[key] for key in sorted(op.seen) if key in state]
            demand(list(op.found) == wanted, f"{op.name} found {op.found} at revision {op.revision}, not {wanted}")


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
        demand(op.revision >= least, f"{op.name} was answered at revision {op.revision} after another at {newest}")


def _ends(leases: Mapping[int, LeaseLife]) -> Iterator[Action]:
    """The end of a lease as operations that nobody confirms: each of its keys goes, not before it may."""
    for life in leases.values():
        begin = min(life.ends_after, life.ended or life.ends_after)
        for key, value in life.keys.items():
            yield Action(compare={key: value}, writes={key: None}, called=begin)
