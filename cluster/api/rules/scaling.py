"""Rules of horizontal pod autoscalers: metrics, their targets, and how fast replicas follow them.

Source: k8s.io/kubernetes/pkg/apis/autoscaling/{v2/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from steersman.cluster.api.rules.fields import bad, bad_all, forbidden, not_negative, required, segments, unsupported
from steersman.cluster.api.rules.resources import container_resource_name
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, path_segment_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import parse

_PERCENT = "targetCPUUtilizationPercentage"
_STABLE_S_MAX = 3600
_PERIOD_S_MAX = 1800
_TARGETS = ("AverageValue", "Utilization", "Value")
_SOURCES = ("ContainerResource", "External", "Object", "Pods", "Resource")
_EITHER = "must set either a target value for metric or a per-pod target"
_UP = [{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]
_DOWN = [{"type": "Percent", "value": 100, "periodSeconds": 15}]


def default_behavior(behavior: Obj | None) -> None:
    """Fills in how replicas follow the metrics, where that is said at all."""
    if behavior is None:
        return
    up, down = behavior.setdefault("scaleUp", {}), behavior.setdefault("scaleDown", {})
    up.setdefault("stabilizationWindowSeconds", 0)
    for rules, policies in ((up, _UP), (down, _DOWN)):
        rules.setdefault("selectPolicy", "Max")
        if rules.get("policies") is None:
            rules["policies"] = [dict(row) for row in policies]


def validate(obj: Obj) -> list[Cause]:
    """Every broken rule of an autoscaler, whichever its version."""
    spec: Obj = obj.get("spec") or {}
    low, high = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    causes: list[Cause] = []
    if low < 1:
        causes.append(bad("spec.minReplicas", low, "must be greater than or equal to 1"))
    if high < 1:
        causes.append(bad("spec.maxReplicas", high, "must be greater than 0"))
    if high < low:
        causes.append(bad("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`"))
    causes += _reference("spec.scaleTargetRef", spec.get("scaleTargetRef") or {})
    metrics = spec.get("metrics") or ()
    if spec.get(_PERCENT, 1) < 1:
        path = "spec.metrics[0].resource.target.averageUtilization"
        causes.append(bad(path, spec[_PERCENT], "must be greater than 0"))
    for index, metric in enumerate(metrics):
        causes += _metric(f"spec.metrics[{index}]", metric)
    if low == 0 and not any(metric.get("type") in ("Object", "External") for metric in metrics):
        detail = "must specify at least one Object or External metric to support scaling to zero replicas"
        causes.append(forbidden("spec.metrics", detail))
    for key in ("scaleUp", "scaleDown"):
        if (rules := (spec.get("behavior") or {}).get(key)) is not None:
            causes += _rules(f"spec.behavior.{key}", rules)
    return causes


def validate_status(new: Obj, _old: Obj) -> list[Cause]:
    status = new.get("status") or {}
    keys = ("currentReplicas", "desiredReplicas")
    return [cause for key in keys for cause in not_negative(f"status.{key}", status.get(key))]


def _reference(path: str, found: Obj) -> list[Cause]:
    return segments(path, found, ("kind", "name"))


def _metric(path: str, metric: Obj) -> list[Cause]:
    kind = metric.get("type", "")
    field = kind[:1].lower() + kind[1:]
    given = [key for key in _RULES if metric.get(key) is not None]
    causes = [required(f"{path}.type", "must specify a metric source type")] if not kind else []
    unknown = [] if kind in _SOURCES else [unsupported(f"{path}.type", kind, _SOURCES)]
    causes += unknown
    if given:
        causes += _RULES[given[0]](f"{path}.{given[0]}", metric[given[0]])
    causes += unknown
    if not unknown and field not in given:
        causes.append(required(f"{path}.{field}", "must populate information for the given metric source"))
    if len(given) > 1:
        detail = "must populate the given metric source only"
        causes += [forbidden(f"{path}.{other}", detail) for other in sorted(given) if other != field]
    return causes


def _target(path: str, target: Mapping[str, Any]) -> list[Cause]:
    kind = target.get("type", "")
    causes: list[Cause] = []
    if not kind:
        causes.append(required(f"{path}.type", "must specify a metric target type"))
    if kind not in _TARGETS:
        causes.append(bad(f"{path}.type", kind, "must be either Utilization, Value, or AverageValue"))
    for key in ("value", "averageValue"):
        if target.get(key) is not None and parse(target[key]) <= 0:
            causes.append(bad(f"{path}.{key}", target[key], "must be positive"))
    share = target.get("averageUtilization")
    if share is not None and share < 1:
        causes.append(bad(f"{path}.averageUtilization", share, "must be greater than 0"))
    return causes


def _identifier(path: str, metric: Obj) -> list[Cause]:
    name = metric.get("name", "")
    if not name:
        return [required(f"{path}.name", "must specify a metric name")]
    return bad_all(f"{path}.name", name, path_segment_errors(name))


def _object(path: str, source: Obj) -> list[Cause]:
    target = source.get("target") or {}
    causes = _reference(f"{path}.describedObject", source.get("describedObject") or {})
    causes += _identifier(f"{path}.metric", source.get("metric") or {}) + _target(f"{path}.target", target)
    if target.get("value") is None and target.get("averageValue") is None:
        causes.append(required(f"{path}.target.averageValue", "must set either a target value or averageValue"))
    return causes


def _external(path: str, source: Obj) -> list[Cause]:
    target = source.get("target") or {}
    causes = _identifier(f"{path}.metric", source.get("metric") or {}) + _target(f"{path}.target", target)
    given = [key for key in ("value", "averageValue") if target.get(key) is not None]
    if not given:
        causes.append(required(f"{path}.target.averageValue", _EITHER))
    if len(given) > 1:
        detail = "may not set both a target value for metric and a per-pod target"
        causes.append(forbidden(f"{path}.target.value", detail))
    return causes


def _pods(path: str, source: Obj) -> list[Cause]:
    target = source.get("target") or {}
    causes = _identifier(f"{path}.metric", source.get("metric") or {}) + _target(f"{path}.target", target)
    if target.get("averageValue") is None:
        causes.append(required(f"{path}.target.averageValue", "must specify a positive target averageValue"))
    return causes


def _resource(path: str, source: Obj) -> list[Cause]:
    causes = [] if source.get("name") else [required(f"{path}.name", "must specify a resource name")]
    target = source.get("target") or {}
    causes += _target(f"{path}.target", target)
    given = [key for key in ("averageUtilization", "averageValue") if target.get(key) is not None]
    if not given:
        detail = "must set either a target raw value or a target utilization"
        causes.append(required(f"{path}.target.averageUtilization", detail))
    elif len(given) > 1:
        detail = "may not set both a target raw value and a target utilization"
        causes.append(forbidden(f"{path}.target.averageValue", detail))
    return causes


def _container_resource(path: str, source: Obj) -> list[Cause]:
    name, container = source.get("name", ""), source.get("container", "")
    causes = container_resource_name(f"{path}.name", name) if name else []
    if container:
        wrong = bad_all(f"{path}.container", container, label_1123_errors(container))
    else:
        wrong = [required(f"{path}.container", "must specify a container")]
    found = _resource(path, source)
    return causes + found[: not name] + wrong + found[not name :]


#: in the order in which they are looked at
_RULES: Mapping[str, Callable[[str, Obj], list[Cause]]] = {
    "object": _object,
    "external": _external,
    "pods": _pods,
    "resource": _resource,
    "containerResource": _container_resource,
}


def _rules(path: str, rules: Obj) -> list[Cause]:
    causes: list[Cause] = []
    stable, where = rules.get("stabilizationWindowSeconds"), f"{path}.stabilizationWindowSeconds"
    if stable is not None and stable < 0:
        causes.append(bad(where, stable, "must be greater than or equal to zero"))
    if stable is not None and stable > _STABLE_S_MAX:
        causes.append(bad(where, stable, f"must be less than or equal to {_STABLE_S_MAX}"))
    choices = ("Disabled", "Max", "Min")
    if rules.get("selectPolicy") not in (None, *choices):
        causes.append(unsupported(f"{path}.selectPolicy", rules["selectPolicy"], choices))
    if not rules.get("policies"):
        causes.append(required(f"{path}.policies", "must specify at least one Policy"))
    if rules.get("tolerance") is not None and parse(rules["tolerance"]) < 0:
        causes.append(bad(f"{path}.tolerance", rules["tolerance"], "must be greater than or equal to 0"))
    for index, row in enumerate(rules.get("policies") or ()):
        causes += _policy(f"{path}.policies[{index}]", row)
    return causes


def _policy(path: str, row: Obj) -> list[Cause]:
    causes: list[Cause] = []
    kind, value, period = row.get("type", ""), row.get("value", 0), row.get("periodSeconds", 0)
    if kind not in ("Percent", "Pods"):
        causes.append(unsupported(f"{path}.type", kind, ("Percent", "Pods")))
    if value <= 0:
        causes.append(bad(f"{path}.value", value, "must be greater than zero"))
    if period <= 0:
        causes.append(bad(f"{path}.periodSeconds", period, "must be greater than zero"))
    if period > _PERIOD_S_MAX:
        causes.append(bad(f"{path}.periodSeconds", period, f"must be less than or equal to {_PERIOD_S_MAX}"))
    return causes
