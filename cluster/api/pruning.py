"""What an apply takes away: what its manager declared before, declares no more, and nobody else owns.

Source: sigs.k8s.io/structured-merge-diff/merge/update.go
"""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.fieldset import (
    LEAF,
    MAP,
    FieldTree,
    Repeated,
    child_of,
    is_member,
    list_elements,
    shape,
)
from steersman.cluster.api.schema.node import SchemaNode


def pruned(schema: SchemaNode | None, value: Any, last: FieldTree, owned: FieldTree) -> Any:
    """The value without what was declared last time and nobody owns any more."""
    kind = shape(schema, value)
    if kind == LEAF:
        return value
    if kind == MAP:
        result = {}
        for key, item in value.items():
            declares = schema is not None and key in schema.properties
            kept = _item(child_of(schema, key), item, "f:" + key, last, owned, declares)
            if kept is not None:
                result[key] = kept
        return result
    assert schema is not None
    elements = list_elements(schema, value, kind)
    if elements is None:
        return value
    items = [
        _item(schema.items, item, element, last, owned, False)
        for element, found in elements.items()
        for item in (found if isinstance(found, Repeated) else (found,))
    ]
    return [item for item in items if item is not None]


def _item(schema: SchemaNode | None, item: Any, element: str, last: FieldTree, owned: FieldTree, declared: bool) -> Any:
    before, holders = last.get(element), owned.get(element)
    if before is None:
        return item
    in_last = declared or is_member(before)
    is_held = holders is not None and (declared or is_member(holders))
    if in_last and not is_held:
        return None
    kept = pruned(schema, item, before, holders or {})
    if item and not kept and isinstance(kept, dict | list) and holders != {}:
        return None
    return kept


def restored(schema: SchemaNode | None, whole: Any, part: Any, owned: FieldTree) -> Any:
    """The `part` of a value, None for nothing of it, with what it lacks of the `whole` and somebody owns."""
    kind = shape(schema, whole)
    if part is None and (kind == LEAF or not owned):
        return whole if kind == LEAF else type(whole)()
    if kind == LEAF or whole == part or not owned:
        return part
    if kind == MAP:
        found = dict(part) if isinstance(part, dict) else {}
        for key, item in whole.items():
            if (node := owned.get("f:" + key)) is not None:
                found[key] = restored(child_of(schema, key), item, found.get(key), node)
        return found
    assert schema is not None
    items, left = list_elements(schema, whole, kind), list_elements(schema, part or [], kind)
    if items is None or left is None:
        return part
    both = {
        element: restored(schema.items, item, left.get(element), owned.get(element, {}))
        for element, item in items.items()
        if element in left or element in owned
    }
    rows = [*both.values(), *(item for element, item in left.items() if element not in both)]
    return [row for item in rows for row in (item if isinstance(item, Repeated) else (item,))]
