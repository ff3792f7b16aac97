"""What the generation of an object counts, and what a kind fills in: each row as Kubernetes has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from steersman.cluster.meta.objects import Obj

_SAMPLES: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "actors" / "apiserver" / "samples.yaml").read_text()
)
_LABEL, _ANNOTATION = {"metadata": {"labels": {"a": "b"}}}, {"metadata": {"annotations": {"a": "b"}}}


def make(api: Any, key: str) -> Obj:
    text = orjson.dumps(_SAMPLES[key]).decode().replace("NUMBER", "1").replace("NAME", "a")
    obj: Obj = orjson.loads(text)
    obj.setdefault("metadata", {}).setdefault("name", "a")
    made: Obj = api.create(key.rpartition("/")[2], obj)
    return made


@pytest.mark.parametrize(
    ("key", "patch", "first", "then"),
    [
        ("apps/v1/deployments", {"spec": {"replicas": 3}}, 1, 2),
        ("apps/v1/deployments", _ANNOTATION, 1, 2),
        ("apps/v1/deployments", _LABEL, 1, 1),
        ("apps/v1/statefulsets", _ANNOTATION, 1, 1),
        ("discovery.k8s.io/v1/endpointslices", _LABEL, 1, 2),
        ("discovery.k8s.io/v1/endpointslices", _ANNOTATION, 1, 1),
        ("scheduling.k8s.io/v1/priorityclasses", {"description": "x"}, 1, 1),
        ("storage.k8s.io/v1/csidrivers", {"spec": {"requiresRepublish": True}}, None, 1),
        ("storage.k8s.io/v1/csidrivers", {"spec": {"podInfoOnMount": True}}, None, 1),
        ("resource.k8s.io/v1/resourceslices", {"spec": {"pool": {"generation": 1}}}, 1, 2),
        ("v1/podtemplates", {"template": {"metadata": {"labels": {"a": "b"}}}}, 1, 2),
        ("v1/services", {"spec": {"selector": {"app": "other"}}}, None, None),
        ("v1/configmaps", {"data": {"a": "c"}}, None, None),
    ],
)
def test_a_generation_counts_what_it_should(api: Any, key: str, patch: Obj, first: Any, then: Any) -> None:
    made = make(api, key)
    assert made["metadata"].get("generation") == first
    changed = api.patch(key.rpartition("/")[2], made["metadata"]["name"], patch)
    assert changed["metadata"].get("generation") == then


@pytest.mark.parametrize(
    ("key", "path", "value"),
    [
        ("apps/v1/daemonsets", "status", {"currentNumberScheduled": 0, "desiredNumberScheduled": 0,
                                          "numberMisscheduled": 0, "numberReady": 0}),
        ("apps/v1/statefulsets", "status", {"replicas": 0, "availableReplicas": 0}),
        ("autoscaling/v2/horizontalpodautoscalers", "status", {"currentMetrics": None, "desiredReplicas": 0}),
        ("v1/replicationcontrollers", "metadata.labels", {"app": "web"}),
        ("v1/replicationcontrollers", "status", {"replicas": 0}),
        ("storage.k8s.io/v1/csidrivers", "spec.fsGroupPolicy", "ReadWriteOnceWithFSType"),
        ("storage.k8s.io/v1/csidrivers", "spec.volumeLifecycleModes", ["Persistent"]),
        ("storage.k8s.io/v1/storageclasses", "volumeBindingMode", "Immediate"),
        ("flowcontrol.apiserver.k8s.io/v1/flowschemas", "spec.matchingPrecedence", 1000),
        ("flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations", "spec.limited.nominalConcurrencyShares", 30),
        ("resource.k8s.io/v1/resourceclaims", "spec.devices.requests", [
            {"name": "gpu", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1}}]),
        ("networking.k8s.io/v1/networkpolicies", "spec.policyTypes", ["Ingress"]),
        ("apiregistration.k8s.io/v1/apiservices", "spec.service.port", 443),
        ("discovery.k8s.io/v1/endpointslices", "ports", [{"port": 80, "name": "", "protocol": "TCP"}]),
    ],
)  # fmt: skip
def test_what_is_left_out_is_filled_in(api: Any, key: str, path: str, value: Any) -> None:
    found: Any = make(api, key)
    for part in path.split("."):
        found = found[part]
    assert found == value


def test_how_an_autoscaler_follows_is_filled_in_where_any_of_it_is_said(api: Any) -> None:
    spec = {"maxReplicas": 5, "scaleTargetRef": {"kind": "Deployment", "name": "web"}}
    behavior = {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}
    made = api.create("horizontalpodautoscalers", {"metadata": {"name": "a"}, "spec": {**spec, "behavior": behavior}})
    assert made["spec"]["behavior"] == {
        "scaleUp": {
            "stabilizationWindowSeconds": 0, "selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15},
                         {"type": "Percent", "value": 100, "periodSeconds": 15}],
        },
        "scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}], "selectPolicy": "Max"},
    }  # fmt: skip


def test_a_job_carries_the_labels_of_its_pods(api: Any) -> None:
    made = make(api, "batch/v1/jobs")
    assert made["metadata"]["labels"] == made["spec"]["template"]["metadata"]["labels"]
    assert made["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "a"
