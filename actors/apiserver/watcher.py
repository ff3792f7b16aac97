"""One watch: which changes it selects, and a bounded queue of those not yet sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from steersman.actors.apiserver.entry import ADDED, DELETED, MODIFIED, Entry, Event

#: changes held for a client that reads slowly; one that falls further behind is cut off and resumes
QUEUE_MAX = 10_000


class Watcher:
    """The end of a watch that the cache fills and a response drains.

    Args:
        namespace: only objects in it; empty for all.
        selects: whether a version of an object is selected; None for every one.
        trigger: a field and the value it must have in every selected object, by which events find this watcher.
    """

    def __init__(
        self,
        *,
        namespace: str = "",
        selects: Callable[[Entry], bool] | None = None,
        trigger: tuple[str, str] | None = None,
    ) -> None:
        self.trigger = trigger
        self._prefix = f"{namespace}/" if namespace else ""
        self._selects = selects
        self._queue: list[tuple[str, Event]] = []
        self._wake: asyncio.Future[None] | None = None
        #: one timer for many waits: deadlines change rarely
        self._timer: asyncio.TimerHandle | None = None
        self._until = 0.0
        #: no more comes: the cache began anew, the queue overflowed or the server stops
        self.ended = False

    def offer(self, event: Event) -> None:
        """Queues a change if it is selected, under the type it has for this selection."""
        if self._prefix and not event.entry.key.startswith(self._prefix):
            return
        kind: str | None = event.type
        if self._selects is not None:
            kind = self._type(event, self._selects)
        if kind is None or self.ended:
            return
        if len(self._queue) >= QUEUE_MAX:
            self.end()
            return
        self._queue.append((kind, event))
        self._notify()

    @staticmethod
    def _type(event: Event, selects: Callable[[Entry], bool]) -> str | None:
        before = event.previous is not None and selects(event.previous)
        if event.type == DELETED:
            return DELETED if before else None
        after = selects(event.entry)
        if after:
            return MODIFIED if before else ADDED
        return DELETED if before else None

    def end(self) -> None:
        self.ended = True
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def take(self) -> list[tuple[str, Event]]:
        """Returns what is queued, in order; perhaps nothing."""
        taken, self._queue = self._queue, []
        return taken

    async def wait(self, until: float) -> None:
        """Returns when something is queued, the watch has ended, or the loop's clock shows `until`."""
        if self._queue or self.ended:
            return
        loop = asyncio.get_running_loop()
        if self._timer is None or self._until != until:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._until = loop.call_at(until, self._expire), until
        self._wake = loop.create_future()
        try:
            await self._wake
        finally:
            self._wake = None

    def _expire(self) -> None:
        self._timer = None
        self._notify()

    def close(self) -> None:
        """Nobody waits any more."""
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
