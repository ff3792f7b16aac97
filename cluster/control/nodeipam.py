"""Gives each node a range of pod addresses out of the cluster's.

Source: https://kubernetes.io/docs/reference/command-line-tools-reference/kube-controller-manager/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from steersman.cluster.control.indexes import pod_cidr
from steersman.cluster.control.plan import NOTHING_TO_DO, Draft, Plan, patch
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.objects import Obj, is_deleting, name
from steersman.cluster.meta.resources import NODES

#: after how long to look whether a range has become free
RETRY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: taken: the ranges of all nodes."""

    node: Obj
    taken: frozenset[str]
    cluster_cidr: str
    prefix_length: int


def observe(view: View, key: str) -> Observed | None:
    node = view.get(NODES, key)
    if node is None or is_deleting(node) or not view.settings.cluster_cidr or list(pod_cidr(node)):
        return None
    return Observed(
        node=node,
        taken=frozenset(view.index_values(NODES, "pod-cidr")),
        cluster_cidr=view.settings.cluster_cidr,
        prefix_length=view.settings.node_prefix_length,
    )


def free_range(cluster_cidr: str, prefix_length: int, taken: Iterable[str]) -> str | None:
    """Returns the lowest range of the cluster's that overlaps none that is taken; None when there is none.

    Raises:
        ValueError: the cluster's range is none, or smaller than a node's.
    """
    used = [ipaddress.ip_network(text) for text in taken]
    exact = {network for network in used if network.prefixlen == prefix_length}
    odd = [network for network in used if network.prefixlen != prefix_length]
    candidates: Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network] = iter(
        ipaddress.ip_network(cluster_cidr).subnets(new_prefix=prefix_length)
    )
    for candidate in candidates:
        if candidate not in exact and not any(candidate.overlaps(network) for network in odd):
            return str(candidate)
    return None


def reconcile(observed: Observed, now: float) -> Plan:
    if list(pod_cidr(observed.node)):
        return NOTHING_TO_DO
    found = free_range(observed.cluster_cidr, observed.prefix_length, observed.taken)
    draft = Draft()
    if found is None:
        sentence = f"Node {name(observed.node)} status is now: CIDRNotAvailable"
        draft.tell(observed.node, "Normal", "CIDRNotAvailable", sentence)
        draft.look_again(RETRY_S)
        return draft.done()
    draft.add(patch(NODES, observed.node, {"spec": {"podCIDR": found, "podCIDRs": [found]}}, exact=False))
    return draft.done()


NODE_IPAM = ControllerSpec(
    name="nodeipam",
    watches=(Watch(resource=NODES, keys=own_key, indexes=("pod-cidr",)),),
    observe=observe,
    reconcile=reconcile,
    workers=1,  # one at a time: each choice must see the one before
)
