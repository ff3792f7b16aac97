"""The downward API: fields and resources of a pod as text.

Source: https://kubernetes.io/docs/concepts/workloads/pods/downward-api/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any

from steersman.cluster.meta import quantity
from steersman.cluster.meta.objects import annotations_of, labels_of
from steersman.cluster.node.resources import limits_of, requests_of
from steersman.cluster.node.values import RuntimeFailure

_KEYED = re.compile(r"^metadata\.(labels|annotations)\['(.*)'\]$")


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def _format_map(rows: Mapping[str, str]) -> str:
    return "\n".join(f"{key}={_quote(value)}" for key, value in sorted(rows.items()))


def field_text(pod: Mapping[str, Any], path: str, *, ips: tuple[str, ...], host_ip: str) -> str:
    """Returns the value of a `fieldRef`.

    Args:
        ips: the pod's addresses as the runtime shows them, which the API may not know yet.

    Raises:
        RuntimeFailure: `CreateContainerConfigError`: the path is not supported.
    """
    meta, spec = pod["metadata"], pod["spec"]
    if match := _KEYED.match(path):
        rows = labels_of(pod) if match[1] == "labels" else annotations_of(pod)
        return rows.get(match[2], "")
    match path:
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return str(meta.get(path.removeprefix("metadata."), ""))
        case "metadata.labels":
            return _format_map(labels_of(pod))
        case "metadata.annotations":
            return _format_map(annotations_of(pod))
        case "spec.nodeName":
            return str(spec.get("nodeName", ""))
        case "spec.serviceAccountName":
            return str(spec.get("serviceAccountName", ""))
        case "status.hostIP" | "status.hostIPs":
            return host_ip
        case "status.podIP":
            return ips[0] if ips else ""
        case "status.podIPs":
            return ",".join(ips)
    raise RuntimeFailure("CreateContainerConfigError", f"unsupported fieldPath: {path}")


def resource_text(
    pod: Mapping[str, Any], container: Mapping[str, Any], ref: Mapping[str, Any], allocatable: Mapping[str, str]
) -> str:
    """Returns the value of a `resourceFieldRef`; a missing limit is what the node has.

    Raises:
        RuntimeFailure: `CreateContainerConfigError`: the container or the resource is unknown.
    """
    name = ref.get("containerName")
    if name:
        spec = pod["spec"]
        rows = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
        found = next((row for row in rows if row["name"] == name), None)
        if found is None:
            raise RuntimeFailure("CreateContainerConfigError", f"container {name} not found")
        container = found
    side, _, resource = ref.get("resource", "").partition(".")
    if side not in ("limits", "requests") or not resource:
        raise RuntimeFailure("CreateContainerConfigError", f"unsupported container resource : {ref.get('resource')}")
    limits, requests = limits_of(container), requests_of(container)
    if side == "limits":
        amount = limits.get(resource) or allocatable.get(resource, "0")
    else:
        amount = requests.get(resource, "0")
    divisor = quantity.parse(ref.get("divisor") or "1") or Decimal(1)
    return str(int((quantity.parse(amount) / divisor).to_integral_value(ROUND_CEILING)))
