"""The second version of the OpenAPI document, as JSON and as protobuf: what kubectl up to 1.28 patches and explains by.

The definitions come in this form; operations are turned back from that of the third version.

Source: https://swagger.io/specification/v2/ and the messages of gnostic's `openapiv2/OpenAPIv2.proto`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from steersman.cluster.api.protobuf.wire import write_field, write_number
from steersman.cluster.meta.objects import Obj

_REFERENCE = "#/definitions/"
_KINDS = "x-kubernetes-group-version-kind"
_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}
_STRINGS = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13}
#: how the Go types that marshal themselves look in this version
_SPECIAL = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string"},
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": "string", "format": "int-or-string"},
}


def document(version: str, definitions: Mapping[str, Any], custom: Mapping[str, Any], paths: Obj) -> Obj:
    """Returns the document.

    Args:
        version: of Kubernetes, as `1.36`.
        definitions: of the built-in kinds, in this form but for types that may be null.
        custom: schemas of custom resources, in the form of the third version.
        paths: in the form of the third version.
    """
    found = {name: _SPECIAL.get(name) or _schema(schema) for name, schema in definitions.items()}
    found |= {name: _custom(schema) for name, schema in custom.items()}
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": f"v{version}.0"},
        "paths": {path: _path(item) for path, item in paths.items()},
        "definitions": found,
    }


def _custom(schema: Obj) -> Obj:
    """The schema of a custom resource; of one that keeps what it does not know kubectl must know nothing either."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return {"type": "object", **{key: schema[key] for key in (_KINDS,) if key in schema}}
    found: Obj = _schema(schema)
    return found


def _schema(schema: Any) -> Any:
    """A schema in this version: types without null, a reference beside its description, no alternatives."""
    if not isinstance(schema, Mapping):
        return schema
    found: Obj = {}
    for key, value in schema.items():
        if key == "$ref":
            found[key] = _REFERENCE + value.rpartition("/")[2]
        elif key == "type" and isinstance(value, list):
            found[key] = next(item for item in value if item != "null")
        elif key == "properties":
            found[key] = {name: _property(name, child) for name, child in value.items()}
        elif key in ("items", "additionalProperties"):
            found[key] = _schema(value)
        elif key == "allOf" and len(value) == 1 and "$ref" in value[0]:
            found |= _schema(value[0])
        elif key not in ("allOf", "oneOf", "anyOf", "not", "nullable"):
            found[key] = value
    return found


def _property(name: str, schema: Any) -> Any:
    found = _schema(schema)
    if name in ("kind", "apiVersion") and isinstance(found, dict):
        found.pop("enum", None)
    return found


def _path(item: Obj) -> Obj:
    found = {method: _operation(item[method]) for method in _METHODS if method in item}
    return {**found, "parameters": [_parameter(row) for row in item.get("parameters", ())]}


def _parameter(row: Obj) -> Obj:
    return {**{key: value for key, value in row.items() if key != "schema"}, **row["schema"]}


def _operation(operation: Obj) -> Obj:
    found = {key: value for key, value in operation.items() if key not in ("requestBody", "parameters", "responses")}
    parameters = [_parameter(row) for row in operation.get("parameters", ())]
    if body := operation.get("requestBody"):
        found["consumes"] = list(body["content"])
        schema = next(iter(body["content"].values()))["schema"]
        parameters.insert(
            0, {"name": "body", "in": "body", "required": bool(body.get("required")), "schema": _schema(schema)}
        )
    responses = {}
    for code, row in operation["responses"].items():
        responses[code] = {"description": row["description"]}
        if media := next(iter((row.get("content") or {}).values()), None):
            responses[code]["schema"] = _schema(media["schema"])
    return {**found, "produces": ["application/json"], "parameters": parameters, "responses": responses}


# ---- protobuf


