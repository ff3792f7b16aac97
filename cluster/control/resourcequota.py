"""ResourceQuota: counts what a namespace uses, and says so in the status of its quotas.

Admission keeps the counts of a quota that has them; here they begin, follow a change of the quota, and are set right.

Source: k8s.io/kubernetes/pkg/controller/resourcequota
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from steersman.cluster.control.plan import NOTHING_TO_DO, Plan, status_patch
from steersman.cluster.control.spec import ControllerSpec, View, Watch
from steersman.cluster.meta import quotas
from steersman.cluster.meta.objects import Obj, key, namespace
from steersman.cluster.meta.quotas import Usage
from steersman.cluster.meta.resources import (
    CONFIG_MAPS,
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
)

#: what is counted here; of other kinds admission alone keeps count
COUNTED = (
    PODS, SERVICES, PERSISTENT_VOLUME_CLAIMS, CONFIG_MAPS, SECRETS, REPLICATION_CONTROLLERS, DEPLOYMENTS, REPLICA_SETS,
    STATEFUL_SETS, DAEMON_SETS, JOBS, CRON_JOBS,
)  # fmt: skip
_KINDS = {(row.group, row.plural): row for row in (*COUNTED, RESOURCE_QUOTAS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: used: of each bound whose kind is counted here."""

    quota: Obj
    used: Usage


def keys_of_object(obj: Obj, view: View) -> Iterable[str]:
    """Every quota of the namespace."""
    return [key(quota) for quota in view.by_index(RESOURCE_QUOTAS, "namespace", namespace(obj))]


def observe(view: View, key: str) -> Observed | None:
    quota = view.get(RESOURCE_QUOTAS, key)
    if quota is None:
        return None
    used: Usage = {}
    wanted: dict[tuple[str, str], list[str]] = {}
    for bound in quota["spec"].get("hard") or ():
        if (kind := quotas.kind_of(bound)) in _KINDS:
            used[bound] = Decimal(0)
            wanted.setdefault(kind, []).append(bound)
    for (group, plural), bounds in wanted.items():
        for obj in view.by_index(_KINDS[group, plural], "namespace", namespace(quota)):
            if quotas.selects(quota, group, plural, obj):
                found = quotas.usage(group, plural, obj)
                for bound in bounds:
                    used[bound] += found.get(bound, Decimal(0))
    return Observed(quota=quota, used=used)


def reconcile(observed: Observed, now: float) -> Plan:
    quota = observed.quota
    hard, old = quota["spec"].get("hard") or {}, quota.get("status") or {}
    kept = {bound: text for bound, text in (old.get("used") or {}).items() if bound in hard}
    status = {"hard": hard, "used": {**kept, **quotas.shown(observed.used, hard)}}
    # exact: a write that admission has charged in between must not be forgotten
    patch = status_patch(RESOURCE_QUOTAS, quota, status, exact=True)
    return NOTHING_TO_DO if patch is None else Plan(steps=(patch,))


RESOURCE_QUOTA = ControllerSpec(
    name="resourcequota",
    watches=(
        Watch(resource=RESOURCE_QUOTAS, keys=keys_of_object, indexes=("namespace",)),
        *(Watch(resource=row, keys=keys_of_object, indexes=("namespace",)) for row in COUNTED),
    ),
    observe=observe,
    reconcile=reconcile,
    interval_s=0.3,
)
