"""Rules of what keeps pods running: deployments, replica sets, daemon sets, replication controllers.

Source: k8s.io/kubernetes/pkg/apis/apps/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steersman.cluster.api.row import meta_fields
from steersman.cluster.api.rules import defaults
from steersman.cluster.api.rules.fields import (
    bad,
    forbidden,
    immutable,
    label_selector,
    not_negative,
    required,
    unsupported,
)
from steersman.cluster.api.rules.pods import validate_template
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.selectors import SelectorError, from_dict

_UNMATCHED = "`selector` does not match template `labels`"


def replica_fields(obj: Obj) -> dict[str, str]:
    return {**meta_fields(obj), "status.replicas": str((obj.get("status") or {}).get("replicas", 0))}


def default_deployment(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    defaults.template(spec)
    spec.setdefault("replicas", 1)
    strategy = spec.setdefault("strategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)


def default_replica_set(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    defaults.template(spec)
    spec.setdefault("replicas", 1)


def default_replication_controller(obj: Obj) -> None:
    default_replica_set(obj)
    labels = (obj["spec"]["template"].get("metadata") or {}).get("labels")
    if labels:
        obj["spec"].setdefault("selector", dict(labels))
        if not obj["metadata"].get("labels"):
            obj["metadata"]["labels"] = dict(labels)


def default_daemon_set(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    defaults.template(spec)
    strategy = spec.setdefault("updateStrategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)
    spec.setdefault("revisionHistoryLimit", 10)


def validate_selected_template(spec: Obj, kind: str) -> list[Cause]:
    """The rules of a selector and the template that it must match; `kind` is whose they are."""
    causes: list[Cause] = []
    selector = spec.get("selector")
    if selector is None:
        causes.append(required("spec.selector"))
    else:
        causes += label_selector("spec.selector", selector)
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            word = "deployment" if kind == "ReplicaSet" else kind.lower()
            causes.append(bad("spec.selector", selector, f"empty selector is invalid for {word}"))
    template: Obj = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector and not causes:
        try:
            matches = from_dict(selector).matches(labels)
        except SelectorError:
            matches = True
        if not matches:
            causes.append(bad("spec.template.metadata.labels", labels, _UNMATCHED))
    return causes + validate_template("spec.template", template) + _lasting(template, kind)


def _lasting(template: Obj, kind: str) -> list[Cause]:
    """The rules of pods that are meant to run on."""
    spec = template.get("spec") or {}
    causes: list[Cause] = []
    if spec.get("restartPolicy") not in (None, "Always"):
        causes.append(unsupported("spec.template.spec.restartPolicy", spec["restartPolicy"], ("Always",)))
    if spec.get("activeDeadlineSeconds") is not None:
        detail = f"activeDeadlineSeconds in {kind} is not Supported"
        causes.append(forbidden("spec.template.spec.activeDeadlineSeconds", detail))
    return causes


def int_or_percent(path: str, value: Any, *, maximum: int | None = None) -> list[Cause]:
    if isinstance(value, str):
        number = value.removesuffix("%")
        if not value.endswith("%") or not number.isdigit():
            detail = "a valid percent string must be a numeric string followed by an ending '%'"
            return [bad(path, value, f"{detail} (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')")]
        if maximum is not None and int(number) > maximum:
            return [bad(path, value, "must not be greater than 100%")]
        return []
    return not_negative(path, value)


def _is_zero(value: Any) -> bool:
    return value in (0, "0%", "0")


def validate_deployment(obj: Obj) -> list[Cause]:
    """Every broken rule of a Deployment."""
    spec = obj["spec"]
    causes = not_negative("spec.replicas", spec.get("replicas"))
    causes += validate_selected_template(spec, "ReplicaSet")
    causes += _strategy("spec.strategy", spec.get("strategy") or {})
    causes += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    causes += not_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    deadline = spec.get("progressDeadlineSeconds")
    causes += not_negative("spec.progressDeadlineSeconds", deadline)
    if deadline is not None and deadline <= (spec.get("minReadySeconds") or 0):
        causes.append(bad("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return causes


def _strategy(path: str, strategy: Obj) -> list[Cause]:
    where, rolling = f"{path}.rollingUpdate", strategy.get("rollingUpdate") or {}
    match strategy.get("type"):
        case "Recreate":
            if strategy.get("rollingUpdate") is None:
                return []
            return [forbidden(where, "may not be specified when strategy `type` is 'Recreate'")]
        case "RollingUpdate":
            most, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
            causes = int_or_percent(f"{where}.maxUnavailable", most, maximum=100)
            causes += int_or_percent(f"{where}.maxSurge", surge)
            if _is_zero(most) and _is_zero(surge):
                causes.append(bad(f"{where}.maxUnavailable", most, "may not be 0 when `maxSurge` is 0"))
            return causes
    return [unsupported(path, strategy, ("Recreate", "RollingUpdate"))]


def counts(status: Obj, keys: Sequence[str]) -> list[Cause]:
    """The rules of numbers of pods: none is negative, and no part greater than the whole."""
    total = status.get("replicas", 0)
    causes = not_negative("status.replicas", total)
    for key in keys:
        causes += not_negative(f"status.{key}", status.get(key))
    for key in keys:
        if status.get(key, 0) > total:
            causes.append(bad(f"status.{key}", status[key], "cannot be greater than status.replicas"))
    return causes


def validate_deployment_status(new: Obj, _old: Obj) -> list[Cause]:
    status = new.get("status") or {}
    causes = not_negative("status.observedGeneration", status.get("observedGeneration"))
    causes += not_negative("status.unavailableReplicas", status.get("unavailableReplicas"))
    return causes + counts(status, ("updatedReplicas", "readyReplicas", "availableReplicas"))


def validate_replica_set(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes = not_negative("spec.replicas", spec.get("replicas"))
    causes += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    return causes + validate_selected_template(spec, "ReplicaSet")


def validate_replica_status(new: Obj, _old: Obj) -> list[Cause]:
    """Of replica sets and of replication controllers."""
    status = new.get("status") or {}
    causes = not_negative("status.observedGeneration", status.get("observedGeneration"))
    return causes + counts(status, ("fullyLabeledReplicas", "readyReplicas", "availableReplicas"))


def validate_replication_controller(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes = not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    selector, template = spec.get("selector") or {}, spec.get("template") or {}
    if not selector:
        causes.append(required("spec.selector"))
    causes += not_negative("spec.replicas", spec.get("replicas"))
    labels = (template.get("metadata") or {}).get("labels") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        causes.append(bad("spec.template.metadata.labels", labels, _UNMATCHED))
    return causes + validate_template("spec.template", template) + _lasting(template, "ReplicationController")


def validate_pod_template(obj: Obj) -> list[Cause]:
    return validate_template("template", obj.get("template") or {})


def validate_selector_update(new: Obj, old: Obj) -> list[Cause]:
    """A selector never changes."""
    return immutable("spec.selector", new["spec"].get("selector"), (old.get("spec") or {}).get("selector"))


def validate_daemon_set(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes = validate_selected_template(spec, "DaemonSet")
    causes += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    causes += _daemon_strategy("spec.updateStrategy", spec.get("updateStrategy") or {})
    return causes + not_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))


def _daemon_strategy(path: str, strategy: Obj) -> list[Cause]:
    kind, rolling, where = strategy.get("type"), strategy.get("rollingUpdate") or {}, f"{path}.rollingUpdate"
    if kind == "OnDelete":
        return []
    if kind != "RollingUpdate":
        return [unsupported(path, strategy, ("RollingUpdate", "OnDelete"), in_order=True)]
    most, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    causes = int_or_percent(f"{where}.maxUnavailable", most, maximum=100)
    causes += int_or_percent(f"{where}.maxSurge", surge, maximum=100)
    if _is_zero(most) and _is_zero(surge):
        causes.append(required(f"{where}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    elif not _is_zero(most) and not _is_zero(surge):
        causes.append(bad(f"{where}.maxSurge", surge, "may not be set when maxUnavailable is non-zero"))
    return causes


def validate_daemon_status(new: Obj, _old: Obj) -> list[Cause]:
    keys = (
        "currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady", "observedGeneration",
        "updatedNumberScheduled", "numberAvailable", "numberUnavailable",
    )  # fmt: skip
    status = new.get("status") or {}
    return [cause for key in keys for cause in not_negative(f"status.{key}", status.get(key))]


def validate_revision(obj: Obj) -> list[Cause]:
    causes = [] if obj.get("data") is not None else [required("data", "data is mandatory")]
    return causes + not_negative("revision", obj.get("revision"))


def validate_revision_update(new: Obj, old: Obj) -> list[Cause]:
    return immutable("data", new.get("data"), old.get("data"))
