"""Rules of what containers ask for: requests, limits, claims of devices, and how they may be resized.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from steersman.cluster.api.rules.fields import bad, bad_all, duplicate, forbidden, not_found, required, unsupported
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import parse

_STANDARD = ("cpu", "memory", "ephemeral-storage")
_OF_PODS = ("cpu", "memory")
#: resources that may not be promised beyond what is there
_HUGE_PAGES = "hugepages-"
_RESTARTS = ("NotRequired", "RestartContainer")


def is_extended(name: str) -> bool:
    """Whether a resource is neither Kubernetes' own nor a quota's."""
    if "/" not in name or name.startswith("requests."):
        return False
    return "kubernetes.io/" not in name


def validate_resources(path: str, resources: Obj, claims: Container[str] = ()) -> list[Cause]:
    """Every broken rule of a container's resources; `claims` are the names of the pod's claims."""
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    causes: list[Cause] = []
    for side, found in (("limits", limits), ("requests", requests)):
        for key, value in found.items():
            if key not in _STANDARD:
                causes += _resource_name(f"{path}.{side}", key)
            if parse(value) < 0 or is_extended(key):
                causes += quantity(f"{path}.{side}[{key}]", key, value)
    pages = [key for key in {**limits, **requests} if key.startswith(_HUGE_PAGES)]
    if pages and not any(key in side for key in _OF_PODS for side in (limits, requests)):
        causes.append(forbidden(path, "HugePages require cpu or memory"))
    for key, value in requests.items():
        bound = limits.get(key)
        fixed = key.startswith(_HUGE_PAGES) or is_extended(key)
        if bound is None:
            if fixed:
                causes.append(required(f"{path}.limits", "Limit must be set for non overcommitable resources"))
        elif fixed and parse(value) != parse(bound):
            causes.append(bad(f"{path}.requests", value, f"must be equal to {key} limit of {bound}"))
        elif parse(value) > parse(bound):
            causes.append(bad(f"{path}.requests", value, f"must be less than or equal to {key} limit of {bound}"))
    return causes + _claims(f"{path}.claims", resources["claims"], claims) if resources.get("claims") else causes


def quantity(path: str, key: str, value: str) -> list[Cause]:
    """The rules of an amount: not negative, and whole where parts make no sense."""
    amount = parse(value)
    if amount < 0:
        return [bad(path, value, "must be greater than or equal to 0")]
    if is_extended(key) and amount != int(amount):
        return [bad(path, value, "must be an integer")]
    return []


def _resource_name(path: str, key: str) -> list[Cause]:
    if errors := qualified_name_errors(key):
        return bad_all(path, key, errors)
    if "/" not in key and not key.startswith(_HUGE_PAGES):
        details = ("must be a standard resource type or fully qualified", "must be a standard resource for containers")
        return bad_all(path, key, details)
    return []


def validate_pod_resources(path: str, resources: Obj) -> list[Cause]:
    """Every broken rule of the resources of a whole pod."""
    causes: list[Cause] = []
    for side in ("limits", "requests"):
        for key in resources.get(side) or ():
            if key not in _OF_PODS and not key.startswith(_HUGE_PAGES):
                causes.append(unsupported(f"{path}.{side}", key, (*_OF_PODS, _HUGE_PAGES)))
    if resources.get("claims"):
        causes.append(forbidden(f"{path}.claims", "claims may not be set for Resources at pod-level"))
    return causes + validate_resources(path, {key: value for key, value in resources.items() if key != "claims"})


def _claims(path: str, rows: Sequence[Obj], known: Container[str]) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[tuple[str, str]] = set()
    for index, row in enumerate(rows):
        name, found = row.get("name", ""), (row.get("name", ""), row.get("request", ""))
        if not name:
            causes.append(required(f"{path}[{index}].name"))
        elif found in seen:
            causes.append(duplicate(f"{path}[{index}]", name))
        elif name not in known:
            causes.append(not_found(f"{path}[{index}].name", name))
        seen.add(found)
    return causes


def validate_resize_policy(path: str, rows: Sequence[Obj], pod_restart: str) -> list[Cause]:
    """Every broken rule of how a container takes a change of its resources."""
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, row in enumerate(rows):
        name, restart, where = row.get("resourceName", ""), row.get("restartPolicy", ""), f"{path}[{index}]"
        if name in seen:
            causes.append(duplicate(where, name))
        seen.add(name)
        if not name:
            causes.append(required(where))
        elif name not in _OF_PODS:
            causes.append(unsupported(where, name, _OF_PODS))
        if not restart:
            causes.append(required(where))
        elif restart not in _RESTARTS:
            causes.append(unsupported(where, restart, _RESTARTS))
        elif pod_restart == "Never" and restart != "NotRequired":
            causes.append(bad(where, restart, "must be 'NotRequired' when `restartPolicy` is 'Never'"))
    return causes


def claim_names(path: str, rows: Sequence[Obj]) -> tuple[list[Cause], set[str]]:
    """Every broken rule of a pod's own list of claims, and their names."""
    causes: list[Cause] = []
    names: set[str] = set()
    sources = ("resourceClaimName", "resourceClaimTemplateName")
    for index, row in enumerate(rows):
        where, name = f"{path}[{index}]", row.get("name", "")
        if not name:
            causes.append(required(f"{where}.name"))
        elif name in names:
            causes.append(duplicate(f"{where}.name", name))
        else:
            causes += bad_all(f"{where}.name", name, label_1123_errors(name))
            names.add(name)
        said = [key for key in sources if row.get(key) is not None]
        listed = " or ".join(f"`{key}`" for key in sources)
        if len(said) > 1:
            causes.append(bad(where, row, f"at most one of {listed} may be specified"))
        elif not said:
            causes.append(bad(where, row, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
        for key in said:
            causes += bad_all(f"{where}.{key}", row[key], subdomain_errors(row[key]))
    return causes, names
