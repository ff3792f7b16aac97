"""Columns of Service, Endpoints, EndpointSlice, Ingress and NetworkPolicy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steersman.cluster.api.columns.column import (
    Age,
    Column,
    Columns,
    Name,
    age,
    joined,
    labels_text,
    name,
    rows,
    selector_text,
    shortened,
    sub,
    wide,
)
from steersman.cluster.meta.objects import Obj

_HOSTS_SHOWN = 3


def _balancers(ingress: Sequence[Obj]) -> list[str]:
    """Where load balancers are, each once."""
    return sorted({row.get("ip") or row.get("hostname") or "" for row in ingress} - {""})


def external_ip(service: Obj) -> str:
    """Where a Service is reached from outside, as `get services` words it."""
    spec = sub(service, "spec")
    outside = spec.get("externalIPs") or []
    match spec.get("type", "ClusterIP"):
        case "ClusterIP" | "NodePort":
            return joined(outside)
        case "LoadBalancer":
            ingress = rows(service, "status", "loadBalancer", "ingress")
            return ",".join([*_balancers(ingress), *outside]) or "<pending>"
        case "ExternalName":
            return str(spec.get("externalName", ""))
    return "<unknown>"


def service_ports(service: Obj) -> str:
    """`80/TCP`, or `80:30080/TCP` where a node port is open."""
    texts = []
    for port in rows(service, "spec", "ports"):
        node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
        texts.append(f"{port.get('port')}{node_port}/{port.get('protocol', 'TCP')}")
    return joined(texts)


def _service(obj: Obj, now: float) -> list[Any]:
    spec = sub(obj, "spec")
    return [
        name(obj),
        spec.get("type", ""),
        spec.get("clusterIP") or "<none>",
        external_ip(obj),
        service_ports(obj),
        age(obj, now),
        labels_text(spec.get("selector")),
    ]


def _host_port(ip: str, port: Any) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def endpoints_text(obj: Obj) -> str:
    """The addresses of an Endpoints object, the first three of them."""
    texts: list[str] = []
    for subset in rows(obj, "subsets"):
        ips = [row.get("ip", "") for row in rows(subset, "addresses")]
        ports = rows(subset, "ports")
        texts += [_host_port(ip, port.get("port")) for port in ports for ip in ips] if ports else ips
    return shortened(texts, "" if rows(obj, "subsets") else "<none>")


def _endpoint_slice(obj: Obj, now: float) -> list[Any]:
    ports = [str(row["port"] if row.get("port") is not None else row.get("name", "*")) for row in rows(obj, "ports")]
    addresses = [address for row in rows(obj, "endpoints") for address in rows(row, "addresses")]
    return [
        name(obj),
        obj.get("addressType", ""),
        shortened(ports, "<unset>"),
        shortened(addresses, "<unset>"),
        age(obj, now),
    ]


def _hosts(rules: Sequence[Obj]) -> str:
    """The first hosts, and how many more rules there are, of hosts or not."""
    at = [index for index, row in enumerate(rules) if row.get("host")][:_HOSTS_SHOWN]
    shown = ",".join(rules[index]["host"] for index in at) or "*"
    if len(at) < _HOSTS_SHOWN or at[-1] == len(rules) - 1:
        return shown
    return f"{shown} + {len(rules) - _HOSTS_SHOWN} more..."


def _ingress(obj: Obj, now: float) -> list[Any]:
    found = _balancers(rows(obj, "status", "loadBalancer", "ingress"))
    ports = "80, 443" if rows(obj, "spec", "tls") else "80"
    ingress_class = sub(obj, "spec").get("ingressClassName") or "<none>"
    return [name(obj), ingress_class, _hosts(rows(obj, "spec", "rules")), ",".join(found), ports, age(obj, now)]


def _policy(obj: Obj, now: float) -> list[Any]:
    return [name(obj), selector_text(sub(obj, "spec", "podSelector")), age(obj, now)]


def _class(obj: Obj, now: float) -> list[Any]:
    parameters = sub(obj, "spec", "parameters")
    group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
    shown = f"{parameters.get('kind', '')}{group}/{parameters.get('name', '')}" if parameters else "<none>"
    return [name(obj), sub(obj, "spec").get("controller", ""), shown, age(obj, now)]


def _address(obj: Obj, now: float) -> list[Any]:
    parent = sub(obj, "spec", "parentRef")
    kind = f"{parent.get('resource', '')}.{parent['group']}" if parent.get("group") else parent.get("resource", "")
    parts = (kind.lower(), parent.get("namespace"), parent.get("name"))
    return [name(obj), "/".join(part for part in parts if part), age(obj, now)]


def _range(obj: Obj, now: float) -> list[Any]:
    return [name(obj), ",".join(rows(obj, "spec", "cidrs")), age(obj, now)]


_SERVICE = tuple(Column(text) for text in ("Type", "Cluster-IP", "External-IP", "Port(s)"))
_INGRESS = tuple(Column(text) for text in ("Class", "Hosts", "Address", "Ports"))
COLUMNS = {
    ("", "Service"): Columns((Name, *_SERVICE, Age, *wide("Selector")), _service),
    ("", "Endpoints"): Columns(
        (Name, Column("Endpoints"), Age), lambda obj, now: [name(obj), endpoints_text(obj), age(obj, now)]
    ),
    ("discovery.k8s.io", "EndpointSlice"): Columns(
        (Name, Column("AddressType"), Column("Ports"), Column("Endpoints"), Age), _endpoint_slice
    ),
    ("networking.k8s.io", "Ingress"): Columns((Name, *_INGRESS, Age), _ingress),
    ("networking.k8s.io", "IngressClass"): Columns((Name, Column("Controller"), Column("Parameters"), Age), _class),
    ("networking.k8s.io", "IPAddress"): Columns((Name, Column("ParentRef"), Age), _address),
    ("networking.k8s.io", "ServiceCIDR"): Columns((Name, Column("CIDRs"), Age), _range),
    ("networking.k8s.io", "NetworkPolicy"): Columns((Name, Column("Pod-Selector"), Age), _policy),
}
