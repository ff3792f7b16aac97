"""Job: runs pods until enough of them have succeeded, or too many have failed.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from steersman.cluster.control.indexes import tracked
from steersman.cluster.control.jobcount import Tally, counting_status, is_indexed, replaces_only_ended, tally
from steersman.cluster.control.jobpods import (
    FINALIZER,
    INDEX,
    INDEX_FAILURES,
    finished_at,
    has_failed,
    has_succeeded,
    index_failures,
    index_of,
    parse_indexes,
)
from steersman.cluster.control.plan import (
    NOTHING_TO_DO,
    Batch,
    Create,
    Draft,
    Patch,
    Plan,
    Refusal,
    delete,
    patch,
    status_patch,
)
from steersman.cluster.control.pods import claim, deletion_order, from_template, new_names, restarts
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.objects import (
    Obj,
    controller_of,
    is_deleting,
    is_true,
    key,
    labels_of,
    name,
    namespace,
    uid,
    with_condition,
)
from steersman.cluster.meta.resources import JOBS, PODS
from steersman.cluster.meta.selectors import SelectorError, from_dict
from steersman.cluster.meta.times import format_time, parse_time

#: pods created or deleted in one turn
BURST_MAX = 500
BACKOFF_S = 10.0
BACKOFF_MAX_S = 600.0
MANAGER = "kubernetes.io/job-controller"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: pods: those it controls; orphans: pods of its namespace that nobody controls."""

    job: Obj
    pods: tuple[Obj, ...] = ()
    orphans: tuple[Obj, ...] = ()


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Pods held for a Job that is gone and will not count them."""

    pods: tuple[Obj, ...]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job is to end. Args: kind: `Complete` or `Failed`."""

    kind: str
    reason: str
    message: str

    @property
    def interim(self) -> str:
        """The condition until the last pod is gone."""
        return "SuccessCriteriaMet" if self.kind == "Complete" else "FailureTarget"


def observe(view: View, key: str) -> Observed | Abandoned | None:
    job = view.get(JOBS, key)
    held = [pod for pod in view.by_index(PODS, "tracked", key) if job is None or _has_other_owner(pod, job)]
    if held:
        return Abandoned(tuple(held))
    if job is None or job["spec"].get("managedBy", MANAGER) != MANAGER:
        return None
    return Observed(
        job=job,
        pods=tuple(view.by_index(PODS, "controller", uid(job))),
        orphans=tuple(view.by_index(PODS, "orphan", namespace(job))),
    )


def keys_of_pod(pod: Obj, view: View) -> Iterable[str]:
    """The pod's Job; for an orphan every Job that selects it, and the one that it is still held for."""
    reference = controller_of(pod)
    if reference is not None:
        return (f"{namespace(pod)}/{reference['name']}",) if reference["kind"] == "Job" else ()
    return [*tracked(pod), *_selecting(pod, view)]


def _has_other_owner(pod: Obj, job: Obj) -> bool:
    reference = controller_of(pod)
    return reference is not None and reference["uid"] != uid(job)


def _selecting(pod: Obj, view: View) -> list[str]:
    found = view.by_index(JOBS, "namespace", namespace(pod)) if labels_of(pod) else ()
    return [key(job) for job in found if _selects(job, pod)]


def _selects(job: Obj, pod: Obj) -> bool:
    try:
        return from_dict(job["spec"].get("selector")).matches(labels_of(pod))
    except SelectorError:
        return False


def is_finished(job: Obj) -> bool:
    return is_true(job, "Complete") or is_true(job, "Failed")


def reconcile(observed: Observed | Abandoned, now: float) -> Plan:
    if isinstance(observed, Abandoned):
        return Plan(steps=(Batch(tuple(_freed(pod) for pod in observed.pods)),))
    job = observed.job
    selector = from_dict(job["spec"].get("selector"))
    claimed = claim(job, JOBS, PODS, selector, observed.pods, observed.orphans)
    if claimed.steps:
        return Plan(steps=claimed.steps)
    if is_finished(job) or is_deleting(job):
        freed = [_freed(pod) for pod in claimed.owned if FINALIZER in (pod["metadata"].get("finalizers") or ())]
        return Plan(steps=(Batch(tuple(freed)),)) if freed else NOTHING_TO_DO
    turn = _Turn(job, claimed.owned, now)
    ending = turn.ending()
    if ending is not None:
        turn.end(ending)
    elif job["spec"].get("suspend"):
        turn.suspend()
    else:
        turn.go_on()
    return turn.finish()


