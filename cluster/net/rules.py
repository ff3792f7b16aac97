"""The nftables rules of a node, as values: chains, sets and map elements, and the change from one state to another.

A service port is a chain that chooses among the chains of its endpoints; maps lead from address, protocol and port to
it. Only what differs is changed, in one transaction, so that nothing else (affinity, counters) is disturbed.
Source: https://wiki.nftables.org/ and https://kubernetes.io/docs/reference/networking/virtual-ips/#proxy-mode-nftables
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from steersman.cluster.meta.names import stable_hash
from steersman.cluster.net.services import Backend, ServicePort

#: the packet mark of connections whose source must become this node's, so that replies come back through it
MASQUERADE_MARK = 0x4000
#: clients remembered per endpoint for affinity (the kernel sets memory aside for all); beyond, none is added
AFFINITY_CLIENTS_MAX = 8192

SERVICES, NODE_PORTS, REFUSED, REFUSED_NODE_PORTS = "services", "node-ports", "refused", "refused-node-ports"
#: service ports whose rules are kept for the next round
PORTS_CACHED_MAX = 20_000
#: map -> the map in which the same key must not stand as well
_FRONTEND = {SERVICES: SERVICES, REFUSED: SERVICES, NODE_PORTS: NODE_PORTS, REFUSED_NODE_PORTS: NODE_PORTS}
_MAPS = {
    SERVICES: "type ipv4_addr . inet_proto . inet_service : verdict",
    NODE_PORTS: "type inet_proto . inet_service : verdict",
    REFUSED: "type ipv4_addr . inet_proto . inet_service : verdict",
    REFUSED_NODE_PORTS: "type inet_proto . inet_service : verdict",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSet:
    """Everything in the table besides its fixed frame.

    Args:
        chains: name to rules; sets: name to definition; elements: (map, key) to verdict.
    """

    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sets: Mapping[str, str] = field(default_factory=dict)
    elements: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What the table of a node is built around.

    Args:
        table: its name; pod_cidr: addresses of all pods of the cluster; service_cidr: of its services.
    """

    table: str
    pod_cidr: str
    service_cidr: str


def frame_commands(frame: Frame) -> list[str]:
    """The commands that make the table anew, with its base chains and empty maps; whatever it held is gone."""
    t = f"ip {frame.table}"
    masquerade = f"meta mark & {MASQUERADE_MARK:#x} != 0"
    lookup = [
        f"ip daddr . meta l4proto . th dport vmap @{SERVICES}",
        f"fib daddr type local meta l4proto . th dport vmap @{NODE_PORTS}",
    ]
    refuse = [
        f"ct state new ip daddr . meta l4proto . th dport vmap @{REFUSED}",
        f"ct state new fib daddr type local meta l4proto . th dport vmap @{REFUSED_NODE_PORTS}",
        f"ct state new ip daddr {frame.service_cidr} goto refuse",
    ]
    chains: dict[str, tuple[str, list[str]]] = {
        "refuse": ("", ["meta l4proto tcp reject with tcp reset", "reject with icmp type port-unreachable"]),
        "as-own": ("", [f"meta mark set meta mark | {MASQUERADE_MARK:#x}"]),
        "lookup": ("", lookup),
        "refusals": ("", refuse),
        "prerouting": ("type nat hook prerouting priority -100", ["jump lookup"]),
        "output": ("type nat hook output priority -100", ["jump lookup"]),
        "postrouting": (
            "type nat hook postrouting priority 100",
            [
                f"{masquerade} meta mark set meta mark ^ {MASQUERADE_MARK:#x} masquerade fully-random",
                f"ip saddr {frame.pod_cidr} ip daddr != {frame.pod_cidr} ip daddr != 224.0.0.0/4 masquerade",
            ],
        ),
        # route_localnet opens 127/8 to other interfaces: only what these rules sent there may pass
        "guard": (
            "type filter hook prerouting priority -50",
            ['iifname != "lo" ip daddr 127.0.0.0/8 ct status & dnat == 0 ct direction original drop'],
        ),
        "filter-input": ("type filter hook input priority 0", ["jump refusals"]),
        "filter-forward": ("type filter hook forward priority 0", ["jump refusals"]),
        "filter-output": ("type filter hook output priority 0", ["jump refusals"]),
    }
    commands = [f"add table {t}", f"delete table {t}", f"add table {t}"]
    commands += [f"add map {t} {name} {{ {kind} ; }}" for name, kind in _MAPS.items()]
    for name, (hook, _) in chains.items():
        commands.append(f"add chain {t} {name}" + (f" {{ {hook} ; policy accept ; }}" if hook else ""))
    commands += [f"add rule {t} {name} {rule}" for name, (_, rules) in chains.items() for rule in rules]
    return commands


