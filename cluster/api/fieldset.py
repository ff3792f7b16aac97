"""Sets of fields as `fieldsV1` trees, and how objects map to them.

A tree's keys are path elements: `f:NAME` a field, `k:{...}` an item of a keyed list, `v:VALUE` an item of a set. A
node without children is a member of the set; one with children is a member when it also holds `.`. Trees are shared and
never changed in place.

Decides which fields an object sets and in which fields two objects differ; knows nothing of managers.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/ and sigs.k8s.io/structured-merge-diff
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from steersman.cluster.api.schema.node import HeldPlan, SchemaNode
from steersman.cluster.meta.errors import BadRequest

#: a `fieldsV1` tree
FieldTree = dict[str, Any]
#: paths of fields, as path elements
Patterns = Sequence[tuple[str, ...]]

_LEAF: FieldTree = {}
_CONTAINERS = (dict, list)
LEAF, MAP, KEYED, SET = range(4)


def shape(schema: SchemaNode | None, value: Any) -> int:
    """How ownership descends: `LEAF` not at all, `MAP` by field, `KEYED` by list-map key, `SET` by item."""
    if isinstance(value, dict):
        return LEAF if schema is not None and schema.map_type == "atomic" else MAP
    if isinstance(value, list) and schema is not None and schema.list_type != "atomic":
        return KEYED if schema.list_type == "map" else SET
    return LEAF


_NONE: Mapping[str, SchemaNode] = {}


def children_of(schema: SchemaNode | None) -> tuple[Mapping[str, SchemaNode], SchemaNode | None]:
    """The schemas of an object's declared fields, and that of the others."""
    return (_NONE, None) if schema is None else (schema.properties, schema.additional)


def child_of(schema: SchemaNode | None, key: str) -> SchemaNode | None:
    """The schema of a field or map value; None where the schema leaves it open."""
    if schema is None:
        return None
    return schema.properties.get(key) or schema.additional


class Repeated(list[Any]):
    """The items of a list that share a key: they are owned together, as one that nobody looks into."""


def list_elements(schema: SchemaNode, items: list[Any], kind: int) -> dict[str, Any] | None:
    """Returns path element to item of a keyed list or set, or the `Repeated` items; None when one lacks a key."""
    found: dict[str, Any] = {}
    names = schema.list_map_keys
    key, front = (names[0], f'k:{{"{names[0]}":') if kind == KEYED and len(names) == 1 else ("", "")
    for item in items:
        if key and isinstance(item, dict) and isinstance(only := item.get(key), str):
            element: str | None = front + orjson.dumps(only).decode() + "}"
        else:
            element = item_element(schema, item, kind)
        if element is None:
            return None
        if element not in found:
            found[element] = item
        elif isinstance(found[element], Repeated):
            found[element].append(item)
        else:
            found[element] = Repeated((found[element], item))
    return found


def item_element(schema: SchemaNode, item: Any, kind: int) -> str | None:
    """The path element of an item of a keyed list or set; None when it has none."""
    if kind == SET:
        return None if isinstance(item, dict | list) else "v:" + orjson.dumps(item).decode()
    if not isinstance(item, dict):
        return None
    keys: dict[str, Any] = {}
    for name in schema.list_map_keys:
        value = key_value(schema, item, name)
        if value is None:
            return None
        keys[name] = value
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()


def key_value(schema: SchemaNode, item: Mapping[str, Any], name: str) -> Any:
    """One of the values that tell an item of a keyed list from others, or its default; None when there is neither."""
    found = item.get(name)
    if found is None and schema.items is not None and name in schema.items.properties:
        return schema.items.properties[name].default
    return found


class Ambiguous(BadRequest):
    """A configuration that holds a list whose items cannot be told apart."""


def _distinct(schema: SchemaNode, items: list[Any], kind: int) -> dict[str, Any]:
    found = list_elements(schema, items, kind)
    if found is None or len(found) != len(items):
        raise Ambiguous("the items of a list cannot be told apart")
    return found


def declared_set(schema: SchemaNode | None, value: Any) -> FieldTree:
    """The fields that an applied configuration declares: what its manager owns after the apply.

    Raises:
        Ambiguous: a keyed list holds an item without key, or two of the same key.
    """
    kind = shape(schema, value)
    tree: FieldTree = {}
    if kind == MAP:
        properties, additional = children_of(schema)
        for key, item in value.items():
            child = properties.get(key)
            own = child is None
            node = _declared_field(child or additional, item, own)
            if node is not None:
                tree["f:" + key] = node
    elif kind != LEAF and schema is not None:
        items = schema.items
        for element, item in _distinct(schema, value, kind).items():
            node = declared_set(items, item) if kind == KEYED else _LEAF
            tree[element] = {".": _LEAF, **node} if node else _LEAF
    return tree


