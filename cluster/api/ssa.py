"""Server-side apply: who owns which field, what an apply changes, and when it conflicts.

Decides the object after an apply and the `managedFields` after any write; knows nothing of admission, defaults or
storage. Managers are told apart by (name, operation, subresource), updaters by API version as well. What somebody owns
is compared in the version in which it is written down.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import orjson

from steersman.cluster.api import lastapplied
from steersman.cluster.api.fieldset import (
    LEAF,
    MAP,
    FieldTree,
    Patterns,
    Repeated,
    beside,
    child_of,
    children_of,
    declared_set,
    difference,
    differences,
    held_set,
    intersection,
    list_elements,
    paths,
    shape,
    union,
    within,
)
from steersman.cluster.api.lastapplied import KUBECTL
from steersman.cluster.api.managed import Entries, Entry, decode, known_entries, with_entries
from steersman.cluster.api.patch import copied
from steersman.cluster.api.pruning import pruned, restored
from steersman.cluster.api.regrain import regrained
from steersman.cluster.api.schema.node import SchemaNode
from steersman.cluster.meta.errors import BadRequest, Cause, Conflict
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.times import format_time

_BEFORE_FIRST_APPLY = "before-first-apply"

#: metadata that the server keeps and nobody owns
_SERVER_METADATA = frozenset(
    ("name", "namespace", "uid", "creationTimestamp", "resourceVersion", "generation", "selfLink", "managedFields")
)
_TYPE = frozenset(("apiVersion", "kind"))
_NAMED: FieldTree = {"f:metadata": {}}
_POD: Obj = {"metadata": {}, "spec": {"containers": []}}
_WORKLOAD = {"strategy": {}, "updateStrategy": {}, "template": _POD}
#: what every object has before it is written, so that creating it owns its content and not these frames
_EMPTY: Obj = {
    "metadata": {},
    "spec": {**_WORKLOAD, "containers": [], "jobTemplate": {"metadata": {}, "spec": {"template": _POD}}},
    "status": {},
}


def _compare(schema: SchemaNode | None, live: Obj, new: Obj) -> tuple[FieldTree, FieldTree]:
    """Returns (added or changed, removed) fields, without what belongs to the server alone."""
    touched: FieldTree = {}
    removed: FieldTree = {}
    for key in dict.fromkeys([*new, *live]):
        old, value = live.get(key), new.get(key)
        if key in _TYPE or old is value:
            continue
        child = child_of(schema, key)
        if key == "metadata":
            old, value = _owned_metadata(old), _owned_metadata(value)
        if old is None and key in _EMPTY and isinstance(value, dict):
            old = {}
        if value is None:
            removed["f:" + key] = held_set(child, old)
        elif old is None:
            touched["f:" + key] = held_set(child, value)
        elif old != value:
            changed, gone = differences(child, old, value)
            if changed is not None:
                touched["f:" + key] = changed
            if gone is not None:
                removed["f:" + key] = gone
    return touched, removed


#: specs up to this size are remembered with what they consist of
_KNOWN_BYTES_MAX = 16 * 1024


@lru_cache(maxsize=256)
def _held_of_spec(schema: SchemaNode, text: bytes) -> FieldTree | None:
    """What a new object's spec consists of; remembered, since most pods are made of a template that made others."""
    return beside(schema, _EMPTY["spec"], orjson.loads(text))


def _beside_frame(schema: SchemaNode | None, key: str, value: Any) -> FieldTree | None:
    if key == "spec" and schema is not None:
        text = orjson.dumps(value)
        if len(text) <= _KNOWN_BYTES_MAX:
            return _held_of_spec(schema, text)
    return beside(schema, _EMPTY[key], value)


def _held_by_creator(schema: SchemaNode | None, new: Obj) -> FieldTree:
    """What a new object sets, without what belongs to the server alone."""
    touched: FieldTree = {}
    for key, value in new.items():
        if value is None or key in _TYPE:
            continue
        child = child_of(schema, key)
        found = _owned_metadata(value) if key == "metadata" else value
        node = _beside_frame(child, key, found) if key in _EMPTY else held_set(child, found)
        if node is not None:
            touched["f:" + key] = node
    return touched


