"""What a watch guarantees, each guarantee by itself.

Source: https://etcd.io/docs/v3.5/learning/api_guarantees/ (ordered, unique, reliable, atomic, resumable, bookmarkable).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tests.sim.history import FIRST_REVISION, Broken, Watched, Witness

from steersman.cluster.store.rules import contains
from steersman.cluster.store.values import WatchEvent


def check_alone(watched: Watched) -> None:
    """Checks what needs no other witness.

    Raises:
        Broken: says which guarantee.
    """
    for guarantee in (ordered, unique):
        if (what := guarantee(watched)) is not None:
            raise Broken(f"a watch of {watched.key!r} is not {guarantee.__name__}: {what}")


def check_watch(watched: Watched, witness: Witness) -> None:
    """Checks everything else.

    Raises:
        Broken: says which guarantee.
    """
    for guarantee in (truthful, atomic, reliable, resumable, bookmarkable):
        if (what := guarantee(watched, witness)) is not None:
            raise Broken(f"a watch of {watched.key!r} is not {guarantee.__name__}: {what}")


def ordered(watched: Watched) -> str | None:
    """No event comes after one of a later revision."""
    newest = 0
    for event in watched.events():
        if event.kv.mod_revision < newest:
            return f"{event} came after an event of revision {newest}"
        newest = event.kv.mod_revision
    return None


def unique(watched: Watched) -> str | None:
    """No event comes twice."""
    counts = Counter((event.kv.mod_revision, event.kv.key) for event in watched.events())
    return next((f"{row} came {count} times" for row, count in counts.items() if count > 1), None)


def truthful(watched: Watched, witness: Witness) -> str | None:
    """Every event is a change that happened, of a key that is watched, with the value before."""
    for event in watched.events():
        revision = event.kv.mod_revision
        happened = witness.changes[revision - FIRST_REVISION - 1] if revision <= witness.revision else ()
        if event not in happened or not contains(event.kv.key, watched.key, watched.end):
            return f"{event} was shown, {happened} happened"
    return None


def atomic(watched: Watched, witness: Witness) -> str | None:
    """What happened in one revision comes in one batch."""
    for batch in watched.batches:
        shown = Counter(event.kv.mod_revision for event in batch.events)
        for revision, count in shown.items():
            happened = list(_wanted(watched, witness, revision, revision))
            if count != len(happened):
                return f"{count} of {len(happened)} changes of revision {revision} came in one batch"
    return None


def reliable(watched: Watched, witness: Witness) -> str | None:
    """Between the first revision asked for and the last event shown none is missing."""
    last = max((event.kv.mod_revision for event in watched.events()), default=0)
    return _missing(watched, witness, _rows(watched.events()), watched.start, last)


def resumable(watched: Watched, witness: Witness) -> str | None:
    """A watch that was opened anew goes on exactly at the revision that it asked for."""
    for count, start in watched.resumes:
        events = [event for batch in watched.batches[count:] for event in batch.events]
        if not events:
            continue
        if events[0].kv.mod_revision < start:
            return f"it was resumed at {start}, and shown {events[0]}"
        if missing := _missing(watched, witness, _rows(events), start, events[0].kv.mod_revision):
            return f"it was resumed at {start}: {missing}"
    return None


def bookmarkable(watched: Watched, witness: Witness) -> str | None:
    """Everything up to the revision of a batch has been shown with it, and nothing beyond it.

    A member that is behind may report a progress that is behind, too.
    """
    shown: set[tuple[int, bytes]] = set()
    upto = watched.start - 1
    for batch in watched.batches:
        shown |= _rows(batch.events)
        if batch.revision > witness.revision:
            return f"revision {batch.revision} was told of, the newest is {witness.revision}"
        if batch.events and batch.events[-1].kv.mod_revision > batch.revision:
            return f"revision {batch.revision} was told together with {batch.events[-1]}"
        if missing := _missing(watched, witness, shown, upto + 1, batch.revision):
            return f"revision {batch.revision} was told: {missing}"
        upto = max(upto, batch.revision)
    return None


def _rows(events: Iterable[WatchEvent]) -> set[tuple[int, bytes]]:
    return {(event.kv.mod_revision, event.kv.key) for event in events}


def _missing(watched: Watched, witness: Witness, shown: set[tuple[int, bytes]], first: int, last: int) -> str | None:
    for event in _wanted(watched, witness, first, last):
        if (event.kv.mod_revision, event.kv.key) not in shown:
            return f"{event} was not shown"
    return None


def _wanted(watched: Watched, witness: Witness, first: int, last: int) -> Iterator[WatchEvent]:
    """What happened to the keys watched in the revisions `first ..= last`."""
    for change in witness.changes[max(0, first - FIRST_REVISION - 1) : max(0, last - FIRST_REVISION)]:
        for event in change:
            if contains(event.kv.key, watched.key, watched.end):
                yield event
