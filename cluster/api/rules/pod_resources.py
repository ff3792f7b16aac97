"""Rules of what a pod asks for as a whole, beside what its containers do.

Source: k8s.io/kubernetes/pkg/apis/core/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from steersman.cluster.api.rules.fields import bad, forbidden, unsupported
from steersman.cluster.api.rules.resources import HUGE_PAGES, OF_PODS, resource_name, validate_amounts
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import form_of, format_value, parse
from steersman.cluster.meta.quotas import pod_total

_LISTS = ("containers", "initContainers")


def _total(spec: Obj, side: str) -> dict[str, str]:
    """What a pod's containers ask for together, as quantities in the form of the first that asks."""
    forms: dict[str, str] = {}
    for key in _LISTS:
        for one in spec.get(key) or ():
            for name, text in ((one.get("resources") or {}).get(side) or {}).items():
                forms.setdefault(name, form_of(text))
    amounts = pod_total({"spec": {key: spec.get(key) for key in _LISTS}}, side)
    return {name: format_value(amount, forms[name]) for name, amount in amounts.items()}


def default_pod_resources(spec: Obj) -> None:
    """Fills in what a pod with limits of its own asks for: as much as its containers, else up to those limits."""
    resources = spec.get("resources")
    if not resources:
        return
    pages = {name: text for name, text in _total(spec, "limits").items() if name.startswith(HUGE_PAGES)}
    limits = {**pages, **(resources.get("limits") or {})}
    if not limits:
        return
    requests = {name: text for name, text in _total(spec, "requests").items() if name in OF_PODS}
    resources["limits"] = limits
    resources["requests"] = {**limits, **requests, **(resources.get("requests") or {})}


def validate_pod_resources(path: str, spec: Obj) -> list[Cause]:
    """Every broken rule of the resources of a whole pod, which stand in its spec."""
    resources: Obj = spec["resources"]
    if (spec.get("os") or {}).get("name") == "windows":
        return [forbidden(path, "may not be set for a windows pod")]
    causes: list[Cause] = []
    if resources.get("claims") is not None:
        causes.append(forbidden(f"{path}.claims", "claims may not be set for Resources at pod-level"))
    return causes + validate_amounts(path, resources, _name) + _consistent(path, spec, resources)


def _name(path: str, name: str) -> list[Cause]:
    if causes := resource_name(path, name):
        return causes
    if name in OF_PODS or name.startswith(HUGE_PAGES):
        return []
    return [unsupported(path, name, (*OF_PODS, HUGE_PAGES))]


def _consistent(path: str, spec: Obj, resources: Obj) -> list[Cause]:
    """The rules between what a pod asks for and what its containers do."""
    causes: list[Cause] = []
    for side in ("requests", "limits"):
        found = resources.get(side) or {}
        for name, text in _total(spec, side).items() if found else ():
            if name not in found or (side == "limits" and not name.startswith(HUGE_PAGES)):
                continue
            if parse(text) > parse(found[name]):
                detail = f"must be greater than or equal to aggregate container {side} of {text}"
                causes.append(bad(f"{path}.{side}[{name}]", found[name], detail))
    limits = resources.get("limits") or {}
    for index, one in enumerate(spec.get("containers") or ()):
        for name, text in ((one.get("resources") or {}).get("limits") or {}).items():
            if name in limits and parse(text) > parse(limits[name]):
                detail = f"must be less than or equal to pod limits of {limits[name]}"
                causes.append(bad(f"{path}.containers[{index}][{name}].limits", text, detail))
    return causes
