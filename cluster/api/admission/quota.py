"""ResourceQuota: a namespace holds no more objects, and asks for no more resources, than its quotas allow.

What is used is counted from the objects themselves, so that a lagging status never lets a burst through twice as large.

Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.errors import Forbidden
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import format_value, parse
from steersman.cluster.meta.resources import PODS, SERVICES, Resource

RESOURCE_QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
#: kinds whose own plugins count more than their number
COUNTED_APART = ("pods", "services", "resourcequotas", "events", "leases")
_PLAIN_COUNTS = ("configmaps", "secrets", "persistentvolumeclaims", "replicationcontrollers")
#: what one object counts for, by the names that quotas use
_Usage = Callable[[Obj], dict[str, Decimal]]
_SIDES = {"requests": ("requests.", ""), "limits": ("limits.",)}


def admit_count(kind: Kind, obj: Obj, ctx: WriteContext) -> None:
    """Refuses an object beyond the count of its kind."""
    resource = kind.resource
    keys = {f"count/{resource}"}
    if resource.plural in _PLAIN_COUNTS and not resource.group:
        keys.add(resource.plural)
    _check(resource, obj, dict.fromkeys(sorted(keys), Decimal(1)), ctx, lambda _other: dict.fromkeys(keys, Decimal(1)))


def admit_pod(pod: Obj, ctx: WriteContext) -> None:
    """Refuses a pod beyond the namespace's bounds, and one that asks for nothing where asking is a duty."""
    _check(PODS, pod, pod_usage(pod), ctx, pod_usage)


def admit_service(service: Obj, ctx: WriteContext) -> None:
    _check(SERVICES, service, _service_usage(service), ctx, _service_usage)


def _service_usage(service: Obj) -> dict[str, Decimal]:
    spec = service.get("spec") or {}
    found = {"services": Decimal(1), "count/services": Decimal(1)}
    if spec.get("type") in ("NodePort", "LoadBalancer"):
        found["services.nodeports"] = Decimal(len(spec.get("ports") or ()))
    if spec.get("type") == "LoadBalancer":
        found["services.loadbalancers"] = Decimal(1)
    return found


def pod_usage(pod: Obj) -> dict[str, Decimal]:
    """What a pod counts for, by the names that quotas use; nothing once it has finished."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return {}
    found = {"pods": Decimal(1), "count/pods": Decimal(1)}
    spec = pod.get("spec") or {}
    for side, prefixes in _SIDES.items():
        total: dict[str, Decimal] = {}
        for container in spec.get("containers") or ():
            for key, value in ((container.get("resources") or {}).get(side) or {}).items():
                total[key] = total.get(key, Decimal(0)) + parse(value)
        for container in spec.get("initContainers") or ():
            for key, value in ((container.get("resources") or {}).get(side) or {}).items():
                total[key] = max(total.get(key, Decimal(0)), parse(value))
        for key, amount in total.items():
            for prefix in prefixes:
                found[prefix + key] = amount
    return found


def _check(resource: Resource, obj: Obj, usage: dict[str, Decimal], ctx: WriteContext, of_other: _Usage) -> None:
    meta = obj["metadata"]
    quotas = [
        quota
        for quota in ctx.list(RESOURCE_QUOTAS, meta.get("namespace"))
        if not (quota.get("spec") or {}).get("scopes") and not (quota.get("spec") or {}).get("scopeSelector")
    ]
    if not quotas:
        return
    used: dict[str, Decimal] = {}
    for other in ctx.list(resource, meta.get("namespace")):
        for key, amount in of_other(other).items():
            used[key] = used.get(key, Decimal(0)) + amount
    for quota in quotas:
        _refuse(resource, obj, quota, usage, used)


def _refuse(resource: Resource, obj: Obj, quota: Obj, usage: dict[str, Decimal], used: dict[str, Decimal]) -> None:
    name, own = quota["metadata"]["name"], obj["metadata"].get("name", "")
    hard = {key: parse(value) for key, value in ((quota.get("spec") or {}).get("hard") or {}).items()}
    if resource.plural == "pods":
        bounded = [key for key in hard if key.startswith(("requests.", "limits.")) or key in ("cpu", "memory")]
        missing = sorted(key for key in bounded if key not in usage)
        if missing:
            detail = f"failed quota: {name}: must specify {' for: '.join([missing[0], _first_container(obj)])}"
            raise Forbidden(f'{resource} "{own}" is forbidden: {detail}', kind=resource.plural, name=own)
    over = [key for key in sorted(hard) if key in usage and used.get(key, Decimal(0)) + usage[key] > hard[key]]
    if over:
        wanted = ",".join(f"{key}={format_value(usage[key])}" for key in over)
        held = ",".join(f"{key}={format_value(used.get(key, Decimal(0)))}" for key in over)
        limit = ",".join(f"{key}={quota['spec']['hard'][key]}" for key in over)
        detail = f"exceeded quota: {name}, requested: {wanted}, used: {held}, limited: {limit}"
        raise Forbidden(
            f'{resource} "{own}" is forbidden: {detail}', kind=resource.plural, group=resource.group, name=own
        )


def _first_container(pod: Obj) -> str:
    containers = (pod.get("spec") or {}).get("containers") or [{}]
    return str(containers[0].get("name", ""))
