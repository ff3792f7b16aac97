"""Structural schemas of custom resources: what is pruned and what is filled in.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from steersman.cluster.api.row import Kind
from steersman.cluster.api.rules.fields import show
from steersman.cluster.api.schema.node import SchemaNode, SchemaSet
from steersman.cluster.api.schema.walk import Findings, walk

_TYPE = ("apiVersion", "kind")
_OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def custom_node(base: SchemaSet, kind: Kind) -> SchemaNode:
    """The schema of a custom resource as a node: its own properties beside the metadata of every object."""
    raw = dict(kind.schema or {})
    properties = dict(raw.get("properties") or {})
    for key in _TYPE:
        properties[key] = {"type": "string"}
    properties["metadata"] = {"$ref": f"#/$defs/{_OBJECT_META}"}
    raw["properties"], raw["type"] = properties, "object"
    return SchemaSet({}, structural=True, base=base).resolve(raw)


def decode_custom(node: SchemaNode, tree: Any) -> tuple[Any, Findings]:
    """Prunes an object in the way of its definition; metadata is decoded as that of built-in kinds."""
    findings = Findings()
    found = {}
    for key, value in tree.items():
        if key == "metadata":
            meta, inner = walk(node.properties["metadata"], {} if value is None else value)
            findings.include(inner, "metadata")
            found[key] = meta
        elif key in _TYPE:
            found[key] = value
        elif (child := node.properties.get(key)) is not None:
            if value is not None or child.nullable:
                found[key] = _prune(child, value, key, findings)
        elif node.preserve_unknown:
            found[key] = value
        else:
            findings.unknown.append(key)
    return found, findings


def _prune(node: SchemaNode, value: Any, path: str, findings: Findings) -> Any:
    if isinstance(value, list):
        items = node.items
        if items is None:
            return value
        return [_prune(items, item, f"{path}[{index}]", findings) for index, item in enumerate(value)]
    if not isinstance(value, dict) or node.type in ("any", "string", "int-or-string"):
        return value
    additional, properties = node.additional, node.properties
    found = {}
    for key, item in value.items():
        below = f"{path}.{key}"
        if node.embedded_resource and key == "metadata" and item is not None:
            found[key] = _embedded_metadata(node, item, below, findings)
            continue
        if node.embedded_resource and key in _TYPE:
            found[key] = item
            if not isinstance(item, str):
                findings.wrong(f"{below}: Invalid value: {show(item)}: must be a string")
            continue
        child = properties.get(key) or additional
        if child is not None:
            if item is not None or child.nullable:
                found[key] = _prune(child, item, below, findings)
        elif node.preserve_unknown:
            found[key] = item
        else:
            findings.unknown.append(below)
    return found


def _embedded_metadata(node: SchemaNode, value: Any, path: str, findings: Findings) -> Any:
    known = node.elsewhere(_OBJECT_META)
    if known is None:
        return value
    meta, inner = walk(known, value)
    findings.unknown += [f"{path}.{name}" for name in inner.unknown]
    for error in inner.errors[:1]:
        findings.wrong(f"{path}: Invalid value: {show(value)}: {error}")
    return meta


def repairer(schema: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Returns what takes from an object what a schema does not know, and fills in its defaults."""
    node = SchemaSet({}, structural=True).resolve(schema)
    apart = ("apiVersion", "kind", "metadata")

    def repair(obj: Mapping[str, Any]) -> dict[str, Any]:
        own = _prune(node, {key: value for key, value in obj.items() if key not in apart}, "", Findings())
        found = {**{key: obj[key] for key in apart if key in obj}, **own}
        fill_defaults(schema, found)
        return found

    return repair


def fill_defaults(schema: Mapping[str, Any], value: Any) -> None:
    """Fills in the defaults that a schema declares, in place."""
    if isinstance(value, dict):
        for key, child in (schema.get("properties") or {}).items():
            if key not in value and "default" in child:
                value[key] = copy.deepcopy(child["default"])
            if key in value and not (key == "metadata" and "default" not in child):
                fill_defaults(child, value[key])
        additional = schema.get("additionalProperties")
        if isinstance(additional, Mapping):
            for key, item in value.items():
                if key not in (schema.get("properties") or {}):
                    fill_defaults(additional, item)
    elif isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        for item in value:
            fill_defaults(schema["items"], item)


def prune_default(schema: Mapping[str, Any], value: Any) -> Any:
    """A default without what its schema does not know."""
    node = SchemaSet({}, structural=True).resolve(schema)
    return _prune(node, value, "", Findings())
