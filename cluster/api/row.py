"""A kind as a row: its address, what may be done with it, and the pure functions that hold its rules.

A row knows nothing of requests, stores or other objects. Adding a kind is adding a row (and perhaps rules);
there is no handler per kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import Resource

if TYPE_CHECKING:
    from steersman.cluster.api.context import WriteContext
    from steersman.cluster.api.custom.conversion import Converter
    from steersman.cluster.api.kinds import Registry

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
STATUS_VERBS = ("get", "patch", "update")
#: everything of an object's metadata that a client may change
OBJECT_META = ("annotations", "finalizers", "labels", "ownerReferences")


@dataclass(frozen=True, slots=True)
class Subresource:
    """A path below an object.

    Args:
        name: last part of the path, as `status`.
        verbs: what may be done with it.
        kind, group, version: of the bodies it takes and gives.
    """

    name: str
    verbs: tuple[str, ...]
    kind: str
    group: str = ""
    version: str = "v1"

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True, slots=True)
class ScalePaths:
    """Where a kind keeps what its Scale shows; dotted paths as in a CRD's `subresources.scale`."""

    spec_replicas: str = "spec.replicas"
    status_replicas: str = "status.replicas"
    selector: str = "spec.selector"


def _nothing(_obj: Obj) -> None:
    return None


def _no_causes(_obj: Obj) -> list[Cause]:
    return []


def _no_update_causes(_new: Obj, _old: Obj) -> list[Cause]:
    return []


def _no_create(_obj: Obj, _ctx: WriteContext) -> None:
    return None


def _no_update(_new: Obj, _old: Obj, _ctx: WriteContext) -> None:
    return None


def meta_fields(obj: Obj) -> dict[str, str]:
    """The selectable fields that every kind has."""
    meta = obj["metadata"]
    if "namespace" in meta:
        return {"metadata.name": meta.get("name", ""), "metadata.namespace": meta["namespace"]}
    return {"metadata.name": meta.get("name", "")}


def _same(obj: Obj) -> Obj:
    return obj


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind in one version.

    Args:
        resource: its address.
        definition: name of its OpenAPI definition.
        subresources: by name; `status` among them means that spec and status are written apart.
        defaults: fills in what the client left out, in place.
        prepare_create, prepare_update: what the server itself decides about the object, in place, before validation.
        prepare_part: the same for a change through a subresource.
        prepare_delete: the same for an object that is to be deleted.
        observe: what the server says of the object itself, by what else it serves; asked when what counts has changed.
        new_status: the status that a new object has, whatever the client sent; None when the client's is kept.
        parts: by subresource: the old object with what the subresource may change taken from the new one.
        owned: by subresource: the paths of the fields that a write through it comes to own; no entry for all.
        kept: by subresource: the metadata that a change through it leaves as it is.
        validate: every broken rule of one object; validate_update: those of a change, told after them.
        validate_change: every broken rule of a changed object, in place of both, where they come in another order or
            what has been wrong before may stay.
        validate_create: rules of a new object alone.
        validate_status: rules of a change through `/status`.
        validate_parts: rules of a change through another subresource, in place of `validate_update`.
        selectable_fields: field selector path to text.
        name_errors: the rule of its names.
        scale: how `/scale` maps on it; None when it has none.
        storage_group: first part of its store key; kinds that share it and the plural share their objects.
        stored, served: turn an object of this version into the stored one and back; identity for most.
        plain: whether an object that is stored in this version is shown as it is; False where `served` may repair it.
        converter: the webhook that converts between versions, ahead of `served` and in place of `stored`.
        form: names what `served` makes of an object.
        default_propagation: what a delete without a policy does with dependents.
        has_generation: whether `metadata.generation` counts changes; counted: of what, beside what stands outside the
            metadata and the status; None when nothing is counted after the creation.
        virtual: answers a question and is never stored (SubjectAccessReview, ...).
        listed: of a custom resource: the kind of its lists, where its definition names one.
        schema: of a custom resource: the version's OpenAPI schema; None for built-in kinds.
        printer_columns: of a custom resource: `additionalPrinterColumns`.
        allows_unconditional_update: whether an update without resourceVersion is taken.
        create_on_update: whether an update of an object that does not exist creates it.
        deprecation: what a client of this version is warned of.
        is_terminating: whether the kind is about to go, so that no object of it can be created.
    """

    resource: Resource
    definition: str = ""
    singular: str = ""
    listed: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: Mapping[str, Subresource] = field(default_factory=dict)
    defaults: Callable[[Obj], None] = _nothing
    validate: Callable[[Obj], list[Cause]] = _no_causes
    validate_update: Callable[[Obj, Obj], list[Cause]] = _no_update_causes
    validate_change: Callable[[Obj, Obj], list[Cause]] | None = None
    validate_status: Callable[[Obj, Obj], list[Cause]] = _no_update_causes
    validate_create: Callable[[Obj], list[Cause]] = _no_causes
    validate_parts: Mapping[str, Callable[[Obj, Obj], list[Cause]]] = field(default_factory=dict)
    prepare_create: Callable[[Obj, WriteContext], None] = _no_create
    prepare_update: Callable[[Obj, Obj, WriteContext], None] = _no_update
    prepare_part: Callable[[Obj, Obj, WriteContext], None] = _no_update
    prepare_delete: Callable[[Obj, WriteContext], None] = _no_create
    observe: Callable[[Registry, Obj], None] | None = None
    new_status: Mapping[str, Any] | None = None
    parts: Mapping[str, Callable[[Obj, Obj], Obj]] = field(default_factory=dict)
    owned: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    kept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    selectable_fields: Callable[[Obj], dict[str, str]] = meta_fields
    name_errors: Callable[[str], list[str]] = subdomain_errors
    scale: ScalePaths | None = None
    storage_group: str = ""
    stored: Callable[[Obj], Obj] = _same
    served: Callable[[Obj], Obj] = _same
    plain: bool = True
    converter: Converter | None = None
    form: str = ""
    default_propagation: str = "Background"
    has_generation: bool = False
    counted: tuple[str, ...] | None = ()
    virtual: bool = False
    schema: Mapping[str, Any] | None = None
    printer_columns: tuple[Mapping[str, Any], ...] = ()
    allows_unconditional_update: bool = True
    create_on_update: bool = False
    deprecation: str = ""
    is_terminating: bool = False
    _base: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        base = f"/registry/{self.storage_group or self.resource.group or 'core'}/{self.resource.plural}/"
        object.__setattr__(self, "_base", base)

    @property
    def api_version(self) -> str:
        return self.resource.api_version

    @property
    def is_custom(self) -> bool:
        return self.schema is not None

    @property
    def list_kind(self) -> str:
        return self.listed or f"{self.resource.kind}List"

    def prefix(self, namespace: str = "") -> str:
        """The store key that every object's (of the namespace) starts with, ending in a slash."""
        return f"{self._base}{namespace}/" if namespace else self._base

    def key(self, namespace: str, name: str) -> str:
        """The store key of an object; the namespace is empty for a cluster-scoped one."""
        return self.prefix(namespace if self.resource.namespaced else "") + name
