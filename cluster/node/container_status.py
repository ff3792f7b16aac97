"""The rows of `status.containerStatuses`: what each container does, did last, and waits for.

Source: k8s.io/kubernetes/pkg/kubelet/kubelet_pods.go (convertToAPIContainerStatuses)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.times import format_time
from steersman.cluster.node.backoff import Failure, ready_at
from steersman.cluster.node.history import History, restarts
from steersman.cluster.node.observed import Observed
from steersman.cluster.node.resources import is_sidecar
from steersman.cluster.node.values import ContainerState, ContainerStatus

#: how long a failed pull shows its own reason before it shows the back-off
ERROR_SHOWN_S = 3.0
_PULL_REASONS = ("ErrImagePull", "ImageInspectError", "RegistryUnavailable", "ErrImageNeverPull", "InvalidImageName")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Args: changes_at: when a row will read differently though nothing happens."""

    rows: list[Obj]
    changes_at: float | None = None


def container_rows(
    containers: Iterable[Obj],
    seen: Observed,
    history: History,
    now: float,
    *,
    before: Iterable[Mapping[str, Any]],
    ending: bool,
    runtime: str,
) -> Rows:
    """Returns one row a container, in the spec's order.

    Args:
        before: the rows as they were; a container that the runtime no longer shows keeps its last words.
        ending: whether nothing will be started again.
    """
    old_rows = {row["name"]: row for row in before}
    rows, changes_at = [], None
    for container in containers:
        row, at = _row(container, seen, history, now, old_rows.get(container["name"]), ending=ending, runtime=runtime)
        rows.append(row)
        if at is not None:
            changes_at = at if changes_at is None else min(at, changes_at)
    return Rows(rows=rows, changes_at=changes_at)


def _row(
    container: Obj,
    seen: Observed,
    history: History,
    now: float,
    old: Mapping[str, Any] | None,
    *,
    ending: bool,
    runtime: str,
) -> tuple[Obj, float | None]:
    name = container["name"]
    generations = [row for row in history.by_name.get(name, ()) if row.state is not ContainerState.CREATED]
    if not generations:
        return _unseen(container, seen, history, now, old, ending=ending)
    latest = generations[0]
    last = terminated(generations[1], seen, runtime) if len(generations) > 1 else _old_last(old, latest)
    state, changes_at = _state(latest, seen, runtime), None
    if latest.state is ContainerState.EXITED and not ending:
        waiting, changes_at = _waiting_again(container, latest, seen, history, now)
        if waiting is not None:
            state, last = {"waiting": waiting}, terminated(latest, seen, runtime)
    started, ready = _readiness(container, latest, seen, history)
    row: Obj = {
        "name": name,
        "state": state,
        "lastState": {"terminated": last} if last else {},
        "ready": ready,
        "restartCount": latest.attempt,
        "image": container["image"],
        "imageID": latest.image,
        "containerID": f"{runtime}://{latest.id}",
        "started": started,
    }
    return row | _details(container), changes_at


def _details(container: Mapping[str, Any]) -> Obj:
    """What the row repeats from the spec: resources and mounts."""
    details: Obj = {}
    resources = {key: value for key, value in (container.get("resources") or {}).items() if value}
    if resources:
        details["resources"] = resources
        if resources.get("requests"):
            details["allocatedResources"] = resources["requests"]
    mounts = []
    for mount in container.get("volumeMounts") or ():
        row: Obj = {"name": mount["name"], "mountPath": mount["mountPath"]}
        if mount.get("readOnly"):
            row |= {"readOnly": True, "recursiveReadOnly": "Disabled"}
        mounts.append(row)
    if mounts:
        details["volumeMounts"] = mounts
    return details


def _old_last(old: Mapping[str, Any] | None, latest: ContainerStatus) -> Obj | None:
    """The former generation's end as the status remembers it, when the runtime has forgotten it."""
    if old is None:
        return None
    remembered: Obj | None = (old.get("lastState") or {}).get("terminated")
    if remembered is not None and remembered.get("containerID", "").endswith(latest.id):
        return None
    return remembered


def terminated(status: ContainerStatus, seen: Observed, runtime: str) -> Obj:
    """Returns the `terminated` state of a container that has exited."""
    message = seen.messages.get(status.id) or status.message
    row: Obj = {
        "exitCode": status.exit_code,
        "reason": status.reason or ("Error" if status.exit_code else "Completed"),
        "startedAt": format_time(status.started_at) if status.started_at else None,
        "finishedAt": format_time(status.finished_at) if status.finished_at else None,
        "containerID": f"{runtime}://{status.id}",
    }
    if status.signal:
        row["signal"] = status.signal
    if message:
        row["message"] = message
    return row


