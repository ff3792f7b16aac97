"""Strategic merge patch: a merge patch that knows from the schema which lists merge by key.

Decides what an object looks like after a strategic patch with its directives (`$patch`, `$setElementOrder/NAME`,
`$deleteFromPrimitiveList/NAME`, `$retainKeys`). The result shares what the patch leaves alone with the object; neither
is changed in place.

Source: https://github.com/kubernetes/community/blob/main/contributors/devel/sig-api-machinery/strategic-merge-patch.md
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from steersman.cluster.api.patch import copied
from steersman.cluster.api.schema.node import SchemaNode
from steersman.cluster.meta.errors import BadRequest, Invalid
from steersman.cluster.meta.gotext import formatted
from steersman.cluster.meta.objects import Obj

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"


def strategic_merge(schema: SchemaNode | None, target: Obj, patch: Any) -> Obj:
    """Applies a strategic merge patch.

    Args:
        schema: of the object's kind; its merge keys and strategies decide.
        target: the object; left as it is.
        patch: the decoded patch.

    Raises:
        BadRequest: the patch or one of its directives has the wrong form. Invalid: it cannot be carried out.
    """
    if not isinstance(patch, dict):
        raise BadRequest("error decoding patch: a strategic merge patch of an object is an object")
    return _merge_map(schema, target, patch)


def _child(schema: SchemaNode | None, key: str) -> SchemaNode | None:
    if schema is None:
        return None
    return schema.properties.get(key) or schema.additional


def _merge_map(schema: SchemaNode | None, target: Obj, patch: Obj, *, retain: bool = False) -> Obj:
    directive = patch.get(_PATCH)
    if directive is not None:
        match directive:
            case "replace":
                replacement: Obj = _cleaned(patch)
                return replacement
            case "delete":
                return {}
            case _:
                raise _unknown(directive, patch)
    target = _retained(target, patch, retain)
    result = {key: value for key, value in target.items() if key not in patch}
    for key, value in patch.items():
        if value is None or key == _RETAIN or key.startswith((_ORDER, _DELETE)):
            continue
        if isinstance(value, dict) and _PATCH in value and not isinstance(target.get(key), dict):
            continue  # a directive about what is not there
        result[key] = _merge_value(_child(schema, key), target.get(key), value, patch, key)
    for key in _directive_only(patch):
        if isinstance(target.get(key), list):
            result[key] = _merge_list(_child(schema, key), target[key], [], patch, key)
    return result


def _unknown(directive: Any, patch: Obj) -> BadRequest:
    return BadRequest(f"unknown patch type: {formatted(directive)} in map: {formatted(patch)}")


def _directive_only(patch: Obj) -> list[str]:
    """Lists that a patch orders or thins out without naming an item."""
    found = [key.partition("/")[2] for key in patch if key.startswith((_ORDER, _DELETE))]
    return [key for key in dict.fromkeys(found) if key not in patch]


def _refused() -> Invalid:
    """What Kubernetes says of a patch whose form is right and that cannot be carried out."""
    return Invalid("the server rejected our request due to an error in our request")


def _retained(target: Obj, patch: Obj, retain: bool) -> Obj:
    keys = patch.get(_RETAIN)
    if keys is None:
        return target
    if not isinstance(keys, list):
        raise BadRequest("invalid patch format of retainKeys")
    for key, value in patch.items():
        if not key.startswith("$") and value is not None and key not in keys:
            raise _refused()
    return {key: value for key, value in target.items() if key in keys}


def _merge_value(schema: SchemaNode | None, old: Any, new: Any, patch: Obj, key: str) -> Any:
    if isinstance(new, dict):
        replaces = schema is not None and "replace" in schema.patch_strategies
        base = old if isinstance(old, dict) and not replaces else {}
        return _merge_map(schema, base, new)
    if isinstance(new, list):
        return _merge_list(schema, old if isinstance(old, list) else [], new, patch, key)
    return new


def _merge_list(schema: SchemaNode | None, old: list[Any], new: list[Any], patch: Obj, key: str) -> list[Any]:
    if schema is None or "merge" not in schema.patch_strategies:
        return _replace_list(old, new, patch, key)
    if any(isinstance(item, list) for item in new):
        raise _refused()
    order = _order(patch, key)
    if schema.merge_key:
        return _merge_keyed(schema, old, new, order)
    return _merge_scalars(old, new, patch.get(_DELETE + key), order)


def _replace_list(old: list[Any], new: list[Any], patch: Obj, key: str) -> list[Any]:
    """An atomic list: the patch's, or, where it brings none, the old one thinned out or in another order."""
    if key in patch:
        return [_cleaned(item) for item in new if not (isinstance(item, dict) and _PATCH in item)]
    if any(isinstance(item, dict | list) for item in old):
        raise _refused()  # such items cannot be told apart
    kept, order = _thinned(old, patch.get(_DELETE + key)), _order(patch, key)
    return kept if order is None else _ordered(kept, old, order, lambda item: item)


