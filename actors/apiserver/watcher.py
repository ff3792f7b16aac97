"""Watches: those of the same selection and form are one audience, for which a change is chosen and encoded once.

Every watch gets its own first state; from then on the whole audience is sent the same bytes, as soon as a batch of
changes from the store has been taken in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import orjson

from steersman.actors.apiserver.entry import ADDED, DELETED, MODIFIED, Entry, Event
from steersman.actors.apiserver.forms import Form, Packed, Tabular, Whole
from steersman.actors.http.feed import PIECE_BYTES, Feed
from steersman.cluster.api.protobuf.codec import encode
from steersman.cluster.meta.objects import Obj

#: changes held for a client that reads slowly; one that falls further behind is cut off and resumes
WAITING_MAX = 50_000
#: objects that are put into another form at once when a watch begins: each takes up to a millisecond
_LAID_OUT_MAX = 8
#: a bookmark tells an idle watcher how far it has come
BOOKMARK_S = 60.0


class Audience:
    """The watches of one selection in one form.

    Args:
        key: watches with equal keys see the same.
        namespace: only objects in it; empty for all.
        selects: whether a version of an object is selected; None for every one.
        trigger: a field and the value it must have in every selected object, by which changes find this audience.
    """

    def __init__(
        self,
        form: Form,
        key: tuple[str, ...] = (),
        *,
        namespace: str = "",
        selects: Callable[[Entry], bool] | None = None,
        trigger: tuple[str, str] | None = None,
    ) -> None:
        self.form, self.key, self.trigger = form, key, trigger
        self.watches: dict[Watch, None] = {}
        self._prefix = f"{namespace}/" if namespace else ""
        self._selects = selects
        self._taken: list[tuple[str, Event]] = []

    def choose(self, event: Event) -> str | None:
        """The type that a change has for this selection; None when it does not concern it."""
        if self._prefix and not event.entry.key.startswith(self._prefix):
            return None
        if self._selects is None:
            return event.type
        before = event.previous is not None and self._selects(event.previous)
        if event.type == DELETED:
            return DELETED if before else None
        after = self._selects(event.entry)
        if after:
            return MODIFIED if before else ADDED
        return DELETED if before else None

    def offer(self, event: Event) -> bool:
        """Takes a change in if it is selected; returns whether it is the first since the last `flush`."""
        kind = self.choose(event)
        if kind is None:
            return False
        self._taken.append((kind, event))
        return len(self._taken) == 1

    def flush(self) -> None:
        """Sends what was taken in to every watch."""
        taken, self._taken = self._taken, []
        piece, lines = b"", [b""]
        for watch in list(self.watches):
            if watch.tells_columns:
                watch.tell(taken)
            else:
                if not piece:
                    lines = [encoded(self.form, kind, event) for kind, event in taken]
                    piece = b"".join(lines)
                watch.push(piece, lines)

    def end(self) -> None:
        """The cache begins anew: every watch ends."""
        for watch in list(self.watches):
            watch.end()


class Watch(Feed):
    """One client's watch, from its first state to its end.

    Args:
        form: in which it shows objects; the caller adds it to an audience of this form.
        backlog: the changes, or the objects as `ADDED`, that are to be sent first.
        initial_end: the revision to be told by a bookmark after the backlog; None for no such bookmark.
        bookmarks: whether to tell an idle client now and then how far it has come, and at the end.
        timeout_s: after which the watch ends.
        told: the revision that the client knows of when it has the backlog.
        revision: up to which watches of this kind have been told of everything.
        closed: called once, when the watch is over.
    """

    def __init__(
        self,
        form: Form,
        backlog: list[tuple[str, Event]],
        *,
        initial_end: int | None,
        bookmarks: bool,
        timeout_s: float,
        told: int,
        revision: Callable[[], int],
        closed: Callable[[Watch], None],
    ) -> None:
        super().__init__(self._opening(form, backlog, initial_end), lambda: self._over(closed), WAITING_MAX)
        self._form, self._revision, self._bookmarks, self._told = form, revision, bookmarks, told
        #: a Table says its columns in the first event only
        self.tells_columns = isinstance(form, Tabular) and not backlog
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._until = self._clock() + timeout_s
        self._timer = loop.call_at(self._next_wake(), self._tick)

    def tell(self, events: list[tuple[str, Event]]) -> None:
        """Sends changes to this watch alone."""
        first, self.tells_columns = self.tells_columns, False
        lines = [encoded(self._form, kind, event) for kind, event in events[first:]]
        self.push(b"".join([first_line(self._form, *events[0]), *lines] if first else lines))

    @staticmethod
    def _opening(form: Form, backlog: list[tuple[str, Event]], initial_end: int | None) -> Iterator[bytes]:
        lines: list[bytes] = []
        size_bytes, lines_max = 0, PIECE_BYTES if isinstance(form, Whole) else _LAID_OUT_MAX
        for index, (kind, event) in enumerate(backlog):
            lines.append(encoded(form, kind, event) if index else first_line(form, kind, event))
            size_bytes += len(lines[-1])
            if size_bytes >= PIECE_BYTES or len(lines) >= lines_max:
                yield b"".join(lines)
                lines, size_bytes = [], 0
        if initial_end is not None:
            lines.append(form.event("BOOKMARK", form.bookmark(initial_end, {"k8s.io/initial-events-end": "true"})))
        if lines:
            yield b"".join(lines)

    def _next_wake(self) -> float:
        return min(self._until, self._clock() + BOOKMARK_S) if self._bookmarks else self._until

    def _tick(self) -> None:
        if self._bookmarks and self.idle and self._revision() > self._told:
            self._told = self._revision()
            self.push(self._form.event("BOOKMARK", self._form.bookmark(self._told, None)))
        if self._clock() >= self._until:
            self.end()
        else:
            self._timer = asyncio.get_running_loop().call_at(self._next_wake(), self._tick)

    def _over(self, closed: Callable[[Watch], None]) -> None:
        self._timer.cancel()
        closed(self)


def error_event(form: Form, status: Obj) -> bytes:
    """The event that ends a watch with a reason."""
    return form.event("ERROR", encode(status) if isinstance(form, Packed) else orjson.dumps(status))


def encoded(form: Form, kind: str, event: Event) -> bytes:
    """The line of an event, made once for all audiences of the same form."""
    found = event.encoded(form.key, kind)
    if found is None:
        found = event.keep(form.key, kind, form.event(kind, form.later(event.shown(kind))))
    return found


def first_line(form: Form, kind: str, event: Event) -> bytes:
    """The line of a watch's first event, which says what comes once."""
    if not isinstance(form, Tabular):
        return encoded(form, kind, event)
    return form.event(kind, form.one(event.shown(kind)))
