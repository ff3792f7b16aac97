"""Who watches what in one replica: live watchers are handed each change, late ones read the remembered past first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from weakref import ref

from steersman.cluster.store.mvcc import Change, Mvcc
from steersman.cluster.store.rules import contains
from steersman.cluster.store.values import Unavailable, WatchBatch, WatchEvent

#: events that wait for one watcher; beyond it the watcher reads the remembered past instead
PENDING_EVENTS_MAX = 10_000
#: revisions read from the past at once
CATCH_UP_REVISIONS = 1000


class _Watcher:
    """One watch.

    Attributes:
        next: the first revision that has not been handed over.
        late: it reads the past; `pending` is empty and nothing is pushed.
    """

    __slots__ = ("__weakref__", "end", "key", "late", "next", "pending", "wake")

    def __init__(self, key: bytes, end: bytes, start: int) -> None:
        self.key, self.end, self.next = key, end, start
        self.late = True
        self.pending: list[WatchEvent] = []
        self.wake = asyncio.Event()


class Watches:
    """The watches of one replica.

    Args:
        state: returns the replica's present state.
    """

    def __init__(self, state: Callable[[], Mvcc]) -> None:
        self._state = state
        #: weak, so that a watch that nobody iterates any more vanishes
        self._watchers: dict[int, ref[_Watcher]] = {}
        self._count = 0
        self._failure: str | None = None

    def __len__(self) -> int:
        return len(self._watchers)

    def watch(self, key: bytes, end: bytes, start_revision: int) -> AsyncIterator[WatchBatch]:
        """Begins a watch at once, not with its first step."""
        revision = self._state().revision
        watcher = _Watcher(key, end, start_revision or revision + 1)
        self._count += 1
        self._watchers[self._count] = ref(watcher)
        return self._deliver(watcher, self._count, announces=not start_revision)

    async def _deliver(self, watcher: _Watcher, number: int, *, announces: bool) -> AsyncIterator[WatchBatch]:
        try:
            if announces:
                yield WatchBatch(min(watcher.next - 1, self._state().revision))
            while True:
                if self._failure is not None:
                    raise Unavailable(self._failure)
                if watcher.late:
                    batch = self._read_past(watcher)
                else:
                    await watcher.wake.wait()
                    watcher.wake.clear()
                    if watcher.late or self._failure is not None:
                        continue
                    events = tuple(watcher.pending)
                    watcher.pending.clear()
                    batch = WatchBatch(min(watcher.next - 1, self._state().revision), events)
                if batch is not None:
                    yield batch
        finally:
            self._watchers.pop(number, None)

    def _read_past(self, watcher: _Watcher) -> WatchBatch | None:
        """Returns the next piece of the past; None when the present is reached and nothing was left."""
        state = self._state()
        if watcher.next > state.revision:
            watcher.late = False
            return None
        # raises Compacted when the revision is gone
        watcher.next, changes = state.changes(watcher.next, CATCH_UP_REVISIONS)
        events = tuple(
            event for change in changes for event in change if contains(event.kv.key, watcher.key, watcher.end)
        )
        return WatchBatch(watcher.next - 1, events)

    def publish(self, changes: Sequence[Change], revision: int) -> None:
        """Hands the changes up to `revision` to every live watcher they concern."""
        watchers = self._live()
        for change in changes:
            for event in change:
                key, changed_at = event.kv.key, event.kv.mod_revision
                for watcher in watchers:
                    if contains(key, watcher.key, watcher.end) and changed_at >= watcher.next:
                        watcher.pending.append(event)
        for watcher in watchers:
            if len(watcher.pending) > PENDING_EVENTS_MAX:
                watcher.next = watcher.pending[0].kv.mod_revision
                watcher.pending.clear()
                watcher.late = True
                watcher.wake.set()
                continue
            if watcher.pending:
                watcher.wake.set()
            watcher.next = max(watcher.next, revision + 1)

    def _live(self) -> list[_Watcher]:
        found = [reference() for reference in self._watchers.values()]
        return [watcher for watcher in found if watcher is not None and not watcher.late]

    def report_progress(self) -> None:
        """Lets every watcher that has nothing to read say how far it is."""
        for watcher in self._live():
            watcher.wake.set()

    def state_replaced(self) -> None:
        """The state was restored from a snapshot: what happened in between must be read from its past."""
        for watcher in self._live():
            if watcher.pending:
                watcher.next = watcher.pending[0].kv.mod_revision
                watcher.pending.clear()
            watcher.late = True
            watcher.wake.set()

    def fail(self, reason: str) -> None:
        """Ends every watch with `Unavailable`."""
        self._failure = reason
        for reference in list(self._watchers.values()):
            watcher = reference()
            if watcher is not None:
                watcher.wake.set()
