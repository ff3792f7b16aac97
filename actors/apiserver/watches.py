"""Opens watches and holds the open ones: from the state, from a revision that is remembered, or from one to come.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

from steersman.actors.apiserver.cache import Behind, Shelf, TooOld, WatchCache
from steersman.actors.apiserver.call import Call
from steersman.actors.apiserver.entry import ADDED, Event
from steersman.actors.apiserver.forms import Form, Packed
from steersman.actors.apiserver.reads import Reader, too_large
from steersman.actors.apiserver.selection import Selection, read_selection
from steersman.actors.apiserver.watcher import Audience, Watch, error_event
from steersman.actors.http.feed import Feed
from steersman.actors.http.messages import Response, Upgrade
from steersman.cluster.api.listoptions import ListOptions, read_list_options
from steersman.cluster.api.negotiation import JSON
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.errors import ApiError, Expired, MethodNotAllowed, NotAcceptable

#: watches without a timeout of their own end after this and up to twice this
WATCH_S = 1800.0


class Watches:
    """Answers watches."""

    def __init__(self, reader: Reader, cache: WatchCache, rng: random.Random) -> None:
        self._reader = reader
        self._cache = cache
        self._rng = rng
        #: in the order in which they were opened
        self._watches: dict[Watch, None] = {}
        #: those that wait for the revision they begin at
        self._early: dict[Watch, asyncio.Task[None]] = {}

    @property
    def open(self) -> int:
        """How many watches are open."""
        return len(self._watches)

    def stop(self) -> None:
        """Ends every watch."""
        for watch in list(self._watches):
            watch.end()

    async def watch(self, call: Call, kind: Kind) -> Response:
        """Begins to tell of changes; what goes wrong behind the parameters is told as an event."""
        if call.request.method != "GET":
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        is_socket = call.request.upgrade and call.header.get("upgrade", "").lower() == "websocket"
        form, selection = self._reader.form(call, kind, "watch"), read_selection(call, kind)
        if is_socket and isinstance(form, Packed):
            raise NotAcceptable(f"only the following media types are accepted: {JSON};stream=watch")
        options = read_list_options(call.query, watch=True)
        audience = _audience(call, selection, form)
        try:
            feed: Feed = await self._begin(audience, selection, options)
        except TooOld as error:
            feed = _failure(form, Expired(str(error)))
        except Behind as error:
            feed = _failure(form, too_large(error, 1))
        if is_socket:
            return Response(101, {}, Upgrade(lines=feed, close=feed.aclose))
        return Response(200, {"content-type": form.media, "cache-control": "no-cache, private"}, feed)

    async def _begin(self, audience: Audience, selection: Selection, options: ListOptions) -> Watch:
        version, kind, shelf = options.version, selection.kind, self._reader.shelf(selection.kind)
        if version and not options.initial and version > self._cache.revision:
            watch = self._open(shelf, audience, options, (), version)
            self._early[watch] = asyncio.create_task(self._join_later(watch, shelf, audience, version))
            return watch
        if version != 0:
            await self._reader.fresh(version)
        if kind.converter is not None:
            await self._prepare_backlog(shelf, selection, options)
        backlog = self._backlog(shelf, audience, selection, options)
        watch = self._open(shelf, audience, options, backlog, self._cache.revision)
        shelf.join(audience).watches[watch] = None
        return watch

    def _open(
        self, shelf: Shelf, audience: Audience, options: ListOptions, backlog: Iterable[tuple[str, Event]], told: int
    ) -> Watch:
        marks_state = options.bookmarks and (options.initial or (options.initial is None and not options.version))
        watch = Watch(
            audience.form,
            list(backlog),
            initial_end=self._cache.revision if marks_state else None,
            bookmarks=options.bookmarks,
            timeout_s=float(options.timeout_s or WATCH_S * (1 + self._rng.random())),
            told=told,
            revision=lambda: self._cache.revision if shelf.told is None else shelf.told,
            closed=lambda watch: self._close(shelf, audience, watch),
        )
        self._watches[watch] = None
        return watch

    async def _join_later(self, watch: Watch, shelf: Shelf, audience: Audience, version: int) -> None:
        """Lets a watch of a revision to come take part from there on."""
        await self._cache.come(version)
        del self._early[watch]
        try:
            events = shelf.since(version)
        except TooOld as error:
            watch.push(error_event(audience.form, Expired(str(error)).to_status()))
            watch.end()
            return
        for event in events:
            if (kind := audience.choose(event)) is not None:
                watch.tell([(kind, event)])
        shelf.join(audience).watches[watch] = None

    async def _prepare_backlog(self, shelf: Shelf, selection: Selection, options: ListOptions) -> None:
        """Has everything converted that a watch may begin with; when this returns nothing of it has to wait."""
        kind = selection.kind
        while True:
            entries = list(shelf.within(selection.namespace))
            if options.version:
                for event in shelf.since(options.version):
                    entries += [event.entry, *([event.previous] if event.previous is not None else [])]
            if not any(entry.lacks(kind) for entry in entries):
                return
            await self._reader.prepare(kind, entries)

    def _backlog(
        self, shelf: Shelf, audience: Audience, selection: Selection, options: ListOptions
    ) -> list[tuple[str, Event]]:
        """What a watch begins with: the state, nothing, or what happened since a revision; raises TooOld."""
        if not options.version or options.initial:
            entries = self._reader.select(selection) if options.initial is not False else []
            return [(ADDED, Event(ADDED, entry, None)) for entry in entries]
        chosen = [(audience.choose(event), event) for event in shelf.since(options.version)]
        return [(kind, event) for kind, event in chosen if kind is not None]

    def _close(self, shelf: Shelf, audience: Audience, watch: Watch) -> None:
        self._watches.pop(watch, None)
        if (task := self._early.pop(watch, None)) is not None:
            task.cancel()
        shelf.leave(audience, watch)


def _failure(form: Form, error: ApiError) -> Feed:
    """A watch that only tells why it is over."""
    feed = Feed(iter([error_event(form, error.to_status())]), lambda: None, waiting_max=0)
    feed.end()
    return feed


def _audience(call: Call, selection: Selection, form: Form) -> Audience:
    query = call.query
    return Audience(
        form,
        (form.key, selection.namespace, selection.exact("metadata.name"), query.get("labelSelector", ""),
         query.get("fieldSelector", "")),
        namespace=selection.namespace,
        selects=selection.test(),
        trigger=selection.trigger(),
    )  # fmt: skip
