from __future__ import annotations

from typing import Any

import orjson
import pytest

from steersman.cluster.api import write
from steersman.cluster.api.crd import rows_of
from steersman.cluster.api.decode import decode
from steersman.cluster.api.openapi import OpenApi
from steersman.cluster.api.row import ScalePaths
from steersman.cluster.api.scale import scale_causes
from steersman.cluster.meta.errors import BadRequest, Invalid, UnsupportedMediaType
from steersman.cluster.meta.objects import is_true

SPEC = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 9},
        "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
        "host": {"type": "string", "format": "hostname", "pattern": "^[a-z]"},
        "port": {"x-kubernetes-int-or-string": True},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "rows": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["id"],
            "items": {
                "type": "object",
                "required": ["id"],
                "properties": {"id": {"type": "string"}, "on": {"type": "boolean", "default": True}},
            },
        },
        "limits": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 3}},
    },
}


def definition(scope: str = "Namespaced", **version: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"spec": SPEC, "status": {"type": "object", "properties": {
        "replicas": {"type": "integer"}}}}}  # fmt: skip
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.replicas"}
    row = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
           "subresources": {"status": {}, "scale": scale}, **version}  # fmt: skip
    names = {"plural": "gadgets", "kind": "Gadget", "shortNames": ["gd"]}
    return {
        "metadata": {"name": "gadgets.example.com"},
        "spec": {"group": "example.com", "scope": scope, "names": names, "versions": [row]},
    }


@pytest.fixture
def gadgets(api: Any) -> Any:
    """The API with a custom kind served."""
    api.registry.add_crd(api.create("customresourcedefinitions", definition()))
    return api


def gadget(name: str = "g", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": name}, "spec": {"size": 1, **spec},
    }  # fmt: skip


def test_a_definition_is_established_at_once(api: Any) -> None:
    found = api.create("customresourcedefinitions", definition())
    assert is_true(found, "Established")
    assert is_true(found, "NamesAccepted")
    assert found["status"]["storedVersions"] == ["v1"]
    accepted = found["status"]["acceptedNames"]
    assert (accepted["singular"], accepted["listKind"]) == ("gadget", "GadgetList")
    other = definition()
    other["metadata"]["name"], other["spec"]["names"]["plural"] = "widgets.example.com", "widgets"
    clash = api.create("customresourcedefinitions", other)
    assert not is_true(clash, "Established")
    assert api.registry.add_crd(clash) == ()


def test_a_custom_object_is_pruned_filled_in_and_kept(gadgets: Any) -> None:
    sent = gadget(free={"any": [1, {"thing": None}]}, rows=[{"id": "a"}], port="http", limits={"a": "x"})
    found = gadgets.create("gadgets", sent)
    assert (found["apiVersion"], found["kind"], found["metadata"]["generation"]) == ("example.com/v1", "Gadget", 1)
    assert found["spec"] == {
        "size": 1,
        "free": {"any": [1, {"thing": None}]},
        "rows": [{"id": "a", "on": True}],
        "port": "http",
        "limits": {"a": "x"},
        "color": "red",
    }
    with pytest.raises(BadRequest, match=r'strict decoding error: unknown field "spec\.nonsense"'):
        gadgets.create("gadgets", gadget("h", nonsense=1))
    loose = gadgets.decode("gadgets", gadget("h", nonsense=1), "Ignore")
    assert "nonsense" not in loose["spec"]
    with pytest.raises(UnsupportedMediaType, match=r"include: application/json, application/yaml$"):
        decode(gadgets.registry, gadgets.row("gadgets"), b"k8s\0", "application/vnd.kubernetes.protobuf")


def test_a_custom_object_may_have_plain_finalizers_and_is_warned_of_new_ones(gadgets: Any) -> None:
    sent = gadget()
    sent["metadata"]["finalizers"] = ["plain", "a.example.com/b", "foregroundDeletion"]
    warnings = gadgets.prepare("gadgets", sent).warnings
    assert warnings == (
        'metadata.finalizers: "plain": prefer a domain-qualified finalizer name including a path (/) to avoid '
        "accidental conflicts with other finalizer writers",
    )


