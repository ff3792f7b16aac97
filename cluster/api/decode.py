"""From the bytes of a request body to an object: JSON, YAML or Kubernetes protobuf, checked against the kind's schema.

It decides what is malformed (400) and what is merely unknown (an error, a warning or nothing, as `fieldValidation`
says). Whether the object's values make sense is validation's business.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from itertools import islice
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
#: maps and lists of one object: each costs its check many times the two bytes that it takes
BRANCHES_MAX = 50_000
#: with so many, those that say who owns which field among them, it is not even read
_BRANCHES_READ_MAX = 4 * BRANCHES_MAX
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
#: unknown and repeated fields that are told of, as of Kubernetes' own reader of JSON
STRICT_ERRORS_MAX = 100
#: aliases expand: a YAML document may not grow beyond this many values
_YAML_NODES_MAX = 200_000

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"


#: how YAML 1.1 writes numbers, without those to the base 60: Kubernetes' reader takes `12:30:45` for text
_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)\Z"),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?\Z|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"
    ),
}
#: digits of an integer that are read one by one; with more it is a floating number in any case
_DIGITS_MAX = 400


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.1 as Kubernetes reads it: timestamps stay text, and what a document may grow to is counted as it grows."""

    def __init__(self, stream: bytes) -> None:
        self._nodes_left = _YAML_NODES_MAX
        super().__init__(stream)

    def _spend(self, nodes: int) -> None:
        self._nodes_left -= nodes
        if self._nodes_left < 0:
            raise yaml.YAMLError("document contains excessive aliasing")

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        """Called by the parser before each node that it makes."""
        self._spend(1)

    def flatten_mapping(self, node: Any) -> None:
        """Merges (`<<`) copy: a few lines of them would fill any memory."""
        super().flatten_mapping(node)
        self._spend(len(node.value))

    def construct_yaml_int(self, node: Any) -> int | float:
        text = str(self.construct_scalar(node)).replace("_", "")
        if len(text) > _DIGITS_MAX:
            raise yaml.YAMLError("the number has too many digits")
        digits = text.lstrip("+-")
        if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
            text = text.replace("0", "0o", 1)
        return int(text, 0)

    def construct_yaml_float(self, node: Any) -> float:
        text = str(self.construct_scalar(node)).replace("_", "").lower()
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rows if tag not in ("tag:yaml.org,2002:timestamp", *_NUMBERS)]
    for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, list("-+.0123456789"))


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
        if field_validation == "Strict" and isinstance(tree, dict):
            bounded(tree, body)
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


def reads_slowly(content_type: str) -> bool:
    """Whether a large body of this type takes long to read: a tenth of a second and more for 100 KB."""
    media = media_type(content_type)
    return media == PROTOBUF or media.endswith("yaml")


def as_json(kind: Kind, body: bytes, content_type: str) -> bytes:
    """Returns a YAML or protobuf body of an object of a kind as JSON.

    Raises:
        BadRequest: malformed.
        RequestEntityTooLarge
    """
    if len(body) > BODY_BYTES_MAX:
        raise RequestEntityTooLarge(f"Request entity too large: limit is {BODY_BYTES_MAX}")
    return orjson.dumps(_protobuf(body, kind) if media_type(content_type) == PROTOBUF else parse_yaml(body))


