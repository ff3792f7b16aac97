"""Default roles and bindings at the start of a server: what one that exists lacks of what this version says.

Nothing is taken away, so that what somebody added stays; whoever wants one as it is annotates it `autoupdate: "false"`.

Source: k8s.io/kubernetes/pkg/registry/rbac/rest and k8s.io/component-helpers/auth/rbac/reconciliation
"""

from __future__ import annotations

from typing import Any

from steersman.cluster.auth.rbac import compacted, compile_rules, uncovered
from steersman.cluster.meta.objects import Obj

LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_CONTROLLER = "system:controller:"
_API_VERSION = "rbac.authorization.k8s.io/v1"


def marked(obj: Obj) -> Obj:
    """The object with the label and the annotation of a default."""
    meta = obj["metadata"]
    meta["labels"] = {**(meta.get("labels") or {}), **LABELS}
    meta["annotations"] = {**(meta.get("annotations") or {}), AUTOUPDATE: "true"}
    return obj


def of_controllers(table: dict[str, list[Obj]]) -> list[Obj]:
    """The roles of controllers, and the bindings of each to the service account of its name.

    Args:
        table: the rules by the controllers' names.
    """
    found: list[Obj] = []
    for name, rules in table.items():
        full = _CONTROLLER + name
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": full}
        subject = {"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}
        found.append({"apiVersion": _API_VERSION, "kind": "ClusterRole", "metadata": {"name": full}, "rules": rules})
        found.append(
            {
                "apiVersion": _API_VERSION,
                "kind": "ClusterRoleBinding",
                "metadata": {"name": full},
                "roleRef": reference,
                "subjects": [subject],
            }
        )
    return found


def reconciled(present: Obj, wanted: Obj) -> Obj | None:
    """Returns the object with what it lacks; None when it lacks nothing or is not to be touched.

    A binding whose role is another one than wanted cannot be changed into it (see `is_replaced`).
    """
    meta = present["metadata"]
    if (meta.get("annotations") or {}).get(AUTOUPDATE) == "false":
        return None
    new: Obj = {**present, "metadata": {**meta}}
    for field in ("labels", "annotations"):
        new["metadata"][field] = {**(wanted["metadata"].get(field) or {}), **(meta.get(field) or {})}
    if "roleRef" in wanted:
        new["subjects"] = _joined(present.get("subjects"), wanted.get("subjects"))
    elif rule := wanted.get("aggregationRule"):
        selectors = (present.get("aggregationRule") or {}).get("clusterRoleSelectors")
        new["aggregationRule"] = {"clusterRoleSelectors": _joined(selectors, rule["clusterRoleSelectors"])}
    else:
        missing = uncovered(compile_rules(wanted.get("rules")), compile_rules(present.get("rules")))
        new["rules"] = [*(present.get("rules") or ()), *(row.to_dict() for row in compacted(missing))]
    return None if _same(new, present) else new


def is_replaced(present: Obj, wanted: Obj) -> bool:
    """Whether a binding has to be made anew: the role of one that exists never changes."""
    annotations = present["metadata"].get("annotations") or {}
    return (
        "roleRef" in wanted
        and annotations.get(AUTOUPDATE) != "false"
        and {**present["roleRef"]} != {**wanted["roleRef"]}
    )


def _joined(rows: Any, more: Any) -> list[Any]:
    found = list(rows or ())
    return found + [row for row in more or () if row not in found]


def _same(new: Obj, present: Obj) -> bool:
    def shown(obj: Obj) -> list[Any]:
        meta = obj["metadata"]
        fields = ("rules", "subjects", "aggregationRule")
        return [meta.get("labels") or {}, meta.get("annotations") or {}, *(obj.get(field) or [] for field in fields)]

    return shown(new) == shown(present)
