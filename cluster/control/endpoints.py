"""Which pods answer for a Service: the endpoints of one pod, their ports, and the classic Endpoints object.

Source: https://kubernetes.io/docs/concepts/services-networking/service/#endpoints
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from steersman.cluster.control.plan import NOTHING_TO_DO, Create, Plan, delete, patch
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.objects import Obj, is_deleting, is_pod_ready, key, labels_of, name, namespace, uid
from steersman.cluster.meta.resources import ENDPOINTS, NODES, PODS, SERVICES
from steersman.cluster.meta.selectors import from_map

MANAGED_BY = "endpoints.kubernetes.io/managed-by"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
HEADLESS = "service.kubernetes.io/headless"
ZONE = "topology.kubernetes.io/zone"
#: addresses in a classic Endpoints object
ADDRESSES_MAX = 1000

#: (name, protocol, port, appProtocol)
Port = tuple[str, str, int | None, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: pods: those that the service selects; endpoints: the classic object, if it exists."""

    service: Obj | None
    pods: tuple[Obj, ...] = ()
    endpoints: Obj | None = None


def selected_pods(view: View, service: Obj) -> list[Obj]:
    """The pods that a service selects, found by the label that fewest pods have."""
    wanted = service["spec"].get("selector") or {}
    if not wanted:
        return []
    space = namespace(service)
    buckets = [view.by_index(PODS, "label", f"{space}/{label}={value}") for label, value in wanted.items()]
    selector = from_map(wanted)
    return [pod for pod in min(buckets, key=len) if selector.matches(labels_of(pod))]


def keys_of_pod(pod: Obj, view: View) -> Iterable[str]:
    """The services that select the pod."""
    space, labels = namespace(pod), labels_of(pod)
    candidates = [
        service
        for label, value in labels.items()
        for service in view.by_index(SERVICES, "selector", f"{space}/{label}={value}")
    ]
    return [key(service) for service in candidates if from_map(service["spec"].get("selector")).matches(labels)]


def is_served_by_pods(service: Obj) -> bool:
    """Whether the controllers keep a service's endpoints; else users do, or there are none."""
    spec = service["spec"]
    return bool(spec.get("selector")) and spec.get("type") != "ExternalName" and not is_deleting(service)


def is_headless(service: Obj) -> bool:
    return service["spec"].get("clusterIP") in ("None", "", None)


def can_serve(pod: Obj) -> bool:
    """Whether a pod has an address and has not ended."""
    status = pod.get("status") or {}
    return bool(addresses(pod)) and status.get("phase") not in ("Succeeded", "Failed")


def addresses(pod: Obj) -> list[str]:
    status = pod.get("status") or {}
    listed = [row["ip"] for row in status.get("podIPs") or () if row.get("ip")]
    return listed or ([status["podIP"]] if status.get("podIP") else [])


def address(pod: Obj, family: str) -> str | None:
    """The pod's address of family `IPv4` or `IPv6`."""
    return next((ip for ip in addresses(pod) if (":" in ip) == (family == "IPv6")), None)


def ports_of(service: Obj, pod: Obj) -> tuple[Port, ...]:
    """The service's ports as this pod serves them; one whose name the pod does not know is left out."""
    found: list[Port] = []
    for row in service["spec"].get("ports") or ():
        protocol = row.get("protocol") or "TCP"
        number = _target(row, protocol, pod)
        if number is not None:
            found.append((row.get("name") or "", protocol, number, row.get("appProtocol") or ""))
    return tuple(found)


def _target(row: Obj, protocol: str, pod: Obj) -> int | None:
    wanted = row.get("targetPort")
    if wanted is None or wanted == 0 or wanted == "":
        number: int = row["port"]
        return number
    if isinstance(wanted, int):
        return wanted
    spec = pod.get("spec") or {}
    sidecars = [box for box in spec.get("initContainers") or () if box.get("restartPolicy") == "Always"]
    for box in [*(spec.get("containers") or ()), *sidecars]:
        for port in box.get("ports") or ():
            if port.get("name") == wanted and (port.get("protocol") or "TCP") == protocol:
                found: int = port["containerPort"]
                return found
    return None


def target_reference(pod: Obj) -> Obj:
    return {"kind": "Pod", "namespace": namespace(pod), "name": name(pod), "uid": uid(pod)}


def hostname(service: Obj, pod: Obj) -> str:
    """The name that DNS gives the pod under a headless service."""
    spec = pod.get("spec") or {}
    found: str = spec.get("hostname") or ""
    return found if found and spec.get("subdomain") == name(service) else ""