def _state(status: ContainerStatus, seen: Observed, runtime: str) -> Obj:
    match status.state:
        case ContainerState.RUNNING:
            return {"running": {"startedAt": format_time(status.started_at)}}
        case ContainerState.EXITED:
            return {"terminated": terminated(status, seen, runtime)}
        case ContainerState.CREATED | ContainerState.UNKNOWN:
            return {"waiting": {"reason": "ContainerCreating"}}


def _readiness(
    container: Mapping[str, Any], status: ContainerStatus, seen: Observed, history: History
) -> tuple[bool, bool]:
    """Returns (started, ready)."""
    plain_init = any(row["name"] == status.name for row in history.inits) and not is_sidecar(container)
    if plain_init:
        return False, status.state is ContainerState.EXITED and status.exit_code == 0
    if status.state is not ContainerState.RUNNING:
        return False, False
    if seen.starting == status.name:
        return False, False
    verdict = seen.verdicts.get(status.id)
    if verdict is None:
        return True, True
    return verdict.started, verdict.started and verdict.ready


def _waiting_again(
    container: Mapping[str, Any], latest: ContainerStatus, seen: Observed, history: History, now: float
) -> tuple[Obj | None, float | None]:
    """The waiting state of a container that has exited and will run again; None while it shows its end."""
    plain_init = any(row["name"] == latest.name for row in history.inits) and not is_sidecar(container)
    if plain_init and latest.exit_code == 0:
        return None, None
    if not plain_init and not is_sidecar(container) and not restarts(history.pod, container, latest.exit_code):
        return None, None
    failure = seen.failures.get(latest.name)
    if failure is not None and (failure.reason != "RunContainerError" or now < failure.at + ERROR_SHOWN_S):
        waiting, changes_at = failed_start(container, failure, now)
        return waiting, failure.at + ERROR_SHOWN_S if failure.reason == "RunContainerError" else changes_at
    backoff = seen.crash.get(latest.name) if failure is None else failure.backoff
    ended_at = seen.exited.get(latest.id, latest.finished_at)
    at = ready_at(backoff, ended_at) if failure is None else failure.retry_at
    if backoff is None or now >= at:
        return None, None
    meta = history.pod["metadata"]
    message = (
        f"back-off {_duration(backoff.delay_s)} restarting failed container={latest.name} "
        f"pod={meta['name']}_{meta.get('namespace', '')}({meta['uid']})"
    )
    return {"reason": "CrashLoopBackOff", "message": message}, at


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def failed_start(container: Mapping[str, Any], failure: Failure, now: float) -> tuple[Obj, float | None]:
    """Returns the waiting state after a failed attempt to start, and when it will read differently."""
    if failure.reason in _PULL_REASONS[:3]:
        shown_until = failure.at + ERROR_SHOWN_S
        if now >= shown_until:
            message = f'Back-off pulling image "{container["image"]}": {failure.reason}: {failure.message}'
            return {"reason": "ImagePullBackOff", "message": message}, None
        return {"reason": failure.reason, "message": failure.message}, shown_until
    return {"reason": failure.reason, "message": failure.message}, None


def _unseen(
    container: Obj, seen: Observed, history: History, now: float, old: Mapping[str, Any] | None, *, ending: bool
) -> tuple[Obj, float | None]:
    """The row of a container that the runtime does not show: not started yet, or gone."""
    name = container["name"]
    row: Obj = {
        "name": name,
        "state": {},
        "lastState": {},
        "ready": False,
        "restartCount": int((old or {}).get("restartCount") or 0),
        "image": container["image"],
        "imageID": "",
        "started": False,
    } | _details(container)
    changes_at = None
    old_state = (old or {}).get("state") or {}
    if old is not None and old.get("containerID"):
        row |= {key: old[key] for key in ("imageID", "containerID") if key in old}
        if "terminated" in old_state:
            row |= {"state": old_state, "lastState": old.get("lastState") or {}, "ready": bool(old.get("ready"))}
            return row, None
        lost: Obj = {
            "exitCode": 137,
            "reason": "ContainerStatusUnknown",
            "message": "The container could not be located when the pod was terminated"
            if ending
            else "The container could not be located when the pod was restarted",
            "startedAt": None,
            "finishedAt": None,
        }
        if not ending and not restarts(history.pod, container, lost["exitCode"]):
            row["state"] = {"terminated": lost}
            return row, None
        if ending:
            if "waiting" in old_state:
                row |= {"state": old_state, "lastState": old.get("lastState") or {}}
            else:
                row["state"] = {"terminated": lost}
            return row, None
        row["lastState"] = old.get("lastState") or {"terminated": lost}
    failure = seen.failures.get(name)
    if failure is not None:
        waiting, changes_at = failed_start(container, failure, now)
    elif old_state.get("waiting") and ending:
        waiting = old_state["waiting"]
    else:
        waiting = {"reason": "PodInitializing" if history.inits else "ContainerCreating"}
    row["state"] = {"waiting": waiting}
    return row, changes_at