def _owned_metadata(metadata: Any) -> Obj:
    return {key: value for key, value in (metadata or {}).items() if key not in _SERVER_METADATA}


#: of another API version of the kind: its schema, and what turns an object into that version and back; None when there
#: is none
Versions = Callable[[str], tuple[SchemaNode, Callable[[Obj], Obj], Callable[[Obj], Obj]] | None]


def _one_version(_api_version: str) -> None:
    return None


def _whole(obj: Obj) -> Obj:
    return obj


class _Change:
    """What a write changes, in whichever version somebody's fields are written down."""

    def __init__(
        self,
        schema: SchemaNode | None,
        live: Obj | None,
        new: Obj,
        api_version: str,
        other: Versions,
        only: Patterns = (),
    ) -> None:
        self._live, self._new, self._other, self._only = live, new, other, only
        self.touched, self.removed = self._compared(schema, live, new)
        self._found = {api_version: (self.touched, self.removed)}

    def _compared(self, schema: SchemaNode | None, live: Obj | None, new: Obj) -> tuple[FieldTree, FieldTree]:
        touched, removed = (_held_by_creator(schema, new), {}) if live is None else _compare(schema, live, new)
        return (within(touched, self._only), within(removed, self._only)) if self._only else (touched, removed)

    def left_of(self, entry: Entry, *, is_mine: bool = False) -> FieldTree:
        """What remains of an entry's fields; nothing where its version is served no more."""
        seen = self.seen_by(entry)
        if seen is None:
            return {}
        touched, removed = seen
        left = difference(entry.fields, removed)
        return left if is_mine else difference(left, touched)

    def seen_by(self, entry: Entry) -> tuple[FieldTree, FieldTree] | None:
        """Returns (added or changed, removed) fields in the entry's version; None when there is no such version."""
        found = self._found.get(entry.api_version)
        if found is None and self._live is None:
            found = self.touched, self.removed
        elif found is None and self._live is not None and (version := self._other(entry.api_version)) is not None:
            schema, convert, _ = version
            found = self._compared(schema, convert(self._live), convert(self._new))
        if found is not None:
            self._found[entry.api_version] = found
        return found


def track_update(
    schema: SchemaNode | None,
    live: Obj | None,
    new: Obj,
    *,
    manager: str,
    api_version: str,
    now: float,
    subresource: str = "",
    other: Versions = _one_version,
    may_regrain: bool = False,
    only: Patterns = (),
) -> Obj:
    """Returns `new` with the `managedFields` that follow from writing it over `live`; both are left as they are.

    Args:
        live: the stored object; None for a create.
        new: the object about to be stored.
        manager: who writes.
        api_version: of the request.
        now: seconds since the epoch.
        subresource: written through, empty for the object itself.
        other: the other versions of the kind.
        may_regrain: whether the schema may be another than that under which fields were written down.
        only: the fields that can be written so; empty for all.
    """
    entries = known_entries(live, new, subresource)
    if live is not None and not entries:
        return with_entries(new, entries)
    if live is not None and may_regrain:
        _regrain(schema, entries, api_version, other)
    change = _Change(schema, live, new, api_version, other, only)
    mine = (manager, "Update", api_version, subresource)
    original = entries.get(mine)
    for identity, entry in list(entries.items()):
        left = change.left_of(entry, is_mine=identity == mine)
        if left is not entry.fields:
            entries[identity] = replace(entry, fields=left)
    if change.touched:
        fields = union(entries[mine].fields if original else {}, change.touched)
        entries[mine] = Entry(manager, "Update", api_version, subresource, format_time(now), fields)
    return with_entries(new, entries)


