"""What each role of the topology is made of: configuration in, a component with its report out.

One maker per role; `cluster/topology.py` says which roles there are and where they run.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from steersman.actors import allocator, apifiles
from steersman.actors.client import Client
from steersman.actors.http.client import HttpTransport
from steersman.actors.ports import Component, Now
from steersman.actors.renewed import http_client_context
from steersman.actors.site import Site
from steersman.cluster.store.values import Unavailable
from steersman.cluster.topology import (
    ROLE_AGGREGATION,
    ActorSpec,
    api_endpoints,
    api_port,
    cluster_dns,
    grpc_port,
    grpc_token_port,
    node_port_range,
)

if TYPE_CHECKING:
    from steersman.actors.apiserver.config import ApiServerConfig
    from steersman.actors.nodeagent import NodeAgent
    from steersman.actors.proxy import Proxy
    from steersman.actors.store.settings import ReplicaSettings
    from steersman.cluster.control.spec import ControlSettings

#: makes a client of the API that is known by a certificate, named by its file
Connect = Callable[[str], Client]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a component is: `detail` says why it is not healthy; `reduced` what this machine cannot offer."""

    healthy: bool = True
    detail: str = ""
    addresses: tuple[str, ...] = ()
    reduced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A component, and how to ask it how it is once it has started.

    Args:
        wait_failed: returns why a started component can go on no more; None where its process ends by itself.
    """

    component: Component
    report: Callable[[], Report]
    wait_failed: Callable[[], Awaitable[str]] | None = None


class _InOrder:
    """Several components as one: started in order, stopped in reverse."""

    def __init__(self, *components: Component) -> None:
        self._components = components

    async def start(self) -> None:
        for component in self._components:
            await component.start()

    async def stop(self) -> None:
        for component in reversed(self._components):
            await component.stop()


def over_tls(site: Site, file: str) -> Client:
    """A client of the cluster's API servers that is known by a certificate."""
    tls = http_client_context(site.credentials(file))
    return Client(HttpTransport(api_endpoints(site.config, site.hosts), tls=tls))


def make(spec: ActorSpec, site: Site, *, now: Now, rng: random.Random, connect: Connect | None = None) -> Part:
    """Returns the component of a specification; nothing is opened yet.

    Args:
        connect: how it reaches the API; over TLS when not given.
    """
    return _MAKERS[spec.role](spec, site, connect or partial(over_tls, site), now, rng)


def _store(spec: ActorSpec, site: Site, connect: Connect, now: Now, rng: random.Random) -> Part:
    from steersman.actors.store.service import StoreService
    from steersman.actors.tls import client_context, server_context

    allocator.keep_freed()
    member: int = spec.options["member"]
    peers, names = site.store_peers, {row.id: row.name for row in site.group.members}
    if member not in peers:  # until the keeper has ended it, Ray makes an actor again whose member has left
        raise LookupError(f"{spec.name} is a member of the store no longer")
    credentials = site.credentials("component")
    service = StoreService(
        name=spec.name,
        member_id=member,
        address=peers[member],
        founders=site.store_founders,
        directory=site.store_dir(member),
        server=server_context(credentials),
        client=client_context(credentials),
        names=("steersman",),
        settings=store_settings(site),
        rng=rng,
    )

    def report() -> Report:
        try:
            leader = service.replica.status().leader
        except Unavailable as error:
            return Report(healthy=False, detail=str(error))
        follows = f"follows {names.get(leader, f'{leader:x}')}" if leader else "no leader"
        detail = "leads" if leader == member else follows
        return Report(healthy=bool(leader), detail=detail, addresses=(f"https://{peers[member]}",))

    return Part(service, report, service.wait_failed)


def store_settings(site: Site) -> ReplicaSettings:
    """How each member of a site's store behaves."""
    from steersman.actors.store.settings import ReplicaSettings

    control_plane = site.config.control_plane
    return ReplicaSettings(snapshot_entries=control_plane.snapshot_every, reads=control_plane.reads)


