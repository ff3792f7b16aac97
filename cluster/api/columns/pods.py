"""Columns of Pod: readiness, the status word that stands for phase and container states, restarts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from steersman.cluster.api.columns.column import Age, Column, Columns, Name, age, joined, name, rows, since, sub, wide
from steersman.cluster.meta.objects import Obj, condition, is_true
from steersman.cluster.meta.times import parse_time


def status_word(pod: Obj) -> str:
    """The one word that `get pods` shows: `Running`, `CrashLoopBackOff`, `Init:0/1`, `Terminating`, ..."""
    return _summary(pod)[0]


def _summary(pod: Obj) -> tuple[str, int, int, str]:
    """Returns (status word, ready containers, restarts, when the last container ended)."""
    status = sub(pod, "status")
    phase = status.get("phase", "")
    word = status.get("reason") or phase
    scheduled = condition(pod, "PodScheduled")
    if scheduled and scheduled.get("reason") == "SchedulingGated":
        word = "SchedulingGated"
    sidecars = {c["name"] for c in rows(pod, "spec", "initContainers") if c.get("restartPolicy") == "Always"}
    init_word, ready, init_rows = _init_summary(pod, sidecars)
    counted = init_rows
    if init_word is None or is_true(pod, "Initialized"):
        mains = rows(status, "containerStatuses")
        counted = [row for row in init_rows if row.get("name") in sidecars] + mains
        word, running = _main_word(word, mains)
        ready += running
        if word == "Completed" and running:
            word = "Running" if is_true(pod, "Ready") else "NotReady"
    if init_word is not None and not is_true(pod, "Initialized"):
        word = init_word
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            word = "Unknown"
        elif phase not in ("Succeeded", "Failed"):
            word = "Terminating"
    return word, ready, sum(row.get("restartCount", 0) for row in counted), _last_end(counted)


def _init_summary(pod: Obj, sidecars: set[str]) -> tuple[str | None, int, list[Obj]]:
    """Returns (status word while initializing, ready sidecars, the statuses looked at)."""
    ready, seen = 0, []
    for position, row in enumerate(rows(pod, "status", "initContainerStatuses")):
        seen.append(row)
        state = row.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting") or {}
        if ended and ended.get("exitCode", 0) == 0:
            continue
        if row.get("name") in sidecars and row.get("started"):
            ready += bool(row.get("ready"))
            continue
        if ended:
            return f"Init:{_end_word(ended)}", ready, seen
        if waiting.get("reason") and waiting["reason"] != "PodInitializing":
            return f"Init:{waiting['reason']}", ready, seen
        return f"Init:{position}/{len(rows(pod, 'spec', 'initContainers'))}", ready, seen
    return None, ready, seen


def _main_word(word: str, statuses: list[Obj]) -> tuple[str, int]:
    """Returns (status word after the first container that has one to say, ready containers)."""
    ready = 0
    for row in reversed(statuses):
        state = row.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting") or {}
        if waiting.get("reason"):
            word = waiting["reason"]
        elif ended:
            word = _end_word(ended)
        elif row.get("ready") and "running" in state:
            ready += 1
    return word, ready


def _end_word(ended: Obj) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode', 0)}"


def _last_end(statuses: Iterable[Obj]) -> str:
    ends = [sub(row, "lastState", "terminated").get("finishedAt") or "" for row in statuses]
    return max((end for end in ends if end), key=parse_time, default="")


def _cells(pod: Obj, now: float) -> list[Any]:
    word, ready, restarts, last_end = _summary(pod)
    spec, status = sub(pod, "spec"), sub(pod, "status")
    sidecars = [c for c in rows(spec, "initContainers") if c.get("restartPolicy") == "Always"]
    total = len(rows(spec, "containers")) + len(sidecars)
    gates = rows(spec, "readinessGates")
    passed = sum(is_true(pod, gate.get("conditionType", "")) for gate in gates)
    ips = [row.get("ip", "") for row in rows(status, "podIPs")]
    return [
        name(pod),
        f"{ready}/{total}",
        word,
        f"{restarts} ({since(last_end, now)} ago)" if restarts and last_end else str(restarts),
        age(pod, now),
        ips[0] if ips else status.get("podIP") or "<none>",
        spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>",
        f"{passed}/{len(gates)}" if gates else joined(()),
    ]


#: phases in which a pod is over, and what its row says then
_OVER = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}


def _conditions(pod: Obj) -> list[Obj]:
    phase = sub(pod, "status").get("phase", "")
    if phase not in _OVER:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": _OVER[phase]}]


_PODS = (Name, Column("Ready"), Column("Status"), Column("Restarts"), Age)
COLUMNS = {
    ("", "Pod"): Columns(
        (*_PODS, *wide("IP", "Node", "Nominated Node", "Readiness Gates")), _cells, conditions=_conditions
    ),
}
