"""Which address ranges a cluster takes on this machine, so that several clusters can live side by side.

Ranges come in numbered pairs (pods, Services). A running cluster holds its number by an abstract socket of the
machine's network namespace, which the kernel gives back however the cluster ends; it keeps the number for good in its
data directory. Ranges that the configuration names are taken as they are.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

_PAIRS_MAX = 16

#: what holds this process's pair, for as long as it lives
_held: list[socket.socket] = []


@dataclass(frozen=True, slots=True)
class Ranges:
    """Args: pods, services: networks, as `10.244.0.0/16`."""

    pods: str
    services: str


class NoRange(Exception):
    """The ranges are another cluster's; the message says which."""


def pair(mode: str, number: int) -> Ranges:
    """The ranges of a number: private networks for `bridge`, parts of 127/8 for `loopback`."""
    if mode == "loopback":
        return Ranges(f"127.{64 + number}.0.0/16", f"127.{96 + number}.0.0/16")
    return Ranges(f"10.{244 - number}.0.0/16", f"10.{96 + number}.0.0/16")


def take(mode: str, before: Ranges | None) -> Ranges:
    """Takes the pair that this cluster had before, or else the first that is free.

    Raises:
        NoRange: another running cluster has the former pair, or all are taken.
    """
    for number in range(_PAIRS_MAX):
        ranges = pair(mode, number)
        if before is not None:
            if ranges != before:
                continue
            if not _hold(mode, number):
                raise NoRange(f"another cluster on this machine uses {ranges.pods}, which this one had: take it down")
            return ranges
        if not _is_routed(ranges.pods) and _hold(mode, number):
            return ranges
    if before is not None:
        return before
    raise NoRange("all address ranges are taken by other clusters: choose networking.pod_cidr and service_cidr")


def _hold(mode: str, number: int) -> bool:
    if sys.platform != "linux":
        return True
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        holder.bind(f"\0steersman-{mode}-{number}")
    except OSError:
        holder.close()
        return False
    _held.append(holder)
    return True


def _is_routed(network: str, table: Path = Path("/proc/net/route")) -> bool:
    """Whether this machine has a route into a network: pods that run on without their keeper still have theirs."""
    wanted = ipaddress.ip_network(network)
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return False
    return any(ipaddress.ip_address(struct.pack("<L", int(line.split()[1], 16))) in wanted for line in lines)
