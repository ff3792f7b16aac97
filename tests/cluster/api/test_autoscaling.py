"""Autoscalers through both of their versions."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api import write
from steersman.cluster.api.rules import autoscaling
from steersman.cluster.api.steps import settled
from steersman.cluster.meta.objects import Obj

REFERENCE = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}
MEMORY = {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}}


def autoscaler(version: str, **spec: Any) -> Obj:
    return {
        "apiVersion": f"autoscaling/{version}", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
        "spec": {"scaleTargetRef": REFERENCE, "maxReplicas": 5, **spec},
    }  # fmt: skip


def test_the_older_form_is_stored_as_the_newer() -> None:
    stored = autoscaling.to_v2(autoscaler("v1", targetCPUUtilizationPercentage=60))
    assert stored == autoscaler("v2", metrics=[CPU])


@pytest.mark.parametrize(
    "spec",
    [
        {"metrics": [CPU]},
        {"metrics": [CPU, MEMORY]},
        {"metrics": [MEMORY], "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}}},
    ],
    ids=["cpu", "two", "behaviour"],
)
def test_nothing_is_lost_through_the_older_form(spec: Obj) -> None:
    stored = autoscaler("v2", **spec)
    stored["status"] = {"currentReplicas": 2, "desiredReplicas": 2, "conditions": [{"type": "AbleToScale"}]}
    older = autoscaling.from_v2(stored)
    assert older["apiVersion"] == "autoscaling/v1" and "metrics" not in older["spec"]
    assert autoscaling.to_v2(older) == stored


def test_an_annotation_that_carries_nothing_usable_stays_an_annotation() -> None:
    obj = autoscaler("v1")
    obj["metadata"]["annotations"] = {"autoscaling.alpha.kubernetes.io/metrics": "[1]"}
    stored = autoscaling.to_v2(obj)
    assert "metrics" not in stored["spec"] and stored["metadata"] == obj["metadata"]


def owners(obj: Obj) -> dict[str, Obj]:
    return {row["manager"]: row["fieldsV1"].get("f:spec", {}) for row in obj["metadata"]["managedFields"]}


def test_a_change_through_one_version_takes_over_what_it_means_in_the_other(api: Any) -> None:
    new, old = (api.registry.kind("autoscaling", v, "horizontalpodautoscalers") for v in ("v2", "v1"))
    made = api.create("horizontalpodautoscalers", autoscaler("v2"), field_manager="first")
    assert "f:metrics" in owners(made)["first"]
    seen = old.served(made)
    seen["spec"]["targetCPUUtilizationPercentage"] = 50
    written = settled(write.update(api.registry, old, seen, old.served(made), "", api.context(field_manager="second")))
    found = owners(new.served(old.stored(written.obj)))
    assert found["second"] == {"f:targetCPUUtilizationPercentage": {}}
    assert "f:metrics" not in found["first"] and "f:maxReplicas" in found["first"]
