"""What the conformance suite asks of custom resources: discovery, published documents, field validation.

Source: kubernetes/test/e2e/apimachinery/{custom_resource_definition,crd_publish_openapi,field_validation}.go
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
APPLY = "application/apply-patch+yaml"
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
SIMPLE = {
    "type": "object",
    "properties": {"spec": {"type": "object", "description": "Specification of Waldo", "properties": {
        "bars": {"type": "array", "items": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "description": "Name of Bar."}, "age": {"type": "string"}}}},
    }}},
}  # fmt: skip


class Definitions:
    """Makes definitions, and takes them away at the end."""

    def __init__(self, house: Any) -> None:
        self.house = house
        self._made: list[str] = []

    def make(self, group: str, kind: str, *versions: str, schema: Any = ANYTHING) -> str:
        plural = f"{kind.lower()}s"
        rows = [
            {"name": version, "served": True, "storage": version == versions[0], "schema": {"openAPIV3Schema": schema}}
            for version in versions
        ]
        names = {"plural": plural, "singular": kind.lower(), "kind": kind}
        self.house.ok("POST", DEFINITIONS, {
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": rows},
        })  # fmt: skip
        self._made.append(f"{plural}.{group}")
        return f"{DEFINITIONS}/{plural}.{group}"

    def clear(self) -> None:
        for name in self._made:
            self.house.ok("DELETE", f"{DEFINITIONS}/{name}")


@pytest.fixture
def definitions(house: Any) -> Iterator[Definitions]:
    found = Definitions(house)
    yield found
    found.clear()


def documents(house: Any, path: str) -> set[str]:
    """The names of what an OpenAPI v3 document defines; nothing where there is no document."""
    if f"apis/{path}" not in house.ok("GET", "/openapi/v3")["paths"]:
        return set()
    return set(house.ok("GET", f"/openapi/v3/apis/{path}")["components"]["schemas"])


def published(house: Any) -> set[str]:
    return set(house.ok("GET", "/openapi/v2")["definitions"])


def test_definitions_are_discovered(house: Any) -> None:
    (group,) = [row for row in house.ok("GET", "/apis")["groups"] if row["name"] == "apiextensions.k8s.io"]
    assert "apiextensions.k8s.io/v1" in [row["groupVersion"] for row in group["versions"]]
    assert house.ok("GET", "/apis/apiextensions.k8s.io")["preferredVersion"]["version"] == "v1"
    rows = {row["name"]: row for row in house.ok("GET", "/apis/apiextensions.k8s.io/v1")["resources"]}
    assert rows["customresourcedefinitions"]["kind"] == "CustomResourceDefinition"
    assert "customresourcedefinitions/status" in rows


def test_documents_show_the_versions_that_are_served(house: Any, definitions: Definitions) -> None:
    one = definitions.make("multi-ver.example.com", "E2eMulti", "v5", "v6alpha1", schema=SIMPLE)
    definitions.make("common.example.com", "E2eFirst", "v1")
    definitions.make("common.example.com", "E2eSecond", "v1")
    definitions.make("other.example.com", "E2eOther", "v1")
    for path, names in {
        "multi-ver.example.com/v5": {"com.example.multi-ver.v5.E2eMulti"},
        "multi-ver.example.com/v6alpha1": {"com.example.multi-ver.v6alpha1.E2eMulti"},
        "common.example.com/v1": {"com.example.common.v1.E2eFirst", "com.example.common.v1.E2eSecond"},
        "other.example.com/v1": {"com.example.other.v1.E2eOther"},
    }.items():
        assert documents(house, path) >= names
        assert published(house) >= names
    crd = house.ok("GET", one)
    crd["spec"]["versions"][1]["served"] = False
    house.ok("PUT", one, crd)
    assert documents(house, "multi-ver.example.com/v5") and not documents(house, "multi-ver.example.com/v6alpha1")
    left = published(house)
    assert "com.example.multi-ver.v5.E2eMulti" in left and "com.example.multi-ver.v6alpha1.E2eMulti" not in left


def test_documents_show_kinds_that_keep_unknown_fields(house: Any, definitions: Definitions) -> None:
    nested = {"type": "object", "description": "preserve-unknown-properties in nested field for Testing",
              "properties": {"spec": {**ANYTHING, "description": "Specification of Waldo"}}}  # fmt: skip
    open_ended = {**ANYTHING, "properties": {"spec": ANYTHING}}
    definitions.make("unknown-at-root.example.com", "E2eRoot", "v1", schema=open_ended)
    definitions.make("unknown-in-nested.example.com", "E2eNested", "v1", schema=nested)
    found = house.ok("GET", "/openapi/v2")["definitions"]
    root = found["com.example.unknown-at-root.v1.E2eRoot"]
    assert root == {"type": "object", "x-kubernetes-group-version-kind": [
        {"group": "unknown-at-root.example.com", "version": "v1", "kind": "E2eRoot"}]}  # fmt: skip
    shown = found["com.example.unknown-in-nested.v1.E2eNested"]
    assert shown["description"] == "preserve-unknown-properties in nested field for Testing"
    spec = shown["properties"]["spec"]
    assert spec["description"] == "Specification of Waldo" and spec["x-kubernetes-preserve-unknown-fields"] is True
    assert {"apiVersion", "kind", "metadata"} <= shown["properties"].keys()


def test_unknown_fields_are_kept_refused_or_told(house: Any, definitions: Definitions, space: str) -> None:
    definitions.make("loose.example.com", "E2eLoose", "v1")
    definitions.make("strict.example.com", "E2eStrict", "v1", schema=SIMPLE)
    body = {"metadata": {"name": "a"}, "spec": {"bars": [{"name": "test-bar"}], "foo": "foo1", "knownField1": "x"}}
    for group, kind, refused in (("loose", "E2eLoose", False), ("strict", "E2eStrict", True)):
        many = f"/apis/{group}.example.com/v1/namespaces/{space}/{kind.lower()}s"
        obj = {"apiVersion": f"{group}.example.com/v1", "kind": kind, **body}
        applied = f"{many}/b?fieldManager=field_validation_mgr&fieldValidation=Strict"
        again = {**obj, "metadata": {"name": "b"}}
        if not refused:
            assert house.ok("POST", f"{many}?fieldValidation=Strict", obj)["spec"] == body["spec"]
            assert house.ok("PATCH", applied, again, content_type=APPLY)["spec"] == body["spec"]
            continue
        answer = house.refused(400, "POST", f"{many}?fieldValidation=Strict", obj)
        assert 'strict decoding error: unknown field "spec.foo", unknown field "spec.knownField1"' in answer["message"]
        answer = house.refused(400, "PATCH", applied, again, content_type=APPLY)
        assert ".spec.foo: field not declared in schema" in answer["message"]
        response = house.call("POST", f"{many}?fieldValidation=Warn", obj)
        assert response.status == 201 and 'unknown field \\"spec.foo\\"' in response.headers["warning"]
        assert "foo" not in orjson.loads(response.body)["spec"]
        valid = {**again, "spec": {"bars": [{"name": "test-bar"}]}}
        assert house.ok("PATCH", applied, valid, content_type=APPLY)["spec"] == valid["spec"]


def test_unknown_metadata_of_a_typed_object_is_refused(house: Any, space: str) -> None:
    many = f"/apis/apps/v1/namespaces/{space}/deployments"
    template = {"metadata": {"labels": {"app": "nginx"}}, "spec": {"containers": [{"name": "nginx", "image": "n"}]}}
    spec = {"selector": {"matchLabels": {"app": "nginx"}}, "template": template}
    meta = {"name": "a", "unknownMeta": "foo"}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}
    found = house.refused(400, "POST", f"{many}?fieldValidation=Strict", body)
    assert found["message"] == (
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field '
        '"metadata.unknownMeta"'
    )
    target = f"{many}/a?fieldManager=m&fieldValidation=Strict"
    found = house.refused(400, "PATCH", target, body, content_type=APPLY)
    assert ".metadata.unknownMeta: field not declared in schema" in found["message"]
    double = orjson.dumps(body).replace(b'"unknownMeta":"foo"', b'"name":"b"')
    found = house.refused(400, "POST", f"{many}?fieldValidation=Strict", double)
    assert 'duplicate field "metadata.name"' in found["message"]
