"""What surrounds the actors of one machine: data directory, ports, certificates, kubeconfig; `takedown` undoes it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import json
import os
import re
import secrets
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from steersman.actors import apifiles, kubeconfig, launching, ranges, roster
from steersman.actors.site import Site, machines_of, machines_tree
from steersman.cluster.config import ClusterConfig, ConfigError, Networking, Node, parse, render
from steersman.cluster.control import CONTROLLERS
from steersman.cluster.topology import (
    ROLE_AGGREGATION_USER,
    ActorSpec,
    Host,
    api_endpoints,
    grpc_port,
    grpc_token_port,
    keeper_port,
    topology,
)
from steersman.runtime.detect import why_not_oci
from steersman.runtime.pki import FRONT_PROXY, FRONT_PROXY_CA, Authority, Identity
from steersman.runtime.ray_processes import RayHost, ray_ip

#: the layout of the data directory; a directory with a higher number was written by a newer version
LAYOUT_VERSION = 1
#: how long the ports of killed processes may stay taken
_PORTS_FREED_S = 5.0


_FOREIGN = "the cluster in {} was started by another version of Steersman, which has to stop it"


class BringUpFailed(Exception):
    """The cluster cannot be brought up or taken down; the message is for the user, `log` says more."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


def data_dir_of(config: ClusterConfig) -> Path:
    """The absolute data directory of a configuration."""
    chosen = config.data_dir or os.environ.get("STEERSMAN_DATA_DIR") or f"~/.steersman/{config.name}"
    return Path(chosen).expanduser().absolute()


def prepare(config: ClusterConfig) -> Site:
    """Makes the data directory, or checks that this version can read what is in it.

    Raises:
        BringUpFailed: the directory cannot be written, or is of a newer version.
    """
    data_dir = data_dir_of(config)
    _make_data_dir(data_dir)
    runtime = _runtime_of(config.node, data_dir)
    address = config.host
    if config.head and address == ClusterConfig().host:
        address = address_towards("192.0.2.1")
    config = config.model_copy(
        update={
            "data_dir": str(data_dir),
            "host": address,
            "ports": config.ports.resolved(),
            "networking": _networking(config.networking, runtime, data_dir),
            "security": apifiles.resolved(config.security),
        }
    )
    here = Host(name=config.node.name or node_name(), address=address, data_dir=str(data_dir), runtime=runtime)
    try:
        hosts, group, _ = roster.read(data_dir)
    except ValueError as error:
        raise BringUpFailed(str(error)) from error
    if group is None:
        return Site(config, (here,), here)
    if hosts[0].name != here.name:
        if len(hosts) > 1:
            raise BringUpFailed(
                f"this machine was called {hosts[0].name} when others joined it, and is called {here.name} now: give it"
                " its name again"
            )
        group = replace(group, members=tuple(replace(member, host=here.name) for member in group.members))
    return Site(config, (here, *hosts[1:]), here, group)


def prepare_joining(config: ClusterConfig, head: Host, towards: str) -> Site:
    """Prepares this machine for a cluster that lives elsewhere.

    Args:
        config: of the cluster, with this machine's own data directory, node and address; address 127.0.0.1 is none.
        towards: an address in the network of the cluster.

    Raises:
        BringUpFailed: as for `prepare`; or this machine cannot be a node of that cluster.
    """
    data_dir = data_dir_of(config)
    _make_data_dir(data_dir)
    runtime = _runtime_of(config.node, data_dir)
    if runtime in ("oci", "process") and (runtime == "process") != (config.networking.mode == "loopback"):
        raise BringUpFailed(
            f"the cluster's pods have {'loopback addresses' if runtime == 'oci' else 'network namespaces'}, which the"
            f" runtime {runtime} of this machine cannot give them: choose another --runtime"
        )
    address = config.host if config.host != ClusterConfig().host else address_towards(towards)
    name = config.node.name or node_name()
    if name == head.name:
        raise BringUpFailed(f"the head is called {name} too: choose another --node-name")
    here = Host(name=name, address=address, data_dir=str(data_dir), runtime=runtime)
    return Site(config.model_copy(update={"data_dir": str(data_dir), "host": head.address}), (head, here), here)


