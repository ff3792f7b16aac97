"""From a CustomResourceDefinition to rows: the same kind of row that a built-in kind has.

Source: https://kubernetes.io/docs/reference/kubernetes-api/extend-resources/custom-resource-definition-v1/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from steersman.cluster.api.custom.conversion import converter_of
from steersman.cluster.api.custom.expressions import compile_rules
from steersman.cluster.api.custom.naming import is_established
from steersman.cluster.api.custom.values import validate_custom, validate_custom_status
from steersman.cluster.api.row import OBJECT_META, STATUS_VERBS, Kind, ScalePaths, Subresource, meta_fields
from steersman.cluster.api.scale import scale_causes
from steersman.cluster.api.schema.structural import fill_defaults, repairer
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import Resource
from steersman.cluster.meta.versions import version_order

Repair = Callable[[Obj], Obj]


def rows_of(crd: Obj) -> tuple[Kind, ...]:
    """Returns a row for each version that an established definition serves."""
    if not is_established(crd) and (crd.get("status") or {}).get("conditions"):
        return ()
    repairs = _repairs(crd)
    return tuple(_row(crd, version, repairs) for version in crd["spec"]["versions"] if version.get("served"))


def storage_row(crd: Obj) -> Kind:
    """Returns the row of the version in which a definition's objects are stored, whether it is served or not."""
    version = next(version for version in crd["spec"]["versions"] if version.get("storage"))
    return _row(crd, version, _repairs(crd))


def _repairs(crd: Obj) -> dict[str, Repair]:
    group = crd["spec"]["group"]
    return {f"{group}/{version['name']}": repairer(_schema(version)) for version in crd["spec"]["versions"]}


def _schema(version: Obj) -> Mapping[str, Any]:
    return (version.get("schema") or {}).get("openAPIV3Schema") or {}


def _row(crd: Obj, version: Obj, repairs: Mapping[str, Repair]) -> Kind:
    spec, meta = crd["spec"], crd["metadata"]
    storage = next((f"{spec['group']}/{row['name']}" for row in spec["versions"] if row.get("storage")), "")
    names = spec["names"]
    held = (crd.get("status") or {}).get("acceptedNames") or {}
    accepted = held if held.get("kind") else names
    resource = Resource(
        spec["group"], version["name"], names["plural"], names["kind"], namespaced=spec["scope"] == "Namespaced"
    )
    schema = _schema(version)
    rules = cache(lambda: compile_rules(schema))
    wanted = version.get("subresources") or {}
    subresources: dict[str, Subresource] = {}
    if "status" in wanted:
        subresources["status"] = Subresource("status", STATUS_VERBS, resource.kind, resource.group, resource.version)
    scale = None
    if "scale" in wanted:
        subresources["scale"] = Subresource("scale", STATUS_VERBS, "Scale", "autoscaling")
        paths = wanted["scale"]
        scale = ScalePaths(paths["specReplicasPath"], paths["statusReplicasPath"], paths.get("labelSelectorPath", ""))
    return Kind(
        resource=resource,
        singular=accepted.get("singular") or resource.kind.lower(),
        listed=accepted.get("listKind", ""),
        short_names=tuple(accepted.get("shortNames") or ()),
        categories=tuple(accepted.get("categories") or ()),
        subresources=subresources,
        kept={"status": OBJECT_META},
        defaults=lambda obj: fill_defaults(schema, obj),
        validate_create=lambda obj: validate_custom(schema, rules(), obj) + scale_causes(scale, obj),
        validate_update=lambda new, old: validate_custom(schema, rules(), new, old) + scale_causes(scale, new),
        validate_status=lambda new, old: (
            validate_custom_status(schema, rules(), new, old) + scale_causes(scale, new, of_status=True)
        ),
        prepare_create=_without_status if "status" in wanted else lambda _obj, _ctx: None,
        selectable_fields=_selectable(version.get("selectableFields") or ()),
        scale=scale,
        has_generation=True,
        allows_unconditional_update=False,
        schema=schema,
        printer_columns=tuple(version.get("additionalPrinterColumns") or ()),
        stored=_as_version(storage),
        served=_served(resource.api_version, repairs),
        plain=meta.get("generation", 1) == 1 and len(spec["versions"]) == 1,
        converter=converter_of(spec, storage, repairs),
        form=f"{resource.api_version} {meta.get('uid', '')} {meta.get('generation', 1)}",
        deprecation=_deprecation(spec, version),
        is_terminating=bool(meta.get("deletionTimestamp")),
    )


def _without_status(obj: Obj, _ctx: object) -> None:
    obj.pop("status", None)


def _as_version(api_version: str) -> Callable[[Obj], Obj]:
    def convert(obj: Obj) -> Obj:
        return obj if obj.get("apiVersion") == api_version else {**obj, "apiVersion": api_version}

    return convert


def _served(api_version: str, repairs: Mapping[str, Repair]) -> Callable[[Obj], Obj]:
    """What a stored object shows: it may have been written when the schema was another one, and in another version."""

    def serve(obj: Obj) -> Obj:
        stored = obj.get("apiVersion", "")
        if stored != api_version and stored in repairs:
            obj = repairs[stored](obj)
        return {**repairs[api_version](obj), "apiVersion": api_version}

    return serve


def _deprecation(spec: Obj, version: Obj) -> str:
    if not version.get("deprecated"):
        return ""
    if version.get("deprecationWarning"):
        return str(version["deprecationWarning"])
    group, kind = spec["group"], spec["names"]["kind"]
    name = version["name"]
    newer = [
        row["name"]
        for row in spec["versions"]
        if row.get("served") and not row.get("deprecated") and version_order(row["name"]) < version_order(name)
    ]
    text = f"{group}/{name} {kind} is deprecated"
    return f"{text}; use {group}/{min(newer, key=version_order)} {kind}" if newer else text


def _selectable(rows: Any) -> Callable[[Obj], dict[str, str]]:
    paths = [row["jsonPath"].lstrip(".") for row in rows]
    if not paths:
        return meta_fields

    def fields(obj: Obj) -> dict[str, str]:
        found = meta_fields(obj)
        for path in paths:
            value: Any = obj
            for part in path.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            found[path] = _field_text(value)
        return found

    return fields


def _field_text(value: Any) -> str:
    """A field as selectors compare it; empty for one that is not there."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
