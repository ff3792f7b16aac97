"""Pod garbage: removes pods that no node will ever end, and the oldest of too many finished ones.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-garbage-collection
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from steersman.cluster.control.plan import Action, Batch, Draft, ExpectGone, Plan, delete, patch
from steersman.cluster.control.spec import ControllerSpec, View, Watch
from steersman.cluster.meta.objects import Obj, is_deleting, name, with_condition
from steersman.cluster.meta.resources import NODES, PODS

#: the one key of this controller
EVERYTHING = "pods"
#: a pod of a missing node waits so long for the node to come (back)
QUARANTINE_S = 40.0
LOOK_S = 20.0
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: astray: (pod, seconds since it changed) of pods whose node does not exist; unscheduled: deleted pods
    bound to no node; out_of_service: deleted pods of nodes that an administrator gave up; finished: all finished."""

    astray: tuple[tuple[Obj, float], ...] = ()
    unscheduled: tuple[Obj, ...] = ()
    out_of_service: tuple[Obj, ...] = ()
    finished: tuple[Obj, ...] = ()
    finished_max: int = 0


def observe(view: View, key: str) -> Observed:
    astray: list[tuple[Obj, float]] = []
    given_up: list[Obj] = []
    for node_name in view.index_values(PODS, "node"):
        if not node_name:
            continue
        node = view.get(NODES, node_name)
        pods = view.by_index(PODS, "node", node_name) if node is None or _is_given_up(node) else []
        if node is None:
            astray += [(pod, _unchanged_s(view, pod)) for pod in pods]
        else:
            given_up += [pod for pod in pods if is_deleting(pod)]
    unbound = view.by_index(PODS, "node", "")
    finished = [*view.by_index(PODS, "phase", "Succeeded"), *view.by_index(PODS, "phase", "Failed")]
    return Observed(
        astray=tuple(astray),
        unscheduled=tuple(pod for pod in unbound if is_deleting(pod)),
        out_of_service=tuple(given_up),
        finished=tuple(finished) if len(finished) > view.settings.terminated_pods_max else (),
        finished_max=view.settings.terminated_pods_max,
    )


def _unchanged_s(view: View, pod: Obj) -> float:
    meta = pod["metadata"]
    found = view.unchanged_s(PODS, f"{meta['namespace']}/{meta['name']}")
    return math.inf if found is None else found


def _is_given_up(node: Obj) -> bool:
    ready = any(
        row["type"] == "Ready" and row["status"] == "True" for row in (node.get("status") or {}).get("conditions") or ()
    )
    return not ready and any(taint["key"] == OUT_OF_SERVICE for taint in (node.get("spec") or {}).get("taints") or ())


def reconcile(observed: Observed, now: float) -> Plan:
    draft = Draft()
    for pod, unchanged_s in observed.astray:
        wait_s = QUARANTINE_S - unchanged_s
        if wait_s > 0:
            draft.look_again(wait_s)
        else:
            draft.add(ExpectGone(resource=NODES, namespace="", name=pod["spec"]["nodeName"], uid=""))
            _remove(draft, pod, now, "PodGC: node no longer exists")
    for pod in observed.unscheduled:
        _remove(draft, pod, now, "")
    for pod in observed.out_of_service:
        _remove(draft, pod, now, "PodGC: node is out of service")
    surplus = len(observed.finished) - observed.finished_max
    if observed.finished and surplus > 0:
        oldest = sorted(observed.finished, key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", name(pod)))
        draft.add(Batch(tuple(delete(PODS, pod, grace_s=0) for pod in oldest[:surplus])))
    draft.look_again(LOOK_S)
    return draft.done()


def _remove(draft: Draft, pod: Obj, now: float, reason: str) -> None:
    """Ends a pod that no node agent will: marked as failed where it has not ended, then removed at once."""
    steps: list[Action] = []
    status = pod.get("status") or {}
    if status.get("phase") not in ("Succeeded", "Failed"):
        changes: Obj = {"phase": "Failed"}
        if reason:
            changes["conditions"] = with_condition(
                status.get("conditions") or (),
                "DisruptionTarget",
                "True",
                now,
                reason="DeletionByPodGC",
                message=reason,
            )
        steps.append(patch(PODS, pod, {"status": changes}, subresource="status", exact=False))
    steps.append(delete(PODS, pod, grace_s=0))
    draft.add(*steps)


def keys_of_pod(pod: Obj, view: View) -> Iterable[str]:
    """Nothing but what cannot wait for the next look: a deleted pod that was never bound."""
    return (EVERYTHING,) if is_deleting(pod) and not (pod.get("spec") or {}).get("nodeName") else ()


def keys_of_node(node: Obj, view: View) -> Iterable[str]:
    return (EVERYTHING,)


POD_GC = ControllerSpec(
    name="podgc",
    watches=(
        Watch(resource=PODS, keys=keys_of_pod, indexes=("node", "phase"), timed=True),
        Watch(resource=NODES, keys=keys_of_node),
    ),
    observe=observe,
    reconcile=reconcile,
    at_start=(EVERYTHING,),
    workers=1,
    interval_s=1.0,
)
