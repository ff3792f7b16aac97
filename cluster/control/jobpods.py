"""A Job's pods: how one ended, what a failure policy says of it, and sets of completion indexes.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from steersman.cluster.control.indexes import JOB_TRACKING
from steersman.cluster.meta.objects import Obj, annotations_of, is_deleting, key
from steersman.cluster.meta.times import parse_time

FINALIZER = JOB_TRACKING
INDEX = "batch.kubernetes.io/job-completion-index"
INDEX_FAILURES = "batch.kubernetes.io/job-index-failure-count"


def index_of(pod: Obj) -> int:
    """The pod's completion index; -1 for none."""
    text = annotations_of(pod).get(INDEX, "")
    return int(text) if text.isdigit() else -1


def index_failures(pod: Obj) -> int:
    text = annotations_of(pod).get(INDEX_FAILURES, "")
    return int(text) if text.isdigit() else 0


def parse_indexes(text: str | None, limit: int) -> set[int]:
    """Reads `1,3-5`; indexes from `limit` on are left out."""
    found: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found.update(range(int(first), min(int(last) if last.isdigit() else int(first), limit - 1) + 1))
    return {index for index in found if index < limit}


def format_indexes(indexes: Iterable[int]) -> str:
    """Returns `1,3-5`."""
    parts: list[str] = []
    run: list[int] = []
    for index in [*sorted(indexes), -1]:
        if run and index == run[-1] + 1:
            run.append(index)
            continue
        if run:
            # as Kubernetes writes them: two in a row are a range as well
            parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
        run = [index]
    return ",".join(parts)


def has_succeeded(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") == "Succeeded"


def has_failed(pod: Obj, *, only_when_ended: bool) -> bool:
    """Whether a pod counts as failed.

    Args:
        only_when_ended: a pod that is being deleted counts only once it has ended (pod replacement policy `Failed`).
    """
    phase = (pod.get("status") or {}).get("phase")
    return phase == "Failed" or (not only_when_ended and is_deleting(pod) and phase != "Succeeded")


def is_ending(pod: Obj) -> bool:
    """Whether a pod is being deleted and has not ended yet."""
    return is_deleting(pod) and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def finished_at(pod: Obj) -> float:
    """When a pod ended, as well as is known; 0 for unknown."""
    status = pod.get("status") or {}
    stamps = [
        state["finishedAt"]
        for row in status.get("containerStatuses") or ()
        if (state := (row.get("state") or {}).get("terminated")) and state.get("finishedAt")
    ]
    if not stamps:
        stamps = [
            row["lastTransitionTime"]
            for row in status.get("conditions") or ()
            if row.get("type") == "Ready" and row.get("lastTransitionTime")
        ]
    meta = pod["metadata"]
    fallback = meta.get("deletionTimestamp") or meta.get("creationTimestamp")
    return max(map(parse_time, stamps)) if stamps else parse_time(fallback) if fallback else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure policy says of a failed pod."""

    action: Literal["FailJob", "Ignore", "Count", "FailIndex"]
    message: str = ""


def judge(policy: Obj | None, pod: Obj) -> Verdict:
    """Returns the action of the first rule that matches; without one the failure counts."""
    for number, rule in enumerate((policy or {}).get("rules") or ()):
        action = rule["action"]
        matched = _by_exit_code(rule.get("onExitCodes"), pod) or _by_condition(rule.get("onPodConditions"), pod)
        if matched:
            return Verdict(action, f"{matched} matching {action} rule at index {number}")
    return Verdict("Count")


def _by_exit_code(wanted: Obj | None, pod: Obj) -> str:
    if not wanted:
        return ""
    status = pod.get("status") or {}
    for row in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        ended = (row.get("state") or {}).get("terminated")
        if not ended or not ended.get("exitCode") or wanted.get("containerName", row["name"]) != row["name"]:
            continue
        if (ended["exitCode"] in wanted["values"]) is (wanted["operator"] == "In"):
            return f"Container {row['name']} for pod {key(pod)} failed with exit code {ended['exitCode']}"
    return ""


def _by_condition(wanted: Sequence[Obj] | None, pod: Obj) -> str:
    for pattern in wanted or ():
        for row in (pod.get("status") or {}).get("conditions") or ():
            if row.get("type") == pattern["type"] and row.get("status") == pattern.get("status", "True"):
                return f"Pod {key(pod)} has condition {row['type']}"
    return ""
