"""LimitRanger: default requests and limits of containers, and the bounds of a namespace.

Source: https://kubernetes.io/docs/concepts/policy/limit-range/ and k8s.io/kubernetes/plugin/pkg/admission/limitranger
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal

from steersman.cluster.api.admission.attempt import Attempt, aggregated
from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import form_of, format_value, parse
from steersman.cluster.meta.quotas import Usage, pod_total
from steersman.cluster.meta.resources import LIMIT_RANGES

_ANNOTATION = "kubernetes.io/limit-ranger"
_KINDS = (("containers", "container"), ("initContainers", "init container"))
#: quantities as a bound sees them, with the texts they came from
_Amounts = Mapping[str, str]


def _ranges(namespace: str | None, ctx: WriteContext) -> list[list[Obj]]:
    """The limits of each range of a namespace."""
    found = sorted(ctx.list(LIMIT_RANGES, namespace), key=lambda obj: str(obj["metadata"]["name"]))
    return [list((row.get("spec") or {}).get("limits") or ()) for row in found]


# ---- defaults


def admit_pod(pod: Obj, ctx: WriteContext) -> None:
    """Fills in the namespace's defaults, and notes what it filled in."""
    for limits in _ranges(pod["metadata"].get("namespace"), ctx):
        notes = [
            note
            for item in limits
            if item.get("type") == "Container"
            for field, noun in _KINDS
            for container in pod["spec"].get(field) or ()
            for note in _filled(container, item, noun)
        ]
        if notes:  # those of the last range stay
            annotations = pod["metadata"].get("annotations") or {}
            text = "LimitRanger plugin set: " + "; ".join(notes)
            pod["metadata"]["annotations"] = {**annotations, _ANNOTATION: text}


def _filled(container: Obj, item: Obj, noun: str) -> Iterator[str]:
    resources = container.setdefault("resources", {})
    for side, key, word in (("requests", "defaultRequest", "request"), ("limits", "default", "limit")):
        own = resources.get(side) or {}
        added = {name: text for name, text in (item.get(key) or {}).items() if name not in own}
        if added:
            resources[side] = {**own, **added}
            yield f"{', '.join(sorted(added))} {word} for {noun} {container.get('name', '')}"


# ---- bounds


def validate_pod(attempt: Attempt, ctx: WriteContext) -> None:
    """Refuses a pod beyond the bounds of its namespace."""
    pod = attempt.obj or {}
    for limits in _ranges(attempt.namespace, ctx):
        _refuse(attempt, [text for item in limits for text in _broken_by_pod(pod, item)])


def _broken_by_pod(pod: Obj, item: Obj) -> Iterator[str]:
    if item.get("type") == "Container":
        for field, _ in _KINDS:
            for container in pod["spec"].get(field) or ():
                resources = container.get("resources") or {}
                yield from _broken("Container", item, resources.get("requests") or {}, resources.get("limits") or {})
    elif item.get("type") == "Pod":
        pod = {**pod, "spec": {key: value for key, value in pod["spec"].items() if key != "overhead"}}
        yield from _broken("Pod", item, *(_texts(pod_total(pod, side), item) for side in ("requests", "limits")))


def validate_claim(attempt: Attempt, ctx: WriteContext) -> None:
    """Refuses a claim of more or less storage than the namespace allows."""
    requests = (((attempt.obj or {}).get("spec") or {}).get("resources") or {}).get("requests") or {}
    for limits in _ranges(attempt.namespace, ctx):
        _refuse(attempt, [text for item in limits for text in _broken_by_claim(requests, item)])


def _broken_by_claim(requests: _Amounts, item: Obj) -> Iterator[str]:
    if item.get("type") != "PersistentVolumeClaim":
        return
    yield from _too_little("PersistentVolumeClaim", item, requests, {})
    for key, bound in sorted((item.get("max") or {}).items()):
        start = f"maximum {key} usage per PersistentVolumeClaim is {bound}"
        if key not in requests:
            yield f"{start}.  No request is specified"
        elif parse(requests[key]) > parse(bound):
            yield f"{start}, but request is {requests[key]}"


def _refuse(attempt: Attempt, broken: list[str]) -> None:
    if broken:
        raise attempt.forbidden(aggregated(broken))


def _texts(amounts: Usage, item: Obj) -> dict[str, str]:
    """Amounts in the form in which the item's bounds are written."""
    bounds = {**(item.get("max") or {}), **(item.get("min") or {})}
    return {key: format_value(amount, form_of(bounds.get(key, "1"))) for key, amount in amounts.items()}


def _broken(what: str, item: Obj, requests: _Amounts, limits: _Amounts) -> Iterator[str]:
    yield from _too_little(what, item, requests, limits)
    for key, bound in sorted((item.get("max") or {}).items()):
        start = f"maximum {key} usage per {what} is {bound}"
        if key not in limits:
            yield f"{start}.  No limit is specified"
        elif parse(limits[key]) > parse(bound):
            yield f"{start}, but limit is {limits[key]}"
        elif key in requests and parse(requests[key]) > parse(bound):
            yield f"{start}, but request is {requests[key]}"
    for key, bound in sorted((item.get("maxLimitRequestRatio") or {}).items()):
        start = f"{key} max limit to request ratio per {what} is {bound}"
        request, limit = (parse(side.get(key, "0")) for side in (requests, limits))
        if request == Decimal(0):
            yield f"{start}, but no request is specified or request is 0"
        elif limit == Decimal(0):
            yield f"{start}, but no limit is specified or limit is 0"
        elif limit / request > parse(bound):
            yield f"{start}, but provided ratio is {float(limit / request):f}"


def _too_little(what: str, item: Obj, requests: _Amounts, limits: _Amounts) -> Iterator[str]:
    for key, bound in sorted((item.get("min") or {}).items()):
        start = f"minimum {key} usage per {what} is {bound}"
        if key not in requests:
            yield f"{start}.  No request is specified"
        elif parse(requests[key]) < parse(bound):
            yield f"{start}, but request is {requests[key]}"
        elif key in limits and parse(limits[key]) < parse(bound):
            yield f"{start}, but limit is {limits[key]}"
