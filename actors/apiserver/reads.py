"""Get, list and watch, answered from the watch cache at the freshness the client asks for.

No `resourceVersion` means everything acknowledged before the request; `0` whatever is here; a number at least that
(or, with `Exact` and in continued lists, exactly that, read from the store).

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
"""

from __future__ import annotations

import base64
import binascii
import random
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

import orjson

from steersman.actors.apiserver.cache import Shelf, TooOld, WatchCache
from steersman.actors.apiserver.call import Call, fields_of, labels_of
from steersman.actors.apiserver.conversions import Conversions
from steersman.actors.apiserver.entry import ADDED, Entry, Event, read
from steersman.actors.apiserver.forms import JSON_HEADERS, Form, form_of
from steersman.actors.apiserver.watcher import Audience, Watch, error_line
from steersman.actors.http.feed import Feed
from steersman.actors.http.messages import Response
from steersman.actors.ports import Now, Store
from steersman.cluster.api.row import Kind
from steersman.cluster.meta import errors
from steersman.cluster.meta.errors import BadRequest, Cause, Expired, ServerTimeout
from steersman.cluster.meta.selectors import FieldSelector, LabelSelector
from steersman.cluster.store.values import Compacted, FutureRevision, Range

#: watches without a timeout of their own end after this and up to twice this
WATCH_S = 1800.0
WATCH_HEADERS = {"content-type": "application/json", "cache-control": "no-cache, private"}
#: longer lists are not put together but sent piece by piece
LIST_WHOLE_MAX = 5000
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Selection:
    """What a list or watch is about."""

    kind: Kind
    namespace: str
    labels: LabelSelector
    fields: FieldSelector

    @property
    def selects_all(self) -> bool:
        return not self.labels.requirements and not self.fields.requirements

    def test(self, prefix: bytes) -> Callable[[Entry], bool] | None:
        """Returns the predicate on entries; None when everything is selected."""
        if self.selects_all:
            return None
        labels, fields, kind = self.labels, self.fields, self.kind
        verbatim = [value.encode() for _, equal, value in fields.requirements if equal and _stands_verbatim(value)]

        def selects(entry: Entry) -> bool:
            if labels.requirements and not labels.matches(entry.labels):
                return False
            if verbatim and not all(value in entry.raw for value in verbatim):
                return False
            return not fields.requirements or fields.matches(kind.selectable_fields(entry.served(kind, prefix)))

        return selects

    def exact(self, path: str) -> str:
        """The value that a field must have; empty when it may vary."""
        return next((value for key, equal, value in self.fields.requirements if key == path and equal), "")

    def trigger(self) -> tuple[str, str] | None:
        """The field by which the cache finds a watcher of this selection."""
        for path in ("metadata.name", "spec.nodeName"):
            if value := self.exact(path):
                return path, value
        return ("metadata.namespace", self.namespace) if self.namespace else None


def _stands_verbatim(value: str) -> bool:
    """Whether an object of which a field has this value shows it in its bytes as it is."""
    text = value.isascii() and value.isprintable() and not {'"', "\\"} & {*value}
    return text and value not in ("true", "false", "") and not value.isdigit()


