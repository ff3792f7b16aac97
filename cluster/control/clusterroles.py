"""Aggregated cluster roles: the rules of a role with an aggregation rule are the sum of the roles that it selects.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from steersman.cluster.control.plan import NOTHING_TO_DO, Plan, patch
from steersman.cluster.control.spec import ControllerSpec, View, Watch
from steersman.cluster.meta.objects import Obj, labels_of, name
from steersman.cluster.meta.resources import CLUSTER_ROLES
from steersman.cluster.meta.selectors import SelectorError, from_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: selected: the other roles whose rules belong to this one."""

    role: Obj
    selected: tuple[Obj, ...] = ()


def _selects(role: Obj, other: Obj) -> bool:
    if name(role) == name(other):
        return False
    for selector in (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ():
        try:
            if from_dict(selector).matches(labels_of(other)):
                return True
        except SelectorError:
            continue
    return False


def keys_of_role(role: Obj, view: View) -> Iterable[str]:
    """The role itself, and every role that gathers it."""
    gathering = [name(other) for other in view.by_index(CLUSTER_ROLES, "aggregating", "") if _selects(other, role)]
    return [name(role), *gathering] if role.get("aggregationRule") else gathering


def observe(view: View, key: str) -> Observed | None:
    role = view.get(CLUSTER_ROLES, key)
    if role is None or not role.get("aggregationRule"):
        return None
    selected = [other for other in view.all(CLUSTER_ROLES) if _selects(role, other)]
    return Observed(role=role, selected=tuple(sorted(selected, key=name)))


def reconcile(observed: Observed, now: float) -> Plan:
    rules: dict[str, Obj] = {}
    for other in observed.selected:
        for rule in other.get("rules") or ():
            rules.setdefault(json.dumps(rule, sort_keys=True), rule)
    if (observed.role.get("rules") or []) == list(rules.values()):
        return NOTHING_TO_DO
    return Plan(steps=(patch(CLUSTER_ROLES, observed.role, {"rules": list(rules.values())}),))


CLUSTER_ROLE_AGGREGATION = ControllerSpec(
    name="clusterrole-aggregation",
    watches=(Watch(resource=CLUSTER_ROLES, keys=keys_of_role, indexes=("aggregating",)),),
    observe=observe,
    reconcile=reconcile,
    workers=2,
)