def address_towards(other: str) -> str:
    """This machine's address in the network that leads to another; loopback where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((other, 9))
        except OSError:
            return ClusterConfig().host
        return str(probe.getsockname()[0])


def _runtime_of(node: Node, data_dir: Path) -> str:
    if node.runtime != "auto":
        return node.runtime
    return "process" if why_not_oci(data_dir / "node", node.engine or None) else "oci"


def _make_data_dir(data_dir: Path) -> None:
    try:
        for directory in (data_dir, data_dir / "logs", data_dir / "run"):
            directory.mkdir(parents=True, exist_ok=True)
        data_dir.chmod(0o700)
        version = data_dir / "VERSION"
        if version.exists():
            found = int(version.read_text())
            if found > LAYOUT_VERSION:
                raise BringUpFailed(
                    f"{data_dir} was written by a newer Steersman (layout {found}; this one reads up to"
                    f" {LAYOUT_VERSION}): upgrade Steersman, or choose another --data-dir"
                )
        else:
            version.write_text(f"{LAYOUT_VERSION}\n")
    except (OSError, ValueError) as error:
        raise BringUpFailed(f"data directory {data_dir} cannot be used: {error}") from error


def _networking(chosen: Networking, runtime: str, data_dir: Path) -> Networking:
    """The network that the runtime allows: without network namespaces pods and Services live on loopback addresses."""
    mode = chosen.mode
    if mode == "auto":
        mode = "loopback" if runtime == "process" else "bridge"
    update: dict[str, Any] = {"mode": mode}
    if chosen.proxy == "auto":
        update["proxy"] = "userspace" if mode == "loopback" else "nftables"
    fresh, former = Networking(), _former_ranges(data_dir)
    wanted = ranges.Ranges(chosen.pod_cidr, chosen.service_cidr)
    if former is not None and has_keeper(data_dir):
        # it runs, and holds its ranges itself
        update |= {"pod_cidr": former.pods, "service_cidr": former.services}
    elif wanted in (ranges.Ranges(fresh.pod_cidr, fresh.service_cidr), former):
        try:
            taken = ranges.take(mode, former)
        except ranges.NoRange as error:
            raise BringUpFailed(str(error)) from error
        update |= {"pod_cidr": taken.pods, "service_cidr": taken.services}
    return chosen.model_copy(update=update)


def _former_ranges(data_dir: Path) -> ranges.Ranges | None:
    """The ranges that an earlier `up` chose for this data directory: its Nodes and Services have addresses of them."""
    try:
        before = parse((data_dir / "config.yaml").read_text()).networking
    except (OSError, ConfigError):
        return None
    return ranges.Ranges(before.pod_cidr, before.service_cidr)


def node_name() -> str:
    """This machine's host name, as a Node may be called."""
    name = re.sub(r"[^a-z0-9.-]", "-", socket.gethostname().lower()).strip("-.")
    return name or "localhost"


def has_keeper(data_dir: Path) -> bool:
    """Whether a keeper runs the cluster of a data directory."""
    file = _locked(data_dir / "run")
    if file is not None:
        file.close()
    return file is None


def _locked(run: Path) -> IO[str] | None:
    file = (run / "keeper.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def lock(site: Site) -> IO[str] | None:
    """Takes the data directory for this process; None when another keeper has it."""
    file = _locked(site.run)
    if file is None:
        return None
    (site.run / "keeper.pid").write_text(f"{os.getpid()}\n")
    return file


def keeper_pid(site: Site) -> int:
    try:
        return int((site.run / "keeper.pid").read_text())
    except (OSError, ValueError):
        return 0


def note_state(site: Site, state: str) -> None:
    """Writes what the cluster is doing: `starting`, `ready`, `recovering` or `failed`."""
    path = site.run / "state"
    if not path.exists() or path.read_text() != state:
        temporary = path.with_suffix(".new")
        temporary.write_text(state)
        temporary.replace(path)


def state(site: Site) -> str:
    with contextlib.suppress(OSError):
        return (site.run / "state").read_text()
    return "unknown"


def last_failure(site: Site, actor: str) -> str:
    """The last recorded reason of an actor that does not answer."""
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads((site.run / "actors" / f"{actor}.json").read_text()).get("reason", "it does not answer"))
    return "its process did not start"


def ray_host(site: Site) -> RayHost:
    """How Ray runs on this machine; its token is made at first use."""
    token = site.run / "ray.token"
    if not token.exists():
        token.touch(0o600)
        token.write_text(secrets.token_hex(32))
    head = site.hosts[0]
    return RayHost(
        name=site.here.name,
        head=site.here == head,
        ip=site.here.address,
        port=site.config.ports.ray,
        address=site.config.ray.address or f"{ray_ip(head.address)}:{site.config.ports.ray}",
        token=token.read_text(),
        data_dir=site.data_dir,
        object_store_memory_bytes=site.config.ray.object_store_memory_bytes,
        foreign=bool(site.config.ray.address),
    )


