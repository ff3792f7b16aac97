"""Rules of stateful sets.

Source: k8s.io/kubernetes/pkg/apis/apps/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from steersman.cluster.api.rules import defaults
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    forbidden,
    internal,
    not_negative,
    required,
    unsupported,
)
from steersman.cluster.api.rules.volume_claims import validate_claim_spec
from steersman.cluster.api.rules.workloads import (
    amounts,
    collisions,
    int_or_percent,
    is_zero,
    no_more_than_all,
    parts,
    validate_selected_template,
)
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors
from steersman.cluster.meta.objects import Obj

_FREE = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip
_FIXED = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
_RETENTION = ("Retain", "Delete")
_STRATEGY = ("type", "rollingUpdate")


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


def validate_stateful_set(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    policy = spec.get("podManagementPolicy", "")
    causes: list[Cause] = []
    if not policy:
        causes.append(required("spec.podManagementPolicy"))
    elif policy not in ("OrderedReady", "Parallel"):
        causes.append(bad("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'"))
    causes += _strategy("spec.updateStrategy", spec.get("updateStrategy") or {})
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for key in ("whenDeleted", "whenScaled"):
        if retention.get(key) not in _RETENTION:
            path = f"spec.persistentVolumeClaimRetentionPolicy.{key}"
            causes.append(unsupported(path, retention.get(key, ""), _RETENTION, in_order=True))
    for key in ("replicas", "minReadySeconds"):
        causes += not_negative(f"spec.{key}", spec.get(key))
    causes += not_negative("spec.ordinals.start", (spec.get("ordinals") or {}).get("start"))
    return causes + validate_selected_template(_as_pods(spec), "StatefulSet", "")


def validate_new_stateful_set(obj: Obj) -> list[Cause]:
    """The rules of what never changes."""
    spec = obj["spec"]
    causes: list[Cause] = []
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        causes += validate_claim_spec(f"spec.volumeClaimTemplates[{index}].spec", claim.get("spec") or {})
    if name := spec.get("serviceName"):
        causes += bad_all("spec.serviceName", name, label_1123_errors(name))
    return causes


def _strategy(path: str, strategy: Obj) -> list[Cause]:
    kind, rolling, where = strategy.get("type", ""), strategy.get("rollingUpdate"), f"{path}.rollingUpdate"
    match kind:
        case "":
            return [required(path)]
        case "OnDelete":
            detail = "only allowed for updateStrategy 'RollingUpdate'"
            shown = internal(rolling or {}, ("partition", "maxUnavailable"))
            return [] if rolling is None else [bad(where, shown, detail)]
        case "RollingUpdate":
            causes = not_negative(f"{where}.partition", (rolling or {}).get("partition"))
            most = (rolling or {}).get("maxUnavailable")
            if most is None:
                return causes
            causes += int_or_percent(f"{where}.maxUnavailable", most)
            if is_zero(most):
                causes.append(bad(f"{where}.maxUnavailable", most, "cannot be 0"))
            return causes + no_more_than_all(f"{where}.maxUnavailable", most)
    return [bad(path, internal(strategy, _STRATEGY), "must be 'RollingUpdate' or 'OnDelete'")]


def _as_pods(spec: Obj) -> Obj:
    """The spec as its pods will have it: with the claims of the templates as volumes, and without names of its own."""
    claims = [(claim.get("metadata") or {}).get("name", "") for claim in spec.get("volumeClaimTemplates") or ()]
    template = spec.get("template") or {}
    pod = {key: value for key, value in (template.get("spec") or {}).items() if key not in ("hostname", "subdomain")}
    if claims:
        volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
        pod["volumes"] = volumes + [one for one in pod.get("volumes") or () if one.get("name") not in claims]
    return {**spec, "template": {**template, "spec": pod}}


def validate_stateful_set_update(new: Obj, old: Obj) -> list[Cause]:
    left, right = new["spec"], old.get("spec") or {}
    if any(left.get(key) != right.get(key) for key in {**left, **right} if key not in _FREE):
        return [forbidden("spec", _FIXED)]
    return []


def validate_status(new: Obj, old: Obj) -> list[Cause]:
    status = new.get("status") or {}
    shares = ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")
    causes = amounts(status, ("replicas", *shares, "observedGeneration", "collisionCount"))
    return causes + parts(status, shares, "status.readyReplicas") + collisions(new, old)
