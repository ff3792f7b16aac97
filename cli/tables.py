"""Objects of one kind as the server's table: fetched, filtered to the columns asked for, and turned into texts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from steersman.cli.kinds import Target, reference
from steersman.cli.session import Session, target
from steersman.cluster.meta.objects import Obj

ACCEPT = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
#: objects asked for at once, as kubectl does
PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which objects are wanted.

    Args:
        everywhere: all namespaces.
        objects: whether rows must carry whole objects, for sorting.
    """

    everywhere: bool = False
    label_selector: str = ""
    field_selector: str = ""
    objects: bool = False


@dataclass(slots=True)
class Layout:
    """How rows become lines: which columns there are and what stands in front of and behind them."""

    wide: bool = False
    with_namespace: bool = False
    with_kind: bool = False
    show_labels: bool = False
    label_columns: Sequence[str] = ()
    #: definitions of the table shown, set by its first page or event
    columns: list[Obj] = field(default_factory=list)

    def headings(self) -> list[str]:
        shown = [column["name"].upper() for column in self.columns if self._shown(column)]
        labels = [label.rpartition("/")[2].upper() for label in self.label_columns]
        front = ["NAMESPACE"] if self.with_namespace else []
        return [*front, *shown, *labels, *(["LABELS"] if self.show_labels else [])]

    def cells(self, row: Obj, what: Target) -> list[str]:
        obj = row.get("object") or {}
        metadata = obj.get("metadata") or {}
        labels = metadata.get("labels") or {}
        shown = []
        for column, cell in zip(self.columns, row["cells"], strict=False):
            if self._shown(column):
                named = self.with_kind and column.get("format") == "name"
                shown.append(reference(what.resource, cell) if named else _text(cell))
        front = [metadata.get("namespace", "")] if self.with_namespace else []
        extra = [labels.get(label, "") for label in self.label_columns]
        if self.show_labels:
            extra.append(",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "<none>")
        return [*front, *shown, *extra]

    def _shown(self, column: Obj) -> bool:
        return self.wide or not column.get("priority")


def _text(cell: Any) -> str:
    if cell is None:
        return "<none>"
    return " ".join(str(cell).split("\n")) if not isinstance(cell, bool) else str(cell).lower()


async def fetch(session: Session, what: Target, query: Query) -> Obj:
    """Returns the table of the named objects, or of all that the query selects, its pages joined.

    Raises:
        ApiError: as the server answers; NotFound for a missing name.
    """
    scope = session.scope(what.resource, everywhere=query.everywhere)
    include = "Object" if query.objects else None
    if what.names:
        tables = []
        for name in what.names:
            path = target(what.resource.path(scope, name), includeObject=include)
            tables.append(as_table(await session.fetch(path, accept=ACCEPT), what))
    else:
        tables = [table async for table in _pages(session, what, query, scope, include)]
    found = tables[0]
    for more in tables[1:]:
        found["rows"] += more["rows"]
    return found


async def _pages(session: Session, what: Target, query: Query, scope: str | None, include: str | None) -> Any:
    token = ""
    while True:
        path = target(
            what.resource.path(scope),
            limit=PAGE,
            labelSelector=query.label_selector,
            fieldSelector=query.field_selector,
            includeObject=include,
            **{"continue": token},
        )
        table = as_table(await session.fetch(path, accept=ACCEPT), what)
        yield table
        token = (table.get("metadata") or {}).get("continue", "")
        if not token:
            return


def as_table(answer: Obj, what: Target) -> Obj:
    """The answer itself, or the table made of what a server without tables sent."""
    if answer.get("kind") == "Table":
        return answer
    from steersman.cluster.api.table import table

    items = answer["items"] if isinstance(answer.get("items"), list) else [answer]
    made = table(what.resource.kind, what.resource.api_version, items, time.time(), include_object="Object")
    made["metadata"] = answer.get("metadata") or {}
    return made