async def claim(site: Site) -> None:
    """Ends what an earlier run left, checks the ports, and writes certificates, kubeconfig and the site's description.

    Raises:
        BringUpFailed: a port is taken by somebody else; a file of `security` cannot be used; or Ray does not
            answer, where somebody else is to run it.
    """
    if site.config.ray.address:
        await _end_foreign_actors(site)
    # the kernel may close what a killed process had open some time after its end
    patience_s = _PORTS_FREED_S if await ray_host(site).end_leftovers() or site.config.ray.address else 0.0
    await _wait_for_ports(site, patience_s)
    shutil.rmtree(site.run / "actors", ignore_errors=True)
    issue_certificates(site)
    try:
        apifiles.ensure(site)
    except apifiles.Unusable as error:
        raise BringUpFailed(str(error)) from error
    write_kubeconfig(site)
    (site.data_dir / "config.yaml").write_text(render(site.config))
    write_site(site)
    if site.recorded is None:
        roster.write(site)


def write_site(site: Site) -> None:
    """Leaves the site's description for the commands that come later."""
    machines = machines_tree(site.hosts, site.recorded)
    tree = {"config": site.config.model_dump(), "machines": machines, "here": site.here.name}
    temporary = site.run / "site.json.new"
    temporary.write_text(json.dumps(tree))
    temporary.replace(site.run / "site.json")


def read_site(data_dir: Path) -> Site:
    """Returns the description that the last `up` left in a data directory.

    Raises:
        BringUpFailed: no cluster was ever brought up there, or by a version that this one does not understand.
    """
    try:
        tree = json.loads((data_dir / "run" / "site.json").read_text())
    except OSError as error:
        raise BringUpFailed(f"no cluster in {data_dir}: start one with `steer up`") from error
    try:
        hosts, group = machines_of(tree["machines"])
    except (LookupError, TypeError) as error:
        raise BringUpFailed(_FOREIGN.format(data_dir)) from error
    here = next(host for host in hosts if host.name == tree["here"])
    return Site(_recorded(tree["config"], data_dir), hosts, here, group)


def store_members(config: ClusterConfig) -> dict[int, tuple[str, str, Path]]:
    """The store members on this machine of a cluster that is down: id to name, address and data directory.

    Args:
        config: as its last `up` left it, or of a cluster that never was up.

    Raises:
        BringUpFailed: the cluster runs, or its directory cannot be used.
    """
    data_dir = data_dir_of(config)
    _make_data_dir(data_dir)
    if has_keeper(data_dir):
        raise BringUpFailed(f"the cluster in {data_dir} runs: stop it with `steer down` first")
    config = config.model_copy(update={"ports": config.ports.resolved()})
    here = Host(name=config.node.name or node_name(), address=config.host, data_dir=str(data_dir), runtime="none")
    site = Site(config, (here,), here)
    return {
        member: (f"store-{member - 1}", address, site.store_dir(member)) for member, address in site.store_peers.items()
    }


def _recorded(tree: dict[str, Any], data_dir: Path) -> ClusterConfig:
    """The configuration that an `up` left, of which another version may have had fields that this one has not."""
    try:
        return ClusterConfig.model_validate(tree)
    except ValidationError as mistakes:
        foreign = [row["loc"] for row in mistakes.errors() if row["type"] == "extra_forbidden"]
        if len(foreign) < mistakes.error_count():
            raise BringUpFailed(_FOREIGN.format(data_dir)) from mistakes
    for *parents, field in foreign:
        below: Any = tree
        for part in parents:
            below = below[part]
        del below[field]
    return ClusterConfig.model_validate(tree)


def actors_of(site: Site) -> tuple[ActorSpec, ...]:
    return topology(site.config, site.hosts, sorted(CONTROLLERS), site.group)


def actors_here(site: Site) -> tuple[ActorSpec, ...]:
    """The actors of this machine."""
    return tuple(spec for spec in actors_of(site) if spec.host == site.here.name)


