"""Columns of Job and CronJob."""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.columns.column import (
    Age,
    Column,
    Columns,
    Name,
    age,
    container_names_and_images,
    name,
    rows,
    selector_text,
    since,
    sub,
    wide,
)
from steersman.cluster.meta.objects import Obj, is_true
from steersman.cluster.meta.times import human_duration, parse_time


def job_status(job: Obj) -> str:
    """`Complete`, `Failed`, `Terminating`, `Suspended`, ... or `Running`."""
    for word in ("Complete", "Failed"):
        if is_true(job, word):
            return word
    if job["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for word in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if is_true(job, word):
            return word
    return "Running"


def job_completions(job: Obj) -> str:
    """`1/3`: how many pods have succeeded of how many that must."""
    spec, succeeded = sub(job, "spec"), sub(job, "status").get("succeeded", 0)
    if spec.get("completions") is not None:
        return f"{succeeded}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def job_duration(job: Obj, now: float) -> str:
    status = sub(job, "status")
    if not status.get("startTime"):
        return ""
    end = parse_time(status["completionTime"]) if status.get("completionTime") else now
    return human_duration(end - parse_time(status["startTime"]))


def _job(obj: Obj, now: float) -> list[Any]:
    return [
        name(obj),
        job_status(obj),
        job_completions(obj),
        job_duration(obj, now),
        age(obj, now),
        *container_names_and_images(sub(obj, "spec", "template", "spec")),
        selector_text(sub(obj, "spec").get("selector")),
    ]


def _cron_job(obj: Obj, now: float) -> list[Any]:
    spec, status = sub(obj, "spec"), sub(obj, "status")
    last = status.get("lastScheduleTime")
    suspend = spec.get("suspend")
    job = sub(spec, "jobTemplate", "spec")
    return [
        name(obj),
        spec.get("schedule", ""),
        spec.get("timeZone") or "<none>",
        "<unset>" if suspend is None else "True" if suspend else "False",
        len(rows(status, "active")),
        since(last, now) if last else "<none>",
        age(obj, now),
        *container_names_and_images(sub(job, "template", "spec")),
        selector_text(job.get("selector")),
    ]


_WIDE = wide("Containers", "Images", "Selector")
_JOB = (Column("Status"), Column("Completions"), Column("Duration"))
_CRON = (Column("Schedule"), Column("Timezone"), Column("Suspend", "boolean"), Column("Active", type="integer"))
COLUMNS = {
    ("batch", "Job"): Columns((Name, *_JOB, Age, *_WIDE), _job),
    ("batch", "CronJob"): Columns((Name, *_CRON, Column("Last Schedule"), Age, *_WIDE), _cron_job),
}
