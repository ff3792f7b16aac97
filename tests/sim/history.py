"""What clients and watchers of a simulated store did and saw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.sim.linearizable import Action, Moment

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
        resumes: (batches shown before, first revision asked for) whenever it was opened anew.
    """

    key: bytes
    end: bytes
    start: int
    batches: list[WatchBatch] = field(default_factory=list)
    resumes: list[tuple[int, int]] = field(default_factory=list)

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


def demand(condition: object, what: str) -> None:
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
        demand(
            list(rows) == list(range(FIRST_REVISION + 1, len(rows) + 2)),
            f"revisions are missing or out of order: {list(rows)}",
        )
        for events in rows.values():
            self._take(tuple(events))

    @property
    def revision(self) -> int:
        return FIRST_REVISION + len(self.changes)

    def state(self, revision: int) -> Mapping[bytes, KeyValue]:
        demand(FIRST_REVISION <= revision <= self.revision, f"revision {revision} never was")
        return self.states[revision - FIRST_REVISION]

    def _take(self, events: tuple[WatchEvent, ...]) -> None:
        state = dict(self.states[-1])
        revision = self.revision + 1
        for event in events:
            kv, before = event.kv, state.get(event.kv.key)
            demand(event.prev_kv == before, f"a wrong previous value in {event}, it was {before}")
            if event.deleted:
                demand(before is not None, f"{kv.key!r} was deleted though it was not there")
                del state[kv.key]
            else:
                created, version = (before.create_revision, before.version + 1) if before else (revision, 1)
                demand((kv.create_revision, kv.version) == (created, version), f"wrong revisions in {event}")
                state[kv.key] = kv
        self.changes.append(events)
        self.states.append(state)
