"""The registry: every kind that is served, found by address or by name, with its schema compiled when first used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from steersman.cluster.api.crd import rows_of, storage_row
from steersman.cluster.api.row import Kind, ScalePaths, Subresource
from steersman.cluster.api.rows import BODY_ROWS, ROWS
from steersman.cluster.api.schema.compile import FastCheck
from steersman.cluster.api.schema.node import SchemaNode, SchemaSet
from steersman.cluster.api.schema.normal import normalizer
from steersman.cluster.api.schema.steps import Step
from steersman.cluster.api.schema.structural import custom_node, decode_custom
from steersman.cluster.api.schema.trim import trimmer, trimmer_of_metadata
from steersman.cluster.api.schema.walk import Findings, walk
from steersman.cluster.meta.objects import Obj

__all__ = ["Compiled", "Kind", "Registry", "ScalePaths", "Subresource"]


@dataclass(frozen=True, slots=True)
class Compiled:
    """What decoding needs of a kind's schema.

    Args:
        declared: the schema as a definition declares it; None of a built-in kind.
        fast: says whether JSON bytes are right as they are; None when only a walk can tell.
        shut: whether what `fast` takes cannot be nested deeply (but for `fieldsV1`).
        walk: prunes a tree and says what was wrong.
        normalize: puts quantities in canonical form, in place; None when the kind has none.
        trim: leaves out what is empty, in place.
    """

    declared: Any
    node: SchemaNode
    fast: Callable[[bytes], bool] | None
    shut: bool
    walk: Callable[[Any], tuple[Any, Findings]]
    normalize: Step | None
    trim: Step


class Registry:
    """The kinds that are served.

    Args:
        definitions: the OpenAPI definitions of a Kubernetes minor version, by name.
        version: that version, as `1.36`.
    """

    def __init__(self, definitions: Mapping[str, Any], version: str) -> None:
        self.version = version
        self.schemas = SchemaSet(definitions)
        self._definition_by_kind = _definitions_by_kind(definitions)
        self._rows: dict[tuple[str, str, str], Kind] = {}
        self._by_kind: dict[tuple[str, str], Kind] = {}
        self._custom: dict[str, tuple[Kind, ...]] = {}
        self._compiled: dict[tuple[str, ...], Compiled] = {}
        #: grows with every change of the set of kinds: what discovery and OpenAPI documents are cached by
        self.generation = 0
        self._siblings: dict[str, tuple[Kind, ...]] = {}
        self._siblings_of = -1
        for row in ROWS:
            self._rows[_address(row)] = row
        for row in (*BODY_ROWS, *ROWS):
            self._by_kind[(row.api_version, row.resource.kind)] = row

    def kind(self, group: str, version: str, plural: str) -> Kind | None:
        """Returns the row served at an address, or None."""
        return self._rows.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> Kind | None:
        """Returns the row of a kind, also of bodies that have no address of their own (`Scale`, `DeleteOptions`)."""
        return self._by_kind.get((api_version, kind))

    def documentation(self, definition: str, field: str) -> str:
        """The description of a field of a definition; empty where there is none."""
        schema = self.schemas.definitions.get(definition, {})
        return str(schema.get("properties", {}).get(field, {}).get("description", ""))

    def in_version(
        self, kind: Kind, api_version: str
    ) -> tuple[SchemaNode, Callable[[Obj], Obj], Callable[[Obj], Obj]] | None:
        """Returns another version's schema, and what turns an object of `kind` into it and back; None for none.

        Where a webhook converts, the objects given to these must be in the version wanted already.
        """
        other = self._by_kind.get((api_version, kind.resource.kind))
        if other is None or other.virtual or other.prefix() != kind.prefix():
            return None
        if kind.converter is not None:
            return self.schema(other), other.served, kind.served
        return (
            self.schema(other),
            lambda obj: other.served(kind.stored(obj)),
            lambda obj: kind.served(other.stored(obj)),
        )

    def body_kind(self, kind: Kind, subresource: str = "") -> Kind:
        """Returns the kind of the body that a subresource takes; the kind itself for most."""
        sub = kind.subresources.get(subresource)
        if sub is None or sub.kind == kind.resource.kind:
            return kind
        return self._by_kind[(sub.api_version, sub.kind)]

    def all(self) -> Iterable[Kind]:
        """Every row, built-in ones first, in a fixed order."""
        return self._rows.values()

    def siblings(self, kind: Kind) -> tuple[Kind, ...]:
        """Every row, this one among them, that serves the same objects in some group and version."""
        if self._siblings_of != self.generation:
            self._siblings = {}
            self._siblings_of = self.generation
        prefix = kind.prefix()
        found = self._siblings.get(prefix)
        if found is None:
            found = self._siblings[prefix] = tuple(row for row in [*self._rows.values()] if row.prefix() == prefix)
        return found

    def custom(self) -> Mapping[str, tuple[Kind, ...]]:
        """The rows of each established CustomResourceDefinition, by its name."""
        return self._custom

    def schema(self, kind: Kind) -> SchemaNode:
        return self.compiled(kind).node

    def compiled(self, kind: Kind) -> Compiled:
        address = (*_address(kind), kind.resource.kind)
        found = self._compiled.get(address)
        # while one thread compiled a row, another may have put a later state of its definition in the row's place
        if found is None or found.declared is not kind.schema:
            found = self._compiled[address] = self._compile(kind)
        return found

    def _compile(self, kind: Kind) -> Compiled:
        if kind.schema is not None:
            node = custom_node(self.schemas, kind)
            return Compiled(
                kind.schema, node, None, False, lambda tree: decode_custom(node, tree), None, trimmer_of_metadata(node)
            )
        node = self.schemas.node(self.definition(kind))
        fast = FastCheck(node)
        exact = fast if fast.exact else None
        return Compiled(None, node, exact, fast.shut, lambda tree: walk(node, tree), normalizer(node), trimmer(node))

    def defines(self, kind: Kind) -> bool:
        """Whether this Kubernetes version has a built-in kind."""
        resource = kind.resource
        return bool(kind.definition) or (resource.group, resource.version, resource.kind) in self._definition_by_kind

    def definition(self, kind: Kind) -> str:
        """Returns the name of a kind's OpenAPI definition.

        Raises:
            KeyError: this Kubernetes version has none.
        """
        resource = kind.resource
        return kind.definition or self._definition_by_kind[(resource.group, resource.version, resource.kind)]

    def add_crd(self, crd: Obj) -> tuple[Kind, ...]:
        """Serves the versions of a CustomResourceDefinition; replaces what an older state of it served.

        A version that Kubernetes itself has is not for definitions, nor are the objects of one of its own kinds.
        """
        self._drop(crd["metadata"]["name"])
        rows = tuple(row for row in rows_of(crd) if not _is_built_in(row))
        self._custom[crd["metadata"]["name"]] = rows
        for row in rows:
            self._rows[_address(row)] = row
            self._by_kind[(row.api_version, row.resource.kind)] = row
        self.generation += 1
        return rows

    def stored(self, crd: Obj) -> Kind | None:
        """Returns what a definition's objects are stored as; None where they are those of a kind of Kubernetes."""
        row = storage_row(crd)
        return None if row.prefix() in _BUILT_IN_PREFIXES else row

    def remove_crd(self, name: str) -> tuple[Kind, ...]:
        """Stops serving a CustomResourceDefinition; returns the rows that are gone."""
        gone = self._drop(name)
        self.generation += 1
        return gone

    def _drop(self, name: str) -> tuple[Kind, ...]:
        gone = self._custom.pop(name, ())
        for row in gone:
            self._rows.pop(_address(row), None)
            self._by_kind.pop((row.api_version, row.resource.kind), None)
            self._compiled.pop((*_address(row), row.resource.kind), None)
        return gone


def _address(row: Kind) -> tuple[str, str, str]:
    return row.resource.group, row.resource.version, row.resource.plural


#: what Kubernetes itself serves: its versions of groups, and where it keeps what
_BUILT_IN_VERSIONS = frozenset(row.api_version for row in ROWS)
_BUILT_IN_PREFIXES = frozenset(row.prefix() for row in ROWS)


def _is_built_in(row: Kind) -> bool:
    return row.api_version in _BUILT_IN_VERSIONS or row.prefix() in _BUILT_IN_PREFIXES


def _definitions_by_kind(definitions: Mapping[str, Any]) -> dict[tuple[str, str, str], str]:
    found: dict[tuple[str, str, str], str] = {}
    for name, schema in definitions.items():
        for row in schema.get("x-kubernetes-group-version-kind", ()):
            found.setdefault((row["group"], row["version"], row["kind"]), name)
    return found
