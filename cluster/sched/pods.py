"""A pod as the scheduler sees it: what differs (name, uid, age) apart from what equal pods share (its class).

Pods of one class fit the same nodes with the same scores, so that everything derived from a spec is computed once.
Source: https://kubernetes.io/docs/concepts/scheduling-eviction/
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from steersman.cluster.meta.objects import Obj, controller_of, is_deleting, labels_of
from steersman.cluster.meta.quantity import milli, whole
from steersman.cluster.meta.times import parse_time
from steersman.cluster.sched.terms import (
    NodeTerm,
    PodTerm,
    SpreadConstraint,
    Toleration,
    node_term,
    node_terms,
    pod_term,
    spread_constraint,
    tolerations_of,
)

#: what a container without requests counts for in scores, so that many of them do not pile up on one node
DEFAULT_CPU_MILLI = 100
DEFAULT_MEMORY_BYTES = 200 * 1024 * 1024
#: distinct classes kept; a forgotten one is only compiled again
CLASSES_MAX = 8192


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of the node that a pod takes; `ip` is `0.0.0.0` for every address."""

    protocol: str
    port: int
    ip: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PodClass:
    """What equal pods share; one object per distinct class, so identity is equality.

    Args:
        requests: (resource, amount) above zero; cpu in thousandths, all else in whole units.
        scored_requests: (cpu milli, memory bytes) with the defaults for containers that ask for nothing.
        required_nodes: alternatives of which one must match; None when there is no such condition.
        preferred_nodes: (weight, term).
        affinity, anti_affinity: required; preferred: (weight, term), negative for anti-affinity.
        spread: the pod's own constraints.
        spread_owner: labels that its siblings of one ReplicaSet or StatefulSet share; empty without such an owner.
    """

    namespace: str
    labels: Mapping[str, str]
    requests: tuple[tuple[str, int], ...]
    scored_requests: tuple[int, int]
    best_effort: bool
    required_nodes: tuple[NodeTerm, ...] | None
    preferred_nodes: tuple[tuple[int, NodeTerm], ...]
    tolerations: tuple[Toleration, ...]
    ports: tuple[HostPort, ...]
    spread: tuple[SpreadConstraint, ...]
    spread_owner: tuple[tuple[str, str], ...]
    affinity: tuple[PodTerm, ...]
    anti_affinity: tuple[PodTerm, ...]
    preferred_pods: tuple[tuple[int, PodTerm], ...]
    images: tuple[str, ...]
    priority: int
    preempts: bool

    @property
    def label_set(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        return self.namespace, tuple(sorted(self.labels.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class PodInfo:
    """One pod.

    Args:
        node: where it is bound, or assumed to be; empty while pending.
        nominated: the node that preemption made room on.
        created: Unix seconds; started: when its node took it up, or its creation.
        gated: names of scheduling gates that hold it back.
    """

    uid: str
    namespace: str
    name: str
    pod_class: PodClass
    node: str = ""
    nominated: str = ""
    terminating: bool = False
    finished: bool = False
    created: float = 0.0
    started: float = 0.0
    gated: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class Compiler:
    """Turns pod objects into `PodInfo`, keeping one `PodClass` per distinct class (bounded, oldest forgotten)."""

    def __init__(self) -> None:
        self._classes: OrderedDict[bytes, PodClass] = OrderedDict()

    def compile(self, pod: Obj) -> PodInfo:
        """Returns the pod's view.

        Raises:
            SelectorError: a selector in its spec is malformed (validation lets none through).
        """
        meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
        created = parse_time(meta["creationTimestamp"]) if meta.get("creationTimestamp") else 0.0
        return PodInfo(
            uid=meta.get("uid", ""),
            namespace=meta.get("namespace", ""),
            name=meta["name"],
            pod_class=self._class(pod, spec),
            node=spec.get("nodeName") or "",
            nominated=status.get("nominatedNodeName") or "",
            terminating=is_deleting(pod),
            finished=status.get("phase") in ("Succeeded", "Failed"),
            created=created,
            started=parse_time(status["startTime"]) if status.get("startTime") else created,
            gated=tuple(gate["name"] for gate in spec.get("schedulingGates") or ()),
        )

    def _class(self, pod: Obj, spec: Obj) -> PodClass:
        key = _class_key(pod, spec)
        found = self._classes.get(key)
        if found is None:
            found = self._classes[key] = _compile_class(pod, spec)
            if len(self._classes) > CLASSES_MAX:
                self._classes.popitem(last=False)
        else:
            self._classes.move_to_end(key)
        return found


_CLASS_FIELDS = (
    "nodeSelector", "affinity", "tolerations", "topologySpreadConstraints", "priority", "preemptionPolicy", "overhead",
    "resources", "hostNetwork",
)  # fmt: skip


def _class_key(pod: Obj, spec: Obj) -> bytes:
    containers = [
        (c.get("image"), c.get("resources"), c.get("ports"), c.get("restartPolicy"))
        for field in ("containers", "initContainers")
        for c in spec.get(field) or ()
    ]
    shape = [
        pod["metadata"].get("namespace"),
        labels_of(pod),
        len(spec.get("initContainers") or ()),
        containers,
        [spec.get(field) for field in _CLASS_FIELDS],
        _owner_kind(pod),
    ]
    return orjson.dumps(shape, option=orjson.OPT_SORT_KEYS)


def _owner_kind(pod: Obj) -> str:
    owner = controller_of(pod)
    return owner["kind"] if owner else ""


def _compile_class(pod: Obj, spec: Obj) -> PodClass:
    namespace, labels = pod["metadata"].get("namespace", ""), dict(labels_of(pod))
    affinity = spec.get("affinity") or {}
    near, far = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}

    def required(part: Obj) -> tuple[PodTerm, ...]:
        rows = part.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        return tuple(pod_term(row, namespace, labels) for row in rows)

    def preferred(part: Obj, sign: int) -> list[tuple[int, PodTerm]]:
        rows = part.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        return [(sign * row["weight"], pod_term(row["podAffinityTerm"], namespace, labels)) for row in rows]

    requests = effective_requests(spec)
    return PodClass(
        namespace=namespace,
        labels=labels,
        requests=tuple(sorted((name, amount) for name, amount in requests.items() if amount > 0)),
        scored_requests=_scored_requests(spec),
        best_effort=not any(requests.get(name) for name in ("cpu", "memory")),
        required_nodes=_required_nodes(spec),
        preferred_nodes=_preferred_nodes(affinity),
        tolerations=tolerations_of(spec.get("tolerations") or ()),
        ports=_host_ports(spec),
        spread=tuple(spread_constraint(row, labels) for row in spec.get("topologySpreadConstraints") or ()),
        spread_owner=_spread_owner(pod, labels),
        affinity=required(near),
        anti_affinity=required(far),
        preferred_pods=tuple(preferred(near, 1) + preferred(far, -1)),
        images=tuple(_image_name(c.get("image") or "") for c in _all_containers(spec)),
        priority=int(spec.get("priority") or 0),
        preempts=spec.get("preemptionPolicy") != "Never",
    )


def _required_nodes(spec: Obj) -> tuple[NodeTerm, ...] | None:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    terms = node_terms(required.get("nodeSelectorTerms") or ()) if required else (NodeTerm(),)
    wanted = spec.get("nodeSelector") or {}
    if not required and not wanted:
        return None
    extra = node_term({"matchExpressions": [{"key": k, "operator": "In", "values": [v]} for k, v in wanted.items()]})
    if not required:
        return (extra,)
    return tuple(
        NodeTerm((*term.labels, *extra.labels), (*term.names, *extra.names)) for term in terms if not term.empty
    )


def _preferred_nodes(affinity: Obj) -> tuple[tuple[int, NodeTerm], ...]:
    rows = (affinity.get("nodeAffinity") or {}).get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    found = ((row["weight"], node_term(row["preference"])) for row in rows)
    return tuple((weight, term) for weight, term in found if not term.empty)


def _spread_owner(pod: Obj, labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if _owner_kind(pod) not in ("ReplicaSet", "ReplicationController", "StatefulSet"):
        return ()
    own = ("statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index")
    return tuple(sorted((key, value) for key, value in labels.items() if key not in own))


def _all_containers(spec: Obj) -> Iterable[Obj]:
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def _image_name(image: str) -> str:
    tail = image.rpartition("/")[2]
    return image if ":" in tail or "@" in tail else image + ":latest"


def _host_ports(spec: Obj) -> tuple[HostPort, ...]:
    containers = list(spec.get("containers") or ())
    containers += [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    return tuple(
        HostPort(port.get("protocol") or "TCP", int(port["hostPort"]), port.get("hostIP") or "0.0.0.0")
        for container in containers
        for port in container.get("ports") or ()
        if port.get("hostPort")
    )


def _amount(name: str, quantity: Any) -> int:
    return milli(quantity) if name == "cpu" else whole(quantity)


def _requests_of(container: Obj) -> dict[str, int]:
    requests = (container.get("resources") or {}).get("requests") or {}
    return {name: _amount(name, quantity) for name, quantity in requests.items()}


def _scored_requests_of(container: Obj) -> dict[str, int]:
    found = _requests_of(container)
    return {"cpu": found.get("cpu", DEFAULT_CPU_MILLI), "memory": found.get("memory", DEFAULT_MEMORY_BYTES)}


def _total(spec: Obj, requests_of: Any) -> dict[str, int]:
    """The most that a pod needs at once: all containers, or one init container and the sidecars before it."""
    total: dict[str, int] = {}
    for container in spec.get("containers") or ():
        for name, amount in requests_of(container).items():
            total[name] = total.get(name, 0) + amount
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        needs = requests_of(container)
        if container.get("restartPolicy") == "Always":
            for name, amount in needs.items():
                total[name] = total.get(name, 0) + amount
                sidecars[name] = sidecars.get(name, 0) + amount
            needs = {}
        for name in needs.keys() | sidecars.keys():
            peak[name] = max(peak.get(name, 0), needs.get(name, 0) + sidecars.get(name, 0))
    for name, amount in peak.items():
        total[name] = max(total.get(name, 0), amount)
    return total


def effective_requests(spec: Obj) -> dict[str, int]:
    """Returns what a pod takes of a node: resource to amount (cpu in thousandths, all else in whole units)."""
    total = _total(spec, _requests_of)
    for name, quantity in ((spec.get("resources") or {}).get("requests") or {}).items():
        total[name] = _amount(name, quantity)
    for name, quantity in (spec.get("overhead") or {}).items():
        total[name] = total.get(name, 0) + _amount(name, quantity)
    return total


def _scored_requests(spec: Obj) -> tuple[int, int]:
    total = _total(spec, _scored_requests_of)
    whole_pod = (spec.get("resources") or {}).get("requests") or {}
    for name in ("cpu", "memory"):
        if name in whole_pod:
            total[name] = _amount(name, whole_pod[name])
    overhead = spec.get("overhead") or {}
    return (
        total.get("cpu", 0) + milli(overhead.get("cpu", 0)),
        total.get("memory", 0) + whole(overhead.get("memory", 0)),
    )
