"""The rows of `managedFields`: their form, their order, and how they are kept few.

A row says which manager owns which fields, by which operation, in which version and through which subresource; it
knows nothing of how ownership comes about.

Source: k8s.io/apimachinery/pkg/util/managedfields/internal/{managedfields,capmanagers}.go
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from steersman.cluster.api.fieldset import FieldTree, is_field_tree, union
from steersman.cluster.meta.objects import Obj

#: more updaters than this are folded into one, so that a crowd of clients cannot grow an object without end
UPDATERS_MAX = 10
_FOLDED = "ancient-changes"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of `managedFields`."""

    manager: str
    operation: str
    api_version: str
    subresource: str
    time: str
    fields: FieldTree

    @property
    def identity(self) -> tuple[str, str, str, str]:
        version = "" if self.operation == "Apply" else self.api_version
        return self.manager, self.operation, version, self.subresource

    def to_dict(self) -> Obj:
        row: Obj = {"manager": self.manager, "operation": self.operation, "apiVersion": self.api_version}
        if self.time:
            row["time"] = self.time
        row["fieldsType"] = "FieldsV1"
        row["fieldsV1"] = self.fields
        if self.subresource:
            row["subresource"] = self.subresource
        return row

    def describe(self) -> str:
        text = f'"{self.manager}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        if self.operation == "Update":
            text += f" using {self.api_version}"
        return text


Entries = dict[tuple[str, str, str, str], Entry]


def decode(rows: Any) -> Entries | None:
    """The entries of `managedFields`; None when they have not the form a server writes."""
    if not isinstance(rows, list):
        return None
    found: Entries = {}
    for row in rows:
        if not isinstance(row, dict) or row.get("operation") not in ("Apply", "Update"):
            return None
        fields = row.get("fieldsV1")
        if not isinstance(fields, dict) or row.get("fieldsType") != "FieldsV1" or not row.get("apiVersion"):
            return None
        entry = Entry(
            str(row.get("manager", "")),
            row["operation"],
            str(row.get("apiVersion", "")),
            str(row.get("subresource", "")),
            str(row.get("time") or ""),
            fields,
        )
        found[entry.identity] = entry
    return found


def known_entries(live: Obj | None, new: Obj, subresource: str) -> Entries:
    """The entries to go on from: those of the new object where a client may set them, else the stored ones."""
    stored = ((live or {}).get("metadata") or {}).get("managedFields")
    sent = (new.get("metadata") or {}).get("managedFields")
    if not subresource and sent and sent is not stored and sent != stored:
        if sent == [{}]:
            return {}
        entries = decode(sent)
        if entries and all(is_field_tree(entry.fields) for entry in entries.values()):
            return entries
    return decode(stored) or {}


def with_entries(obj: Obj, entries: Entries) -> Obj:
    kept = _folded([entry for entry in entries.values() if entry.fields])
    kept.sort(key=lambda e: (e.operation, e.time, e.manager, e.api_version, e.subresource))
    metadata = {key: value for key, value in (obj.get("metadata") or {}).items() if key != "managedFields"}
    if kept:
        metadata["managedFields"] = [entry.to_dict() for entry in kept]
    return {**obj, "metadata": metadata}


def _folded(entries: list[Entry]) -> list[Entry]:
    """Joins the oldest updaters of each API version until there are few enough."""
    if len(entries) <= UPDATERS_MAX:
        return entries
    updaters = [entry for entry in entries if entry.operation == "Update"]
    if len(updaters) <= UPDATERS_MAX:
        return entries
    updaters.sort(key=lambda e: (e.time, e.manager, e.api_version, e.subresource))
    kept = {entry.identity: entry for entry in entries}
    first: dict[str, Entry] = {}
    left = len(updaters)
    for entry in updaters:
        if left <= UPDATERS_MAX:
            break
        earlier = first.setdefault(entry.api_version, entry)
        if earlier is entry:
            continue
        bucket = replace(earlier, manager=_FOLDED, subresource="")
        del kept[entry.identity]
        older = kept.pop(bucket.identity, None) or kept.pop(earlier.identity)
        kept[bucket.identity] = replace(bucket, fields=union(older.fields, entry.fields), time=entry.time)
        left -= 1
    return list(kept.values())
