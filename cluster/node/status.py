"""The status of a pod: phase, conditions, addresses, containers, as the kubelet writes them.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
and k8s.io/kubernetes/pkg/kubelet/{kubelet_pods.go,status/generate.go}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.times import format_time
from steersman.cluster.node.config import NodeConfig
from steersman.cluster.node.container_status import container_rows
from steersman.cluster.node.ending import Ending
from steersman.cluster.node.history import History
from steersman.cluster.node.observed import Observed
from steersman.cluster.node.resources import is_sidecar, qos_class

TERMINAL = ("Succeeded", "Failed")
_GROUPS = (
    ("initContainers", "initContainerStatuses"),
    ("containers", "containerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
)


def build_status(
    pod: Mapping[str, Any],
    seen: Observed,
    history: History,
    now: float,
    *,
    ending: Ending | None,
    before: Mapping[str, Any],
    config: NodeConfig,
    runtime: str,
) -> tuple[Obj, float | None]:
    """Returns the pod's whole status, and when it will read differently though nothing happens."""
    status: Obj = {}
    changes: list[float] = []
    for group, field in _GROUPS:
        containers = pod["spec"].get(group)
        if not containers:
            continue
        rows = container_rows(
            containers,
            seen,
            history,
            now,
            before=before.get(field) or (),
            ending=ending is not None,
            runtime=runtime,
        )
        status[field] = rows.rows
        if rows.changes_at is not None:
            changes.append(rows.changes_at)
    status["phase"] = _phase(pod, status, before, ending)
    status["conditions"] = _conditions(pod, status, seen, history, before, now, ending=ending)
    status |= _addresses(pod, history, before, config)
    status["startTime"] = before.get("startTime") or format_time(now)
    status["qosClass"] = before.get("qosClass") or qos_class(pod)
    if generation := pod["metadata"].get("generation"):
        status["observedGeneration"] = generation
    if ending is not None and (ending.reason or ending.message):
        status |= {"reason": ending.reason, "message": ending.message}
    elif before.get("phase") in TERMINAL:
        status |= {key: before[key] for key in ("reason", "message") if before.get(key)}
    return status, min(changes, default=None)


