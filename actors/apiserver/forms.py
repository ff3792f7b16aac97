"""The shapes an object is answered in: as it is, as a row of a Table, or only its metadata; chosen by `Accept`.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Literal, Protocol

import orjson

from steersman.actors.apiserver.entry import Entry
from steersman.cluster.api.columns.descriptions import Documented
from steersman.cluster.api.negotiation import JSON, PARTIAL_LIST, PROTOBUF, TABLE, negotiate
from steersman.cluster.api.protobuf.codec import encode
from steersman.cluster.api.protobuf.wire import write_field
from steersman.cluster.api.row import Kind
from steersman.cluster.api.table import included, table
from steersman.cluster.meta.errors import NotAcceptable
from steersman.cluster.meta.objects import Obj

#: what of a list is put together at once: so many objects, or so many bytes
ENTRIES_IN_PIECE, PIECE_BYTES = 500, 256 * 1024
JSON_HEADERS = {"content-type": "application/json", "cache-control": "no-cache, private"}
TEXT_HEADERS = {
    "content-type": "text/plain; charset=utf-8",
    "cache-control": "no-cache, private",
    "x-content-type-options": "nosniff",
}


#: what is shown: an object, a list, or the changes of a watch
Shows = Literal["object", "list", "watch"]


def line(kind: str, body: bytes) -> bytes:
    """An event as a watch sends it."""
    return b'{"type":"%b","object":%b}\n' % (kind.encode(), body)


class Form(Protocol):
    """One way to show objects.

    Attributes:
        kind: of the objects.
        key: names the encoding, for sharing it between watchers.
        media: type of a watch.
    """

    kind: Kind
    key: str
    media: str

    def one(self, entry: Entry) -> bytes:
        """The answer to a get, and the object of a watch's first event."""
        ...

    def later(self, entry: Entry) -> bytes:
        """The object of the other events of a watch."""
        ...

    def many(self, entries: Sequence[Entry], revision: int, go_on: str, remaining: int) -> Iterator[bytes]:
        """The pieces of the answer to a list."""
        ...

    def bookmark(self, revision: int, annotations: Obj | None) -> bytes: ...

    def event(self, kind: str, body: bytes) -> bytes:
        """An event of a watch about an object that was put in this form."""
        ...


def _in_pieces(head: Obj, key: str, rows: Sequence[Obj]) -> Iterator[bytes]:
    """The JSON of `head` with some rows under a key, some of them at a time: each takes the interpreter for a while."""
    yield b'%b,"%b":[' % (orjson.dumps(head)[:-1], key.encode())
    for start in range(0, len(rows), ENTRIES_IN_PIECE):
        yield b"," * bool(start) + orjson.dumps(rows[start : start + ENTRIES_IN_PIECE])[1:-1]
    yield b"]}"


def _list_meta(revision: int, go_on: str, remaining: int) -> Obj:
    meta: Obj = {"resourceVersion": str(revision)} if revision else {}
    if go_on:
        meta["continue"] = go_on
        if remaining > 0:
            meta["remainingItemCount"] = remaining
    return meta


class Whole:
    """Objects as they are, in the version of the kind."""

    media = JSON
    event = staticmethod(line)

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.key = kind.form or kind.api_version
        self.prefix = prefix_of(kind)

    def one(self, entry: Entry) -> bytes:
        return entry.body(self.kind, self.prefix)

    later = one

    def many(self, entries: Sequence[Entry], revision: int, go_on: str, remaining: int) -> Iterator[bytes]:
        kind, prefix = self.kind, self.prefix
        head = {
            "kind": kind.list_kind,
            "apiVersion": kind.api_version,
            "metadata": _list_meta(revision, go_on, remaining),
        }
        plain = kind.plain
        yield b'%b,"items":[' % orjson.dumps(head)[:-1]
        for start in range(0, len(entries), ENTRIES_IN_PIECE):
            part = entries[start : start + ENTRIES_IN_PIECE]
            bodies = [
                entry.raw if plain and entry.raw.startswith(prefix) else entry.body(kind, prefix) for entry in part
            ]
            ends, at = list(accumulate(map(len, bodies))), 0
            while at < len(bodies):
                stop = max(at + 1, bisect_right(ends, PIECE_BYTES + (ends[at - 1] if at else 0)))
                yield b"," * bool(start or at) + b",".join(bodies[at:stop])
                at = stop
        yield b"]}"

    def bookmark(self, revision: int, annotations: Obj | None) -> bytes:
        return orjson.dumps(
            {"kind": self.kind.resource.kind, "apiVersion": self.kind.api_version, **_mark(revision, annotations)}
        )


def _mark(revision: int, annotations: Obj | None) -> Obj:
    meta: Obj = {"resourceVersion": str(revision)}
    if annotations:
        meta["annotations"] = annotations
    return {"metadata": meta}


class Partial:
    """Only type and metadata."""

    media = JSON
    event = staticmethod(line)

    def __init__(self, kind: Kind, group_version: str) -> None:
        self.kind = kind
        self.version = group_version
        self.key = f"partial {group_version}"

    def _row(self, entry: Entry) -> Obj:
        return {"kind": "PartialObjectMetadata", "apiVersion": self.version, "metadata": entry.obj["metadata"]}

    def one(self, entry: Entry) -> bytes:
        return orjson.dumps(self._row(entry))

    later = one

    def many(self, entries: Sequence[Entry], revision: int, go_on: str, remaining: int) -> Iterator[bytes]:
        meta = _list_meta(revision, go_on, remaining)
        head = {"kind": "PartialObjectMetadataList", "apiVersion": self.version, "metadata": meta}
        return _in_pieces(head, "items", [self._row(entry) for entry in entries])

    def bookmark(self, revision: int, annotations: Obj | None) -> bytes:
        return orjson.dumps(
            {"kind": "PartialObjectMetadata", "apiVersion": self.version, **_mark(revision, annotations)}
        )


