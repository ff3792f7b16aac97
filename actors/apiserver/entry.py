"""One version of an object as the watch cache holds it: bytes that are encoded once, decoded at most once.

The store's values carry no resourceVersion: it is the store's revision, put into the bytes here.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import orjson

from steersman.cluster.api.row import Kind
from steersman.cluster.meta.objects import Obj

_META = b'"metadata":{'
_VERSION = b'"resourceVersion":"'
_START = b'{"apiVersion":'

ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"


def encode(obj: Obj) -> bytes:
    """The canonical bytes of an object for the store: type first, then metadata without its resourceVersion."""
    meta = {key: value for key, value in obj["metadata"].items() if key not in ("resourceVersion", "selfLink")}
    row: Obj = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": meta}
    row.update((key, value) for key, value in obj.items() if key not in row)
    # orjson leaves up to twice the room it needed in what it returns
    return bytes(memoryview(orjson.dumps(row)))


def read(value: bytes, revision: int) -> bytes | None:
    """Returns a stored value with its `resourceVersion`; None for what is no object (reservations, foreign keys)."""
    if value.startswith(_START) and _META in value:
        return stamp(value, revision)
    try:
        obj: Any = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(obj, dict) or "apiVersion" not in obj or "kind" not in obj:
        return None
    return stamp(encode(obj), revision) if isinstance(obj.get("metadata"), dict) else None


def stamp(value: bytes, revision: int) -> bytes:
    """Returns the canonical bytes of an object with `resourceVersion` set, in front of all other metadata."""
    start = value.find(_META)
    start += len(_META)
    rest = start
    if value.startswith(_VERSION, start):
        rest = value.index(b'"', start + len(_VERSION)) + 1
        if value[rest : rest + 1] == b",":
            rest += 1
    comma = b"" if value[rest : rest + 1] == b"}" else b","
    return b'%b"resourceVersion":"%d"%b%b' % (value[:start], revision, comma, value[rest:])


class _Meta(msgspec.Struct):
    labels: dict[str, str] | None = None


class _Labelled(msgspec.Struct):
    metadata: _Meta


_read_labels = msgspec.json.Decoder(_Labelled).decode
#: entries that hold their object decoded, the oldest first; a decoded object takes about ten times its bytes
_decoded: deque[Entry] = deque()
#: of them so many hold on to it, so that a look at every object does not fill the memory
DECODED_MAX = 4096


class Entry:
    """An object at one revision; shared, never changed."""

    __slots__ = ("_bodies", "_labels", "_obj", "key", "raw", "revision")

    def __init__(self, key: str, revision: int, raw: bytes, obj: Obj | None = None) -> None:
        #: `namespace/name`, or `name` of a cluster-scoped object
        self.key = key
        self.revision = revision
        #: JSON as stored, with its resourceVersion
        self.raw = raw
        self._obj = obj
        self._labels: dict[str, str] | None = None
        self._bodies: dict[str, tuple[bytes, Obj]] | None = None

    @property
    def obj(self) -> Obj:
        """The object as stored, with its resourceVersion."""
        obj = self._obj
        if obj is None:
            obj = self._obj = orjson.loads(self.raw)
            _decoded.append(self)
            while len(_decoded) > DECODED_MAX:
                _decoded.popleft()._obj = None
        return obj

    @property
    def is_decoded(self) -> bool:
        return self._obj is not None

    @property
    def labels(self) -> dict[str, str]:
        """The object's labels, found without decoding the rest of it."""
        if self._labels is None:
            self._labels = _read_labels(self.raw).metadata.labels or {}
        return self._labels

    def body(self, kind: Kind, prefix: bytes) -> bytes:
        """The JSON in the kind's version; `prefix` is how objects stored in that version begin."""
        return self.raw if self.raw.startswith(prefix) else self._served(kind)[0]

    def served(self, kind: Kind, prefix: bytes) -> Obj:
        """The object in the kind's version."""
        return self.obj if self.raw.startswith(prefix) else self._served(kind)[1]

    def _served(self, kind: Kind) -> tuple[bytes, Obj]:
        if self._bodies is None:
            self._bodies = {}
        found = self._bodies.get(kind.api_version)
        if found is None:
            obj = {**kind.served(orjson.loads(self.raw)), "apiVersion": kind.api_version, "kind": kind.resource.kind}
            found = self._bodies[kind.api_version] = (stamp(encode(obj), self.revision), obj)
        return found


class Event:
    """A change of one object; its encodings are made once and shared by all watchers."""

    __slots__ = ("_encoded", "entry", "previous", "revision", "type")

    def __init__(self, kind: str, entry: Entry, previous: Entry | None) -> None:
        self.type = kind
        #: the new version; of a deleted object its last version, at the revision of the delete
        self.entry = entry
        self.previous = previous
        self.revision = entry.revision
        self._encoded: dict[tuple[str, str], bytes] = {}

    def shown(self, kind: str) -> Entry:
        """The object that a watcher sees for which the change is of type `kind`.

        An object that leaves a selection is shown as it was when it was last selected.
        """
        if kind == DELETED and self.type != DELETED and self.previous is not None:
            return Entry(self.entry.key, self.revision, stamp(self.previous.raw, self.revision))
        return self.entry

    def encoded(self, form: str, kind: str) -> bytes | None:
        return self._encoded.get((form, kind))

    def keep(self, form: str, kind: str, data: bytes) -> bytes:
        self._encoded[form, kind] = data
        return data
