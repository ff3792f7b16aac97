"""JSON Patch and JSON Merge Patch on object trees.

Decides what an object looks like after a patch; knows nothing of kinds, schemas or immutability. The inputs are left as
they are; the result of a merge patch shares with them what stays.

Sources: RFC 6902 (JSON Patch), RFC 6901 (JSON Pointer), RFC 7396 (JSON Merge Patch), and what Kubernetes' library,
gopkg.in/evanphx/json-patch.v4, makes of them: a value that is left out is null, indexes may be negative.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from steersman.cluster.api.syntax import name_of
from steersman.cluster.meta.errors import BadRequest, Invalid, RequestEntityTooLarge
from steersman.cluster.meta.objects import Obj

#: Kubernetes refuses longer JSON patches, which could otherwise grow an object exponentially by copying
OPERATIONS_MAX = 10_000
#: what the `copy` operations of a patch may add to an object; a few of them could double it each
COPIED_BYTES_MAX = 3 * 1024 * 1024


_OPERATIONS = frozenset({"add", "remove", "replace", "move", "copy", "test"})
#: what is said of an operation on something within what is not there
_ABSENT = {
    "add": 'does not apply: doc is missing path: "{}"', "remove": 'does not apply: doc is missing path: "{}"',
    "replace": "does not apply: doc is missing path: {}", "test": "does not apply: is missing path: {}",
}  # fmt: skip
_INDEX = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


class Inapplicable(Invalid):
    """An operation cannot be carried out; tells which."""


class Unmet(Inapplicable):
    """What a `test` wants is not so."""


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
        Inapplicable: an operation cannot be carried out, or (Unmet) a `test` failed; the caller reads again and
            decides anew.
        RequestEntityTooLarge: the document holds more operations than allowed.
    """
    if not isinstance(operations, list):
        raise BadRequest(f"json: cannot unmarshal {name_of(operations)} into Go value of type jsonpatch.Patch")
    if len(operations) > OPERATIONS_MAX:
        raise RequestEntityTooLarge(
            f"The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {len(operations)}"
        )
    document: Any = copied(target)
    copies = _CopyBudget()
    for operation in operations:
        if not isinstance(operation, dict):
            raise BadRequest(f"json: cannot unmarshal {name_of(operation)} into Go value of type jsonpatch.Operation")
        try:
            document = _operate(document, operation, copies)
        except _TestFailed as error:
            raise Unmet(str(error)) from None
        except _PatchError as error:
            raise Inapplicable(str(error)) from None
        except _TooMuchCopied as error:
            raise Invalid(str(error)) from None
    if not isinstance(document, dict):
        raise Inapplicable("the patch leaves no object")
    return document


class _PatchError(Exception):
    """An operation that cannot be carried out."""


class _TestFailed(_PatchError):
    """A `test` whose value is another one."""


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
    if kind not in _OPERATIONS:
        raise _PatchError(f"Unexpected kind: {kind}")
    if kind in ("move", "copy"):
        return _taken_over(document, kind, operation, copies)
    path, text = _pointer(operation, "path"), operation["path"]
    value, missing = operation.get("value"), f"{kind} operation {_ABSENT[kind].format(text)}"
    if not path and kind in ("add", "replace"):
        return copied(value)
    if not path and kind == "remove":
        raise _PatchError(f"{missing}: missing value")
    parent = _parent(document, path, missing)
    if kind == "add":
        with _told(f"error in add for path: '{text}'"):
            _add(parent, path[-1], copied(value))
    elif kind == "replace":
        if not _has(parent, path[-1]):
            raise _PatchError(f"replace operation does not apply: doc is missing key: {text}: missing value")
        parent[_key(parent, path[-1])] = copied(value)
    elif kind == "remove":
        with _told(f"error in remove for path: '{text}'"):
            _remove(parent, path[-1])
    elif not _equal(_tested(document, parent, path), value):
        raise _TestFailed(f"testing value {text} failed: test failed")
    return document


def _taken_over(document: Any, kind: str, operation: Obj, copies: _CopyBudget) -> Any:
    """What comes of a `move` or a `copy`."""
    source, path, text = _pointer(operation, "from"), _pointer(operation, "path"), operation["path"]
    missing = f"{kind} operation does not apply: doc is missing"
    if not source:
        raise _PatchError(f"{missing} from path: {operation['from']}: missing value")
    parent = _parent(document, source, f"{missing} from path: {operation['from']}")
    with _told(f"error in {kind} for {'path' if kind == 'move' else 'from'}: '{source[-1]}'"):
        if kind == "move":
            value = _remove(parent, source[-1])
        elif _has(parent, source[-1]):
            value = parent[_key(parent, source[-1])]
            copies.take(value)
            value = copied(value)
        else:
            raise _PatchError(f"unable to get nonexistent key: {source[-1]}: missing value")
    if not path:
        return value
    target = _parent(document, path, f"{missing} destination path: {text}")
    with _told(f"error in {kind} for path: '{text}'"):
        _add(target, path[-1], value)
    return document


@contextmanager
def _told(where: str) -> Iterator[None]:
    try:
        yield
    except _PatchError as error:
        raise _PatchError(f"{where}: {error}") from None


def _pointer(operation: Obj, member: str) -> list[str]:
    pointer = operation.get(member)
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise _PatchError(f"{member!r} must be a JSON pointer, got {pointer!r}")
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


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
        wrong = f'strconv.Atoi: parsing "{part}": invalid syntax'
        raise _PatchError(f"value was not a proper array index: '{part}': {wrong}")
    index = int(part)
    index = index + end if index < 0 else index
    if not 0 <= index < end:
        raise _PatchError(f"Unable to access invalid index: {part}: invalid index referenced")
    return index


def _parent(document: Any, path: list[str], missing: str) -> Any:
    """The object or list that holds the end of a path; `missing` is told when there is none."""
    for part in path[:-1]:
        try:
            document = document[_key(document, part)] if isinstance(document, (dict, list)) else None
        except (KeyError, _PatchError):
            document = None
    if not isinstance(document, (dict, list)):
        raise _PatchError(f"{missing}: missing value")
    return document


def _key(container: Any, part: str) -> Any:
    return _index(container, part, end=len(container)) if isinstance(container, list) else part


def _has(container: Any, part: str) -> bool:
    if isinstance(container, dict):
        return part in container
    try:
        _key(container, part)
    except _PatchError:
        return False
    return True


def _tested(document: Any, parent: Any, path: list[str]) -> Any:
    """The value a `test` compares: a missing member of an existing object counts as null."""
    if not path:
        return document
    with _told(f"error in test for path: '/{'/'.join(path)}'"):
        return parent.get(path[-1]) if isinstance(parent, dict) else parent[_key(parent, path[-1])]


def _add(parent: Any, part: str, value: Any) -> None:
    if isinstance(parent, list):
        parent.insert(len(parent) if part == "-" else _index(parent, part, end=len(parent) + 1), value)
    else:
        parent[part] = value


def _remove(parent: Any, part: str) -> Any:
    if isinstance(parent, dict) and part not in parent:
        raise _PatchError(f"Unable to remove nonexistent key: {part}: missing value")
    return parent.pop(_key(parent, part))


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
