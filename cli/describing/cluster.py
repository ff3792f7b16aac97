"""Services, nodes and everything else in words."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from steersman.cli.describing.sheet import Sheet, conditions, head, moment
from steersman.cluster.api.columns.column import labels_text
from steersman.cluster.api.columns.network import external_ip
from steersman.cluster.api.columns.nodes import node_roles
from steersman.cluster.meta import quantity
from steersman.cluster.meta.objects import Obj

_HIDDEN = ("managedFields", "name", "namespace", "labels", "annotations", "creationTimestamp")


def service(sheet: Sheet, obj: Obj, slices: Sequence[Obj]) -> None:
    spec = obj["spec"]
    head(sheet, obj, created=False)
    sheet.field("Selector", labels_text(spec.get("selector")))
    sheet.field("Type", spec.get("type", ""))
    sheet.optional("IP Family Policy", spec.get("ipFamilyPolicy"))
    sheet.optional("IP Families", ",".join(spec.get("ipFamilies") or ()))
    sheet.field("IP", spec.get("clusterIP") or "")
    sheet.optional("IPs", ",".join(spec.get("clusterIPs") or ()))
    if spec.get("type") in ("LoadBalancer", "ExternalName") or spec.get("externalIPs"):
        sheet.field("External", external_ip(obj))
    for port in spec.get("ports") or ():
        name = port.get("name") or "<unset>"
        protocol = port.get("protocol", "TCP")
        sheet.field("Port", f"{name}  {port['port']}/{protocol}")
        sheet.field("TargetPort", f"{port.get('targetPort', port['port'])}/{protocol}")
        if port.get("nodePort"):
            sheet.field("NodePort", f"{name}  {port['nodePort']}/{protocol}")
        sheet.field("Endpoints", _endpoints(slices, port) or "<none>")
    sheet.field("Session Affinity", spec.get("sessionAffinity", "None"))
    sheet.optional("External Traffic Policy", spec.get("externalTrafficPolicy"))
    sheet.optional("Internal Traffic Policy", spec.get("internalTrafficPolicy"))


def _endpoints(slices: Sequence[Obj], port: Obj) -> str:
    found = []
    for row in slices:
        numbers = [p.get("port") for p in row.get("ports") or () if (p.get("name") or "") == (port.get("name") or "")]
        for endpoint in row.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready", True):
                found += [f"{address}:{number}" for address in endpoint.get("addresses") or () for number in numbers]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(found[:3]) + more


def node(sheet: Sheet, obj: Obj, pods: Sequence[Obj], lease: Obj | None) -> None:
    spec, status = obj["spec"], obj.get("status") or {}
    sheet.field("Name", obj["metadata"]["name"])
    sheet.field("Roles", node_roles(obj))
    sheet.pairs("Labels", obj["metadata"].get("labels"))
    sheet.pairs("Annotations", obj["metadata"].get("annotations"), ": ")
    sheet.field("CreationTimestamp", moment(obj["metadata"].get("creationTimestamp")))
    taints = [f"{t['key']}{'=' + t['value'] if t.get('value') else ''}:{t['effect']}" for t in spec.get("taints") or ()]
    sheet.field("Taints", "\n".join(taints) or "<none>")
    sheet.field("Unschedulable", bool(spec.get("unschedulable")))
    if lease is not None:
        with sheet.section("Lease"):
            sheet.field("HolderIdentity", (lease.get("spec") or {}).get("holderIdentity", "<unset>"))
            sheet.field("RenewTime", moment((lease.get("spec") or {}).get("renewTime")))
    conditions(sheet, obj)
    with sheet.section("Addresses"):
        for row in status.get("addresses") or ():
            sheet.field(row["type"], row["address"])
    for label in ("capacity", "allocatable"):
        with sheet.section(label.title()):
            for name, amount in sorted((status.get(label) or {}).items()):
                sheet.field(name, amount)
    with sheet.section("System Info"):
        for name, value in sorted((status.get("nodeInfo") or {}).items()):
            sheet.field(_spaced(name), value)
    sheet.optional("PodCIDR", spec.get("podCIDR"))
    _node_pods(sheet, [pod for pod in pods if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")])
    _allocated(sheet, status.get("allocatable") or {}, pods)


def _node_pods(sheet: Sheet, pods: Sequence[Obj]) -> None:
    with sheet.section("Non-terminated Pods", f"({len(pods)} in total)"):
        rows = []
        for pod in pods:
            parts = [(part, name) for name in ("cpu", "memory") for part in ("requests", "limits")]
            amounts = [_text(_requested(pod, part, name), name) for part, name in parts]
            rows.append([pod["metadata"]["namespace"], pod["metadata"]["name"], *amounts])
        sheet.table(["Namespace", "Name", "CPU Requests", "CPU Limits", "Memory Requests", "Memory Limits"], rows)


def _requested(pod: Obj, part: str, name: str) -> Decimal:
    total = Decimal(0)
    for container in pod["spec"].get("containers") or ():
        amount = ((container.get("resources") or {}).get(part) or {}).get(name)
        total += quantity.parse(amount) if amount is not None else 0
    return total


def _text(amount: Decimal, name: str) -> str:
    return quantity.format_value(amount, "BinarySI" if name != "cpu" else "DecimalSI")


def _allocated(sheet: Sheet, allocatable: Obj, pods: Sequence[Obj]) -> None:
    with sheet.section("Allocated resources"):
        rows = []
        for name in ("cpu", "memory", "ephemeral-storage"):
            room = quantity.parse(allocatable[name]) if name in allocatable else Decimal(0)
            cells = []
            for part in ("requests", "limits"):
                total = sum((_requested(pod, part, name) for pod in pods), Decimal(0))
                share = int(100 * total / room) if room else 0
                cells.append(f"{_text(total, name)} ({share}%)")
            rows.append([name, *cells])
        sheet.table(["Resource", "Requests", "Limits"], rows)


def anything(sheet: Sheet, obj: Obj) -> None:
    """Any object, field by field."""
    head(sheet, obj, created=False)
    sheet.field("API Version", obj.get("apiVersion", ""))
    sheet.field("Kind", obj.get("kind", ""))
    with sheet.section("Metadata"):
        sheet.field("Creation Timestamp", moment(obj["metadata"].get("creationTimestamp")))
        _tree(sheet, {k: v for k, v in obj["metadata"].items() if k not in _HIDDEN})
    _tree(sheet, {k: v for k, v in obj.items() if k not in ("apiVersion", "kind", "metadata")})


def secret(sheet: Sheet, obj: Obj) -> None:
    """A secret: the sizes of its values, never the values."""
    head(sheet, obj, created=False)
    sheet.field("Type", obj.get("type", ""))
    with sheet.section("Data"):
        for key, value in sorted((obj.get("data") or {}).items()):
            padding = value.count("=")
            sheet.field(key, f"{len(value) * 3 // 4 - padding} bytes")


def config_map(sheet: Sheet, obj: Obj) -> None:
    head(sheet, obj, created=False)
    with sheet.section("Data"):
        for key, value in sorted((obj.get("data") or {}).items()):
            sheet.plain(f"{key}:\n----\n{value}\n")
    with sheet.section("BinaryData"):
        for key, value in sorted((obj.get("binaryData") or {}).items()):
            sheet.field(key, f"{len(value) * 3 // 4} bytes")


def _tree(sheet: Sheet, value: Obj) -> None:
    for key, item in value.items():
        label = _spaced(key) if key.isidentifier() else key
        if isinstance(item, dict) and item:
            with sheet.section(label):
                _tree(sheet, item)
        elif isinstance(item, list) and item:
            with sheet.section(label):
                _items(sheet, item)
        else:
            sheet.field(label, _scalar(item))


def _items(sheet: Sheet, rows: list[Any]) -> None:
    for row in rows:
        if isinstance(row, dict):
            _tree(sheet, row)
        else:
            sheet.plain(_scalar(row))


def _scalar(value: Any) -> str:
    return "" if value in ({}, [], None) else str(value)


def _spaced(key: str) -> str:
    """`lastTransitionTime` as `Last Transition Time`."""
    text = "".join(f" {char}" if char.isupper() and not key[i - 1].isupper() else char for i, char in enumerate(key))
    return text[:1].upper() + text[1:]
