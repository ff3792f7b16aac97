"""Columns of Node and Namespace."""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.columns.column import Age, Column, Columns, Name, age, joined, name, rows, sub, wide
from steersman.cluster.meta.objects import Obj, condition, labels_of

_ROLE_PREFIX = "node-role.kubernetes.io/"


def node_status(node: Obj) -> str:
    """`Ready`, `NotReady` or `Unknown`, with `,SchedulingDisabled` on a cordoned node."""
    ready = condition(node, "Ready")
    word = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    return word + (",SchedulingDisabled" if sub(node, "spec").get("unschedulable") else "")


def node_roles(node: Obj) -> str:
    """The roles that labels give a node, `<none>` without any."""
    labels = labels_of(node)
    roles = {key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX)}
    roles |= {labels["kubernetes.io/role"]} if labels.get("kubernetes.io/role") else set()
    return joined(sorted(role for role in roles if role))


def _address(node: Obj, kind: str) -> str:
    found = (row.get("address", "") for row in rows(node, "status", "addresses") if row.get("type") == kind)
    return next(found, "") or "<none>"


def _node(node: Obj, now: float) -> list[Any]:
    info = sub(node, "status", "nodeInfo")
    return [
        name(node),
        node_status(node),
        node_roles(node),
        age(node, now),
        info.get("kubeletVersion", ""),
        _address(node, "InternalIP"),
        _address(node, "ExternalIP"),
        info.get("osImage") or "<unknown>",
        info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


def _namespace(obj: Obj, now: float) -> list[Any]:
    return [name(obj), sub(obj, "status").get("phase", ""), age(obj, now)]


_WIDE = wide("Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime")
COLUMNS = {
    ("", "Node"): Columns((Name, Column("Status"), Column("Roles"), Age, Column("Version"), *_WIDE), _node),
    ("", "Namespace"): Columns((Name, Column("Status"), Age), _namespace),
}
