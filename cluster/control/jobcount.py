"""Counts a Job's pods, each exactly once, however often the counting is interrupted.

A finished pod is first noted by uid in `status.uncountedTerminatedPods` while its finalizer still holds it; then the
finalizer is taken away; only when the pod is seen without it does the uid leave the note and raise the counter. Each
of these steps can be repeated without harm. Source: https://github.com/kubernetes/enhancements KEP-2307
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from steersman.cluster.control.jobpods import (
    FINALIZER,
    format_indexes,
    has_failed,
    has_succeeded,
    index_failures,
    index_of,
    is_ending,
    judge,
    parse_indexes,
)
from steersman.cluster.meta.objects import Obj, is_pod_active, is_pod_ready, uid

#: finished pods noted in one turn
UNCOUNTED_MAX = 500


@dataclass(slots=True, kw_only=True)
class Tally:
    """The result of a count.

    Args:
        active: neither finished nor being deleted.
        ending: being deleted and not finished.
        succeeded, failed: the counters as they are to be written.
        noted_succeeded, noted_failed: uids that are finished and not yet in the counters.
        freed: pods whose finalizer may go once the status has been written.
        completed, failed_indexes: of an Indexed job.
        verdict: the message of a failure policy that fails the job; empty for none.
    """

    active: list[Obj] = field(default_factory=list)
    ending: list[Obj] = field(default_factory=list)
    succeeded: int = 0
    failed: int = 0
    noted_succeeded: list[str] = field(default_factory=list)
    noted_failed: list[str] = field(default_factory=list)
    freed: list[Obj] = field(default_factory=list)
    completed: set[int] = field(default_factory=set)
    failed_indexes: set[int] = field(default_factory=set)
    verdict: str = ""
    indexed: bool = False

    @property
    def all_succeeded(self) -> int:
        return len(self.completed) if self.indexed else self.succeeded + len(self.noted_succeeded)

    @property
    def all_failed(self) -> int:
        return self.failed + len(self.noted_failed)

    @property
    def ready(self) -> int:
        return sum(map(is_pod_ready, self.active))

    @property
    def settled(self) -> bool:
        """Whether every finished pod is in the counters and no finalizer is left to take away."""
        return len(self.noted_succeeded) + len(self.noted_failed) + len(self.freed) == 0


def is_indexed(job: Obj) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def replaces_only_ended(job: Obj) -> bool:
    spec = job["spec"]
    policy = spec.get("podReplacementPolicy")
    return policy == "Failed" or (policy is None and bool(spec.get("podFailurePolicy")))


def tally(job: Obj, pods: Sequence[Obj]) -> Tally:
    """Counts the job's pods on top of what its status says already."""
    status = job.get("status") or {}
    noted = status.get("uncountedTerminatedPods") or {}
    result = Tally(succeeded=status.get("succeeded") or 0, failed=status.get("failed") or 0, indexed=is_indexed(job))
    completions = job["spec"].get("completions") or 0
    if result.indexed:
        result.completed = parse_indexes(status.get("completedIndexes"), completions)
        result.failed_indexes = parse_indexes(status.get("failedIndexes"), completions)
    held = {uid(pod) for pod in pods if _is_held(pod)}
    for pod_uid in noted.get("succeeded") or ():
        if pod_uid in held:
            result.noted_succeeded.append(pod_uid)
        else:
            result.succeeded += 1
    for pod_uid in noted.get("failed") or ():
        if pod_uid in held:
            result.noted_failed.append(pod_uid)
        else:
            result.failed += 1
    already = {*result.noted_succeeded, *result.noted_failed}
    for pod in pods:
        _look_at(job, result, pod, already, completions)
    if result.indexed:
        result.succeeded = len(result.completed)
    return result


def _is_held(pod: Obj) -> bool:
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


def _look_at(job: Obj, result: Tally, pod: Obj, already: set[str], completions: int) -> None:
    if is_pod_active(pod):
        result.active.append(pod)
        return
    if is_ending(pod):
        result.ending.append(pod)
    if not _is_held(pod):
        return
    if uid(pod) in already:
        result.freed.append(pod)
        return
    if len(result.freed) >= UNCOUNTED_MAX:
        return
    if has_succeeded(pod):
        result.freed.append(pod)
        if not result.indexed:
            result.noted_succeeded.append(uid(pod))
        elif 0 <= index_of(pod) < completions:
            result.completed.add(index_of(pod))
    elif has_failed(pod, only_when_ended=replaces_only_ended(job)):
        _fail(job, result, pod)


def _fail(job: Obj, result: Tally, pod: Obj) -> None:
    result.freed.append(pod)
    verdict = judge(job["spec"].get("podFailurePolicy"), pod)
    if verdict.action == "Ignore":
        return
    result.noted_failed.append(uid(pod))
    if verdict.action == "FailJob":
        result.verdict = result.verdict or verdict.message
    limit = job["spec"].get("backoffLimitPerIndex")
    if result.indexed and limit is not None:
        index = index_of(pod)
        spent = index_failures(pod) >= limit
        if index >= 0 and index not in result.completed and (spent or verdict.action == "FailIndex"):
            result.failed_indexes.add(index)


def counting_status(result: Tally, job: Obj) -> Obj:
    """Returns the counting part of the status."""
    status: Obj = {"uncountedTerminatedPods": {}, "ready": result.ready, "terminating": len(result.ending)}
    if result.active:
        status["active"] = len(result.active)
    if result.succeeded:
        status["succeeded"] = result.succeeded
    if result.failed:
        status["failed"] = result.failed
    if result.noted_succeeded:
        status["uncountedTerminatedPods"]["succeeded"] = result.noted_succeeded
    if result.noted_failed:
        status["uncountedTerminatedPods"]["failed"] = result.noted_failed
    if result.indexed:
        if result.completed:
            status["completedIndexes"] = format_indexes(result.completed)
        if job["spec"].get("backoffLimitPerIndex") is not None:
            status["failedIndexes"] = format_indexes(result.failed_indexes)
    return status
