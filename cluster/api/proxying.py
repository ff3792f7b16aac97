"""The `proxy` subresource: what is meant by a name, who answers for a Service, and how links find back through it.

Source: k8s.io/kubernetes/pkg/registry/core/{pod,service,node} (`ResourceLocation`), k8s.io/apimachinery/pkg/util/net
and .../util/proxy (`transport.go`, `upgradeaware.go`)
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit, urlunsplit

from steersman.cluster.meta.errors import BadRequest, ServiceUnavailable
from steersman.cluster.meta.objects import Obj

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: requests whose bodies are passed on as they come
BODIED = frozenset({"POST", "PUT", "PATCH"})
PROXIED = frozenset({"nodes", "pods", "services"})
#: of an answer: who else may read it is for this server to say
CORS = frozenset({f"access-control-allow-{name}" for name in ("credentials", "headers", "methods", "origin")})
NOT_ALLOWED = "address not allowed"


@dataclass(frozen=True, slots=True)
class Name:
    """What is asked for. Args: scheme: `http`, `https` or empty; port: number or name; empty for the usual one."""

    scheme: str
    name: str
    port: str


def read_name(text: str, kind: str) -> Name:
    """Reads `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`; raises BadRequest."""
    parts = text.split(":")
    scheme, name, port = ("", *parts, "")[:3] if len(parts) < 3 else (parts[0], parts[1], parts[2])
    if len(parts) > 3 or not name or scheme not in ("", "http", "https"):
        raise BadRequest(f'invalid {kind} request "{text}"')
    return Name(scheme, name, port)


def path_after(path: str) -> tuple[str, str]:
    """The raw path of a request, as what leads to the proxied server and what that server is asked for.

    The second part is empty, or begins with a slash.
    """
    parts = path.split("/")
    named = [index for index, part in enumerate(parts) if part]
    # api, version, [namespaces, namespace,] resource, name, proxy
    length = 7 if len(named) > 2 and parts[named[2]] == "namespaces" else 5
    if len(named) < length:
        return path, ""
    end = named[length - 1] + 1
    return "/".join(parts[:end]), "".join("/" + part for part in parts[end:])


def is_proxied(path: str) -> bool:
    """Whether a raw path leads through a proxy."""
    parts = [part for part in path.split("/") if part]
    rest = parts[4:] if parts[2:3] == ["namespaces"] else parts[2:]
    return parts[:2] == ["api", "v1"] and len(rest) >= 3 and rest[0] in PROXIED and rest[2] == "proxy"


# ---- where it is


def pod_port(pod: Obj, wanted: str) -> int:
    """The port of a pod that is meant.

    Raises:
        ServiceUnavailable: it has no port of that name.
    """
    rows = [row for container in pod["spec"].get("containers") or () for row in container.get("ports") or ()]
    if not wanted:
        return int(rows[0]["containerPort"]) if rows else 80
    if wanted.isascii() and wanted.isdigit() and 0 < int(wanted) < 65536:
        return int(wanted)
    for row in rows:
        if row.get("name") == wanted:
            return int(row["containerPort"])
    raise ServiceUnavailable(f"error trying to reach service: dial tcp: lookup tcp/{wanted}: unknown port")


def pod_address(pod: Obj, *, on_loopback: bool) -> str:
    """The address of a pod, to which a proxy may lead.

    Args:
        on_loopback: whether pods of this cluster have loopback addresses.

    Raises:
        BadRequest: it has none, or one that somebody has made up to get elsewhere.
    """
    text = (pod.get("status") or {}).get("podIP", "")
    if not is_proxyable(text, on_loopback=on_loopback):
        raise BadRequest(NOT_ALLOWED)
    return str(text)


def is_proxyable(text: str, *, on_loopback: bool = False) -> bool:
    """Whether an address belongs to one machine of the network, and not to this one or to its link."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # it leads where that one leads
    if address.is_loopback:
        return on_loopback
    special = address.is_unspecified or address.is_multicast or address.is_link_local
    return not special and str(address) != "255.255.255.255"


