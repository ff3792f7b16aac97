"""OpenAPI documents: the schemas clients explain, patch and validate by, with the paths that carry them.

One document a group and version, built when first asked for and then the same until the set of kinds changes.

Source: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v3
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from steersman.cluster.api import openapi_v2
from steersman.cluster.api.discovery import groups
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.openapi_paths import list_name, paths_of
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.objects import Obj

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_SCHEMAS = "#/components/schemas/"
_INFO = "More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
_API_VERSION = (
    "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized "
    f"schemas to the latest internal value, and may reject unrecognized values. {_INFO}#resources"
)
_KIND = (
    "Kind is a string value representing the REST resource this object represents. Servers may infer this from the "
    f"endpoint the client submits requests to. Cannot be updated. In CamelCase. {_INFO}#types-kinds"
)
#: definitions that OpenAPI tells apart from objects only in its third version
_OVERRIDES: dict[str, Obj] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {
        "format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}],
    },
}  # fmt: skip


class OpenApi:
    """The OpenAPI documents of a registry, each encoded once per state of it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._generation = -1
        self._documents: dict[str, bytes] = {}
        self._hashes: dict[str, str] = {}

    def _refresh(self) -> None:
        if self._generation != self._registry.generation:
            self._generation = self._registry.generation
            self._documents.clear()
            self._hashes.clear()

    def index(self) -> Obj:
        """Returns the document of `/openapi/v3`: where each group's document lies, with a hash of its content."""
        rows = {path: f"/openapi/v3/{path}?hash={digest}" for path, digest in self._digests().items()}
        return {"paths": {path: {"serverRelativeURL": url} for path, url in rows.items()}}

    def digest(self, path: str) -> str | None:
        """Returns the hash of the content of `/openapi/v3/PATH`, or None when there is no such document."""
        return self._digests().get(path)

    def _digests(self) -> dict[str, str]:
        self._refresh()
        if not self._hashes:
            self._hashes = {path: _digest(self._registry, kinds) for path, kinds in self._places().items()}
        return self._hashes

    def document(self, path: str) -> bytes | None:
        """Returns the encoded document of `/openapi/v3/PATH` (as `apis/apps/v1`), or None when there is none."""
        self._refresh()
        found = self._documents.get(path)
        if found is None:
            kinds = self._places().get(path)
            if kinds is None:
                return None
            found = self._documents[path] = orjson.dumps(_document(self._registry, kinds))
        return found

    def version_2(self) -> bytes:
        """Returns the encoded document of `/openapi/v2`: every definition, for clients that know no newer form."""
        self._refresh()
        found = self._documents.get("v2")
        if found is None:
            found = self._documents["v2"] = orjson.dumps(_version_2(self._registry))
        return found

    def _places(self) -> dict[str, list[Kind]]:
        return {
            f"apis/{group}/{version}" if group else f"api/{version}": kinds
            for group, versions in groups(self._registry).items()
            for version, kinds in versions.items()
        }


def _digest(registry: Registry, kinds: list[Kind]) -> str:
    parts = [registry.version]
    for kind in kinds:
        parts += [str(kind.resource), kind.resource.version, *kind.verbs, *kind.subresources]
        if kind.schema is not None:
            parts.append(orjson.dumps(kind.schema, option=orjson.OPT_SORT_KEYS).decode())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest().upper()


def definition_name(registry: Registry, kind: Kind) -> str:
    """The name of a kind's schema in its document."""
    if not kind.is_custom:
        return registry.definition(kind)
    resource = kind.resource
    return ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind])


def _document(registry: Registry, kinds: list[Kind]) -> Obj:
    names = {kind.resource.plural: definition_name(registry, kind) for kind in kinds}
    schemas: dict[str, Any] = {}
    wanted = [f"{_META}{name}" for name in ("DeleteOptions", "Status", "Patch", "WatchEvent", "APIResourceList")]
    for kind in kinds:
        name = names[kind.resource.plural]
        if kind.is_custom:
            schemas[name] = _custom_schema(kind)
            schemas[list_name(kind, name)] = _list_schema(kind, name)
            wanted += [f"{_META}ObjectMeta", f"{_META}ListMeta"]
        else:
            wanted += [name, list_name(kind, name)]
        for sub in kind.subresources.values():
            body = registry.by_kind(sub.api_version, sub.kind)
            if body is not None and not body.is_custom:
                wanted.append(registry.definition(body))
    _collect(registry.schemas.definitions, wanted, schemas)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": f"v{registry.version}.0"},
        "paths": paths_of(kinds, names, lambda api_version, kind: _body_name(registry, api_version, kind)),
        "components": {"schemas": schemas},
    }


