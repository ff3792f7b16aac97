"""Rules of what steers scheduling: tolerations, affinity, topology spread.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

import re
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
from steersman.cluster.meta.names import label_1123_errors, label_value_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_INTEGER = re.compile(r"(0|-?[1-9][0-9]*)\Z")


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
                causes.append(bad(f"{where}.operator", value, "value must be empty when `operator` is 'Exists'"))
        elif operator in ("Gt", "Lt"):
            causes += _integer(f"{where}.value", value)
        else:
            causes.append(unsupported(f"{where}.operator", operator, ("Equal", "Exists")))
        if row.get("effect") and row["effect"] not in EFFECTS:
            causes.append(unsupported(f"{where}.effect", row["effect"], EFFECTS, in_order=True))
    return causes


def _integer(path: str, value: str) -> list[Cause]:
    """The rules of what a taint is compared with by order."""
    if not _INTEGER.match(value):
        detail = "must be a valid decimal integer in canonical form"
        return [bad(path, value, f"{detail} (optional minus sign, no leading zeros, e.g. '0', '-5' or '42')")]
    if not -(2**63) <= int(value) < 2**63:
        return [bad(path, value, f'strconv.ParseInt: parsing "{value}": value out of range')]
    return []


def validate_affinity(path: str, affinity: Obj) -> list[Cause]:
    causes: list[Cause] = []
    node = affinity.get("nodeAffinity")
    if node:
        causes += _node_affinity(f"{path}.nodeAffinity", node)
    for key in ("podAffinity", "podAntiAffinity"):
        found = affinity.get(key) or {}
        where = f"{path}.{key}"
        for index, term in enumerate(found.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
            causes += _pod_term(f"{where}.requiredDuringSchedulingIgnoredDuringExecution[{index}]", term)
        for index, row in enumerate(found.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            place = f"{where}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
            causes += _weight(place, row)
            causes += _pod_term(f"{place}.podAffinityTerm", row.get("podAffinityTerm") or {})
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
        causes += _node_term(f"{where}.preference", row.get("preference") or {}, is_required=False)
    return causes


def validate_node_selector(path: str, selector: Obj) -> list[Cause]:
    terms = selector.get("nodeSelectorTerms") or []
    if not terms:
        return [required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")]
    causes: list[Cause] = []
    for index, term in enumerate(terms):
        causes += _node_term(f"{path}.nodeSelectorTerms[{index}]", term)
    return causes


def _node_term(path: str, term: Obj, *, is_required: bool = True) -> list[Cause]:
    """The rules of what a node must be like; what is only preferred may have values that no label has."""
    causes: list[Cause] = []
    for index, row in enumerate(term.get("matchExpressions") or ()):
        where, key = f"{path}.matchExpressions[{index}]", row.get("key", "")
        causes += _node_expression(where, row) + bad_all(f"{where}.key", key, key_errors(key))
        for place, value in enumerate(row.get("values") or () if is_required else ()):
            causes += bad_all(f"{where}.values[{place}]", value, label_value_errors(value))
    for index, row in enumerate(term.get("matchFields") or ()):
        where, values = f"{path}.matchFields[{index}]", row.get("values") or ()
        if row.get("operator") not in ("In", "NotIn"):
            causes.append(bad(f"{where}.operator", row.get("operator", ""), "not a valid selector operator"))
        elif len(values) != 1:
            detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            causes.append(required(f"{where}.values", detail))
        if row.get("key") != "metadata.name":
            causes.append(bad(f"{where}.key", row.get("key", ""), "not a valid field selector key"))
            continue
        for place, value in enumerate(values):
            causes += bad_all(f"{where}.values[{place}]", value, subdomain_errors(value))
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


def _pod_term(path: str, term: Obj) -> list[Cause]:
    causes = label_selector(f"{path}.labelSelector", term.get("labelSelector"))
    causes += label_selector(f"{path}.namespaceSelector", term.get("namespaceSelector"))
    for name in term.get("namespaces") or ():
        causes += bad_all(f"{path}.namespace", name, label_1123_errors(name))
    causes += _label_keys(path, term)
    topology, where = term.get("topologyKey", ""), f"{path}.topologyKey"
    if not topology:
        causes.append(required(where, "can not be empty"))
    return causes + bad_all(where, topology, key_errors(topology))


def _label_keys(path: str, term: Obj) -> list[Cause]:
    """The rules of keys that stand for the pod's own labels: the selector of a pod that was made holds them once."""
    match, mismatch = term.get("matchLabelKeys") or (), term.get("mismatchLabelKeys") or ()
    if not match and not mismatch:
        return []
    selector = term.get("labelSelector")
    causes: list[Cause] = []
    for field, keys in (("matchLabelKeys", match), ("mismatchLabelKeys", mismatch)):
        if keys and selector is None:
            causes.append(forbidden(f"{path}.{field}", "must not be specified when labelSelector is not set"))
            continue
        for index, key in enumerate(keys):
            causes += bad_all(f"{path}.{field}[{index}]", key, key_errors(key))
    said = set((selector or {}).get("matchLabels") or ())
    for row in (selector or {}).get("matchExpressions") or ():
        key = row.get("key", "")
        if key in match and key in said:
            causes.append(bad(f"{path}[{match.index(key)}]", key, "exists in both matchLabelKeys and labelSelector"))
        said.add(key)
    for index, key in enumerate(match):
        if key in mismatch:
            detail = "exists in both matchLabelKeys and mismatchLabelKeys"
            causes.append(bad(f"{path}.matchLabelKeys[{index}]", key, detail))
    return causes


def validate_spread(path: str, rows: Sequence[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    pairs = [(row.get("topologyKey", ""), row.get("whenUnsatisfiable", "")) for row in rows]
    for index, row in enumerate(rows):
        where, (topology, action) = f"{path}[{index}]", pairs[index]
        if row.get("maxSkew", 0) <= 0:
            causes.append(bad(f"{where}.maxSkew", row.get("maxSkew", 0), "must be greater than zero"))
        if not topology:
            causes.append(required(f"{where}.topologyKey", "can not be empty"))
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            causes.append(unsupported(f"{where}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway")))
        if pairs[index] in pairs[index + 1 :]:
            causes.append(duplicate(f"{where}.{{topologyKey, whenUnsatisfiable}}", f"{{{topology}, {action}}}"))
        causes += _min_domains(f"{where}.minDomains", row.get("minDomains"), action)
        for key in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if row.get(key) is not None and row[key] not in ("Honor", "Ignore"):
                causes.append(unsupported(f"{where}.{key}", row[key], ("Honor", "Ignore")))
        causes += _label_keys(where, row)
        causes += label_selector(f"{where}.labelSelector", row.get("labelSelector"))
    return causes


def _min_domains(path: str, least: int | None, action: str) -> list[Cause]:
    if least is None:
        return []
    causes = [bad(path, least, "must be greater than zero")] if least <= 0 else []
    if action != "DoNotSchedule":
        causes.append(bad(path, least, f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"))
    return causes
