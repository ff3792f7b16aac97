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
    internal,
    label_selector,
    not_negative,
    one_of,
    required,
    unsupported,
)
from steersman.cluster.api.rules.job_policies import failure_policy, manager, success_policy
from steersman.cluster.api.rules.pods import validate_template
from steersman.cluster.api.rules.workloads import unmatched
from steersman.cluster.meta import cron
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.selectors import from_dict

CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"
_OLD_UID, _OLD_NAME = "controller-uid", "job-name"
_RESTART = ("OnFailure", "Never")
_MODES = ("NonIndexed", "Indexed")
_BY_INDEX = "requires indexed completion mode"
#: the most pods that an indexed Job runs at a time
_INDEXED_PODS_MAX = 100_000
#: the most that an indexed Job of more pods than that runs at a time, and may fail, when failures count by index
_HUGE_PODS_MAX = 10_000
_NO_ZONE = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
_TWO_ZONES = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
_ZONE_PART = re.compile(r"(?!-)(?!\.\.?\Z)[A-Za-z.\-_0-9+]{1,14}\Z")
_MANY = "when completions are above 100000 and used with backoff limit per index"
#: a Job's name is the CronJob's and eleven characters more, and has 63 at most
_CRON_NAME_BYTES_MAX = 52
#: what of a pod's spec may change while its Job is suspended
_DIRECTIVES = ("nodeSelector", "affinity", "tolerations", "schedulingGates", "containers", "initContainers")


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
        for key, value in _labels_of(meta).items():
            labels.setdefault(key, value)
        if not meta.get("labels"):
            meta["labels"] = dict(labels)
        selector = spec.setdefault("selector", {})
        selector.setdefault("matchLabels", {}).setdefault(CONTROLLER_UID, meta["uid"])


def _labels_of(meta: Obj) -> Obj:
    """The labels of a Job's own pods."""
    uid, name = meta["uid"], meta.get("name", "")
    return {_OLD_UID: uid, _OLD_NAME: name, CONTROLLER_UID: uid, JOB_NAME: name}


def job_fields(obj: Obj) -> dict[str, str]:
    return {**meta_fields(obj), "status.successful": str((obj.get("status") or {}).get("succeeded", 0))}


