"""Rules of limit ranges and quotas: how much one object, and how much a namespace may have.

Source: k8s.io/kubernetes/pkg/apis/core/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steersman.cluster.api.rules.fields import bad, bad_all, duplicate, forbidden, internal, required
from steersman.cluster.api.rules.resources import (
    HUGE_PAGES,
    OF_PODS,
    QUOTA,
    NameRule,
    can_overcommit,
    container_resource_name,
    quantity,
    resource_name,
)
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import qualified_name_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import parse

_SCOPES = (
    "Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
)  # fmt: skip
#: scopes that one quota may not have both
_OPPOSITES = (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))
_OF_PODS = frozenset({"pods", *OF_PODS, *(f"{side}.{name}" for side in ("requests", "limits") for name in OF_PODS)})
#: scopes that a selector may choose by value
_CHOSEN = ("PriorityClass", "VolumeAttributesClass")
_ROW = ("scopeName", "operator", "values")
#: what a quota may bound under a scope; under any other, the amounts of pods
_SCOPED = {
    "BestEffort": frozenset({"pods"}),
    "VolumeAttributesClass": frozenset({"persistentvolumeclaims", "requests.storage"}),
}
_LIMITED = ("Pod", "Container", "PersistentVolumeClaim")


def default_limit_range(obj: Obj) -> None:
    """Defaults follow from the bounds: limits from the maximum, requests from limits and the minimum."""
    for item in (obj.get("spec") or {}).get("limits") or ():
        if item.get("type") != "Container":
            continue
        limits, requests = dict(item.get("default") or {}), dict(item.get("defaultRequest") or {})
        for key, value in (item.get("max") or {}).items():
            limits.setdefault(key, value)
        for key, value in limits.items():
            requests.setdefault(key, value)
        for key, value in (item.get("min") or {}).items():
            requests.setdefault(key, value)
        if limits:
            item["default"] = limits
        if requests:
            item["defaultRequest"] = requests


def validate_limit_range(obj: Obj) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, item in enumerate((obj.get("spec") or {}).get("limits") or ()):
        path, kind = f"spec.limits[{index}]", item.get("type", "")
        causes += _limited(f"{path}.type", kind)
        if kind in seen:
            causes.append(duplicate(f"{path}.type", kind))
            continue
        seen.add(kind)
        causes += _item(path, kind, item)
    return causes


def _limited(path: str, kind: str) -> list[Cause]:
    """The rules of the type of what is limited."""
    if errors := qualified_name_errors(kind):
        return bad_all(path, kind, errors)
    if "/" in kind or kind in _LIMITED:
        return []
    return [bad(path, kind, "must be a standard limit type or fully qualified")]


def _item(path: str, kind: str, item: Obj) -> list[Cause]:
    sides = ("max", "min") if kind == "Pod" else ("max", "min", "default", "defaultRequest")
    named = container_resource_name if kind == "Container" else resource_name
    causes: list[Cause] = []
    for side in ("max", "min"):
        causes += _names(f"{path}.{side}", item.get(side) or {}, named)
    for side in ("default", "defaultRequest"):
        if side in sides:
            causes += _names(f"{path}.{side}", item.get(side) or {}, named)
        elif item.get(side):
            causes.append(forbidden(f"{path}.{side}", "may not be specified when `type` is 'Pod'"))
    ratios = item.get("maxLimitRequestRatio") or {}
    causes += _names(f"{path}.maxLimitRequestRatio", ratios, named)
    if kind == "PersistentVolumeClaim" and not any("storage" in (item.get(key) or {}) for key in ("min", "max")):
        detail = "either minimum or maximum storage value is required, but neither was provided"
        causes.append(required(f"{path}.limits", detail))
    for key in dict.fromkeys(key for side in (*sides, "maxLimitRequestRatio") for key in item.get(side) or {}):
        causes += _bounds(path, key, {side: amounts for side, amounts in item.items() if side in sides})
        if key in ratios:
            causes += _ratio(f"{path}.maxLimitRequestRatio[{key}]", key, ratios[key], item)
        causes += _fixed(path, key, item)
    return causes


def _names(path: str, amounts: Obj, named: NameRule) -> list[Cause]:
    return [cause for key in amounts for cause in named(f"{path}[{key}]", key)]


def _ratio(path: str, key: str, ratio: str, item: Obj) -> list[Cause]:
    """The rules of how many times its request a limit may be: no fewer than once, no more than the bounds allow."""
    causes = [bad(path, ratio, f"ratio {ratio} is less than 1")] if parse(ratio) < 1 else []
    least, most = (parse((item.get(side) or {}).get(key, "0")) for side in ("min", "max"))
    if least > 0 and most > 0 and parse(ratio) > most / least:
        causes.append(bad(path, ratio, f"ratio {ratio} is greater than max/min = {float(most / least):f}"))
    return causes


def _fixed(path: str, key: str, item: Obj) -> list[Cause]:
    """The rule of what may not be promised beyond what is there: the request is the limit."""
    default, request = ((item.get(side) or {}).get(key) for side in ("default", "defaultRequest"))
    if can_overcommit(key) or default is None or request is None or parse(default) == parse(request):
        return []
    detail = f"default value {default} must equal to defaultRequest value {request} in {key}"
    return [bad(f"{path}.defaultRequest[{key}]", request, detail)]


def _bounds(path: str, key: str, item: Obj) -> list[Cause]:
    """Each pair of bounds in the order in which one may not pass the other."""
    pairs = (
        ("min", "max", "min", "min value {0} is greater than max value {1}"),
        ("min", "defaultRequest", "defaultRequest", "min value {0} is greater than default request value {1}"),
        ("defaultRequest", "max", "defaultRequest", "default request value {0} is greater than max value {1}"),
        (
            "defaultRequest", "default", "defaultRequest",
            "default request value {0} is greater than default limit value {1}",
        ),
        ("min", "default", "default", "min value {0} is greater than default value {1}"),
        ("default", "max", "default", "default value {0} is greater than max value {1}"),
    )  # fmt: skip
    causes: list[Cause] = []
    for low, high, blamed, detail in pairs:
        least, most = (item.get(low) or {}).get(key), (item.get(high) or {}).get(key)
        if least is not None and most is not None and parse(least) > parse(most):
            value = least if blamed == low else most
            causes.append(bad(f"{path}.{blamed}[{key}]", value, detail.format(least, most)))
    return causes


def validate_quota(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    hard, scopes = spec.get("hard") or {}, spec.get("scopes") or []
    path, causes = "spec.scopes", _amounts("spec.hard", hard)
    for scope in scopes:
        causes += [bad(path, scopes, "unsupported scope")] if scope not in _SCOPES else []
        causes += _bounded(path, scope, hard, scopes)
    return causes + _opposites(path, scopes, scopes) + _selector(spec.get("scopeSelector") or {}, hard, scopes)


def _selector(selector: Obj, hard: Obj, scopes: Sequence[str]) -> list[Cause]:
    """Every broken rule of a selector of scopes; they are said of the path of all its rows."""
    path, rows = "spec.scopeSelector.matchExpressions", selector.get("matchExpressions") or []
    said = {"MatchExpressions": [internal(row, _ROW) for row in rows]}
    causes: list[Cause] = []
    for row in rows:
        scope = row.get("scopeName", "")
        causes += [bad(f"{path}.scopeName", scope, "unsupported scope")] if scope not in _SCOPES else []
        causes += _bounded(path, scope, hard, said) + _row(path, row)
    return causes + _opposites(path, [row.get("scopeName", "") for row in rows], scopes or None)


def _bounded(path: str, scope: str, hard: Obj, said: Any) -> list[Cause]:
    """The rule that a scope is one of everything that the quota bounds."""
    if scope not in _SCOPES:
        return []
    wrong = [key for key in hard if key in QUOTA and key not in _SCOPED.get(scope, _OF_PODS)]
    return [bad(path, said, "unsupported scope applied to resource") for _ in wrong]


def _opposites(path: str, scopes: Sequence[str], said: Any) -> list[Cause]:
    both = [pair for pair in _OPPOSITES if set(pair) <= set(scopes)]
    return [bad(path, said, "conflicting scopes") for _ in both]


def _amounts(path: str, found: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for key, value in found.items():
        where = f"{path}[{key}]"
        causes += resource_name(where, key)
        if "/" not in key and not key.startswith((HUGE_PAGES, f"requests.{HUGE_PAGES}")) and key not in QUOTA:
            causes.append(bad(where, key, "must be a standard resource for quota"))
        causes += quantity(where, key, value)
    return causes


def _row(path: str, row: Obj) -> list[Cause]:
    scope, operator, values = row.get("scopeName", ""), row.get("operator", ""), row.get("values") or []
    causes: list[Cause] = []
    if scope in _SCOPES and scope not in _CHOSEN and operator != "Exists":
        detail = (
            "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
            "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or "
            "ResourceQuotaScopeCrossNamespacePodAffinity"
        )
        causes.append(bad(f"{path}.operator", operator, detail))
    match operator:
        case "In" | "NotIn":
            if not values:
                detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                causes.append(required(f"{path}.values", detail))
        case "Exists" | "DoesNotExist":
            if values:
                detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                causes.append(bad(f"{path}.values", values, detail))
        case _:
            causes.append(bad(f"{path}.operator", operator, "not a valid selector operator"))
    return causes


def validate_quota_update(new: Obj, old: Obj) -> list[Cause]:
    before, after = ((side.get("spec") or {}).get("scopes") or [] for side in (old, new))
    return [] if set(before) == set(after) else [bad("spec.scopes", after or None, "field is immutable")]


def validate_quota_status(new: Obj, _old: Obj) -> list[Cause]:
    status = new.get("status") or {}
    return _amounts("status.hard", status.get("hard") or {}) + _amounts("status.used", status.get("used") or {})
