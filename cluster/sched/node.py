"""What scheduling reads of a Node object; two nodes that compare equal are the same to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from steersman.cluster.meta.objects import Obj, labels_of
from steersman.cluster.meta.quantity import milli, whole
from steersman.cluster.sched.terms import Taint, taints_of


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """Args: allocatable: (resource, amount), cpu in thousandths; images: (name, size in bytes)."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    unschedulable: bool
    allocatable: tuple[tuple[str, int], ...]
    images: tuple[tuple[str, int], ...]


def node_info(node: Obj) -> NodeInfo:
    spec, status = node.get("spec") or {}, node.get("status") or {}
    allocatable = status.get("allocatable") or status.get("capacity") or {}
    images = {
        name: int(row.get("sizeBytes") or 0) for row in status.get("images") or () for name in row.get("names") or ()
    }
    return NodeInfo(
        name=node["metadata"]["name"],
        labels=dict(labels_of(node)),
        taints=taints_of(spec.get("taints") or ()),
        unschedulable=bool(spec.get("unschedulable")),
        allocatable=tuple(sorted((name, milli(q) if name == "cpu" else whole(q)) for name, q in allocatable.items())),
        images=tuple(sorted(images.items())),
    )
