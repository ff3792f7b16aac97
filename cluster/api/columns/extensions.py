"""Columns of CustomResourceDefinition, PodDisruptionBudget, HorizontalPodAutoscaler and Scale."""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.columns.column import Age, Column, Columns, Name, age, name, rows, sub
from steersman.cluster.api.rules import autoscaling
from steersman.cluster.meta.objects import Obj


def _definition(obj: Obj, now: float) -> list[Any]:
    return [name(obj), obj["metadata"].get("creationTimestamp") or "<unknown>"]


def _budget(obj: Obj, now: float) -> list[Any]:
    spec = sub(obj, "spec")
    bounds = [spec.get(key) for key in ("minAvailable", "maxUnavailable")]
    allowed = sub(obj, "status").get("disruptionsAllowed", 0)
    return [name(obj), *("N/A" if bound is None else str(bound) for bound in bounds), allowed, age(obj, now)]


def _metric(spec: Obj, current: list[Obj]) -> str:
    """`cpu: 10%/80%` of one metric."""
    kind = spec.get("type", "")
    key = kind[:1].lower() + kind[1:]
    source = sub(spec, key)
    label = source.get("name") or sub(source, "metric").get("name", kind)
    seen: Obj = next((sub(row, key) for row in current if _same_metric(sub(row, key), source)), {})
    target, now_value = sub(source, "target"), sub(seen, "current")
    for field, unit in (("averageUtilization", "%"), ("averageValue", ""), ("value", "")):
        if target.get(field) is not None:
            value = now_value.get(field)
            suffix = " (avg)" if field == "averageValue" and kind != "Resource" else ""
            return f"{label}: {'<unknown>' if value is None else f'{value}{unit}'}/{target[field]}{unit}{suffix}"
    return f"{label}: <unknown>"


def _same_metric(left: Obj, right: Obj) -> bool:
    return bool(left) and (left.get("name"), sub(left, "metric").get("name")) == (
        right.get("name"),
        sub(right, "metric").get("name"),
    )


def _autoscaler(obj: Obj, now: float) -> list[Any]:
    if obj.get("apiVersion") == "autoscaling/v1":
        obj = autoscaling.to_v2(obj)
    spec, status = sub(obj, "spec"), sub(obj, "status")
    reference = sub(spec, "scaleTargetRef")
    metrics = [_metric(row, rows(status, "currentMetrics")) for row in rows(spec, "metrics")]
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
    ("apiextensions.k8s.io", "CustomResourceDefinition"): Columns((Name, Column("Created At")), _definition),
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
