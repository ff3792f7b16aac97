"""What is empty is not told from what is absent, as Kubernetes' types have it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from steersman.cluster.api.decode import decode
from steersman.cluster.api.schema.zeros import ZERO_MEANS_ABSENT

CONTAINER = {"name": "a", "image": "b"}
CASES = {
    "metadata": (
        ("", "v1", "configmaps"),
        {
            "metadata": {"name": "a", "labels": {}, "annotations": {}, "finalizers": [], "ownerReferences": []},
            "data": {},
        },
        {"metadata": {"name": "a"}},
    ),
    "in the depth": (
        ("", "v1", "pods"),
        {"spec": {"volumes": [], "containers": [{**CONTAINER, "env": [], "args": [], "resources": {"limits": {}}}]}},
        {"spec": {"containers": [{**CONTAINER, "resources": {}}]}},
    ),
    "structures stay": (
        ("", "v1", "pods"),
        {"spec": {"containers": [CONTAINER], "securityContext": {}, "volumes": [{"name": "v", "emptyDir": {}}]}},
        {"spec": {"containers": [CONTAINER], "securityContext": {}, "volumes": [{"name": "v", "emptyDir": {}}]}},
    ),
    "what is required stays": (
        ("", "v1", "limitranges"),
        {"metadata": {"name": "a"}, "spec": {"limits": []}},
        {"metadata": {"name": "a"}, "spec": {"limits": []}},
    ),
    "what is always written stays": (
        ("discovery.k8s.io", "v1", "endpointslices"),
        {"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": [], "ports": []},
        {"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": [], "ports": []},
    ),
    "scalars that are held by value": (
        ("", "v1", "pods"),
        {"spec": {"hostNetwork": False, "nodeName": "", "containers": [{**CONTAINER, "tty": False, "workingDir": ""}]}},
        {"spec": {"containers": [CONTAINER]}},
    ),
    "scalars that are pointers": (
        ("", "v1", "pods"),
        {"spec": {"enableServiceLinks": False, "priority": 0, "runtimeClassName": "", "containers": [CONTAINER]}},
        {"spec": {"enableServiceLinks": False, "priority": 0, "runtimeClassName": "", "containers": [CONTAINER]}},
    ),
    "no replicas": (
        ("apps", "v1", "deployments"),
        {"spec": {"replicas": 0, "paused": False}, "status": {"replicas": 0}},
        {"spec": {"replicas": 0}, "status": {}},
    ),
    "a rule for everybody": (
        ("networking.k8s.io", "v1", "networkpolicies"),
        {"spec": {"podSelector": {"matchLabels": {}}, "ingress": [{"from": [], "ports": []}], "egress": []}},
        {"spec": {"podSelector": {}, "ingress": [{}]}},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_empty_is_left_out(api: Any, case: str) -> None:
    address, sent, wanted = CASES[case]
    kind = api.registry.kind(*address)
    found, warnings = decode(api.registry, kind, orjson.dumps(sent), field_validation="Ignore")
    assert {key: value for key, value in found.items() if key not in ("apiVersion", "kind")} == wanted
    assert not warnings


def test_a_schema_that_contains_itself_is_trimmed_to_its_depth(api: Any) -> None:
    kind = api.registry.kind("apiextensions.k8s.io", "v1", "customresourcedefinitions")

    def definition(*empty: str) -> dict[str, Any]:
        inner = {"type": "object", **{name: {} for name in empty}}
        outer = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": inner}}}}
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": outer}}
        return {
            "spec": {"group": "g", "names": {"plural": "as", "kind": "A"}, "scope": "Cluster", "versions": [version]}
        }

    found, _ = decode(api.registry, kind, orjson.dumps(definition("properties", "patternProperties", "default")))
    assert found["spec"] == definition("default")["spec"]


def test_only_the_metadata_of_a_custom_resource_is_trimmed(api: Any) -> None:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
        "type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    }}}  # fmt: skip
    names = {"plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList"}
    spec = {"group": "g.example.org", "names": names, "scope": "Cluster", "versions": [version]}
    (kind,) = api.registry.add_crd({"metadata": {"name": "boats.g.example.org", "uid": "1"}, "spec": spec})
    try:
        own = b'{"apiVersion": "g.example.org/v1", "kind": "Boat", '
        rest = b'"metadata": {"name": "a", "labels": {}}, "spec": {"a": [], "b": {}}}'
        found, _ = decode(api.registry, kind, own + rest)
    finally:
        api.registry.remove_crd("boats.g.example.org")
    assert (found["metadata"], found["spec"]) == ({"name": "a"}, {"a": [], "b": {}})


def test_what_an_apply_and_a_patch_leave_empty_is_not_kept(api: Any) -> None:
    media = "application/apply-patch+yaml"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "finalizers": []}, "data": {"x": "1"}}
    made = api.patch("configmaps", "a", body, media)
    assert "finalizers" not in made["metadata"] and made["data"] == {"x": "1"}
    found = api.patch("configmaps", "a", [{"op": "remove", "path": "/data/x"}], "application/json-patch+json")
    assert "data" not in found


def test_the_table_of_zero_values_names_optional_scalars(api: Any) -> None:
    scalars = {"string", "boolean", "integer", "number"}
    for definition, names in ZERO_MEANS_ABSENT.items():
        node = api.registry.schemas.node(definition)
        assert names <= set(node.properties) - set(node.required), definition
        assert {node.properties[name].type for name in names} <= scalars, definition
