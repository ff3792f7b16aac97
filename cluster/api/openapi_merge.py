"""Puts the OpenAPI documents of extension API servers into this server's, and turns the older form into the newer.

Only what is about the group and version that the server is there for is taken; a definition that bears a name of ours
and says something else gets another name.

Source: k8s.io/kube-openapi/pkg/aggregator, k8s.io/kube-openapi/pkg/openapiconv
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from steersman.cluster.api import openapi_v2
from steersman.cluster.meta.objects import Obj

_DEFINITIONS, _SCHEMAS = "#/definitions/", "#/components/schemas/"
_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch"})
_JSON = ("application/json",)


def merged(ours: Obj, theirs: Mapping[tuple[str, str], Obj]) -> Obj:
    """Returns one document of the second version.

    Args:
        theirs: by group and version, as the servers gave them.
    """
    paths, definitions = dict(ours["paths"]), dict(ours["definitions"])
    for (group, version), document in theirs.items():
        own = {path: item for path, item in _section(document, "paths").items() if _is_of(path, group, version)}
        given = _section(document, "definitions")
        wanted = _reached(own, given) | {name for name, row in given.items() if _is_kind_of(row, group, version)}
        names = {name: _free_name(name, given[name], definitions) for name in sorted(wanted)}

        def renamed(reference: str, names: Mapping[str, str] = names) -> str:
            name = reference.removeprefix(_DEFINITIONS)
            return _DEFINITIONS + names.get(name, name)

        paths |= _with_references(own, renamed)
        definitions |= {names[name]: _with_references(given[name], renamed) for name in sorted(wanted)}
    return {**ours, "paths": paths, "definitions": definitions}


def is_sound(document: Obj, group: str, version: str) -> bool:
    """Whether a document can stand among ours: whoever wrote it must not spoil those of all others."""
    nothing: Obj = {"swagger": "2.0", "info": {"title": "", "version": ""}, "paths": {}, "definitions": {}}
    try:
        openapi_v2.encode(merged(nothing, {(group, version): document}))
        version_3(document, group, version)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return False
    return True


def _section(document: Any, key: str) -> Obj:
    found = document.get(key) if isinstance(document, dict) else None
    return found if isinstance(found, dict) else {}


def _is_of(path: str, group: str, version: str) -> bool:
    base = f"/apis/{group}/{version}"
    return path == base or path.startswith(base + "/")


def _is_kind_of(schema: Any, group: str, version: str) -> bool:
    rows = schema.get("x-kubernetes-group-version-kind") if isinstance(schema, dict) else None
    return isinstance(rows, list) and any(
        isinstance(row, dict) and (row.get("group"), row.get("version")) == (group, version) for row in rows
    )


def _free_name(name: str, schema: Any, taken: Mapping[str, Any]) -> str:
    number, found = 1, name
    while found in taken and taken[found] != schema:
        number += 1
        found = f"{name}_v{number}"
    return found


def _reached(tree: Any, definitions: Obj) -> set[str]:
    """The names of the definitions that a tree refers to, directly or not."""
    found: set[str] = set()
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += node
        elif isinstance(node, dict):
            pending += node.values()
            reference = node.get("$ref")
            name = reference.removeprefix(_DEFINITIONS) if isinstance(reference, str) else ""
            if name in definitions and name not in found:
                found.add(name)
                pending.append(definitions[name])
    return found


def _with_references(tree: Any, change: Callable[[str], str]) -> Any:
    if isinstance(tree, list):
        return [_with_references(node, change) for node in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: change(value) if key == "$ref" and isinstance(value, str) else _with_references(value, change)
        for key, value in tree.items()
    }


# ---- the newer form of an older document


def version_3(document: Obj, group: str, version: str) -> Obj:
    """Returns the part of a document of the second version that is about a group and version, in the third."""
    paths = {path: item for path, item in _section(document, "paths").items() if _is_of(path, group, version)}
    given = _section(document, "definitions")
    wanted = _reached(paths, given) | {name for name, row in given.items() if _is_kind_of(row, group, version)}
    found = {
        "openapi": "3.0.0",
        "info": _section(document, "info") or {"title": "Kubernetes", "version": ""},
        "paths": {path: _path(item) for path, item in paths.items() if isinstance(item, dict)},
        "components": {"schemas": {name: given[name] for name in sorted(wanted)}},
    }
    return dict(_with_references(found, lambda reference: _SCHEMAS + reference.removeprefix(_DEFINITIONS)))


def _path(item: Obj) -> Obj:
    found = {key: _operation(row) if key in _METHODS and isinstance(row, dict) else row for key, row in item.items()}
    if isinstance(item.get("parameters"), list):
        found["parameters"] = [_parameter(row) for row in item["parameters"] if isinstance(row, dict)]
    return found


def _operation(operation: Obj) -> Obj:
    left_out = ("consumes", "produces", "schemes", "parameters", "responses")
    found = {key: value for key, value in operation.items() if key not in left_out}
    rows = [row for row in operation.get("parameters") or () if isinstance(row, dict)]
    parameters = [_parameter(row) for row in rows if row.get("in") != "body"]
    if parameters:
        found["parameters"] = parameters
    for row in rows:
        if row.get("in") == "body":
            content = {media: {"schema": row.get("schema") or {}} for media in operation.get("consumes") or ("*/*",)}
            found["requestBody"] = {"content": content, "required": bool(row.get("required"))}
    found["responses"] = {}
    for code, row in _section(operation, "responses").items():
        found["responses"][code] = {"description": _section({"r": row}, "r").get("description", "")}
        if isinstance(row, dict) and "schema" in row:
            media = operation.get("produces") or _JSON
            found["responses"][code]["content"] = {name: {"schema": row["schema"]} for name in media}
    return found


def _parameter(row: Obj) -> Obj:
    kept = ("name", "in", "description", "required", "$ref")
    schema = {key: value for key, value in row.items() if key not in kept and not key.startswith("x-")}
    found = {key: value for key, value in row.items() if key not in schema}
    return {**found, "schema": schema} if schema else found