def encode(tree: Obj) -> bytes:
    """Returns the document as a gnostic `Document` message."""
    info = _text(1, tree["info"]["title"]) + _text(2, tree["info"]["version"])
    paths = b"".join(_named(2, path, _path_item(item)) for path, item in tree["paths"].items())
    definitions = b"".join(_named(1, name, _schema_message(row)) for name, row in tree["definitions"].items())
    return _text(1, tree["swagger"]) + write_field(2, info) + write_field(8, paths) + write_field(9, definitions)


def _text(number: int, text: str) -> bytes:
    return write_field(number, text.encode()) if text else b""


def _named(number: int, name: str, payload: bytes) -> bytes:
    """An entry of a map: a message of a name and a value."""
    return write_field(number, write_field(1, name.encode()) + write_field(2, payload))


def _any(value: Any) -> bytes:
    """An `Any` message: YAML text, of which JSON is a part."""
    return write_field(2, orjson.dumps(value))


def _extensions(number: int, tree: Obj) -> bytes:
    return b"".join(_named(number, key, _any(value)) for key, value in tree.items() if key.startswith("x-"))


def _schema_message(schema: Obj) -> bytes:
    out = [_text(number, schema[key]) for key, number in _STRINGS.items() if schema.get(key)]
    if "default" in schema:
        out.append(write_field(5, _any(schema["default"])))
    out += [write_field(19, name.encode()) for name in schema.get("required", ())]
    out += [write_field(20, _any(value)) for value in schema.get("enum", ())]
    more = schema.get("additionalProperties")
    if isinstance(more, Mapping):
        out.append(write_field(21, write_field(1, _schema_message(dict(more)))))
    elif more is not None:
        out.append(write_field(21, write_number(2, int(more))))
    if "type" in schema:
        out.append(write_field(22, _text(1, schema["type"])))
    if isinstance(schema.get("items"), Mapping):
        out.append(write_field(23, write_field(1, _schema_message(schema["items"]))))
    if properties := schema.get("properties"):
        rows = b"".join(_named(1, name, _schema_message(child)) for name, child in properties.items())
        out.append(write_field(25, rows))
    return b"".join([*out, _extensions(31, schema)])


def _path_item(item: Obj) -> bytes:
    out = [write_field(number, _operation_message(item[name])) for name, number in _METHODS.items() if name in item]
    return b"".join([*out, *(write_field(9, _parameter_message(row)) for row in item.get("parameters", ()))])


def _operation_message(operation: Obj) -> bytes:
    out = [write_field(1, tag.encode()) for tag in operation.get("tags", ())]
    out += [_text(3, operation.get("description", "")), _text(5, operation.get("operationId", ""))]
    out += [write_field(6, name.encode()) for name in operation.get("produces", ())]
    out += [write_field(7, name.encode()) for name in operation.get("consumes", ())]
    out += [write_field(8, _parameter_message(row)) for row in operation.get("parameters", ())]
    out.append(write_field(9, b"".join(_response(code, row) for code, row in operation.get("responses", {}).items())))
    return b"".join([*out, _extensions(13, operation)])


def _response(code: str, row: Obj) -> bytes:
    message = _text(1, row.get("description", ""))
    if "schema" in row:
        message += write_field(2, write_field(1, _schema_message(row["schema"])))
    return _named(1, code, write_field(1, message))


def _parameter_message(row: Obj) -> bytes:
    """A `ParametersItem`: a body, or a query or path parameter, each below a choice of its own."""
    required = write_number(1, 1) if row.get("required") else b""
    place, name, description = _text(2, row["in"]), _text(4, row["name"]), _text(3, row.get("description", ""))
    if row["in"] == "body":
        needed = write_number(4, 1) if row.get("required") else b""
        body = _text(2, row["name"]) + _text(3, "body") + needed + write_field(5, _schema_message(row["schema"]))
        return write_field(1, write_field(1, body))
    choice, kind = (4, 5) if row["in"] == "path" else (3, 6)
    below = required + place + description + name + _text(kind, row.get("type", ""))
    below += write_number(19 if choice == 4 else 20, 1) if row.get("uniqueItems") else b""
    return write_field(1, write_field(2, write_field(choice, below)))
