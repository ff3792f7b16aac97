"""Why an applied configuration does not fit its kind: the words of structured-merge-diff's typed values.

Decides only what to say; that something does not fit has been found by faster means before.

Source: sigs.k8s.io/structured-merge-diff/v6/typed/{validate,helpers}.go
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from steersman.cluster.api.fieldset import KEYED, LEAF, item_element, key_value, path_part, shape
from steersman.cluster.api.schema.node import SchemaNode
from steersman.cluster.meta.errors import BadRequest
from steersman.cluster.meta.gotext import formatted
from steersman.cluster.meta.objects import Obj

_NUMERIC = frozenset(("integer", "number"))


def refusal(schema: SchemaNode | None, config: Obj) -> BadRequest:
    """The refusal of a configuration that does not fit; Kubernetes answers with the same text, but as its own failure.

    Args:
        config: as it was sent, with its type.
    """
    found = list(faults(schema, config))
    told = found[0] if len(found) == 1 else "\n  ".join(["errors:", *found])
    meta = config.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    group, _, version = str(config["apiVersion"]).rpartition("/")
    which = f"{meta.get('namespace', '')}/{meta.get('name', '')}; {group}/{version}, Kind={config['kind']}"
    return BadRequest(f"failed to create typed patch object ({which}): {told}")


def faults(schema: SchemaNode | None, value: Any, path: str = "") -> Iterator[str]:
    """What does not fit, each with its path."""
    if schema is None or value is None:
        return
    match schema.type:
        case "object":
            yield from _of_object(schema, value, path)
        case "array":
            yield from _of_list(schema, value, path)
        case "string" if not isinstance(value, str):
            yield f"{path}: expected string, got &value.valueUnstructured{{Value:{_literal(value)}}}"
        case "boolean" if not isinstance(value, bool):
            yield f"{path}: expected boolean, got &{{{formatted(value)}}}"
        case kind if kind in _NUMERIC and (isinstance(value, bool) or not isinstance(value, (int, float))):
            yield f"{path}: expected numeric (int or float), got {_type(value)}"


def _of_object(schema: SchemaNode, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: expected map, got &{{{formatted(value)}}}"
        return
    if not schema.properties and schema.additional is None:
        return
    for key, item in value.items():
        child = schema.properties.get(key) or schema.additional
        if child is None and not schema.preserve_unknown:
            yield f"{path}.{key}: field not declared in schema"
        yield from faults(child, item, f"{path}.{key}")


def _of_list(schema: SchemaNode, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{path}: expected list, got &{{{formatted(value)}}}"
        return
    kind = shape(schema, value)
    seen: set[str] = set()
    for index, item in enumerate(value):
        part = f"[{index}]"
        if kind != LEAF:
            element = item_element(schema, item, kind)
            if element is None:
                yield f"{path}: element {index}: {_unnamed(schema, item, kind)}"
                continue
            part = path_part(element)
            if element in seen:
                yield f"{path}: duplicate entries for key {part}"
            seen.add(element)
        yield from faults(schema.items, item, path + part)


def _unnamed(schema: SchemaNode, item: Any, kind: int) -> str:
    """Why an item of a keyed list or a set cannot be told from others."""
    if kind == KEYED:
        if not isinstance(item, dict):
            return f"associative list with keys may not have {'a null element' if item is None else 'non-map elements'}"
        missing = next(name for name in schema.list_map_keys if key_value(schema, item, name) is None)
        return (
            "associative list with keys has an element that omits key field "
            f'"{missing}" (and doesn\'t have default value)'
        )
    if isinstance(item, dict):
        return "associative list without keys has an element that's a map type"
    return "not supported: associative list with lists as elements"


def _type(value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case list():
            return "[]interface {}"
    return "map[string]interface {}"


def _literal(value: Any) -> str:
    """A value as Go writes it in its source."""
    match value:
        case None:
            return "interface {}(nil)"
        case dict():
            rows = ", ".join(f"{orjson.dumps(key).decode()}:{_literal(value[key])}" for key in sorted(value))
            return f"map[string]interface {{}}{{{rows}}}"
        case list():
            return f"[]interface {{}}{{{', '.join(_literal(item) for item in value)}}}"
        case str():
            return orjson.dumps(value).decode()
    return formatted(value)
