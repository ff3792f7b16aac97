"""Lists that are sets or maps: equality without order, and `+` as union.

Source: https://kubernetes.io/docs/reference/using-api/cel/#equality-and-ordering (`x-kubernetes-list-type`)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steersman.cluster.api.cel.values import equal, mark

#: the `unordered` of a type: no names mean a set, names are the keys of a map
Order = tuple[str, ...]


def _identity(order: Order, item: Any) -> Any:
    return mark([item.get(key) for key in order]) if order else mark(item)


def _equal(order: Order, left: list[Any], right: list[Any]) -> bool:
    if len(left) != len(right):
        return False
    others = {_identity(order, item): item for item in right}
    absent = object()
    return all(
        (other := others.get(_identity(order, item), absent)) is not absent and equal(item, other) for item in left
    )


def _union(order: Order, left: list[Any], right: list[Any]) -> list[Any]:
    """Items of both; of two with the same identity the right one stands at the left one's place."""
    found = {_identity(order, item): item for item in left}
    found |= {_identity(order, item): item for item in right}
    return list(found.values())


#: operator to what it does with such lists
UNORDERED: dict[str, Callable[[Order, list[Any], list[Any]], Any]] = {
    "_==_": _equal,
    "_!=_": lambda order, left, right: not _equal(order, left, right),
    "_+_": _union,
}
