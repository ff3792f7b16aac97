"""The second form of OpenAPI, read back by a decoder that knows only the wire."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from steersman.cluster.api import openapi_v2
from steersman.cluster.api.openapi import OpenApi
from steersman.cluster.api.protobuf.wire import fields
from steersman.cluster.meta.objects import Obj


def read(message: Any, number: int) -> list[Any]:
    return [value for found, _, value in fields(memoryview(message)) if found == number]


def named(message: Any, number: int) -> dict[str, Any]:
    return {bytes(read(row, 1)[0]).decode(): read(row, 2)[0] for row in read(message, number)}


@pytest.fixture(scope="module")
def tree(session_registry: Any) -> Obj:
    found: Obj = orjson.loads(OpenApi(session_registry).version_2())
    return found


@pytest.fixture(scope="module")
def message(tree: Obj) -> bytes:
    return openapi_v2.encode(tree)


def test_definitions_refer_plainly_and_keep_what_patches_need(tree: Obj) -> None:
    text = orjson.dumps(tree)
    assert b"#/components/" not in text and b'"allOf":[' not in text and b'"oneOf":[' not in text
    spec = tree["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]
    assert spec["containers"]["x-kubernetes-patch-merge-key"] == "name"
    assert spec["affinity"]["$ref"] == "#/definitions/io.k8s.api.core.v1.Affinity"


def test_operations_have_parameters_and_bodies_of_the_second_form(tree: Obj) -> None:
    patch = tree["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert "application/strategic-merge-patch+json" in patch["consumes"]
    assert {"body", "dryRun", "fieldValidation"} <= {row["name"] for row in patch["parameters"]}
    assert all("schema" not in row for row in patch["parameters"] if row["in"] != "body")
    assert "requestBody" not in patch


def test_the_protobuf_form_says_what_the_json_form_says(tree: Obj, message: bytes) -> None:
    definitions = named(read(message, 9)[0], 1)
    assert set(definitions) == set(tree["definitions"])
    deployment = definitions["io.k8s.api.apps.v1.Deployment"]
    extension = read(named(deployment, 31)["x-kubernetes-group-version-kind"], 2)[0]
    assert orjson.loads(bytes(extension)) == [{"group": "apps", "version": "v1", "kind": "Deployment"}]
    properties = named(read(deployment, 25)[0], 1)
    assert bytes(read(properties["spec"], 1)[0]) == b"#/definitions/io.k8s.api.apps.v1.DeploymentSpec"
    assert bytes(read(message, 1)[0]) == b"2.0"


def test_the_protobuf_form_says_which_patches_a_kind_takes(message: bytes) -> None:
    paths = named(read(message, 8)[0], 2)
    patch = read(paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"], 8)[0]
    assert b"application/strategic-merge-patch+json" in [bytes(row) for row in read(patch, 7)]
    queries = [
        bytes(read(query, 4)[0])
        for row in read(patch, 8)
        for parameter in read(row, 1)
        for plain in read(parameter, 2)
        for query in read(plain, 3)
    ]
    assert b"fieldValidation" in queries and b"dryRun" in queries