def api_config(site: Site, index: int) -> ApiServerConfig:
    """How API server number `index` of a site is set up."""
    from steersman.actors.apiserver.config import ApiServerConfig

    config, pem = site.config, site.credentials("apiserver")
    return ApiServerConfig(
        host=site.here.address,
        port=api_port(config, index),
        tls_cert=pem.cert.read_bytes(),
        tls_key=pem.key.read_bytes(),
        tls_files=pem,
        client_ca=pem.ca.read_bytes(),
        client_ca_key=(site.pki / "ca.key").read_bytes(),
        service_account_key=(site.pki / "sa.key").read_bytes(),
        proxy_ca=(site.pki / "front-proxy-ca.crt").read_bytes(),
        proxy_cert=(site.pki / "front-proxy-client.crt").read_bytes(),
        proxy_key=(site.pki / "front-proxy-client.key").read_bytes(),
        proxy_files=site.credentials("front-proxy-client"),
        kubernetes_version=config.kubernetes_version,
        cluster_domain=config.networking.cluster_domain,
        service_cidr=config.networking.service_cidr,
        node_port_range=node_port_range(config),
        grpc_port=grpc_port(config, index),
        grpc_token_port=grpc_token_port(config, index),
        requests_in_flight=config.control_plane.requests_in_flight,
        admission_plugins=tuple(config.control_plane.admission_plugins),
        admission_plugins_off=tuple(config.control_plane.admission_plugins_off),
        admission=apifiles.file_of(config.security.admission),
        former_service_account_keys=apifiles.former_keys_of(site),
        authentication=apifiles.file_of(config.security.authentication),
        authorization=apifiles.file_of(config.security.authorization),
        token_webhook=apifiles.file_of(config.security.token_webhook),
        encryption=apifiles.encryption_of(site),
        audit=apifiles.audit_of(site, index),
    )


def _apiserver(spec: ActorSpec, site: Site, connect: Connect, now: Now, rng: random.Random) -> Part:
    from steersman.actors.apiserver.server import ApiServer
    from steersman.actors.rpc.node import GrpcNodeDirectory
    from steersman.actors.store.client import StoreClient
    from steersman.actors.tls import client_context, client_credentials

    allocator.keep_freed()
    settings = api_config(site, spec.options["index"])
    store = StoreClient(list(site.store_peers.values()), client_context(site.credentials("component")))
    server = ApiServer(
        store=store,
        nodes=GrpcNodeDirectory(connect("apiserver"), client_credentials(site.credentials("apiserver"))),
        config=settings,
        now=now,
        rng=rng,
    )
    addresses = (f"https://{settings.host}:{settings.port}", f"grpcs://{settings.host}:{settings.grpc_port}")
    return Part(_InOrder(store, server), lambda: Report(addresses=addresses))


def _scheduler(spec: ActorSpec, site: Site, connect: Connect, now: Now, rng: random.Random) -> Part:
    from steersman.actors.scheduler import Scheduler

    client = connect("scheduler")
    scheduler = Scheduler(client, now=now, rng=rng, identity=spec.name, leader_election=True)
    return Part(scheduler, lambda: Report(healthy=not scheduler.failure, detail=scheduler.failure))


def control_settings(site: Site) -> ControlSettings:
    """What the controllers of a site are told."""
    from steersman.cluster.control.spec import ControlSettings

    return ControlSettings(
        cluster_cidr=site.config.networking.pod_cidr, root_ca=site.credentials("component").ca.read_text()
    )


def _controllers(spec: ActorSpec, site: Site, connect: Connect, now: Now, rng: random.Random) -> Part:
    from steersman.actors.controllers import ControllerHost

    names = spec.options["names"]
    host = ControllerHost(
        connect("clusterroles" if names == [ROLE_AGGREGATION] else "controllers"),
        names,
        now=now,
        rng=rng,
        identity=spec.name,
        leader_election=True,
        settings=control_settings(site),
    )
    return Part(host, lambda: Report(detail="; ".join([*host.bugs, *host.troubles]) or ", ".join(names)))


