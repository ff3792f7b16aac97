"""One version of an object as the watch cache holds it: bytes that are encoded once, decoded at most once.

The store's values carry no resourceVersion: it is the store's revision, put into the bytes here.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import orjson

from steersman.cluster.api.row import Kind
from steersman.cluster.meta.errors import InternalError
from steersman.cluster.meta.objects import Obj

_META = b'"metadata":{'
_VERSION = b'"resourceVersion":"'
_START = b'{"apiVersion":'

#: forms of one object that are kept: a few versions, each of a few generations of its definition
_FORMS_MAX = 8

ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"


def encode(obj: Obj) -> bytes:
    """The canonical bytes of an object for the store: type first, then metadata without its resourceVersion."""
    meta = obj["metadata"]
    if "resourceVersion" in meta or "selfLink" in meta:
        meta = {key: value for key, value in meta.items() if key not in ("resourceVersion", "selfLink")}
    row: Obj = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": None, **obj}
    row["metadata"] = meta
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


class Entry(msgspec.Struct, eq=False, gc=False):
    """An object at one revision; shared, never changed.

    No cycle goes through it, and there is one for every object: Python is not to look for any.

    Args:
        key: `namespace/name`, or `name` of a cluster-scoped object.
        raw: JSON as stored, with its resourceVersion.
    """

    key: str
    revision: int
    raw: bytes
    _obj: Obj | None = None
    _labels: dict[str, str] | None = None
    #: by form of a kind: what it shows where that is not the stored object
    _bodies: dict[str, bytes] | None = None
    #: the form in which it has been found to show as it is stored
    _fits: str = ""

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
        return self.raw if self._is_plain(kind, prefix) else self._served(kind)

    def served(self, kind: Kind, prefix: bytes) -> Obj:
        """The object in the kind's version."""
        if self._is_plain(kind, prefix):
            return self.obj
        body = self._served(kind)
        found: Obj = self.obj if body is self.raw else orjson.loads(body)
        return found

    def _is_plain(self, kind: Kind, prefix: bytes) -> bool:
        return self.raw.startswith(prefix) and (kind.plain or self._fits == kind.form)

    def _served(self, kind: Kind) -> bytes:
        found = self._bodies.get(kind.form or kind.api_version) if self._bodies is not None else None
        if found is not None:
            return found
        stored: Obj = orjson.loads(self.raw)
        if self.lacks(kind):
            raise InternalError(f"{self.key} is stored as {stored['apiVersion']} and not converted yet")
        return self._show(kind, stored)

    def _show(self, kind: Kind, stored: Obj) -> bytes:
        obj = {**kind.served(stored), "apiVersion": kind.api_version, "kind": kind.resource.kind}
        if obj == self.obj:
            self._fits = kind.form
            return self.raw
        if self._bodies is None or len(self._bodies) >= _FORMS_MAX:
            self._bodies = {}
        found = self._bodies[kind.form or kind.api_version] = stamp(encode(obj), self.revision)
        return found

    def lacks(self, kind: Kind) -> bool:
        """Whether the kind's webhook has to convert the object before it can be shown."""
        if kind.converter is None or self.raw.startswith(b'{"apiVersion":"%b",' % kind.api_version.encode()):
            return False
        return self._bodies is None or kind.form not in self._bodies

    def keep(self, kind: Kind, converted: Obj) -> None:
        """Takes what the kind's webhook made of the object."""
        self._show(kind, converted)

    def later(self, revision: int) -> Entry:
        """The same object at another revision."""
        found = Entry(self.key, revision, stamp(self.raw, revision))
        if self._bodies is not None:
            found._bodies = {form: stamp(body, revision) for form, body in self._bodies.items()}
        return found


class Event(msgspec.Struct, eq=False, gc=False):
    """A change of one object; its encodings are made once and shared by all watchers.

    Args:
        entry: the new version; of a deleted object its last version, at the revision of the delete.
    """

    type: str
    entry: Entry
    previous: Entry | None
    revision: int = 0
    _encoded: dict[tuple[str, str], bytes] | None = None

    def __post_init__(self) -> None:
        self.revision = self.entry.revision

    def shown(self, kind: str) -> Entry:
        """The object that a watcher sees for which the change is of type `kind`.

        An object that leaves a selection is shown as it was when it was last selected.
        """
        if kind == DELETED and self.type != DELETED and self.previous is not None:
            return self.previous.later(self.revision)
        return self.entry

    def encoded(self, form: str, kind: str) -> bytes | None:
        return self._encoded.get((form, kind)) if self._encoded is not None else None

    def keep(self, form: str, kind: str, data: bytes) -> bytes:
        if self._encoded is None:
            self._encoded = {}
        self._encoded[form, kind] = data
        return data