def rule_set(ports: Iterable[ServicePort], frame: Frame) -> RuleSet:
    """The rules for every service port; of two that claim one address and port the first has it."""
    chains: dict[str, tuple[str, ...]] = {}
    sets: dict[str, str] = {}
    elements: dict[tuple[str, str], str] = {}
    claimed: set[tuple[str, str]] = set()
    for port in ports:
        own = _port_rules(port, frame)
        chains.update(own.chains)
        sets.update(own.sets)
        for (found, key), verdict in own.elements.items():
            frontend = (_FRONTEND[found], key)
            if frontend not in claimed:
                claimed.add(frontend)
                elements[found, key] = verdict
    return RuleSet(chains=chains, sets=sets, elements=elements)


@lru_cache(maxsize=PORTS_CACHED_MAX)
def _port_rules(port: ServicePort, frame: Frame) -> RuleSet:
    chains: dict[str, tuple[str, ...]] = {}
    sets: dict[str, str] = {}
    elements: dict[tuple[str, str], str] = {}
    _add_port(port, frame, chains, sets, elements)
    return RuleSet(chains=chains, sets=sets, elements=elements)


def _add_port(
    port: ServicePort,
    frame: Frame,
    chains: dict[str, tuple[str, ...]],
    sets: dict[str, str],
    elements: dict[tuple[str, str], str],
) -> None:
    protocol = port.protocol.lower()
    inside = _name("svc", port.key)
    for backend in sorted({*port.cluster, *port.local}):
        chains[_endpoint(port, backend)] = _endpoint_rules(port, backend)
        if port.affinity_s:
            sets[_affinity(port, backend)] = (
                f"type ipv4_addr ; size {AFFINITY_CLIENTS_MAX} ; flags dynamic,timeout ; timeout {port.affinity_s}s ;"
            )
    everywhere, here = _name("svc", port.key), _name("loc", port.key)
    # a client that is no pod (a process of this node) must get its replies back through this node
    own = f"ip saddr != {frame.pod_cidr} ip daddr {port.cluster_ip} jump as-own"
    if port.cluster:
        chains[everywhere] = (own, *_choice(port, port.cluster))
    if port.local and (port.internal_local or port.external_local):
        chains[here] = (own, *_choice(port, port.local))
    inside = here if port.internal_local else everywhere
    key = f"{port.cluster_ip} . {protocol} . {port.port}"
    _lead(elements, (SERVICES, key), (REFUSED, key), inside if port.internal else "", port.cluster)
    outside_keys = [
        ((SERVICES, f"{ip} . {protocol} . {port.port}"), (REFUSED, f"{ip} . {protocol} . {port.port}"))
        for ip in sorted({*port.external_ips, *port.load_balancer_ips} - {port.cluster_ip})
    ]
    if port.node_port:
        key = f"{protocol} . {port.node_port}"
        outside_keys.append(((NODE_PORTS, key), (REFUSED_NODE_PORTS, key)))
    if not outside_keys:
        return
    outside = _name("ext", port.key) if port.cluster else ""
    if outside:
        chains[outside] = _external_rules(port, frame, everywhere, here)
    for found, refused in outside_keys:
        _lead(elements, found, refused, outside, port.cluster)


def _lead(
    elements: dict[tuple[str, str], str],
    found: tuple[str, str],
    refused: tuple[str, str],
    chain: str,
    cluster: tuple[Backend, ...],
) -> None:
    """A frontend leads to a chain; without endpoints it refuses, and without local ones it keeps silent."""
    if chain:
        elements[found] = f"goto {chain}"
    else:
        elements[refused] = "drop" if cluster else "goto refuse"


def _external_rules(port: ServicePort, frame: Frame, everywhere: str, here: str) -> tuple[str, ...]:
    """Traffic from outside; pods and this node itself may use every endpoint whatever the policy."""
    rules = []
    if port.source_ranges and port.load_balancer_ips:
        allowed, addresses = ", ".join(port.source_ranges), ", ".join(port.load_balancer_ips)
        rules.append(f"ip daddr {{ {addresses} }} ip saddr != {{ {allowed} }} drop")
    if not port.external_local:
        return (*rules, "jump as-own", f"goto {everywhere}")
    rules.append(f"ip saddr {frame.pod_cidr} goto {everywhere}")
    rules.append("fib saddr type local jump as-own")
    rules.append(f"fib saddr type local goto {everywhere}")
    return (*rules, f"goto {here}" if port.local else "drop")


