"""How far the rollout of a workload is, told from its spec and status as kubectl tells it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from steersman.cluster.meta.objects import Obj, condition


class Verdict(Enum):
    """Where a rollout stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Stage:
    """How far a rollout is.

    Args:
        ready: new pods that are available; wanted: how many there shall be.
    """

    verdict: Verdict
    text: str
    ready: int = 0
    wanted: int = 0


def stage(obj: Obj) -> Stage:
    """The stage of a Deployment, DaemonSet or StatefulSet."""
    status = obj.get("status") or {}
    if (obj["metadata"].get("generation") or 0) > (status.get("observedGeneration") or 0):
        return Stage(Verdict.RUNNING, f"Waiting for {obj['kind'].lower()} spec update to be observed...")
    match obj["kind"]:
        case "DaemonSet":
            return _daemon_set(obj)
        case "StatefulSet":
            return _stateful_set(obj)
    return _deployment(obj)


def _deployment(obj: Obj) -> Stage:
    name, status = obj["metadata"]["name"], obj.get("status") or {}
    progressing = condition(obj, "Progressing")
    wanted = obj["spec"].get("replicas", 1)
    updated, total, available = (status.get(k, 0) for k in ("updatedReplicas", "replicas", "availableReplicas"))
    ready = min(updated, available)
    head = f'Waiting for deployment "{name}" rollout to finish:'
    if progressing and progressing.get("reason") == "ProgressDeadlineExceeded":
        return Stage(Verdict.FAILED, f'deployment "{name}" exceeded its progress deadline', ready, wanted)
    if updated < wanted:
        text = f"{head} {updated} out of {wanted} new replicas have been updated..."
    elif total > updated:
        text = f"{head} {total - updated} old replicas are pending termination..."
    elif available < updated:
        text = f"{head} {available} of {updated} updated replicas are available..."
    else:
        return Stage(Verdict.DONE, f'deployment "{name}" successfully rolled out', wanted, wanted)
    return Stage(Verdict.RUNNING, text, ready, wanted)


def _daemon_set(obj: Obj) -> Stage:
    name, status = obj["metadata"]["name"], obj.get("status") or {}
    wanted = status.get("desiredNumberScheduled", 0)
    updated, available = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
    head = f'Waiting for daemon set "{name}" rollout to finish:'
    if updated < wanted:
        return Stage(
            Verdict.RUNNING, f"{head} {updated} out of {wanted} new pods have been updated...", updated, wanted
        )
    if available < wanted:
        return Stage(
            Verdict.RUNNING, f"{head} {available} of {wanted} updated pods are available...", available, wanted
        )
    return Stage(Verdict.DONE, f'daemon set "{name}" successfully rolled out', wanted, wanted)


def _stateful_set(obj: Obj) -> Stage:
    status = obj.get("status") or {}
    wanted = obj["spec"].get("replicas", 1)
    ready, updated = status.get("readyReplicas", 0), status.get("updatedReplicas", 0)
    if ready < wanted:
        return Stage(Verdict.RUNNING, f"Waiting for {wanted - ready} pods to be ready...", ready, wanted)
    if status.get("updateRevision") != status.get("currentRevision") and updated < wanted:
        revision = status["updateRevision"]
        text = f"waiting for statefulset rolling update to complete {updated} pods at revision {revision}..."
        return Stage(Verdict.RUNNING, text, updated, wanted)
    revision = status.get("currentRevision", "")
    text = f"statefulset rolling update complete {wanted} pods at revision {revision}..."
    return Stage(Verdict.DONE, text, wanted, wanted)
