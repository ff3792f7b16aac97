"""Columns of ResourceClaim and ResourceSlice, and of RuntimeClass."""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.columns.column import Age, Column, Columns, Name, age, name, rows, sub
from steersman.cluster.meta.objects import Obj, is_deleting


def claim_state(claim: Obj) -> str:
    """`pending`, `allocated,reserved`, `deleted,allocated`, ..."""
    words = ["deleted"] if is_deleting(claim) else []
    if sub(claim, "status").get("allocation") is not None:
        words.append("allocated")
        words += ["reserved"] if rows(claim, "status", "reservedFor") else []
    elif not words:
        words.append("pending")
    return ",".join(words)


def _claim(obj: Obj, now: float) -> list[Any]:
    return [name(obj), claim_state(obj), age(obj, now)]


def _slice(obj: Obj, now: float) -> list[Any]:
    spec = sub(obj, "spec")
    pool = sub(spec, "pool").get("name", "")
    return [name(obj), spec.get("nodeName") or "", spec.get("driver", ""), pool, age(obj, now)]


def _runtime(obj: Obj, now: float) -> list[Any]:
    return [name(obj), obj.get("handler", ""), age(obj, now)]


_SLICE = (Name, Column("Node"), Column("Driver"), Column("Pool"), Age)
COLUMNS = {
    ("resource.k8s.io", "ResourceClaim"): Columns((Name, Column("State"), Age), _claim),
    ("resource.k8s.io", "ResourceSlice"): Columns(_SLICE, _slice),
    ("node.k8s.io", "RuntimeClass"): Columns((Name, Column("Handler"), Age), _runtime),
}