def _freed(pod: Obj) -> Patch:
    rest = [row for row in pod["metadata"]["finalizers"] if row != FINALIZER]
    return patch(PODS, pod, {"metadata": {"finalizers": rest or None}})


class _Turn:
    """One reconciliation of an unfinished job in the making."""

    def __init__(self, job: Obj, pods: tuple[Obj, ...], now: float) -> None:
        self.job = job
        self.spec: Obj = job["spec"]
        self.pods = pods
        self.now = now
        self.tally: Tally = tally(job, pods)
        self.draft = Draft()
        old: Obj = job.get("status") or {}
        self.conditions: list[Obj] = list(old.get("conditions") or ())
        self.start_time: str | None = old.get("startTime")
        self.completion_time: str | None = None
        self.creations: list[Create] = []

    # --- how it ends --------------------------------------------------------------------------------------------------

    def ending(self) -> Ending | None:
        """Returns how the job is to end, once that is decided; a decision stands."""
        for row in self.conditions:
            if row.get("status") == "True" and row["type"] in ("SuccessCriteriaMet", "FailureTarget"):
                kind = "Complete" if row["type"] == "SuccessCriteriaMet" else "Failed"
                return Ending(kind, row.get("reason", ""), row.get("message", ""))
        return self._success_policy() or self._failure() or self._success()

    def _success_policy(self) -> Ending | None:
        for number, rule in enumerate((self.spec.get("successPolicy") or {}).get("rules") or ()):
            counted = self.tally.completed
            if rule.get("succeededIndexes") is not None:
                wanted = parse_indexes(rule["succeededIndexes"], self.spec.get("completions") or 0)
                counted = counted & wanted
                enough = rule.get("succeededCount", len(wanted))
            else:
                enough = rule.get("succeededCount", 0)
            if enough and len(counted) >= enough:
                return Ending("Complete", "SuccessPolicy", f"Matched rules at index {number}")
        return None

    def _failure(self) -> Ending | None:
        limit = self.spec.get("backoffLimit", 6)
        if self.tally.verdict:
            return Ending("Failed", "PodFailurePolicy", self.tally.verdict)
        if self.tally.all_failed > limit or self._restarted_too_often(limit):
            return Ending("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        left_s = self._deadline_in_s()
        if left_s is not None and left_s <= 0:
            return Ending("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
        failed_indexes = len(self.tally.failed_indexes)
        most = self.spec.get("maxFailedIndexes")
        if most is not None and failed_indexes > most:
            sentence = "Job has exceeded the specified maximal number of failed indexes"
            return Ending("Failed", "MaxFailedIndexesExceeded", sentence)
        if failed_indexes and failed_indexes + len(self.tally.completed) >= (self.spec.get("completions") or 0):
            return Ending("Failed", "FailedIndexes", "Job has failed indexes")
        return None

    def _restarted_too_often(self, limit: int) -> bool:
        """Containers restarted in place count against the limit as pods do."""
        if (self.spec["template"].get("spec") or {}).get("restartPolicy") != "OnFailure":
            return False
        spent = sum(restarts(pod) for pod in self.tally.active)
        return spent > 0 if limit == 0 else spent >= limit

    def _success(self) -> Ending | None:
        completions = self.spec.get("completions")
        if completions is None:
            enough = self.tally.all_succeeded > 0 and not self.tally.active
        else:
            enough = self.tally.all_succeeded >= completions
        if not enough:
            return None
        return Ending("Complete", "CompletionsReached", "Reached expected number of succeeded pods")

    def _deadline_in_s(self) -> float | None:
        deadline_s = self.spec.get("activeDeadlineSeconds")
        if deadline_s is None or self.start_time is None or self.spec.get("suspend"):
            return None
        return parse_time(self.start_time) + float(deadline_s) - self.now

    def end(self, ending: Ending) -> None:
        """Deletes what still runs; the job has ended when every pod has and all are counted."""
        self._set(ending.interim, "True", ending.reason, ending.message)
        self._delete(self.tally.active)
        if self.tally.active or self.tally.ending or not self.tally.settled:
            return
        self._set(ending.kind, "True", ending.reason, ending.message)
        if ending.kind == "Complete":
            self.completion_time = format_time(self.now)
            self.draft.tell(self.job, "Normal", "Completed", "Job completed")
        else:
            self.draft.tell(self.job, "Warning", ending.reason, ending.message)

    # --- while it runs ------------------------------------------------------------------------------------------------

    def suspend(self) -> None:
        self._delete(self.tally.active)
        if not is_true(self.job, "Suspended"):
            self._set("Suspended", "True", "JobSuspended", "Job suspended")
            self.draft.tell(self.job, "Normal", "Suspended", "Job suspended")
        self.start_time = None

    def go_on(self) -> None:
        if is_true(self.job, "Suspended"):
            self._set("Suspended", "False", "JobResumed", "Job resumed")
            self.draft.tell(self.job, "Normal", "Resumed", "Job resumed")
            self.start_time = None
        if self.start_time is None:
            self.start_time = format_time(self.now)
        self.draft.look_again(self._deadline_in_s())
        surplus = self._surplus()
        if surplus:
            self._delete(surplus)
            return
        self._create()

    def _wanted(self) -> int:
        parallelism: int = self.spec.get("parallelism", 1)
        completions = self.spec.get("completions")
        if completions is None:
            # a work queue: once one has succeeded, the others finish and none is added
            return min(parallelism, len(self.tally.active)) if self.tally.all_succeeded else parallelism
        left: int = completions - self.tally.all_succeeded - len(self.tally.failed_indexes)
        return max(0, min(parallelism, left))

    def _surplus(self) -> list[Obj]:
        """Active pods that are too many, or stand for an index that is out of range, taken or done."""
        if not is_indexed(self.job):
            order = deletion_order(self.tally.active, self.tally.active, self.now)
            return order[: max(0, len(order) - self._wanted())]
        useless: list[Obj] = []
        seen: set[int] = self.tally.completed | self.tally.failed_indexes
        useful: list[Obj] = []
        for pod in sorted(self.tally.active, key=_age):
            index = index_of(pod)
            if 0 <= index < (self.spec.get("completions") or 0) and index not in seen:
                seen = seen | {index}
                useful.append(pod)
            else:
                useless.append(pod)
        too_many = max(0, len(useful) - self._wanted())
        return useless + (sorted(useful, key=index_of)[-too_many:] if too_many else [])

    def _create(self) -> None:
        occupied = len(self.tally.active) + (len(self.tally.ending) if replaces_only_ended(self.job) else 0)
        missing = min(self._wanted() - occupied, BURST_MAX)
        if missing <= 0:
            return
        wait_s = 0.0 if self.spec.get("backoffLimitPerIndex") is not None else self._backoff_s(self.pods)
        if wait_s > 0:
            self.draft.look_again(wait_s)
            return
        indexes = self._free_indexes(missing) if is_indexed(self.job) else [None] * missing
        suffixes = new_names("", self.job, self.pods, len(indexes))
        self.creations = [self._creation(index, suffix) for index, suffix in zip(indexes, suffixes, strict=True)]

    def _backoff_s(self, pods: Iterable[Obj]) -> float:
        """Seconds until failed pods may be replaced: twice as long after each failure since the last success."""
        only_ended = replaces_only_ended(self.job)
        succeeded_at = max((finished_at(pod) for pod in pods if has_succeeded(pod)), default=0.0)
        failures = [finished_at(pod) for pod in pods if has_failed(pod, only_when_ended=only_ended)]
        recent = [moment for moment in failures if moment > succeeded_at]
        if not recent:
            return 0.0
        delay_s = min(BACKOFF_S * 2.0 ** min(len(recent) - 1, 10), BACKOFF_MAX_S)
        return max(recent) + delay_s - self.now

    def _free_indexes(self, count: int) -> list[int]:
        """The lowest indexes that nobody works on; one that failed waits by itself when each has a limit of its own."""
        taken = self.tally.completed | self.tally.failed_indexes | {index_of(pod) for pod in self.tally.active}
        if replaces_only_ended(self.job):
            taken |= {index_of(pod) for pod in self.tally.ending}
        free: list[int] = []
        apart = self.spec.get("backoffLimitPerIndex") is not None
        failed = self._failed_by_index() if apart else {}
        for index in range(self.spec.get("completions") or 0):
            if len(free) == count:
                break
            if index in taken:
                continue
            wait_s = self._backoff_s(failed.get(index, ()))
            if wait_s > 0:
                self.draft.look_again(wait_s)
                continue
            free.append(index)
        return free

    def _failed_by_index(self) -> dict[int, list[Obj]]:
        failed: dict[int, list[Obj]] = {}
        for pod in self.pods:
            if has_failed(pod, only_when_ended=replaces_only_ended(self.job)):
                failed.setdefault(index_of(pod), []).append(pod)
        return failed

    def _creation(self, index: int | None, suffix: str) -> Create:
        title = name(self.job) if index is None else f"{name(self.job)}-{index}"
        pod = from_template(self.spec["template"], self.job, JOBS, f"{title[:57]}-{suffix}")
        meta, spec = pod["metadata"], dict(pod["spec"])
        meta["finalizers"] = [*(meta.get("finalizers") or ()), FINALIZER]
        if index is not None:
            meta["generateName"] = f"{title}-"
            notes = {INDEX: str(index)}
            if self.spec.get("backoffLimitPerIndex") is not None:
                spent = [index_failures(found) for found in self._failed_by_index().get(index, ())]
                notes[INDEX_FAILURES] = str(max(spent) + 1 if spent else 0)
            meta["annotations"] = {**(meta.get("annotations") or {}), **notes}
            meta["labels"] = {**(meta.get("labels") or {}), INDEX: str(index)}
            spec.setdefault("hostname", title)
            for part in ("initContainers", "containers"):
                if spec.get(part):
                    spec[part] = [_with_index(box) for box in spec[part]]
        pod["spec"] = spec
        return Create(resource=PODS, obj=pod, owner_uid=uid(self.job))

    # --- writing ------------------------------------------------------------------------------------------------------

    def _set(self, kind: str, status: str, reason: str, message: str) -> None:
        if any(row["type"] == kind and row.get("status") == status for row in self.conditions):
            return
        self.conditions = with_condition(self.conditions, kind, status, self.now, reason=reason, message=message)

    def _delete(self, pods: list[Obj]) -> None:
        if not pods:
            return
        self.draft.add(Batch(tuple(delete(PODS, pod) for pod in pods[:BURST_MAX])))
        for pod in pods[:BURST_MAX]:
            self.draft.tell(self.job, "Normal", "SuccessfulDelete", f"Deleted pod: {name(pod)}")

    def finish(self) -> Plan:
        status = counting_status(self.tally, self.job)
        if self.conditions:
            status["conditions"] = self.conditions
        if self.start_time is not None:
            status["startTime"] = self.start_time
        if self.completion_time is not None:
            status["completionTime"] = self.completion_time
        # the counters rest on the very version that was counted from
        self.draft.add(status_patch(JOBS, self.job, status, exact=True))
        if self.tally.freed:
            self.draft.add(Batch(tuple(_freed(pod) for pod in self.tally.freed)))
        if self.creations:
            self.draft.add(Batch(tuple(self.creations)))
            for creation in self.creations:
                self.draft.tell(self.job, "Normal", "SuccessfulCreate", f"Created pod: {name(creation.obj)}")
        return self.draft.done()


def _age(pod: Obj) -> tuple[str, str]:
    return pod["metadata"].get("creationTimestamp") or "", name(pod)


def _with_index(box: Obj) -> Obj:
    """Tells a container its completion index in the environment."""
    if any(row.get("name") == "JOB_COMPLETION_INDEX" for row in box.get("env") or ()):
        return box
    source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
    return {**box, "env": [*(box.get("env") or ()), {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}]}


def refused(observed: Observed, refusal: Refusal, now: float) -> Plan:
    """Tells why pods cannot be created."""
    if not isinstance(refusal.action, Create):
        return NOTHING_TO_DO
    draft = Draft()
    draft.tell(observed.job, "Warning", "FailedCreate", f"Error creating: {refusal.message}")
    return draft.done()


JOB = ControllerSpec(
    name="job",
    watches=(
        Watch(resource=JOBS, keys=own_key, indexes=("namespace",)),
        Watch(resource=PODS, keys=keys_of_pod, indexes=("controller", "orphan", "tracked")),
    ),
    observe=observe,
    reconcile=reconcile,
    refused=refused,
    interval_s=0.1,
)