def _choice(port: ServicePort, backends: tuple[Backend, ...]) -> list[str]:
    """Back to the endpoint a client had, else any with equal chance."""
    rules = []
    if port.affinity_s:
        rules = [f"ip saddr @{_affinity(port, b)} goto {_endpoint(port, b)}" for b in backends]
    return [*rules, *_lots(port, backends)]


def _lots(port: ServicePort, backends: tuple[Backend, ...]) -> list[str]:
    """The first of n has it by one chance in n, the next by one in n - 1, and so on to the last.

    One map from number to endpoint would be shorter, but a packet that is under way while the kernel takes new rules
    into use walks the old ones and no longer finds the elements of their map: it would pass by all endpoints.
    """
    left = range(len(backends), 1, -1)
    lots = [
        f"numgen random mod {n} == 0 goto {_endpoint(port, backend)}"
        for n, backend in zip(left, backends[:-1], strict=True)
    ]
    return [*lots, f"goto {_endpoint(port, backends[-1])}"]


def _endpoint_rules(port: ServicePort, backend: Backend) -> tuple[str, ...]:
    # a pod that reaches itself through a service would answer itself past this node
    rules = [f"ip saddr {backend.ip} jump as-own"]
    if port.affinity_s:
        rules.append(f"update @{_affinity(port, backend)} {{ ip saddr }}")
    return (*rules, f"meta l4proto {port.protocol.lower()} dnat to {backend}")


def _name(sort: str, key: str) -> str:
    """A chain's name: unique by its hash, readable by what follows, short enough for the kernel."""
    return f"{sort}-{stable_hash(key, 10)}-{key}"[:120]


def _endpoint(port: ServicePort, backend: Backend) -> str:
    return _name("ep", f"{port.key}/{backend.ip}/{backend.port}")


def _affinity(port: ServicePort, backend: Backend) -> str:
    return _name("aff", f"{port.key}/{backend.ip}/{backend.port}/{port.affinity_s}")


def diff(old: RuleSet, new: RuleSet, table: str) -> list[str]:
    """The commands, for one transaction, that turn one set of rules into another; empty when nothing differs."""
    t = f"ip {table}"
    block = [f"set {name} {{ {kind} }}" for name, kind in new.sets.items() if name not in old.sets]
    changed_chains = [name for name, rules in new.chains.items() if old.chains.get(name) != rules]
    block += ["\n".join([f"chain {name} {{", *new.chains[name], "}"]) for name in changed_chains]
    gone = [name for name in old.chains if name not in new.chains]
    gone_sets = [name for name in old.sets if name not in new.sets]
    removed = [key for key, verdict in old.elements.items() if new.elements.get(key) != verdict]
    added = [(key, verdict) for key, verdict in new.elements.items() if old.elements.get(key) != verdict]
    commands = [f"flush chain {t} {name}" for name in changed_chains if name in old.chains]
    if block:
        commands.append("\n".join([f"table {t} {{", *block, "}"]))
    for name in _MAPS:
        if rows := [key for found, key in removed if found == name]:
            commands.append(f"delete element {t} {name} {{ {', '.join(rows)} }}")
        if rows := [f"{key} : {verdict}" for (found, key), verdict in added if found == name]:
            commands.append(f"add element {t} {name} {{ {', '.join(rows)} }}")
    commands += [f"flush chain {t} {name}" for name in gone] + [f"delete chain {t} {name}" for name in gone]
    return commands + [f"delete set {t} {name}" for name in gone_sets]


def stale_flows(old: Iterable[ServicePort], new: Iterable[ServicePort]) -> list[tuple[str, Backend | None]]:
    """UDP flows that the kernel remembers wrongly after a change.

    Returns:
        (address clients speak to, endpoint that is gone), or (address, None) where flows went nowhere until now.
    """
    after = {port.key: port for port in new if port.protocol == "UDP"}
    found: list[tuple[str, Backend | None]] = []
    for port in old:
        if port.protocol != "UDP":
            continue
        successor = after.get(port.key)
        kept = {(b.ip, b.port) for b in successor.cluster + successor.local} if successor else set()
        frontends = sorted({port.cluster_ip, *port.external_ips, *port.load_balancer_ips})
        for backend in sorted({*port.cluster, *port.local}):
            if (backend.ip, backend.port) not in kept:
                found += [(address, backend) for address in [*frontends, *([""] if port.node_port else [])]]
        if successor is not None and successor.cluster and not port.cluster:
            found += [(address, None) for address in frontends]
    return found
