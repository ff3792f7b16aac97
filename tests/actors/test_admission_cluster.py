"""Admission in a whole cluster: what the conformance suite asks of quotas, limit ranges and priority classes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from steersman import testing
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import (
    CONFIG_MAPS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICES,
    Resource,
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with testing.cluster(nodes=1) as found:
        yield found


def until_used(cluster: Any, name: str, wanted: dict[str, str]) -> None:
    """Waits until a quota's status says what is used."""
    deadline = time.monotonic() + 10
    status: Obj = {}
    while time.monotonic() < deadline:
        status = cluster.run(cluster.client.get(RESOURCE_QUOTAS, name, "default")).get("status") or {}
        if all((status.get("used") or {}).get(key) == value for key, value in wanted.items()):
            return
        time.sleep(0.05)
    raise AssertionError(f"wanted {wanted}, found {status}")


TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
LIVES: list[tuple[str, Resource, Obj]] = [
    ("configmaps", CONFIG_MAPS, {}),
    ("secrets", SECRETS, {}),
    ("services", SERVICES, {"spec": {"ports": [{"port": 80}]}}),
    ("replicationcontrollers", REPLICATION_CONTROLLERS, {
        "spec": {"replicas": 0, "selector": {"a": "b"}, "template": TEMPLATE}}),
    ("count/replicasets.apps", REPLICA_SETS, {
        "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}}),
    ("pods", PODS, {"spec": TEMPLATE["spec"]}),
]  # fmt: skip


@pytest.mark.parametrize(("bound", "resource", "body"), LIVES, ids=[row[0] for row in LIVES])
def test_a_quota_captures_the_life_of_an_object(cluster: Any, bound: str, resource: Resource, body: Obj) -> None:
    client, name = cluster.client, f"q-{resource.plural}"
    hard = {bound: "50", "resourcequotas": "50"}
    before = len(cluster.run(client.list(resource, "default")).items)
    quota = {"metadata": {"name": name, "namespace": "default"}, "spec": {"hard": hard}}
    cluster.run(client.create(RESOURCE_QUOTAS, quota))
    until_used(cluster, name, {bound: str(before)})
    obj = {"metadata": {"name": "x", "namespace": "default"}, **body}
    cluster.run(client.create(resource, obj))
    until_used(cluster, name, {bound: str(before + 1)})
    cluster.run(client.delete(resource, "x", "default"))
    until_used(cluster, name, {bound: str(before)})
