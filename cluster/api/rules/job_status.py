"""Rules of a Job's status: who manages it may not contradict what its clients rely on.

A rule is asked only of a change of what it is about, so that a status that broke it before can be written still.

Source: k8s.io/kubernetes/pkg/apis/batch/validation/validation.go and pkg/registry/batch/job/strategy.go
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from steersman.cluster.api.rules import indexes
from steersman.cluster.api.rules.fields import bad, duplicate, internal, not_negative, required
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.times import parse_time

_CONDITIONS = "status.conditions"


def _says(status: Obj, kind: str) -> bool:
    return any(row.get("type") == kind and row.get("status") == "True" for row in status.get("conditions") or ())


def _finished(status: Obj) -> bool:
    return _says(status, "Complete") or _says(status, "Failed")


def _conditions(detail: str) -> Cause:
    return Cause(_CONDITIONS, f"Invalid value: {detail}", "FieldValueInvalid")


def validate_status(new: Obj, old: Obj) -> list[Cause]:
    """Every rule that a change of a Job's status breaks."""
    status, before, spec = new.get("status") or {}, old.get("status") or {}, new.get("spec") or {}
    changed = {
        key for key in ("active", "ready", "terminating", "startTime", "completionTime", "completedIndexes",
                        "failedIndexes", "uncountedTerminatedPods")
        if status.get(key) != before.get(key)
    }  # fmt: skip
    turned = {
        kind for kind in ("Complete", "Failed", "FailureTarget", "SuccessCriteriaMet")
        if _says(status, kind) != _says(before, kind)
    }  # fmt: skip
    causes = _numbers(status)
    causes += _together(status, turned)
    causes += _times(status, changed, turned)
    if _finished(status):
        causes += _finish(status, changed, _finished(before))
    causes += _indexes(status, spec, changed)
    if changed & {"ready", "active"} and (status.get("ready") or 0) > (status.get("active") or 0):
        causes.append(bad("status.ready", status["ready"], "cannot set more ready pods than active"))
    causes += _success(status, spec)
    return causes + _steps(status, before, spec, changed)


