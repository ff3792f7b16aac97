"""The shapes an object is answered in: as it is, as a row of a Table, or only its metadata; chosen by `Accept`.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import orjson

from steersman.actors.apiserver.entry import Entry
from steersman.cluster.api.row import Kind
from steersman.cluster.api.table import table
from steersman.cluster.meta.errors import NotAcceptable
from steersman.cluster.meta.objects import Obj

#: objects of a list that are put together at once
ENTRIES_IN_PIECE = 500
JSON_HEADERS = {"content-type": "application/json", "cache-control": "no-cache, private"}


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the client takes: `shape` is empty (whole objects), `Table` or `PartialObjectMetadata`."""

    shape: str = ""
    group_version: str = ""


@lru_cache(maxsize=1024)
def accepted(header: str, *, tabular: bool = True) -> Accepted:
    """Reads an `Accept` header; the first clause that can be served wins.

    Args:
        tabular: whether the answer has rows and columns at all.

    Raises:
        NotAcceptable: none can.
    """
    if not header:
        return Accepted()
    for clause in header.split(","):
        media, *rows = (part.strip() for part in clause.split(";"))
        if media not in ("application/json", "*/*", "application/*"):
            continue
        parameters = dict(row.split("=", 1) for row in rows if "=" in row)
        shape = parameters.get("as", "")
        if not shape:
            return Accepted()
        shape = shape.removesuffix("List") if shape.startswith("Partial") else shape
        known = parameters.get("g") == "meta.k8s.io" and parameters.get("v") in ("v1", "v1beta1")
        if known and shape in (("Table", "PartialObjectMetadata") if tabular else ("PartialObjectMetadata",)):
            return Accepted(shape, f"meta.k8s.io/{parameters['v']}")
    raise NotAcceptable("only the following media types are accepted: application/json")


class Form(Protocol):
    """One way to show objects.

    Attributes:
        kind: of the objects.
        key: names the encoding, for sharing it between watchers.
    """

    kind: Kind
    key: str

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


def _list_meta(revision: int, go_on: str, remaining: int) -> Obj:
    meta: Obj = {"resourceVersion": str(revision)}
    if go_on:
        meta["continue"] = go_on
        if remaining > 0:
            meta["remainingItemCount"] = remaining
    return meta


class Whole:
    """Objects as they are, in the version of the kind."""

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
            yield b",%b" % b",".join(bodies) if start else b",".join(bodies)
        yield b"]}"

    def bookmark(self, revision: int, annotations: Obj | None) -> bytes:
        return orjson.dumps(
            {"kind": self.kind.resource.kind, "apiVersion": self.kind.api_version, **_mark(revision, annotations)}
        )


def _mark(revision: int, annotations: Obj | None) -> Obj:
    meta: Obj = {"resourceVersion": str(revision), "creationTimestamp": None}
    if annotations:
        meta["annotations"] = annotations
    return {"metadata": meta}


class Partial:
    """Only type and metadata."""

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
        yield orjson.dumps(
            {
                "kind": "PartialObjectMetadataList",
                "apiVersion": self.version,
                "metadata": _list_meta(revision, go_on, remaining),
                "items": [self._row(entry) for entry in entries],
            }
        )

    def bookmark(self, revision: int, annotations: Obj | None) -> bytes:
        return orjson.dumps(
            {"kind": "PartialObjectMetadata", "apiVersion": self.version, **_mark(revision, annotations)}
        )


class Tabular:
    """Rows and columns as `kubectl get` prints them.

    Args:
        include: `None`, `Metadata` or `Object`: what of each object its row carries.
    """

    def __init__(self, kind: Kind, group_version: str, include: str, now: Callable[[], float]) -> None:
        self.kind = kind
        self.version = group_version
        self.include = include if include in ("None", "Metadata", "Object") else "Metadata"
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
        yield orjson.dumps(made)

    def bookmark(self, revision: int, annotations: Obj | None) -> bytes:
        row = {
            "cells": [],
            "object": {"kind": "PartialObjectMetadata", "apiVersion": self.version, **_mark(revision, annotations)},
        }
        made = self._table((), revision, False)
        made["rows"] = [row]
        return orjson.dumps(made)


def prefix_of(kind: Kind) -> bytes:
    """How the canonical bytes of objects in the kind's version begin."""
    return f'{{"apiVersion":"{kind.api_version}",'.encode()


def form_of(kind: Kind, accept: str, include: str, now: Callable[[], float]) -> Form:
    """The form that an `Accept` header asks for; raises NotAcceptable."""
    wanted = accepted(accept)
    if wanted.shape == "Table":
        return Tabular(kind, wanted.group_version, include, now)
    if wanted.shape:
        return Partial(kind, wanted.group_version)
    return _whole(kind)


_WHOLE: dict[int, Whole] = {}


def _whole(kind: Kind) -> Whole:
    found = _WHOLE.get(id(kind))
    if found is None or found.kind is not kind:
        if len(_WHOLE) > 2000:
            _WHOLE.clear()
        found = _WHOLE[id(kind)] = Whole(kind)
    return found