@pytest.mark.parametrize(
    ("spec", "field", "detail"),
    [
        ({"size": "big"}, "spec.size", 'spec.size in body must be of type integer: "string"'),
        ({"size": 0}, "spec.size", "should be greater than or equal to 1"),
        ({"size": 10}, "spec.size", "should be less than or equal to 9"),
        ({"color": "green"}, "spec.color", 'supported values: "red", "blue"'),
        ({"host": "-"}, "spec.host", "must be of type hostname"),
        ({"host": "1a"}, "spec.host", "should match '^[a-z]'"),
        ({"port": True}, "spec.port", "must be of type integer,string"),
        ({"rows": [{"id": "a"}, {"id": "a"}]}, "spec.rows[1]", "Duplicate value"),
        ({"limits": {"a": "xxxx"}}, "spec.limits.a", "Too long"),
        ({"rows": {}}, "spec.rows", 'must be of type array: "object"'),
    ],
)
def test_what_the_schema_forbids_is_refused_field_by_field(gadgets: Any, spec: Any, field: str, detail: str) -> None:
    with pytest.raises(Invalid) as refused:
        gadgets.create("gadgets", gadget(**spec))
    assert any(cause.field == field and detail in cause.message for cause in refused.value.causes), refused.value.causes


def test_a_custom_object_says_what_it_is(gadgets: Any) -> None:
    kind = gadgets.row("gadgets")
    for body, wrong in (
        (b'{"apiVersion":"example.com/v1","metadata":{}}',
         "Gadget in version \"v1\" cannot be handled as a Gadget: Object 'Kind' is missing in "
         """'{"apiVersion":"example.com/v1","metadata":{}}'"""),
        (b'{"kind":"Gadget"}',
         "the API version in the data () does not match the expected API version (example.com/v1)"),
    ):  # fmt: skip
        with pytest.raises(BadRequest) as refused:
            write.decode(gadgets.registry, kind, body)
        assert refused.value.message == wrong


def test_a_missing_required_field_is_named(gadgets: Any) -> None:
    with pytest.raises(Invalid, match=r'Gadget\.example\.com "g" is invalid: spec\.size: Required value'):
        gadgets.create("gadgets", {**gadget(), "spec": {}})


def test_custom_objects_have_status_scale_and_patches(gadgets: Any) -> None:
    gadgets.create("gadgets", gadget())
    found = gadgets.change("gadgets", "g", lambda obj: obj.update(status={"replicas": 3}), "status")
    assert (found["status"], found["metadata"]["generation"]) == ({"replicas": 3}, 1)
    assert gadgets.patch("gadgets", "g", {"spec": {"replicas": 5}}, subresource="scale")["spec"]["size"] == 5
    applied = {"apiVersion": "example.com/v1", "kind": "Gadget", **gadget(size=2, rows=[{"id": "b"}])}
    merged = gadgets.patch("gadgets", "g", applied, write.APPLY_PATCH, force=True, field_manager="me")
    assert merged["spec"]["rows"] == [{"id": "b", "on": True}]
    with pytest.raises(UnsupportedMediaType):
        gadgets.patch("gadgets", "g", {}, write.STRATEGIC_PATCH)


def test_a_second_version_shows_the_same_objects(api: Any) -> None:
    crd = definition()
    crd["spec"]["versions"].append({**crd["spec"]["versions"][0], "name": "v2", "storage": False})
    old, new = api.registry.add_crd(api.create("customresourcedefinitions", crd))
    assert old.key("default", "g") == new.key("default", "g")
    stored = new.stored({"apiVersion": "example.com/v2", "kind": "Gadget", "metadata": {"name": "g"}})
    assert (stored["apiVersion"], new.served(stored)["apiVersion"]) == ("example.com/v1", "example.com/v2")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"group": "nodots"}, "spec.group"),
        ({"scope": "Everywhere"}, "spec.scope"),
        ({"versions": []}, "spec.versions"),
        ({"names": {"plural": "Gadgets", "kind": "Gadget"}}, "spec.names.plural"),
        ({"versions": [{"name": "v1", "served": True, "storage": False}]}, "spec.versions"),
        ({"versions": [{"name": "v1", "served": True, "storage": True}]}, "spec.versions[0].schema.openAPIV3Schema"),
        ({"versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"a": {}}}}}]},
                "spec.validation.openAPIV3Schema.properties[a].type"),
        ({"versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}}}]},
         "spec.validation.openAPIV3Schema.properties[a].default"),
    ],
)  # fmt: skip
def test_a_broken_definition_is_refused(api: Any, change: Any, field: str) -> None:
    crd = definition()
    crd["spec"] |= change
    with pytest.raises(Invalid) as refused:
        api.create("customresourcedefinitions", crd)
    assert field in {cause.field for cause in refused.value.causes}, refused.value.causes


