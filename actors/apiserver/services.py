"""Where Services are: the addresses of their ready endpoints, for a server that itself asks others.

An API server runs where no proxy of Services may be: it finds the endpoints by itself.
"""

from __future__ import annotations

import random
import socket
import ssl

from steersman.actors.apiserver.cache import Shelf, WatchCache
from steersman.cluster.api.kinds import Registry
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import ENDPOINT_SLICES, SERVICES, Resource


class Unresolved(Exception):
    """A Service that nobody serves."""


class Services:
    """Finds Services and their endpoints."""

    def __init__(self, cache: WatchCache, registry: Registry, rng: random.Random) -> None:
        self._cache = cache
        self._registry = registry
        self._rng = rng

    def shelf(self, resource: Resource) -> Shelf:
        kind = self._registry.kind(resource.group, resource.version, resource.plural)
        if kind is None:
            raise LookupError(f"this version of Kubernetes has no {resource}")
        return self._cache.shelf(kind.prefix())

    def find(self, namespace: str, name: str) -> Obj | None:
        entry = self.shelf(SERVICES).get(f"{namespace}/{name}")
        return None if entry is None else entry.obj

    def slices(self, namespace: str, name: str) -> list[Obj]:
        """The EndpointSlices of a Service."""
        rows = [entry.obj for entry in self.shelf(ENDPOINT_SLICES).within(namespace)]
        return [row for row in rows if service_of(row) == name]

    def resolve(self, namespace: str, name: str, port: int) -> tuple[str, int]:
        """The address of one ready endpoint, chosen by chance; raises Unresolved."""
        return self._rng.choice(self.places(namespace, name, port))

    def places(self, namespace: str, name: str, port: int) -> list[tuple[str, int]]:
        """The addresses of every ready endpoint; at least one.

        Raises:
            Unresolved: there is none.
        """
        service = self.find(namespace, name)
        if service is None:
            raise Unresolved(f'service "{name}" not found')
        spec = service.get("spec") or {}
        if spec.get("type") == "ExternalName":
            return [(str(spec.get("externalName", "")), port)]
        row = next((row for row in spec.get("ports") or () if row.get("port") == port), None)
        if row is None:
            raise Unresolved(f'no service port {port} found for service "{name}"')
        found: list[tuple[str, int]] = []
        for part in self.slices(namespace, name):
            ports = [
                each["port"] for each in part.get("ports") or () if (each.get("name") or "") == (row.get("name") or "")
            ]
            for endpoint in part.get("endpoints") or ():
                if ports and (endpoint.get("conditions") or {}).get("ready") is not False:
                    found += [(host, ports[0]) for host in endpoint.get("addresses") or ()]
        if not found:
            raise Unresolved(f'no endpoints available for service "{name}"')
        return found


def service_of(part: Obj) -> str:
    """The name of the Service whose EndpointSlice this is."""
    return str((part["metadata"].get("labels") or {}).get("kubernetes.io/service-name", ""))


def place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def go_words(cause: BaseException | None, host: str, port: int) -> str:
    """Says why a connection failed as Go does."""
    match cause:
        case ssl.SSLCertVerificationError():
            return f"tls: failed to verify certificate: x509: {_x509(cause)}"
        case ssl.SSLError():
            return f"remote error: tls: {cause.reason or 'handshake failure'}".lower()
        case socket.gaierror():
            return f"dial tcp: lookup {host}: no such host"
        case ConnectionRefusedError():
            return f"dial tcp {place(host, port)}: connect: connection refused"
        case ConnectionResetError():
            return "EOF"
        case TimeoutError():
            return "context deadline exceeded"
        case OSError() if cause.strerror:
            return f"dial tcp {place(host, port)}: connect: {cause.strerror.lower()}"
    return str(cause)


def _x509(error: ssl.SSLCertVerificationError) -> str:
    match error.verify_code:
        case 10:
            return "certificate has expired or is not yet valid"
        case 62 | 64:
            return f"certificate is not valid for the name that was called: {error.verify_message}"
    return "certificate signed by unknown authority"
