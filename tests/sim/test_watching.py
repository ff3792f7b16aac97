"""The judge of watches itself: what keeps every guarantee passes, and each guarantee notices what breaks it."""

from __future__ import annotations

import msgspec
import pytest
from tests.sim.history import Broken, Watched, Witness
from tests.sim.watching import (
    atomic,
    bookmarkable,
    check_alone,
    check_watch,
    ordered,
    reliable,
    resumable,
    truthful,
    unique,
)

from steersman.cluster.store.values import KeyValue, WatchBatch, WatchEvent

A, B, ALL = b"/a", b"/b", (b"/", b"0")

A_2 = KeyValue(A, b"1", 2, 2, 1)
A_3, B_3 = KeyValue(A, b"2", 2, 3, 2), KeyValue(B, b"x", 3, 3, 1)
A_5 = KeyValue(A, b"3", 2, 5, 3)
CREATED = WatchEvent(False, A_2)
MOVED = (WatchEvent(False, A_3, A_2), WatchEvent(False, B_3))
GONE = WatchEvent(True, KeyValue(B, b"", 0, 4, 0), B_3)
AGAIN = WatchEvent(False, A_5, A_3)


def shown(*batches: tuple[int, tuple[WatchEvent, ...]], start: int = 2, key: bytes = ALL[0], end: bytes = ALL[1],
          resumes: tuple[tuple[int, int], ...] = ()) -> Watched:  # fmt: skip
    return Watched(key, end, start, [WatchBatch(*batch) for batch in batches], list(resumes))


ALL_SHOWN = shown((2, (CREATED,)), (3, MOVED), (5, (GONE, AGAIN)))
WITNESS = Witness(ALL_SHOWN)

GOOD = {
    "everything, batch by batch": ALL_SHOWN,
    "everything at once": shown((5, (CREATED, *MOVED, GONE, AGAIN))),
    "nothing yet": shown(),
    "from the middle on": shown((5, (GONE, AGAIN)), start=4),
    "one key alone": shown((3, (MOVED[1],)), (5, (GONE,)), key=B, end=b""),
    "with progress in between, some of it of a member behind": shown(
        (2, (CREATED,)), (2, ()), (1, ()), (3, MOVED), (5, (GONE, AGAIN)), (5, ())
    ),
    "resumed after a batch": shown((3, (CREATED, *MOVED)), (5, (GONE, AGAIN)), resumes=((1, 4),)),
    "resumed, and nothing came any more": shown((3, (CREATED, *MOVED)), resumes=((1, 4),)),
}
BAD = {
    "two events have changed places": (ordered, shown((5, (CREATED, *MOVED, AGAIN, GONE)))),
    "an old event comes late": (ordered, shown((3, MOVED), (5, (GONE, AGAIN)), (5, (CREATED,)))),
    "an event comes twice in a batch": (unique, shown((2, (CREATED, CREATED)))),
    "an event comes again after a resumption": (
        unique, shown((2, (CREATED,)), (3, (CREATED, *MOVED)), resumes=((1, 3),)),
    ),
    "a transaction comes in two batches": (atomic, shown((2, (CREATED,)), (3, MOVED[:1]), (3, MOVED[1:]))),
    "half of a transaction never comes": (atomic, shown((3, (CREATED, MOVED[0])))),
    "a revision is left out": (reliable, shown((2, (CREATED,)), (5, (GONE, AGAIN)))),
    "the first revision is left out": (reliable, shown((5, (*MOVED, GONE, AGAIN)))),
    "a resumption begins one late": (resumable, shown((3, (CREATED, *MOVED)), (5, (AGAIN,)), resumes=((1, 4),))),
    "a resumption begins one early": (
        resumable, shown((3, (CREATED, *MOVED)), (5, (*MOVED, GONE, AGAIN)), resumes=((1, 4),)),
    ),
    "a batch tells of a revision that comes later": (bookmarkable, shown((3, (CREATED,)), (3, MOVED))),
    "progress tells of a revision that was not shown": (bookmarkable, shown((2, (CREATED,)), (4, ()))),
    "progress tells of a revision that never was": (bookmarkable, shown((9, (CREATED, *MOVED, GONE, AGAIN)))),
    "a batch holds more than it tells of": (bookmarkable, shown((3, (CREATED, *MOVED, GONE)))),
    "the previous value is missing": (
        truthful, shown((5, (CREATED, *MOVED, GONE, msgspec.structs.replace(AGAIN, prev_kv=None)))),
    ),
    "the previous value is older": (
        truthful, shown((5, (CREATED, *MOVED, GONE, msgspec.structs.replace(AGAIN, prev_kv=A_2)))),
    ),
    "the value is another one": (
        truthful, shown((2, (WatchEvent(False, msgspec.structs.replace(A_2, value=b"9")),))),
    ),
    "a put is shown as a deletion": (truthful, shown((2, (msgspec.structs.replace(CREATED, deleted=True),)))),
    "a key is shown that is not watched": (truthful, shown((3, MOVED), start=3, key=B, end=b"")),
    "an event that never was": (
        truthful, shown((2, (CREATED,)), (6, (WatchEvent(False, KeyValue(A, b"4", 2, 6, 4), A_5),))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("watched", GOOD.values(), ids=GOOD)
def test_a_watch_keeps_its_guarantees_when_it_shows(watched: Watched) -> None:
    check_alone(watched)
    check_watch(watched, WITNESS)


@pytest.mark.parametrize(("guarantee", "watched"), BAD.values(), ids=BAD)
def test_its_guarantee_is_broken_when(guarantee, watched: Watched) -> None:
    assert guarantee(watched) if guarantee in (ordered, unique) else guarantee(watched, WITNESS)
    with pytest.raises(Broken):
        check_alone(watched)
        check_watch(watched, WITNESS)


@pytest.mark.parametrize(
    "batches",
    [
        pytest.param(((3, MOVED),), id="the first change is missing"),
        pytest.param(((2, (CREATED,)), (4, (GONE,))), id="a change in the middle is missing"),
        pytest.param(((2, (msgspec.structs.replace(CREATED, prev_kv=A_5),)),), id="a value before there was any"),
        pytest.param(((2, (GONE,)),), id="a key is deleted that was not there"),
        pytest.param(((2, (WatchEvent(False, KeyValue(A, b"1", 1, 2, 1)),)),), id="created in another revision"),
        pytest.param(((2, (WatchEvent(False, KeyValue(A, b"1", 2, 2, 2)),)),), id="another version"),
    ],
)
def test_a_witness_that_contradicts_itself_is_refused(batches: tuple[tuple[int, tuple[WatchEvent, ...]], ...]) -> None:
    with pytest.raises(Broken):
        Witness(shown(*batches))
