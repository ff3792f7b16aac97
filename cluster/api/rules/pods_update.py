"""What may change in a pod once it exists.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go (ValidatePodUpdate) and
https://kubernetes.io/docs/concepts/workloads/pods/#pod-update-and-replacement
"""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.rules.fields import bad, forbidden
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj

_DETAIL = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def validate_update(new: Obj, old: Obj) -> list[Cause]:
    """Every rule that a change of a pod's spec breaks."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    if spec == before:
        return []
    for key in ("containers", "initContainers"):
        if len(spec.get(key) or ()) != len(before.get(key) or ()):
            return [forbidden(f"spec.{key}", "pod updates may not add or remove containers")]
    causes = _deadline(spec.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds"))
    causes += _tolerations(spec, before)
    if before.get("schedulingGates"):
        causes += _node_selector(spec.get("nodeSelector") or {}, before.get("nodeSelector") or {})
    gates = [gate.get("name") for gate in before.get("schedulingGates") or ()]
    added = [gate.get("name") for gate in spec.get("schedulingGates") or () if gate.get("name") not in gates]
    if added:
        detail = "only deletion is allowed, but found new scheduling gate"
        causes.append(forbidden("spec.schedulingGates", f"{detail} '{added[0]}'"))
    if _fixed(spec, gated=bool(gates)) != _fixed(before, gated=bool(gates)):
        causes.append(forbidden("spec", _DETAIL))
    return causes


def _fixed(spec: Obj, *, gated: bool) -> Obj:
    """The part of a spec that never changes."""
    kept = {
        key: value
        for key, value in spec.items()
        if key not in ("activeDeadlineSeconds", "tolerations", "schedulingGates")
        and not (gated and key in ("nodeSelector", "affinity"))
    }
    if kept.get("terminationGracePeriodSeconds", 0) < 0:
        kept["terminationGracePeriodSeconds"] = 1
    for key in ("containers", "initContainers"):
        if key in kept:
            kept[key] = [{**one, "image": ""} for one in kept[key]]
    return kept


def with_ephemeral(new: Obj, old: Obj) -> Obj:
    """The pod with the ephemeral containers of a change."""
    spec = {key: value for key, value in (old.get("spec") or {}).items() if key != "ephemeralContainers"}
    found = (new.get("spec") or {}).get("ephemeralContainers")
    return {**old, "spec": {**spec, "ephemeralContainers": found} if found else spec}


def validate_ephemeral(new: Obj, old: Obj) -> list[Cause]:
    """Every rule that a change of a pod's ephemeral containers breaks: they only grow."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    found = {one.get("name"): one for one in spec.get("ephemeralContainers") or ()}
    causes = []
    for one in before.get("ephemeralContainers") or ():
        name = one.get("name", "")
        if name not in found:
            detail = f'existing ephemeral containers "{name}" may not be removed'
            causes.append(forbidden("spec.ephemeralContainers", detail))
        elif found[name] != one:
            detail = f'existing ephemeral containers "{name}" may not be changed'
            causes.append(forbidden("spec.ephemeralContainers", detail))
    return causes


def _node_selector(new: Obj, old: Obj) -> list[Cause]:
    """Where a gated pod may go is narrowed, never widened."""
    kept = {key: new.get(key) for key in old}
    return [] if kept == old else [bad("spec.nodeSelector", new, "only additions are allowed")]


def _deadline(new: Any, old: Any) -> list[Cause]:
    path = "spec.activeDeadlineSeconds"
    if new == old or (old is None and new is not None):
        return []
    if new is None:
        return [bad(path, None, "must not update from a positive integer to nil value")]
    return [bad(path, new, "must be less than or equal to previous value")] if new > old else []


def _tolerations(spec: Obj, before: Obj) -> list[Cause]:
    found = spec.get("tolerations") or []
    for row in before.get("tolerations") or ():
        same = {key: value for key, value in row.items() if key != "tolerationSeconds"}
        if not any(
            {key: value for key, value in other.items() if key != "tolerationSeconds"} == same for other in found
        ):
            return [
                forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
            ]
    return []
