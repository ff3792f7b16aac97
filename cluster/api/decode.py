"""From the bytes of a request body to an object: JSON, YAML or Kubernetes protobuf, checked against the kind's schema.

It decides what is malformed (400) and what is merely unknown (an error, a warning or nothing, as `fieldValidation`
says). Whether the object's values make sense is validation's business.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
import yaml

from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.protobuf.codec import ProtobufError
from steersman.cluster.api.protobuf.codec import decode as decode_protobuf
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.errors import BadRequest, RequestEntityTooLarge, UnsupportedMediaType
from steersman.cluster.meta.objects import Obj

#: the largest body that is read
BODY_BYTES_MAX = 3 * 1024 * 1024
#: the deepest nesting that is followed
DEPTH_MAX = 64
#: aliases expand: a YAML document may not grow beyond this many values
_YAML_NODES_MAX = 200_000

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.1 as Kubernetes reads it: timestamps stay text, keys are strings, aliases are refused beyond reason."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rows if tag != "tag:yaml.org,2002:timestamp"]
    for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def media_type(content_type: str) -> str:
    """Returns the bare media type; an empty one means JSON."""
    return content_type.partition(";")[0].strip().lower() or JSON


def decode(
    registry: Registry, kind: Kind, body: bytes, content_type: str = JSON, field_validation: str = "Warn"
) -> tuple[Obj, list[str]]:
    """Reads an object of a kind.

    Returns:
        the object with `apiVersion` and `kind` set, and the texts of warnings.

    Raises:
        BadRequest: malformed, of another kind, wrong types, or unknown fields under `Strict`.
        UnsupportedMediaType, RequestEntityTooLarge
    """
    if len(body) > BODY_BYTES_MAX:
        raise RequestEntityTooLarge(f"Request entity too large: limit is {BODY_BYTES_MAX}")
    media = media_type(content_type)
    duplicates: list[str] = []
    if media == PROTOBUF:
        tree = _protobuf(body, kind)
        body = b""
    elif media == JSON:
        tree = read_json(body)
        if field_validation == "Strict":
            duplicates = _duplicates(body)
    elif media in (YAML, "application/x-yaml", "text/yaml"):
        tree = parse_yaml(body)
        body = b""
    else:
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: "
            f"{JSON}, {YAML}, {PROTOBUF}"
        )
    return check(registry, kind, tree, body, field_validation, duplicates)


def check(
    registry: Registry,
    kind: Kind,
    tree: Any,
    body: bytes = b"",
    field_validation: str = "Warn",
    duplicates: list[str] | None = None,
) -> tuple[Obj, list[str]]:
    """Checks a decoded tree against a kind's schema; `body` are the JSON bytes it came from, if it did.

    Raises:
        BadRequest: as `decode`.
    """
    if not isinstance(tree, dict):
        raise BadRequest(f"couldn't get version/kind; json parse error: cannot unmarshal {_name(tree)} into object")
    tree = _identified(kind, tree)
    unknown: list[str] = []
    schema = registry.compiled(kind)
    if not body:
        bounded(tree)
    text = body or orjson.dumps(tree)
    fits = schema.fast is not None and b"null" not in text and schema.fast(text)
    if body and not (fits and schema.shut and b"fieldsV1" not in body):
        bounded(tree, body)
    if not fits:
        tree, findings = schema.walk(tree)
        if findings.errors:
            raise _undecodable(kind, ", ".join(findings.errors))
        unknown = findings.unknown
    if schema.normalize is not None:
        schema.normalize(tree)
    notes = [f'unknown field "{path}"' for path in unknown]
    notes += [f'duplicate field "{path}"' for path in duplicates or ()]
    if notes and field_validation == "Strict":
        raise _undecodable(kind, "strict decoding error: " + ", ".join(notes))
    return tree, notes if field_validation == "Warn" else []


def _undecodable(kind: Kind, detail: str) -> BadRequest:
    name = kind.resource.kind
    return BadRequest(f'{name} in version "{kind.resource.version}" cannot be handled as a {name}: {detail}')


def _identified(kind: Kind, tree: Obj) -> Obj:
    wanted, api_version = kind.resource.kind, kind.api_version
    if not tree.get("kind"):
        tree.pop("kind", None)
    if not tree.get("apiVersion"):
        tree.pop("apiVersion", None)
    found_kind, found_version = tree.get("kind", wanted), tree.get("apiVersion", api_version)
    if found_version != api_version and wanted != "DeleteOptions":
        raise BadRequest(
            f"the API version in the data ({found_version}) does not match the expected API version ({api_version})"
        )
    if found_kind != wanted:
        raise BadRequest(
            f'{found_kind} in version "{kind.resource.version}" cannot be handled as a {wanted}: converting '
            f"(v1.{found_kind}) to (core.{wanted}): unknown conversion"
        )
    if "kind" in tree and "apiVersion" in tree:
        return tree
    tree.pop("kind", None)
    tree.pop("apiVersion", None)
    return {"apiVersion": found_version, "kind": wanted, **tree}


def read_json(body: bytes) -> Any:
    """Reads one JSON document.

    Raises:
        BadRequest
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"couldn't get version/kind; json parse error: {error}") from None


