"""Component statuses: what an API server says of the store, the scheduler and the controllers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from steersman.actors.leases import LEASE_S
from steersman.actors.ports import User
from steersman.cluster.meta.times import format_micro_time
from steersman.cluster.store.values import Unavailable

STATUSES = "/api/v1/componentstatuses"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


async def lease(api: Any, name: str, component: str, *, holder: str = "me", ago_s: float = 0.0) -> None:
    spec = {
        "holderIdentity": holder, "leaseDurationSeconds": LEASE_S, "renewTime": format_micro_time(time.time() - ago_s),
    }  # fmt: skip
    await api.ok(
        "POST", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases",
        {"metadata": {"name": name, "labels": {"component": component}}, "spec": spec},
    )  # fmt: skip


async def rows(api: Any) -> dict[str, list[str]]:
    table = await api.ok("GET", STATUSES, accept=TABLE)
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Status", "Message", "Error"]
    return {row["cells"][0]: row["cells"][1:] for row in table["rows"]}


async def test_who_holds_a_lease_is_healthy_and_who_let_one_lapse_is_not(api: Any) -> None:
    assert await rows(api) == {
        "controller-manager": ["Unhealthy", "no lease tells of a kube-controller-manager", ""],
        "etcd-0": ["Healthy", "ok", ""],
        "scheduler": ["Unhealthy", "no lease tells of a kube-scheduler", ""],
    }
    await lease(api, "kube-scheduler", "kube-scheduler", ago_s=LEASE_S - 5)
    await lease(api, "job-controller", "kube-controller-manager")
    assert (await rows(api))["scheduler"] == (await rows(api))["controller-manager"] == ["Healthy", "ok", ""]
    await lease(api, "node-controller", "kube-controller-manager", ago_s=LEASE_S + 5)
    await lease(api, "cron-controller", "kube-controller-manager", holder="")
    said = "nobody holds the lease cron-controller, node-controller"
    assert (await rows(api))["controller-manager"] == ["Unhealthy", said, ""]


async def test_a_process_says_itself_what_is_wrong_with_the_components_it_runs(api: Any) -> None:
    api.server.beside["scheduler"] = lambda: "it fell over"
    found = await api.ok("GET", f"{STATUSES}/scheduler")
    condition = {"type": "Healthy", "status": "False", "message": "it fell over"}
    assert found == {
        "apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": "scheduler"}, "conditions": [condition],
    }  # fmt: skip


async def test_a_store_that_does_not_answer_is_unhealthy(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails() -> int:
        raise Unavailable("no leader")

    monkeypatch.setattr(api.server.cache, "newest", fails)
    assert (await rows(api))["etcd-0"][:2] == ["Unhealthy", "error getting data from etcd: no leader"]


async def test_statuses_are_selected_read_only_and_warned_of(api: Any) -> None:
    answer = await api.call("GET", STATUSES)
    assert answer.headers["warning"] == '299 - "v1 ComponentStatus is deprecated in v1.19+"'
    listed = await api.ok("GET", f"{STATUSES}?fieldSelector=metadata.name%3Detcd-0")
    assert (listed["kind"], listed["metadata"]) == ("ComponentStatusList", {})
    assert [item["metadata"]["name"] for item in listed["items"]] == ["etcd-0"]
    assert (await api.ok("GET", f"{STATUSES}?labelSelector=a"))["items"] == []
    assert (await api.refused(404, "GET", f"{STATUSES}/etcd-1"))["message"] == 'componentstatuses "etcd-1" not found'
    for method, target in (("POST", STATUSES), ("DELETE", f"{STATUSES}/etcd-0"), ("GET", f"{STATUSES}?watch=1")):
        await api.refused(405, method, target, {} if method == "POST" else None)
    await api.refused(403, "GET", STATUSES, user=User("jane", ()))
