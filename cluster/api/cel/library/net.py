"""Addresses and blocks of addresses.

Source: k8s.io/apiserver/pkg/cel/library/{ip,cidr}.go
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from typing import Any, ClassVar

from steersman.cluster.api.cel.errors import EvaluationError
from steersman.cluster.api.cel.overload import function, method, reads_text
from steersman.cluster.api.cel.types import Type
from steersman.cluster.api.cel.values import Opaque
from steersman.cluster.meta.gotext import quoted


@dataclass(frozen=True, slots=True)
class Ip(Opaque):
    type: ClassVar[Type] = Type("net.IP")
    value: IPv4Address | IPv6Address

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Cidr(Opaque):
    type: ClassVar[Type] = Type("net.CIDR")
    value: IPv4Interface | IPv6Interface

    def __str__(self) -> str:
        return self.value.with_prefixlen


def _ip(text: str) -> Ip:
    bare, zone, _ = text.partition("%")
    try:
        value = ip_address(bare if ":" in bare else text)
    except ValueError:
        detail = f"ParseAddr({quoted(text)}): unable to parse IP"
        raise EvaluationError(
            f"IP Address {quoted(text)} parse error during conversion from string: {detail}"
        ) from None
    if zone:
        raise EvaluationError(f"IP address {quoted(text)} with zone value is not allowed")
    if isinstance(value, IPv6Address) and value.ipv4_mapped is not None:
        raise EvaluationError(f"IPv4-mapped IPv6 address {quoted(text)} is not allowed")
    return Ip(value)


def _cidr(text: str) -> Cidr:
    try:
        value = _interface(text)
    except ValueError as error:
        detail = f"netip.ParsePrefix({quoted(text)}): {error}"
        raise EvaluationError(f"network address parse error during conversion from string: {detail}") from None
    if isinstance(value, IPv6Interface) and value.ip.ipv4_mapped is not None:
        raise EvaluationError(f"IPv4-mapped IPv6 address {quoted(text)} is not allowed")
    return Cidr(value)


def _interface(text: str) -> IPv4Interface | IPv6Interface:
    """Reads an address with the length of its prefix; raises ValueError in Go's words."""
    address, slash, bits = text.rpartition("/")
    if not slash:
        raise ValueError("no '/'")
    try:
        value = ip_address(address)
    except ValueError:
        raise ValueError(f"ParseAddr({quoted(address)}): unable to parse IP") from None
    if "%" in address:
        raise ValueError("IPv6 zones cannot be present in a prefix")
    if not (bits.isascii() and bits.isdigit()) or bits != str(int(bits)):
        raise ValueError(f"bad bits after slash: {quoted(bits)}")
    if int(bits) > value.max_prefixlen:
        raise ValueError("prefix length out of range")
    return ip_interface(text)


def _reads(parse: Any) -> Any:
    def check(text: str) -> bool:
        try:
            parse(text)
        except EvaluationError:
            return False
        return True

    return check


def _is_canonical(text: str) -> bool:
    return str(_ip(text)) == text


def _contains_ip(cidr: Cidr, ip: Any) -> bool:
    return (ip if isinstance(ip, Ip) else _ip(ip)).value in cidr.value.network


def _contains_cidr(cidr: Cidr, other: Any) -> bool:
    inner = (other if isinstance(other, Cidr) else _cidr(other)).value
    outer = cidr.value.network
    return inner.version == outer.version and inner.ip in outer and inner.network.prefixlen >= outer.prefixlen


def _is_global(ip: Ip) -> bool:
    value = ip.value
    broadcast = value == IPv4Address("255.255.255.255")
    return not (value.is_unspecified or value.is_loopback or value.is_multicast or value.is_link_local or broadcast)


def _link_local_multicast(ip: Ip) -> bool:
    packed = ip.value.packed
    if len(packed) == 4:
        return packed[:3] == b"\xe0\x00\x00"
    return packed[0] == 0xFF and packed[1] & 0x0F == 2


FUNCTIONS = (
    function("ip", "string -> net.IP", _ip, reads_text),
    function("isIP", "string -> bool", _reads(_ip), reads_text),
    function("ip.isCanonical", "string -> bool", _is_canonical, reads_text),
    function("string", "net.IP -> string", str),
    method("family", "net.IP -> int", lambda ip: ip.value.version),
    method("isUnspecified", "net.IP -> bool", lambda ip: ip.value.is_unspecified),
    method("isLoopback", "net.IP -> bool", lambda ip: ip.value.is_loopback),
    method("isLinkLocalMulticast", "net.IP -> bool", _link_local_multicast),
    method("isLinkLocalUnicast", "net.IP -> bool", lambda ip: ip.value.is_link_local),
    method("isGlobalUnicast", "net.IP -> bool", _is_global),
    function("cidr", "string -> net.CIDR", _cidr, reads_text),
    function("isCIDR", "string -> bool", _reads(_cidr), reads_text),
    function("string", "net.CIDR -> string", str),
    *(method("containsIP", f"net.CIDR, {kind} -> bool", _contains_ip) for kind in ("net.IP", "string")),
    *(method("containsCIDR", f"net.CIDR, {kind} -> bool", _contains_cidr) for kind in ("net.CIDR", "string")),
    method("ip", "net.CIDR -> net.IP", lambda cidr: Ip(cidr.value.ip)),
    method("masked", "net.CIDR -> net.CIDR", lambda cidr: Cidr(ip_interface(str(cidr.value.network)))),
    method("prefixLength", "net.CIDR -> int", lambda cidr: cidr.value.network.prefixlen),
)