def _order(patch: Obj, key: str) -> list[Any] | None:
    """The order that a patch gives a list; None where it gives none."""
    order = patch.get(_ORDER + key)
    if order is not None and not isinstance(order, list):
        raise BadRequest("invalid patch format of setElementOrder list")
    return order


def _thinned(old: list[Any], deleted: Any) -> list[Any]:
    """A list of scalars without those to be deleted."""
    if deleted is not None and not isinstance(deleted, list):
        raise BadRequest("invalid patch format of primitive list")
    gone = {_mark(item) for item in deleted or ()}
    return [item for item in old if _mark(item) not in gone]


def _merge_scalars(old: list[Any], new: list[Any], deleted: Any, order: list[Any] | None) -> list[Any]:
    kept = {_mark(item): item for item in _thinned(old, deleted)}
    merged = list((kept | {_mark(item): copied(item) for item in new}).values())
    if order is not None:
        _check_order(new, order, new, order)
    return _ordered(merged, old, new if order is None else order, lambda item: item)


def _merge_keyed(schema: SchemaNode, old: list[Any], new: list[Any], order: list[Any] | None) -> list[Any]:
    merge_key = schema.merge_key
    for item in new:
        if not isinstance(item, dict):
            raise BadRequest(f"list element types are not identical: {formatted([old, new])}")
        if item.get(_PATCH) == "merge":
            raise BadRequest("merging lists cannot yet be specified in the patch")
        if item.get(_PATCH) not in (None, "delete", "replace"):
            raise _unknown(item[_PATCH], item)
    if any(item.get(_PATCH) == "replace" for item in new):
        return [_cleaned(item) for item in new if _PATCH not in item]
    deleted = {_mark(_key_of(item, merge_key)) for item in new if item.get(_PATCH) == "delete"}
    merged = [item for item in old if not (isinstance(item, dict) and _mark(item.get(merge_key)) in deleted)]
    places: dict[tuple[str, str], int] = {}
    for place, row in enumerate(merged):
        if isinstance(row, dict):
            places.setdefault(_mark(row.get(merge_key)), place)  # of several with a key, the first is meant
    changed = [item for item in new if item.get(_PATCH) != "delete"]
    for item in changed:
        place = places.setdefault(_mark(_key_of(item, merge_key)), len(merged))
        if place == len(merged):
            merged.append(_merge_map(schema.items, {}, item))
        else:
            merged[place] = _merge_map(schema.items, merged[place], item)
    wanted_order = named = [_key_of(item, merge_key) for item in changed]
    if order is not None:
        wanted_order = [_key_of(row, merge_key) if isinstance(row, dict) else row for row in order]
        _check_order(named, wanted_order, new, order)
    return _ordered(merged, old, wanted_order, lambda row: row.get(merge_key) if isinstance(row, dict) else row)


def _key_of(item: Obj, merge_key: str) -> Any:
    if merge_key not in item:
        raise BadRequest(f"map: {formatted(item)} does not contain declared merge key: {merge_key}")
    return item[merge_key]


def _check_order(named: Sequence[Any], order: Sequence[Any], patch: Sequence[Any], shown: Sequence[Any]) -> None:
    """The items of the patch must stand in the order list, in the same order."""
    position = 0
    for key in named:
        while position < len(order) and order[position] != key:
            position += 1
        if position == len(order):
            raise BadRequest(
                f"The order in patch list:\n{formatted(list(patch))}\n doesn't match {_ORDER[:-1]} list:\n"
                f"{formatted(list(shown))}\n"
            )
        position += 1


def _ordered(merged: list[Any], old: list[Any], order: list[Any], key: Callable[[Any], Any]) -> list[Any]:
    """Puts the items that `order` names into that order, with the others before those they stood before.

    What the old list does not hold comes before the others that are left: so do the items that a patch adds.
    """
    rank = {_mark(wanted): i for i, wanted in enumerate(order)}
    places = {_mark(key(item)): i for i, item in enumerate(old)}
    named = deque(sorted((m for m in merged if _mark(key(m)) in rank), key=lambda item: rank[_mark(key(item))]))
    others = deque(item for item in merged if _mark(key(item)) not in rank)

    def stands_before(left: Any, right: Any) -> bool:
        a, b = places.get(_mark(key(left))), places.get(_mark(key(right)))
        return a is not None and b is not None and a < b

    result: list[Any] = []
    while named and others:
        result.append(others.popleft() if stands_before(others[0], named[0]) else named.popleft())
    return [*result, *named, *others]


def _mark(key: Any) -> tuple[str, str]:
    """A hashable stand-in for a JSON value."""
    return type(key).__name__, str(key)


def _cleaned(value: Any) -> Any:
    """A copy of what a patch adds, without directives and nulls."""
    if isinstance(value, dict):
        return {k: _cleaned(item) for k, item in value.items() if item is not None and not k.startswith("$")}
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return value
