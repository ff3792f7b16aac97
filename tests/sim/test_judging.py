"""The judge of whole stories itself: registers, compare-and-swap, transactions, leases and reads of the past."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from tests.sim.history import Broken, LeaseLife, Operation, Watched
from tests.sim.judging import check
from tests.sim.linearizable import Value

from steersman.cluster.store.values import KeyValue, WatchBatch, WatchEvent

X, Y, LEASED = b"/t/x", b"/t/y", b"/l/0"


@dataclass
class Told:
    """A story as it is told: what happened in each revision, and what clients say that they did.

    Args:
        changes: of the revisions 2, 3, …: key to value, or None for a deletion.
    """

    changes: list[Mapping[bytes, Value]]
    operations: list[Operation] = field(default_factory=list)
    leases: dict[int, LeaseLife] = field(default_factory=dict)
    past: dict[int, list[KeyValue]] = field(default_factory=dict)

    def judge(self) -> None:
        check(self.operations, [Watched(b"/", b"0", 2, self._batches())], self.leases, self.past)

    def _batches(self) -> list[WatchBatch]:
        live: dict[bytes, KeyValue] = {}
        batches = []
        for revision, change in enumerate(self.changes, start=2):
            events = []
            for key, value in change.items():
                before = live.pop(key, None)
                if value is None:
                    events.append(WatchEvent(True, KeyValue(key, b"", 0, revision, 0), before))
                    continue
                created, version = (before.create_revision, before.version + 1) if before else (revision, 1)
                live[key] = KeyValue(key, value, created, revision, version)
                events.append(WatchEvent(False, live[key], before))
            batches.append(WatchBatch(revision, tuple(events)))
        return batches


def write(
    at: float,
    revision: int,
    writes: Mapping[bytes, Value],
    *,
    seen: Mapping[bytes, Value] | None = None,
    compare: Mapping[bytes, Value] | None = None,
    succeeded: bool = True,
    until: float | None = None,
) -> Operation:
    return Operation(
        name=f"w{at}", writes=writes, compare=compare or {}, called=(at, 0), returned=((until or at) + 0.5, 0),
        seen=seen or {}, succeeded=succeeded, revision=revision,
    )  # fmt: skip


def unconfirmed(at: float, writes: Mapping[bytes, Value]) -> Operation:
    return Operation(name=f"u{at}", writes=writes, called=(at, 0))


def read(at: float, revision: int, seen: Mapping[bytes, Value], until: float | None = None) -> Operation:
    return Operation(name=f"r{at}", called=(at, 0), returned=((until or at) + 0.5, 0), seen=seen, revision=revision)


ONE, TWO = {X: b"1"}, {X: b"2"}

GOOD = {
    "a register": Told([ONE, TWO], [write(1, 2, ONE), read(2, 2, ONE), write(3, 3, TWO), read(4, 3, TWO)]),
    "a swap, and one that comes too late": Told(
        [ONE, TWO],
        [
            write(1, 2, ONE), write(2, 3, TWO, compare=ONE),
            write(3, 3, {X: b"3"}, compare=ONE, succeeded=False, seen=TWO),
        ],
    ),
    "a transaction": Told(
        [ONE, {X: None, Y: b"2"}],
        [write(1, 2, ONE), write(2, 3, {X: None, Y: b"2"}, seen=ONE, compare=ONE), read(3, 3, {X: None, Y: b"2"})],
    ),
    "a write without an answer that happened": Told([ONE], [unconfirmed(1, ONE), read(2, 2, ONE)]),
    "a write without an answer that did not": Told([], [unconfirmed(1, ONE), read(2, 1, {X: None})]),
    "a lease that ends in its time": Told(
        [{LEASED: b"v"}, {LEASED: None}],
        [write(1, 2, {LEASED: b"v"}), read(2, 2, {LEASED: b"v"}), read(9, 3, {LEASED: None})],
        leases={7: LeaseLife({LEASED: b"v"}, (5.0, 0))},
    ),
    "a read of the past": Told(
        [ONE, TWO], [write(1, 2, ONE), write(2, 3, TWO)], past={2: [KeyValue(X, b"1", 2, 2, 1)]}
    ),
}  # fmt: skip
BAD = {
    "a confirmed write is nowhere": ("is lost", Told([ONE], [write(1, 2, ONE), write(2, 3, TWO)])),
    "a write happens twice": ("took effect twice", Told([ONE, TWO, ONE], [write(1, 2, ONE), write(2, 3, TWO)])),
    "a write without an answer happens twice": (
        "took effect twice", Told([ONE, TWO, ONE], [unconfirmed(1, ONE), write(2, 3, TWO)]),
    ),
    "something happens that nobody asked for": ("has no cause", Told([ONE, {X: b"9"}], [write(1, 2, ONE)])),
    "a write is confirmed as another revision": ("was confirmed as 3", Told([ONE], [write(1, 3, ONE)])),
    "half of a transaction happens": (
        "changed", Told([ONE, {Y: b"2"}], [write(1, 2, ONE), write(2, 3, {X: None, Y: b"2"}, seen=ONE)]),
    ),
    "a read sees what was not there": ("saw", Told([ONE], [write(1, 2, ONE), read(2, 2, {X: b"9"})])),
    "a read is stale": ("after another at 3", Told([ONE, TWO], [write(1, 2, ONE), write(2, 3, TWO), read(3, 2, ONE)])),
    "a read is stale and tells a newer revision": (
        "saw", Told([ONE, TWO], [write(1, 2, ONE), write(2, 3, TWO), read(3, 3, ONE)]),
    ),
    "reads go back in time": (
        "after another at 3",
        Told([ONE, TWO], [write(1, 2, ONE), write(2, 3, TWO, until=9), read(3, 3, TWO), read(4, 2, ONE)]),
    ),
    "two swaps from one value succeed": (
        "not linearizable",
        Told([ONE, TWO, {X: b"3"}], [
            write(1, 2, ONE), write(2, 3, TWO, compare=ONE, until=9), write(2, 4, {X: b"3"}, compare=ONE, until=9),
        ]),
    ),
    "a swap fails though its value is there": (
        "not linearizable",
        Told([ONE], [write(1, 2, ONE), write(2, 2, TWO, compare=ONE, succeeded=False, seen=ONE)]),
    ),
    "a lease ends before its time": (
        "not linearizable",
        Told(
            [{LEASED: b"v"}, {LEASED: None}], [write(1, 2, {LEASED: b"v"}), read(3, 3, {LEASED: None})],
            leases={7: LeaseLife({LEASED: b"v"}, (5.0, 0))},
        ),
    ),
    "the past has changed": (
        "a later read of it",
        Told([ONE, TWO], [write(1, 2, ONE), write(2, 3, TWO)], past={2: [KeyValue(X, b"2", 2, 3, 2)]}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("told", GOOD.values(), ids=GOOD)
def test_a_story_is_accepted_with(told: Told) -> None:
    told.judge()


@pytest.mark.parametrize(("words", "told"), BAD.values(), ids=BAD)
def test_a_story_is_refused_in_which(words: str, told: Told) -> None:
    with pytest.raises(Broken, match=words):
        told.judge()
