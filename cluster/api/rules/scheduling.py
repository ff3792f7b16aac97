"""Rules of what steers scheduling: tolerations, affinity, topology spread.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Sequence

from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    duplicate,
    forbidden,
    key_errors,
    label_selector,
    required,
    unsupported,
)
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, label_value_errors, qualified_name_errors
from steersman.cluster.meta.objects import Obj

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_NODE_OPERATORS = ("DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn")


def validate_tolerations(path: str, rows: Sequence[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    for index, row in enumerate(rows):
        where = f"{path}[{index}]"
        key, operator, value = row.get("key", ""), row.get("operator") or "Equal", row.get("value", "")
        if key:
            causes += bad_all(f"{where}.key", key, key_errors(key))
        elif operator != "Exists":
            detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            causes.append(bad(f"{where}.operator", row.get("operator", ""), detail))
        if row.get("tolerationSeconds") is not None and row.get("effect") != "NoExecute":
            detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            causes.append(bad(f"{where}.effect", row.get("effect", ""), detail))
        if operator == "Equal":
            if errors := label_value_errors(value):
                causes.append(bad(f"{where}.operator", value, ";".join(errors)))
        elif operator == "Exists":
            if value:
                causes.append(bad(f"{where}.operator", row, "value must be empty when `operator` is 'Exists'"))
        elif operator not in ("Gt", "Lt"):
            causes.append(unsupported(f"{where}.operator", operator, ("Equal", "Exists")))
        if row.get("effect") and row["effect"] not in EFFECTS:
            causes.append(unsupported(f"{where}.effect", row["effect"], EFFECTS, in_order=True))
    return causes


def validate_affinity(path: str, affinity: Obj, *, is_pod: bool = False) -> list[Cause]:
    causes: list[Cause] = []
    node = affinity.get("nodeAffinity")
    if node:
        causes += _node_affinity(f"{path}.nodeAffinity", node)
    for key in ("podAffinity", "podAntiAffinity"):
        found = affinity.get(key) or {}
        where = f"{path}.{key}"
        for index, term in enumerate(found.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
            causes += _pod_term(f"{where}.requiredDuringSchedulingIgnoredDuringExecution[{index}]", term, is_pod=is_pod)
        for index, row in enumerate(found.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            place = f"{where}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
            causes += _weight(place, row)
            causes += _pod_term(f"{place}.podAffinityTerm", row.get("podAffinityTerm") or {}, is_pod=is_pod)
    return causes


def _weight(path: str, row: Obj) -> list[Cause]:
    weight = row.get("weight", 0)
    return [] if 1 <= weight <= 100 else [bad(f"{path}.weight", weight, "must be in the range 1-100")]


def _node_affinity(path: str, node: Obj) -> list[Cause]:
    causes: list[Cause] = []
    must = node.get("requiredDuringSchedulingIgnoredDuringExecution")
    if must is not None:
        causes += validate_node_selector(f"{path}.requiredDuringSchedulingIgnoredDuringExecution", must)
    for index, row in enumerate(node.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        where = f"{path}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
        causes += _weight(where, row)
        causes += _node_term(f"{where}.preference", row.get("preference") or {})
    return causes


def validate_node_selector(path: str, selector: Obj) -> list[Cause]:
    terms = selector.get("nodeSelectorTerms") or []
    if not terms:
        return [required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")]
    causes: list[Cause] = []
    for index, term in enumerate(terms):
        causes += _node_term(f"{path}.nodeSelectorTerms[{index}]", term)
    return causes


def _node_term(path: str, term: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for index, row in enumerate(term.get("matchExpressions") or ()):
        causes += _node_expression(f"{path}.matchExpressions[{index}]", row)
        key = row.get("key", "")
        causes += bad_all(f"{path}.matchExpressions[{index}].key", key, qualified_name_errors(key))
    for index, row in enumerate(term.get("matchFields") or ()):
        where = f"{path}.matchFields[{index}]"
        if row.get("operator") not in ("In", "NotIn"):
            causes.append(bad(f"{where}.operator", row.get("operator", ""), "not a valid selector operator"))
        elif len(row.get("values") or ()) != 1:
            detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            causes.append(required(f"{where}.values", detail))
        if row.get("key") != "metadata.name":
            causes.append(bad(f"{where}.key", row.get("key", ""), "not a valid field selector key"))
    return causes


def _node_expression(path: str, row: Obj) -> list[Cause]:
    operator, values = row.get("operator", ""), row.get("values") or []
    if operator in ("In", "NotIn"):
        if not values:
            return [required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")]
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            return [forbidden(f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")]
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            return [required(f"{path}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")]
    else:
        return [bad(f"{path}.operator", operator, "not a valid selector operator")]
    return []


def _pod_term(path: str, term: Obj, *, is_pod: bool) -> list[Cause]:
    causes = label_selector(f"{path}.labelSelector", term.get("labelSelector"))
    causes += label_selector(f"{path}.namespaceSelector", term.get("namespaceSelector"))
    for name in term.get("namespaces") or ():
        causes += bad_all(f"{path}.namespace", name, label_1123_errors(name))
    for key in ("matchLabelKeys", "mismatchLabelKeys"):
        if term.get(key):
            causes += _label_keys(f"{path}.{key}", term[key], term.get("labelSelector"), is_pod=is_pod)
    for index, key in enumerate(term.get("mismatchLabelKeys") or ()):
        if key in (term.get("matchLabelKeys") or ()):
            detail = "exists in both matchLabelKeys and mismatchLabelKeys"
            causes.append(bad(f"{path}.mismatchLabelKeys[{index}]", key, detail))
    return causes + _topology(f"{path}.topologyKey", term.get("topologyKey", ""))


def _topology(path: str, key: str) -> list[Cause]:
    return bad_all(path, key, qualified_name_errors(key)) if key else [required(path, "can not be empty")]


def _label_keys(path: str, keys: Sequence[str], selector: Obj | None, *, is_pod: bool) -> list[Cause]:
    """The rules of keys that stand for the pod's own labels; a pod's selector already holds them."""
    if selector is None:
        return [forbidden(path, "must not be specified when labelSelector is not set")]
    said = [*(selector.get("matchLabels") or ()), *(row.get("key") for row in selector.get("matchExpressions") or ())]
    causes: list[Cause] = []
    for index, key in enumerate(keys):
        causes += bad_all(f"{path}[{index}]", key, qualified_name_errors(key))
        if said.count(key) > is_pod:
            field = path.rpartition(".")[2]
            causes.append(bad(f"{path}[{index}]", key, f"exists in both {field} and labelSelector"))
    return causes


def validate_spread(path: str, rows: Sequence[Obj], *, is_pod: bool = False) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[tuple[str, str]] = set()
    for index, row in enumerate(rows):
        where = f"{path}[{index}]"
        if row.get("maxSkew", 0) <= 0:
            causes.append(bad(f"{where}.maxSkew", row.get("maxSkew", 0), "must be greater than zero"))
        topology, action = row.get("topologyKey", ""), row.get("whenUnsatisfiable", "")
        causes += _topology(f"{where}.topologyKey", topology)
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            causes.append(unsupported(f"{where}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway")))
        if (topology, action) in seen:
            causes.append(duplicate(f"{where}.{{topologyKey, whenUnsatisfiable}}", f"{{{topology}, {action}}}"))
        seen.add((topology, action))
        causes += _min_domains(f"{where}.minDomains", row.get("minDomains"), action)
        for key in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if row.get(key) is not None and row[key] not in ("Honor", "Ignore"):
                causes.append(unsupported(f"{where}.{key}", row[key], ("Honor", "Ignore")))
        if row.get("matchLabelKeys"):
            keys, selector = row["matchLabelKeys"], row.get("labelSelector")
            causes += _label_keys(f"{where}.matchLabelKeys", keys, selector, is_pod=is_pod)
        causes += label_selector(f"{where}.labelSelector", row.get("labelSelector"))
    return causes


def _min_domains(path: str, least: int | None, action: str) -> list[Cause]:
    if least is None:
        return []
    if least <= 0:
        return [bad(path, least, "must be greater than zero")]
    if action == "DoNotSchedule":
        return []
    return [bad(path, least, f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}")]
