"""Builders of nodes and pods for the scheduler's tests."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.sched.pods import Compiler, PodInfo
from steersman.cluster.sched.snapshot import Snapshot


class World:
    """A snapshot with short words to fill it."""

    def __init__(self) -> None:
        self.snapshot = Snapshot(capacity=2)
        self.compiler = Compiler()

    def node(
        self, name: str, *, zone: str = "", taints: Any = (), cpu: str = "4", memory: str = "8Gi", **more: Any
    ) -> None:
        labels = {"kubernetes.io/hostname": name, **more.pop("labels", {})}
        if zone:
            labels["topology.kubernetes.io/zone"] = zone
        allocatable = {"cpu": cpu, "memory": memory, "pods": more.pop("pods", "110"), **more.pop("extended", {})}
        status = {"allocatable": allocatable, "images": more.pop("images", [])}
        spec = {"taints": list(taints), **more}
        self.snapshot.set_node({"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status})

    def pod(
        self, name: str, *, on: str = "", cpu: str = "", labels: Any = None, requests: Any = None, **spec: Any
    ) -> PodInfo:
        wanted = {**({"cpu": cpu} if cpu else {}), **(requests or {})}
        meta: dict[str, Any] = {"name": name, "namespace": spec.pop("namespace", "default"), "uid": f"uid-{name}"}
        meta["labels"] = labels or {}
        if owner := spec.pop("owner", ""):
            meta["ownerReferences"] = [{"kind": owner, "name": "o", "uid": "o", "controller": True}]
        if spec.pop("terminating", False):
            meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        status = spec.pop("status", {})
        containers = spec.pop("containers", [{"name": "c", "image": "web", "resources": {"requests": wanted}}])
        body = {"containers": containers, **spec, **({"nodeName": on} if on else {})}
        info = self.compiler.compile({"metadata": meta, "spec": body, "status": status})
        if on:
            self.snapshot.set_pod(info)
        return info


@pytest.fixture
def world() -> World:
    return World()
