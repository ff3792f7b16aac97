"""Which way a node reaches the pods of the others: their ranges by way of their addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from steersman.cluster.meta.objects import Obj


def internal_address(node: Obj) -> str:
    """The node's first internal IPv4 address; empty while it has none."""
    for row in (node.get("status") or {}).get("addresses") or ():
        if row.get("type") == "InternalIP" and ":" not in row.get("address", ":"):
            return str(row["address"])
    return ""


def routes(nodes: Iterable[Obj], own: str) -> dict[str, str]:
    """Returns pod range to gateway for every other node that stands on an address of its own.

    Args:
        own: the name of the node that routes.
    """
    rows = {node["metadata"]["name"]: node for node in nodes}
    own_address = internal_address(rows[own]) if own in rows else ""
    found: dict[str, str] = {}
    for name, node in sorted(rows.items()):
        cidr, address = (node.get("spec") or {}).get("podCIDR") or "", internal_address(node)
        if name == own or not cidr or ":" in cidr or not address or address == own_address:
            continue
        if not ipaddress.ip_address(address).is_loopback:
            found[cidr] = address
    return found
