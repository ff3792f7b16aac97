"""Values against the schema of a custom resource: what it costs to check them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from steersman.cluster.api.custom.values import validate_value

XY = {"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "object", "properties": {}}}}
DEEP = {"properties": {"y": {"required": ["z"], "properties": {}}}}


@pytest.mark.parametrize(
    ("schema", "value", "causes"),
    [
        ({"type": "array", "minItems": 2}, [1], ["f: Invalid value: 1: f in body should have at least 2 items"]),
        ({"type": "object", "minProperties": 1}, {},
         ["f: Invalid value: 0: f in body should have at least 1 properties"]),
        ({"type": "string", "enum": ["small", "big"]}, 3,
         ['f: Invalid value: "integer": f in body must be of type string: "integer"',
          'f: Unsupported value: 3: supported values: "small", "big"']),
        ({"type": "integer", "enum": [2, 1]}, 3, ['f: Unsupported value: 3: supported values: "2", "1"']),
        ({"type": "string", "pattern": "^a"}, 'b"', ["f: Invalid value: \"b\\\"\": f in body should match '^a'"]),
        ({**XY, "oneOf": [{"required": ["x"]}, {"required": ["y"]}]}, {},
         ['<nil>: Invalid value: "": "f" must validate one and only one schema (oneOf). Found none valid',
          "f.x: Required value"]),
        ({**XY, "oneOf": [{"required": ["x"]}, {"required": ["y"]}]}, {"x": "", "y": {}},
         ['<nil>: Invalid value: "": "f" must validate one and only one schema (oneOf). Found 2 valid alternatives']),
        ({**XY, "anyOf": [{"required": ["x"]}, DEEP]}, {"y": {}},
         ['<nil>: Invalid value: "": "f" must validate at least one schema (anyOf)', "f.y.z: Required value"]),
        ({**XY, "allOf": [{"required": ["x"]}, {"required": ["y"]}]}, {"x": ""},
         ["f.y: Required value", '<nil>: Invalid value: "": "f" must validate all the schemas (allOf)']),
        ({**XY, "allOf": [{"required": ["x"]}]}, {},
         ["f.x: Required value",
          '<nil>: Invalid value: "": "f" must validate all the schemas (allOf). None validated']),
        ({**XY, "not": {"required": ["x"]}}, {"x": ""},
         ['<nil>: Invalid value: "": "f" must not validate the schema (not)']),
        ({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["b", "a"]},
         [{"a": 1, "b": 2}, {"a": 1, "b": 2}], ['f[1]: Duplicate value: {"a":1,"b":2}']),
    ],
)  # fmt: skip
def test_a_value_is_refused_in_kubernetes_words(schema: Any, value: Any, causes: list[str]) -> None:
    assert [f"{cause.field}: {cause.message}" for cause in validate_value(schema, value, "f")] == causes


@pytest.mark.parametrize(
    ("form", "valid", "invalid"),
    [
        ("byte", ["YQ==", "YWE=", "YWFh"], ["", "YQ=", "Y!=="]),
        ("cidr", ["10.0.0.1/8", "fd00::1/64"], ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "10.0.0.0/"]),
        ("date", ["2026-02-28"], ["20260228", "2026-W09-6", "2026-02-29", "2026-2-28"]),
        ("ipv6", ["::1"], ["fe80::1%eth0", "10.0.0.1"]),
        ("mac", ["00:00:5e:00:53:01", "02-00-5e-10-00-00-00-01", "0000.5e00.5301", "02:00" + ":5e" * 18],
         ["00:00-5e:00:53:01", "00:00:5e:00:53", "0000.5e00"]),
        ("ssn", ["111-22-3333", "111223333"], ["11-22-3333"]),
        ("uri", ["http://a", "/path", "urn:x", "*"], ["", "path", "http://a\n", "1a:b"]),
        ("uuid3", ["6ba7b810-9dad-31d1-80b4-00c04fd430c8"], ["6ba7b810-9dad-41d1-80b4-00c04fd430c8"]),
        ("uuid4", ["6BA7B8109DAD41D180B400C04FD430C8"], ["6ba7b810-9dad-41d1-70b4-00c04fd430c8"]),
        ("uuid5", ["6ba7b810-9dad-51d1-80b4-00c04fd430c8"], ["6ba7b810-9dad-41d1-80b4-00c04fd430c8\n"]),
        ("quantity", ["anything"], []),
    ],
)  # fmt: skip
def test_a_format_takes_what_go_takes(form: str, valid: list[str], invalid: list[str]) -> None:
    schema = {"type": "string", "format": form}
    assert [text for text in valid if validate_value(schema, text, "f")] == []
    assert [text for text in invalid if not validate_value(schema, text, "f")] == []


def test_alternatives_take_as_long_as_what_they_know() -> None:
    schema = {"type": "object", "oneOf": [{"required": [f"k{n}"]} for n in range(500)]}
    value = {f"other-{n}": 1 for n in range(50_000)}
    began = time.process_time()
    assert "Found none valid" in validate_value(schema, value, "spec")[0].message
    assert time.process_time() - began < 1.0  # property by property: 3 s
