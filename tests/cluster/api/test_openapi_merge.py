"""OpenAPI documents of extension servers, put into ours."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api.openapi_merge import is_sound, merged, version_3

META = {"type": "object", "properties": {"name": {"type": "string"}}}
KIND = [{"group": "g.io", "version": "v1", "kind": "Thing"}]
THING = {"properties": {"metadata": {"$ref": "#/definitions/Meta"}}, "x-kubernetes-group-version-kind": KIND}


def theirs(meta: Any = META) -> dict[str, Any]:
    operation = {
        "consumes": ["application/json"], "produces": ["application/json"],
        "parameters": [
            {"name": "body", "in": "body", "required": True, "schema": {"$ref": "#/definitions/Thing"}},
            {"name": "dryRun", "in": "query", "type": "string", "uniqueItems": True},
        ],
        "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/Thing"}}},
        "x-kubernetes-action": "post",
    }  # fmt: skip
    paths = {"/apis/g.io/v1/things": {"post": operation}, "/apis/other.io/v1/x": {"get": {"responses": {}}}}
    return {"swagger": "2.0", "paths": paths, "definitions": {"Meta": meta, "Thing": THING, "Unused": {}}}


OURS: dict[str, Any] = {"swagger": "2.0", "paths": {"/api/v1/pods": {}}, "definitions": {"Meta": META, "Pod": {}}}


def test_only_what_is_about_the_group_and_version_is_taken() -> None:
    found = merged(OURS, {("g.io", "v1"): theirs()})
    assert list(found["paths"]) == ["/api/v1/pods", "/apis/g.io/v1/things"]
    assert sorted(found["definitions"]) == ["Meta", "Pod", "Thing"]
    assert found["definitions"]["Meta"] == META and "Meta_v2" not in found["definitions"]
    assert OURS["definitions"].keys() == {"Meta", "Pod"}, "ours is changed"


def test_a_definition_of_the_same_name_that_says_something_else_gets_another_name() -> None:
    other = {"type": "object", "properties": {"uid": {"type": "string"}}}
    found = merged(OURS, {("g.io", "v1"): theirs(other)})["definitions"]
    assert (found["Meta"], found["Meta_v2"]) == (META, other)
    assert found["Thing"]["properties"]["metadata"] == {"$ref": "#/definitions/Meta_v2"}


def test_an_older_document_becomes_a_newer_one() -> None:
    found = version_3(theirs(), "g.io", "v1")
    post = found["paths"]["/apis/g.io/v1/things"]["post"]
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}
    assert post["requestBody"] == {"content": body, "required": True}
    assert post["parameters"] == [{"name": "dryRun", "in": "query", "schema": {"type": "string", "uniqueItems": True}}]
    assert post["responses"] == {"200": {"description": "OK", "content": body}}
    assert sorted(found["components"]["schemas"]) == ["Meta", "Thing"] and post["x-kubernetes-action"] == "post"


def test_a_document_that_cannot_be_written_in_every_form_is_left_out() -> None:
    assert is_sound(theirs(), "g.io", "v1")
    for spoilt in (
        {"paths": {"/apis/g.io/v1/x": 7}},
        {"paths": {"/apis/g.io/v1/x": {"get": {"parameters": [{"name": 1}]}}}},
        {"paths": {"/apis/g.io/v1/x": {"get": {"responses": {"200": {"schema": {"required": 3}}}}}}},
    ):
        assert not is_sound(spoilt, "g.io", "v1"), spoilt
    bare = {"paths": {"/apis/g.io/v1/x": {"get": {"operationId": "x"}}}}
    assert is_sound(bare, "g.io", "v1"), "what is left out of an operation is no fault"


@pytest.mark.parametrize(
    "broken",
    [{}, {"paths": [], "definitions": 1}, {"paths": {"/apis/g.io/v1/x": 7}}, {"definitions": {"A": {"$ref": 3}}}],
    ids=str,
)
def test_what_is_no_document_spoils_nothing(broken: Any) -> None:
    assert merged(OURS, {("g.io", "v1"): broken})["definitions"] == OURS["definitions"]
    assert version_3(broken, "g.io", "v1")["openapi"] == "3.0.0"
