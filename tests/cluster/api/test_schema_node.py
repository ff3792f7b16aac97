from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api.schema.node import SchemaNode, SchemaSet


@pytest.fixture(scope="module")
def pod(definitions: dict[str, Any]) -> SchemaNode:
    return SchemaSet(definitions).node("io.k8s.api.core.v1.Pod")


def test_nodes_follow_references_and_know_their_types(pod: SchemaNode) -> None:
    spec = pod.properties["spec"]
    containers = spec.properties["containers"]
    assert (spec.type, containers.type) == ("object", "array")
    container = containers.items
    assert container is not None
    requests = container.properties["resources"].properties["requests"]
    assert requests.additional is not None
    assert requests.additional.type == "quantity"
    probe = container.properties["livenessProbe"].properties["httpGet"]
    assert probe.properties["port"].type == "int-or-string"
    assert spec.required == ("containers",)


def test_merge_rules_come_from_the_extensions(pod: SchemaNode) -> None:
    spec = pod.properties["spec"]
    containers = spec.properties["containers"]
    assert (containers.list_type, containers.list_map_keys) == ("map", ("name",))
    assert (containers.merge_key, containers.patch_strategies) == ("name", ("merge",))
    assert spec.properties["volumes"].patch_strategies == ("merge", "retainKeys")
    assert spec.properties["nodeSelector"].map_type == "atomic"
    assert pod.properties["metadata"].properties["finalizers"].list_type == "set"
    assert containers.items is not None
    ports = containers.items.properties["ports"]
    assert ports.list_map_keys == ("containerPort", "protocol")
    assert ports.items is not None
    assert ports.items.properties["protocol"].default == "TCP"


def test_a_reference_keeps_the_rules_written_beside_it(definitions: dict[str, Any]) -> None:
    strategy = SchemaSet(definitions).node("io.k8s.api.apps.v1.DeploymentSpec").properties["strategy"]
    assert strategy.patch_strategies == ("retainKeys",)
    assert strategy.properties["type"].type == "string"
    assert "strategy" in strategy.description


def test_a_recursive_schema_is_followed_as_far_as_one_walks(definitions: dict[str, Any]) -> None:
    node = SchemaSet(definitions).node("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    for _ in range(5):
        found = node.properties["properties"].additional
        assert found is not None
        node = found
    assert node.properties["type"].type == "string"


def test_structural_schemas_read_their_extensions() -> None:
    node = SchemaSet({}, structural=True).resolve(
        {
            "type": "object",
            "properties": {
                "size": {"x-kubernetes-int-or-string": True},
                "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "shut": {"type": "object"},
                "rows": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["id"],
                    "items": {"type": "object", "properties": {"id": {"type": "string"}}},
                },
            },
        }
    )
    properties = node.properties
    assert properties["size"].type == "int-or-string"
    assert properties["raw"].preserve_unknown
    assert not properties["shut"].preserve_unknown
    assert properties["rows"].list_map_keys == ("id",)
