"""Rules of limit ranges and quotas: how much one object, and how much a namespace may have.

Source: k8s.io/kubernetes/pkg/apis/core/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from steersman.cluster.api.rules.fields import bad, bad_all, duplicate, forbidden, immutable, required
from steersman.cluster.api.rules.resources import quantity
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import qualified_name_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import parse

_SCOPES = (
    "BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating",
    "VolumeAttributesClass",
)  # fmt: skip
_QUOTA = frozenset(
    {
        "cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.storage",
        "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage", "pods",
        "resourcequotas", "services", "replicationcontrollers", "secrets", "persistentvolumeclaims", "configmaps",
        "services.nodeports", "services.loadbalancers",
    }
)  # fmt: skip
_WHOLE = frozenset(
    {
        "pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "persistentvolumeclaims",
        "configmaps", "services.nodeports", "services.loadbalancers",
    }
)  # fmt: skip
#: what each scope may bound, of the amounts that Kubernetes itself knows
_COMPUTE = frozenset(
    {
        "cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.ephemeral-storage",
        "limits.cpu", "limits.memory", "limits.ephemeral-storage",
    }
)  # fmt: skip
_SCOPED = {
    **dict.fromkeys(_SCOPES, _COMPUTE | {"pods"}),
    "BestEffort": frozenset({"pods"}),
    "VolumeAttributesClass": frozenset({"persistentvolumeclaims", "requests.storage"}),
}
_CONFLICTING = (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))
#: scopes of which one is chosen by its name
_NAMED = frozenset({"PriorityClass", "VolumeAttributesClass"})


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
        causes += bad_all(f"{path}.type", kind, qualified_name_errors(kind))
        if kind in seen:
            causes.append(duplicate(f"{path}.type", kind))
        seen.add(kind)
        causes += _item(path, kind, item)
    return causes


def _item(path: str, kind: str, item: Obj) -> list[Cause]:
    causes: list[Cause] = []
    if kind == "Pod":
        detail = "may not be specified when `type` is 'Pod'"
        causes += [forbidden(f"{path}.{key}", detail) for key in ("default", "defaultRequest") if item.get(key)]
    if kind == "PersistentVolumeClaim" and not any("storage" in (item.get(key) or {}) for key in ("min", "max")):
        detail = "either minimum or maximum storage value is required, but neither was provided"
        causes.append(required(f"{path}.limits", detail))
    keys = {key for side in ("min", "max", "default", "defaultRequest") for key in item.get(side) or {}}
    ratios = item.get("maxLimitRequestRatio") or {}
    for key in sorted(keys | ratios.keys()):
        causes += _bounds(path, key, item)
        if key in ratios and parse(ratios[key]) < 1:
            where = f"{path}.maxLimitRequestRatio[{key}]"
            causes.append(bad(where, ratios[key], f"ratio {ratios[key]} is less than 1"))
    return causes


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
    causes = _amounts("spec.hard", spec.get("hard") or {})
    hard, scopes = spec.get("hard") or {}, spec.get("scopes") or []
    for scope in scopes:
        if scope not in _SCOPES:
            causes.append(bad("spec.scopes", scopes, "unsupported scope"))
        causes += [bad("spec.scopes", scopes, _INAPPLICABLE) for _ in _out_of_scope(scope, hard)]
    causes += _conflicts("spec.scopes", scopes, scopes)
    selector, path = spec.get("scopeSelector") or {}, "spec.scopeSelector.matchExpressions"
    rows = selector.get("matchExpressions") or []
    shown = {"MatchExpressions": [{"ScopeName": row.get("scopeName", ""), "Operator": row.get("operator", ""),
                                   "Values": row.get("values")} for row in rows]}  # fmt: skip
    for row in rows:
        causes += _scope(path, row)
        causes += [bad(path, shown, _INAPPLICABLE) for _ in _out_of_scope(row.get("scopeName", ""), hard)]
    return causes + _conflicts(path, [row.get("scopeName", "") for row in rows], spec.get("scopes"))


_INAPPLICABLE = "unsupported scope applied to resource"


def _out_of_scope(scope: str, hard: Obj) -> list[str]:
    """What a quota bounds although objects within a scope do not count for it."""
    return [key for key in sorted(hard) if key in _QUOTA and scope in _SCOPED and key not in _SCOPED[scope]]


def _conflicts(path: str, scopes: list[str], shown: object) -> list[Cause]:
    return [bad(path, shown, "conflicting scopes") for pair in _CONFLICTING if set(pair) <= set(scopes)]


def _amounts(path: str, found: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for key, value in found.items():
        where = f"{path}[{key}]"
        if errors := qualified_name_errors(key):
            causes += bad_all(where, key, errors)
        elif "/" not in key and key not in _QUOTA and "hugepages-" not in key:
            causes.append(bad(where, key, "must be a standard resource for quota"))
        causes += quantity(where, key, value)
        if key in _WHOLE and parse(value) != int(parse(value)):
            causes.append(bad(where, value, "must be an integer"))
    return causes


def _scope(path: str, row: Obj) -> list[Cause]:
    scope, operator, values = row.get("scopeName", ""), row.get("operator", ""), row.get("values") or []
    causes: list[Cause] = []
    if scope not in _SCOPES:
        causes.append(bad(f"{path}.scopeName", scope, "unsupported scope"))
    elif scope not in _NAMED and operator != "Exists":
        detail = (
            "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
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
    before, after = ((side.get("spec") or {}).get("scopes") for side in (old, new))
    return immutable("spec.scopes", after, before)


def validate_quota_status(new: Obj, _old: Obj) -> list[Cause]:
    status = new.get("status") or {}
    return _amounts("status.hard", status.get("hard") or {}) + _amounts("status.used", status.get("used") or {})