async def _wait_for_ports(site: Site, patience_s: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + patience_s
    while True:
        try:
            return _check_ports(site)
        except BringUpFailed:
            if loop.time() >= end:
                raise
            await asyncio.sleep(0.05)


def _check_ports(site: Site) -> None:
    ports = site.config.ports
    wanted = {}
    if site.here == site.hosts[0]:
        wanted = {"api": ports.api, "grpc": ports.grpc, "grpc_token": ports.grpc_token}
    if not site.config.embedded:
        wanted["node_agent"] = ports.node_agent
        if wanted.get("api") and not site.config.ray.address:
            wanted["ray"] = ports.ray
        if site.here == site.hosts[0]:
            wanted["status of the keeper"] = keeper_port(site.config)
    members = [member for member in site.group.members if member.host == site.here.name]
    wanted |= {f"store {member.slot}" if member.slot else "store": ports.store + member.slot for member in members}
    wanted |= {f"status of {spec.name}": spec.status_port for spec in actors_here(site)}
    for name, port in wanted.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((site.here.address, port))
            except OSError as error:
                option = name if " " not in name else "base"
                raise BringUpFailed(
                    f"port {port} ({name}) on {site.here.address} cannot be used: {error.strerror}; choose another with"
                    f" `--port {option}=NUMBER`"
                ) from error


def issue_certificates(site: Site) -> None:
    """Makes the authority and every component's certificate that is missing or about to expire."""
    authority, config = Authority(site.pki), site.config
    authority.ensure()
    service_ip = str(ipaddress.ip_network(config.networking.service_cidr)[1])
    domain = config.networking.cluster_domain
    names = ("localhost", *dict.fromkeys(("127.0.0.1", *(host.address for host in site.hosts))))
    api_names = (
        *names, service_ip, "kubernetes", "kubernetes.default", "kubernetes.default.svc",
        f"kubernetes.default.svc.{domain}",
    )  # fmt: skip
    node = site.here.name
    for identity in (
        Identity(file="apiserver", common_name="kube-apiserver", organizations=("system:masters",), hosts=api_names),
        Identity(file="component", common_name="steersman", organizations=("system:masters",), hosts=names),
        Identity(file="store", common_name="steersman-store", hosts=names),
        Identity(file="scheduler", common_name="system:kube-scheduler"),
        Identity(file="controllers", common_name="system:kube-controller-manager"),
        Identity(file="clusterroles", common_name=ROLE_AGGREGATION_USER),
        Identity(file="proxy", common_name="system:kube-proxy"),
        Identity(file="dns", common_name="system:kube-dns"),
        Identity(
            file=f"node-{node}",
            common_name=f"system:node:{node}",
            organizations=("system:nodes",),
            hosts=tuple(dict.fromkeys((*names, node))),
        ),
        Identity(file="admin", common_name="kubernetes-admin", organizations=("system:masters",)),
    ):
        authority.issue(identity)
    proxies = Authority(site.pki, FRONT_PROXY_CA)
    proxies.ensure()
    proxies.issue(Identity(file=FRONT_PROXY, common_name=FRONT_PROXY))


def write_kubeconfig(site: Site) -> Path:
    """Writes the administrator's kubeconfig into the data directory; returns its path."""
    path = site.data_dir / "kubeconfig"
    server = api_endpoints(site.config, site.hosts)[0]
    new = path.with_name(f".{path.name}.new")
    new.touch(0o600)
    new.write_text(kubeconfig.render(f"steersman-{site.config.name}", server, site.credentials("admin")))
    new.replace(path)
    return path


def endpoints(site: Site) -> dict[str, Any]:
    """Every address and certificate of a cluster, for scripts and other tools."""
    config, store = site.config, site.credentials("component")
    address, servers = site.hosts[0].address, range(config.control_plane.api_servers)
    return {
        "api": list(api_endpoints(config, site.hosts)),
        "grpc": [f"{address}:{grpc_port(config, index)}" for index in servers],
        "grpcToken": [f"{address}:{grpc_token_port(config, index)}" for index in servers],
        "storeClients": [f"https://{endpoint}" for endpoint in site.store_peers.values()],
        "kubeconfig": str(site.data_dir / "kubeconfig"),
        "certificates": {"ca": str(store.ca), "cert": str(store.cert), "key": str(store.key)},
        "logs": str(site.logs),
    }


async def end_processes(site: Site) -> None:
    """Ends every actor of this machine, and Ray if it is ours; containers run on."""
    if site.config.ray.address:
        with contextlib.suppress(BringUpFailed):
            await _end_foreign_actors(site)
    else:
        await ray_host(site).remove()


async def _end_foreign_actors(site: Site) -> None:
    """Has a Ray that somebody else runs end every actor of this cluster, such as an earlier run may have left.

    Raises:
        BringUpFailed: it does not.
    """
    ray = ray_host(site)
    if not await launching.answers(ray.address):
        raise BringUpFailed(
            f"no Ray answers at {ray.address}: start one (`ray start --head`) or leave --ray-address out"
        )
    if why := await launching.launch(ray, site, (), [spec.name for spec in actors_of(site)]):
        raise BringUpFailed(f"Ray at {ray.address} does not take this cluster: {why}", site.logs / "launch.log")
