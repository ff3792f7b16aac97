"""Get and list, answered from the watch cache at the freshness the client asks for.

No `resourceVersion` means everything acknowledged before the request; `0` whatever is here; a number at least that
(or, with `Exact` and in continued lists, exactly that, read from the store where the cache has moved on).

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter

from steersman.actors.apiserver.aside import aside
from steersman.actors.apiserver.cache import Behind, Shelf, WatchCache
from steersman.actors.apiserver.call import Call
from steersman.actors.apiserver.conversions import Conversions
from steersman.actors.apiserver.entry import Entry, read
from steersman.actors.apiserver.forms import JSON_HEADERS, Form, Shows, Whole, form_of
from steersman.actors.apiserver.selection import Selection, read_selection
from steersman.actors.http.feed import Pieces
from steersman.actors.http.messages import Response
from steersman.actors.ports import Now, Store
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.listoptions import (
    ListOptions,
    decode_continue,
    encode_continue,
    read_list_options,
    revision_of,
)
from steersman.cluster.api.row import Kind
from steersman.cluster.meta import errors
from steersman.cluster.meta.errors import Cause, Expired, ServerTimeout
from steersman.cluster.store.values import Compacted, FutureRevision, Range

#: longer lists are not put together but sent piece by piece
LIST_WHOLE_MAX = 5000
#: nor those of more bytes, which a client that does not read would make us hold
LIST_WHOLE_BYTES_MAX = 2 << 20
_PAGE = 1000
#: more objects are looked at, or laid out, aside; and those of more bytes, about ten milliseconds' worth of either
_INLINE_MAX, _INLINE_BYTES_MAX = 300, 512 * 1024
_RAW = attrgetter("raw")


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the objects of a kind.

    Args:
        revision: at which they are so; go_on: the token that continues the list; remaining: how many are left then.
    """

    found: list[Entry]
    revision: int
    go_on: str = ""
    remaining: int = 0


