"""Accessors of objects held as JSON trees; every room reads metadata, owners and conditions through these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from steersman.cluster.meta.times import format_time

#: an API object as decoded from JSON; objects taken from a cache are shared and must not be changed
Obj = dict[str, Any]


def name(obj: Mapping[str, Any]) -> str:
    found: str = obj["metadata"]["name"]
    return found


def namespace(obj: Mapping[str, Any]) -> str:
    """The object's namespace; empty for a cluster-scoped one."""
    found: str = obj["metadata"].get("namespace", "")
    return found


def uid(obj: Mapping[str, Any]) -> str:
    found: str = obj["metadata"].get("uid", "")
    return found


def key(obj: Mapping[str, Any]) -> str:
    """Returns `namespace/name`, or `name` for a cluster-scoped object: the key of work queues and indexes."""
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def split_key(text: str) -> tuple[str, str]:
    """Returns (namespace, name) of a key; the namespace is empty for a cluster-scoped object."""
    space, _, rest = text.rpartition("/")
    return space, rest


def labels_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return obj["metadata"].get("annotations") or {}


def is_deleting(obj: Mapping[str, Any]) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def owner_references(obj: Mapping[str, Any]) -> list[Obj]:
    return obj["metadata"].get("ownerReferences") or []


def controller_of(obj: Mapping[str, Any]) -> Obj | None:
    """The owner reference of the managing controller, if there is one."""
    for reference in owner_references(obj):
        if reference.get("controller"):
            return reference
    return None


def controller_reference(owner: Mapping[str, Any], api_version: str, kind: str) -> Obj:
    """The owner reference with which `owner` controls another object."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": name(owner),
        "uid": uid(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def condition(obj: Mapping[str, Any], kind: str) -> Obj | None:
    """The condition of type `kind` in the object's status, if there is one."""
    found: Iterable[Obj] = (obj.get("status") or {}).get("conditions") or ()
    return next((row for row in found if row.get("type") == kind), None)


def is_true(obj: Mapping[str, Any], kind: str) -> bool:
    """Whether the status has condition `kind` with status `True`."""
    row = condition(obj, kind)
    return row is not None and row.get("status") == "True"


def with_condition(
    conditions: Iterable[Obj], kind: str, status: str, now: float, *, reason: str = "", message: str = ""
) -> list[Obj]:
    """Returns the conditions with `kind` set; its `lastTransitionTime` moves only when `status` changes."""
    row: Obj = {"type": kind, "status": status}
    if reason:
        row["reason"] = reason
    if message:
        row["message"] = message
    rows, placed = [], False
    for old in conditions:
        if old.get("type") != kind:
            rows.append(old)
            continue
        same = old.get("status") == status
        row["lastTransitionTime"] = old.get("lastTransitionTime") if same else format_time(now)
        rows.append({**{k: v for k, v in old.items() if k not in ("reason", "message")}, **row})
        placed = True
    if not placed:
        rows.append({**row, "lastTransitionTime": format_time(now)})
    return rows


def is_pod_ready(pod: Mapping[str, Any]) -> bool:
    return is_true(pod, "Ready")


def is_pod_active(pod: Mapping[str, Any]) -> bool:
    """Whether a pod counts for its owner: neither finished nor being deleted."""
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed") and not is_deleting(pod)