def check(
    registry: Registry,
    kind: Kind,
    tree: Any,
    body: bytes = b"",
    field_validation: str = "Warn",
    duplicates: list[str] | None = None,
    *,
    is_shallow: bool = False,
    is_applied: bool = False,
) -> tuple[Obj, list[str]]:
    """Checks a decoded tree against a kind's schema; `body` are the JSON bytes it came from, if it did.

    Args:
        is_shallow: it is known to be nested no deeper than allowed.
        is_applied: it is a configuration to apply, whose empty fields say that they are its author's.

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
    is_small = len(text) < 2 * BRANCHES_MAX
    if body and not (is_small and (is_shallow or (fits and schema.shut and _owned_are_shallow(tree, body)))):
        bounded(tree, body)
    if not fits:
        tree, findings = schema.walk(tree)
        if findings.errors:
            raise _undecodable(kind, ", ".join(findings.errors[:STRICT_ERRORS_MAX]))
        unknown = findings.unknown
    if schema.normalize is not None:
        schema.normalize(tree)
    if not is_applied:
        schema.trim(tree)
    notes = [f'unknown field "{path}"' for path in unknown]
    notes += [f'duplicate field "{path}"' for path in duplicates or ()]
    del notes[STRICT_ERRORS_MAX:]
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
        BadRequest, RequestEntityTooLarge
    """
    if len(body) > _BRANCHES_READ_MAX and body.count(b"{") + body.count(b"[") > _BRANCHES_READ_MAX:
        bare = _STRING.sub(b"", body)
        if bare.count(b"{") + bare.count(b"[") > _BRANCHES_READ_MAX:
            raise RequestEntityTooLarge(f"the object holds more than {BRANCHES_MAX} maps and lists")
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
    if body[:1] == b"{":  # clients apply JSON under the name of YAML
        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(body)
    try:
        tree = yaml.load(body, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
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
    """Refuses a tree nested too deeply, or of too many maps and lists (who owns which field does not count).

    Args:
        body: the JSON bytes it came from, where that is known; they may show that there is nothing to look for.

    Raises:
        BadRequest, RequestEntityTooLarge
    """
    if body and body.count(b"{") + body.count(b"[") <= DEPTH_MAX:
        return
    level: list[Any] = [tree]
    owned: list[Any] = []
    depth = count = 0
    while level or owned:
        depth += 1
        count += len(level)
        if depth > DEPTH_MAX:
            raise BadRequest(f"the object is nested deeper than {DEPTH_MAX} levels")
        if count > BRANCHES_MAX:
            raise RequestEntityTooLarge(f"the object holds more than {BRANCHES_MAX} maps and lists")
        deeper = _below(level)
        owned = [value for key, value in deeper if key == "fieldsV1"] + [value for _, value in _below(owned)]
        level = [value for key, value in deeper if key != "fieldsV1"]


def _owned_are_shallow(tree: Obj, body: bytes) -> bool:
    """Whether it can be seen at once that no `fieldsV1`, which may hold anything, is nested too deeply."""
    if b"\\u00" in body:  # its name may be written so that it is not found
        return False
    number = body.count(b'fieldsV1"')
    if not number:
        return True
    rows = (tree.get("metadata") or {}).get("managedFields") or ()
    texts = [orjson.dumps(row.get("fieldsV1")) for row in rows]
    # it lies in the object, its metadata, the list of rows and a row, and is as deep at most as it has opening brackets
    return number == len(rows) and all(_brackets(text) < DEPTH_MAX - 5 for text in texts)


def _brackets(text: bytes) -> int:
    """How many maps and lists JSON may hold that are not empty."""
    return text.count(b"{") + text.count(b"[") - text.count(b"{}") - text.count(b"[]")


def _below(level: list[Any]) -> list[tuple[str, Any]]:
    """The maps and lists in some maps and lists, with their keys."""
    found: list[tuple[str, Any]] = []
    for node in level:
        if type(node) is dict:
            found += [row for row in node.items() if type(row[1]) in (dict, list)]
        else:
            # more of them than may be need not be looked at
            branches = (("", value) for value in node if type(value) in (dict, list))
            found += islice(branches, BRANCHES_MAX + 1)
    return found


def _duplicates(body: bytes) -> list[str]:
    """Paths of fields that the body names twice, each once."""

    def pairs(rows: list[tuple[str, Any]]) -> Any:
        found = dict(rows)
        if len(found) == len(rows):
            return found
        seen: set[str] = set()
        return _Twice(found, list(dict.fromkeys(key for key, _ in rows if key in seen or seen.add(key))))  # type: ignore[func-returns-value]

    repeated: list[str] = []
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
            if isinstance(value, (dict, list)):
                _collect(value, f"{path}.{key}" if path else key, found)
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            if isinstance(value, (dict, list)):
                _collect(value, f"{path}[{index}]", found)


def _name(tree: Any) -> str:
    if isinstance(tree, list):
        return "array"
    if isinstance(tree, str):
        return "string"
    return "null" if tree is None else "number"
