"""Rules of horizontal pod autoscalers: one stored form, version 2, seen through two versions.

What version 1 has no field for travels in annotations, so that writing through it loses nothing.

Source: k8s.io/kubernetes/pkg/apis/autoscaling/{v1/conversion.go,v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from typing import Any

import orjson

from steersman.cluster.api.rules.scaling import default_behavior
from steersman.cluster.meta.objects import Obj

_TARGET = "targetCPUUtilizationPercentage"
_CURRENT = "currentCPUUtilizationPercentage"
#: field of version 2, by part of the object, to the annotation that carries it through version 1
_CARRIED = {
    ("spec", "metrics"): "autoscaling.alpha.kubernetes.io/metrics",
    ("spec", "behavior"): "autoscaling.alpha.kubernetes.io/behavior",
    ("status", "currentMetrics"): "autoscaling.alpha.kubernetes.io/current-metrics",
    ("status", "conditions"): "autoscaling.alpha.kubernetes.io/conditions",
}
#: part of the object, its list of metrics, the field of version 1 for the CPU among them, and the key of the value
_PERCENTS = (("spec", "metrics", _TARGET, "target"), ("status", "currentMetrics", _CURRENT, "current"))
_CPU_PERCENT = 80


def default_v2(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        spec["metrics"] = [_cpu("target", _CPU_PERCENT)]
    default_behavior(spec.get("behavior"))


def default_v1(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("minReplicas", 1)
    if _CARRIED["spec", "metrics"] not in (obj["metadata"].get("annotations") or {}):
        spec.setdefault(_TARGET, _CPU_PERCENT)


def to_v2(obj: Obj) -> Obj:
    """Returns the stored form of an autoscaling/v1 autoscaler."""
    annotations: dict[str, str] = dict(obj["metadata"].get("annotations") or {})
    parts: dict[str, Obj] = {part: dict(obj.get(part) or {}) for part in ("spec", "status")}
    for (part, field), name in _CARRIED.items():
        if name in annotations and (value := _decoded(annotations[name], field)) is not None:
            parts[part][field] = value
            del annotations[name]
    for part, field, old, key in _PERCENTS:
        if old in parts[part]:
            parts[part][field] = [_cpu(key, parts[part].pop(old)), *(parts[part].get(field) or ())]
    return _joined(obj, "autoscaling/v2", parts, annotations)


def from_v2(obj: Obj) -> Obj:
    """Returns the autoscaling/v1 form of an autoscaler."""
    annotations: dict[str, str] = dict(obj["metadata"].get("annotations") or {})
    parts: dict[str, Obj] = {part: dict(obj.get(part) or {}) for part in ("spec", "status")}
    for part, field, old, key in _PERCENTS:
        metrics: list[Obj] = list(parts[part].get(field) or ())
        cpu = next((row for row in metrics if _percent(row, key) is not None), None)
        if cpu is not None:
            parts[part][old] = _percent(cpu, key)
            metrics.remove(cpu)
            parts[part][field] = metrics
    for (part, field), name in _CARRIED.items():
        if value := parts[part].pop(field, None):
            annotations[name] = orjson.dumps(value).decode()
    return _joined(obj, "autoscaling/v1", parts, annotations)


def _joined(obj: Obj, api_version: str, parts: dict[str, Obj], annotations: dict[str, str]) -> Obj:
    meta = {key: value for key, value in obj["metadata"].items() if key != "annotations"}
    if annotations:
        meta["annotations"] = annotations
    kept = {part: value for part, value in parts.items() if value or part in obj}
    return {**obj, "apiVersion": api_version, "metadata": meta, **kept}


def _cpu(key: str, percent: int) -> Obj:
    """The metric of version 2 that version 1 has a field for."""
    value: Obj = {"averageUtilization": percent}
    if key == "target":
        value["type"] = "Utilization"
    return {"type": "Resource", "resource": {"name": "cpu", key: value}}


def _percent(metric: Obj, key: str) -> int | None:
    source = metric.get("resource") or {}
    if metric.get("type") != "Resource" or source.get("name") != "cpu":
        return None
    found: int | None = (source.get(key) or {}).get("averageUtilization")
    return found


def _decoded(text: str, field: str) -> Any:
    """What an annotation carries; None when it is not of the field's form."""
    try:
        value = orjson.loads(text)
    except ValueError:
        return None
    if field == "behavior":
        return value if isinstance(value, dict) else None
    return value if isinstance(value, list) and all(isinstance(row, dict) for row in value) else None
