"""The environment of a container: service variables, `envFrom`, `env` with references, in Kubernetes' order.

Refuses to know where configuration comes from: objects are handed in, and `wanted` says which are needed.

Source: https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-container/
and k8s.io/kubernetes/pkg/kubelet/kubelet_pods.go (makeEnvironmentVariables)
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.objects import name as name_of
from steersman.cluster.meta.objects import namespace as namespace_of
from steersman.cluster.node.downward import field_text, resource_text
from steersman.cluster.node.expansion import expand
from steersman.cluster.node.values import RuntimeFailure

#: (`ConfigMap` or `Secret`, name) -> the object, or None when it does not exist
Configuration = Mapping[tuple[str, str], Obj | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a container's environment is made from besides its own spec.

    Args:
        ips: the pod's addresses.
        services: of the pod's namespace and of `default`.
    """

    ips: tuple[str, ...]
    host_ip: str
    configuration: Configuration
    services: tuple[Obj, ...]
    allocatable: Mapping[str, str]


def wanted(container: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the (kind, name) of each ConfigMap and Secret that the container's environment reads."""
    found: dict[tuple[str, str], None] = {}
    for source in container.get("envFrom") or ():
        for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if ref := source.get(key):
                found[(kind, ref.get("name", ""))] = None
    for row in container.get("env") or ():
        source = row.get("valueFrom") or {}
        for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
            if ref := source.get(key):
                found[(kind, ref.get("name", ""))] = None
    return list(found)


def content_of(obj: Mapping[str, Any], kind: str) -> dict[str, bytes]:
    """Returns the payload of a ConfigMap or Secret as bytes by key."""
    if kind == "ConfigMap":
        rows = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
        return rows | {key: _decode(value) for key, value in (obj.get("binaryData") or {}).items()}
    return {key: _decode(value) for key, value in (obj.get("data") or {}).items()}


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return b""


def _variable(text: str) -> str:
    return text.upper().replace("-", "_")


def service_variables(services: Iterable[Mapping[str, Any]], namespace: str, *, links: bool) -> dict[str, str]:
    """Returns `NAME_SERVICE_HOST` and the like; without links only those of the API server's service."""
    rows: dict[str, str] = {}
    ordered = sorted(services, key=lambda service: (namespace_of(service), name_of(service)))
    for service in ordered:
        spec = service.get("spec") or {}
        address = spec.get("clusterIP")
        master = namespace_of(service) == "default" and name_of(service) == "kubernetes"
        if not address or address == "None" or spec.get("type") == "ExternalName":
            continue
        if master or (links and namespace_of(service) == namespace):
            rows.update(_variables_of(name_of(service), address, spec.get("ports") or ()))
    return rows


def _variables_of(service: str, address: str, ports: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    prefix = _variable(service)
    rows = {f"{prefix}_SERVICE_HOST": address}
    host = f"[{address}]" if ":" in address else address
    for index, port in enumerate(ports):
        number, protocol = port["port"], port.get("protocol") or "TCP"
        url = f"{protocol.lower()}://{host}:{number}"
        if index == 0:
            rows[f"{prefix}_SERVICE_PORT"] = str(number)
            rows[f"{prefix}_PORT"] = url
        if port.get("name"):
            rows[f"{prefix}_SERVICE_PORT_{_variable(port['name'])}"] = str(number)
        stem = f"{prefix}_PORT_{number}_{protocol.upper()}"
        rows |= {stem: url, f"{stem}_PROTO": protocol.lower(), f"{stem}_PORT": str(number), f"{stem}_ADDR": address}
    return rows


def environment(
    pod: Mapping[str, Any], container: Mapping[str, Any], around: Surroundings
) -> tuple[tuple[str, str], ...]:
    """Returns the container's variables; later ones win, and `$(NAME)` sees those before it.

    Raises:
        RuntimeFailure: `CreateContainerConfigError`: something named is missing and not optional.
    """
    links = pod["spec"].get("enableServiceLinks") is not False
    services = service_variables(around.services, namespace_of(pod), links=links)
    rows: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        rows |= _from_source(source, around.configuration)
    for row in container.get("env") or ():
        if "valueFrom" in row:
            value = _reference(pod, container, row["valueFrom"], around)
            if value is None:
                continue
        else:
            value = expand(row.get("value") or "", {**services, **rows})
        rows[row["name"]] = value
    return tuple({**services, **rows}.items())


def _missing(kind: str, name: str) -> RuntimeFailure:
    return RuntimeFailure("CreateContainerConfigError", f'{kind.lower()} "{name}" not found')


def _from_source(source: Mapping[str, Any], configuration: Configuration) -> dict[str, str]:
    kind, key = ("ConfigMap", "configMapRef") if "configMapRef" in source else ("Secret", "secretRef")
    ref = source.get(key) or {}
    obj = configuration.get((kind, ref.get("name", "")))
    if obj is None:
        if ref.get("optional"):
            return {}
        raise _missing(kind, ref.get("name", ""))
    content = content_of(obj, kind)
    if kind == "ConfigMap":
        content = {key: value for key, value in content.items() if key in (obj.get("data") or {})}
    prefix = source.get("prefix") or ""
    return {prefix + key: value.decode(errors="replace") for key, value in content.items()}


def _reference(
    pod: Mapping[str, Any], container: Mapping[str, Any], source: Mapping[str, Any], around: Surroundings
) -> str | None:
    """The value of a `valueFrom`, or None when it is optional and missing."""
    if ref := source.get("fieldRef"):
        return field_text(pod, ref["fieldPath"], ips=around.ips, host_ip=around.host_ip)
    if ref := source.get("resourceFieldRef"):
        return resource_text(pod, container, ref, around.allocatable)
    kind, key = ("ConfigMap", "configMapKeyRef") if "configMapKeyRef" in source else ("Secret", "secretKeyRef")
    ref = source.get(key)
    if not ref:
        return ""
    obj = around.configuration.get((kind, ref.get("name", "")))
    if obj is None:
        if ref.get("optional"):
            return None
        raise _missing(kind, ref.get("name", ""))
    content = content_of(obj, kind)
    if ref["key"] not in content:
        if ref.get("optional"):
            return None
        raise RuntimeFailure(
            "CreateContainerConfigError",
            f"couldn't find key {ref['key']} in {kind} {namespace_of(pod)}/{ref.get('name', '')}",
        )
    return content[ref["key"]].decode(errors="replace")