def endpoints_of(service: Obj, asked: str, wanted: Name, endpoints: Obj | None) -> Iterable[tuple[str, str, int]]:
    """The pods that may answer for a Service: name, address and port of each.

    Raises:
        ServiceUnavailable: it has no such port, or nobody answers.
    """
    port = wanted.port
    if port.isascii() and port.isdigit():
        rows = [row for row in service["spec"].get("ports") or () if row.get("port") == int(port)]
        if not rows:
            raise ServiceUnavailable(f'no service port {int(port)} found for service "{wanted.name}"')
        port = rows[0].get("name") or ""
    subsets = (endpoints or {}).get("subsets") or ()
    if not subsets:
        raise ServiceUnavailable(f'no endpoints available for service "{wanted.name}"')
    namespace = service["metadata"].get("namespace", "")
    found = [
        (target["name"], address["ip"], int(row["port"]))
        for subset in subsets
        for row in subset.get("ports") or ()
        if (row.get("name") or "") == port
        for address in subset.get("addresses") or ()
        if (target := address.get("targetRef") or {}).get("name") and target.get("namespace") == namespace
    ]
    if not found:
        raise no_endpoints(asked)
    return found


def no_endpoints(asked: str) -> ServiceUnavailable:
    return ServiceUnavailable(f'no endpoints available for service "{asked}"')


def node_address(node: Obj) -> str:
    """The address at which a node's own servers are reached; raises BadRequest when it is none to lead to."""
    rows = {row["type"]: row["address"] for row in reversed((node.get("status") or {}).get("addresses") or ())}
    text = rows.get("InternalIP") or rows.get("ExternalIP") or ""
    if not is_proxyable(text):
        raise BadRequest(NOT_ALLOWED)
    return str(text)


def agent_port(node: Obj) -> str:
    daemon = (node.get("status") or {}).get("daemonEndpoints") or {}
    return str((daemon.get("kubeletEndpoint") or {}).get("Port") or "")


# ---- what goes through


def forwarded(
    headers: Mapping[str, str], peer: str, uri: str, dropped: frozenset[str], *, length: bool = False
) -> dict[str, str]:
    """The headers that go on to the server behind.

    Args:
        headers: of the client, without those that say who it is.
        dropped: concern one connection only.
        length: whether the body's length goes on as the client told it.
    """
    named = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    left_out = dropped | named | {"expect", *(() if length else ("content-length",))}
    found = {key: value for key, value in headers.items() if key not in left_out}
    found["x-forwarded-uri"] = uri
    if peer:
        before = found.get("x-forwarded-for")
        found["x-forwarded-for"] = f"{before}, {peer}" if before else peer
    return found


class Links:
    """Turns addresses on the server behind into addresses that lead through the proxy.

    Args:
        prefix: the path that leads to that server; place: its host and port; host: the `Host` it was asked as.
    """

    def __init__(self, prefix: str, place: str, host: str) -> None:
        self._prefix = prefix
        self._place = place
        self._host = host

    def rewrite(self, link: str) -> str:
        """A link to be followed by the client; those that lead elsewhere, or are relative, stay as they are."""
        try:
            parts = urlsplit(link)
        except ValueError:
            return link
        if parts.netloc not in ("", self._place, self._host) or not parts.path.startswith("/"):
            return link
        keeps = parts.netloc == self._host
        scheme, netloc = (parts.scheme, parts.netloc) if keeps else ("", "")
        path = parts.path
        if not path.startswith(self._prefix):
            joined = posixpath.normpath(f"{self._prefix}/{path.lstrip('/')}")
            path = joined + "/" if path.endswith("/") else joined
        return urlunsplit((scheme, netloc, path, parts.query, parts.fragment))


def is_html(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip() == "text/html"