def observe(view: View, key: str) -> Observed | None:
    service = view.get(SERVICES, key)
    endpoints = view.get(ENDPOINTS, key)
    if service is None and endpoints is None:
        return None
    pods = selected_pods(view, service) if service is not None and is_served_by_pods(service) else []
    return Observed(service=service, pods=tuple(pods), endpoints=endpoints)


def reconcile(observed: Observed, now: float) -> Plan:
    """Keeps the classic Endpoints object of a service with a selector."""
    service, old = observed.service, observed.endpoints
    if service is None or is_deleting(service):
        # what users keep for a service of theirs goes with it as well, as in Kubernetes; other Endpoints stay
        managed = old is not None and (MANAGED_BY in labels_of(old) or service is not None)
        return Plan(steps=(delete(ENDPOINTS, old),)) if old is not None and managed else NOTHING_TO_DO
    if not is_served_by_pods(service):
        return NOTHING_TO_DO
    subsets, cut = _subsets(service, observed.pods)
    labels = dict(labels_of(service)) | {MANAGED_BY: "endpoint-controller"}
    if is_headless(service):
        labels[HEADLESS] = ""
    notes = {OVER_CAPACITY: "truncated"} if cut else {}
    if old is None:
        meta: Obj = {"name": name(service), "namespace": namespace(service), "labels": labels}
        if notes:
            meta["annotations"] = notes
        wanted = {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta, "subsets": subsets}
        return Plan(steps=(Create(resource=ENDPOINTS, obj=wanted),))
    changes: Obj = {}
    if (old.get("subsets") or []) != subsets:
        changes["subsets"] = subsets
    stale = {label: None for label in labels_of(old) if label not in labels}
    if labels_of(old) != labels:
        changes["metadata"] = {"labels": {**stale, **labels}}
    if ((old["metadata"].get("annotations") or {}).get(OVER_CAPACITY) == "truncated") != cut:
        changes.setdefault("metadata", {})["annotations"] = {OVER_CAPACITY: "truncated" if cut else None}
    return Plan(steps=(patch(ENDPOINTS, old, changes),)) if changes else NOTHING_TO_DO


def _subsets(service: Obj, pods: Iterable[Obj]) -> tuple[list[Obj], bool]:
    """Returns the subsets, one for each set of ports, and whether addresses had to be left out."""
    family = (service["spec"].get("ipFamilies") or ["IPv4"])[0]
    groups: dict[tuple[Port, ...], dict[str, list[Obj]]] = {}
    serving = sorted((pod for pod in pods if can_serve(pod) and not is_deleting(pod)), key=name)
    ready_first = sorted(serving, key=lambda pod: not is_pod_ready(pod))
    count = 0
    for pod in ready_first:
        ip = address(pod, family)
        ports = ports_of(service, pod)
        if ip is None or (service["spec"].get("ports") and not ports):
            continue
        count += 1
        if count > ADDRESSES_MAX:
            break
        ready = is_pod_ready(pod) or bool(service["spec"].get("publishNotReadyAddresses"))
        row: Obj = {"ip": ip, "targetRef": target_reference(pod)}
        if node := (pod.get("spec") or {}).get("nodeName"):
            row["nodeName"] = node
        if host := hostname(service, pod):
            row["hostname"] = host
        part = "addresses" if ready else "notReadyAddresses"
        groups.setdefault(ports, {}).setdefault(part, []).append(row)
    subsets: list[Obj] = []
    for ports in sorted(groups, key=str):
        parts = {part: sorted(rows, key=lambda row: row["ip"]) for part, rows in sorted(groups[ports].items())}
        subset: Obj = dict(parts)
        if rows := [port_row(port) for port in ports]:
            subset["ports"] = rows
        subsets.append(subset)
    return subsets, count > ADDRESSES_MAX


def port_row(port: Port) -> Obj:
    title, protocol, number, application = port
    row: Obj = {"port": number, "protocol": protocol}
    if title:
        row["name"] = title
    if application:
        row["appProtocol"] = application
    return row


def zones_of(view: View, pods: Iterable[Obj]) -> Mapping[str, str]:
    """The zone of each node that the pods run on."""
    zones: dict[str, str] = {}
    for pod in pods:
        node_name = (pod.get("spec") or {}).get("nodeName") or ""
        if node_name and node_name not in zones:
            node = view.get(NODES, node_name)
            zones[node_name] = labels_of(node).get(ZONE, "") if node is not None else ""
    return zones


ENDPOINTS_CONTROLLER = ControllerSpec(
    name="endpoints",
    watches=(
        Watch(resource=SERVICES, keys=own_key, indexes=("selector",)),
        Watch(resource=PODS, keys=keys_of_pod, indexes=("label",)),
        Watch(resource=ENDPOINTS, keys=own_key),
    ),
    observe=observe,
    reconcile=reconcile,
    interval_s=0.2,
)
