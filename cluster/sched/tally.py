"""A count per node, kept as pods come and go, with its sums over the domains of any topology key.

One tally counts the pods that some selectors mean, another the pods that own some affinity term.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]
#: gives (value id of each row or -1, number of distinct values) of a topology key
TopologyOf = Callable[[str], tuple[NDArray[np.int32], int]]


class Tally:
    """A count per row.

    Invariant: `total == rows.sum()`, and each cached domain sum of the present generation equals the sum of `rows` over
    its domain.
    """

    def __init__(self, capacity: int) -> None:
        self.rows: IntArray = np.zeros(capacity, np.int64)
        self.total = 0
        #: topology key -> (generation of the node labels, value id of each row, sum per value id)
        self._domains: dict[str, tuple[int, NDArray[np.int32], IntArray]] = {}

    def add(self, row: int, amount: int) -> None:
        self.rows[row] += amount
        self.total += amount
        for _, values, sums in self._domains.values():
            # sums from before a node came or changed are made anew when next asked for
            value = values[row] if row < len(values) else -1
            if 0 <= value < len(sums) - 1:
                sums[value] += amount

    def grow(self, capacity: int) -> None:
        self.rows = np.concatenate([self.rows, np.zeros(capacity - len(self.rows), np.int64)])
        self._domains.clear()

    def sums(self, key: str, generation: int, topology_of: TopologyOf) -> IntArray:
        """Returns the sum per value id of a topology key, one slot more for rows without it (always 0).

        Args:
            generation: changes whenever any node's labels do.
        """
        found = self._domains.get(key)
        if found is None or found[0] != generation:
            values, size = topology_of(key)
            found = (generation, values, domain_sums(values, self.rows[: len(values)], size))
            self._domains[key] = found
        return found[2]


def domain_sums(values: NDArray[np.int32], counts: IntArray, size: int) -> IntArray:
    """Sums counts per value id; the last of the `size + 1` slots stands for rows without the key and stays 0."""
    has = values >= 0
    sums = np.zeros(size + 1, np.int64)
    found = np.bincount(values[has], weights=counts[has], minlength=size)
    sums[: len(found)] = found.astype(np.int64)
    return sums
