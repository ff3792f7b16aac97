"""A Deployment's status: counts, and the conditions Available, Progressing and ReplicaFailure in Kubernetes' words.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status
"""

from __future__ import annotations

from collections.abc import Sequence

from steersman.cluster.control.revisions import size_of
from steersman.cluster.control.rollout import Bounds
from steersman.cluster.meta.objects import Obj, condition, name
from steersman.cluster.meta.times import format_time, parse_time

#: a deadline that means none
NO_DEADLINE = 2**31 - 1


def set_condition(
    conditions: Sequence[Obj], kind: str, status: str, reason: str, message: str, now: float, *, renew: bool = False
) -> list[Obj]:
    """Returns the conditions with one set; the same status and reason change nothing unless `renew`."""
    old = next((row for row in conditions if row["type"] == kind), None)
    if old is not None and not renew and old.get("status") == status and old.get("reason") == reason:
        return list(conditions)
    stamp = format_time(now)
    moved = old is None or old.get("status") != status
    row = {
        "type": kind,
        "status": status,
        "lastUpdateTime": stamp,
        "lastTransitionTime": stamp if moved or old is None else old.get("lastTransitionTime", stamp),
        "reason": reason,
        "message": message,
    }
    return [*(other for other in conditions if other["type"] != kind), row]


def counts_of(deployment: Obj, new: Obj | None, replica_sets: Sequence[Obj]) -> Obj:
    """Returns the counting part of the status."""

    def total(field: str) -> int:
        return sum((found.get("status") or {}).get(field) or 0 for found in replica_sets)

    available = total("availableReplicas")
    unavailable = max(0, sum(map(size_of, replica_sets)) - available)
    updated = ((new.get("status") or {}).get("replicas") or 0) if new is not None else 0
    counts = {
        "replicas": total("replicas"),
        "updatedReplicas": updated,
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": unavailable,
    }
    status: Obj = {"observedGeneration": deployment["metadata"].get("generation", 0)}
    status |= {field: count for field, count in counts.items() if count}
    if any("terminatingReplicas" in (found.get("status") or {}) for found in replica_sets):
        status["terminatingReplicas"] = total("terminatingReplicas")
    if collisions := (deployment.get("status") or {}).get("collisionCount"):
        status["collisionCount"] = collisions
    return status


def is_complete(bounds: Bounds, counts: Obj) -> bool:
    """Whether every pod is of the new template and available, and no other is left."""
    fields = ("updatedReplicas", "replicas", "availableReplicas")
    return all(counts.get(field, 0) == bounds.replicas for field in fields)


def status_of(
    deployment: Obj,
    bounds: Bounds,
    new: Obj | None,
    replica_sets: Sequence[Obj],
    conditions: Sequence[Obj],
    now: float,
    *,
    rolling: bool = True,
) -> Obj:
    """Returns the whole status.

    Args:
        conditions: the present ones, with what this turn has changed already.
        rolling: whether to judge the rollout's progress; not while paused.
    """
    counts = counts_of(deployment, new, replica_sets)
    rows = list(conditions)
    enough = counts.get("availableReplicas", 0) >= bounds.replicas - bounds.unavailable
    rows = set_condition(
        rows,
        "Available",
        "True" if enough else "False",
        "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        now,
    )
    if rolling:
        rows = _with_progress(deployment, bounds, new, counts, rows, now)
        rows = _with_failure(rows, replica_sets)
    return {**counts, "conditions": rows}


def has_deadline(deployment: Obj) -> bool:
    deadline = deployment["spec"].get("progressDeadlineSeconds", 600)
    return deadline is not None and deadline != NO_DEADLINE


def _with_progress(
    deployment: Obj, bounds: Bounds, new: Obj | None, counts: Obj, rows: list[Obj], now: float
) -> list[Obj]:
    if not has_deadline(deployment):
        return [row for row in rows if row["type"] != "Progressing"]
    current = next((row for row in rows if row["type"] == "Progressing"), None)
    done_already = current is not None and current.get("reason") == "NewReplicaSetAvailable"
    if counts.get("replicas", 0) == counts.get("updatedReplicas", 0) and done_already:
        return rows
    subject = f'ReplicaSet "{name(new)}"' if new is not None else f'Deployment "{name(deployment)}"'
    if is_complete(bounds, counts):
        sentence = f"{subject} has successfully progressed."
        return set_condition(rows, "Progressing", "True", "NewReplicaSetAvailable", sentence, now)
    if has_progressed(deployment.get("status") or {}, counts):
        sentence = f"{subject} is progressing."
        return set_condition(rows, "Progressing", "True", "ReplicaSetUpdated", sentence, now, renew=True)
    if is_overdue(deployment, current, now):
        sentence = f"{subject} has timed out progressing."
        return set_condition(rows, "Progressing", "False", "ProgressDeadlineExceeded", sentence, now)
    return rows


def has_progressed(old: Obj, new: Obj) -> bool:
    """Whether the counts show that the rollout moved."""

    def stale(status: Obj) -> int:
        return int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))

    grown = any(
        new.get(field, 0) > old.get(field, 0) for field in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )
    return grown or stale(new) < stale(old)


def is_overdue(deployment: Obj, progressing: Obj | None, now: float) -> bool:
    if progressing is None or progressing.get("reason") == "NewReplicaSetAvailable":
        return False
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        return True
    return now >= _deadline(deployment, progressing)


def _deadline(deployment: Obj, progressing: Obj) -> float:
    since: str = progressing.get("lastUpdateTime") or progressing["lastTransitionTime"]
    seconds: int = deployment["spec"].get("progressDeadlineSeconds", 600)
    return parse_time(since) + seconds


def deadline_in_s(deployment: Obj, status: Obj, now: float) -> float | None:
    """Seconds until the rollout would be overdue; None when it is done, overdue already, or has no deadline."""
    row = condition({"status": status}, "Progressing")
    if row is None or not has_deadline(deployment):
        return None
    if row.get("reason") in ("NewReplicaSetAvailable", "ProgressDeadlineExceeded", "DeploymentPaused"):
        return None
    return max(0.0, _deadline(deployment, row) - now) + 1.0


def _with_failure(rows: list[Obj], replica_sets: Sequence[Obj]) -> list[Obj]:
    """Copies a ReplicaSet's trouble to the Deployment."""
    rest = [row for row in rows if row["type"] != "ReplicaFailure"]
    for found in replica_sets:
        failure = condition(found, "ReplicaFailure")
        if failure is not None and failure.get("status") == "True":
            old = next((row for row in rows if row["type"] == "ReplicaFailure"), {})
            return [*rest, {**failure, "lastUpdateTime": old.get("lastUpdateTime") or failure["lastTransitionTime"]}]
    return rest
