"""Rules of what keeps pods running: deployments, replica sets, daemon sets, replication controllers.

Source: k8s.io/kubernetes/pkg/apis/apps/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.row import meta_fields
from steersman.cluster.api.rules import defaults
from steersman.cluster.api.rules.fields import (
    bad,
    forbidden,
    immutable,
    internal,
    label_selector,
    not_negative,
    required,
    show,
    unsupported,
)
from steersman.cluster.api.rules.pods import validate_template
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj, annotations_of
from steersman.cluster.meta.selectors import from_dict

#: what has become of `spec.templateGeneration` of older versions
TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
_GENERATION = re.compile(r"[0-9]{1,18}")
_PERCENT = re.compile(r"[0-9]+%")
_NUMBER = re.compile(r"[0-9]+(?=%?\Z)")
_STRATEGY = ("type", "rollingUpdate")
UNMATCHED = "`selector` does not match template `labels`"


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
    annotations = obj["metadata"].get("annotations") or {}
    obj["metadata"]["annotations"] = {TEMPLATE_GENERATION: "0", **annotations}


def _template_generation(obj: Obj) -> int:
    text = str(annotations_of(obj).get(TEMPLATE_GENERATION, ""))
    return int(text) if _GENERATION.fullmatch(text) else 0


def prepare_daemon_set(new: Obj, _ctx: WriteContext) -> None:
    new["metadata"]["annotations"][TEMPLATE_GENERATION] = str(max(_template_generation(new), 1))


def prepare_daemon_set_update(new: Obj, old: Obj, _ctx: WriteContext) -> None:
    """Counts the templates that there were; the client has no say in it."""
    changed = new["spec"]["template"] != old["spec"]["template"]
    new["metadata"]["annotations"][TEMPLATE_GENERATION] = str(max(_template_generation(old), 1) + changed)


def validate_selected_template(spec: Obj, kind: str, fault: str = "invalid label selector") -> list[Cause]:
    """The rules of a selector and the template that it must match.

    Args:
        kind: whose they are.
        fault: what is said of a selector that selects nothing sensible; its template is not looked at.
    """
    selector, template = spec.get("selector"), spec.get("template") or {}
    wrong = label_selector("spec.selector", selector)
    causes = [required("spec.selector")] if selector is None else list(wrong)
    if selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions"):
        word = "deployment" if kind == "ReplicaSet" else kind.lower()
        causes.append(bad("spec.selector", selector, f"empty selector is invalid for {word}"))
    if wrong:
        detail = f"Invalid value: {show(selector)}{fault and ': '}{fault}"
        return [*causes, Cause("spec.selector", detail, "FieldValueInvalid")]
    causes += unmatched(selector, template)
    return causes + validate_template("spec.template", template) + lasting(template, kind)


def unmatched(selector: Obj | None, template: Obj) -> list[Cause]:
    """The rule that a selector, which is right in itself, matches the pods of a template; none matches nothing."""
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector is not None and from_dict(selector).matches(labels):
        return []
    return [bad("spec.template.metadata.labels", labels or None, UNMATCHED)]


def lasting(template: Obj, kind: str) -> list[Cause]:
    """The rules of pods that are meant to run on."""
    spec = template.get("spec") or {}
    causes: list[Cause] = []
    if spec.get("restartPolicy") not in (None, "Always"):
        causes.append(unsupported("spec.template.spec.restartPolicy", spec["restartPolicy"], ("Always",)))
    if spec.get("activeDeadlineSeconds") is not None:
        detail = f"activeDeadlineSeconds in {kind} is not Supported"
        causes.append(forbidden("spec.template.spec.activeDeadlineSeconds", detail))
    return causes


def int_or_percent(path: str, value: Any) -> list[Cause]:
    if not isinstance(value, str):
        return not_negative(path, value)
    if _PERCENT.fullmatch(value):
        return []
    detail = "a valid percent string must be a numeric string followed by an ending '%'"
    return [bad(path, value, f"{detail} (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')")]


def no_more_than_all(path: str, value: Any) -> list[Cause]:
    if isinstance(value, str) and _PERCENT.fullmatch(value) and int(value[:-1]) > 100:
        return [bad(path, value, "must not be greater than 100%")]
    return []


def is_zero(value: Any) -> bool:
    """Whether a number or a share of pods is none; what is neither counts as none."""
    return not (value if isinstance(value, int) else int(found[0]) if (found := _NUMBER.match(value or "")) else 0)


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
            causes = int_or_percent(f"{where}.maxUnavailable", most) + int_or_percent(f"{where}.maxSurge", surge)
            if is_zero(most) and is_zero(surge):
                causes.append(bad(f"{where}.maxUnavailable", most, "may not be 0 when `maxSurge` is 0"))
            return causes + no_more_than_all(f"{where}.maxUnavailable", most)
    return [unsupported(path, internal(strategy, _STRATEGY), ("Recreate", "RollingUpdate"))]


def amounts(status: Obj, keys: Sequence[str]) -> list[Cause]:
    """The rule that numbers in a status are not negative."""
    return [cause for key in keys for cause in not_negative(f"status.{key}", status.get(key))]


def parts(status: Obj, keys: Sequence[str], ready: str = "readyReplicas") -> list[Cause]:
    """The rules of numbers of pods: no part is greater than the whole, and only what is ready is available."""
    total, available = status.get("replicas", 0), status.get("availableReplicas", 0)
    detail = "cannot be greater than status.replicas"
    causes = [bad(f"status.{key}", status[key], detail) for key in keys if status.get(key, 0) > total]
    if available > status.get("readyReplicas", 0):
        causes.append(bad("status.availableReplicas", available, f"cannot be greater than {ready}"))
    return causes


def collisions(new: Obj, old: Obj) -> list[Cause]:
    """The rule that collisions of hashes are only counted up."""
    before, after = ((side.get("status") or {}).get("collisionCount") for side in (old, new))
    if before is None or (after or 0) >= before:
        return []
    return [bad("status.collisionCount", after or 0, "cannot be decremented")]


def validate_deployment_status(new: Obj, old: Obj) -> list[Cause]:
    status, shares = new.get("status") or {}, ("updatedReplicas", "readyReplicas", "availableReplicas")
    others = ("unavailableReplicas", "terminatingReplicas", "collisionCount")
    causes = amounts(status, ("observedGeneration", "replicas", *shares, *others))
    return causes + parts(status, shares) + collisions(new, old)


def validate_replica_set(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes = not_negative("spec.replicas", spec.get("replicas"))
    causes += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    return causes + validate_selected_template(spec, "ReplicaSet")


def validate_replica_status(new: Obj, _old: Obj) -> list[Cause]:
    """Of replica sets and of replication controllers."""
    status = new.get("status") or {}
    shares = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")
    causes = amounts(status, ("replicas", *shares, "observedGeneration", "terminatingReplicas"))
    return causes + parts(status, shares)


def validate_replication_controller(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes = not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    selector, template = spec.get("selector") or {}, spec.get("template") or {}
    if not selector:
        causes.append(required("spec.selector"))
    causes += not_negative("spec.replicas", spec.get("replicas"))
    labels = (template.get("metadata") or {}).get("labels") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        causes.append(bad("spec.template.metadata.labels", labels, UNMATCHED))
    return causes + validate_template("spec.template", template) + lasting(template, "ReplicationController")


def validate_pod_template(obj: Obj) -> list[Cause]:
    return validate_template("template", obj.get("template") or {})


def validate_selector_update(new: Obj, old: Obj) -> list[Cause]:
    """A selector never changes."""
    return immutable("spec.selector", new["spec"].get("selector"), (old.get("spec") or {}).get("selector"))


def validate_daemon_set(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    selector, template = spec.get("selector"), spec.get("template") or {}
    causes = label_selector("spec.selector", selector) or unmatched(selector, template)
    if selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions"):
        causes.append(bad("spec.selector", selector, "empty selector is invalid for daemonset"))
    causes += validate_template("spec.template", template) + lasting(template, "DaemonSet")
    causes += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    causes += _daemon_strategy("spec.updateStrategy", spec.get("updateStrategy") or {})
    return causes + not_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))


def _daemon_strategy(path: str, strategy: Obj) -> list[Cause]:
    kind, rolling, where = strategy.get("type"), strategy.get("rollingUpdate") or {}, f"{path}.rollingUpdate"
    if kind == "OnDelete":
        return []
    if kind != "RollingUpdate":
        return [unsupported(path, internal(strategy, _STRATEGY), ("RollingUpdate", "OnDelete"), in_order=True)]
    most, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    places = ((f"{where}.maxUnavailable", most), (f"{where}.maxSurge", surge))
    causes = [cause for place, value in places for cause in int_or_percent(place, value)]
    causes += [cause for place, value in places for cause in no_more_than_all(place, value)]
    if is_zero(most) and is_zero(surge):
        causes.append(required(f"{where}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    elif not is_zero(most) and not is_zero(surge):
        causes.append(bad(f"{where}.maxSurge", surge, "may not be set when maxUnavailable is non-zero"))
    return causes


def validate_daemon_status(new: Obj, old: Obj) -> list[Cause]:
    keys = (
        "currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady", "observedGeneration",
        "updatedNumberScheduled", "numberAvailable", "numberUnavailable", "collisionCount",
    )  # fmt: skip
    return amounts(new.get("status") or {}, keys) + collisions(new, old)


def validate_revision(obj: Obj) -> list[Cause]:
    return not_negative("revision", obj.get("revision"))


def validate_new_revision(obj: Obj) -> list[Cause]:
    """The rule that what a revision keeps is an object."""
    data = obj.get("data")
    if isinstance(data, dict):
        return []
    return [required("data", "data is mandatory" if data is None else "data must be a valid JSON object")]


def validate_revision_update(new: Obj, old: Obj) -> list[Cause]:
    return immutable("data", new.get("data"), old.get("data"))
