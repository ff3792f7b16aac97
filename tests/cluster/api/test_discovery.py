from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from steersman.cluster.api import discovery
from steersman.cluster.api.openapi import OpenApi
from steersman.cluster.meta.versions import version_order


def test_every_kind_has_a_schema_and_every_subresource_a_path(api: Any) -> None:
    for kind in api.registry.all():
        assert api.registry.definition(kind)
        assert set(kind.verbs) <= {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}


def test_the_lists_name_every_kind_with_its_short_names(api: Any) -> None:
    rows = {row["name"]: row for row in discovery.resource_list(api.registry, "", "v1")["resources"]}
    assert (rows["pods"]["shortNames"], rows["pods"]["categories"]) == (["po"], ["all"])
    assert rows["pods/eviction"]["group"] == "policy"
    assert rows["pods/log"]["verbs"] == ["get"]
    assert rows["nodes"]["namespaced"] is False
    apps = {row["name"]: row for row in discovery.resource_list(api.registry, "apps", "v1")["resources"]}
    assert (apps["deployments/scale"]["group"], apps["deployments/scale"]["kind"]) == ("autoscaling", "Scale")
    assert discovery.resource_list(api.registry, "apps", "v2") is None
    names = [group["name"] for group in discovery.group_list(api.registry)["groups"]]
    assert {"apps", "batch", "rbac.authorization.k8s.io"} <= set(names)
    assert discovery.group(api.registry, "apps")["preferredVersion"]["groupVersion"] == "apps/v1"
    assert discovery.group(api.registry, "none") is None


def test_the_aggregated_form_says_the_same(api: Any) -> None:
    core = discovery.aggregated(api.registry, core=True)["items"]
    assert len(core) == 1
    resources = {row["resource"]: row for row in core[0]["versions"][0]["resources"]}
    listed = {row["name"] for row in discovery.resource_list(api.registry, "", "v1")["resources"]}
    subresources = {f"{n}/{s['subresource']}" for n, row in resources.items() for s in row.get("subresources", ())}
    assert set(resources) | subresources == listed
    assert resources["pods"]["scope"] == "Namespaced"
    named = discovery.aggregated(api.registry, core=False)["items"]
    assert all(item["metadata"]["name"] for item in named)


def test_versions_are_preferred_as_kubernetes_does() -> None:
    versions = ["v1beta1", "v10", "v1alpha1", "v2", "v1", "other", "v2beta1", "v11alpha2"]
    wanted = ["v10", "v2", "v1", "v2beta1", "v1beta1", "v11alpha2", "v1alpha1", "other"]
    assert sorted(versions, key=version_order) == wanted


@pytest.fixture(scope="module")
def documents(session_registry: Any) -> OpenApi:
    return OpenApi(session_registry)


def test_each_document_defines_whatever_it_refers_to(documents: OpenApi) -> None:
    for path, row in documents.index()["paths"].items():
        text = documents.document(path)
        assert text is not None
        assert row["serverRelativeURL"].startswith(f"/openapi/v3/{path}?hash=")
        schemas = orjson.loads(text)["components"]["schemas"]
        assert not {name.decode() for name in re.findall(rb"#/components/schemas/([^\"]+)", text)} - set(schemas)


def test_a_document_tells_kubectl_what_it_looks_for(documents: OpenApi) -> None:
    document = orjson.loads(documents.document("apis/apps/v1") or b"")
    operation = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert {"fieldValidation", "dryRun", "force"} <= {row["name"] for row in operation["parameters"]}
    gvk = {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert operation["x-kubernetes-group-version-kind"] == gvk
    schema = document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]
    assert schema["x-kubernetes-group-version-kind"] == [gvk]
    assert "enum" not in schema["properties"]["kind"]
    assert schema["properties"]["kind"]["type"] == "string"
    template = document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert template["x-kubernetes-patch-merge-key"] == "name"
    assert documents.document("apis/none/v1") is None
    old = orjson.loads(documents.version_2())
    spec = old["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"]
    assert spec["$ref"] == "#/definitions/io.k8s.api.core.v1.PodSpec"
