"""Pods and runtime values for the tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from steersman.cluster.node.config import NodeConfig
from steersman.cluster.node.lifecycle import decide
from steersman.cluster.node.observed import Decision, Observed
from steersman.cluster.node.values import ContainerState, ContainerStatus, DnsConfig, SandboxStatus

NOW = 1_767_225_600.0
Obj = dict[str, Any]


def make_pod(**spec: Any) -> Obj:
    spec.setdefault("containers", [{"name": "main", "image": "web:1"}])
    spec.setdefault("restartPolicy", "Always")
    meta = {"name": "web", "namespace": "default", "uid": "u1", "labels": {"app": "web"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": {"phase": "Pending"}}


def sandbox(attempt: int = 0, *, ready: bool = True) -> SandboxStatus:
    return SandboxStatus(
        id=f"s{attempt}",
        pod_uid="u1",
        name="web",
        namespace="default",
        attempt=attempt,
        ready=ready,
        ips=("10.1.0.5",),
        created_at=NOW - 100,
    )


def container(name: str = "main", state: str = "running", attempt: int = 0, **fields: Any) -> ContainerStatus:
    """A container of the runtime; its id is `NAME.ATTEMPT`."""
    times = {"created_at": NOW - 60, "started_at": NOW - 60, "finished_at": NOW if state == "exited" else 0.0}
    reason = "" if state != "exited" else ("Error" if fields.get("exit_code") else "Completed")
    return ContainerStatus(
        **{
            "id": f"{name}.{attempt}",
            "sandbox_id": "s0",
            "pod_uid": "u1",
            "pod_name": "web",
            "namespace": "default",
            "name": name,
            "attempt": attempt,
            "state": ContainerState(state),
            "image": "sha256:1",
            "reason": reason,
            **times,
            **fields,
        }
    )


@dataclass
class Node:
    """Decides about one pod on node `n1`."""

    config: NodeConfig = field(
        default_factory=lambda: NodeConfig(
            name="n1",
            address="10.0.0.1",
            hostname="host-1",
            cluster_dns=("10.96.0.10",),
            host_dns=DnsConfig(servers=("9.9.9.9",), searches=("lan",), options=("timeout:1",)),
        )
    )

    def decide(self, pod: Obj, now: float = NOW, **seen: Any) -> Decision:
        seen.setdefault("mounted", True)
        if "sandboxes" not in seen:
            seen["sandboxes"] = (sandbox(),)
        return decide(
            pod, Observed(**seen), now, config=self.config, before=pod.get("status") or {}, runtime="simulated"
        )


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def pod_of() -> Callable[..., Obj]:
    return make_pod


@pytest.fixture
def box() -> Callable[..., SandboxStatus]:
    return sandbox


@pytest.fixture
def ran() -> Callable[..., ContainerStatus]:
    return container