#: integers from here on have no floating value
_FLOAT_MAX = 10**308


def parse_yaml(body: bytes) -> Any:
    """Reads one YAML document (JSON is YAML).

    Raises:
        BadRequest: malformed, more than one document, or aliases that expand without reason.
    """
    try:
        tree = yaml.load(body, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        text = " ".join(str(error).split())
        raise BadRequest(f"error converting YAML to JSON: yaml: {text}") from None
    return _plain(tree, [_YAML_NODES_MAX])


def _plain(tree: Any, left: list[int], depth: int = 0) -> Any:
    """Copies what aliases share, and turns keys into strings."""
    left[0] -= 1
    if left[0] < 0:
        raise BadRequest("error converting YAML to JSON: yaml: document contains excessive aliasing")
    if depth > DEPTH_MAX:
        raise BadRequest(f"the object is nested deeper than {DEPTH_MAX} levels")
    if isinstance(tree, dict):
        return {_key(key): _plain(value, left, depth + 1) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_plain(value, left, depth + 1) for value in tree]
    if isinstance(tree, bytes):
        return tree.decode("utf-8", "replace")
    if isinstance(tree, (int, float)):
        return _number(tree)
    if isinstance(tree, str):
        return tree if tree.isascii() else tree.encode("utf-8", "replace").decode()
    return None if tree is None else str(tree)


def _number(value: float) -> float:
    """A number as JSON can carry it: integers of more than 64 bits become floating, as in Go."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        value = float(value) if abs(value) < _FLOAT_MAX else math.inf
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRequest(f"error converting YAML to JSON: json: unsupported value: {value}")
    return value


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return key if isinstance(key, str) else str(key)


def _protobuf(body: bytes, kind: Kind) -> Any:
    try:
        return decode_protobuf(body, kind.api_version, kind.resource.kind)
    except ProtobufError as error:
        raise BadRequest(f"couldn't decode protobuf body: {error}") from None


def bounded(tree: Any, body: bytes = b"") -> None:
    """Refuses a tree nested too deeply.

    Raises:
        BadRequest
    """
    if body and body.count(b"{") + body.count(b"[") <= DEPTH_MAX:
        return
    level, depth = [tree], 0
    while level:
        depth += 1
        if depth > DEPTH_MAX:
            raise BadRequest(f"the object is nested deeper than {DEPTH_MAX} levels")
        deeper: list[Any] = []
        for node in level:
            values = node.values() if type(node) is dict else node
            deeper += [value for value in values if type(value) in (dict, list)]
        level = deeper


def _duplicates(body: bytes) -> list[str]:
    """Paths of fields that the body names twice."""
    repeated: list[str] = []

    def pairs(rows: list[tuple[str, Any]]) -> Any:
        found = dict(rows)
        if len(found) != len(rows):
            return _Twice(found, [key for index, (key, _) in enumerate(rows) if key in dict(rows[:index])])
        return found

    _collect(json.loads(body, object_pairs_hook=pairs), "", repeated)
    return repeated


class _Twice(dict[str, Any]):
    def __init__(self, rows: dict[str, Any], keys: list[str]) -> None:
        super().__init__(rows)
        self.keys_twice = keys


def _collect(tree: Any, path: str, found: list[str]) -> None:
    if isinstance(tree, dict):
        if isinstance(tree, _Twice):
            found += [f"{path}.{key}" if path else key for key in tree.keys_twice]
        for key, value in tree.items():
            _collect(value, f"{path}.{key}" if path else key, found)
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            _collect(value, f"{path}[{index}]", found)


def _name(tree: Any) -> str:
    if isinstance(tree, list):
        return "array"
    if isinstance(tree, str):
        return "string"
    return "null" if tree is None else "number"
