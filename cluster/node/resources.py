"""What containers and pods ask of a machine: quality of service, cgroup numbers, effective requests.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/,
k8s.io/kubernetes/pkg/kubelet/cm/helpers_linux.go and pkg/kubelet/qos/policy.go
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from steersman.cluster.meta import quantity
from steersman.cluster.meta.objects import Obj
from steersman.cluster.node.values import Resources

CPU_SHARES_MIN = 2
CPU_SHARES_MAX = 262144
CPU_PERIOD_US = 100_000
CPU_QUOTA_MIN_US = 1000

GUARANTEED_OOM_SCORE_ADJ = -997
BEST_EFFORT_OOM_SCORE_ADJ = 1000


def is_sidecar(container: Mapping[str, Any]) -> bool:
    """Whether an init container keeps running beside the main ones (`restartPolicy: Always`)."""
    return container.get("restartPolicy") == "Always"


def requests_of(container: Mapping[str, Any]) -> dict[str, str]:
    """The container's requests; a limit without a request counts as one."""
    resources = container.get("resources") or {}
    return {**(resources.get("limits") or {}), **(resources.get("requests") or {})}


def limits_of(container: Mapping[str, Any]) -> dict[str, str]:
    return dict((container.get("resources") or {}).get("limits") or {})


def qos_class(pod: Mapping[str, Any]) -> str:
    """Returns `Guaranteed`, `Burstable` or `BestEffort`."""
    spec = pod["spec"]
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    if pod_level := spec.get("resources"):
        containers = [{"resources": pod_level}]
    any_set, guaranteed = False, True
    for container in containers:
        limits, requests = limits_of(container), requests_of(container)
        for resource in ("cpu", "memory"):
            limit = quantity.milli(limits.get(resource, 0))
            request = quantity.milli(requests.get(resource, 0))
            any_set = any_set or limit > 0 or request > 0
            guaranteed = guaranteed and limit > 0 and limit == request
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _sum(rows: Iterable[Mapping[str, str]]) -> dict[str, str]:
    total: dict[str, str] = {}
    for row in rows:
        for resource, amount in row.items():
            total[resource] = quantity.add(total[resource], amount) if resource in total else str(amount)
    return total


def _max(left: Mapping[str, str], right: Mapping[str, str]) -> dict[str, str]:
    best = dict(left)
    for resource, amount in right.items():
        if resource not in best or quantity.parse(amount) > quantity.parse(best[resource]):
            best[resource] = amount
    return best


def effective_requests(pod: Mapping[str, Any]) -> dict[str, str]:
    """Returns what the pod needs at its hungriest: mains with sidecars, or an init container with earlier sidecars."""
    spec = pod["spec"]
    sidecars: list[dict[str, str]] = []
    peak: dict[str, str] = {}
    for container in spec.get("initContainers") or ():
        if is_sidecar(container):
            sidecars.append(requests_of(container))
            peak = _max(peak, _sum(sidecars))
        else:
            peak = _max(peak, _sum([*sidecars, requests_of(container)]))
    running = _sum([*sidecars, *(requests_of(row) for row in spec.get("containers") or ())])
    total = _max(peak, running)
    pod_level = spec.get("resources") or {}
    total |= {**(pod_level.get("limits") or {}), **(pod_level.get("requests") or {})}
    return _sum([total, spec.get("overhead") or {}])


def cpu_shares(milli_cpu: int) -> int:
    """Returns cgroup shares of a request: 1024 for one CPU, at least 2."""
    return min(max(milli_cpu * 1024 // 1000, CPU_SHARES_MIN), CPU_SHARES_MAX)


def cpu_quota_us(milli_cpu: int) -> int:
    """Returns µs of CPU time in a period of 100 ms; 0 for no limit."""
    return max(milli_cpu * CPU_PERIOD_US // 1000, CPU_QUOTA_MIN_US) if milli_cpu else 0


def oom_score_adj(pod: Mapping[str, Any], container: Mapping[str, Any], memory_capacity_bytes: int) -> int:
    """Returns how gladly the kernel kills the container: the less it asked for, the sooner."""
    if (pod["spec"].get("priority") or 0) >= 2_000_000_000:
        return GUARANTEED_OOM_SCORE_ADJ
    match qos_class(pod):
        case "Guaranteed":
            return GUARANTEED_OOM_SCORE_ADJ
        case "BestEffort":
            return BEST_EFFORT_OOM_SCORE_ADJ
    request = quantity.whole(requests_of(container).get("memory", 0))
    score = 1000 - (1000 * request) // max(memory_capacity_bytes, 1)
    if score < 1000 + GUARANTEED_OOM_SCORE_ADJ:
        return 1000 + GUARANTEED_OOM_SCORE_ADJ
    return BEST_EFFORT_OOM_SCORE_ADJ - 1 if score == BEST_EFFORT_OOM_SCORE_ADJ else score


def container_resources(pod: Mapping[str, Any], container: Mapping[str, Any], memory_capacity_bytes: int) -> Resources:
    """Returns the cgroup numbers of one container."""
    requests, limits = requests_of(container), limits_of(container)
    return Resources(
        cpu_shares=cpu_shares(quantity.milli(requests.get("cpu", 0))),
        cpu_quota_us=cpu_quota_us(quantity.milli(limits.get("cpu", 0))),
        memory_limit_bytes=quantity.whole(limits.get("memory", 0)),
        memory_request_bytes=quantity.whole(requests.get("memory", 0)),
        oom_score_adj=oom_score_adj(pod, container, memory_capacity_bytes),
    )


def pod_resources(pod: Mapping[str, Any]) -> Resources:
    """Returns the cgroup numbers of the whole pod; a limit stands only when every container has one."""
    spec = pod["spec"]
    containers: list[Obj] = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    requests = effective_requests(pod)
    limits: dict[str, str] = {}
    for resource in ("cpu", "memory"):
        if containers and all(resource in limits_of(row) for row in containers):
            limits[resource] = effective_requests({"spec": _limits_as_requests(spec)}).get(resource, "0")
    limits |= (spec.get("resources") or {}).get("limits") or {}
    return Resources(
        cpu_shares=cpu_shares(quantity.milli(requests.get("cpu", 0))),
        cpu_quota_us=cpu_quota_us(quantity.milli(limits.get("cpu", 0))),
        memory_limit_bytes=quantity.whole(limits.get("memory", 0)),
        memory_request_bytes=quantity.whole(requests.get("memory", 0)),
    )


def _limits_as_requests(spec: Mapping[str, Any]) -> Obj:
    def asked(rows: Iterable[Mapping[str, Any]]) -> list[Obj]:
        return [{**row, "resources": {"requests": limits_of(row)}} for row in rows]

    return {
        "initContainers": asked(spec.get("initContainers") or ()),
        "containers": asked(spec.get("containers") or ()),
        "overhead": spec.get("overhead") or {},
    }
