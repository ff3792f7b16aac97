"""Columns of Role, ClusterRole and their bindings."""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.columns.column import Age, Column, Columns, CreatedAt, Name, age, name, rows, sub, wide
from steersman.cluster.meta.objects import Obj


def _role(obj: Obj, now: float) -> list[Any]:
    return [name(obj), obj["metadata"].get("creationTimestamp") or "<unknown>"]


def _subjects(obj: Obj, kind: str) -> str:
    found = [row for row in rows(obj, "subjects") if row.get("kind") == kind]
    if kind == "ServiceAccount":
        return ", ".join(f"{row.get('namespace', '')}/{row.get('name', '')}" for row in found)
    return ", ".join(row.get("name", "") for row in found)


def _binding(obj: Obj, now: float) -> list[Any]:
    role = sub(obj, "roleRef")
    return [
        name(obj),
        f"{role.get('kind', '')}/{role.get('name', '')}",
        age(obj, now),
        *(_subjects(obj, kind) for kind in ("User", "Group", "ServiceAccount")),
    ]


_GROUP = "rbac.authorization.k8s.io"
_ROLE = Columns((Name, CreatedAt), _role)
_BINDING = Columns((Name, Column("Role"), Age, *wide("Users", "Groups", "ServiceAccounts")), _binding)
COLUMNS = {
    (_GROUP, "Role"): _ROLE,
    (_GROUP, "ClusterRole"): _ROLE,
    (_GROUP, "RoleBinding"): _BINDING,
    (_GROUP, "ClusterRoleBinding"): _BINDING,
}
