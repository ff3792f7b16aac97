"""CronJob: makes a Job at each moment of its schedule, and forgets old ones.

A Job's name follows from its moment, so that no moment has two. Source:
https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from steersman.cluster.control.job import is_finished
from steersman.cluster.control.plan import Create, Draft, Plan, Refusal, delete, status_patch
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.cron import Schedule, ScheduleError, parse
from steersman.cluster.meta.objects import (
    Obj,
    annotations_of,
    controller_of,
    controller_reference,
    is_deleting,
    is_true,
    labels_of,
    name,
    namespace,
    uid,
)
from steersman.cluster.meta.resources import CRON_JOBS, JOBS
from steersman.cluster.meta.times import format_time, parse_time

SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
#: missed moments looked at before the last one alone counts
MISSED_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: jobs: those it controls."""

    cron_job: Obj
    jobs: tuple[Obj, ...] = ()


def observe(view: View, key: str) -> Observed | None:
    cron_job = view.get(CRON_JOBS, key)
    if cron_job is None or is_deleting(cron_job):
        return None
    return Observed(cron_job=cron_job, jobs=tuple(view.by_index(JOBS, "controller", uid(cron_job))))


def keys_of_job(job: Obj, view: View) -> Iterable[str]:
    reference = controller_of(job)
    mine = reference is not None and reference["kind"] == "CronJob"
    return (f"{namespace(job)}/{reference['name']}",) if reference is not None and mine else ()


def due(schedule: Schedule, since: float, now: float) -> tuple[float | None, int]:
    """Returns (the latest moment after `since` that has come, how many have come), counting at most a hundred."""
    latest, count, moment = None, 0, schedule.after(since)
    while moment is not None and moment <= now:
        latest, count = moment, count + 1
        if count > MISSED_MAX:
            later = schedule.after(now - 86400.0)
            while later is not None and later <= now:
                latest, later = later, schedule.after(later)
            break
        moment = schedule.after(moment)
    return latest, count


def reconcile(observed: Observed, now: float) -> Plan:
    cron_job, draft = observed.cron_job, Draft()
    spec = cron_job["spec"]
    status: Obj = dict(cron_job.get("status") or {})
    active = [job for job in observed.jobs if not is_finished(job)]
    done = [job for job in observed.jobs if is_finished(job)]
    known = {row["uid"] for row in status.get("active") or ()}
    for job in done:
        if uid(job) in known:
            how = "Complete" if is_true(job, "Complete") else "Failed"
            draft.tell(cron_job, "Normal", "SawCompletedJob", f"Saw completed job: {name(job)}, condition: {how}")
    finished_at = [job["status"]["completionTime"] for job in done if job["status"].get("completionTime")]
    if finished_at:
        status["lastSuccessfulTime"] = max([*finished_at, status.get("lastSuccessfulTime") or ""])
    _forget(draft, spec, done)
    creation = None
    try:
        schedule = parse(spec["schedule"], spec.get("timeZone"))
    except ScheduleError as error:
        draft.tell(cron_job, "Warning", "UnparseableSchedule", f"unparseable schedule: {spec['schedule']!r} : {error}")
    else:
        if not spec.get("suspend"):
            since = _since(cron_job, status, now)
            moment, missed = due(schedule, since, now)
            following = schedule.after(since if moment is None else moment)
            draft.look_again(None if following is None else following - now)
            if moment is not None:
                creation = _start(draft, cron_job, moment, missed, active, status)
    references = [
        {"apiVersion": "batch/v1", "kind": "Job", "name": name(job), "namespace": namespace(job), "uid": uid(job)}
        for job in sorted(active, key=name)
    ]
    status.pop("active", None)
    if references:
        status["active"] = references
    draft.add(creation, status_patch(CRON_JOBS, cron_job, status))
    return draft.done()


def _forget(draft: Draft, spec: Obj, done: list[Obj]) -> None:
    """Deletes finished Jobs beyond the limits of the history, oldest first."""
    for kind, field, limit in (("Complete", "successfulJobsHistoryLimit", 3), ("Failed", "failedJobsHistoryLimit", 1)):
        kept = spec.get(field, limit)
        old = sorted((job for job in done if is_true(job, kind)), key=lambda job: job["metadata"]["creationTimestamp"])
        draft.add(*(delete(JOBS, job, propagation="Background") for job in old[: max(0, len(old) - kept)]))


def _since(cron_job: Obj, status: Obj, now: float) -> float:
    """The moment after which moments count: that of the last Job, or as late as they may still start."""
    since = parse_time(status.get("lastScheduleTime") or cron_job["metadata"]["creationTimestamp"])
    deadline_s = cron_job["spec"].get("startingDeadlineSeconds")
    return since if deadline_s is None else max(since, now - float(deadline_s))


def _start(draft: Draft, cron_job: Obj, moment: float, missed: int, active: list[Obj], status: Obj) -> Create | None:
    spec = cron_job["spec"]
    if missed > MISSED_MAX:
        sentence = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        draft.tell(cron_job, "Warning", "TooManyMissedTimes", sentence)
    policy = spec.get("concurrencyPolicy", "Allow")
    if policy == "Forbid" and active:
        sentence = "Not starting job because prior execution is running and concurrency policy is Forbid"
        draft.tell(cron_job, "Normal", "JobAlreadyActive", sentence)
        return None
    if policy == "Replace":
        draft.add(*(delete(JOBS, job, propagation="Background") for job in active))
        active.clear()
    job = job_of(cron_job, moment)
    status["lastScheduleTime"] = format_time(moment)
    draft.tell(cron_job, "Normal", "SuccessfulCreate", f"Created job {name(job)}")
    return Create(resource=JOBS, obj=job, owner_uid=uid(cron_job))


def job_of(cron_job: Obj, moment: float) -> Obj:
    """Returns the Job of a moment; its name is the CronJob's and the minute."""
    template = cron_job["spec"]["jobTemplate"]
    meta = template.get("metadata") or {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{name(cron_job)}-{int(moment // 60)}",
            "namespace": namespace(cron_job),
            "labels": dict(labels_of({"metadata": meta})),
            "annotations": {**annotations_of({"metadata": meta}), SCHEDULED_AT: format_time(moment)},
            "ownerReferences": [controller_reference(cron_job, CRON_JOBS.api_version, CRON_JOBS.kind)],
        },
        "spec": template.get("spec") or {},
    }


def refused(observed: Observed, refusal: Refusal, now: float) -> Plan:
    draft = Draft()
    if isinstance(refusal.action, Create):
        draft.tell(observed.cron_job, "Warning", "FailedCreate", f"Error creating job: {refusal.message}")
    return draft.done()


CRON_JOB = ControllerSpec(
    name="cronjob",
    watches=(
        Watch(resource=CRON_JOBS, keys=own_key),
        Watch(resource=JOBS, keys=keys_of_job, indexes=("controller",)),
    ),
    observe=observe,
    reconcile=reconcile,
    refused=refused,
    workers=4,
)
