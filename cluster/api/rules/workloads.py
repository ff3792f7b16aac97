"""Rules of what keeps pods running: deployments, replica sets, stateful sets, daemon sets, autoscalers.

Source: k8s.io/kubernetes/pkg/apis/apps/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.row import meta_fields
from steersman.cluster.api.rules import defaults
from steersman.cluster.api.rules.fields import (
    bad,
    forbidden,
    immutable,
    label_selector,
    not_negative,
    one_of,
    required,
    unsupported,
)
from steersman.cluster.api.rules.pods import validate_template
from steersman.cluster.api.rules.volumes import validate_claim_spec
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.selectors import SelectorError, from_dict

_SET_FIXED = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
_SET_FREE = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip


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


def default_stateful_set(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    defaults.template(spec)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    strategy = spec.setdefault("updateStrategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    retention.setdefault("whenDeleted", "Retain")
    retention.setdefault("whenScaled", "Retain")
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    for claim in spec.get("volumeClaimTemplates") or ():
        claim.setdefault("apiVersion", "v1")
        claim.setdefault("kind", "PersistentVolumeClaim")
        defaults.claim_spec(claim.setdefault("spec", {}))
        claim.setdefault("status", {"phase": "Pending"})


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


def validate_selected_template(spec: Obj, restart: tuple[str, ...] = ("Always",)) -> list[Cause]:
    """The rules of a selector and the template that it must match."""
    causes: list[Cause] = []
    selector = spec.get("selector")
    if selector is None:
        causes.append(required("spec.selector"))
    else:
        causes += label_selector("spec.selector", selector)
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            causes.append(bad("spec.selector", selector, "empty selector is invalid for deployment"))
    template: Obj = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector and not causes:
        try:
            matches = from_dict(selector).matches(labels)
        except SelectorError:
            matches = True
        if not matches:
            detail = "`selector` does not match template `labels`"
            causes.append(bad("spec.template.metadata.labels", labels, detail))
    causes += validate_template("spec.template", template)
    policy = (template.get("spec") or {}).get("restartPolicy")
    if policy and policy not in restart:
        causes.append(unsupported("spec.template.spec.restartPolicy", policy, restart))
    if (template.get("spec") or {}).get("activeDeadlineSeconds") is not None:
        detail = "activeDeadlineSeconds in ReplicaSet is not Supported"
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
    causes += validate_selected_template(spec)
    strategy = spec.get("strategy") or {}
    kind = strategy.get("type")
    if kind == "Recreate":
        if strategy.get("rollingUpdate") is not None:
            detail = "may not be specified when strategy `type` is 'Recreate'"
            causes.append(forbidden("spec.strategy.rollingUpdate", detail))
    elif kind == "RollingUpdate":
        rolling = strategy.get("rollingUpdate") or {}
        path = "spec.strategy.rollingUpdate"
        causes += int_or_percent(f"{path}.maxUnavailable", rolling.get("maxUnavailable"), maximum=100)
        causes += int_or_percent(f"{path}.maxSurge", rolling.get("maxSurge"))
        if _is_zero(rolling.get("maxUnavailable")) and _is_zero(rolling.get("maxSurge")):
            detail = "may not be 0 when `maxSurge` is 0"
            causes.append(bad(f"{path}.maxUnavailable", rolling.get("maxUnavailable"), detail))
    else:
        causes.append(unsupported("spec.strategy.type", kind, ("Recreate", "RollingUpdate")))
    causes += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    causes += not_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    deadline = spec.get("progressDeadlineSeconds")
    causes += not_negative("spec.progressDeadlineSeconds", deadline)
    if deadline is not None and deadline <= (spec.get("minReadySeconds") or 0):
        causes.append(bad("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return causes


def validate_deployment_status(new: Obj, _old: Obj) -> list[Cause]:
    status = new.get("status") or {}
    causes: list[Cause] = []
    for key in (
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
    ):
        causes += not_negative(f"status.{key}", status.get(key))
    for key in ("updatedReplicas", "readyReplicas", "availableReplicas"):
        if status.get(key, 0) > status.get("replicas", 0):
            causes.append(bad(f"status.{key}", status.get(key, 0), "cannot be greater than status.replicas"))
    return causes


def validate_replica_set(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes = not_negative("spec.replicas", spec.get("replicas"))
    causes += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    return causes + validate_selected_template(spec)


def validate_selector_update(new: Obj, old: Obj) -> list[Cause]:
    """A selector never changes."""
    return immutable("spec.selector", new["spec"].get("selector"), (old.get("spec") or {}).get("selector"))


def validate_daemon_set(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    kinds = ("OnDelete", "RollingUpdate")
    causes = one_of("spec.updateStrategy.type", (spec.get("updateStrategy") or {}).get("type"), kinds)
    causes += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    return causes + validate_selected_template(spec)


def validate_stateful_set(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes = one_of("spec.podManagementPolicy", spec.get("podManagementPolicy"), ("OrderedReady", "Parallel"))
    kinds = ("OnDelete", "RollingUpdate")
    causes += one_of("spec.updateStrategy.type", (spec.get("updateStrategy") or {}).get("type"), kinds)
    causes += not_negative("spec.replicas", spec.get("replicas"))
    causes += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        causes += validate_claim_spec(f"spec.volumeClaimTemplates[{index}].spec", claim.get("spec") or {})
    return causes + validate_selected_template(_with_claims(spec))


def _with_claims(spec: Obj) -> Obj:
    """The spec as its pods will have it: with the claims of the templates among their volumes."""
    claims = [(claim.get("metadata") or {}).get("name", "") for claim in spec.get("volumeClaimTemplates") or ()]
    if not claims:
        return spec
    template = spec.get("template") or {}
    pod = template.get("spec") or {}
    volumes = [volume for volume in pod.get("volumes") or () if volume.get("name") not in claims]
    volumes += [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
    return {**spec, "template": {**template, "spec": {**pod, "volumes": volumes}}}


def validate_stateful_set_update(new: Obj, old: Obj) -> list[Cause]:
    left, right = new["spec"], old.get("spec") or {}
    if any(left.get(key) != right.get(key) for key in {**left, **right} if key not in _SET_FREE):
        return [forbidden("spec", _SET_FIXED)]
    return []


def validate_revision_update(new: Obj, old: Obj) -> list[Cause]:
    return immutable("data", new.get("data"), old.get("data"))
