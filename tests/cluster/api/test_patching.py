"""What a patch is refused for and what is told of it, in the words of Kubernetes' patch handler."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api.patching import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, configuration, patched
from steersman.cluster.meta.errors import ApiError

MAP = "map[string]interface {}"
GENERIC = "the server rejected our request due to an error in our request"
BEFORE = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1}}


def told(of: str, detail: str) -> str:
    quoted = of.replace("\\", "\\\\").replace('"', '\\"')
    return f' "" is invalid: patch: Invalid value: "{quoted}": {detail}'


def spec(text: str) -> str:
    return f'{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"d"}},"spec":{text}}}'


STRING_TO_INT = "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
#: media type, body, `fieldValidation`, and code and message
REFUSED: list[tuple[str, bytes, str, int, str]] = [
    (JSON_PATCH, b"", "Warn", 400, "error decoding patch: unexpected end of JSON input"),
    (JSON_PATCH, b"", "Ignore", 400, "unexpected end of JSON input"),
    (JSON_PATCH, b"{}", "Warn", 400,
     "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
    (JSON_PATCH, b"[1]", "Warn", 400,
     "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp"),
    (JSON_PATCH, b'[{"op":true}]', "Warn", 400,
     "error decoding patch: json: cannot unmarshal bool into Go struct field jsonPatchOp.op of type string"),
    (JSON_PATCH, b'[{"op":"test","path":"/spec/replicas","value":2}]', "Warn", 422, GENERIC),
    (JSON_PATCH, b'[{"op":"jump","path":"/spec"}]', "Warn", 422, GENERIC),
    (JSON_PATCH, b'[{"op":"add","path":"/spec/paused/x","value":2}]', "Warn", 422, GENERIC),
    (JSON_PATCH, b'[{"op":"replace","path":"/spec/replicas","value":"x"}]', "Warn", 422,
     told(spec('{"replicas":"x"}'), STRING_TO_INT)),
    (JSON_PATCH, b'[{"op":"test","path":"/spec/replicas","value":1,"odd":1,"op":"test"}]', "Strict", 422,
     told(spec('{"replicas":1}'), 'strict decoding error: json patch unknown field "[0].odd", '
          'json patch duplicate field "[0].op"')),
    (MERGE_PATCH, b"{", "Warn", 400, "error decoding patch: unexpected end of JSON input"),
    (MERGE_PATCH, b"{", "Ignore", 400, "Invalid JSON Patch"),
    (MERGE_PATCH, b"null", "Strict", 400, "Invalid JSON Patch"),
    (MERGE_PATCH, b"[]", "Warn", 400,
     f"error decoding patch: json: cannot unmarshal array into Go value of type {MAP}"),
    (MERGE_PATCH, b'{"spec":{"replicas":"x"}}', "Ignore", 422, told(spec('{"replicas":"x"}'), STRING_TO_INT)),
    (MERGE_PATCH, b'{"spec":{"odd":1,"odd":2}}', "Strict", 422,
     told(spec('{"odd":2,"replicas":1}'),
          'strict decoding error: duplicate field "spec.odd", unknown field "spec.odd"')),
    (MERGE_PATCH, b'{"kind":"Pod","apiVersion":"v1"}', "Warn", 422,
     told('{"apiVersion":"v1","kind":"Pod","metadata":{"name":"d"},"spec":{"replicas":1}}',
          "converting (v1.Pod) to (apps.Deployment): unknown conversion")),
    (STRATEGIC_PATCH, b"nul", "Warn", 400, "unexpected end of JSON input"),
    (STRATEGIC_PATCH, b'"x"', "Warn", 400, f"json: cannot unmarshal string into Go value of type {MAP}"),
    (STRATEGIC_PATCH, b'{"spec":{"replicas":"x"}}', "Warn", 422,
     told("map[spec:map[replicas:x]]", "unrecognized type: int32")),
    (STRATEGIC_PATCH, b'{"spec":{"replicas":1.5}}', "Warn", 422,
     told("map[spec:map[replicas:1.5]]", "cannot convert float64 to int32")),
    (STRATEGIC_PATCH, b'{"spec":{"paused":1}}', "Warn", 422,
     told("map[spec:map[paused:1]]", "unrecognized type: bool")),
    (STRATEGIC_PATCH, b'{"metadata":{"labels":{"a":1}}}', "Warn", 422,
     told("map[metadata:map[labels:map[a:1]]]", "cannot convert int64 to string")),
    (STRATEGIC_PATCH, b'{"metadata":{"labels":[]}}', "Warn", 422,
     told("map[metadata:map[labels:[]]]", "cannot restore map from slice")),
    (STRATEGIC_PATCH, b'{"spec":"x"}', "Warn", 422, told("map[spec:x]", "cannot restore struct from: string")),
    (STRATEGIC_PATCH, b'{"spec":{"odd":null,"odder":1}}', "Strict", 422,
     told("map[spec:map[odd:<nil> odder:1]]", 'strict decoding error: unknown field "spec.odder"')),
]  # fmt: skip


@pytest.mark.parametrize(("media", "body", "validation", "code", "message"), REFUSED)
def test_a_patch_is_refused_in_kubernetes_words(
    api: Any, media: str, body: bytes, validation: str, code: int, message: str
) -> None:
    with pytest.raises(ApiError) as refused:
        patched(api.registry, api.row("deployments"), BEFORE, media, body, validation)
    assert (refused.value.code, refused.value.message) == (code, message)


@pytest.mark.parametrize(
    ("media", "body", "warnings"),
    [
        (JSON_PATCH, b"null", []),
        (JSON_PATCH, b"[]", []),
        (STRATEGIC_PATCH, b"null", []),
        (STRATEGIC_PATCH, b'{"$odd":1}', ['unknown field "$odd"']),
        (MERGE_PATCH, b'{"spec":{"replicas":2,"replicas":1,"odd":1}}',
         ['duplicate field "spec.replicas"', 'unknown field "spec.odd"']),
        (JSON_PATCH, b'[{"op":"test","path":"/spec/replicas","value":1,"extra":{}}]',
         ['json patch unknown field "[0].extra"']),
    ],
)  # fmt: skip
def test_a_patch_that_says_too_much_is_warned_of(api: Any, media: str, body: bytes, warnings: list[str]) -> None:
    found, notes = patched(api.registry, api.row("deployments"), BEFORE, media, body, "Warn")
    assert (found, notes) == (BEFORE, warnings)
    assert patched(api.registry, api.row("deployments"), BEFORE, media, body, "Ignore") == (BEFORE, [])


D = "apiVersion: apps/v1\nkind: Deployment\n"
TYPED = "failed to create typed patch object (/d; apps/v1, Kind=Deployment): "
CONTAINERS = D + "metadata: {name: d}\nspec: {template: {spec: {containers: "
KEYLESS = 'associative list with keys has an element that omits key field "name" (and doesn\'t have default value)'
#: the text of a configuration, and why it is none
UNFIT = [
    ("a: b: c", "error decoding YAML: error converting YAML to JSON: yaml: mapping values are not allowed in this "
     "context"),
    ("[]", "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go "
     f"value of type {MAP}"),
    ("", "invalid object type: /, Kind="),
    ("kind: Deployment", "invalid object type: /, Kind=Deployment"),
    ("apiVersion: v1\nkind: Pod", "invalid object type: /v1, Kind=Pod"),
    (D + "metadata: {name: d}\nspec: {odd: 1}", f"{TYPED}.spec.odd: field not declared in schema"),
    (D + "metadata: {name: d, labels: {a: 1}}",
     f"{TYPED}.metadata.labels.a: expected string, got &value.valueUnstructured{{Value:1}}"),
    (D + "metadata: {name: d}\nspec: {replicas: x, paused: 3}",
     f"{TYPED}errors:\n  .spec.replicas: expected numeric (int or float), got string\n"
     "  .spec.paused: expected boolean, got &{3}"),
    (D + "metadata: {name: d}\nspec: {selector: x}", f"{TYPED}.spec.selector: expected map, got &{{x}}"),
    (CONTAINERS + "x}}}", f"{TYPED}.spec.template.spec.containers: expected list, got &{{x}}"),
    (CONTAINERS + '[{name: c, image: {}}]}}}', f'{TYPED}.spec.template.spec.containers[name="c"].image: '
     "expected string, got &value.valueUnstructured{Value:map[string]interface {}{}}"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), UNFIT)
def test_a_configuration_that_fits_no_object_is_refused_in_kubernetes_words(api: Any, text: str, message: str) -> None:
    with pytest.raises(ApiError) as refused:
        configuration(api.registry, api.row("deployments"), text.encode(), "Ignore")
    assert (refused.value.code, refused.value.message) == (400, message)


@pytest.mark.parametrize(
    ("items", "detail"),
    [
        ([{"image": "x"}], f".spec.containers: element 0: {KEYLESS}"),
        ([{"name": "c"}, {"name": "c"}], '.spec.containers: duplicate entries for key [name="c"]'),
    ],
)
def test_items_that_cannot_be_told_apart_are_refused_in_kubernetes_words(api: Any, items: Any, detail: str) -> None:
    config = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": items}}
    with pytest.raises(ApiError) as refused:
        api.patch("pods", "p", config, "application/apply-patch+yaml", field_manager="me")
    assert refused.value.message == f"failed to create typed patch object (/p; /v1, Kind=Pod): {detail}"


def test_a_configuration_may_say_something_again_unless_that_is_to_be_refused(api: Any) -> None:
    text = (D + "metadata:\n  name: d\n  name: e\nspec: {}").encode()
    kind = api.row("deployments")
    assert configuration(api.registry, kind, text, "Warn")[1] == ['line 5: key "name" already set in map']
    assert configuration(api.registry, kind, text, "Ignore")[1] == []
    same = b'{"apiVersion":"apps/v1","kind":"Deployment","kind":"Deployment"}'
    assert configuration(api.registry, kind, same, "Warn")[1] == ['line 1: key "kind" already set in map']
    with pytest.raises(ApiError) as refused:
        configuration(api.registry, kind, text, "Strict")
    assert refused.value.message == (
        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n"
        '  line 5: key "name" already set in map'
    )
