"""Audit policies: which rule decides about a request, and what is wrong with a bad one."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from steersman.cluster.auth.attributes import read_attributes
from steersman.cluster.auth.audit import InvalidPolicy, Level, object_ref, read_policy, without_managed_fields


def policy(*rules: dict[str, Any], **more: Any) -> str:
    return yaml.safe_dump({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(rules), **more})


POD = ("GET", "/api/v1/namespaces/default/pods/web")
LOG = ("GET", "/api/v1/namespaces/default/pods/web/log")
NODES = ("GET", "/api/v1/nodes")
HEALTH = ("GET", "/healthz/ping")


@pytest.mark.parametrize(
    ("rule", "request_", "fits"),
    [
        ({}, POD, True),
        ({"users": ["jane"]}, POD, True),
        ({"users": ["bob"]}, POD, False),
        ({"userGroups": ["ops", "devs"]}, POD, True),
        ({"userGroups": ["ops"]}, POD, False),
        ({"verbs": ["get"]}, POD, True),
        ({"verbs": ["list"]}, POD, False),
        ({"verbs": ["list"]}, NODES, True),
        ({"namespaces": ["default"]}, POD, True),
        ({"namespaces": ["kube-system"]}, POD, False),
        ({"namespaces": [""]}, NODES, True),
        ({"namespaces": ["default"]}, HEALTH, False),
        ({"resources": [{"group": ""}]}, POD, True),
        ({"resources": [{"group": "apps"}]}, POD, False),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, POD, True),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, LOG, False),
        ({"resources": [{"group": "", "resources": ["pods/log"]}]}, LOG, True),
        ({"resources": [{"group": "", "resources": ["pods/*"]}]}, LOG, True),
        ({"resources": [{"group": "", "resources": ["pods/*"]}]}, POD, True),
        ({"resources": [{"group": "", "resources": ["*/log"]}]}, LOG, True),
        ({"resources": [{"group": "", "resources": ["*"]}]}, LOG, True),
        ({"resources": [{"group": "", "resources": ["pods"], "resourceNames": ["web"]}]}, POD, True),
        ({"resources": [{"group": "", "resources": ["pods"], "resourceNames": ["db"]}]}, POD, False),
        ({"nonResourceURLs": ["/healthz*"]}, HEALTH, True),
        ({"nonResourceURLs": ["/healthz"]}, HEALTH, False),
        ({"nonResourceURLs": ["*"]}, HEALTH, True),
        ({"nonResourceURLs": ["*"]}, POD, False),
    ],
    ids=str,
)
def test_a_rule_fits_by_all_that_it_names(rule: dict[str, Any], request_: tuple[str, str], fits: bool) -> None:
    found = read_policy(policy({"level": "Metadata", **rule}))
    decision = found.decide("jane", ("devs", "system:authenticated"), read_attributes(*request_, {}))
    assert decision.level is (Level.METADATA if fits else Level.NONE)


def test_the_first_rule_that_fits_decides_and_stages_are_left_out_by_it_and_by_the_policy() -> None:
    text = policy(
        {"level": "None", "users": ["system:kube-proxy"]},
        {"level": "Request", "omitStages": ["ResponseStarted"], "omitManagedFields": False},
        {"level": "RequestResponse"},
        omitStages=["RequestReceived"],
        omitManagedFields=True,
    )
    found, attributes = read_policy(text), read_attributes(*POD, {})
    assert found.decide("system:kube-proxy", (), attributes).level is Level.NONE
    decision = found.decide("jane", (), attributes)
    assert decision.level is Level.REQUEST and not decision.omit_managed_fields
    assert decision.omit_stages == {"RequestReceived", "ResponseStarted"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("kind: Pod", "must be audit.k8s.io/v1 and Policy"),
        (policy(), "rules: Required value"),
        (policy({"level": "All"}), 'rules[0].level: Unsupported value: "All": supported values: "None", "Metadata"'),
        (policy({"level": "None", "omitStages": ["End"]}), 'rules[0].omitStages[0]: Unsupported value: "End"'),
        (policy({"level": "None"}, omitStages=["End"]), "omitStages[0]: Unsupported value"),
        (
            policy({"level": "None", "namespaces": ["a"], "nonResourceURLs": ["/a"]}),
            "rules cannot apply to both regular resources and non-resource URLs",
        ),
        (policy({"level": "None", "nonResourceURLs": ["a"]}), "must begin with a '/' character"),
        (policy({"level": "None", "nonResourceURLs": ["/a*b"]}), "must be the final character"),
        (policy({"level": "None", "resources": [{"resourceNames": ["a"]}]}), "requires at least one resource"),
    ],
)
def test_a_mistake_in_a_policy_is_named(text: str, message: str) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        read_policy(text)
    assert message in str(caught.value)


def test_what_the_path_does_not_say_comes_from_the_object() -> None:
    attributes = read_attributes("POST", "/apis/apps/v1/namespaces/default/deployments", {})
    obj = {"metadata": {"name": "web", "uid": "u"}}
    assert object_ref(attributes, obj) == {
        "resource": "deployments", "namespace": "default", "name": "web", "uid": "u", "apiGroup": "apps",
        "apiVersion": "v1",
    }  # fmt: skip


def test_managed_fields_are_left_out_of_objects_and_of_lists() -> None:
    obj = {"metadata": {"name": "a", "managedFields": [{}]}}
    assert without_managed_fields({"items": [obj]}) == {"items": [{"metadata": {"name": "a"}}]}
    assert "managedFields" in obj["metadata"]