class Reader:
    """Answers reads."""

    def __init__(self, store: Store, cache: WatchCache, conversions: Conversions, now: Now, rng: random.Random) -> None:
        self._store = store
        self._cache = cache
        self._conversions = conversions
        self._now = now
        self._rng = rng
        #: in the order in which they were opened
        self._watches: dict[Watch, None] = {}

    def form(self, call: Call, kind: Kind) -> Form:
        return form_of(kind, call.header.get("accept", ""), call.query.get("includeObject", ""), self._now)

    def shelf(self, kind: Kind) -> Shelf:
        return self._cache.shelf(kind.prefix())

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return len(self._watches)

    def stop(self) -> None:
        """Ends every watch."""
        for watch in list(self._watches):
            watch.end()

    async def backup(self) -> AsyncIterator[bytes]:
        """Returns the pieces of a backup; the first has come already when this returns."""
        pieces = self._store.backup()
        first = await anext(pieces)
        return _from_first(first, pieces)

    async def fresh(self) -> None:
        """Returns when the cache shows everything acknowledged before the call."""
        await self._cache.fresh()

    # ---- get

    async def get(self, call: Call, kind: Kind) -> Response:
        form = self.form(call, kind)
        entry = await self.find(
            kind, call.attributes.namespace, call.attributes.name, call.query.get("resourceVersion", "")
        )
        return Response(200, JSON_HEADERS, form.one(entry))

    async def prepare(self, kind: Kind, entries: Iterable[Entry]) -> None:
        """Returns when the objects can be shown in the kind's version; raises ConversionFailed."""
        if kind.converter is not None:
            await self._conversions.prepare(kind, entries)

    async def find(self, kind: Kind, namespace: str, name: str, version: str = "") -> Entry:
        """Returns the object as fresh as `version` asks; raises NotFound."""
        if version != "0":
            await self._catch_up(version)
        entry = self.shelf(kind).get(f"{namespace}/{name}" if kind.resource.namespaced else name)
        if entry is None:
            raise errors.not_found(kind.resource.plural, name, kind.resource.group)
        await self.prepare(kind, [entry])
        return entry

    async def _catch_up(self, version: str) -> None:
        """Waits until the cache is as fresh as a `resourceVersion` asks."""
        if not version:
            await self._cache.fresh()
            return
        try:
            await self._cache.reach(revision_of(version))
        except TimeoutError:
            raise ServerTimeout(
                f"Too large resource version: {version}, current: {self._cache.revision}",
                causes=[Cause("", "Too large resource version", "ResourceVersionTooLarge")],
                retry_after_s=1,
            ) from None

    # ---- list

    def selection(self, call: Call, kind: Kind) -> Selection:
        fields = fields_of(call.query.get("fieldSelector", ""))
        if fields.requirements:
            self._check_fields(kind, fields)
        namespace = call.attributes.namespace if kind.resource.namespaced else ""
        return Selection(kind, namespace, labels_of(call.query.get("labelSelector", "")), fields)

    @staticmethod
    def _check_fields(kind: Kind, fields: FieldSelector) -> None:
        known = kind.selectable_fields({"metadata": {"name": "", "namespace": ""}, "spec": {}, "status": {}})
        for path, _, _ in fields.requirements:
            if path not in known:
                raise BadRequest(f'field label not supported: "{path}"')

    async def collection(self, call: Call, kind: Kind) -> Response:
        query = call.query
        form = self.form(call, kind)
        selection = self.selection(call, kind)
        limit = query.number("limit") or 0
        version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
        _check_match(version, match, query.get("continue", ""))
        if token := query.get("continue", ""):
            revision, start = decode_continue(token)
            return await self._list_past(selection, form, revision, start, limit)
        if match == "Exact":
            return await self._list_past(selection, form, revision_of(version), "", limit)
        if version != "0":
            await self._catch_up(version)
        if selection.fields.requirements:
            await self.prepare(kind, list(self.shelf(kind).within(selection.namespace)))
        revision = self._cache.revision
        found = self.select(selection, form)
        go_on, remaining = "", 0
        if limit and len(found) > limit:
            remaining = len(found) - limit if selection.selects_all else 0
            found = found[:limit]
            go_on = encode_continue(revision, found[-1].key)
        await self.prepare(kind, found)
        pieces = form.many(found, revision, go_on, remaining)
        if len(found) <= LIST_WHOLE_MAX:
            return Response(200, JSON_HEADERS, b"".join(pieces))
        feed = Feed(pieces, lambda: None, waiting_max=0)
        feed.end()
        return Response(200, JSON_HEADERS, feed)

    def select(self, selection: Selection, form: Form | None = None) -> list[Entry]:
        """Every selected object of the cache, in order."""
        shelf = self.shelf(selection.kind)
        prefix = f'{{"apiVersion":"{selection.kind.api_version}",'.encode()
        selects = selection.test(prefix)
        if name := selection.exact("metadata.name"):
            key = f"{selection.namespace}/{name}" if selection.namespace else name
            if selection.namespace or not selection.kind.resource.namespaced:
                entry = shelf.get(key)
                return [entry] if entry is not None and selects is not None and selects(entry) else []
        entries: Iterable[Entry] = shelf.within(selection.namespace)
        return list(entries) if selects is None else [entry for entry in entries if selects(entry)]

    async def _list_past(self, selection: Selection, form: Form, revision: int, start: str, limit: int) -> Response:
        """Lists the objects after `start` as they were at `revision`."""
        kind = selection.kind
        prefix = kind.prefix()
        selects = selection.test(f'{{"apiVersion":"{kind.api_version}",'.encode())
        base = kind.prefix(selection.namespace)
        key = f"{prefix}{start}\0".encode() if start else base.encode()
        end = base[:-1].encode() + b"0"
        found: list[Entry] = []
        more = True
        while more and not (limit and len(found) > limit):
            try:
                page = await self._store.range(Range(key=key, range_end=end, revision=revision, limit=_PAGE))
            except Compacted:
                raise Expired(
                    "The provided continue parameter is too old to display a consistent list result. "
                    "You must start a new list without the continue parameter."
                    if start
                    else f"The resourceVersion for the provided list is too old: {revision}"
                ) from None
            except FutureRevision:
                raise ServerTimeout(f"Too large resource version: {revision}", retry_after_s=1) from None
            entries = [
                Entry(kv.key.decode()[len(prefix) :], kv.mod_revision, raw)
                for kv in page.kvs
                if (raw := read(kv.value, kv.mod_revision)) is not None
            ]
            key = page.kvs[-1].key + b"\0" if page.kvs else key
            await self.prepare(kind, entries)
            found += entries if selects is None else filter(selects, entries)
            more = page.more
        go_on = ""
        if limit and len(found) > limit:
            found = found[:limit]
            go_on = encode_continue(revision, found[-1].key)
        return Response(200, JSON_HEADERS, b"".join(form.many(found, revision, go_on, 0)))

    # ---- watch

    async def watch(self, call: Call, kind: Kind) -> Response:
        query = call.query
        form = self.form(call, kind)
        selection = self.selection(call, kind)
        if call.attributes.name and not selection.exact("metadata.name"):
            requirement = ("metadata.name", True, call.attributes.name)
            selection = Selection(kind, selection.namespace, selection.labels, FieldSelector((requirement,)))
        version = query.get("resourceVersion", "")
        initial = query.flag("sendInitialEvents")
        if initial and query.get("resourceVersionMatch", "") != "NotOlderThan":
            raise BadRequest("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        if version != "0" and (version or initial):
            await self._catch_up(version)
        elif not version:
            await self._catch_up("")
        shelf = self.shelf(kind)
        audience = _audience(call, selection, form)
        told = "sendInitialEvents" in query
        try:
            if kind.converter is not None:
                await self._prepare_backlog(shelf, kind, selection, version)
            backlog = self._backlog(shelf, audience, selection, version, initial, told)
        except TooOld as error:
            return Response(200, WATCH_HEADERS, _only(error_line(Expired(str(error)).to_status())))
        audience = shelf.join(audience)
        watch = Watch(
            audience,
            backlog,
            initial_end=self._cache.revision if initial else None,
            bookmarks=query.flag("allowWatchBookmarks"),
            timeout_s=float(query.number("timeoutSeconds") or WATCH_S * (1 + self._rng.random())),
            revision=lambda: self._cache.revision,
            closed=lambda watch: self._close(shelf, audience, watch),
        )
        audience.watches[watch] = None
        self._watches[watch] = None
        return Response(200, WATCH_HEADERS, watch)

    async def _prepare_backlog(self, shelf: Shelf, kind: Kind, selection: Selection, version: str) -> None:
        """Has everything converted that a watch may begin with; when this returns nothing of it has to wait."""
        while True:
            entries = list(shelf.within(selection.namespace))
            if version not in ("", "0"):
                for event in shelf.since(revision_of(version)):
                    entries += [event.entry, *([event.previous] if event.previous is not None else [])]
            if not any(entry.lacks(kind) for entry in entries):
                return
            await self.prepare(kind, entries)

    def _backlog(
        self, shelf: Shelf, audience: Audience, selection: Selection, version: str, initial: bool, told: bool
    ) -> list[tuple[str, Event]]:
        """What a watch begins with: the state, nothing, or what happened since a revision; raises TooOld."""
        if version in ("", "0") or initial:
            entries = self.select(selection) if initial or not told else []
            return [(ADDED, Event(ADDED, entry, None)) for entry in entries]
        chosen = [(audience.choose(event), event) for event in shelf.since(revision_of(version))]
        return [(kind, event) for kind, event in chosen if kind is not None]

    def _close(self, shelf: Shelf, audience: Audience, watch: Watch) -> None:
        self._watches.pop(watch, None)
        audience.watches.pop(watch, None)
        if not audience.watches:
            shelf.leave(audience)


async def _only(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


def _audience(call: Call, selection: Selection, form: Form) -> Audience:
    kind, query = selection.kind, call.query
    return Audience(
        form,
        (form.key, selection.namespace, selection.exact("metadata.name"), query.get("labelSelector", ""),
         query.get("fieldSelector", "")),
        namespace=selection.namespace,
        selects=selection.test(f'{{"apiVersion":"{kind.api_version}",'.encode()),
        trigger=selection.trigger(),
    )  # fmt: skip


def revision_of(version: str) -> int:
    """The number in a resourceVersion; raises BadRequest."""
    if not version.isascii() or not version.isdigit() or len(version) > 18:
        raise BadRequest(f"invalid resource version {version!r}: must be a number")
    return int(version)


def _check_match(version: str, match: str, token: str) -> None:
    if match not in ("", "Exact", "NotOlderThan"):
        raise BadRequest(f'resourceVersionMatch: Unsupported value: "{match}"')
    if match and token:
        raise BadRequest("resourceVersionMatch is forbidden when continue is provided")
    if match and not version:
        raise BadRequest("resourceVersionMatch is forbidden unless resourceVersion is provided")
    if match == "Exact" and version == "0":
        raise BadRequest(
            'resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        )
    if token and version not in ("", "0"):
        raise BadRequest("specifying resource version is not allowed when using continue")
    if version:
        revision_of(version)


def encode_continue(revision: int, key: str) -> str:
    """The token with which a list goes on after `key` as of `revision`."""
    return (
        base64.urlsafe_b64encode(orjson.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": key}))
        .decode()
        .rstrip("=")
    )


def decode_continue(token: str) -> tuple[int, str]:
    """Returns (revision, key); raises BadRequest."""
    try:
        row = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        revision, start = row["rv"], row["start"]
        if isinstance(revision, int) and isinstance(start, str) and revision > 0 and "\0" not in start:
            return revision, start
    except (binascii.Error, ValueError, KeyError, TypeError):
        pass
    raise BadRequest("continue key is not valid")


async def _from_first(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
