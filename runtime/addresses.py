"""Which pod gets which address of a node's range.

Decides the next free address; knows nothing of links or leases on disk: who holds an address says so in its own
record, and a pool is filled again from those records at start, so nothing can leak.
Source: the order is that of the CNI plugin host-local: round robin, so that an address rests before it is used again.
"""

from __future__ import annotations

import ipaddress

#: where the pods of nodes without network namespaces live; services have 127.96.0.0/16 above it
LOOPBACK_RANGE = ipaddress.IPv4Network("127.64.0.0/11")


class PoolExhausted(Exception):
    """Every address of the range is taken."""


class AddressPool:
    """The addresses of one range; network, gateway (the first) and broadcast are never given out."""

    def __init__(self, cidr: str) -> None:
        self.network = ipaddress.IPv4Network(cidr, strict=False)
        if self.network.num_addresses < 4:
            raise ValueError(f"the pod range {cidr} is too small")
        self.gateway = str(self.network.network_address + 1)
        self._first = int(self.network.network_address) + 2
        self._count = self.network.num_addresses - 3
        self._next = 0
        self._taken: set[str] = set()

    def mark(self, address: str) -> None:
        """Notes that an address is in use."""
        if ipaddress.IPv4Address(address) in self.network:
            self._taken.add(address)
            self._next = max(self._next, (int(ipaddress.IPv4Address(address)) - self._first + 1) % self._count)

    def take(self) -> str:
        """Returns a free address. Raises PoolExhausted."""
        for step in range(self._count):
            offset = (self._next + step) % self._count
            address = str(ipaddress.IPv4Address(self._first + offset))
            if address not in self._taken:
                self._taken.add(address)
                self._next = (offset + 1) % self._count
                return address
        raise PoolExhausted(f"no free address is left in {self.network}")

    def release(self, address: str) -> None:
        self._taken.discard(address)


def loopback_cidr(cidr: str) -> str:
    """Maps a pod range onto this machine's loopback addresses; a range of 127/8 stays as it is."""
    network = ipaddress.IPv4Network(cidr, strict=False)
    if network.network_address.is_loopback:
        return str(network)
    prefix = max(network.prefixlen, LOOPBACK_RANGE.prefixlen)
    host_bits = (1 << (32 - LOOPBACK_RANGE.prefixlen)) - 1
    base = int(LOOPBACK_RANGE.network_address) | (int(network.network_address) & host_bits)
    return str(ipaddress.IPv4Network((base, prefix), strict=False))
