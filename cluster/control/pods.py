"""What controllers of pods share: claiming, availability, the order of deletion and pods made from templates.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from steersman.cluster.control.plan import Action, ExpectAlive, patch
from steersman.cluster.meta.names import generated_name, stable_hash
from steersman.cluster.meta.objects import (
    Obj,
    annotations_of,
    condition,
    controller_of,
    controller_reference,
    is_deleting,
    is_pod_ready,
    labels_of,
    name,
    namespace,
    owner_references,
    uid,
)
from steersman.cluster.meta.resources import Resource
from steersman.cluster.meta.selectors import LabelSelector
from steersman.cluster.meta.times import parse_time

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASE_RANK = {"Pending": 0, "Unknown": 1, "Running": 2}


@dataclass(frozen=True, slots=True)
class Claim:
    """Which objects belong to a controller, and what must be written so that their references say so.

    Args:
        owned: those it controls now.
        steps: adoptions and releases.
    """

    owned: tuple[Obj, ...]
    steps: tuple[Action, ...]


def claim(
    owner: Obj,
    owner_resource: Resource,
    resource: Resource,
    selector: LabelSelector,
    controlled: Iterable[Obj],
    orphans: Iterable[Obj],
) -> Claim:
    """Sorts candidates into owned ones, ones to adopt and ones to release.

    Args:
        controlled: objects that refer to the owner as their controller.
        orphans: objects of the namespace that nobody controls.
    """
    owned: list[Obj] = []
    steps: list[Action] = []
    for obj in controlled:
        if selector.matches(labels_of(obj)):
            owned.append(obj)
        elif not is_deleting(owner):
            rest = [reference for reference in owner_references(obj) if reference["uid"] != uid(owner)]
            steps.append(patch(resource, obj, {"metadata": {"ownerReferences": rest or None}}))
    if is_deleting(owner):
        return Claim(tuple(owned), ())
    adopted = [obj for obj in orphans if not is_deleting(obj) and selector.matches(labels_of(obj))]
    if adopted:
        alive = ExpectAlive(resource=owner_resource, namespace=namespace(owner), name=name(owner), uid=uid(owner))
        steps.append(alive)
    reference = controller_reference(owner, owner_resource.api_version, owner_resource.kind)
    for obj in adopted:
        steps.append(patch(resource, obj, {"metadata": {"ownerReferences": [*owner_references(obj), reference]}}))
    return Claim(tuple(owned), tuple(steps))


def ready_since(pod: Obj) -> float | None:
    """When the pod became ready; None when it is not."""
    row = condition(pod, "Ready")
    if row is None or row.get("status") != "True":
        return None
    stamp = row.get("lastTransitionTime")
    return parse_time(stamp) if stamp else 0.0


def available_in_s(pod: Obj, min_ready_s: float, now: float) -> float | None:
    """Seconds until the pod counts as available: 0 when it does; None while it is not ready."""
    since = ready_since(pod)
    if since is None:
        return None
    return max(0.0, since + min_ready_s - now) if min_ready_s else 0.0


def restarts(pod: Obj) -> int:
    rows = (pod.get("status") or {}).get("containerStatuses") or ()
    return max((row.get("restartCount", 0) for row in rows), default=0)


def deletion_order(pods: Sequence[Obj], neighbours: Iterable[Obj], now: float) -> list[Obj]:
    """Returns the pods with those first that are best to delete.

    Unassigned before assigned, pending before running, not ready before ready, cheap before dear, crowded before
    alone on a node, ready for a short time before long, more restarts before fewer, new before old.

    Args:
        neighbours: pods of the same workload, these included: the more of them on a node, the earlier its pods go.
    """
    crowd: dict[str, int] = {}
    for pod in neighbours:
        if node := (pod.get("spec") or {}).get("nodeName"):
            crowd[node] = crowd.get(node, 0) + 1

    def rank(pod: Obj) -> tuple[object, ...]:
        node = (pod.get("spec") or {}).get("nodeName") or ""
        ready = is_pod_ready(pod)
        since = ready_since(pod) or 0.0
        created = pod["metadata"].get("creationTimestamp")
        return (
            bool(node),
            _PHASE_RANK.get((pod.get("status") or {}).get("phase", ""), 1),
            ready,
            _deletion_cost(pod),
            -crowd.get(node, 0),
            math.log2(max(1.0, now - since)) // 1 if ready else 0.0,
            -restarts(pod),
            math.log2(max(1.0, now - parse_time(created))) // 1 if created else 0.0,
            name(pod),
        )

    return sorted(pods, key=rank)


def _deletion_cost(pod: Obj) -> int:
    try:
        return int(annotations_of(pod).get(DELETION_COST, "0"))
    except ValueError:
        return 0


def new_names(base: str, owner: Obj, taken: Iterable[Obj], count: int) -> list[str]:
    """Returns names for new children, derived from what is observed alone.

    The same observation gives the same names, so that a repeated decision meets its own children (`AlreadyExists`)
    instead of making twins; what has changed since gives others, so that the names of dead children are not used again.
    """
    siblings = list(taken)
    names = {name(obj) for obj in siblings}
    newest = max([_version(obj) for obj in (*siblings, owner)], default=0)
    found: list[str] = []
    ordinal = 0
    while len(found) < count:
        candidate = generated_name(base, stable_hash(f"{uid(owner)}/{newest}/{ordinal}", 5))
        ordinal += 1
        if candidate not in names:
            names.add(candidate)
            found.append(candidate)
    return found


def _version(obj: Obj) -> int:
    text = obj["metadata"].get("resourceVersion") or ""
    return int(text) if text.isdigit() else 0


def from_template(template: Mapping[str, object], owner: Obj, owner_resource: Resource, pod_name: str) -> Obj:
    """Returns the pod that a template asks for."""
    meta: Obj = template.get("metadata") or {}  # type: ignore[assignment]
    metadata: Obj = {
        "name": pod_name,
        "generateName": f"{name(owner)}-",
        "namespace": namespace(owner),
        "ownerReferences": [controller_reference(owner, owner_resource.api_version, owner_resource.kind)],
    }
    for part in ("labels", "annotations", "finalizers"):
        if meta.get(part):
            metadata[part] = meta[part]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.get("spec") or {}}


def template_hash(template: Mapping[str, object], collisions: int = 0) -> str:
    """Returns the value of `pod-template-hash`: equal templates give equal values, on every machine."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return stable_hash(f"{text}/{collisions}" if collisions else text, 10)


def is_controlled_by(obj: Obj, owner: Obj) -> bool:
    reference = controller_of(obj)
    return reference is not None and reference["uid"] == uid(owner)