def apply(
    schema: SchemaNode | None,
    live: Obj | None,
    applied: Obj,
    *,
    manager: str,
    force: bool,
    api_version: str,
    now: float,
    subresource: str = "",
    other: Versions = _one_version,
    only: Patterns = (),
    part: Callable[[Obj], Obj] = _whole,
) -> Obj:
    """Returns the object after `manager` applied its configuration; it shares with `live` and `applied` what stays.

    Fields that the manager applied before and leaves out now are removed unless someone else owns them too. When
    nothing changes, the result equals `live`, times included. Where kubectl applied on the client's side before, its
    server-side apply takes that over without conflicts.

    Args:
        live: the stored object; None when the apply creates it.
        applied: the whole configuration the manager has an opinion about.
        force: take over fields that others own with other values.
        other: the other versions of the kind.
        only: the fields that can be written so; empty for all.
        part: what of an object can be written so; of that, an untracked one gets a first owner.

    Raises:
        Conflict: without `force`, others own fields whose values would change; `causes` names them.
        BadRequest: the configuration carries `managedFields`, or a keyed list in it has ambiguous items.
    """
    if (applied.get("metadata") or {}).get("managedFields") is not None:
        raise BadRequest("metadata.managedFields must be nil")
    entries = decode(((live or {}).get("metadata") or {}).get("managedFields")) or {}
    if live is not None and not entries:
        everything = _held_by_creator(schema, part(live))
        everything = within(everything, only) if only else everything
        first = Entry(_BEFORE_FIRST_APPLY, "Update", api_version, subresource, format_time(now), everything)
        entries[first.identity] = first
    _regrain(schema, entries, api_version, other)
    mine = (manager, "Apply", "", subresource)
    last = entries.get(mine)
    config = _server_free(applied)
    declared = declared_set(schema, config)
    declared = within(declared, only) if only else declared
    merged: Obj = applied if live is None else _merge(schema, live, config)
    if last is not None and (last.fields != declared or last.api_version != api_version):
        owners = [entry for identity, entry in entries.items() if identity != mine]
        merged = _without_unset(schema, merged, last, declared, owners, api_version, other)
    change = _Change(schema, live, merged, api_version, other, only)
    others = [entry for identity, entry in entries.items() if identity != mine]
    if not force:
        is_kubectl = manager == KUBECTL and live is not None
        _refuse_conflicts(others, change, lastapplied.allowed(schema, live) if is_kubectl and live else {})
    for entry in others:
        left = change.left_of(entry)
        if left is not entry.fields:
            entries[entry.identity] = replace(entry, fields=left)
    time = format_time(now) if live is None or change.touched or change.removed else (last.time if last else "")
    entries[mine] = Entry(manager, "Apply", api_version, subresource, time, declared)
    if manager == KUBECTL:
        merged = lastapplied.followed(applied, merged)
    return with_entries(merged, entries)


def _without_unset(
    schema: SchemaNode | None,
    merged: Obj,
    last: Entry,
    declared: FieldTree,
    owners: Sequence[Entry],
    api_version: str,
    other: Versions,
) -> Obj:
    """The object without what its manager's last configuration declared, and neither this one nor anybody else does.

    That is taken away in the version in which it was declared, and what somebody owns in this version comes back.
    """

    def owned_in(version: str) -> FieldTree:
        owned = union(declared, _NAMED)  # every configuration says its name; most fields are the same in all versions
        for entry in owners:
            owned = union(owned, entry.fields) if entry.api_version == version else owned
        return owned

    if last.api_version == api_version:
        kept: Obj = pruned(schema, merged, last.fields, owned_in(api_version))
        return kept
    there = other(last.api_version)
    if there is None:
        return merged
    then_schema, to_then, back = there
    then = to_then(merged)
    left = pruned(then_schema, then, last.fields, owned_in(last.api_version))
    if left == then:
        return merged
    found: Obj = restored(schema, merged, back(left), owned_in(api_version))
    return found


def _regrain(schema: SchemaNode | None, entries: Entries, api_version: str, other: Versions) -> None:
    """Fits what everybody owns to the schema there is now."""
    for identity, entry in entries.items():
        same = entry.api_version == api_version
        found = None if same else other(entry.api_version)
        fields = regrained(schema if same else found[0] if found is not None else None, entry.fields)
        if fields is not entry.fields:
            entries[identity] = replace(entry, fields=fields)


