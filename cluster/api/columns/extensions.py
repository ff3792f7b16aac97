"""Columns of CustomResourceDefinition, PodDisruptionBudget, HorizontalPodAutoscaler and Scale."""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.columns.column import Age, Column, Columns, CreatedAt, Name, age, name, rows, sub
from steersman.cluster.api.rules import autoscaling
from steersman.cluster.meta.objects import Obj


def _definition(obj: Obj, now: float) -> list[Any]:
    return [name(obj), obj["metadata"].get("creationTimestamp") or "<unknown>"]


def _budget(obj: Obj, now: float) -> list[Any]:
    spec = sub(obj, "spec")
    bounds = [spec.get(key) for key in ("minAvailable", "maxUnavailable")]
    allowed = sub(obj, "status").get("disruptionsAllowed", 0)
    return [name(obj), *("N/A" if bound is None else str(bound) for bound in bounds), allowed, age(obj, now)]


def _metric(spec: Obj, seen: Obj) -> str:
    """`cpu: 10%/80%` of one metric and what was last seen of it."""
    kind = spec.get("type", "")
    key = kind[:1].lower() + kind[1:]
    source, found = sub(spec, key), sub(seen, key, "current")
    target = sub(source, "target")
    match kind:
        case "Resource" | "ContainerResource":
            label = f"{source.get('name', '')}: "
            if target.get("averageValue") is None:
                wanted, field, unit = target.get("averageUtilization"), "averageUtilization", "%"
                return f"{label}{_told(found, field, unit)}/{'<auto>' if wanted is None else f'{wanted}%'}"
            return f"{label}{_told(found, 'averageValue')}/{target['averageValue']}"
        case "Pods":
            return f"{_told(found, 'averageValue')}/{target.get('averageValue', 0)}"
        case "External" | "Object":
            if target.get("averageValue") is not None:
                return f"{_told(found, 'averageValue')}/{target['averageValue']} (avg)"
            return f"{_told(found, 'value')}/{target.get('value', 0)}"
    return "<unknown type>"


def _told(found: Obj, field: str, unit: str = "") -> str:
    return "<unknown>" if found.get(field) is None else f"{found[field]}{unit}"


def _autoscaler(obj: Obj, now: float) -> list[Any]:
    if obj.get("apiVersion") == "autoscaling/v1":
        obj = autoscaling.to_v2(obj)
    spec, status = sub(obj, "spec"), sub(obj, "status")
    reference = sub(spec, "scaleTargetRef")
    seen = rows(status, "currentMetrics")
    metrics = [
        _metric(row, seen[index] if index < len(seen) else {}) for index, row in enumerate(rows(spec, "metrics"))
    ]
    text = ", ".join(metrics[:2]) + (f" + {len(metrics) - 2} more..." if len(metrics) > 2 else "")
    return [
        name(obj),
        f"{reference.get('kind', '')}/{reference.get('name', '')}",
        text or "<none>",
        "<unset>" if spec.get("minReplicas") is None else str(spec["minReplicas"]),
        spec.get("maxReplicas", 0),
        status.get("currentReplicas", 0),
        age(obj, now),
    ]


def _scale(obj: Obj, now: float) -> list[Any]:
    wanted, found = (sub(obj, part).get("replicas", 0) for part in ("spec", "status"))
    return [name(obj), wanted, found, age(obj, now)]


_AUTOSCALER = Columns(
    (
        Name,
        Column("Reference"),
        Column("Targets"),
        Column("MinPods"),
        Column("MaxPods"),
        Column("Replicas"),
        Age,
    ),
    _autoscaler,
)
COLUMNS = {
    ("apiextensions.k8s.io", "CustomResourceDefinition"): Columns((Name, CreatedAt), _definition),
    ("policy", "PodDisruptionBudget"): Columns(
        (
            Name,
            Column("Min Available"),
            Column("Max Unavailable"),
            Column("Allowed Disruptions", type="integer"),
            Age,
        ),
        _budget,
    ),
    ("autoscaling", "HorizontalPodAutoscaler"): _AUTOSCALER,
    ("autoscaling", "Scale"): Columns(
        (Column("Name"), Column("Desired", type="integer"), Column("Available", type="integer"), Age), _scale
    ),
}
