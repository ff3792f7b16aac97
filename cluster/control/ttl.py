"""Removes finished Jobs when their time to live is over.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/ttlafterfinished/
"""

from __future__ import annotations

from dataclasses import dataclass

from steersman.cluster.control.plan import NOTHING_TO_DO, Plan, delete
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.objects import Obj, condition, is_deleting
from steersman.cluster.meta.resources import JOBS
from steersman.cluster.meta.times import parse_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    job: Obj


def observe(view: View, key: str) -> Observed | None:
    job = view.get(JOBS, key)
    if job is None or job["spec"].get("ttlSecondsAfterFinished") is None or is_deleting(job):
        return None
    return Observed(job=job)


def reconcile(observed: Observed, now: float) -> Plan:
    job = observed.job
    ends = [row for kind in ("Complete", "Failed") if (row := condition(job, kind)) and row.get("status") == "True"]
    if not ends:
        return NOTHING_TO_DO
    expires_at = parse_time(ends[0]["lastTransitionTime"]) + float(job["spec"]["ttlSecondsAfterFinished"])
    if expires_at > now:
        return Plan(requeue_after_s=expires_at - now)
    exact = job["metadata"].get("resourceVersion", "")
    return Plan(steps=(delete(JOBS, job, resource_version=exact, propagation="Foreground"),))


TTL_AFTER_FINISHED = ControllerSpec(
    name="ttl-after-finished",
    watches=(Watch(resource=JOBS, keys=own_key),),
    observe=observe,
    reconcile=reconcile,
    workers=2,
)
