"""What a table column is, and the cells that many kinds share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.selectors import SelectorError, from_dict
from steersman.cluster.meta.times import human_duration, parse_time


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Args:
        name: heading.
        type: `string`, `integer`, `number`, `boolean` or `date`.
        priority: 0 is always shown, above that in the wide output only.
        format: `name` for the column of names.
    """

    name: str
    type: str = "string"
    priority: int = 0
    format: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a kind and the function that fills a row.

    Args:
        order: what lists are sorted by.
        conditions: what a row says of its object beside the cells: whether it is over.
    """

    columns: tuple[Column, ...]
    cells: Callable[[Obj, float], list[Any]]
    order: Callable[[Obj], Any] | None = None
    conditions: Callable[[Obj], Sequence[Obj]] | None = None


Name = Column("Name", format="name")
Age = Column("Age")
CreatedAt = Column("Created At", type="date")


def wide(*names: str) -> tuple[Column, ...]:
    """Columns shown in the wide output only."""
    return tuple(Column(name, priority=1) for name in names)


def name(obj: Mapping[str, Any]) -> str:
    found: str = obj["metadata"].get("name", "")
    return found


def since(timestamp: str | None, now: float) -> str:
    """How long ago a timestamp was; `<unknown>` for none."""
    if not timestamp:
        return "<unknown>"
    try:
        return human_duration(now - parse_time(timestamp))
    except ValueError:
        return "<invalid>"


def age(obj: Mapping[str, Any], now: float) -> str:
    return since(obj["metadata"].get("creationTimestamp"), now)


def sub(obj: Mapping[str, Any], *path: str) -> Obj:
    """The object at a path; empty where it is missing."""
    found: Any = obj
    for key in path:
        found = (found or {}).get(key)
    return found or {}


def rows(obj: Mapping[str, Any], *path: str) -> list[Any]:
    """The list at a path; empty where it is missing."""
    found: Any = obj
    for key in path:
        found = (found or {}).get(key)
    return found or []


def joined(texts: Iterable[Any], separator: str = ",") -> str:
    """The texts joined, `<none>` for none at all."""
    return separator.join(str(text) for text in texts) or "<none>"


def labels_text(labels: Mapping[str, str] | None) -> str:
    return joined(f"{key}={value}" for key, value in sorted((labels or {}).items()))


def selector_text(selector: Mapping[str, Any] | None) -> str:
    """A label selector object as one text, `<none>` when there is none."""
    try:
        return str(from_dict(selector)) if selector else "<none>"
    except SelectorError:
        return "<invalid>"


def container_names_and_images(spec: Mapping[str, Any]) -> list[str]:
    containers: Sequence[Obj] = spec.get("containers") or ()
    return [",".join(c.get("name", "") for c in containers), ",".join(c.get("image", "") for c in containers)]


def shortened(texts: Sequence[str], none: str, limit: int = 3) -> str:
    """The first few texts, and how many more there are."""
    if not texts:
        return none
    shown = ",".join(texts[:limit])
    return f"{shown} + {len(texts) - limit} more..." if len(texts) > limit else shown
