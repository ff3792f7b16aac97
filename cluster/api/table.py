"""Tables: the form in which clients ask the server to print objects.

Decides columns and cells of a `meta.k8s.io/v1 Table`; knows nothing of terminals.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from steersman.cluster.api.columns import COLUMNS, DEFAULT
from steersman.cluster.api.columns.column import Column, Columns, Name, name, since
from steersman.cluster.api.columns.descriptions import Documented, description, undocumented
from steersman.cluster.api.rules.fields import bad
from steersman.cluster.meta.errors import BadRequest
from steersman.cluster.meta.jsonpath import JsonPath, JsonPathError, printed, relaxed
from steersman.cluster.meta.objects import Obj

#: what a column of a custom kind shows that is not described
_BY_PATH = "Custom resource definition column (in JSONPath format)"


def included(text: str) -> str:
    """Returns what `includeObject` says that each row carries of its object.

    Raises:
        BadRequest: it is none of `None`, `Metadata` and `Object`.
    """
    if text in ("", "None", "Metadata", "Object"):
        return text or "Metadata"
    wrong = bad("includeObject", text, "must be 'Metadata', 'Object', 'None', or empty")
    raise BadRequest(f"Unable to convert to Table as requested: {wrong.field}: {wrong.message}")


def table(
    kind_name: str,
    api_version: str,
    objects: Iterable[Obj],
    now: float,
    *,
    include_object: str = "Metadata",
    resource_version: str = "",
    columns: Sequence[Mapping[str, Any]] | None = None,
    with_definitions: bool = True,
    documented: Documented = undocumented,
) -> Obj:
    """Returns the objects as a Table.

    Args:
        kind_name: kind of the objects, as `Pod`.
        api_version: of the objects, as `apps/v1`.
        objects: rows in order.
        now: seconds since the epoch, against which ages are told.
        include_object: what each row carries of its object: `None`, `Metadata` or `Object`.
        resource_version: of the list.
        columns: `additionalPrinterColumns` of a custom resource; None for a built-in kind.
        with_definitions: a watch sends the definitions in its first event only.
        documented: tells what fields are.
    """
    group = api_version.rpartition("/")[0]
    layout = COLUMNS.get((group, kind_name), DEFAULT) if columns is None else _custom(columns)
    found: Obj = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}}
    if resource_version:
        found["metadata"]["resourceVersion"] = resource_version
    found["columnDefinitions"] = None
    if with_definitions:
        found["columnDefinitions"] = [
            _definition(column, column.description or description(group, kind_name, column.name, documented))
            for column in layout.columns
        ]
    if layout.order:
        objects = sorted(objects, key=layout.order)
    found["rows"] = [_row(layout, obj, now, include_object) for obj in objects]
    return found


def _definition(column: Column, told: str) -> Obj:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": told,
        "priority": column.priority,
    }


def _row(layout: Columns, obj: Obj, now: float, include_object: str) -> Obj:
    row: Obj = {"cells": layout.cells(obj, now)}
    if layout.conditions is not None and (conditions := layout.conditions(obj)):
        row["conditions"] = conditions
    if include_object == "Object":
        row["object"] = obj
    elif include_object == "Metadata":
        row["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": obj.get("metadata") or {},
        }
    else:
        row["object"] = None
    return row


def _custom(columns: Sequence[Mapping[str, Any]]) -> Columns:
    rows = tuple(
        (
            str(row.get("name", "")),
            str(row.get("type", "string")),
            int(row.get("priority") or 0),
            str(row.get("format", "")),
            str(row.get("description", "")) or f"{_BY_PATH}: {row.get('jsonPath', '')}",
            str(row.get("jsonPath", "")),
        )
        for row in columns
    )
    return _custom_layout(rows)


@lru_cache(maxsize=512)
def _custom_layout(rows: tuple[tuple[str, str, int, str, str, str], ...]) -> Columns:
    if not rows:
        return _DATED
    shown = [(Column(*row[:5]), _path(row[5])) for row in rows]

    def cells(obj: Obj, now: float) -> list[Any]:
        return [name(obj), *(_custom_cell(column.type, path, obj, now) for column, path in shown)]

    return Columns((Name, *(column for column, _ in shown)), cells)


#: of custom kinds without columns of their own, whose dates are told to be some
_DATED = Columns((Name, Column("Age", type="date")), DEFAULT.cells)


def _path(text: str) -> JsonPath | None:
    try:
        return JsonPath(relaxed(text))
    except JsonPathError:
        return None


def _custom_cell(kind: str, path: JsonPath | None, obj: Obj, now: float) -> Any:
    """The first value at a path, as its column's type says; there is room for no other.

    Source: k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor/tableconvertor.go
    """
    values = path.values(obj) if path is not None else []
    if not values or values[0] is None:
        return None
    value = values[0]
    match kind:
        case "date":
            return since(value, now) if isinstance(value, str) else None
        case "integer":
            whole = isinstance(value, int | float) and not isinstance(value, bool)
            return int(value) if whole else None
        case "number":
            return value if isinstance(value, int | float) and not isinstance(value, bool) else None
        case "boolean":
            return value if isinstance(value, bool) else None
    return printed(value)
