"""Which addresses Services may have, and the objects that say who has one.

An address belongs to a ServiceCIDR when it lies in one of its ranges and is neither the range's first address nor, in
IPv4, its last one.

Source: k8s.io/kubernetes/pkg/api/servicecidr/servicecidr.go and pkg/registry/core/service/ipallocator
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from steersman.cluster.meta.objects import Obj, is_deleting, labels_of
from steersman.cluster.meta.resources import IP_ADDRESSES

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: the ServiceCIDR of the range that the cluster was made with
DEFAULT_RANGE = "kubernetes"
FAMILY, MANAGED_BY = "ipaddress.kubernetes.io/ip-family", "ipaddress.kubernetes.io/managed-by"
ALLOCATOR = "ipallocator.k8s.io"


def ranges_of(service_cidr: Mapping[str, Any]) -> list[Network]:
    """The ranges of a ServiceCIDR."""
    return [ip_network(text) for text in (service_cidr.get("spec") or {}).get("cidrs") or ()]


def holds(network: Network, address: Address) -> bool:
    """Whether a Service may have an address of a range."""
    if address.version != network.version or address not in network or address == network.network_address:
        return False
    return address.version == 6 or address != network.broadcast_address


def holders(service_cidrs: Iterable[Obj], address: Address) -> list[Obj]:
    """The ServiceCIDRs that an address belongs to."""
    return [row for row in service_cidrs if any(holds(network, address) for network in ranges_of(row))]


def is_ready(service_cidr: Mapping[str, Any]) -> bool:
    """Whether addresses may be taken from a ServiceCIDR; one of which nobody has said anything is ready."""
    rows = (service_cidr.get("status") or {}).get("conditions") or ()
    state = next((row.get("status") for row in rows if row.get("type") == "Ready"), "True")
    return state == "True" and not is_deleting(service_cidr)


def family(address: Address) -> str:
    return f"IPv{address.version}"


def labels(address: Address) -> dict[str, str]:
    """The labels of an IPAddress that a Service has."""
    return {FAMILY: family(address), MANAGED_BY: ALLOCATOR}


def is_managed(obj: Mapping[str, Any]) -> bool:
    """Whether an IPAddress was made for a Service."""
    return labels_of(obj).get(MANAGED_BY) == ALLOCATOR


def parent(service: Mapping[str, Any]) -> Obj:
    """What an IPAddress calls the Service that has it."""
    meta = service["metadata"]
    return {"group": "", "resource": "services", "namespace": meta["namespace"], "name": meta["name"]}


def ip_object(service: Mapping[str, Any], text: str) -> Obj:
    """The IPAddress of a Service's address."""
    return {
        "apiVersion": IP_ADDRESSES.api_version,
        "kind": IP_ADDRESSES.kind,
        "metadata": {"name": text, "labels": labels(ip_address(text))},
        "spec": {"parentRef": parent(service)},
    }
