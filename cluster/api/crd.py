"""From a CustomResourceDefinition to rows: the same kind of row that a built-in kind has.

Source: https://kubernetes.io/docs/reference/kubernetes-api/extend-resources/custom-resource-definition-v1/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from steersman.cluster.api.custom.expressions import compile_rules
from steersman.cluster.api.custom.naming import is_established
from steersman.cluster.api.custom.values import validate_custom
from steersman.cluster.api.row import STATUS_VERBS, Kind, ScalePaths, Subresource, meta_fields
from steersman.cluster.api.schema.structural import fill_defaults
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import Resource


def rows_of(crd: Obj) -> tuple[Kind, ...]:
    """Returns a row for each version that an established definition serves."""
    if not is_established(crd) and (crd.get("status") or {}).get("conditions"):
        return ()
    spec = crd["spec"]
    storage = next((row["name"] for row in spec["versions"] if row.get("storage")), "")
    served = [row for row in spec["versions"] if row.get("served")]
    return tuple(_row(spec, version, f"{spec['group']}/{storage}") for version in served)


def _row(spec: Obj, version: Obj, storage: str) -> Kind:
    names = spec["names"]
    resource = Resource(
        spec["group"], version["name"], names["plural"], names["kind"], namespaced=spec["scope"] == "Namespaced"
    )
    schema: Mapping[str, Any] = (version.get("schema") or {}).get("openAPIV3Schema") or {}
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
        singular=names.get("singular") or resource.kind.lower(),
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=subresources,
        defaults=lambda obj: fill_defaults(schema, obj),
        validate_create=lambda obj: validate_custom(schema, rules(), obj),
        validate_update=lambda new, old: validate_custom(schema, rules(), new, old),
        validate_status=lambda new, old: validate_custom(schema, rules(), new, old),
        prepare_create=_without_status if "status" in wanted else lambda _obj, _ctx: None,
        selectable_fields=_selectable(version.get("selectableFields") or ()),
        scale=scale,
        has_generation=True,
        schema=schema,
        printer_columns=tuple(version.get("additionalPrinterColumns") or ()),
        stored=_as_version(storage),
        served=_as_version(resource.api_version),
    )


def _without_status(obj: Obj, _ctx: object) -> None:
    obj.pop("status", None)


def _as_version(api_version: str) -> Callable[[Obj], Obj]:
    def convert(obj: Obj) -> Obj:
        return obj if obj.get("apiVersion") == api_version else {**obj, "apiVersion": api_version}

    return convert


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
