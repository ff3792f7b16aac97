"""Rules of stateful sets.

Source: k8s.io/kubernetes/pkg/apis/apps/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from steersman.cluster.api.rules import defaults
from steersman.cluster.api.rules.fields import bad, forbidden, not_negative, required, unsupported
from steersman.cluster.api.rules.volume_claims import validate_claim_spec
from steersman.cluster.api.rules.workloads import counts, int_or_percent, validate_selected_template
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj

_FREE = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip
_FIXED = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
_RETENTION = ("Delete", "Retain")


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
    for key, value in (spec.get("persistentVolumeClaimRetentionPolicy") or {}).items():
        if value not in _RETENTION:
            causes.append(unsupported(f"spec.persistentVolumeClaimRetentionPolicy.{key}", value, _RETENTION))
    for key in ("replicas", "minReadySeconds", "revisionHistoryLimit"):
        causes += not_negative(f"spec.{key}", spec.get(key))
    causes += not_negative("spec.ordinals.start", (spec.get("ordinals") or {}).get("start"))
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        causes += validate_claim_spec(f"spec.volumeClaimTemplates[{index}].spec", claim.get("spec") or {})
    return causes + validate_selected_template(_with_claims(spec), "StatefulSet")


def _strategy(path: str, strategy: Obj) -> list[Cause]:
    kind, rolling, where = strategy.get("type", ""), strategy.get("rollingUpdate"), f"{path}.rollingUpdate"
    match kind:
        case "":
            return [required(path)]
        case "OnDelete":
            detail = "only allowed for updateStrategy 'RollingUpdate'"
            return [] if rolling is None else [bad(where, rolling, detail)]
        case "RollingUpdate":
            causes = not_negative(f"{where}.partition", (rolling or {}).get("partition"))
            most = (rolling or {}).get("maxUnavailable")
            if most is not None:
                causes += int_or_percent(f"{where}.maxUnavailable", most, maximum=100)
            if most in (0, "0%"):
                causes.append(bad(f"{where}.maxUnavailable", most, "cannot be 0"))
            return causes
    return [bad(path, strategy, "must be 'RollingUpdate' or 'OnDelete'")]


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
    if any(left.get(key) != right.get(key) for key in {**left, **right} if key not in _FREE):
        return [forbidden("spec", _FIXED)]
    return []


def validate_status(new: Obj, _old: Obj) -> list[Cause]:
    status = new.get("status") or {}
    keys = ("observedGeneration", "collisionCount")
    causes = [cause for key in keys for cause in not_negative(f"status.{key}", status.get(key))]
    return causes + counts(status, ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"))
