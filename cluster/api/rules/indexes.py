"""Lists of a Job's indexes, as `1,3-5`.

Source: k8s.io/kubernetes/pkg/apis/batch/validation/validation.go
"""

from __future__ import annotations

import re

_NUMBER = re.compile(r"[+-]?\d+")

Interval = tuple[int, int]


class IndexesError(Exception):
    """What is wrong with a list, in Kubernetes' words."""


def interval(text: str, completions: int) -> Interval:
    """Returns first and last index of a part of a list; raises IndexesError."""
    parts = text.split("-")
    if len(parts) > 2:
        rule = "an index interval can have at most two parts separated by '-'"
        raise IndexesError(f'the fragment "{text}" violates the requirement that {rule}')
    numbers = []
    for part in parts:
        if not _NUMBER.fullmatch(part):
            raise IndexesError(f'cannot convert string to integer for index: "{part}"')
        if int(part) >= completions:
            raise IndexesError(f'too large index: "{part}"')
        numbers.append(int(part))
    if len(numbers) == 2 and numbers[0] >= numbers[1]:
        raise IndexesError(f"non-increasing order, previous: {numbers[0]}, current: {numbers[1]}")
    return numbers[0], numbers[-1]


def count(text: str, completions: int) -> int:
    """Returns how many indexes a list names; raises IndexesError."""
    total, last = 0, None
    for part in text.split(",") if text else ():
        first, end = interval(part, completions)
        if last is not None and last >= first:
            raise IndexesError(f"non-increasing order, previous: {last}, current: {first}")
        total, last = total + end - first + 1, end
    return total


def overlap(one: str, other: str, completions: int) -> int | None:
    """Returns the first index that both lists name; what cannot be read of them counts for nothing."""
    rows: list[list[Interval]] = []
    for text in (one, other):
        found: list[Interval] = []
        for part in text.split(",") if text else ():
            try:
                found.append(interval(part, completions))
            except IndexesError:
                continue
        rows.append(found)
    shared = [max(a, c) for a, b in rows[0] for c, d in rows[1] if a <= d and c <= b]
    return min(shared, default=None)