def _node(spec: ActorSpec, site: Site, connect: Connect, now: Now, rng: random.Random) -> Part:
    from steersman.actors.thisnode import NodeService
    from steersman.actors.tls import server_credentials

    file = f"node-{spec.host}"
    credentials = server_credentials(site.credentials(file))
    administrator = connect("component") if site.here == site.hosts[0] else None
    service = NodeService(connect(file), site, credentials=credentials, now=now, rng=rng, administrator=administrator)

    address = f"grpcs://{site.here.address}:{site.config.ports.node_agent}"
    return Part(service, lambda: node_report(service.agent, service.choice.reasons, address))


def node_report(agent: NodeAgent, reasons: tuple[str, ...], *addresses: str) -> Report:
    """How a node is, and why its machine offers no more than it does."""
    ready, info = agent.is_ready, agent.runtime_info
    return Report(
        healthy=ready and info is not None,
        detail=f"{info.name} ({info.version})" if ready and info else "the node is not ready yet",
        addresses=addresses,
        reduced=(*reasons, *(info.reduced if info else ())),
    )


def proxy_of(site: Site, client: Client, *, now: Now, rng: random.Random) -> Proxy:
    """The proxy of this machine."""
    from steersman.actors.proxy import Proxy

    config, networking = site.config, site.config.networking
    return Proxy(
        client,
        node_name=site.here.name,
        now=now,
        rng=rng,
        mode="userspace" if networking.proxy == "userspace" else "nftables",
        cluster_name=config.name,
        pod_cidr=networking.pod_cidr,
        service_cidr=networking.service_cidr,
        listen_on=site.here.address,
    )


def _proxy(spec: ActorSpec, site: Site, connect: Connect, now: Now, rng: random.Random) -> Part:
    proxy = proxy_of(site, connect("proxy"), now=now, rng=rng)
    return Part(
        proxy,
        lambda: Report(
            healthy=not proxy.failure,
            detail=proxy.failure or proxy.mode,
            reduced=(*proxy.reduced, *proxy.problems),
        ),
    )


def _dns(spec: ActorSpec, site: Site, connect: Connect, now: Now, rng: random.Random) -> Part:
    from steersman.actors.dns import Dns

    address, port = site.here.address, site.config.ports.dns
    dns = Dns(
        connect("dns"),
        node_name=spec.host,
        bind_host=address,
        port=port,
        cluster_domain=site.config.networking.cluster_domain,
        now=now,
        rng=rng,
    )
    return Part(
        dns, lambda: Report(healthy=not dns.failure, detail=dns.failure, addresses=(f"dns://{address}:{port}",))
    )


def _simulated_nodes(spec: ActorSpec, site: Site, connect: Connect, now: Now, rng: random.Random) -> Part:
    from steersman.actors.simulatednodes import SimulatedNodesService

    config = site.config
    service = SimulatedNodesService(
        connect("component"),
        config.simulated_nodes,
        kubernetes_version=config.kubernetes_version,
        cluster_dns=cluster_dns(config),
        now=now,
        rng=rng,
    )
    return Part(service, lambda: Report(detail=f"{config.simulated_nodes.count} nodes"))


def _embedded(spec: ActorSpec, site: Site, connect: Connect, now: Now, rng: random.Random) -> Part:
    from steersman.actors.oneprocess import OneProcess

    whole = OneProcess(site, now=now, rng=rng)
    return Part(whole, whole.report)


_MAKERS: dict[str, Callable[[ActorSpec, Site, Connect, Now, random.Random], Part]] = {
    "store": _store,
    "apiserver": _apiserver,
    "scheduler": _scheduler,
    "controllers": _controllers,
    "node": _node,
    "proxy": _proxy,
    "dns": _dns,
    "simulated-nodes": _simulated_nodes,
    "embedded": _embedded,
}
