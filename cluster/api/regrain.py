"""Sets of fields under a schema that has become coarser since they were written down.

Where a list or map is atomic now, who owned something in it owns it whole. The other way round nothing is to be done:
who owned a list whole owns none of its items, as nobody can tell that from an empty list.

Source: sigs.k8s.io/structured-merge-diff/typed/reconcile_schema.go
"""

from __future__ import annotations

from steersman.cluster.api.fieldset import FieldTree, child_of
from steersman.cluster.api.schema.node import SchemaNode

_LEAF: FieldTree = {}


def regrained(schema: SchemaNode | None, tree: FieldTree) -> FieldTree:
    """The fields in `tree` as this schema has them; returns `tree` itself when nothing is different.

    Args:
        schema: of the place that `tree` is about; None where anything may be.
    """
    if schema is None:
        return tree
    changed: FieldTree | None = None
    for element, node in tree.items():
        if not node or node.keys() == {"."}:
            continue
        below = child_of(schema, element[2:]) if element[:2] == "f:" else schema.items
        fresh = _LEAF if _is_atomic(below) else regrained(below, node)
        if fresh is not node:
            changed = dict(tree) if changed is None else changed
            changed[element] = fresh
    return tree if changed is None else changed


def _is_atomic(schema: SchemaNode | None) -> bool:
    if schema is None:
        return False
    return schema.list_type == "atomic" if schema.type == "array" else schema.map_type == "atomic"
