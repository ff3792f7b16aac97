"""Changes of values in place, put together from a schema once: nothing is walked where nothing below it changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: changes a value of one schema node in place
Step = Callable[[Any], None]


def each(step: Step | None) -> Step | None:
    """Takes a step at every item of a list; None where there is none to take."""
    if step is None:
        return None

    def run(value: list[Any]) -> None:
        for item in value:
            step(item)

    return run


def each_value(step: Step | None) -> Step | None:
    """Takes a step at every value of a map; None where there is none to take."""
    if step is None:
        return None

    def run(value: dict[str, Any]) -> None:
        for item in value.values():
            step(item)

    return run