def _declared_field(schema: SchemaNode | None, value: Any, own: bool) -> FieldTree | None:
    """The node of one field; None when it declares nothing. `own`: it counts itself, being no field of a struct."""
    if not isinstance(value, dict | list) or value == {} or shape(schema, value) == LEAF:
        return _LEAF
    node = declared_set(schema, value)
    if node:
        return {".": _LEAF, **node} if own else node
    return _LEAF if own else None


def held_set(schema: SchemaNode | None, value: Any) -> FieldTree:
    """Every field, list item and object on the way that a value consists of: what appears or vanishes with it."""
    tree: FieldTree
    if isinstance(value, dict):
        if schema is not None:
            return _LEAF if schema.map_type == "atomic" else _held_map(schema, value)
        tree = {"f:" + k: _held_field(None, v) for k, v in value.items() if v is not None}
    else:
        kind = shape(schema, value)
        elements = None if kind == LEAF or schema is None else list_elements(schema, value, kind)
        if elements is None or schema is None:
            return _LEAF
        items = schema.items
        if kind == KEYED and items is not None and items.map_type != "atomic":
            tree = {
                key: _LEAF if isinstance(item, Repeated) else _held_map(items, item) for key, item in elements.items()
            }
        else:
            tree = {key: _held_field(items, item) for key, item in elements.items()}
    if tree:
        tree["."] = _LEAF
    return tree


#: of one place in a schema, so many sets of fields are remembered: most objects have the fields of others
_FORMS_MAX = 512
#: and these have at most so many fields: no struct has as many, and maps with more would take all the memory there is
_FORM_FIELDS_MAX = 64
_SCALARS = frozenset(("string", "integer", "number", "boolean", "quantity", "int-or-string"))


def _held_map(schema: SchemaNode, value: dict[str, Any]) -> FieldTree:
    """As `held_set`: objects with the same fields share what does not depend on their values."""
    if len(value) > _FORM_FIELDS_MAX:
        return _held_anew(schema, value)
    form = tuple(value)
    plan = schema.held.get(form)
    if plan is None:
        if len(schema.held) >= _FORMS_MAX:
            schema.held.clear()
        plan = schema.held[form] = _held_plan(schema, form)
    fixed, open_fields = plan
    if None in value.values():
        fixed = {element: node for element, node in fixed.items() if element == "." or value[element[2:]] is not None}
        fixed = fixed if len(fixed) > 1 else _LEAF
    tree = fixed
    for key, element, child in open_fields:
        item = value[key]
        if item and isinstance(item, _CONTAINERS) and (node := held_set(child, item)):
            tree = fixed.copy() if tree is fixed else tree
            tree[element] = node
    return tree


def _held_anew(schema: SchemaNode, value: dict[str, Any]) -> FieldTree:
    known, rest = schema.properties.get, schema.additional
    tree = {"f:" + key: _held_field(known(key) or rest, item) for key, item in value.items() if item is not None}
    tree["."] = _LEAF
    return tree


def _held_plan(schema: SchemaNode, form: tuple[str, ...]) -> HeldPlan:
    fixed = {"f:" + key: _LEAF for key in form}
    if fixed:
        fixed["."] = _LEAF
    known, rest = schema.properties.get, schema.additional
    children = [(key, "f:" + key, known(key) or rest) for key in form]
    return fixed, tuple(row for row in children if row[2] is None or row[2].type not in _SCALARS)


def _held_field(schema: SchemaNode | None, value: Any) -> FieldTree:
    if isinstance(value, Repeated) or not isinstance(value, _CONTAINERS):
        return _LEAF
    return held_set(schema, value)


def differences(schema: SchemaNode | None, old: Any, new: Any) -> tuple[FieldTree | None, FieldTree | None]:
    """Returns (added or changed, removed) between two unequal values of one place; None where there is nothing."""
    kind = shape(schema, new)
    if kind != shape(schema, old) or kind == LEAF or not (old or new):
        return _LEAF, None
    before: Mapping[str, Any] | None = old
    after: Mapping[str, Any] | None = new
    prefix = "f:"
    if kind != MAP and schema is not None:
        before, after, prefix = list_elements(schema, old, kind), list_elements(schema, new, kind), ""
    if before is None or after is None:
        return _LEAF, None
    touched: FieldTree = {}
    removed: FieldTree = {}
    known, rest = children_of(schema) if kind == MAP or schema is None else (_NONE, schema.items)
    for key, value in after.items():
        if value is None:
            continue
        child = known.get(key) or rest
        previous = before.get(key)
        if previous is None:
            touched[prefix + key] = _held_field(child, value)
        elif previous is not value and (previous != value or type(previous) is not type(value)):
            if isinstance(previous, Repeated) or isinstance(value, Repeated):
                changed, gone = _regrouped(child, previous, value)
            else:
                changed, gone = differences(child, previous, value)
            if changed is not None:
                touched[prefix + key] = changed
            if gone is not None:
                removed[prefix + key] = gone
    for key, value in before.items():
        if value is not None and after.get(key) is None:
            removed[prefix + key] = _held_field(known.get(key) or rest, value)
    return touched or None, removed or None


