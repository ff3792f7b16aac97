"""A write as a value: what is decided and not yet in the store, and what came of it."""

from __future__ import annotations

from msgspec import Struct

from steersman.actors.apiserver.entry import Entry, encode, stamp
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.objects import Obj
from steersman.cluster.store.values import Compare, DeleteRange, Put


class Change(Struct, frozen=True, kw_only=True):
    """A write that is decided and not yet in the store.

    Args:
        compare, operations: of the transaction; no operations means that nothing changes.
        before: what it was; None of a creation.
        obj: the object as the answer shows it; value: its canonical bytes in the store, None when it is removed.
        revision: of the object when nothing changes.
        status: of the answer.
    """

    kind: Kind
    obj: Obj
    value: bytes | None
    compare: tuple[Compare, ...] = ()
    operations: tuple[Put | DeleteRange, ...] = ()
    before: Entry | None = None
    revision: int = 0
    status: int = 200
    warnings: tuple[str, ...] = ()
    removed: bool = False


class Outcome(Struct, frozen=True, kw_only=True):
    """A write that is in the store (or would be): the object at its revision."""

    change: Change
    revision: int

    def entry(self) -> Entry:
        """The object as the cache will hold it."""
        change = self.change
        meta = change.obj["metadata"]
        key = f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else meta["name"]
        value = change.value if change.value is not None else encode(change.obj)
        found = Entry(key, self.revision, stamp(value, self.revision) if self.revision else value)
        if found.lacks(change.kind):
            found.keep(change.kind, change.obj)
        return found