class Tabular:
    """Rows and columns as `kubectl get` prints them.

    Args:
        include: `None`, `Metadata` or `Object`: what of each object its row carries.
        documented: tells what fields are.
    """

    media = JSON
    event = staticmethod(line)

    def __init__(
        self, kind: Kind, group_version: str, include: str, now: Callable[[], float], documented: Documented
    ) -> None:
        self.kind = kind
        self.version = group_version
        self._documented = documented
        self.include = included(include)
        self.key = f"table {group_version} {self.include} {kind.form or kind.api_version}"
        self._now = now
        self._prefix = prefix_of(kind)

    def _table(self, entries: Iterable[Entry], revision: int, definitions: bool) -> Obj:
        made = table(
            self.kind.resource.kind,
            self.kind.api_version,
            [entry.served(self.kind, self._prefix) for entry in entries],
            self._now(),
            include_object=self.include,
            resource_version=str(revision) if revision else "",
            columns=self.kind.printer_columns if self.kind.is_custom else None,
            with_definitions=definitions,
            documented=self._documented,
        )
        made["apiVersion"] = self.version
        return made

    def one(self, entry: Entry) -> bytes:
        return orjson.dumps(self._table((entry,), entry.revision, True))

    def later(self, entry: Entry) -> bytes:
        return orjson.dumps(self._table((entry,), entry.revision, False))

    def many(self, entries: Sequence[Entry], revision: int, go_on: str, remaining: int) -> Iterator[bytes]:
        made = self._table(entries, revision, True)
        made["metadata"] = _list_meta(revision, go_on, remaining)
        rows = made.pop("rows")
        return _in_pieces(made, "rows", rows)

    def bookmark(self, revision: int, annotations: Obj | None) -> bytes:
        row = {
            "cells": [],
            "object": {"kind": "PartialObjectMetadata", "apiVersion": self.version, **_mark(revision, annotations)},
        }
        made = self._table((), revision, False)
        made["rows"] = [row]
        return orjson.dumps(made)


class Packed:
    """Another form's objects in protobuf, for a watch; each event is preceded by its length.

    Source: k8s.io/apimachinery/pkg/util/framer, runtime/serializer/protobuf
    """

    media = f"{PROTOBUF};stream=watch"

    def __init__(self, form: Form) -> None:
        self._form, self.kind, self.key = form, form.kind, f"packed {form.key}"

    def one(self, entry: Entry) -> bytes:
        return encode(orjson.loads(self._form.one(entry)))

    later = one

    def many(self, entries: Sequence[Entry], revision: int, go_on: str, remaining: int) -> Iterator[bytes]:
        yield encode(orjson.loads(b"".join(self._form.many(entries, revision, go_on, remaining))))

    def bookmark(self, revision: int, annotations: Obj | None) -> bytes:
        return encode(orjson.loads(self._form.bookmark(revision, annotations)))

    @staticmethod
    def event(kind: str, body: bytes) -> bytes:
        text = write_field(1, kind.encode()) + write_field(2, write_field(1, body))
        return len(text).to_bytes(4) + text


def prefix_of(kind: Kind) -> bytes:
    """How the canonical bytes of objects in the kind's version begin."""
    return f'{{"apiVersion":"{kind.api_version}",'.encode()


def form_of(
    kind: Kind, accept: str, include: str, now: Callable[[], float], documented: Documented, shows: Shows
) -> Form:
    """The form that an `Accept` header asks for.

    Raises:
        NotAcceptable: there is none. BadRequest: `includeObject` is none of what a row may carry.
    """
    wanted = negotiate(accept, stream=shows == "watch", has_protobuf=not kind.is_custom)
    if wanted.shape == TABLE:
        return Tabular(kind, wanted.group_version, include, now, documented)
    if wanted.shape:
        if shows != "watch" and (wanted.shape == PARTIAL_LIST) is not (shows == "list"):
            article = "a" if shows == "list" else "not a"
            raise NotAcceptable(
                f"you requested {wanted.shape}, but the requested object is {article} list ({_go_type(kind, shows)})"
            )
        form: Form = Partial(kind, wanted.group_version)
    else:
        form = _whole(kind)
    return Packed(form) if wanted.media == PROTOBUF and shows == "watch" else form


def _go_type(kind: Kind, shows: Shows) -> str:
    """What Kubernetes calls the value that it cannot show."""
    group, name = kind.resource.group, kind.list_kind if shows == "list" else kind.resource.kind
    if kind.is_custom:
        return "*unstructured.UnstructuredList" if shows == "list" else "*unstructured.Unstructured"
    return f"*{'core' if group in ('', 'events.k8s.io') else group.partition('.')[0]}.{name}"


_WHOLE: dict[int, Whole] = {}


def _whole(kind: Kind) -> Whole:
    found = _WHOLE.get(id(kind))
    if found is None or found.kind is not kind:
        if len(_WHOLE) > 2000:
            _WHOLE.clear()
        found = _WHOLE[id(kind)] = Whole(kind)
    return found