def _numbers(status: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for key in ("active", "succeeded", "failed", "ready", "terminating"):
        causes += not_negative(f"status.{key}", status.get(key))
    seen: set[str] = set()
    for part in ("succeeded", "failed"):
        for index, uid in enumerate((status.get("uncountedTerminatedPods") or {}).get(part) or ()):
            path = f"status.uncountedTerminatedPods.{part}[{index}]"
            if not uid:
                causes.append(bad(path, uid, "must not be empty"))
            elif uid in seen:
                causes.append(duplicate(path, uid))
            seen.add(uid)
    return causes


#: (conditions that a change of one of them asks about, whether they contradict, what is wrong)
_CONTRADICTIONS: tuple[tuple[tuple[str, ...], Callable[[Obj], bool], str], ...] = (
    (("Complete", "Failed"), lambda s: _says(s, "Complete") and _says(s, "Failed"),
     "cannot set Complete=True and Failed=true conditions"),
    (("Complete", "FailureTarget"), lambda s: _says(s, "Complete") and _says(s, "FailureTarget"),
     "cannot set Complete=True and FailureTarget=true conditions"),
    (("Failed", "FailureTarget"), lambda s: _says(s, "Failed") and not _says(s, "FailureTarget"),
     "cannot set Failed=True condition without the FailureTarget=true condition"),
    (("Complete", "SuccessCriteriaMet"), lambda s: _says(s, "Complete") and not _says(s, "SuccessCriteriaMet"),
     "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"),
)  # fmt: skip


def _together(status: Obj, turned: Iterable[str]) -> list[Cause]:
    """The rules of conditions that exclude or need each other."""
    turned = set(turned)
    return [_conditions(detail) for kinds, wrong, detail in _CONTRADICTIONS if turned & {*kinds} and wrong(status)]


def _times(status: Obj, changed: set[str], turned: set[str]) -> list[Cause]:
    start, end, path = status.get("startTime"), status.get("completionTime"), "status.completionTime"
    complete = _says(status, "Complete")
    causes: list[Cause] = []
    if "completionTime" in changed or "Complete" in turned:
        if end is not None and not complete:
            causes.append(bad(path, end, "cannot set completionTime when there is no Complete=True condition"))
        if end is None and complete:
            causes.append(required(path, "completionTime is required for Complete jobs"))
    if changed & {"startTime", "completionTime"} and start and end and parse_time(end) < parse_time(start):
        causes.append(bad(path, end, "must be equal to or after `startTime`"))
    return causes


def _finish(status: Obj, changed: set[str], was_finished: bool) -> list[Cause]:
    """The rules of a Job that has finished."""
    ends = not was_finished
    active, terminating = status.get("active") or 0, status.get("terminating") or 0
    uncounted = status.get("uncountedTerminatedPods") or {}
    causes: list[Cause] = []
    if active > 0 and (ends or "active" in changed):
        causes.append(bad("status.active", active, "active>0 is invalid for finished job"))
    if status.get("startTime") is None and (ends or "startTime" in changed):
        causes.append(required("status.startTime", "startTime is required for finished job"))
    if any(uncounted.values()) and (ends or "uncountedTerminatedPods" in changed):
        shown = internal(uncounted, ("succeeded", "failed"))
        causes.append(bad("status.uncountedTerminatedPods", shown, "must be empty for finished job"))
    if terminating > 0 and (ends or "terminating" in changed):
        causes.append(bad("status.terminating", terminating, "terminating>0 is invalid for finished job"))
    return causes


def _indexes(status: Obj, spec: Obj, changed: set[str]) -> list[Cause]:
    done, failed, completions = status.get("completedIndexes", ""), status.get("failedIndexes"), spec.get("completions")
    by_index = spec.get("backoffLimitPerIndex") is not None
    causes: list[Cause] = []
    if "completedIndexes" in changed:
        causes += _list("completedIndexes", done, completions)
        if done and spec.get("completionMode") != "Indexed":
            detail = "cannot set non-empty completedIndexes when non-indexed completion mode"
            causes.append(bad("status.completedIndexes", done, detail))
    if "failedIndexes" in changed and failed is not None:
        if by_index:
            causes += _list("failedIndexes", failed, completions)
        else:
            detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
            causes.append(bad("status.failedIndexes", failed, detail))
    if changed & {"completedIndexes", "failedIndexes"} and failed is not None and completions is not None:
        shared = indexes.overlap(done, failed, completions)
        if shared is not None:
            detail = f"failedIndexes and completedIndexes overlap at index: {shared}"
            causes.append(bad("status.failedIndexes", failed, detail))
    return causes


def _list(key: str, text: str, completions: int | None) -> list[Cause]:
    if completions is None:
        return []
    try:
        indexes.count(text, completions)
    except indexes.IndexesError as error:
        return [bad(f"status.{key}", text, f"error parsing {key}: {error}")]
    return []


def _success(status: Obj, spec: Obj) -> list[Cause]:
    met = _says(status, "SuccessCriteriaMet")
    causes = [
        _conditions(f"cannot set SuccessCriteriaMet=True and {kind}=true conditions")
        for kind in ("Failed", "FailureTarget")
        if met and _says(status, kind)
    ]
    if spec.get("successPolicy") is not None and not met and _says(status, "Complete"):
        detail = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True"
        causes.append(_conditions(detail))
    return causes


def _steps(status: Obj, before: Obj, spec: Obj, changed: set[str]) -> list[Cause]:
    """The rules of what may not be taken back."""
    causes = [
        _conditions(f"cannot disable the terminal {kind}=True condition")
        for kind in ("Failed", "Complete", "FailureTarget")
        if _says(before, kind) and not _says(status, kind)
    ]
    shrinks = spec.get("completionMode") == "Indexed" and spec.get("completions") == spec.get("parallelism")
    for key in ("failed", "succeeded"):
        now: Any = status.get(key) or 0
        if now < (before.get(key) or 0) and not (key == "succeeded" and shrinks):
            causes.append(bad(f"status.{key}", now, f"cannot decrease the {key} counter"))
    ended, end = before.get("completionTime"), status.get("completionTime")
    if end is not None and ended is not None and end != ended:
        causes.append(bad("status.completionTime", end, "field is immutable"))
    if "startTime" in changed and before.get("startTime") is not None and not spec.get("suspend"):
        causes.append(required("status.startTime", "startTime cannot be removed for unsuspended job"))
    met, now_met = _says(before, "SuccessCriteriaMet"), _says(status, "SuccessCriteriaMet")
    if met and not now_met:
        causes.append(_conditions("cannot disable the SuccessCriteriaMet=True condition"))
    if _says(before, "Complete") and not met and now_met:
        causes.append(_conditions("cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions"))
    return causes
