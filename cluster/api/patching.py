"""What the body of a patch makes of an object: read, carried out, and read again as the object's kind.

Decides what is no patch (400), what cannot be carried out or does not fit the kind afterwards (422), and of which
fields the client is told; who owns what, and whether the object is valid, is decided after it.

Source: k8s.io/apiserver/pkg/endpoints/handlers/patch.go
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from steersman.cluster.api import patch as patches
from steersman.cluster.api.decode import Undecodable, bounded, check, identified, noted, read_configuration, strict
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.api.rules.fields import bad
from steersman.cluster.api.strategic import strategic_merge
from steersman.cluster.api.syntax import Malformed, name_of, read_json, says_once
from steersman.cluster.api.typed import refusal
from steersman.cluster.meta import errors
from steersman.cluster.meta.errors import BadRequest
from steersman.cluster.meta.gotext import formatted
from steersman.cluster.meta.objects import Obj

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

_OPERATION_FIELDS = ("op", "path", "from", "value")
_NO_MERGE_PATCH = "Invalid JSON Patch"


def patched(
    registry: Registry, kind: Kind, before: Obj, media: str, body: bytes, field_validation: str
) -> tuple[Obj, list[str]]:
    """Carries a patch out.

    Args:
        kind: of `before`, which may be that of a subresource.
        media: one of the three types of patches that are no apply.

    Returns:
        the object, not yet defaulted, and the texts of warnings.

    Raises:
        BadRequest: the body is no patch.
        Invalid: it cannot be carried out, or what comes of it is no object of this kind.
        RequestEntityTooLarge
    """
    quiet = field_validation == "Ignore"
    if media == JSON_PATCH:
        operations, notes = _operations(body, quiet)
        try:
            after = patches.json_patch(before, operations)
        except patches.Inapplicable:  # Kubernetes does not tell which operation
            raise errors.Invalid("the server rejected our request due to an error in our request") from None
        bounded(after)  # the others nest no deeper than the object and the patch do
    else:
        patch, notes = _document(body, media, quiet)
        if media == MERGE_PATCH:
            after = patches.merge_patch(before, patch)
        else:
            after = strategic_merge(registry.schema(kind), before, patch)
            # Kubernetes reads what comes out as the type it was, whatever the patch says of that
            after = {**after, "apiVersion": before["apiVersion"], "kind": before["kind"]}
    try:
        after = identified(registry, kind, after)
        text = orjson.dumps(after)
        wanted = "Ignore" if quiet else "Warn"
        found, more = check(registry, kind, orjson.loads(text), text, wanted, is_shallow=True)
    except Undecodable as error:
        if media == STRATEGIC_PATCH:
            raise _unfit(formatted(patch), error.unconverted) from None
        raise _unfit(_shown(after), error.detail) from None
    notes = [*notes, *more]
    if notes and field_validation == "Strict":
        raise _unfit(formatted(patch) if media == STRATEGIC_PATCH else _shown(after), strict(notes))
    return found, notes


def _shown(tree: Obj) -> str:
    return orjson.dumps(tree, option=orjson.OPT_SORT_KEYS).decode()


def _unfit(shown: str, detail: str) -> errors.Invalid:
    return errors.invalid("", "", [bad("patch", shown, detail)])


def _document(body: bytes, media: str, quiet: bool) -> tuple[Obj, Sequence[str]]:
    """The document of a merge patch, and what it says again."""
    is_merge = media == MERGE_PATCH
    try:
        found = read_json(body)
        if found is not None and not isinstance(found, dict):
            raise Malformed(f"json: cannot unmarshal {name_of(found)} into Go value of type map[string]interface {{}}")
    except Malformed as error:
        if not is_merge:
            raise
        raise BadRequest(_NO_MERGE_PATCH if quiet else f"error decoding patch: {error.message}") from None
    if found is None:
        if is_merge:
            raise BadRequest(_NO_MERGE_PATCH)
        return {}, ()
    bounded(found, body)
    return found, () if quiet or says_once(body, found) else noted((), body)


def _operations(body: bytes, quiet: bool) -> tuple[list[Any], Sequence[str]]:
    """The operations of a JSON patch, and which of their members are unknown or said again."""
    try:
        found = read_json(body)
    except Malformed as error:
        raise BadRequest(error.message if quiet else f"error decoding patch: {error.message}") from None
    if found is None:
        return [], ()
    if not isinstance(found, list):
        kind = "jsonpatch.Patch" if quiet else "[]handlers.jsonPatchOp"
        text = f"json: cannot unmarshal {name_of(found)} into Go value of type {kind}"
        raise BadRequest(text if quiet else f"error decoding patch: {text}")
    bounded(found, body)
    if quiet:
        return found, ()
    unknown = []
    for index, operation in enumerate(found):
        _check_operation(operation)
        unknown += [f"[{index}].{key}" for key in operation or () if key not in _OPERATION_FIELDS]
    return found, [f"json patch {note}" for note in noted(unknown, b"" if says_once(body, found) else body)]


def _check_operation(operation: Any) -> None:
    if operation is None:
        return
    if not isinstance(operation, dict):
        where = "Go value of type handlers.jsonPatchOp"
        raise BadRequest(f"error decoding patch: json: cannot unmarshal {name_of(operation)} into {where}")
    for key in ("op", "path", "from"):
        value = operation.get(key)
        if value is not None and not isinstance(value, str):
            where = f"Go struct field jsonPatchOp.{key} of type string"
            raise BadRequest(f"error decoding patch: json: cannot unmarshal {name_of(value)} into {where}")


def configuration(registry: Registry, kind: Kind, body: bytes, field_validation: str) -> tuple[Obj, list[str]]:
    """Reads a configuration to apply, and checks it against its kind.

    Returns:
        the configuration, and sentences about what it says again.

    Raises:
        BadRequest: it is no YAML, of another kind or version, does not fit its kind, or says something again under
            `Strict`.
    """
    tree, repeated = read_configuration(body, field_validation)
    if tree is not None and not isinstance(tree, dict):
        detail = f"json: cannot unmarshal {name_of(tree)} into Go value of type map[string]interface {{}}"
        raise BadRequest(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: {detail}")
    found: Obj = tree or {}
    if (found.get("apiVersion"), found.get("kind")) != (kind.api_version, kind.resource.kind):
        raise BadRequest(f"invalid object type: {_type_of(found)}")
    try:
        applied, unknown = check(registry, kind, found, b"", "Warn", is_applied=True)
    except Undecodable:
        raise refusal(registry.schema(kind), found) from None
    if unknown:
        raise refusal(registry.schema(kind), found)
    return applied, repeated


def _type_of(tree: Obj) -> str:
    group, _, version = str(tree.get("apiVersion") or "").rpartition("/")
    return f"{group}/{version}, Kind={tree.get('kind') or ''}"
