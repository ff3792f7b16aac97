"""The Node and its Lease as the agent writes them: labels, capacity, conditions, images.

Source: https://kubernetes.io/docs/reference/node/node-status/ and k8s.io/kubernetes/pkg/kubelet/nodestatus/setters.go
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from steersman.cluster.meta import quantity
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.times import format_micro_time, format_time
from steersman.cluster.node.config import LEASE_NAMESPACE, NodeConfig
from steersman.cluster.node.eviction import Pressure
from steersman.cluster.node.values import Image, RuntimeInfo

IMAGES_MAX = 50
NAMES_PER_IMAGE_MAX = 5
DISK_AVAILABLE_PERCENT_MIN = 10.0
PIDS_AVAILABLE_MIN = 1000


def node_object(config: NodeConfig, info: RuntimeInfo) -> Obj:
    """Returns the Node to create at registration, without status."""
    spec: Obj = {}
    if config.taints:
        spec["taints"] = [dict(taint) for taint in config.taints]
    if config.provider_id:
        spec["providerID"] = config.provider_id
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": config.name, "labels": node_labels(config, info), "annotations": dict(config.annotations)},
        "spec": spec,
    }


def node_labels(config: NodeConfig, info: RuntimeInfo) -> dict[str, str]:
    """The well-known labels, what the runtime is, and the configured ones over them."""
    system = config.node_info.get("operatingSystem", "linux")
    machine = config.node_info.get("architecture", "amd64")
    return {
        "kubernetes.io/hostname": config.name,
        "kubernetes.io/os": system,
        "kubernetes.io/arch": machine,
        "beta.kubernetes.io/os": system,
        "beta.kubernetes.io/arch": machine,
        "steersman/runtime": info.name,
        **config.labels,
    }


def node_status(
    config: NodeConfig,
    info: RuntimeInfo,
    images: Iterable[Image],
    pressure: Pressure,
    now: float,
    *,
    ready: bool,
    message: str,
    before: Mapping[str, Any],
) -> Obj:
    """Returns the status the agent writes.

    Args:
        ready: whether pods can be run here; message: why or why not.
        before: the status as it was, for the times of conditions.
    """
    return {
        "addresses": [
            {"type": "InternalIP", "address": config.address},
            {"type": "Hostname", "address": config.hostname or config.name},
        ],
        "capacity": _extended(before, "capacity")
        | {name: quantity.canonical(amount) for name, amount in config.capacity.items()},
        "allocatable": _extended(before, "allocatable") | config.allocatable(),
        "conditions": _conditions(config, pressure, now, ready=ready, message=message, before=before),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.port}},
        "images": _images(images),
        "nodeInfo": {
            "machineID": "",
            "systemUUID": "",
            "bootID": "",
            "kernelVersion": "",
            "osImage": "",
            "operatingSystem": "linux",
            "architecture": "amd64",
            **config.node_info,
            "containerRuntimeVersion": f"{info.name}://{info.version}",
            "kubeletVersion": config.kubelet_version,
            "kubeProxyVersion": "",
        },
    }


def _extended(before: Mapping[str, Any], part: str) -> dict[str, str]:
    """The resources that others say the node has, as `example.com/dongle`."""
    return {name: amount for name, amount in (before.get(part) or {}).items() if "/" in name}


def _images(images: Iterable[Image]) -> list[Obj]:
    ordered = sorted(images, key=lambda image: (-image.size_bytes, image.id))[:IMAGES_MAX]
    return [
        {"names": list(image.names[:NAMES_PER_IMAGE_MAX]), "sizeBytes": image.size_bytes}
        for image in ordered
        if image.names
    ]


def _conditions(
    config: NodeConfig, pressure: Pressure, now: float, *, ready: bool, message: str, before: Mapping[str, Any]
) -> list[Obj]:
    memory = pressure.memory_available_bytes
    disk, pids = pressure.disk_available_percent, pressure.pids_available
    rows = [
        _pressure("MemoryPressure", memory is not None and memory < config.memory_available_bytes_min),
        _pressure("DiskPressure", disk is not None and disk < DISK_AVAILABLE_PERCENT_MIN),
        _pressure("PIDPressure", pids is not None and pids < PIDS_AVAILABLE_MIN),
        {
            "type": "Ready",
            "status": "True" if ready else "False",
            "reason": "KubeletReady" if ready else "KubeletNotReady",
            "message": message,
        },
    ]
    old = {row["type"]: row for row in before.get("conditions") or ()}
    for row in rows:
        known = old.get(row["type"])
        same = known is not None and known.get("status") == row["status"]
        row["lastHeartbeatTime"] = format_time(now)
        row["lastTransitionTime"] = known["lastTransitionTime"] if same and known is not None else format_time(now)
    return rows


#: condition type to what (its reason, its message) say when pressed, and when not
_PRESSURES = {
    "MemoryPressure": (
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ),
    "DiskPressure": (
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ),
    "PIDPressure": (
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ),
}


def _pressure(kind: str, pressed: bool) -> Obj:
    reason, message = _PRESSURES[kind][0 if pressed else 1]
    return {"type": kind, "status": "True" if pressed else "False", "reason": reason, "message": message}


def is_same_status(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether nothing but the time of day differs between two statuses."""
    return all(_timeless(old.get(field), field) == _timeless(value, field) for field, value in new.items())


def _timeless(value: Any, field: str) -> Any:
    if field != "conditions":
        return value
    return {row["type"]: (row.get("status"), row.get("reason"), row.get("message")) for row in value or ()}


def lease_object(config: NodeConfig, node_uid: str, now: float) -> Obj:
    """Returns the node's Lease, renewed now."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": config.name,
            "namespace": LEASE_NAMESPACE,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": config.name, "uid": node_uid}],
        },
        "spec": {
            "holderIdentity": config.name,
            "leaseDurationSeconds": config.lease_duration_s,
            "renewTime": format_micro_time(now),
        },
    }
