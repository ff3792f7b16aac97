"""The arithmetic of a Deployment's rollout: how many pods each of its ReplicaSets should have next.

Knows numbers only. Safety: never more than `replicas + maxSurge` pods, never fewer than `replicas - maxUnavailable`
available ones by its own doing. Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from steersman.cluster.meta.objects import Obj


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A ReplicaSet in numbers.

    Args:
        replicas: asked for; available: pods that are available.
        max_before: `replicas + maxSurge` of the Deployment when this ReplicaSet was scaled last; 0 for unknown.
        created: ordering key, older first.
    """

    name: str
    replicas: int
    available: int = 0
    max_before: int = 0
    created: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Args: replicas: wanted in all; surge: how many more; unavailable: how many fewer available ones."""

    replicas: int
    surge: int
    unavailable: int


def resolve(value: int | str | None, total: int, *, up: bool) -> int:
    """Returns the number that an int or a percentage of `total` stands for; 0 for what is neither."""
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.endswith("%") and value[:-1].isdigit():
        share = int(value[:-1]) * total
        return -(-share // 100) if up else share // 100
    return int(value) if isinstance(value, str) and value.isdigit() else 0


def bounds_of(deployment: Obj) -> Bounds:
    """Reads the bounds of a Deployment; a Recreate strategy has neither surge nor slack."""
    spec = deployment["spec"]
    replicas = 1 if spec.get("replicas") is None else spec["replicas"]
    strategy = spec.get("strategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return Bounds(replicas=replicas, surge=0, unavailable=0)
    rolling = strategy.get("rollingUpdate") or {}
    surge = resolve(rolling.get("maxSurge", "25%"), replicas, up=True)
    unavailable = resolve(rolling.get("maxUnavailable", "25%"), replicas, up=False)
    if not surge and not unavailable:
        unavailable = 1  # percentages that both round to nothing must not stop the rollout
    return Bounds(replicas=replicas, surge=surge, unavailable=min(unavailable, replicas))


def grow_new(bounds: Bounds, new: int, total: int) -> int:
    """Returns how many pods the new ReplicaSet may have, given all ReplicaSets' sum."""
    if new >= bounds.replicas:
        return bounds.replicas
    room = bounds.replicas + bounds.surge - total
    return new if room <= 0 else new + min(room, bounds.replicas - new)


def shrink_old(bounds: Bounds, new: Count, old: Sequence[Count]) -> dict[str, int]:
    """Returns the sizes of old ReplicaSets that may shrink now, unhealthy pods first."""
    if not any(count.replicas for count in old):
        return {}
    min_available = bounds.replicas - bounds.unavailable
    total = new.replicas + sum(count.replicas for count in old)
    budget = total - min_available - max(0, new.replicas - new.available)
    if budget <= 0:
        return {}
    sizes = {count.name: count.replicas for count in old}
    oldest_first = sorted(old, key=lambda count: count.created)
    spent = 0
    for count in oldest_first:
        unhealthy = min(budget - spent, max(0, count.replicas - count.available))
        sizes[count.name] -= unhealthy
        spent += unhealthy
    spare = min(new.available + sum(count.available for count in old) - min_available, budget - spent)
    for count in oldest_first:
        step = max(0, min(sizes[count.name], spare))
        sizes[count.name] -= step
        spare -= step
    return {count.name: sizes[count.name] for count in old if sizes[count.name] != count.replicas}


def spread(bounds: Bounds, counts: Sequence[Count]) -> dict[str, int]:
    """Returns the size of each active ReplicaSet after the Deployment was scaled in the middle of a rollout.

    What is added or taken is shared in proportion to the sizes; what rounding leaves goes to the largest.
    """
    allowed = bounds.replicas + bounds.surge if bounds.replicas else 0
    to_add = allowed - sum(count.replicas for count in counts)
    newest_breaks_ties = to_add > 0
    by_age = sorted(counts, key=lambda count: count.created, reverse=newest_breaks_ties)
    order = sorted(by_age, key=lambda count: -count.replicas)
    sizes: dict[str, int] = {}
    added = 0
    for count in order:
        share = _share(bounds, count, to_add, added) if to_add else 0
        sizes[count.name] = count.replicas + share
        added += share
    if order and to_add:
        sizes[order[0].name] = max(0, sizes[order[0].name] + to_add - added)
    return sizes


def _share(bounds: Bounds, count: Count, to_add: int, added: int) -> int:
    if not count.replicas or to_add == added:
        return 0
    if not bounds.replicas:
        fraction = -count.replicas
    else:
        before = count.max_before or bounds.replicas + bounds.surge
        fraction = math.floor(count.replicas * (bounds.replicas + bounds.surge) / before + 0.5) - count.replicas
    rest = to_add - added
    return min(fraction, rest) if to_add > 0 else max(fraction, rest)


def resized(counts: Sequence[Count], sizes: dict[str, int]) -> list[Count]:
    """Returns the counts with their new sizes."""
    return [replace(count, replicas=sizes.get(count.name, count.replicas)) for count in counts]
