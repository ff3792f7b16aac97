"""Which endpoints each port of each service leads to, seen from one node.

Source: https://kubernetes.io/docs/reference/networking/virtual-ips/ and KEP-1669 (terminating endpoints)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from steersman.cluster.meta.objects import Obj, labels_of

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
ZONE_LABEL = "topology.kubernetes.io/zone"
#: a service with this label is another proxy's business
PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
DEFAULT_AFFINITY_S = 10800


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """Args: local: whether it runs on this node."""

    ip: str
    port: int
    local: bool = False

    def __str__(self) -> str:
        return f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    """One port of a service and where its traffic goes.

    Args:
        protocol: `TCP`, `UDP` or `SCTP`.
        node_port: 0 for none; external_ips: other addresses that lead here, load balancers' with them.
        affinity_s: how long a client stays with its endpoint; 0 for no affinity.
        source_ranges: only these clients may use the load balancer's addresses; empty for everyone.
        cluster: endpoints for traffic from inside; local: endpoints on this node for `Local` policies.
        internal_local, external_local: the traffic policies.
    """

    namespace: str
    name: str
    port_name: str
    protocol: str
    cluster_ip: str
    port: int
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    affinity_s: int = 0
    cluster: tuple[Backend, ...] = ()
    local: tuple[Backend, ...] = ()
    internal_local: bool = False
    external_local: bool = False

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}/{self.protocol.lower()}/{self.port}"

    @property
    def internal(self) -> tuple[Backend, ...]:
        """Where traffic to the cluster IP goes."""
        return self.local if self.internal_local else self.cluster

    @property
    def external(self) -> tuple[Backend, ...]:
        """Where traffic from outside to a node port or external address goes."""
        return self.local if self.external_local else self.cluster


@dataclass(frozen=True, slots=True)
class _Endpoint:
    backend: Backend
    ready: bool
    serving: bool
    for_nodes: tuple[str, ...]
    for_zones: tuple[str, ...]


def is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def service_ports(
    services: Iterable[Obj], slices_of: Mapping[str, Iterable[Obj]], node: str, zone: str = ""
) -> list[ServicePort]:
    """Compiles every service that has a cluster IP.

    Args:
        slices_of: `namespace/name` of a service to its EndpointSlices.
        node: the node whose view is wanted; zone: its topology zone.

    Returns:
        the ports, in the order of the services given.
    """
    found = []
    for service in services:
        meta = service["metadata"]
        found += ports_of_service(service, slices_of.get(f"{meta['namespace']}/{meta['name']}", ()), node, zone)
    return found


def ports_of_service(service: Obj, slices: Iterable[Obj], node: str, zone: str = "") -> list[ServicePort]:
    """Compiles one service; none of its ports when it has no IPv4 cluster IP or another proxy serves it."""
    meta, spec = service["metadata"], service.get("spec") or {}
    cluster_ip = spec.get("clusterIP") or ""
    if spec.get("type") == "ExternalName" or not is_ipv4(cluster_ip) or PROXY_NAME_LABEL in labels_of(service):
        return []
    ipv4 = [row for row in slices if row.get("addressType") == "IPv4"]
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    has_node_port = spec.get("type") in ("NodePort", "LoadBalancer")
    found = []
    for port in spec.get("ports") or ():
        protocol = port.get("protocol") or "TCP"
        cluster, local = _choose(list(_endpoints(ipv4, port.get("name") or "", protocol, node)), node, zone)
        found.append(
            ServicePort(
                namespace=meta["namespace"],
                name=meta["name"],
                port_name=port.get("name") or "",
                protocol=protocol,
                cluster_ip=cluster_ip,
                port=int(port["port"]),
                node_port=int(port.get("nodePort") or 0) if has_node_port else 0,
                external_ips=tuple(sorted(ip for ip in spec.get("externalIPs") or () if is_ipv4(ip))),
                load_balancer_ips=tuple(sorted(row["ip"] for row in ingress if is_ipv4(row.get("ip") or ""))),
                source_ranges=tuple(sorted(r for r in spec.get("loadBalancerSourceRanges") or () if ":" not in r)),
                affinity_s=_affinity_s(spec),
                cluster=cluster,
                local=local,
                internal_local=spec.get("internalTrafficPolicy") == "Local",
                external_local=has_node_port and spec.get("externalTrafficPolicy") == "Local",
            )
        )
    return found


def _affinity_s(spec: Obj) -> int:
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    return int(config.get("timeoutSeconds") or DEFAULT_AFFINITY_S)


def _endpoints(slices: Iterable[Obj], port_name: str, protocol: str, node: str) -> Iterable[_Endpoint]:
    for row in slices:
        ports = [
            port.get("port")
            for port in row.get("ports") or ()
            if (port.get("name") or "") == port_name and (port.get("protocol") or "TCP") == protocol
        ]
        for endpoint in row.get("endpoints") or ():
            state, hints = endpoint.get("conditions") or {}, endpoint.get("hints") or {}
            ready = state.get("ready") is not False
            serving = ready if state.get("serving") is None else bool(state["serving"])
            for port in ports:
                if port and endpoint.get("addresses"):
                    yield _Endpoint(
                        Backend(endpoint["addresses"][0], int(port), endpoint.get("nodeName") == node),
                        ready=ready and not state.get("terminating"),
                        serving=serving,
                        for_nodes=tuple(hint["name"] for hint in hints.get("forNodes") or ()),
                        for_zones=tuple(hint["name"] for hint in hints.get("forZones") or ()),
                    )


def _choose(endpoints: list[_Endpoint], node: str, zone: str) -> tuple[tuple[Backend, ...], tuple[Backend, ...]]:
    """Returns (endpoints for the whole cluster, endpoints on this node): ready ones, else those that still serve."""
    cluster = [e for e in endpoints if e.ready] or [e for e in endpoints if e.serving]
    here = [e for e in endpoints if e.backend.local]
    local = [e for e in here if e.ready] or [e for e in here if e.serving]
    return _backends(_hinted(cluster, node, zone)), _backends(local)


def _hinted(endpoints: list[_Endpoint], node: str, zone: str) -> list[_Endpoint]:
    """Those meant for this node or zone, where every endpoint has hints and some is meant for it; else all."""
    if endpoints and all(e.for_nodes for e in endpoints):
        return [e for e in endpoints if node in e.for_nodes] or endpoints
    if endpoints and zone and all(e.for_zones for e in endpoints):
        return [e for e in endpoints if zone in e.for_zones] or endpoints
    return endpoints


def _backends(endpoints: list[_Endpoint]) -> tuple[Backend, ...]:
    return tuple(sorted({e.backend for e in endpoints}))
