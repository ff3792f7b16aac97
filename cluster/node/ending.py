"""How a pod ends: deleted, finished, past its deadline, refused or evicted.

Main containers stop together, then sidecars in reverse order, all within one grace; then the sandbox; for a deleted
pod everything is removed, and only then does the API hear of it.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steersman.cluster.meta.objects import Obj, is_deleting
from steersman.cluster.meta.times import parse_time
from steersman.cluster.node.history import History, is_alive
from steersman.cluster.node.observed import (
    Action,
    DeletePod,
    Observed,
    StopContainer,
    StopSandboxes,
    Teardown,
)
from steersman.cluster.node.resources import is_sidecar
from steersman.cluster.node.values import ContainerStatus

#: what a container gets at least, whatever hooks and earlier containers have used up
GRACE_MIN_S = 2.0
GRACE_DEFAULT_S = 30.0
DEADLINE_EXCEEDED = "DeadlineExceeded"
DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why and how a pod ends.

    Args:
        reason, message: for the pod's status; empty when the containers' own ends say it all.
        failed: the phase is `Failed` whatever the containers did.
        grace_s: from the beginning of the end.
        remove: nothing of the pod may be left.
        condition: a row for the pod's conditions.
    """

    grace_s: float
    reason: str = ""
    message: str = ""
    failed: bool = False
    remove: bool = False
    condition: Obj | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    actions: tuple[Action, ...] = ()
    wake_at: float | None = None
    finished: bool = False


def grace_of(pod: Mapping[str, Any]) -> float:
    """The pod's own termination grace in seconds."""
    grace = pod["spec"].get("terminationGracePeriodSeconds")
    return GRACE_DEFAULT_S if grace is None else float(grace)


def deadline_at(pod: Mapping[str, Any], before: Mapping[str, Any]) -> float | None:
    """When the pod has been active for too long (`activeDeadlineSeconds`), if it has such a bound and has begun."""
    limit_s = pod["spec"].get("activeDeadlineSeconds")
    started = before.get("startTime")
    if limit_s is None or not started:
        return None
    return parse_time(started) + float(limit_s)


def ending_of(
    pod: Mapping[str, Any], before: Mapping[str, Any], seen: Observed, history: History, now: float
) -> Ending | None:
    """Returns how the pod ends, or None while it is to run."""
    deleting = is_deleting(pod) or seen.gone
    grace_s = grace_of(pod)
    reason, message, failed, condition = "", "", False, None
    deadline = deadline_at(pod, before)
    if seen.refusal is not None:
        reason, message, failed = seen.refusal.reason, seen.refusal.message, True
        grace_s = grace_s if seen.refusal.grace_s is None else seen.refusal.grace_s
        condition = seen.refusal.condition
    elif deadline is not None and now >= deadline and before.get("phase") != "Succeeded":
        reason, message, failed = DEADLINE_EXCEEDED, DEADLINE_MESSAGE, True
    if is_deleting(pod) and pod["metadata"].get("deletionGracePeriodSeconds") is not None:
        grace_s = float(pod["metadata"]["deletionGracePeriodSeconds"])
    terminal = before.get("phase") in ("Succeeded", "Failed")
    if not (deleting or failed or terminal or history.is_finished()):
        return None
    return Ending(grace_s=grace_s, reason=reason, message=message, failed=failed, remove=deleting, condition=condition)


def end(ending: Ending, seen: Observed, history: History, now: float) -> Outcome:
    """Takes the next step towards the end."""
    alive = [row for row in seen.containers if is_alive(row)]
    if alive:
        return _stop(ending, seen, history, alive, now)
    if seen.busy & {"start", "sandbox", "volumes", "stop-sandbox", "teardown", "delete"}:
        return Outcome()
    ready = tuple(row.id for row in seen.sandboxes if row.ready)
    if ready:
        return Outcome(actions=(StopSandboxes(ids=ready),))
    if not ending.remove:
        return Outcome()
    if not seen.torn_down:
        action = Teardown(
            containers=tuple(row.id for row in seen.containers), sandboxes=tuple(row.id for row in seen.sandboxes)
        )
        return Outcome(actions=(action,))
    if seen.gone:
        return Outcome(finished=True)
    return Outcome(actions=(DeletePod(),)) if seen.saved else Outcome()


def _stop(ending: Ending, seen: Observed, history: History, alive: list[ContainerStatus], now: float) -> Outcome:
    since = now if seen.ending_since is None else seen.ending_since
    left_s = since + ending.grace_s - now
    grace_s = max(left_s, min(GRACE_MIN_S, ending.grace_s))
    order = [row["name"] for row in history.inits if is_sidecar(row)]
    mains = [row for row in alive if row.name not in order]
    if mains and left_s > 0:
        due = mains
    elif left_s <= 0:
        due = alive
    else:
        last = max(order.index(row.name) for row in alive)
        due = [row for row in alive if row.name == order[last]]
    actions = []
    for row in due:
        until = seen.stopping.get(row.id)
        if until is None or until > now + grace_s + 1.0:
            actions.append(
                StopContainer(
                    id=row.id,
                    name=row.name,
                    grace_s=grace_s,
                    message=f"Stopping container {row.name}",
                    hook=until is None,
                )
            )
    waiting = len(due) < len(alive)
    return Outcome(actions=tuple(actions), wake_at=since + ending.grace_s if waiting and left_s > 0 else None)
