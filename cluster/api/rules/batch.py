"""Rules of Jobs and CronJobs.

Source: k8s.io/kubernetes/pkg/apis/batch/{v1/defaults.go,validation/validation.go}, pkg/registry/batch/job/strategy.go
"""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.row import meta_fields
from steersman.cluster.api.rules import defaults
from steersman.cluster.api.rules.fields import (
    bad,
    immutable,
    label_selector,
    not_negative,
    one_of,
    required,
    unsupported,
)
from steersman.cluster.api.rules.job_policies import failure_policy, manager, success_policy
from steersman.cluster.api.rules.pods import validate_template
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.selectors import SelectorError, from_dict

CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"
_OLD_UID, _OLD_NAME = "controller-uid", "job-name"
_RESTART = ("OnFailure", "Never")
#: the most pods that an indexed Job runs at a time
_INDEXED_PODS_MAX = 100_000
_NO_ZONE = "TZ or CRON_TZ in schedule, use timeZone field instead"
#: a Job's name is the CronJob's and eleven characters more, and has 63 at most
_CRON_NAME_CHARS_MAX = 52
_CRON_MACROS = ("@annually", "@daily", "@hourly", "@midnight", "@monthly", "@weekly", "@yearly")
_CRON_FIELD = re.compile(r"^[\w*/,?#-]+\Z")


def default_job(obj: Obj) -> None:
    _default_job_spec(obj.setdefault("spec", {}))


def _default_job_spec(spec: Obj) -> None:
    defaults.template(spec)
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = spec["parallelism"] = 1
    spec.setdefault("parallelism", 1)
    if spec.get("backoffLimit") is None:
        spec["backoffLimit"] = 2**31 - 1 if spec.get("backoffLimitPerIndex") is not None else 6
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    if not spec.get("podReplacementPolicy"):
        spec["podReplacementPolicy"] = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            pattern.setdefault("status", "True")


def prepare_job(obj: Obj, _ctx: WriteContext) -> None:
    """Gives the Job a selector of its own pods, unless it brings one."""
    spec, meta = obj["spec"], obj["metadata"]
    if not spec.get("manualSelector"):
        labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
        labels[CONTROLLER_UID] = labels[_OLD_UID] = meta["uid"]
        labels[JOB_NAME] = labels[_OLD_NAME] = meta.get("name", "")
        if not meta.get("labels"):
            meta["labels"] = dict(labels)
        selector = spec.setdefault("selector", {})
        selector.setdefault("matchLabels", {})[CONTROLLER_UID] = meta["uid"]


def job_fields(obj: Obj) -> dict[str, str]:
    return {**meta_fields(obj), "status.successful": str((obj.get("status") or {}).get("succeeded", 0))}


