"""What objects count for in resource quotas, and which quotas mean them.

Shared by admission, which charges quotas in the write itself, and by the controller that counts anew.

Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/ and k8s.io/kubernetes/pkg/quota/v1/evaluator/core
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from steersman.cluster.meta.objects import Obj, annotations_of
from steersman.cluster.meta.quantity import form_of, format_value, parse
from steersman.cluster.meta.selectors import Requirement

Usage = dict[str, Decimal]
#: kinds of the core group that are also counted under their bare name
_BARE = frozenset(
    {
        "configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets",
        "services",
    }
)  # fmt: skip
#: what is never counted
IGNORED = frozenset({("", "events"), ("events.k8s.io", "events"), ("", "bindings")})
#: what a quota may oblige every container to ask for
_OBLIGATORY = frozenset({"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"})
_ONE = Decimal(1)
#: claims of devices, and how those of a class are counted; no claim gets more of them
_CLAIMS, _PER_CLASS, _DEVICES_MAX = ("resource.k8s.io", "resourceclaims"), ".deviceclass.resource.k8s.io/devices", 32


def count_key(group: str, plural: str) -> str:
    return f"count/{plural}.{group}" if group else f"count/{plural}"


def kind_of(key: str) -> tuple[str, str]:
    """The group and plural that a key of a quota counts; pods for what only pods ask for."""
    if key.startswith("count/"):
        plural, _, group = key[len("count/") :].partition(".")
        return group, plural
    if ".storageclass.storage.k8s.io/" in key or key == "requests.storage":
        return "", "persistentvolumeclaims"
    if key in ("services.loadbalancers", "services.nodeports"):
        return "", "services"
    if key.endswith(_PER_CLASS):
        return _CLAIMS
    return "", key if key in _BARE else "pods"


def usage(group: str, plural: str, obj: Obj) -> Usage:
    """What an object counts for, by the names that quotas use."""
    found = {count_key(group, plural): _ONE}
    if (group, plural) == _CLAIMS:
        return {**found, **_devices(obj)}
    if group:
        return found
    if plural in _BARE and plural != "pods":
        found[plural] = _ONE
    more = _MORE.get(plural)
    if more is not None:
        found.update(more(obj))
    return found


def _service(service: Obj) -> Usage:
    spec = service.get("spec") or {}
    ports, kind = spec.get("ports") or (), spec.get("type")
    found: Usage = {}
    if kind == "NodePort":
        found["services.nodeports"] = Decimal(len(ports))
    elif kind == "LoadBalancer":
        given = spec.get("allocateLoadBalancerNodePorts") is not False
        found["services.loadbalancers"] = _ONE
        found["services.nodeports"] = Decimal(len(ports) if given else sum(bool(row.get("nodePort")) for row in ports))
    return found


def _claim(claim: Obj) -> Usage:
    spec = claim.get("spec") or {}
    asked = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    storage = parse(asked) if asked is not None else Decimal(0)
    found = {"requests.storage": storage}
    name = annotations_of(claim).get("volume.beta.kubernetes.io/storage-class") or spec.get("storageClassName")
    if name:
        found[f"{name}.storageclass.storage.k8s.io/requests.storage"] = storage
        found[f"{name}.storageclass.storage.k8s.io/persistentvolumeclaims"] = _ONE
    return found


def _pod(pod: Obj) -> Usage:
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return {}
    found = {"pods": _ONE}
    for key, amount in pod_total(pod, "requests").items():
        found.update(dict.fromkeys(_request_keys(key), amount))
    for key, amount in pod_total(pod, "limits").items():
        found[f"limits.{key}"] = amount
    return found


def _devices(claim: Obj) -> Usage:
    """The devices of each class that a claim may get; of alternatives the one that takes most."""
    found: Usage = {}
    for request in ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ():
        most: Usage = {}
        for row in request.get("firstAvailable") or [request.get("exactly") or {}]:
            if name := row.get("deviceClassName"):
                every = row.get("allocationMode") == "All"
                key, count = f"{name}{_PER_CLASS}", Decimal(_DEVICES_MAX if every else row.get("count") or 1)
                most[key] = max(most.get(key, Decimal(0)), count)
        _add(found, most)
    return found


def _request_keys(key: str) -> tuple[str, ...]:
    native = "/" not in key or key.startswith("kubernetes.io/")
    return (key, f"requests.{key}") if native else (f"requests.{key}",)


_MORE: Mapping[str, Callable[[Obj], Usage]] = {"services": _service, "persistentvolumeclaims": _claim, "pods": _pod}


def pod_total(pod: Obj, side: str) -> Usage:
    """What a whole pod asks for: its containers and sidecars together, or the greatest step of its start.

    Args:
        side: `requests` or `limits`.
    """
    spec = pod.get("spec") or {}
    total: Usage = {}
    for container in spec.get("containers") or ():
        _add(total, _asked(container, side))
    start: Usage = {}
    sidecars: Usage = {}
    for container in spec.get("initContainers") or ():
        asked = _asked(container, side)
        if container.get("restartPolicy") == "Always":
            _add(total, asked)
            _add(sidecars, asked)
            step = dict(sidecars)
        else:
            step = dict(sidecars)
            _add(step, asked)
        for key, amount in step.items():
            start[key] = max(start.get(key, Decimal(0)), amount)
    for key, amount in start.items():
        total[key] = max(total.get(key, Decimal(0)), amount)
    for key, amount in _asked(spec, side).items():  # of the pod as a whole
        total[key] = amount
    for key, text in (spec.get("overhead") or {}).items():
        if side == "requests" or key in total:
            total[key] = total.get(key, Decimal(0)) + parse(text)
    return total


def _asked(part: Mapping[str, Any], side: str) -> Usage:
    return {key: parse(text) for key, text in ((part.get("resources") or {}).get(side) or {}).items()}


def _add(total: Usage, more: Usage) -> None:
    for key, amount in more.items():
        total[key] = total.get(key, Decimal(0)) + amount


def unspecified(pod: Obj, hard: Iterable[str]) -> str:
    """What a quota obliges containers to ask for and they do not: `cpu for: a,b; memory for: b`; empty for nothing."""
    spec = pod.get("spec") or {}
    whole = _specified(spec)
    missing: dict[str, list[str]] = {}
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        has = _specified(container) | whole
        for key in _OBLIGATORY.intersection(hard):
            if key not in has:
                missing.setdefault(key, []).append(container.get("name", ""))
    return "; ".join(f"{key} for: {','.join(sorted(missing[key]))}" for key in sorted(missing))


def _specified(part: Mapping[str, Any]) -> set[str]:
    resources = part.get("resources") or {}
    keys = {name for key in resources.get("requests") or () for name in _request_keys(key)}
    return keys | {f"limits.{key}" for key in resources.get("limits") or ()}


# ---- scopes


def selects(quota: Obj, group: str, plural: str, obj: Obj) -> bool:
    """Whether an object is within the scopes of a quota; one without scopes means everything."""
    return all(in_scope(row, group, plural, obj) for row in scopes_of(quota))


def scopes_of(quota: Obj) -> list[Obj]:
    """The scopes of a quota as requirements."""
    spec = quota.get("spec") or {}
    rows: list[Obj] = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes") or ()]
    return rows + list((spec.get("scopeSelector") or {}).get("matchExpressions") or ())


def in_scope(row: Mapping[str, Any], group: str, plural: str, obj: Obj) -> bool:
    """Whether an object meets a requirement of a scope."""
    spec, name = obj.get("spec") or {}, row.get("scopeName")
    if (group, plural) == ("", "persistentvolumeclaims") and name == "VolumeAttributesClass":
        return _chosen(row, spec.get("volumeAttributesClassName"))
    if (group, plural) != ("", "pods"):
        return False
    match name:
        case "Terminating":
            return spec.get("activeDeadlineSeconds") is not None
        case "NotTerminating":
            return spec.get("activeDeadlineSeconds") is None
        case "BestEffort":
            return is_best_effort(spec)
        case "NotBestEffort":
            return not is_best_effort(spec)
        case "PriorityClass":
            return _chosen(row, spec.get("priorityClassName"))
        case "CrossNamespacePodAffinity":
            return _crosses_namespaces(spec.get("affinity") or {})
    return False


def _chosen(row: Mapping[str, Any], value: str | None) -> bool:
    requirement = Requirement("scope", row.get("operator", ""), tuple(row.get("values") or ()))
    return requirement.matches({"scope": value} if value else {})


def is_best_effort(spec: Obj) -> bool:
    """Whether a pod of this spec asks for no processor and no memory."""
    parts = (spec, *(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    rows = [(part.get("resources") or {}).get(side) or {} for part in parts for side in ("requests", "limits")]
    return not any(key in ("cpu", "memory") and parse(text) > 0 for row in rows for key, text in row.items())


def _crosses_namespaces(affinity: Obj) -> bool:
    for sort in ("podAffinity", "podAntiAffinity"):
        part = affinity.get(sort) or {}
        terms = list(part.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        weighed = part.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [row.get("podAffinityTerm") or {} for row in weighed]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False


# ---- status


def shown(amounts: Mapping[str, Decimal], hard: Mapping[str, str]) -> dict[str, str]:
    """Amounts as texts, each in the form in which its bound is written."""
    return {key: format_value(amount, form_of(hard[key])) for key, amount in sorted(amounts.items())}