class Reader:
    """Answers gets and lists."""

    def __init__(self, store: Store, cache: WatchCache, registry: Registry, conversions: Conversions, now: Now) -> None:
        self._store = store
        self._cache = cache
        self._registry = registry
        self._conversions = conversions
        self._now = now

    def form(self, call: Call, kind: Kind, shows: Shows = "object") -> Form:
        """The form in which the client wants to see what it asks for; raises NotAcceptable, BadRequest."""
        accept, include = call.header.get("accept", ""), call.query.get("includeObject", "")
        return form_of(kind, accept, include, self._now, self._registry.documentation, shows)

    def shelf(self, kind: Kind) -> Shelf:
        return self._cache.shelf(kind.prefix())

    async def backup(self) -> AsyncIterator[bytes]:
        """Returns the pieces of a backup; the first has come already when this returns."""
        pieces = self._store.backup()
        first = await anext(pieces)
        return _from_first(first, pieces)

    async def prepare(self, kind: Kind, entries: Iterable[Entry]) -> None:
        """Returns when the objects can be shown in the kind's version; raises ConversionFailed."""
        if kind.converter is not None:
            await self._conversions.prepare(kind, entries)

    async def fresh(self, version: int | None = None) -> None:
        """Returns when the cache is as fresh as a `resourceVersion` asks; None: shows what is acknowledged by now.

        Raises:
            Behind: it did not come that far in time. StoreError: the store does not answer.
        """
        if version is None:
            await self._cache.fresh()
        else:
            await self._cache.reach(version)

    # ---- get

    async def get(self, call: Call, kind: Kind) -> Response:
        form = self.form(call, kind)
        entry = await self.find(
            kind, call.attributes.namespace, call.attributes.name, call.query.get("resourceVersion", "")
        )
        return Response(200, JSON_HEADERS, form.one(entry))

    async def find(self, kind: Kind, namespace: str, name: str, version: str = "") -> Entry:
        """Returns the object as fresh as `version` asks; raises NotFound."""
        await self.fresh(revision_of(version) if version else None)
        entry = self.shelf(kind).get(f"{namespace}/{name}" if kind.resource.namespaced else name)
        if entry is None:
            raise errors.not_found(kind.resource.plural, name, kind.resource.group)
        await self.prepare(kind, [entry])
        return entry

    # ---- list

    async def collection(self, call: Call, kind: Kind) -> Response:
        form = self.form(call, kind, "list")
        return await listed(form, await self.page(call, kind))

    async def page(self, call: Call, kind: Kind) -> Page:
        """The objects that a request for several is about; raises ApiError."""
        selection = read_selection(call, kind)
        options = read_list_options(call.query, watch=False)
        revision, start = decode_continue(options.token) if options.token else (options.exact or 0, "")
        if revision > 0 and not self._shows(kind, revision):
            return await self._list_past(selection, revision, start, options.limit)
        if revision <= 0:
            await self.fresh(None if options.token else options.version)
        return await self._list_present(selection, revision, start, options)

    def _shows(self, kind: Kind, revision: int) -> bool:
        """Whether the kind's objects in the cache are those of a revision, and will be while they are put together."""
        return kind.converter is None and self.shelf(kind).changed <= revision <= self._cache.revision

    async def _list_present(self, selection: Selection, revision: int, start: str, options: ListOptions) -> Page:
        """Lists the objects of the cache from `start` on.

        What may come from anywhere, as `0` says, comes whole, as in Kubernetes.
        """
        kind = selection.kind
        if selection.fields.requirements:
            await self.prepare(kind, list(self.shelf(kind).within(selection.namespace)))
        limit = 0 if options.version == 0 and not options.token else options.limit
        shelf, test = self.shelf(kind), selection.test()
        revision = revision if revision > 0 else self._cache.revision
        go_on, remaining = "", 0
        if test is None and limit:
            found = list(islice(shelf.within(selection.namespace, start), limit))
            remaining = shelf.count(selection.namespace, start) - len(found)
            go_on = encode_continue(revision, _below(found[-1].key, selection.namespace)) if remaining else ""
        else:
            found = await self._select(selection, start)
            if limit and len(found) > limit:
                found = found[:limit]
                go_on = encode_continue(revision, _below(found[-1].key, selection.namespace))
        await self.prepare(kind, found)
        return Page(found, revision, go_on, remaining)

    def select(self, selection: Selection) -> list[Entry]:
        """Every selected object of the cache, in order."""
        return _selected(self._candidates(selection), selection.test())

    async def _select(self, selection: Selection, start: str) -> list[Entry]:
        """As `select`, from `start` on, which is a key in the namespace."""
        entries, selects = self._candidates(selection, start), selection.test()
        if selects is None or len(entries) <= _INLINE_MAX:
            return _selected(entries, selects)
        return await aside(_selected, entries, selects)

    def _candidates(self, selection: Selection, start: str = "") -> list[Entry]:
        """The objects that can be selected, in order."""
        shelf = self.shelf(selection.kind)
        if not (key := selection.key()):
            return list(shelf.within(selection.namespace, start))
        entry = shelf.get(key)
        return [] if entry is None or _below(key, selection.namespace) < start else [entry]

    async def _list_past(self, selection: Selection, revision: int, start: str, limit: int) -> Page:
        """Lists the objects from `start` on as they were at `revision`."""
        kind, selects = selection.kind, selection.test()
        prefix, base = kind.prefix(), kind.prefix(selection.namespace)
        key, end = f"{base}{start}".encode(), base[:-1].encode() + b"0"
        found: list[Entry] = []
        more, count = True, -1
        while more and not (limit and len(found) > limit):
            size = min(_PAGE, limit + 1) if limit and selects is None else _PAGE
            try:
                page = await self._store.range(Range(key=key, range_end=end, revision=revision, limit=size))
            except Compacted:
                raise _expired(start) from None
            except FutureRevision:
                raise too_large(Behind(revision, self._cache.revision)) from None
            count = page.count if count < 0 else count
            entries = [
                Entry(kv.key.decode()[len(prefix) :], kv.mod_revision, raw)
                for kv in page.kvs
                if (raw := read(kv.value, kv.mod_revision)) is not None
            ]
            key = page.kvs[-1].key + b"\0" if page.kvs else key
            await self.prepare(kind, entries)
            found += entries if selects is None else filter(selects, entries)
            more = page.more
        if not limit or len(found) <= limit:
            return Page(found, revision)
        go_on = encode_continue(revision, _below(found[limit - 1].key, selection.namespace))
        return Page(found[:limit], revision, go_on, count - limit if selects is None else 0)


def _selected(entries: list[Entry], selects: Callable[[Entry], bool] | None) -> list[Entry]:
    return entries if selects is None else [entry for entry in entries if selects(entry)]


def _below(key: str, namespace: str) -> str:
    """The key of an object below that of the list it is in."""
    return key[len(namespace) + 1 :] if namespace else key


async def listed(form: Form, page: Page) -> Response:
    """The answer that shows objects."""
    found = page.found
    size_bytes = sum(map(len, map(_RAW, found)))

    def pieces() -> Iterator[bytes]:
        return form.many(found, page.revision, page.go_on, page.remaining)

    body: bytes | Pieces
    if isinstance(form, Whole):
        is_long = len(found) > LIST_WHOLE_MAX or size_bytes > LIST_WHOLE_BYTES_MAX
        body = Pieces(pieces()) if is_long else b"".join(pieces())
    elif len(found) > _INLINE_MAX or size_bytes > _INLINE_BYTES_MAX:  # every object is decoded
        body = await aside(lambda: b"".join(pieces()))
    else:
        body = b"".join(pieces())
    return Response(200, JSON_HEADERS, body)


def too_large(behind: Behind, again_s: int = 0) -> ServerTimeout:
    """The refusal of a resourceVersion that does not exist yet, or that this server does not know of."""
    return ServerTimeout(
        f"Timeout: {behind}",
        causes=[Cause("", "Too large resource version", "ResourceVersionTooLarge")],
        retry_after_s=again_s,
    )


def _expired(start: str) -> Expired:
    """The refusal of a list of a revision that the store has forgotten; a continued one is told how it may go on."""
    if not start:
        return Expired("The resourceVersion for the provided list is too old.")
    return Expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list "
        "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
        "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
        "modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        go_on=encode_continue(-1, start.removesuffix("\0")),
    )


async def _from_first(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
