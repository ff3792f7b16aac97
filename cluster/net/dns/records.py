"""The records that one service makes.

Source: https://github.com/kubernetes/dns/blob/master/docs/specification.md, version 1.1.0
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from steersman.cluster.meta.objects import Obj
from steersman.cluster.net.dns.wire import AAAA, CNAME, PTR, SRV, A, Record

#: addresses of services live as long as these; endpoints come and go
SERVICE_TTL_S, ENDPOINT_TTL_S = 30, 5


def records_of_service(service: Obj, slices: Iterable[Obj], domain: str) -> list[Record]:
    """Returns every record of a service with its EndpointSlices, each once.

    Args:
        domain: of the cluster, as `cluster.local`.
    """
    meta, spec = service["metadata"], service.get("spec") or {}
    base = f"{meta['name']}.{meta['namespace']}.svc.{domain}".lower()
    if spec.get("type") == "ExternalName":
        target = (spec.get("externalName") or "").rstrip(".").lower()
        return [Record(base, CNAME, SERVICE_TTL_S, target)] if target else []
    addresses = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip and ip != "None"]
    if addresses:
        return _service_records(base, spec, addresses)
    if spec.get("clusterIP") == "None":
        return list(dict.fromkeys(_headless_records(base, spec, slices)))
    return []


def reverse_name(address: str) -> str:
    return ipaddress.ip_address(address).reverse_pointer


def _address_record(name: str, address: str, ttl_s: int) -> Record:
    return Record(name, AAAA if ":" in address else A, ttl_s, address)


def _service_records(base: str, spec: Obj, addresses: list[str]) -> list[Record]:
    records = [_address_record(base, address, SERVICE_TTL_S) for address in addresses]
    records += [Record(reverse_name(address), PTR, SERVICE_TTL_S, base) for address in addresses]
    for port in spec.get("ports") or ():
        value = (0, 100, int(port["port"]), base)
        records += _srv(base, port.get("name"), port.get("protocol"), value, SERVICE_TTL_S)
    return records


def _headless_records(base: str, spec: Obj, slices: Iterable[Obj]) -> Iterator[Record]:
    everyone = bool(spec.get("publishNotReadyAddresses"))
    for row in slices:
        for endpoint in row.get("endpoints") or ():
            if not everyone and (endpoint.get("conditions") or {}).get("ready") is False:
                continue
            for address in endpoint.get("addresses") or ():
                host = f"{endpoint.get('hostname') or _dashed(address)}.{base}".lower()
                yield _address_record(base, address, ENDPOINT_TTL_S)
                yield _address_record(host, address, ENDPOINT_TTL_S)
                if endpoint.get("hostname"):
                    yield Record(reverse_name(address), PTR, ENDPOINT_TTL_S, host)
                for port in row.get("ports") or ():
                    if port.get("port"):
                        value = (0, 100, int(port["port"]), host)
                        yield from _srv(base, port.get("name"), port.get("protocol"), value, ENDPOINT_TTL_S)


def _srv(
    base: str, port_name: str | None, protocol: str | None, value: tuple[int, int, int, str], ttl_s: int
) -> list[Record]:
    if not port_name:
        return []
    name = f"_{port_name}._{(protocol or 'TCP').lower()}.{base}".lower()
    return [Record(name, SRV, ttl_s, value), Record(base, SRV, ttl_s, value)]


def _dashed(address: str) -> str:
    return address.replace(".", "-").replace(":", "-")