def _addresses(pod: Mapping[str, Any], history: History, before: Mapping[str, Any], config: NodeConfig) -> Obj:
    row: Obj = {"hostIP": config.address, "hostIPs": [{"ip": config.address}]}
    if pod["spec"].get("hostNetwork"):
        ips: tuple[str, ...] = (config.address,) if history.newest is not None or before.get("podIP") else ()
    else:
        ips = history.sandbox.ips if history.sandbox is not None else ()
    if ips:
        row |= {"podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]}
    elif before.get("podIP") and before.get("phase") not in (None, "Pending"):
        row |= {key: before[key] for key in ("podIP", "podIPs") if key in before}
    return row


# --- phase


def _phase(pod: Mapping[str, Any], status: Mapping[str, Any], before: Mapping[str, Any], ending: Ending | None) -> str:
    rows = [row for _, field in _GROUPS for row in status.get(field) or ()]
    running = any("running" in row["state"] for row in rows)
    if before.get("phase") in TERMINAL:
        return str(before["phase"])
    if ending is not None and ending.failed:
        return "Failed" if not running else _open_phase(pod, status)
    if ending is not None and ending.remove and not running:
        return _removed_phase(status)
    phase = _open_phase(pod, status)
    if phase in TERMINAL and running:
        return "Running"
    return phase


def _removed_phase(status: Mapping[str, Any]) -> str:
    """The phase of a deleted pod with nothing left running: what its main containers came to."""
    mains = status.get("containerStatuses") or ()
    codes = [row["state"].get("terminated", {}).get("exitCode") for row in mains]
    return "Succeeded" if codes and all(code == 0 for code in codes) else "Failed"


def _open_phase(pod: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    policy = pod["spec"].get("restartPolicy") or "Always"
    if initial := _initial_phase(pod, status, policy):
        return initial
    running = waiting = stopped = succeeded = 0
    for row in status.get("containerStatuses") or ():
        state = row["state"]
        if "running" in state:
            running += 1
        elif "terminated" in state:
            stopped += 1
            succeeded += state["terminated"]["exitCode"] == 0
        elif (row.get("lastState") or {}).get("terminated"):
            stopped += 1
        else:
            waiting += 1
    if waiting:
        return "Pending"
    if running:
        return "Running"
    if not stopped:
        return "Pending"
    if policy == "Always":
        return "Running"
    if stopped == succeeded:
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def _initial_phase(pod: Mapping[str, Any], status: Mapping[str, Any], policy: str) -> str:
    """`Pending` or `Failed` while initialisation is not over; empty once it is."""
    begun = any("waiting" not in row["state"] or row["lastState"] for row in status.get("containerStatuses") or ())
    rows = status.get("initContainerStatuses") or ()
    for container, row in zip(pod["spec"].get("initContainers") or (), rows, strict=True):
        state = row["state"]
        if is_sidecar(container):
            if not begun and not row.get("started"):
                return "Pending"
            continue
        if "terminated" in state and state["terminated"]["exitCode"] != 0:
            if policy == "Never" or container.get("restartPolicy") == "Never":
                return "Failed"
            if not begun:
                return "Pending"
        elif "terminated" not in state and not begun:
            return "Pending"
    return ""


# --- conditions


def _conditions(
    pod: Mapping[str, Any],
    status: Mapping[str, Any],
    seen: Observed,
    history: History,
    before: Mapping[str, Any],
    now: float,
    *,
    ending: Ending | None,
) -> list[Obj]:
    old = before.get("conditions") or ()
    containers = _containers_ready(pod, status)
    sandbox = history.sandbox is not None and bool(history.sandbox.ips or pod["spec"].get("hostNetwork"))
    wanted = [
        {"type": "PodReadyToStartContainers", "status": _text(sandbox)},
        _initialized(pod, status),
        _ready(pod, containers, old),
        {"type": "ContainersReady", **containers},
        next((row for row in old if row["type"] == "PodScheduled"), {"type": "PodScheduled", "status": "True"}),
    ]
    if ending is not None and ending.condition is not None:
        wanted.append(ending.condition)
    generation = pod["metadata"].get("generation")
    by_type = {row["type"]: row for row in old}
    rows = [_settled(row, by_type.get(row["type"]), generation, now) for row in wanted]
    ours = {row["type"] for row in rows}
    return rows + [row for row in old if row["type"] not in ours]


def _settled(row: Obj, old: Mapping[str, Any] | None, generation: int | None, now: float) -> Obj:
    """The condition with its times: a transition only when the status turns."""
    same = old is not None and old.get("status") == row["status"]
    moment = old.get("lastTransitionTime") if same and old is not None else None
    full: Obj = {**row, "lastTransitionTime": moment or format_time(now)}
    if generation:
        full["observedGeneration"] = generation
    return full


def _text(value: bool) -> str:
    return "True" if value else "False"


def _initialized(pod: Mapping[str, Any], status: Mapping[str, Any]) -> Obj:
    rows = status.get("initContainerStatuses") or ()
    begun = any("waiting" not in row["state"] or row["lastState"] for row in status.get("containerStatuses") or ())
    missing = []
    for container, row in zip(pod["spec"].get("initContainers") or (), rows, strict=True):
        done = bool(row.get("started")) if is_sidecar(container) else bool(row.get("ready"))
        if not done and not begun:
            missing.append(row["name"])
    if status["phase"] == "Succeeded":
        return {"type": "Initialized", "status": "True", "reason": "PodCompleted"}
    if missing:
        return {
            "type": "Initialized",
            "status": "False",
            "reason": "ContainersNotInitialized",
            "message": f"containers with incomplete status: [{' '.join(missing)}]",
        }
    return {"type": "Initialized", "status": "True"}


def _containers_ready(pod: Mapping[str, Any], status: Mapping[str, Any]) -> Obj:
    """The ContainersReady condition without its type."""
    if status["phase"] == "Succeeded":
        return {"status": "False", "reason": "PodCompleted"}
    if status["phase"] == "Failed":
        return {"status": "False", "reason": "PodFailed"}
    sidecars = [row["name"] for row in pod["spec"].get("initContainers") or () if is_sidecar(row)]
    rows = [row for row in status.get("initContainerStatuses") or () if row["name"] in sidecars]
    rows += status.get("containerStatuses") or ()
    unready = [row["name"] for row in rows if not row["ready"]]
    if unready:
        message = f"containers with unready status: [{' '.join(unready)}]"
        return {"status": "False", "reason": "ContainersNotReady", "message": message}
    return {"status": "True"}


def _ready(pod: Mapping[str, Any], containers: Obj, old: Iterable[Mapping[str, Any]]) -> Obj:
    """The Ready condition: all containers, and every readiness gate."""
    if containers["status"] != "True":
        return {"type": "Ready", **containers}
    found = {row["type"]: row.get("status") for row in old}
    messages = []
    for gate in pod["spec"].get("readinessGates") or ():
        kind = gate["conditionType"]
        if kind not in found:
            messages.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif found[kind] != "True":
            messages.append(f'the status of pod readiness gate "{kind}" is not "True", but {found[kind]}')
    if messages:
        return {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady", "message": ", ".join(messages)}
    return {"type": "Ready", "status": "True"}


#: the conditions that a node's agent owns
_OWN_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")


def with_foreign(status: Mapping[str, Any], api: Mapping[str, Any]) -> Obj:
    """Returns the status last decided with everybody else's conditions as the API has them now.

    A pod that somebody else has ended (its phase is `Failed` or `Succeeded`) has ended.
    """
    own = [row for row in status.get("conditions") or () if row["type"] in _OWN_CONDITIONS]
    foreign = [row for row in api.get("conditions") or () if row["type"] not in _OWN_CONDITIONS]
    ended: Obj = {}
    if api.get("phase") in TERMINAL and status.get("phase") not in TERMINAL:
        ended = {key: api[key] for key in ("phase", "reason", "message") if key in api}
    return {**status, **ended, "conditions": own + foreign}


# --- what to send


def status_patch(pod: Mapping[str, Any], status: Mapping[str, Any]) -> Obj | None:
    """Returns the strategic merge patch that brings the API's status to `status`, or None when it is there."""
    old = pod.get("status") or {}
    changed: Obj = {}
    for field, value in status.items():
        if field == "conditions":
            known = {row["type"]: row for row in old.get("conditions") or ()}
            rows = [
                # what a merge would keep of the old row is taken out by name
                {**dict.fromkeys(known.get(row["type"], {})), **row}
                for row in value
                if known.get(row["type"]) != row and _bare(known.get(row["type"])) != _bare(row)
            ]
            if rows:
                changed["conditions"] = rows
        elif field in ("podIPs", "hostIPs"):
            if old.get(field) != value:
                changed[field] = [{"$patch": "replace"}, *value] if old.get(field) else value
        elif old.get(field) != value and not (field.endswith("Statuses") and _same_rows(old.get(field), value)):
            changed[field] = value
    for field in ("podIP", "podIPs", "reason", "message"):
        if old.get(field) and field not in status:
            changed[field] = None
    if not changed:
        return None
    return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": changed}


def _bare(row: Mapping[str, Any] | None) -> Obj | None:
    """The row without nulls and empty parts, which a server may drop."""
    if row is None:
        return None
    return {
        key: _bare(value) if isinstance(value, dict) else value
        for key, value in row.items()
        if value is not None and value != ""
    }


def _same_rows(old: Any, new: list[Obj]) -> bool:
    return isinstance(old, list) and [_bare(row) for row in old] == [_bare(row) for row in new]


def is_urgent(pod: Mapping[str, Any], patch: Mapping[str, Any]) -> bool:
    """Whether somebody waits for this change: the phase, readiness, an end or a restart; else it may wait for more."""
    changed = patch["status"]
    old = pod.get("status") or {}
    if changed.get("phase", old.get("phase")) != old.get("phase"):
        return True
    if any(
        row["type"] in ("Ready", "DisruptionTarget") and row["status"] == "True"
        for row in changed.get("conditions") or ()
    ):
        return True
    was_ready = any(row["type"] == "Ready" and row["status"] == "True" for row in old.get("conditions") or ())
    return was_ready and bool(changed.get("conditions"))