def validate_job(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes = _validate_job_spec("spec", spec)
    selector = spec.get("selector")
    causes += [required("spec.selector")] if selector is None else []
    return causes + (label_selector("spec.selector", selector) or unmatched(selector, spec["template"]))


def validate_new_job(obj: Obj) -> list[Cause]:
    """The rules of the names and labels that a Job's pods get."""
    spec, meta = obj["spec"], obj["metadata"]
    causes = [] if spec.get("manualSelector") or spec.get("selector") is None else _generated(spec, _labels_of(meta))
    if spec.get("completionMode") == "Indexed" and (spec.get("completions") or 0) > 0:
        host, name = f"{meta.get('name', '')}-{spec['completions'] - 1}", meta.get("name", "")
        if label_1123_errors(host):
            detail = f"will not able to create pod with invalid DNS label: {host}"
            causes.append(bad("metadata.name", name, detail))
    return causes


def _generated(spec: Obj, own: Obj) -> list[Cause]:
    """The rules of a selector that the server makes: nothing that the client sent speaks against it."""
    labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    path = "spec.template.metadata.labels"
    wrong = {key: value for key, value in own.items() if labels.get(key) != value}
    causes = [bad(f"{path}[{key}]", labels, f"must be '{value}'") for key, value in wrong.items()]
    selector = spec["selector"]
    if not label_selector("spec.selector", selector) and not from_dict(selector).matches(own):
        causes.append(bad("spec.selector", selector, "`selector` not auto-generated"))
    return causes


def _validate_job_spec(path: str, spec: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for key in (
        "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
        "backoffLimitPerIndex", "maxFailedIndexes",
    ):  # fmt: skip
        causes += not_negative(f"{path}.{key}", spec.get(key))
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        causes.append(required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    if spec.get("managedBy") is not None:
        causes += manager(f"{path}.managedBy", spec["managedBy"])
    mode = spec.get("completionMode", _MODES[0])
    if mode not in _MODES:
        causes.append(unsupported(f"{path}.completionMode", mode, _MODES, in_order=True))
    elif mode == "Indexed":
        causes += _indexed(path, spec)
    else:
        causes += _not_indexed(path, spec)
    if spec.get("podFailurePolicy") is not None:
        causes += failure_policy(f"{path}.podFailurePolicy", spec["podFailurePolicy"], spec)
    if spec.get("successPolicy") is not None:
        causes += _success(f"{path}.successPolicy", spec["successPolicy"], spec)
    replacing = spec.get("podReplacementPolicy")
    policies = ("Failed",) if spec.get("podFailurePolicy") is not None else ("Failed", "TerminatingOrFailed")
    if replacing is not None and replacing not in policies:
        causes.append(unsupported(f"{path}.podReplacementPolicy", replacing, policies))
    template = spec.get("template") or {}
    causes += validate_template(f"{path}.template", template)
    return causes + _restart(f"{path}.template.spec.restartPolicy", template, spec)


def _indexed(path: str, spec: Obj) -> list[Cause]:
    completions, most, pods = spec.get("completions"), spec.get("maxFailedIndexes") or 0, spec.get("parallelism") or 0
    causes = [required(f"{path}.completions", "when completion mode is Indexed")] if completions is None else []
    if pods > _INDEXED_PODS_MAX:
        detail = f"must be less than or equal to {_INDEXED_PODS_MAX} when completion mode is Indexed"
        causes.append(bad(f"{path}.parallelism", pods, detail))
    if completions is not None and most > completions:
        causes.append(bad(f"{path}.maxFailedIndexes", most, "must be less than or equal to completions"))
    if most > _INDEXED_PODS_MAX:
        causes.append(bad(f"{path}.maxFailedIndexes", most, f"must be less than or equal to {_INDEXED_PODS_MAX}"))
    if (completions or 0) <= _INDEXED_PODS_MAX or spec.get("backoffLimitPerIndex") is None:
        return causes
    if spec.get("maxFailedIndexes") is None:
        detail = f"must be specified when completions is above {_INDEXED_PODS_MAX}"
        causes.append(required(f"{path}.maxFailedIndexes", detail))
    for key, number in (("parallelism", pods), ("maxFailedIndexes", most)):
        if number > _HUGE_PODS_MAX:
            causes.append(bad(f"{path}.{key}", number, f"must be less than or equal to {_HUGE_PODS_MAX} {_MANY}"))
    return causes


def _not_indexed(path: str, spec: Obj) -> list[Cause]:
    keys = ("backoffLimitPerIndex", "maxFailedIndexes")
    return [bad(f"{path}.{key}", spec[key], _BY_INDEX) for key in keys if spec.get(key) is not None]


def _success(path: str, policy: Obj, spec: Obj) -> list[Cause]:
    if spec.get("completionMode") == "Indexed":
        return success_policy(path, policy, spec)
    rules = [internal(rule, ("succeededIndexes", "succeededCount")) for rule in policy.get("rules") or ()]
    return [bad(path, {"Rules": rules}, _BY_INDEX)]


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
    causes += _template_update(spec["template"], before["template"], old)
    for key in ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"):
        causes += immutable(f"spec.{key}", spec.get(key), before.get(key))
    return causes


def _template_update(template: Obj, before: Obj, old: Obj) -> list[Cause]:
    status = old.get("status") or {}
    if not old["spec"].get("suspend") or (status.get("startTime") and status.get("active")):
        return immutable("spec.template", template, before)
    pod, pod_before = (side.get("spec") or {} for side in (template, before))
    return [] if _frozen(pod) == _frozen(pod_before) else [bad("spec.template.spec", pod, "field is immutable")]


def _frozen(pod: Obj) -> Obj:
    """What of a pod's spec stays: neither where it may go nor what its containers ask for."""
    spec = {key: value for key, value in pod.items() if key not in _DIRECTIVES}
    affinity = pod.get("affinity") or {}
    if rest := {key: value for key, value in affinity.items() if key != "nodeAffinity"}:
        spec["affinity"] = rest
    for key in ("containers", "initContainers"):
        spec[key] = [{**one, "resources": None} for one in pod.get(key) or ()]
    return spec


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
    causes += not_negative("spec.startingDeadlineSeconds", spec.get("startingDeadlineSeconds"))
    causes += one_of("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), ("Allow", "Forbid", "Replace"))
    inner = (spec.get("jobTemplate") or {}).get("spec") or {}
    causes += _validate_job_spec("spec.jobTemplate.spec", inner)
    if inner.get("selector") is not None:
        causes.append(bad("spec.jobTemplate.spec.selector", inner["selector"], "`selector` will be auto-generated"))
    if inner.get("manualSelector"):
        path = "spec.jobTemplate.spec.manualSelector"
        causes.append(unsupported(path, True, ("nil", "false"), in_order=True))
    for key in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        causes += not_negative(f"spec.{key}", spec.get(key))
    return causes


def validate_new_cron_job(obj: Obj) -> list[Cause]:
    """The rules that a CronJob has to keep when it is made: what breaks them since then may stay."""
    spec, name = obj["spec"], obj["metadata"].get("name", "")
    causes = _schedule(spec) + _time_zone(spec.get("timeZone"))
    if len(name) > _CRON_NAME_BYTES_MAX:
        causes.append(bad("metadata.name", name, f"must be no more than {_CRON_NAME_BYTES_MAX} bytes"))
    return causes


def validate_cron_job_update(new: Obj, old: Obj) -> list[Cause]:
    spec, before = new["spec"], old["spec"]
    causes = _schedule(spec, zone_allowed="TZ" in (before.get("schedule") or ""))
    if spec.get("timeZone") != before.get("timeZone"):
        causes += _time_zone(spec.get("timeZone"))
    return causes


def _time_zone(zone: str | None) -> list[Cause]:
    path, unknown = "spec.timeZone", f"unknown time zone {zone}"
    if zone is None:
        return []
    if not zone:
        return [bad(path, zone, "timeZone must be nil or non-empty string")]
    if not all(_ZONE_PART.match(part) for part in zone.split("/")):
        return [bad(path, zone, unknown)]
    if zone.lower() == "local":
        detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        return [bad(path, zone, detail)]
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        return [bad(path, zone, unknown)]
    return []


def _schedule(spec: Obj, *, zone_allowed: bool = False) -> list[Cause]:
    """The rules of a schedule. Args: zone_allowed: whether it may name a time zone, as one from long ago does."""
    path, schedule = "spec.schedule", spec.get("schedule") or ""
    if not schedule:
        return []
    causes: list[Cause] = []
    try:
        cron.parse(schedule)
    except cron.ScheduleError as error:
        causes.append(bad(path, schedule, str(error)))
    if "TZ" in schedule and not zone_allowed:
        causes.append(bad(path, schedule, _NO_ZONE))
    elif "TZ" in schedule and spec.get("timeZone") is not None:
        causes.append(bad(path, schedule, _TWO_ZONES))
    return causes
