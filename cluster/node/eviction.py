"""Which pod has to go when the machine runs short of memory.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from steersman.cluster.meta import quantity
from steersman.cluster.meta.objects import Obj
from steersman.cluster.node.observed import Refusal
from steersman.cluster.node.resources import effective_requests, requests_of

#: pods of this priority and above (system-cluster-critical) are never evicted
CRITICAL_PRIORITY = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """What the machine has left; None where nobody measures it.

    Args:
        pids_available, disk_available_percent: below 1,000 and 10 the node says PIDPressure and DiskPressure.
    """

    memory_available_bytes: int | None = None
    disk_available_percent: float | None = None
    pids_available: int | None = None


def victim(pods: Iterable[Obj], usage: Mapping[str, Mapping[str, int]]) -> Obj | None:
    """Returns the pod to evict: over its request first, then the lowest priority, then the most over.

    Args:
        usage: pod uid to working-set bytes by container.
    """
    ranked = []
    for pod in pods:
        used = sum(usage.get(pod["metadata"]["uid"], {}).values())
        priority = int(pod["spec"].get("priority") or 0)
        if used == 0 or priority >= CRITICAL_PRIORITY:
            continue
        over = used - quantity.whole(effective_requests(pod).get("memory", 0))
        ranked.append(((over <= 0, priority, -over, pod["metadata"]["uid"]), pod))
    return min(ranked, key=lambda row: row[0])[1] if ranked else None


def eviction(pod: Mapping[str, Any], used: Mapping[str, int], available_bytes: int, minimum_bytes: int) -> Refusal:
    """Returns the refusal of an evicted pod, with the kubelet's words.

    Args:
        used: working-set bytes by container.
    """
    message = (
        "The node was low on resource: memory. "
        f"Threshold quantity: {quantity.format_value(minimum_bytes, 'BinarySI')}, "
        f"available: {available_bytes // 1024}Ki. "
    )
    for container in pod["spec"].get("containers") or ():
        bytes_used = used.get(container["name"], 0)
        request = requests_of(container).get("memory", "0")
        if bytes_used > quantity.whole(request):
            message += (
                f"Container {container['name']} was using {bytes_used // 1024}Ki, request is {request}, "
                "has larger consumption of memory. "
            )
    condition: Obj = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "TerminationByKubelet",
        "message": message,
    }
    return Refusal(reason="Evicted", message=message, grace_s=0.0, condition=condition)