def _body_name(registry: Registry, api_version: str, kind: str) -> str:
    found = registry.by_kind(api_version, kind)
    return definition_name(registry, found) if found is not None else ""


def _collect(definitions: Mapping[str, Any], wanted: list[str], found: dict[str, Any]) -> None:
    """Adds the definitions wanted, and whatever they refer to."""
    pending = list(wanted)
    while pending:
        name = pending.pop()
        if name in found or name not in definitions:
            continue
        found[name] = _OVERRIDES.get(name) or _version_3(definitions[name], pending)


def _version_3(schema: Any, references: list[str]) -> Any:
    """Turns a definition into OpenAPI's third form; names of what it refers to are added to `references`."""
    if isinstance(schema, list):
        return [_version_3(item, references) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    if isinstance(schema.get("$ref"), str):
        name = schema["$ref"].rpartition("/")[2]
        references.append(name)
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return {**rest, "allOf": [{"$ref": _SCHEMAS + name}]} if rest else {"$ref": _SCHEMAS + name}
    found = {}
    for key, value in schema.items():
        if key == "type" and isinstance(value, list):
            found[key] = next(item for item in value if item != "null")
        elif key == "properties":
            found[key] = {name: _property(name, child, references) for name, child in value.items()}
        elif key in ("items", "additionalProperties", "oneOf", "anyOf", "allOf", "not"):
            found[key] = _version_3(value, references)
        else:
            found[key] = value
    return found


def _property(name: str, schema: Any, references: list[str]) -> Any:
    found = _version_3(schema, references)
    if name in ("kind", "apiVersion") and isinstance(found, dict):
        found.pop("enum", None)
    return found


def _gvk(kind: Kind, name: str = "") -> list[Obj]:
    resource = kind.resource
    return [{"group": resource.group, "version": resource.version, "kind": name or resource.kind}]


def _typed(properties: Mapping[str, Any], meta: str) -> Obj:
    """Properties with those that every object, or every list, has."""
    return {
        **properties,
        "apiVersion": {"type": "string", "description": _API_VERSION},
        "kind": {"type": "string", "description": _KIND},
        "metadata": {
            "description": f"Standard {'list' if meta == 'ListMeta' else 'object'}'s metadata. {_INFO}#metadata",
            "allOf": [{"$ref": f"{_SCHEMAS}{_META}{meta}"}],
        },
    }


def _custom_schema(kind: Kind) -> Obj:
    schema = _with_embedded(kind.schema or {})
    properties = _typed(schema.get("properties") or {}, "ObjectMeta")
    return {**schema, "type": "object", "properties": properties, "x-kubernetes-group-version-kind": _gvk(kind)}


def _with_embedded(schema: Any) -> Obj:
    """A schema in which objects within the object have a type and metadata."""
    found = dict(schema)
    if "properties" in found:
        found["properties"] = {key: _with_embedded(child) for key, child in found["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), Mapping):
            found[key] = _with_embedded(found[key])
    if found.get("x-kubernetes-embedded-resource"):
        found["properties"] = _typed(found.get("properties") or {}, "ObjectMeta")
    return found


def _list_schema(kind: Kind, name: str) -> Obj:
    items = {
        "type": "array", "description": f"List of {kind.resource.plural}. {_INFO}", "items": {"$ref": _SCHEMAS + name},
    }  # fmt: skip
    properties = _typed({"items": items}, "ListMeta")
    return {
        "type": "object",
        "description": f"{kind.list_kind} is a list of {kind.resource.kind}",
        "required": ["items"],
        "properties": properties,
        "x-kubernetes-group-version-kind": _gvk(kind, kind.list_kind),
    }


def _version_2(registry: Registry) -> Obj:
    custom: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for versions in groups(registry).values():
        for kinds in versions.values():
            names = {kind.resource.plural: definition_name(registry, kind) for kind in kinds}
            for kind in kinds:
                if kind.is_custom:
                    name = names[kind.resource.plural]
                    custom |= {name: _custom_schema(kind), list_name(kind, name): _list_schema(kind, name)}
            paths |= paths_of(kinds, names, lambda api_version, kind: _body_name(registry, api_version, kind))
    return openapi_v2.document(registry.version, registry.schemas.definitions, custom, paths)
