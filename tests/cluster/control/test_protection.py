from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.control import indexes, protection
from steersman.cluster.control.plan import Patch
from steersman.cluster.meta.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, VOLUME_ATTRIBUTES_CLASSES


def thing(finalizer: str, **status: Any) -> dict[str, Any]:
    meta = {"name": "data", "namespace": "d", "uid": "u", "finalizers": [finalizer, "example.com/mine"]}
    return {"metadata": {**meta, "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}, "status": status}


def pod(node: str = "", **volume: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"volumes": [{"name": "v", **volume}], **({"nodeName": node} if node else {})}
    return {"metadata": {"name": "web", "namespace": "d"}, "spec": spec}


@pytest.mark.parametrize(
    ("users", "freed"), [((), True), ((pod("n"),), False), ((pod(),), True)], ids=["unused", "used", "unscheduled"]
)
def test_a_claim_is_let_go_when_no_pod_on_a_node_names_it(users: Any, freed: bool) -> None:
    claim = thing("kubernetes.io/pvc-protection")
    observed = protection.Observed(resource=PERSISTENT_VOLUME_CLAIMS, obj=claim, users=users)
    steps = protection.reconcile(observed, 0).steps
    assert bool(steps) is freed
    if steps:
        assert isinstance(steps[0], Patch)
        assert steps[0].patch == {"metadata": {"finalizers": ["example.com/mine"]}}


@pytest.mark.parametrize(("phase", "freed"), [("Bound", False), ("Released", True), ("Available", True)])
def test_a_volume_is_let_go_when_it_is_not_bound(phase: str, freed: bool) -> None:
    volume = thing("kubernetes.io/pv-protection", phase=phase)
    observed = protection.Observed(resource=PERSISTENT_VOLUMES, obj=volume)
    assert bool(protection.reconcile(observed, 0).steps) is freed


@pytest.mark.parametrize(
    ("volume", "wanted"),
    [
        ({"persistentVolumeClaim": {"claimName": "data"}}, ["d/data"]),
        ({"ephemeral": {"volumeClaimTemplate": {}}}, ["d/web-v"]),
        ({"emptyDir": {}}, []),
    ],
    ids=["claim", "ephemeral", "other"],
)
def test_the_claims_of_a_pod_are_those_its_volumes_name(volume: Any, wanted: list[str]) -> None:
    assert list(indexes.claim(pod("n", **volume))) == wanted


@pytest.mark.parametrize(("users", "freed"), [((), True), (({"metadata": {"name": "data"}},), False)])
def test_a_class_of_attributes_is_let_go_when_nothing_has_it(users: Any, freed: bool) -> None:
    gold = thing("kubernetes.io/vac-protection")
    observed = protection.Observed(resource=VOLUME_ATTRIBUTES_CLASSES, obj=gold, users=users)
    assert bool(protection.reconcile(observed, 0).steps) is freed


def test_a_claim_has_the_classes_that_it_wants_has_and_gets() -> None:
    status = {"currentVolumeAttributesClassName": "b", "modifyVolumeStatus": {"targetVolumeAttributesClassName": "c"}}
    claim = {"spec": {"volumeAttributesClassName": "a"}, "status": status}
    assert set(indexes.attributes(claim)) == {"a", "b", "c"}
    assert set(indexes.attributes({"spec": {"volumeAttributesClassName": ""}})) == set()
