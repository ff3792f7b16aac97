"""Puts quantities into their canonical form wherever a kind has some, touching nothing else.

The places are found once per schema: a tree of only those properties that lead to a quantity.
"""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.schema.node import SchemaNode
from steersman.cluster.api.schema.steps import Step, each, each_value
from steersman.cluster.meta.quantity import QuantityError, canonical
from steersman.cluster.meta.remembered import remembered


@remembered(8192)
def _canonical_text(text: str) -> str:
    try:
        return canonical(text)
    except QuantityError:
        return text


def _quantity(value: Any) -> str:
    return _canonical_text(value if isinstance(value, str) else repr(value))


def normalizer(node: SchemaNode) -> Step | None:
    """Returns what puts every quantity of an object of this schema in canonical form; None when it has none."""
    return _Sites().step(node, ())


class _Sites:
    def __init__(self) -> None:
        self._found: dict[str, Step | None] = {}

    def step(self, node: SchemaNode, above: tuple[str, ...]) -> Step | None:
        if not node.definition:
            return self._build(node, above)
        if node.definition in above:
            return None
        if node.definition not in self._found:
            self._found[node.definition] = self._build(node, (*above, node.definition))
        return self._found[node.definition]

    def _build(self, node: SchemaNode, above: tuple[str, ...]) -> Step | None:
        if node.type == "array" and node.items is not None:
            return each(self.step(node.items, above))
        if node.type != "object":
            return None
        additional = node.additional
        if additional is not None:
            return _all_values if additional.type == "quantity" else each_value(self.step(additional, above))
        scalars, deeper = [], []
        for name, child in node.properties.items():
            if child.type == "quantity":
                scalars.append(name)
            elif (below := self.step(child, above)) is not None:
                deeper.append((name, below))
        return _object(tuple(scalars), tuple(deeper)) if scalars or deeper else None


def _all_values(value: dict[str, Any]) -> None:
    for key, item in value.items():
        value[key] = _quantity(item)


def _object(scalars: tuple[str, ...], deeper: tuple[tuple[str, Step], ...]) -> Step:
    def run(value: dict[str, Any]) -> None:
        for name in scalars:
            if name in value:
                value[name] = _quantity(value[name])
        for name, step in deeper:
            if name in value:
                step(value[name])

    return run
