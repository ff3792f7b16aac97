"""Node labels as columns: per key the id of each row's value, and masks of rows that meet a requirement."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from steersman.cluster.meta.selectors import Requirement
from steersman.cluster.sched.tally import Mask


class _Column:
    def __init__(self, capacity: int) -> None:
        self.values: NDArray[np.int32] = np.full(capacity, -1, np.int32)
        self.ids: dict[str, int] = {}


class LabelColumns:
    """Value id of every row per label key; -1 where a row has no such label."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._columns: dict[str, _Column] = {}
        self._keys_of: dict[int, tuple[str, ...]] = {}

    def set(self, row: int, labels: Mapping[str, str]) -> None:
        for key in self._keys_of.get(row, ()):
            if key not in labels:
                self._columns[key].values[row] = -1
        for key, value in labels.items():
            column = self._columns.get(key)
            if column is None:
                column = self._columns[key] = _Column(self._capacity)
            column.values[row] = column.ids.setdefault(value, len(column.ids))
        self._keys_of[row] = tuple(labels)

    def grow(self, capacity: int) -> None:
        for column in self._columns.values():
            extra = np.full(capacity - len(column.values), -1, np.int32)
            column.values = np.concatenate([column.values, extra])
        self._capacity = capacity

    def compact(self, size: int) -> None:
        """Drops the ids of values that no row has, where these outnumber the rows (after many nodes came and went)."""
        for key in [key for key, column in self._columns.items() if len(column.ids) > 2 * size + 64]:
            old = self._columns[key]
            texts = list(old.ids)
            column = _Column(self._capacity)
            for row in np.flatnonzero(old.values >= 0):
                text = texts[old.values[row]]
                column.values[row] = column.ids.setdefault(text, len(column.ids))
            self._columns[key] = column

    def column(self, key: str) -> tuple[NDArray[np.int32], int]:
        """Returns (value ids, how many there are); all -1 for a key that no node has."""
        found = self._columns.get(key)
        if found is None:
            return np.full(self._capacity, -1, np.int32), 0
        return found.values, len(found.ids)

    def matching(self, requirement: Requirement, size: int) -> Mask:
        """The rows (of the first `size`) whose labels meet the requirement."""
        column = self._columns.get(requirement.key)
        if column is None:
            return np.full(size, requirement.operator in ("NotIn", "DoesNotExist"))
        #: one slot per value id and a last one for rows without the label, which the id -1 finds
        table = np.zeros(len(column.ids) + 1, bool)
        match requirement.operator:
            case "In" | "NotIn":
                ids = [column.ids[value] for value in requirement.values if value in column.ids]
                table[ids] = True
                if requirement.operator == "NotIn":
                    table = ~table
            case "Exists":
                table[:-1] = True
            case "DoesNotExist":
                table[-1] = True
            case _:
                for text, value_id in column.ids.items():
                    table[value_id] = requirement.matches({requirement.key: text})
        return table[column.values[:size]]
