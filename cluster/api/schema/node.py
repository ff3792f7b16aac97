"""A schema as a tree of nodes: what structural merge, server-side apply, decoding and `explain` read.

Built-in kinds and CRDs end in the same node; references resolve when first followed, so that a kind costs nothing
until it is used and recursive schemas are no special case.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy and the `x-kubernetes-*`
extensions of https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

#: definitions whose JSON form the OpenAPI document does not tell apart from strings and objects
_SPECIAL = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "int-or-string",
}
#: defaults of list-map keys, which structural merge needs before an object has been defaulted
_KEY_DEFAULTS = {
    ("io.k8s.api.core.v1.ContainerPort", "protocol"): "TCP",
    ("io.k8s.api.core.v1.ServicePort", "protocol"): "TCP",
    ("io.k8s.api.core.v1.EndpointPort", "protocol"): "TCP",
}
#: attribute of a node to where its schema stands
_CHILDREN = {"properties": "properties", "items": "items", "additional": "additionalProperties"}
#: what an object with certain fields consists of as far as its values do not matter, and the fields whose values may
#: have fields of their own: key, path element and schema
HeldPlan = tuple[dict[str, Any], "tuple[tuple[str, str, SchemaNode | None], ...]"]
_REF_PREFIXES = ("#/$defs/", "#/definitions/", "#/components/schemas/")


class SchemaNode:
    """One place in a schema.

    Attributes:
        type: `object`, `array`, `string`, `integer`, `number`, `boolean`, `quantity`, `int-or-string` or `any`.
        format: `int32`, `int64`, `double`, `byte`, `date-time`, ... or empty.
        definition: name of the definition this node is, empty for an anonymous one.
        required: names of properties that must be present.
        list_type: `atomic`, `set` or `map`; list_map_keys: the keys of a `map` list.
        map_type: `granular` or `atomic`.
        merge_key, patch_strategies: of strategic merge; a subset of (`merge`, `replace`, `retainKeys`).
        preserve_unknown: whether fields that `properties` does not name are kept.
        default: the default the schema itself declares, or None.
        raw: the schema as written.
        held: kept by `fieldset`, by the fields of an object at this place.
    """

    __slots__ = (
        "_set", "additional", "default", "definition", "embedded_resource", "format", "held", "items",
        "list_map_keys", "list_type", "map_type", "merge_key", "nullable", "patch_strategies", "preserve_unknown",
        "properties", "raw", "required", "type",
    )  # fmt: skip

    def __init__(self, schemas: SchemaSet, raw: Mapping[str, Any], definition: str = "") -> None:
        self._set = schemas
        self.raw = raw
        self.held: dict[tuple[str, ...], HeldPlan] = {}
        self.definition = definition
        self.type = _SPECIAL.get(definition) or _type_of(raw)
        self.format: str = raw.get("format", "")
        self.required: tuple[str, ...] = tuple(raw.get("required", ()))
        self.default: Any = raw.get("default")
        self.nullable = bool(raw.get("nullable"))
        self.merge_key: str = raw.get("x-kubernetes-patch-merge-key", "")
        strategies = raw.get("x-kubernetes-patch-strategy", "")
        self.patch_strategies: tuple[str, ...] = tuple(part for part in strategies.split(",") if part)
        self.list_type, self.list_map_keys = _list_type(raw, self.merge_key, self.patch_strategies)
        self.map_type: str = raw.get("x-kubernetes-map-type", "granular")
        self.embedded_resource = bool(raw.get("x-kubernetes-embedded-resource"))
        additional = raw.get("additionalProperties")
        open_object = self.type == "object" and "properties" not in raw and not additional
        self.preserve_unknown = bool(raw.get("x-kubernetes-preserve-unknown-fields")) or (
            self.type == "any" or additional is True or (open_object and not schemas.structural)
        )

    #: the children resolve when first read, and from then on are plain attributes: writes read them many times
    properties: Mapping[str, SchemaNode]
    #: the node of a list's elements; None when this is no list or anything may be in it
    items: SchemaNode | None
    #: the node of a map's values; None when this is no map
    additional: SchemaNode | None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name not in _CHILDREN:
                raise AttributeError(name)
            found = self._child(name)
            setattr(self, name, found)
            return found

    def _child(self, name: str) -> Any:
        if name == "properties":
            return self._set.children(self)
        raw = self.raw.get(_CHILDREN[name])
        return self._set.resolve(raw) if isinstance(raw, Mapping) else None

    def elsewhere(self, definition: str) -> SchemaNode | None:
        """A definition that this schema could refer to; None when there is none of that name."""
        try:
            return self._set.node(definition)
        except KeyError:
            return None

    @property
    def description(self) -> str:
        found: str = self.raw.get("description", "")
        return found

    def __repr__(self) -> str:
        return f"SchemaNode({self.definition or self.type})"


def _type_of(raw: Mapping[str, Any]) -> str:
    if raw.get("x-kubernetes-int-or-string"):
        return "int-or-string"
    found = raw.get("type")
    if isinstance(found, list):
        found = next((item for item in found if item != "null"), None)
    if found is None:
        return "object" if "properties" in raw else "any"
    return str(found)


def _list_type(raw: Mapping[str, Any], merge_key: str, strategies: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    declared = raw.get("x-kubernetes-list-type")
    if declared:
        return str(declared), tuple(raw.get("x-kubernetes-list-map-keys", ()))
    if "merge" in strategies:
        return ("map", (merge_key,)) if merge_key else ("set", ())
    return "atomic", ()


class SchemaSet:
    """The definitions that schemas refer to, and the nodes made of them so far.

    Args:
        definitions: definition name to OpenAPI schema.
        structural: whether these are structural schemas of CRDs, where an object without properties is empty.
        base: where definitions are looked up that this set lacks.
    """

    def __init__(
        self, definitions: Mapping[str, Mapping[str, Any]], *, structural: bool = False, base: SchemaSet | None = None
    ) -> None:
        self.definitions = definitions
        self.structural = structural
        self._base = base
        self._nodes: dict[str, SchemaNode] = {}

    def node(self, definition: str) -> SchemaNode:
        """Returns the node of a definition.

        Raises:
            KeyError: there is none of that name.
        """
        found = self._nodes.get(definition)
        if found is None:
            if definition not in self.definitions and self._base is not None:
                return self._base.node(definition)
            found = self._nodes[definition] = SchemaNode(self, self.definitions[definition], definition)
        return found

    def resolve(self, raw: Mapping[str, Any]) -> SchemaNode:
        """Returns the node of a schema, following a reference; what stands beside the reference overrides."""
        reference = raw.get("$ref")
        if reference is None and len(raw.get("allOf", ())) == 1 and "properties" not in raw:
            reference = raw["allOf"][0].get("$ref")
        if reference is None:
            return SchemaNode(self, raw)
        definition = reference
        for prefix in _REF_PREFIXES:
            definition = definition.removeprefix(prefix)
        target = self.node(definition)
        beside = {key: value for key, value in raw.items() if key.startswith("x-") or key == "default"}
        if not beside and "description" not in raw:
            return target
        if not beside and target.type != "object":
            return target
        merged = {**target.raw, **beside}
        if "description" in raw:
            merged["description"] = raw["description"]
        return _Alias(target._set, merged, target)

    def children(self, node: SchemaNode) -> dict[str, SchemaNode]:
        found = {}
        for name, raw in (node.raw.get("properties") or {}).items():
            child = self.resolve(raw)
            preset = _KEY_DEFAULTS.get((node.definition, name))
            if preset is not None and child.default is None:
                child = SchemaNode(self, {**raw, "default": preset})
            found[name] = child
        return found


class _Alias(SchemaNode):
    """A definition as a property refers to it: its own description and merge rules, the definition's children."""

    __slots__ = ("_target",)

    def __init__(self, schemas: SchemaSet, raw: Mapping[str, Any], target: SchemaNode) -> None:
        super().__init__(schemas, raw, target.definition)
        self._target = target

    def _child(self, name: str) -> Any:
        return getattr(self._target, name)
