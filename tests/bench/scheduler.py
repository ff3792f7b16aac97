"""How many pods a second the scheduler decides on, by cluster size and by what the pods ask: decisions only."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

from tests.bench.figures import Figure, median

from steersman.cluster.sched.decide import Placement, Unschedulable, schedule_batch
from steersman.cluster.sched.plugins import DEFAULT_PROFILE
from steersman.cluster.sched.pods import Compiler, PodInfo
from steersman.cluster.sched.preempt import Preemption, preempt
from steersman.cluster.sched.snapshot import Snapshot

RUNS = 3
PODS = 1000
BATCH = 64


def node(index: int) -> dict[str, Any]:
    name = f"node-{index}"
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"zone-{index % 10}"}
    allocatable = {"cpu": "32", "memory": "128Gi", "pods": "110", "ephemeral-storage": "500Gi"}
    return {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": {"allocatable": allocatable}}


def pod(index: int, spec: dict[str, Any], owner: str = "") -> dict[str, Any]:
    meta: dict[str, Any] = {
        "name": f"pod-{index}", "namespace": "default", "uid": f"uid-{index}", "labels": {"app": "bench"}
    }  # fmt: skip
    if owner:
        meta["ownerReferences"] = [{"kind": owner, "name": "bench", "uid": "owner", "controller": True}]
    container = {"name": "c", "image": "bench", "resources": {"requests": {"cpu": "100m", "memory": "200Mi"}}}
    return {"metadata": meta, "spec": {"containers": [container], **spec}}


_SELECTOR = {"matchLabels": {"app": "bench"}}
_TERM = {"labelSelector": _SELECTOR, "topologyKey": "kubernetes.io/hostname"}
_ZONE_TERM = {**_TERM, "topologyKey": "topology.kubernetes.io/zone"}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "basic": ({}, ""),
    "of a ReplicaSet": ({}, "ReplicaSet"),
    "topology spread": (
        {"topologySpreadConstraints": [{
            "topologyKey": "topology.kubernetes.io/zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": _SELECTOR,
        }]},
        "",
    ),
    "required anti-affinity": (
        {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_TERM]}}}, ""
    ),
    "required affinity": (
        {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_ZONE_TERM]}}}, ""
    ),
    "preferred affinity": (
        {"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": _ZONE_TERM}
        ]}}},
        "",
    ),
}  # fmt: skip


def measure(nodes: int, pods: int, spec: dict[str, Any], owner: str) -> float:
    """Pods a second, from compiled pods to placements assumed in the columns."""
    snapshot, compiler, rng = Snapshot(), Compiler(), random.Random(1)
    for index in range(nodes):
        snapshot.set_node(node(index))
    objects = [pod(index, spec, owner) for index in range(pods)]
    start = time.perf_counter()
    for first in range(0, pods, BATCH):
        batch = [compiler.compile(obj) for obj in objects[first : first + BATCH]]
        for found in schedule_batch(batch, snapshot, DEFAULT_PROFILE, rng):
            assert isinstance(found, Placement), found
    return pods / (time.perf_counter() - start)


def measure_preemption(nodes: int, pods: int) -> float:
    """Preemptions a second, decisions only: every node is full of pods that may be displaced, two for each."""
    snapshot, compiler, rng = Snapshot(), Compiler(), random.Random(1)

    def sized(index: int, cpu: str, **spec: Any) -> PodInfo:
        obj = pod(index, spec)
        obj["spec"]["containers"][0]["resources"]["requests"]["cpu"] = cpu
        return compiler.compile(obj)

    for index in range(nodes):
        snapshot.set_node(node(index))
        for number in range(4):
            snapshot.set_pod(sized(4 * index + number, "8", nodeName=f"node-{index}", priority=1))
    wanted = [sized(10 * nodes + index, "9", priority=100) for index in range(pods)]
    start = time.perf_counter()
    for refused in schedule_batch(wanted, snapshot, DEFAULT_PROFILE, rng):
        assert isinstance(refused, Unschedulable), refused
        found = preempt(refused, snapshot, DEFAULT_PROFILE, [], rng)
        assert isinstance(found, Preemption), found
        snapshot.nominate(found.pod, found.node)
    return pods / (time.perf_counter() - start)


def run() -> Iterator[Figure]:
    for nodes in (1000, 5000):
        for name, (spec, owner) in CASES.items():
            rates = [measure(nodes, PODS, spec, owner) for _ in range(RUNS)]
            yield median(f"scheduler.{nodes}_nodes.{name.replace(' ', '_')}", rates, "pods/s")
        rates = [measure_preemption(nodes, 50) for _ in range(RUNS)]
        yield median(f"scheduler.{nodes}_nodes.preemption", rates, "pods/s")
