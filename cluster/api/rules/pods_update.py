"""What may change in a pod once it exists.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go (ValidatePodUpdate) and
https://kubernetes.io/docs/concepts/workloads/pods/#pod-update-and-replacement
"""

from __future__ import annotations

from steersman.cluster.api.rules.fields import bad, forbidden
from steersman.cluster.api.rules.pod_marks import MIRROR, validate_annotations_update
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj, annotations_of

_LISTS = ("containers", "initContainers")

_DETAIL = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def validate_update(new: Obj, old: Obj) -> list[Cause]:
    """Every rule that a change of a pod breaks."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    causes = validate_annotations_update(annotations_of(new), annotations_of(old))
    if spec == before:
        return causes
    for key in _LISTS:
        if len(spec.get(key) or ()) != len(before.get(key) or ()):
            return [*causes, forbidden(f"spec.{key}", "pod updates may not add or remove containers")]
    deadline, had = spec.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    if deadline is not None and had is not None and deadline > had:
        where, detail = "spec.activeDeadlineSeconds", "must be less than or equal to previous value"
        return [*causes, bad(where, deadline, detail)]
    if deadline is None and had is not None:
        detail = "must not update from a positive integer to nil value"
        causes.append(bad("spec.activeDeadlineSeconds", None, detail))
    causes += _tolerations(spec, before) + _gates(spec, before)
    is_gated = bool(before.get("schedulingGates"))
    if is_gated:
        causes += _node_selector(spec.get("nodeSelector") or {}, before.get("nodeSelector") or {})
        causes += _node_affinity(spec, before)
    if _fixed(spec, before, is_gated=is_gated) != _fixed(before, before, is_gated=is_gated):
        causes.append(forbidden("spec", _DETAIL))
    return causes


def _gates(spec: Obj, before: Obj) -> list[Cause]:
    had = {gate.get("name") for gate in before.get("schedulingGates") or ()}
    return [
        forbidden(
            f"spec.schedulingGates[{index}].name",
            f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'",
        )
        for index, gate in enumerate(spec.get("schedulingGates") or ())
        if gate.get("name") not in had
    ]


def _fixed(spec: Obj, before: Obj, *, is_gated: bool) -> Obj:
    """The part of a spec that never changes."""
    free = ("activeDeadlineSeconds", "tolerations", "schedulingGates", *(("nodeSelector",) if is_gated else ()))
    kept = {key: value for key, value in spec.items() if key not in free}
    if before.get("terminationGracePeriodSeconds", 0) < 0 and kept.get("terminationGracePeriodSeconds") == 1:
        kept["terminationGracePeriodSeconds"] = before["terminationGracePeriodSeconds"]
    for key in _LISTS:
        if key in kept:
            kept[key] = [{**one, "image": ""} for one in kept[key]]
    if is_gated and "affinity" in kept:
        rest = {key: value for key, value in kept.pop("affinity").items() if key != "nodeAffinity"}
        if rest:
            kept["affinity"] = rest
    return kept


def with_ephemeral(new: Obj, old: Obj) -> Obj:
    """The pod with the ephemeral containers of a change."""
    spec = {key: value for key, value in (old.get("spec") or {}).items() if key != "ephemeralContainers"}
    found = (new.get("spec") or {}).get("ephemeralContainers")
    return {**old, "spec": {**spec, "ephemeralContainers": found} if found else spec}


def validate_ephemeral(new: Obj, old: Obj) -> list[Cause]:
    """Every rule that a change of a pod's ephemeral containers breaks: they only grow."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    if MIRROR in annotations_of(old):
        return [forbidden("", "static pods do not support ephemeral containers")]
    found = {one.get("name"): one for one in spec.get("ephemeralContainers") or ()}
    causes = validate_annotations_update(annotations_of(new), annotations_of(old))
    for one in before.get("ephemeralContainers") or ():
        name = one.get("name", "")
        if name not in found:
            detail = f'existing ephemeral containers "{name}" may not be removed\n'
            causes.append(forbidden("spec.ephemeralContainers", detail))
        elif found[name] != one:
            detail = f'existing ephemeral containers "{name}" may not be changed'
            causes.append(forbidden("spec.ephemeralContainers", detail))
    return causes


def _node_selector(new: Obj, old: Obj) -> list[Cause]:
    """Where a gated pod may go is narrowed, never widened."""
    kept = {key: new.get(key) for key in old}
    detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
    return [] if kept == old else [bad("spec.nodeSelector", new, detail)]


def _node_affinity(spec: Obj, before: Obj) -> list[Cause]:
    """What nodes a gated pod must have is narrowed as well: terms gain requirements."""
    new, old = _terms(spec), _terms(before)
    if not old or new == old:
        return []
    path = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
    if len(new) != len(old):
        return [bad(path, new, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")]
    detail = "only additions are allowed (no mutations or deletions)"
    return [
        bad(f"{path}[{index}]", term, detail)
        for index, (term, last) in enumerate(zip(new, old, strict=True))
        if not _only_adds(term, last)
    ]


def _terms(spec: Obj) -> list[Obj]:
    node = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    found: list[Obj] = (node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []
    return found


def _only_adds(new: Obj, old: Obj) -> bool:
    sides = [(new.get(key) or [], old.get(key) or []) for key in ("matchExpressions", "matchFields")]
    if not any(last for _, last in sides):
        return not any(found for found, _ in sides)
    return all(found[: len(last)] == last for found, last in sides)


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
