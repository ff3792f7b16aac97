from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.control import ipaddresses, servicecidrs
from steersman.cluster.control.plan import Create, Delete, Patch
from steersman.cluster.meta.clusterips import ip_object
from steersman.cluster.meta.times import format_time

NOW = 1_800_000_000.0
FINALIZER = "networking.k8s.io/service-cidr-finalizer"


def cidr(name: str, *ranges: str, deleted_s: float | None = None, **status: Any) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, "uid": name}
    if deleted_s is not None:
        meta |= {"finalizers": [FINALIZER], "deletionTimestamp": format_time(NOW - deleted_s)}
    return {"metadata": meta, "spec": {"cidrs": list(ranges)}, "status": status}


def service(name: str, *ips: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "d", "uid": name}, "spec": {"clusterIPs": list(ips)}}


def address(ip: str, of: str = "web", created_s: float = 0.0, **parent: Any) -> dict[str, Any]:
    found = ip_object(service(of, ip), ip)
    found["metadata"] |= {"uid": ip, "resourceVersion": "7", "creationTimestamp": format_time(NOW - created_s)}
    found["spec"]["parentRef"] |= parent
    return found


def test_a_new_range_gets_its_finalizer_and_is_ready() -> None:
    steps = servicecidrs.reconcile(servicecidrs.Observed(obj=cidr("a", "10.0.0.0/24")), NOW).steps
    assert [step.patch for step in steps if isinstance(step, Patch)] == [
        {"metadata": {"finalizers": [FINALIZER]}},
        {"status": {"conditions": [
            {"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready",
             "lastTransitionTime": format_time(NOW)},
        ]}},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("others", "addresses", "outcome"),
    [
        ((), (), "gone"),
        ((), ("10.0.0.5",), "kept"),
        ((), ("10.1.0.5", "10.0.0.0", "10.0.0.255"), "gone"),
        ((cidr("b", "10.0.0.0/23"),), ("10.0.0.5",), "gone"),
        ((cidr("b", "10.0.0.0/29"),), ("10.0.0.5",), "gone"),
        ((cidr("b", "10.0.0.0/30"),), ("10.0.0.5",), "kept"),
    ],
    ids=["unused", "used", "used elsewhere", "within another", "address in another", "address in no other"],
)
def test_a_range_stays_while_it_alone_holds_an_address(others: Any, addresses: Any, outcome: str) -> None:
    going = cidr("a", "10.0.0.0/24", deleted_s=11)
    held = tuple(address(ip) for ip in addresses)
    plan = servicecidrs.reconcile(servicecidrs.Observed(obj=going, others=others, addresses=held), NOW)
    (step,) = plan.steps
    assert isinstance(step, Patch)
    if outcome == "gone":
        assert step.patch == {"metadata": {"finalizers": None}}
    else:
        (row,) = step.patch["status"]["conditions"]
        assert (row["status"], row["reason"]) == ("False", "Terminating")


def test_a_range_goes_when_every_server_knows_that_it_does() -> None:
    plan = servicecidrs.reconcile(servicecidrs.Observed(obj=cidr("a", "10.0.0.0/24", deleted_s=4)), NOW)
    assert (plan.steps, plan.requeue_after_s) == ((), pytest.approx(6.0))


@pytest.mark.parametrize(
    ("held", "other", "wanted", "event"),
    [
        (address("10.0.0.5"), None, [], ""),
        (None, None, [Create], "ClusterIPNotAllocated"),
        (address("10.0.0.5", resource="gateways", group="example.com"), None, [Delete, Create],
         "ClusterIPNotAllocated"),
        (address("10.0.0.5", "old"), None, [Delete, Create], "ClusterIPNotAllocated"),
        (address("10.0.0.5", "old"), service("old", "10.0.0.5"), [], "ClusterIPAlreadyAllocated"),
        ({**address("10.0.0.5"), "metadata": {"name": "10.0.0.5", "uid": "u"}}, None, [Delete, Create], ""),
    ],
    ids=["right", "missing", "another kind", "a Service that is gone", "two Services", "labels"],
)  # fmt: skip
def test_each_address_of_a_service_has_its_object(held: Any, other: Any, wanted: Any, event: str) -> None:
    found = ipaddresses.Observed(
        service=service("web", "10.0.0.5"),
        held={"10.0.0.5": held} if held else {},
        namesakes={"10.0.0.5": other} if other else {},
        in_range=frozenset({"10.0.0.5"}),
    )
    plan = ipaddresses.reconcile(found, NOW)
    assert [type(step) for step in plan.steps] == wanted
    assert [row.reason for row in plan.events] == ([event] if event else [])


def test_an_address_of_no_range_is_told_and_left() -> None:
    plan = ipaddresses.reconcile(ipaddresses.Observed(service=service("web", "10.9.0.5")), NOW)
    assert (plan.steps, [row.reason for row in plan.events]) == ((), ["ClusterIPOutOfRange"])
    assert plan.events[0].message == (
        "Cluster IP [IPv4]: 10.9.0.5 is not within any configured Service CIDR; please recreate service"
    )


@pytest.mark.parametrize(
    ("obj", "owner", "goes", "again_s"),
    [
        (address("10.0.0.5"), service("web", "10.0.0.5"), False, None),
        (address("10.0.0.5", created_s=61), None, True, None),
        (address("10.0.0.5", created_s=20), None, False, 40.0),
        (address("10.0.0.5"), service("web", "10.0.0.6"), True, None),
        (address("10.0.0.5", resource="pods"), None, True, None),
    ],
    ids=["right", "left behind", "perhaps too new", "of another address", "another kind"],
)
def test_an_address_without_its_service_goes(obj: Any, owner: Any, goes: bool, again_s: float | None) -> None:
    plan = ipaddresses.reconcile(ipaddresses.Observed(address=obj, service=owner), NOW)
    assert [type(step) for step in plan.steps] == ([Delete] if goes else [])
    assert plan.requeue_after_s == again_s