def _server_free(applied: Obj) -> Obj:
    config = {key: value for key, value in applied.items() if key not in _TYPE}
    metadata = _owned_metadata(applied.get("metadata"))
    config.pop("metadata", None)
    return {"metadata": metadata, **config} if metadata else config


def _refuse_conflicts(others: Sequence[Entry], change: _Change, allowed: FieldTree) -> None:
    seen = ((entry, change.seen_by(entry)) for entry in others)
    clashes = ((entry, intersection(entry.fields, changes[0])) for entry, changes in seen if changes is not None)
    found = [(entry, list(paths(difference(clash, allowed)))) for entry, clash in clashes]
    found = sorted(((e, p) for e, p in found if p), key=lambda row: row[0].describe())
    causes = [
        Cause(path, f"conflict with {entry.describe()}", "FieldManagerConflict")
        for entry, rows in found
        for path in rows
    ]
    if not causes:
        return
    if len(causes) == 1:
        detail = f"1 conflict: {causes[0].message}: {causes[0].field}"
    else:
        lines = []
        for entry, rows in found:
            lines.append(f"conflicts with {entry.describe()}:")
            lines += [f"- {path}" for path in rows]
        detail = f"{len(causes)} conflicts: " + "\n".join(lines)
    raise Conflict(f"Apply failed with {detail}", causes=causes)


def merged(schema: SchemaNode | None, live: Obj, config: Obj) -> Obj:
    """Returns a configuration laid over an object, as an apply would, whoever owns what."""
    found: Obj = copied(_merge(schema, live, config))
    return found


def atomics(schema: SchemaNode | None, config: Any, path: str = "") -> list[str]:
    """The paths of atomic lists and maps that a configuration sets."""
    kind = shape(schema, config)
    if kind == LEAF:
        is_atomic = isinstance(config, list) or (isinstance(config, dict) and schema is not None)
        return [path] if is_atomic else []
    if kind == MAP:
        return [text for key, item in config.items() for text in atomics(child_of(schema, key), item, f"{path}.{key}")]
    items = schema.items if schema is not None else None
    return [text for item in config for text in atomics(items, item, f"{path}[]") if isinstance(item, dict)]


def _merge(schema: SchemaNode | None, live: Any, config: Any) -> Any:
    """The configuration laid over the live value; atomic values and scalars are the configuration's."""
    kind = shape(schema, config)
    if kind == LEAF or live == config or shape(schema, live) != kind:
        return config
    if kind == MAP:
        merged = {key: value for key, value in live.items() if key not in config}
        placed = {key: merged.get(key) for key in live}
        properties, additional = children_of(schema)
        for key, value in config.items():
            child = properties.get(key) or additional
            # an empty keyed list or set declares nothing, so that it comes and goes with its items
            if value != [] or key in live or shape(child, value) == LEAF:
                placed[key] = _merge(child, live.get(key), value)
        return {key: value for key, value in placed.items() if value is not None}
    assert schema is not None
    before, wanted = list_elements(schema, live, kind), list_elements(schema, config, kind)
    if before is None or wanted is None:
        return config
    merged_items: list[Any] = []
    for element in _merged_order(list(before), list(wanted)):
        old = before.get(element)
        if element in wanted:
            merged_items.append(_merge(schema.items, None if isinstance(old, Repeated) else old, wanted[element]))
        elif isinstance(old, Repeated):
            merged_items += old
        else:
            merged_items.append(old)
    return merged_items


def _merged_order(before: list[str], wanted: list[str]) -> list[str]:
    """The items of the configuration in their order, the others where they stood among them."""
    in_config = set(wanted)
    result: list[str] = []
    done: set[str] = set()
    at = 0
    for element in before:
        if element not in in_config:
            result.append(element)
            continue
        if element in done:
            continue
        while wanted[at] != element:
            result.append(wanted[at])
            done.add(wanted[at])
            at += 1
        result.append(element)
        done.add(element)
        at += 1
    return result + wanted[at:]