def validate_job(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes = _validate_job_spec("spec", spec)
    selector = spec.get("selector")
    if selector is None:
        causes.append(required("spec.selector"))
        return causes
    if wrong := label_selector("spec.selector", selector):
        return [*causes, *wrong]
    labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    try:
        matches = from_dict(selector).matches(labels)
    except SelectorError as error:
        return [*causes, bad("spec.selector", selector, str(error))]
    if not matches:
        causes.append(bad("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
    return causes


def _validate_job_spec(path: str, spec: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for key in (
        "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
        "backoffLimitPerIndex", "maxFailedIndexes",
    ):  # fmt: skip
        causes += not_negative(f"{path}.{key}", spec.get(key))
    indexed = spec.get("completionMode") == "Indexed"
    causes += one_of(f"{path}.completionMode", spec.get("completionMode"), ("Indexed", "NonIndexed"))
    causes += _indexed(path, spec) if indexed else _not_indexed(path, spec)
    if spec.get("podFailurePolicy") is not None:
        causes += failure_policy(f"{path}.podFailurePolicy", spec["podFailurePolicy"], spec)
    if spec.get("successPolicy") is not None and indexed:
        causes += success_policy(f"{path}.successPolicy", spec["successPolicy"], spec)
    if spec.get("managedBy") is not None:
        causes += manager(f"{path}.managedBy", spec["managedBy"])
    replacing = spec.get("podReplacementPolicy")
    policies = ("Failed",) if spec.get("podFailurePolicy") is not None else ("Failed", "TerminatingOrFailed")
    if replacing is not None and replacing not in policies:
        causes.append(unsupported(f"{path}.podReplacementPolicy", replacing, policies))
    template = spec.get("template") or {}
    causes += validate_template(f"{path}.template", template)
    return causes + _restart(f"{path}.template.spec.restartPolicy", template, spec)


def _indexed(path: str, spec: Obj) -> list[Cause]:
    completions, most, limit = spec.get("completions"), spec.get("maxFailedIndexes"), spec.get("backoffLimitPerIndex")
    if completions is None:
        return [required(f"{path}.completions", "when completion mode is Indexed")]
    causes: list[Cause] = []
    if (spec.get("parallelism") or 0) > _INDEXED_PODS_MAX:
        detail = f"must be less than or equal to {_INDEXED_PODS_MAX} when completion mode is Indexed"
        causes.append(bad(f"{path}.parallelism", spec["parallelism"], detail))
    where = f"{path}.maxFailedIndexes"
    if most is not None and most > completions:
        causes.append(bad(where, most, "must be less than or equal to completions"))
    if most is not None and limit is None:
        causes.append(required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    if limit is not None and completions > _INDEXED_PODS_MAX and most is None:
        causes.append(required(where, f"must be specified when completions is above {_INDEXED_PODS_MAX}"))
    return causes


def _not_indexed(path: str, spec: Obj) -> list[Cause]:
    needs = "requires indexed completion mode"
    keys = ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy")
    return [bad(f"{path}.{key}", spec[key], needs) for key in keys if spec.get(key) is not None]


def _restart(path: str, template: Obj, spec: Obj) -> list[Cause]:
    policy = (template.get("spec") or {}).get("restartPolicy")
    if policy in (None, "", "Always"):
        return [required(path, 'valid values: "OnFailure", "Never"')]
    if policy not in _RESTART:
        return [unsupported(path, policy, _RESTART, in_order=True)]
    if spec.get("podFailurePolicy") is not None and policy != "Never":
        return [bad(path, policy, 'only "Never" is supported when podFailurePolicy is specified')]
    return []


def validate_job_update(new: Obj, old: Obj) -> list[Cause]:
    """A job's pods and selector stay; a suspended job that never ran may change where its pods may go."""
    spec, before = new["spec"], old["spec"]
    causes: list[Cause] = []
    if spec.get("completions") != before.get("completions"):
        if spec.get("completionMode") != "Indexed":
            causes.append(bad("spec.completions", spec.get("completions"), "field is immutable"))
        elif spec.get("completions") not in (None, spec.get("parallelism")):
            detail = "can only be modified in tandem with spec.parallelism"
            causes.append(bad("spec.completions", spec["completions"], detail))
    causes += immutable("spec.selector", spec.get("selector"), before.get("selector"))
    if _frozen(spec["template"], old) != _frozen(before["template"], old):
        causes.append(bad("spec.template", spec["template"], "field is immutable"))
    for key in ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"):
        causes += immutable(f"spec.{key}", spec.get(key), before.get(key))
    return causes


def _frozen(template: Obj, old: Obj) -> Obj:
    suspended = (old.get("spec") or {}).get("suspend") and not (old.get("status") or {}).get("startTime")
    if not suspended:
        return template
    spec = {
        key: value
        for key, value in (template.get("spec") or {}).items()
        if key not in ("nodeSelector", "affinity", "tolerations", "schedulingGates")
    }
    affinity = (template.get("spec") or {}).get("affinity") or {}
    if rest := {key: value for key, value in affinity.items() if key != "nodeAffinity"}:
        spec["affinity"] = rest
    return {"spec": spec}


def default_cron_job(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("concurrencyPolicy"):
        spec["concurrencyPolicy"] = "Allow"
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    template = spec.setdefault("jobTemplate", {})
    template.setdefault("metadata", {})
    defaults.template(template.setdefault("spec", {}))


def validate_cron_job(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes = [] if spec.get("schedule") else [required("spec.schedule")]
    for key in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        causes += not_negative(f"spec.{key}", spec.get(key))
    causes += one_of("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), ("Allow", "Forbid", "Replace"))
    inner = (spec.get("jobTemplate") or {}).get("spec") or {}
    if inner.get("selector") is not None:
        causes.append(bad("spec.jobTemplate.spec.selector", inner["selector"], "`selector` will be auto-generated"))
    if inner.get("manualSelector"):
        causes.append(unsupported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false")))
    probe = {"completionMode": "NonIndexed", **inner}
    return causes + _validate_job_spec("spec.jobTemplate.spec", probe)


def validate_new_cron_job(obj: Obj) -> list[Cause]:
    """The rules that a CronJob has to keep when it is made: what breaks them since then may stay."""
    spec, name = obj["spec"], obj["metadata"].get("name", "")
    causes = _schedule(spec) + _time_zone(spec.get("timeZone"))
    if len(name) > _CRON_NAME_CHARS_MAX:
        causes.append(bad("metadata.name", name, f"must be no more than {_CRON_NAME_CHARS_MAX} characters"))
    return causes


def validate_cron_job_update(new: Obj, old: Obj) -> list[Cause]:
    spec, before = new["spec"], old["spec"]
    causes = _schedule(spec, zone_allowed="TZ" in (before.get("schedule") or ""))
    if spec.get("timeZone") != before.get("timeZone"):
        causes += _time_zone(spec.get("timeZone"))
    return causes


def _time_zone(zone: str | None) -> list[Cause]:
    path = "spec.timeZone"
    if zone is None:
        return []
    if not zone:
        return [bad(path, zone, "timeZone must be nil or non-empty string")]
    if zone.lower() == "local":
        detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        return [bad(path, zone, detail)]
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        return [bad(path, zone, f"unknown time zone {zone}")]
    return []


def _schedule(spec: Obj, *, zone_allowed: bool = False) -> list[Cause]:
    """The rules of a schedule. Args: zone_allowed: whether it may name a time zone, as one from long ago does."""
    path, schedule = "spec.schedule", spec.get("schedule") or ""
    if "TZ" in schedule:
        if zone_allowed and spec.get("timeZone") is None:
            return []
        fault = "both timeZone field and TZ or CRON_TZ in schedule" if zone_allowed else _NO_ZONE
        return [bad(path, schedule, f"cannot use {fault}")]
    if not schedule:
        return []
    if schedule.startswith("@"):
        if schedule in _CRON_MACROS or re.fullmatch(r"@every \d+(\.\d+)?(ns|us|ms|s|m|h).*", schedule):
            return []
        return [bad(path, schedule, f"unrecognized descriptor: {schedule}")]
    parts = schedule.split()
    if len(parts) != 5:
        return [bad(path, schedule, f"expected exactly 5 fields, found {len(parts)}: [{' '.join(parts)}]")]
    wrong = next((part for part in parts if not _CRON_FIELD.match(part)), None)
    return [bad(path, schedule, f"failed to parse int from {wrong}")] if wrong else []