def test_custom_kinds_come_and_go_in_documents(gadgets: Any) -> None:
    documents = OpenApi(gadgets.registry)
    assert "apis/example.com/v1" in documents.index()["paths"]
    document = orjson.loads(documents.document("apis/example.com/v1") or b"")
    schema = document["components"]["schemas"]["com.example.v1.Gadget"]
    assert schema["properties"]["spec"]["properties"]["color"]["default"] == "red"
    assert schema["x-kubernetes-group-version-kind"] == [{"group": "example.com", "version": "v1", "kind": "Gadget"}]
    gadgets.registry.remove_crd("gadgets.example.com")
    assert "apis/example.com/v1" not in documents.index()["paths"]
    assert gadgets.registry.kind("example.com", "v1", "gadgets") is None


def test_a_field_that_can_be_selected_is_known_where_it_is_missing(api: Any) -> None:
    fields = [{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.size"}]
    (row,) = rows_of(definition(selectableFields=fields))
    assert row.selectable_fields({"metadata": {"name": "a"}}) == {
        "metadata.name": "a", "spec.color": "", "spec.size": "",
    }  # fmt: skip
    assert row.selectable_fields({"metadata": {"name": "a"}, "spec": {"size": 3}})["spec.size"] == "3"


@pytest.mark.parametrize(
    ("change", "of_status", "causes"),
    [
        ({}, False, []),
        ({"spec": {"size": "2"}}, False,
         [".spec.size: Invalid value: 0: .spec.size accessor error: 2 is of the type string, expected int64"]),
        ({"spec": [1]}, False,
         [".spec.size: Invalid value: 0: .spec.size accessor error: [1] is of the type []interface {}, "
          "expected map[string]interface{}"]),
        ({"spec": {"size": -1}, "status": {"n": 2**31}}, False,
         [".spec.size: Invalid value: -1: should be a non-negative integer",
          ".status.n: Invalid value: 2147483648: should be less than or equal to 2147483647"]),
        ({"spec": {"size": -1}, "status": {"n": -1}}, True,
         [".status.n: Invalid value: -1: should be a non-negative integer"]),
        ({"status": {"sel": 1}}, True,
         ['.status.sel: Invalid value: "": .status.sel accessor error: 1 is of the type int64, expected string']),
    ],
)  # fmt: skip
def test_what_a_scale_is_made_of_is_told_in_go_words(change: Any, of_status: bool, causes: list[str]) -> None:
    paths = ScalePaths(".spec.size", ".status.n", ".status.sel")
    found = scale_causes(paths, {"spec": {"size": 1}, "status": {}, **change}, of_status=of_status)
    assert [f"{cause.field}: {cause.message}" for cause in found] == causes


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"metadata": {"name": "g", "labels": {"a": 1}}},
         "json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string"),
        ({"spec": {"size": 1, "inner": {"apiVersion": 1}}},
         "spec.inner.apiVersion: Invalid value: 1: must be a string"),
        ({"spec": {"size": 1, "inner": {"metadata": "x"}}},
         'spec.inner.metadata: Invalid value: "x": json: cannot unmarshal string into Go value of type v1.ObjectMeta'),
        ({"spec": {"size": 1, "inner": {"metadata": {"labels": {"a": 1}}}}},
         'spec.inner.metadata: Invalid value: {"labels":{"a":1}}: json: cannot unmarshal number into Go struct field '
         "ObjectMeta.labels of type string"),
    ],
)  # fmt: skip
def test_metadata_of_a_wrong_type_cannot_be_read(api: Any, change: Any, text: str) -> None:
    inner = {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}
    wanted = definition()
    schema = wanted["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"] = {**SPEC, "properties": {**SPEC["properties"], "inner": inner}}
    api.registry.add_crd(api.create("customresourcedefinitions", wanted))
    kind = api.registry.kind("example.com", "v1", "gadgets")
    with pytest.raises(BadRequest) as refused:
        decode(api.registry, kind, orjson.dumps({**gadget("g", size=1), **change}), "application/json")
    assert str(refused.value) == f'Gadget in version "v1" cannot be handled as a Gadget: {text}'


def test_a_null_stands_for_nothing_at_every_depth(gadgets: Any) -> None:
    kind = gadgets.registry.kind("example.com", "v1", "gadgets")
    body = orjson.dumps({**gadget("g", size=1, color=None), "status": None})
    found, _ = decode(gadgets.registry, kind, body, "application/json")
    assert (found["spec"], "status" in found) == ({"size": 1}, False)
    found, _ = decode(
        gadgets.registry, kind, orjson.dumps({**gadget("g", size=1), "metadata": None}), "application/json"
    )
    assert found["metadata"] == {}
