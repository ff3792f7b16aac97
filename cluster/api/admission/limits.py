"""LimitRanger: default requests and limits of containers, and the bounds of a namespace.

Source: https://kubernetes.io/docs/concepts/policy/limit-range/
"""

from __future__ import annotations

from collections.abc import Iterable

from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.errors import Forbidden
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import add, parse
from steersman.cluster.meta.resources import Resource

LIMIT_RANGES = Resource("", "v1", "limitranges", "LimitRange")


def admit_pod(pod: Obj, ctx: WriteContext) -> None:
    """Fills in the namespace's defaults and refuses a pod beyond its bounds."""
    ranges = sorted(
        ctx.list(LIMIT_RANGES, pod["metadata"].get("namespace")), key=lambda obj: str(obj["metadata"]["name"])
    )
    items = [item for found in ranges for item in (found.get("spec") or {}).get("limits") or ()]
    if not items:
        return
    spec = pod["spec"]
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    for item in items:
        if item.get("type") == "Container":
            for container in containers:
                _fill(container, item)
    broken: list[str] = []
    for item in items:
        if item.get("type") == "Container":
            for container in containers:
                broken += _broken("Container", item, container.get("resources") or {})
        elif item.get("type") == "Pod":
            broken += _broken("Pod", item, _total(spec.get("containers") or ()))
    if broken:
        name = pod["metadata"].get("name", "")
        detail = broken[0] if len(broken) == 1 else f"[{', '.join(broken)}]"
        raise Forbidden(f'pods "{name}" is forbidden: {detail}', kind="pods", name=name)


def _fill(container: Obj, item: Obj) -> None:
    resources = container.setdefault("resources", {})
    limits = {**(item.get("default") or {}), **(resources.get("limits") or {})}
    own = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    requests = {**(item.get("defaultRequest") or {}), **own}
    if limits:
        resources["limits"] = limits
    if requests:
        resources["requests"] = requests


def _total(containers: Iterable[Obj]) -> Obj:
    total: dict[str, dict[str, str]] = {"requests": {}, "limits": {}}
    for container in containers:
        for side, found in total.items():
            for key, value in ((container.get("resources") or {}).get(side) or {}).items():
                found[key] = add(found[key], value) if key in found else value
    return total


def _broken(what: str, item: Obj, resources: Obj) -> list[str]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    broken = []
    for key, bound in (item.get("min") or {}).items():
        used = requests.get(key)
        if used is None:
            broken.append(f"minimum {key} usage per {what} is {bound}.  No request is specified")
        elif parse(used) < parse(bound):
            broken.append(f"minimum {key} usage per {what} is {bound}, but request is {used}")
    for key, bound in (item.get("max") or {}).items():
        used = limits.get(key)
        if used is None:
            broken.append(f"maximum {key} usage per {what} is {bound}.  No limit is specified")
        elif parse(used) > parse(bound):
            broken.append(f"maximum {key} usage per {what} is {bound}, but limit is {used}")
    for key, bound in (item.get("maxLimitRequestRatio") or {}).items():
        if key in limits and key in requests and parse(requests[key]) > 0:
            ratio = parse(limits[key]) / parse(requests[key])
            if ratio > parse(bound):
                broken.append(
                    f"{key} max limit to request ratio per {what} is {bound}, but provided ratio is {ratio:f}"
                )
    return broken
