"""What a node agent is told about its machine and its cluster.

Source: https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from steersman.cluster.meta import quantity
from steersman.cluster.node.values import DnsConfig

#: the annotations that steer simulated containers
SIMULATION_PREFIX = "simulated.steersman/"
#: leases of nodes live here
LEASE_NAMESPACE = "kube-node-lease"
#: what a node offers when nothing else is known about its number of pods
PODS_MAX = "110"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """One node.

    Args:
        name: of the Node object.
        address: the node's InternalIP.
        labels: beside the well-known ones (host name, os, arch).
        taints: rows `{"key", "value", "effect"}` set when the Node is created.
        capacity: quantities by resource name (`cpu`, `memory`, `ephemeral-storage`, `pods`, extended ones).
        reserved: quantities kept from pods; allocatable is capacity less these.
        cluster_dns: servers written into the resolv.conf of pods with `dnsPolicy: ClusterFirst`.
        host_dns: the machine's own resolv.conf.
        port: where the agent serves its streams; told in `status.daemonEndpoints`.
        node_info: rows of `status.nodeInfo` (machineID, kernelVersion, osImage, architecture, ...).
        lease_duration_s: after it without renewal the node counts as lost; renewed every `heartbeat_s`.
        status_interval_s: how often an unchanged node status is written.
        relist_s: how often the runtime is asked for everything, whatever it announced.
        refresh_s: how often mounted configuration is compared with the API.
        memory_available_bytes_min: below it the node evicts (`memory.available` of the kubelet).
        wait_for_pod_cidr: whether sandboxes wait until `spec.podCIDR` is set.
    """

    name: str
    address: str
    hostname: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, Any], ...] = ()
    capacity: Mapping[str, str] = field(default_factory=lambda: {"cpu": "1", "memory": "1Gi", "pods": PODS_MAX})
    reserved: Mapping[str, str] = field(default_factory=dict)
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    host_dns: DnsConfig = field(default_factory=DnsConfig)
    port: int = 0
    provider_id: str = ""
    node_info: Mapping[str, str] = field(default_factory=dict)
    kubelet_version: str = "v1.36.0"
    lease_duration_s: int = 40
    heartbeat_s: float = 10.0
    status_interval_s: float = 300.0
    relist_s: float = 10.0
    refresh_s: float = 60.0
    memory_available_bytes_min: int = 100 << 20
    wait_for_pod_cidr: bool = True

    def allocatable(self) -> dict[str, str]:
        """What pods may ask for in all: capacity less what is reserved, never below nothing."""
        rows = {}
        for resource, amount in self.capacity.items():
            kept = self.reserved.get(resource)
            left = quantity.subtract(amount, kept) if kept else quantity.canonical(amount)
            rows[resource] = left if quantity.parse(left) > Decimal(0) else "0"
        return rows
