from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from steersman.cluster.api.decode import BODY_BYTES_MAX, decode
from steersman.cluster.api.protobuf.codec import encode
from steersman.cluster.api.syntax import parse_yaml
from steersman.cluster.meta.errors import BadRequest, RequestEntityTooLarge, UnsupportedMediaType


def read(api: Any, obj: Any, validation: str = "Strict", plural: str = "pods") -> tuple[Any, list[str]]:
    return decode(api.registry, api.row(plural), orjson.dumps(obj), "application/json", validation)


def test_unknown_fields_are_refused_warned_of_or_ignored_as_asked(api: Any) -> None:
    obj = api.pod(foo=1)
    obj["spec"]["containers"][0]["bar"] = {"x": 1}
    with pytest.raises(BadRequest) as refused:
        read(api, obj, "Strict")
    assert refused.value.message == (
        'Pod in version "v1" cannot be handled as a Pod: strict decoding error: '
        'unknown field "spec.containers[0].bar", unknown field "spec.foo"'
    )
    found, warnings = read(api, obj, "Warn")
    assert warnings == ['unknown field "spec.containers[0].bar"', 'unknown field "spec.foo"']
    assert "foo" not in found["spec"]
    assert "bar" not in found["spec"]["containers"][0]
    found, warnings = read(api, obj, "Ignore")
    assert (warnings, "foo" in found["spec"]) == ([], False)


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"replicas": "three"},
         "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ({"replicas": 2**40},
         "cannot unmarshal number 1099511627776 into Go struct field DeploymentSpec.spec.replicas"),
        ({"paused": "yes"}, "cannot unmarshal string into Go struct field DeploymentSpec.spec.paused of type bool"),
        ({"selector": []},
         "cannot unmarshal array into Go struct field DeploymentSpec.spec.selector of type v1.LabelSelector"),
        ({"template": 7},
         "cannot unmarshal number into Go struct field DeploymentSpec.spec.template of type v1.PodTemplateSpec"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_told_in_gos_words(api: Any, change: dict[str, Any], detail: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(api, {"metadata": {"name": "web"}, "spec": change}, plural="deployments")
    assert detail in refused.value.message


def test_every_wrong_type_is_told_at_once(api: Any) -> None:
    with pytest.raises(BadRequest) as refused:
        read(api, {"metadata": {"name": 1, "labels": {"a": 2}}, "spec": {"hostNetwork": "x"}})
    assert refused.value.message.count("cannot unmarshal") == 3


def test_nulls_are_fields_left_out(api: Any) -> None:
    obj = api.pod(nodeName=None)
    obj["metadata"] |= {"creationTimestamp": None, "labels": {"a": None}}
    obj["spec"]["containers"][0]["resources"] = None
    found, _ = read(api, obj)
    assert found["metadata"] == {"name": "web", "labels": {"a": ""}}
    assert "nodeName" not in found["spec"]


def test_quantities_come_out_canonical(api: Any) -> None:
    obj = api.pod()
    obj["spec"]["containers"][0]["resources"] = {"limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": 1}}
    found, _ = read(api, obj)
    assert found["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "500m", "memory": "1Gi"},
        "requests": {"cpu": "1"},
    }


@pytest.mark.parametrize(
    ("plural", "obj", "detail"),
    [
        ("secrets", {"data": {"a": "no base64!"}}, "illegal base64 data at input byte 2"),
        ("pods", {"metadata": {"creationTimestamp": "yesterday"}}, 'parsing time "yesterday"'),
        ("resourcequotas", {"spec": {"hard": {"cpu": "lots"}}}, "quantities must match the regular expression"),
        ("pods", {"kind": "Service"}, "Service in version"),
        ("pods", {"kind": "Service"}, "converting (v1.Service) to (core.Pod): unknown conversion"),
        (
            "deployments",
            {"apiVersion": "v1", "kind": "Pod"},
            'Pod in version "v1" cannot be handled as a Deployment: converting (v1.Pod) to (apps.Deployment): unknown',
        ),
        (
            "pods",
            {"apiVersion": "v2"},
            'Pod in version "v2" cannot be handled as a Pod: no kind "Pod" is registered for version "v2" in scheme ',
        ),
        (
            "horizontalpodautoscalers",
            {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler"},
            "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)",
        ),
        ("pods", {"apiVersion": "a/b/c"}, "(must be of type Pod): unexpected GroupVersion string: a/b/c ({"),
        ("pods", {"kind": 1}, "json: cannot unmarshal number into Go struct field .kind of type string ({"),
        ("pods", [], "json: cannot unmarshal array into Go value of type struct { APIVersion string "),
        ("pods", 3, '"json:\\"kind,omitempty\\"" } (33)'),
    ],
)
def test_what_cannot_be_read_is_a_bad_request(api: Any, plural: str, obj: Any, detail: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(api, obj, plural=plural)
    assert detail in refused.value.message


@pytest.mark.parametrize(
    ("body", "media", "told"),
    [
        (b"", "", "couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"),
        (b"\xff", "", "couldn't get version/kind; json parse error: invalid character 'ÿ' looking for beginning "
         "of value (ff)"),
        (b'{"metadata":{"name":"a-very-long-name",}}', "",
         "couldn't get version/kind; json parse error: invalid character '}' looking for beginning of object key "
         'string ({"metadata":{"name":"a-very-lo ...)'),
        (b"a: b: c", "application/yaml", "yaml: mapping values are not allowed in this context (613a20623a2063)"),
        (b"a: b\nc: d: e", "application/yaml",
         "yaml: line 2: mapping values are not allowed in this context (613a20620a633a20643a2065)"),
    ],
)  # fmt: skip
def test_malformed_text_is_a_bad_request_in_gos_words(api: Any, body: bytes, media: str, told: str) -> None:
    with pytest.raises(BadRequest) as refused:
        decode(api.registry, api.row("pods"), body, media)
    assert refused.value.message == f"the object provided is unrecognized (must be of type Pod): {told}"


def test_a_field_named_twice_is_told_under_strict(api: Any) -> None:
    body = b'{"metadata":{"name":"a","name":"b"},"spec":{"containers":[{"name":"x","image":"y","image":"z"}]}}'
    with pytest.raises(BadRequest) as refused:
        decode(api.registry, api.row("pods"), body, "application/json", "Strict")
    assert 'duplicate field "metadata.name", duplicate field "spec.containers[0].image"' in refused.value.message
    _, warnings = decode(api.registry, api.row("pods"), body)
    assert warnings == ['duplicate field "metadata.name"', 'duplicate field "spec.containers[0].image"']
    assert decode(api.registry, api.row("pods"), body, "application/json", "Ignore")[1] == []


def test_what_is_unknown_and_what_is_said_again_is_told_in_the_order_of_the_text(api: Any) -> None:
    body = b'{"odd":1,"metadata":{"name":"a","name":"b"},"odder":2,"\\u0073pec":{},"spec":{}}'
    _, warnings = decode(api.registry, api.row("pods"), body)
    assert warnings == [
        'unknown field "odd"', 'duplicate field "metadata.name"', 'unknown field "odder"', 'duplicate field "spec"'
    ]  # fmt: skip
    text = b"metadata:\n  name: a\n  labels: {}\n  name:\n    b\nodd: 1\n"
    _, warnings = decode(api.registry, api.row("pods"), text, "application/yaml")
    assert warnings == ['line 5: key "name" already set in map', 'unknown field "odd"']
    with pytest.raises(BadRequest) as refused:
        decode(api.registry, api.row("pods"), text, "application/yaml", "Strict")
    told = 'yaml: unmarshal errors:\n  line 5: key "name" already set in map, unknown field "odd"'
    assert refused.value.message == f'Pod in version "v1" cannot be handled as a Pod: strict decoding error: {told}'


def test_yaml_and_protobuf_give_the_same_object_as_json(api: Any) -> None:
    text = (
        b"metadata:\n  name: web\n  annotations: {when: 2026-01-02}\nspec:\n  containers:\n  - {name: main, image: x}\n"
    )
    row = api.row("pods")
    from_yaml, _ = decode(api.registry, row, text, "application/yaml")
    from_pb, _ = decode(api.registry, row, encode(from_yaml), "application/vnd.kubernetes.protobuf")
    assert from_yaml == from_pb
    assert from_yaml["metadata"]["annotations"] == {"when": "2026-01-02"}
    assert (from_yaml["apiVersion"], from_yaml["kind"]) == ("v1", "Pod")


@pytest.mark.parametrize(
    "body",
    [
        b"a: [", b"a: b: c", b"a: .inf", b"a: .nan", b"a: 1%b" % (b"0" * 400),
        b"- &x [1]\n--- 2", b"!!python/object:os.system {}", b"\t", b"{a: *nobody}",
        b"a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
        b"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]",
    ],
)  # fmt: skip
def test_malformed_or_exploding_yaml_is_a_bad_request(api: Any, body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode(api.registry, api.row("pods"), body, "application/yaml")


@pytest.mark.parametrize("number", [1 << 64, -(1 << 63) - 1, 10**300])
def test_a_number_that_no_integer_holds_is_refused_where_one_is_wanted(api: Any, number: int) -> None:
    text = f"spec: {{terminationGracePeriodSeconds: {number}}}"
    for body, media in ((text, "application/yaml"), (json.dumps(parse_yaml(text.encode())), "application/json")):
        with pytest.raises(BadRequest, match="terminationGracePeriodSeconds"):
            decode(api.registry, api.row("pods"), body.encode(), media)


def test_size_depth_and_media_type_are_bounded(api: Any) -> None:
    row = api.row("configmaps")
    with pytest.raises(RequestEntityTooLarge):
        decode(api.registry, row, b"x" * (BODY_BYTES_MAX + 1))
    with pytest.raises(UnsupportedMediaType):
        decode(api.registry, row, b"{}", "text/html")
    for opening, closing in ((b'{"a":', b"}"), (b"[", b"]")):
        deep = b'{"metadata":{"managedFields":[{"fieldsV1":' + opening * 70 + b"1" + closing * 70 + b"}]}}"
        with pytest.raises(BadRequest, match="nested deeper"):
            decode(api.registry, row, deep)
    rows = b'{"managedFields":[{"%s":' + b'{"a":' * 70 + b"1" + b"}" * 70 + b"}]}"
    for name, rest in ((b"fieldsV1", b'{"managedFields":[{"fieldsV1":{}}]}'), (b"\\u0066ieldsV1", b"{}")):
        hidden = b'{"metadata":%s,"spec":{"template":{"metadata":%s}}}' % (rest, rows % name)
        with pytest.raises(BadRequest, match="nested deeper"):
            decode(api.registry, api.row("deployments"), hidden)
    with pytest.raises(BadRequest):
        decode(api.registry, row, b"[" * 100_000)
