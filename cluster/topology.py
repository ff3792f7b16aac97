"""Which components a cluster has, where each runs and on which port it tells how it is: a function of configuration.

Adding a component is one row here and its maker in `actors/parts.py`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from steersman.cluster.placement import StoreGroup, addresses, founding_group

if TYPE_CHECKING:
    from steersman.cluster.config import ClusterConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine of the cluster.

    Args:
        name: of its Node; address: where others reach it; data_dir: absolute path of its state;
        runtime: `oci`, `cri`, `process`, `simulated` or `none`.
    """

    name: str
    address: str
    data_dir: str
    runtime: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorSpec:
    """One component: what it is, where it runs and what makes it differ from others of its role.

    Args:
        name: unique in the cluster, as `controller-deployment`.
        role: `store`, `apiserver`, `scheduler`, `controllers`, `node`, `simulated-nodes`, `proxy`, `dns`, or
            `embedded` for all of them in one process.
        host: name of the machine; status_port: where it answers `steersman.actor.Actor`.
    """

    name: str
    role: str
    host: str
    status_port: int
    options: Mapping[str, Any] = field(default_factory=dict)


def topology(
    config: ClusterConfig, hosts: Sequence[Host], controllers: Sequence[str], group: StoreGroup | None = None
) -> tuple[ActorSpec, ...]:
    """Returns every component of the cluster, those that others wait for first.

    Args:
        config: with its ports resolved.
        hosts: the machines, the head first, where everything is of which there is one.
        controllers: names of all controllers.
        group: the store's members; a new cluster's when not given.
    """
    plane, status = config.control_plane, config.ports.status
    head = hosts[0].name
    if config.embedded:
        return (ActorSpec(name="embedded", role="embedded", host=head, status_port=status),)
    plain: list[tuple[str, str, str, dict[str, Any]]] = []
    for index in range(plane.api_servers):
        plain.append((f"apiserver-{index}", "apiserver", head, {"index": index}))
    plain.append(("scheduler", "scheduler", head, {}))
    if config.simulated_nodes.count:
        plain.append(("simulated-nodes", "simulated-nodes", head, {}))
    for title, names in controller_groups(controllers, plane.controllers).items():
        plain.append((title, "controllers", head, {"names": names}))
    actors = [
        ActorSpec(name=name, role=role, host=host, status_port=status + index, options=options)
        for index, (name, role, host, options) in enumerate(plain)
    ]
    first = next(index for index, actor in enumerate(actors) if actor.role == "scheduler")
    stores = _store_actors(group or founding_group(plane.replicas, head), hosts, status + _STORE_PORTS)
    return (*stores, *actors[:first], *_host_actors(hosts, status + _HOST_PORTS), *actors[first:])


#: the one controller that may hand out rights it has not: it is somebody of its own, and runs by itself
ROLE_AGGREGATION = "clusterrole-aggregation"
ROLE_AGGREGATION_USER = "system:controller:clusterrole-aggregation-controller"


#: controllers that seldom have a thing to do, with the ones beside which they watch little of their own
_SHARED = {
    "endpointslicemirroring": "endpoints", "ipaddress-repair": "endpoints", "service-cidr": "endpoints",
    "replicationcontroller": "replicaset", "statefulset": "daemonset",
}  # fmt: skip
#: controllers that watch the same things and are cheap together: an actor costs 32 MB and a sixth of a second of a core
_FAMILIES = {
    "endpoints": "endpoints",
    "endpointslice": "endpoints",
    "endpointslicemirroring": "endpoints",
    "ipaddress-repair": "endpoints",
    "service-cidr": "endpoints",
    "replicationcontroller": "replicaset",
    "job": "jobs",
    "cronjob": "jobs",
    "ttl-after-finished": "jobs",
    "namespace": "garbage",
    "garbagecollector": "garbage",
    "resourcequota": "garbage",
    "volume-protection": "garbage",
    "podgc": "nodes",
    "nodeipam": "nodes",
    "nodelifecycle": "nodes",
    "serviceaccount": "accounts",
    "root-ca": "accounts",
    "daemonset": "daemons",
    "statefulset": "daemons",
    "disruption": "daemons",
}


def controller_groups(names: Sequence[str], how: str) -> dict[str, list[str]]:
    """Returns actor name to the controllers that share the actor.

    Args:
        names: of all controllers.
        how: `each`, `grouped` or `packed`; the controller with rights of its own is always alone.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        title = f"controller-{_SHARED.get(name, name)}"
        if how == "grouped":
            title = f"controller-{_FAMILIES.get(name, name)}"
        elif how == "packed" and name != ROLE_AGGREGATION:
            title = "controllers"
        groups.setdefault(title, []).append(name)
    return groups


#: how far above the first status port the head's keeper listens, and the ports begin of what runs on every host and of
#: store members, which come and go
_KEEPER_PORT, _HOST_PORTS, _STORE_PORTS = 59, 60, 70
_HOST_ROLES = ("node", "proxy", "dns")


def _store_actors(group: StoreGroup, hosts: Sequence[Host], first_port: int) -> list[ActorSpec]:
    known = {host.name for host in hosts}
    return [
        ActorSpec(
            name=member.name,
            role="store",
            host=member.host,
            status_port=first_port + member.slot,
            options={"member": member.id},
        )
        for member in group.members
        if member.host in known
    ]


def _host_actors(hosts: Sequence[Host], first_port: int) -> list[ActorSpec]:
    return [
        ActorSpec(name=f"{role}-{host.name}", role=role, host=host.name, status_port=first_port + column)
        for host in hosts
        for column, role in enumerate(_HOST_ROLES)
        if host.runtime in ("oci", "cri", "process") or (role == "node" and host.runtime == "simulated")
    ]


def keeper_port(config: ClusterConfig) -> int:
    """Returns the port at which the head's keeper listens."""
    return config.ports.status + _KEEPER_PORT


def store_peers(config: ClusterConfig, hosts: Sequence[Host], group: StoreGroup) -> dict[int, str]:
    """Returns member id to the `address:port` at which that store member serves peers and clients."""
    return addresses(group.members, {host.name: host.address for host in hosts}, config.ports.store)


def api_endpoints(config: ClusterConfig, hosts: Sequence[Host]) -> tuple[str, ...]:
    """Returns the URL of each API server, in order; the second one listens one port above the first, and so on."""
    return tuple(
        f"https://{hosts[0].address}:{api_port(config, index)}" for index in range(config.control_plane.api_servers)
    )


def api_port(config: ClusterConfig, index: int) -> int:
    """Returns the REST port of API server `index`: the configured one, then ports counted from base + 60."""
    return config.ports.api if index == 0 else config.ports.base + 60 + index


def grpc_port(config: ClusterConfig, index: int) -> int:
    """Returns the gRPC port of API server `index`: the configured one, then ports counted from base + 70."""
    return config.ports.grpc if index == 0 else config.ports.base + 70 + index


def grpc_token_port(config: ClusterConfig, index: int) -> int:
    """Returns API server `index`'s gRPC port for bearer tokens: the configured one, then counted from base + 80."""
    return config.ports.grpc_token if index == 0 else config.ports.base + 80 + index


def cluster_dns(config: ClusterConfig) -> str:
    """Returns the address of the cluster's DNS Service: the tenth of the Service range."""
    return str(ipaddress.ip_network(config.networking.service_cidr)[10])


def node_port_range(config: ClusterConfig) -> tuple[int, int]:
    """Returns the first and the last NodePort."""
    first, _, last = config.networking.node_ports.partition("-")
    return int(first), int(last)
