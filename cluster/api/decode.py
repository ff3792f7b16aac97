"""From the bytes of a request body to an object: JSON, YAML or Kubernetes protobuf, checked against the kind's schema.

It decides what is malformed (400) and what is merely unknown (an error, a warning or nothing, as `fieldValidation`
says). Whether the object's values make sense is validation's business.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import orjson

from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.protobuf.codec import NoEnvelope, ProtobufError, UnknownKind
from steersman.cluster.api.protobuf.codec import decode as decode_protobuf
from steersman.cluster.api.row import Kind
from steersman.cluster.api.syntax import (
    BRANCHES_MAX,
    DEPTH_MAX,
    Malformed,
    name_of,
    read_json,
    read_yaml,
    says_once,
    written_fields,
)
from steersman.cluster.meta.errors import BadRequest, RequestEntityTooLarge, UnsupportedMediaType
from steersman.cluster.meta.objects import Obj

#: the largest body that is read
BODY_BYTES_MAX = 3 * 1024 * 1024
#: a body, or an object, that takes about as long as a dozen of usual ones, and of a format that takes longer to read
LARGE_BYTES, _LARGE_SLOW_BYTES = 32 * 1024, 8 * 1024
#: unknown and repeated fields that are told of, as of Kubernetes' own reader of JSON
STRICT_ERRORS_MAX = 100
#: bytes of a body that a refusal shows
_SHOWN_BYTES = 30

_NO_JSON = "couldn't get version/kind; json parse error: "
_GO_TYPE = (
    'type struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
)
_SCHEME = "pkg/api/legacyscheme/scheme.go:30"

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
_YAMLS = (YAML, "application/x-yaml", "text/yaml")


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
    media = _accepted(kind, content_type)
    repeated: list[str] = []
    sent, twice = body, b""
    if media == PROTOBUF:
        tree = _protobuf(body, kind)
        body = b""
    elif media == JSON:
        try:
            tree = read_json(body)
        except Malformed as error:
            raise _unrecognized(kind, f"{_NO_JSON}{error.message}", sent) from None
        if field_validation != "Ignore" and not says_once(body, tree):
            bounded(tree, body)
            twice = body
        if not body.isascii():  # what is no UTF-8 has been replaced
            body = orjson.dumps(tree) if isinstance(tree, dict) else body
    else:
        try:
            tree, repeated = read_yaml(body)
        except Malformed as error:
            raise _unrecognized(kind, error.message, sent) from None
        body = b""
    tree = identified(registry, kind, tree, sent)
    return check(registry, kind, tree, body, field_validation, repeated=repeated, twice=twice)


def _accepted(kind: Kind, content_type: str) -> str:
    """The media type of a body; raises UnsupportedMediaType when objects of the kind do not come so."""
    media = media_type(content_type)
    if media in _YAMLS or media == JSON or (media == PROTOBUF and not kind.is_custom):
        return media
    accepted = (JSON, YAML) if kind.is_custom else (JSON, YAML, PROTOBUF)
    raise UnsupportedMediaType(
        f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    )


def takes_long(body: bytes, content_type: str) -> bool:
    """Whether a body takes long to read and to judge: many milliseconds."""
    if len(body) <= _LARGE_SLOW_BYTES:
        return False
    return len(body) > LARGE_BYTES or reads_slowly(content_type)


def reads_slowly(content_type: str) -> bool:
    """Whether a large body of this type takes long to read: a tenth of a second and more for 100 KB."""
    media = media_type(content_type)
    return media == PROTOBUF or media.endswith("yaml")


def as_json(kind: Kind, body: bytes, content_type: str, field_validation: str) -> tuple[bytes, list[str]]:
    """Reads a YAML or protobuf body of an object of a kind, or of a configuration to apply, and checks nothing.

    Returns:
        it as JSON, and the texts of warnings.

    Raises:
        BadRequest: malformed, or a key named again under `Strict`. UnsupportedMediaType, RequestEntityTooLarge
    """
    if len(body) > BODY_BYTES_MAX:
        raise RequestEntityTooLarge(f"Request entity too large: limit is {BODY_BYTES_MAX}")
    media = media_type(content_type)
    if media == PROTOBUF:
        _accepted(kind, content_type)
        return orjson.dumps(_protobuf(body, kind)), []
    if media.startswith("application/apply-patch"):
        tree, repeated = read_configuration(body, field_validation)
        return orjson.dumps(tree), repeated
    try:
        tree, repeated = read_yaml(body)
    except Malformed as error:
        raise _unrecognized(kind, error.message, body) from None
    if repeated and field_validation == "Strict":
        raise _undecodable(kind, strict(repeated))
    return orjson.dumps(tree), repeated if field_validation == "Warn" else []


def read_configuration(body: bytes, field_validation: str) -> tuple[Any, list[str]]:
    """Reads the document of an apply: YAML, which clients mostly send as JSON.

    Returns:
        its tree, and sentences about what it says again.

    Raises:
        BadRequest: it is no YAML, or says something again under `Strict`.
    """
    try:
        tree, repeated = read_yaml(body)
    except Malformed as error:
        raise BadRequest(f"error decoding YAML: error converting YAML to JSON: {error.message}") from None
    if repeated and field_validation == "Strict":
        lines = "\n  ".join(repeated)
        prefix = "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:"
        raise BadRequest(f"{prefix}\n  {lines}")
    return tree, [] if field_validation == "Ignore" else repeated


def check(
    registry: Registry,
    kind: Kind,
    tree: Any,
    body: bytes = b"",
    field_validation: str = "Warn",
    *,
    repeated: Sequence[str] = (),
    twice: bytes = b"",
    is_shallow: bool = False,
    is_applied: bool = False,
) -> tuple[Obj, list[str]]:
    """Checks a decoded tree against a kind's schema; `body` are the JSON bytes it came from, if it did.

    Args:
        tree: the object, of this kind.
        repeated: sentences about what a text that was no JSON says again.
        twice: the JSON text, when it may name a field again.
        is_shallow: it is known to be nested no deeper than allowed.
        is_applied: it is a configuration to apply, whose empty fields say that they are its author's.

    Raises:
        BadRequest: as `decode`.
    """
    unknown: list[str] = []
    schema = registry.compiled(kind)
    if not body:
        bounded(tree)
    text = body or orjson.dumps(tree)
    fits = schema.fast is not None and b"null" not in text and schema.fast(text)
    if body and not (
        _has_few(tree, body) and (is_shallow or (fits and schema.shut and _owned_are_shallow(tree, body)))
    ):
        bounded(tree, body)
    if not fits:
        tree, findings = schema.walk(tree)
        if findings.errors:
            raise _undecodable(kind, ", ".join(findings.errors[:STRICT_ERRORS_MAX]), findings.unconverted[0])
        unknown = findings.unknown
    if schema.normalize is not None:
        schema.normalize(tree)
    if not is_applied:
        schema.trim(tree)
    if field_validation == "Ignore":
        return tree, []
    notes = [*repeated, *noted(unknown, twice)][:STRICT_ERRORS_MAX]
    if notes and field_validation == "Strict":
        raise _undecodable(kind, strict(notes))
    return tree, notes


def strict(notes: Sequence[str]) -> str:
    """What a strict reader says; keys that YAML repeats come from a reader of its own, which says so first."""
    lines = [note for note in notes if note.startswith("line ")]
    told = ["yaml: unmarshal errors:\n  " + "\n  ".join(lines)] if lines else []
    return "strict decoding error: " + ", ".join([*told, *(note for note in notes if not note.startswith("line "))])


def noted(unknown: Sequence[str], body: bytes) -> list[str]:
    """The sentences about unknown fields and, of a JSON text, those that it names again, in its order."""
    if not body:  # nothing is named twice
        return [f'unknown field "{path}"' for path in unknown]
    left = set(unknown)
    seen: set[str] = set()
    notes: dict[str, None] = {}
    for path in written_fields(body):
        if path in seen:
            notes[f'duplicate field "{path}"'] = None
        elif path in left:
            notes[f'unknown field "{path}"'] = None
        seen.add(path)
    return list(notes)


class Undecodable(BadRequest):
    """An object that does not fit its kind.

    Args:
        detail: tells why; unconverted: as it is told of what comes of a strategic patch.
    """

    def __init__(self, message: str, detail: str, unconverted: str = "") -> None:
        super().__init__(message)
        self.detail = detail
        self.unconverted = unconverted or detail


def _undecodable(kind: Kind, detail: str, unconverted: str = "") -> Undecodable:
    name, version = kind.resource.kind, kind.resource.version
    return Undecodable(f'{name} in version "{version}" cannot be handled as a {name}: {detail}', detail, unconverted)


def _unrecognized(kind: Kind, detail: str, body: bytes) -> Undecodable:
    shown = body[:_SHOWN_BYTES].decode("utf-8", "replace") if body[:1] == b"{" else body[:_SHOWN_BYTES].hex()
    shown = f"{shown} ..." if len(body) > _SHOWN_BYTES else shown or "<empty>"
    name = kind.resource.kind
    return Undecodable(f"the object provided is unrecognized (must be of type {name}): {detail} ({shown})", detail)


def identified(registry: Registry, kind: Kind, tree: Any, body: bytes = b"") -> Obj:
    """The tree with its `apiVersion` and `kind`, which must be those of the kind; `body` is shown in refusals.

    Raises:
        Undecodable, BadRequest
    """
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise _unrecognized(kind, f"{_NO_JSON}json: cannot unmarshal {name_of(tree)} into Go value of {_GO_TYPE}", body)
    wanted, api_version = kind.resource.kind, kind.api_version
    for key in ("apiVersion", "kind"):
        if not tree.get(key):
            tree.pop(key, None)
        elif not isinstance(tree[key], str):
            sort = name_of(tree[key])
            detail = f"{_NO_JSON}json: cannot unmarshal {sort} into Go struct field .{key} of type string"
            raise _unrecognized(kind, detail, body)
    if kind.is_custom and "kind" not in tree:  # only what has a type in Go knows what it is without saying so
        raise _undecodable(kind, f"Object 'Kind' is missing in '{(body or orjson.dumps(tree)).decode()}'")
    found_kind, found_version = tree.get("kind", wanted), tree.get("apiVersion", "" if kind.is_custom else api_version)
    if found_version.count("/") > 1:
        raise _unrecognized(kind, f"unexpected GroupVersion string: {found_version}", body)
    is_any_groups = found_kind == wanted == "DeleteOptions"  # clients send those of the object's own group
    if (found_kind, found_version) != (wanted, api_version) and not is_any_groups:
        raise _mistaken(registry, kind, found_kind, found_version)
    if "kind" in tree and "apiVersion" in tree:
        return tree
    tree.pop("kind", None)
    tree.pop("apiVersion", None)
    return {"apiVersion": found_version, "kind": wanted, **tree}


def _mistaken(registry: Registry, kind: Kind, found_kind: str, found_version: str) -> BadRequest:
    """The refusal of an object of another kind or version."""
    wanted, api_version = kind.resource.kind, kind.api_version
    group, _, version = found_version.rpartition("/")
    is_sibling = found_kind == wanted and group == kind.resource.group
    known = registry.by_kind(found_version, found_kind) is not None
    if (is_sibling and known) or (kind.is_custom and found_version != api_version):
        return BadRequest(
            f"the API version in the data ({found_version}) does not match the expected API version ({api_version})"
        )
    if not known and not kind.is_custom:
        return _unregistered(kind, found_kind, found_version)
    hub = f"{kind.resource.group.partition('.')[0] or 'core'}.{wanted}"
    detail = f"converting ({version}.{found_kind}) to ({hub}): unknown conversion"
    return Undecodable(f'{found_kind} in version "{version}" cannot be handled as a {wanted}: {detail}', detail)


def _unregistered(kind: Kind, found_kind: str, found_version: str) -> Undecodable:
    detail = f'no kind "{found_kind}" is registered for version "{found_version}" in scheme "{_SCHEME}"'
    version, wanted = found_version.rpartition("/")[2], kind.resource.kind
    return Undecodable(f'{found_kind} in version "{version}" cannot be handled as a {wanted}: {detail}', detail)


def _protobuf(body: bytes, kind: Kind) -> Any:
    try:
        return decode_protobuf(body, kind.api_version, kind.resource.kind)
    except NoEnvelope as error:
        raise _unrecognized(kind, str(error), body) from None
    except UnknownKind as error:
        raise _unregistered(kind, error.kind, error.api_version) from None
    except ProtobufError as error:
        raise _undecodable(kind, str(error)) from None


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


def _has_few(tree: Obj, body: bytes) -> bool:
    """Whether it can be seen at once that an object holds few enough maps and lists beside who owns its fields."""
    if len(body) < 2 * BRANCHES_MAX:
        return True
    count = body.count(b"{") + body.count(b"[")
    meta = tree.get("metadata")
    if count > BRANCHES_MAX and isinstance(meta, dict) and (rows := meta.get("managedFields")):
        owned = orjson.dumps(rows)
        count -= owned.count(b"{") + owned.count(b"[")
    return count <= BRANCHES_MAX


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