def _regrouped(schema: SchemaNode | None, old: Any, new: Any) -> tuple[FieldTree | None, FieldTree | None]:
    """As `differences`, where items share a key before, afterwards or both."""
    if not isinstance(old, Repeated):
        return _LEAF, held_set(schema, old) if isinstance(old, dict) else None
    if not isinstance(new, Repeated):
        return _held_field(schema, new), None
    return _LEAF, None


def beside(schema: SchemaNode | None, frame: Any, value: Any) -> FieldTree | None:
    """What a new value consists of beside a frame of empty objects and lists, which counts nothing itself."""
    if not isinstance(frame, dict) or shape(schema, value) != MAP:
        return differences(schema, frame, value)[0] if frame != value else None
    known, rest = children_of(schema)
    tree: FieldTree = {}
    for key, item in value.items():
        if key not in frame:
            if item is not None:
                tree["f:" + key] = _held_field(known.get(key) or rest, item)
        elif item is not None and (node := beside(known.get(key) or rest, frame[key], item)) is not None:
            tree["f:" + key] = node
    return tree or None


def union(left: FieldTree, right: FieldTree) -> FieldTree:
    """The set of fields in either; `{}` at the root is the empty set."""
    if not left or not right:
        return left or right
    return _union(left, right)


def _union(left: FieldTree, right: FieldTree) -> FieldTree:
    if not left:
        return right if not right or "." in right else {".": _LEAF, **right}
    if not right:
        return left if "." in left else {".": _LEAF, **left}
    changed: FieldTree | None = None
    for element, node in right.items():
        mine = left.get(element)
        joined = node if mine is None else mine if element == "." else _union(mine, node)
        if joined is not mine:
            changed = changed or dict(left)
            changed[element] = joined
    return changed or left


def difference(left: FieldTree, right: FieldTree | None) -> FieldTree:
    """The set of fields in `left` and not in `right`; returns `left` itself when nothing is taken away."""
    if not left or not right:
        return left
    return _difference(left, right) or {}


def _difference(left: FieldTree, right: FieldTree) -> FieldTree | None:
    if not left:
        return None if not right or "." in right else left
    if not right:
        return {k: v for k, v in left.items() if k != "."} if "." in left else left
    changed: FieldTree | None = None
    for element, node in right.items():
        mine = left.get(element)
        if mine is None:
            continue
        rest = None if element == "." else _difference(mine, node)
        if rest is mine:
            continue
        changed = dict(left) if changed is None else changed
        if rest is None:
            del changed[element]
        else:
            changed[element] = rest
    if changed is None:
        return left
    if changed.keys() == {"."}:
        return {}
    return changed or None


def intersection(left: FieldTree, right: FieldTree | None) -> FieldTree:
    """The set of fields in both."""
    if not left or not right:
        return {}
    found: FieldTree = {}
    for element, node in right.items():
        mine = left.get(element)
        if mine is None or element == ".":
            continue
        common = intersection(mine, node)
        if is_member(mine) and is_member(node):
            found[element] = {".": _LEAF, **common} if common else _LEAF
        elif common:
            found[element] = common
    return found


def within(tree: FieldTree, patterns: Patterns) -> FieldTree:
    """The fields at or below one of the paths, in which `*` stands for any element."""
    found: FieldTree = {}
    for element, node in tree.items():
        rest = [path[1:] for path in patterns if path[0] in (element, "*")]
        inner = node if () in rest else within(node, rest)
        if () in rest or inner:
            found[element] = inner
    return found


def is_member(node: FieldTree) -> bool:
    """Whether a node below the root is itself in the set, apart from its children."""
    return not node or "." in node


def is_field_tree(tree: Any) -> bool:
    """Whether a value sent by a client has the form of `fieldsV1`."""
    return isinstance(tree, dict) and all(
        (key == "." or key[:2] in ("f:", "k:", "v:", "i:")) and is_field_tree(node) for key, node in tree.items()
    )


def paths(tree: FieldTree, prefix: str = "") -> Iterator[str]:
    """The members as Kubernetes spells paths: `.spec.containers[name="web"].image`."""
    for element in sorted(tree):
        if element == ".":
            continue
        path = prefix + path_part(element)
        if is_member(tree[element]):
            yield path
        yield from paths(tree[element], path)


def path_part(element: str) -> str:
    """A path element as Kubernetes spells it."""
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "v:":
        return f"[={text}]"
    if kind == "k:":
        try:
            keys = orjson.loads(text)
        except orjson.JSONDecodeError:
            return f"[{text}]"
        if isinstance(keys, dict):
            return "[" + ",".join(f"{key}={orjson.dumps(value).decode()}" for key, value in keys.items()) + "]"
    return f"[{text}]"
