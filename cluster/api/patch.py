"""JSON Patch and JSON Merge Patch on object trees.

Decides what an object looks like after a patch; knows nothing of kinds, schemas or immutability. The inputs are left as
they are; the result of a merge patch shares with them what stays.

Sources: RFC 6902 (JSON Patch), RFC 6901 (JSON Pointer), RFC 7396 (JSON Merge Patch), and what Kubernetes' library,
gopkg.in/evanphx/json-patch.v4, makes of them: a value that is left out is null, indexes may be negative.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from steersman.cluster.meta.errors import BadRequest, Invalid, RequestEntityTooLarge
from steersman.cluster.meta.objects import Obj

#: Kubernetes refuses longer JSON patches, which could otherwise grow an object exponentially by copying
OPERATIONS_MAX = 10_000
#: what the `copy` operations of a patch may add to an object; a few of them could double it each
COPIED_BYTES_MAX = 3 * 1024 * 1024


_INDEX = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


class Inapplicable(Invalid):
    """An operation cannot be carried out; tells which."""


def copied(value: Any) -> Any:
    """Returns a deep copy of a JSON value."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def json_patch(target: Obj, operations: Any) -> Obj:
    """Applies a JSON Patch document (RFC 6902).

    Args:
        target: the object; left as it is.
        operations: the decoded patch, a list of operations.

    Raises:
        BadRequest: the document is no JSON patch.
        Inapplicable: an operation cannot be carried out, or a `test` failed; the caller reads again and decides anew.
        RequestEntityTooLarge: the document holds more operations than allowed.
    """
    if not isinstance(operations, list):
        raise BadRequest("error decoding patch: a JSON patch is a list of operations")
    if len(operations) > OPERATIONS_MAX:
        raise RequestEntityTooLarge(
            f"The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {len(operations)}"
        )
    document: Any = copied(target)
    copies = _CopyBudget()
    for position, operation in enumerate(operations):
        if not isinstance(operation, dict):
            raise BadRequest(f"error decoding patch: operation {position} is no object")
        try:
            document = _operate(document, operation, copies)
        except _PatchError as error:
            raise Inapplicable(f"operation {position} ({operation.get('op')}): {error}") from None
        except _TooMuchCopied as error:
            raise Invalid(str(error)) from None
    if not isinstance(document, dict):
        raise Inapplicable("the patch leaves no object")
    return document


class _PatchError(Exception):
    """An operation that cannot be carried out."""


class _TooMuchCopied(Exception):
    """The `copy` operations of a patch make too much of an object."""


class _CopyBudget:
    """Counts the bytes that `copy` operations have added."""

    def __init__(self) -> None:
        self.taken = 0

    def take(self, value: Any) -> None:
        try:
            self.taken += len(orjson.dumps(value))
        except orjson.JSONEncodeError:  # deeper than anything that is stored
            raise _PatchError("the value is nested too deeply to be copied") from None
        if self.taken > COPIED_BYTES_MAX:
            raise _TooMuchCopied(
                f"Unable to complete the copy, the accumulated size increase of copy is {self.taken}, "
                f"exceeding the limit {COPIED_BYTES_MAX}"
            )


def _operate(document: Any, operation: Obj, copies: _CopyBudget) -> Any:
    kind = operation.get("op")
    path = _pointer(operation, "path")
    match kind:
        case "add":
            return _add(document, path, copied(operation.get("value")))
        case "remove":
            return _remove(document, path)[0]
        case "replace":
            _find(document, path)
            return _replace(document, path, copied(operation.get("value")))
        case "move":
            source = _pointer(operation, "from")
            if path[: len(source)] == source and len(path) > len(source):
                raise _PatchError(f"{_text(source)} cannot be moved into itself")
            document, value = _remove(document, source)
            return _add(document, path, value)
        case "copy":
            value = _find(document, _pointer(operation, "from"))
            copies.take(value)
            return _add(document, path, copied(value))
        case "test":
            if not _equal(_find_or_null(document, path), operation.get("value")):
                raise _PatchError(f"testing value {_text(path)} failed")
            return document
    raise _PatchError(f"Unexpected kind: {kind}")


def _pointer(operation: Obj, member: str) -> list[str]:
    pointer = operation.get(member)
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise _PatchError(f"{member!r} must be a JSON pointer, got {pointer!r}")
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _text(path: list[str]) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(_equal(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right)


def _index(container: list[Any], part: str, *, end: int) -> int:
    """The place that a part of a path names; Kubernetes counts negative ones from the end."""
    if not _INDEX.fullmatch(part):
        raise _PatchError(f"{part!r} is no index of a list")
    index = int(part)
    index = index + end if index < 0 else index
    if not 0 <= index < end:
        raise _PatchError(f"index {index} is out of bounds ({len(container)} items)")
    return index


def _find(document: Any, path: list[str]) -> Any:
    for depth, part in enumerate(path):
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list):
            document = document[_index(document, part, end=len(document))]
        else:
            raise _PatchError(f"path {_text(path[: depth + 1])} does not exist")
    return document


def _find_or_null(document: Any, path: list[str]) -> Any:
    """The value a `test` compares: a missing member of an existing object counts as null."""
    if not path:
        return document
    parent = _find(document, path[:-1])
    if isinstance(parent, dict):
        return parent.get(path[-1])
    return _find(document, path)


def _change(document: Any, path: list[str], change: Callable[[Any, str], None]) -> Any:
    change(_find(document, path[:-1]), path[-1])
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    def change(parent: Any, part: str) -> None:
        if isinstance(parent, list):
            parent.insert(len(parent) if part == "-" else _index(parent, part, end=len(parent) + 1), value)
        elif isinstance(parent, dict):
            parent[part] = value
        else:
            raise _PatchError(f"{_text(path[:-1])} holds neither an object nor a list")

    return _change(document, path, change) if path else value


def _replace(document: Any, path: list[str], value: Any) -> Any:
    def change(parent: Any, part: str) -> None:
        if isinstance(parent, list):
            parent[_index(parent, part, end=len(parent))] = value
        else:
            parent[part] = value

    return _change(document, path, change) if path else value


def _remove(document: Any, path: list[str]) -> tuple[Any, Any]:
    """Returns the document without the value at `path`, and that value."""
    if not path:
        raise _PatchError("the whole object cannot be removed")
    value = _find(document, path)
    parent = _find(document, path[:-1])
    if isinstance(parent, list):
        del parent[_index(parent, path[-1], end=len(parent))]
    else:
        del parent[path[-1]]
    return document, value


def merge_patch(target: Obj, patch: Any) -> Obj:
    """Applies a JSON Merge Patch (RFC 7396): null removes, objects merge, anything else replaces.

    Raises:
        BadRequest: the patch is no object.
    """
    if not isinstance(patch, dict):
        raise BadRequest("error decoding patch: a merge patch of an object is an object")
    merged: Obj = _merged(target, patch)
    return merged


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    base = target if isinstance(target, dict) else {}
    result = {key: value for key, value in base.items() if key not in patch}
    for key, value in patch.items():
        if value is not None:
            result[key] = _merged(base.get(key), value)
    return result
