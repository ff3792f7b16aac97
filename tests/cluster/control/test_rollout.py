from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.cluster.control.rollout import Bounds, Count, bounds_of, grow_new, resolve, shrink_old, spread


@pytest.mark.parametrize(
    ("value", "total", "up", "wanted"),
    [
        pytest.param(3, 10, True, 3, id="number"),
        pytest.param("25%", 10, True, 3, id="percent-up"),
        pytest.param("25%", 10, False, 2, id="percent-down"),
        pytest.param("0%", 10, True, 0, id="none"),
        pytest.param("100%", 7, False, 7, id="all"),
        pytest.param(None, 7, False, 0, id="missing"),
    ],
)
def test_a_share_is_a_number_or_a_percentage(value: object, total: int, up: bool, wanted: int) -> None:
    assert resolve(value, total, up=up) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("replicas", "strategy", "wanted"),
    [
        pytest.param(10, None, (10, 3, 2), id="defaults"),
        pytest.param(1, None, (1, 1, 0), id="one-replica"),
        pytest.param(10, {"maxSurge": 0, "maxUnavailable": 0}, (10, 0, 1), id="both-zero-would-stop"),
        pytest.param(10, {"maxSurge": "0%", "maxUnavailable": "5%"}, (10, 0, 1), id="both-round-to-zero"),
        pytest.param(2, {"maxSurge": 0, "maxUnavailable": 5}, (2, 0, 2), id="no-more-unavailable-than-there-are"),
    ],
)
def test_bounds_come_from_the_strategy(replicas: int, strategy: object, wanted: tuple[int, int, int]) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": strategy} if strategy else {"type": "RollingUpdate"}
    found = bounds_of({"metadata": {}, "spec": {"replicas": replicas, "strategy": rolling}})
    assert (found.replicas, found.surge, found.unavailable) == wanted


@pytest.mark.parametrize(
    ("bounds", "new", "total", "wanted"),
    [
        pytest.param((10, 2, 0), 0, 10, 2, id="as-far-as-the-surge-allows"),
        pytest.param((10, 2, 0), 9, 11, 10, id="never-above-replicas"),
        pytest.param((10, 0, 2), 0, 10, 0, id="no-room"),
        pytest.param((10, 2, 0), 12, 12, 10, id="down-when-too-many"),
        pytest.param((10, 2, 0), 4, 15, 4, id="over-full-waits"),
    ],
)
def test_the_new_set_grows(bounds: tuple[int, int, int], new: int, total: int, wanted: int) -> None:
    assert grow_new(Bounds(replicas=bounds[0], surge=bounds[1], unavailable=bounds[2]), new, total) == wanted


@pytest.mark.parametrize(
    ("new", "old", "wanted"),
    [
        pytest.param((2, 0), [(10, 10)], {"o0": 8}, id="as-many-as-may-be-missing"),
        pytest.param((4, 4), [(8, 8)], {"o0": 4}, id="new-ones-count"),
        pytest.param((2, 0), [(8, 8)], {}, id="nothing-to-spare"),
        pytest.param((2, 0), [(10, 3)], {"o0": 8}, id="unhealthy-ones-go-although-few-are-available"),
        pytest.param((4, 4), [(2, 0), (6, 6)], {"o0": 0, "o1": 4}, id="unhealthy-first-then-oldest"),
    ],
)
def test_old_sets_shrink(new: tuple[int, int], old: list[tuple[int, int]], wanted: dict[str, int]) -> None:
    bounds = Bounds(replicas=10, surge=2, unavailable=2)
    counts = [
        Count(name=f"o{number}", replicas=size, available=available, created=(str(number), ""))
        for number, (size, available) in enumerate(old)
    ]
    assert shrink_old(bounds, Count(name="n", replicas=new[0], available=new[1]), counts) == wanted


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[Bounds, list[list[int]]]:
    replicas = draw(st.integers(0, 30))
    surge, unavailable = draw(st.integers(0, 10)), draw(st.integers(0, 10))
    if not surge and not unavailable:
        unavailable = 1
    bounds = Bounds(replicas=replicas, surge=surge, unavailable=min(unavailable, replicas))
    old = draw(st.lists(st.integers(0, 15), min_size=1, max_size=3))
    return bounds, [[size, size] for size in [0, *old]]


@settings(max_examples=150)
@given(rollouts(), st.randoms(use_true_random=False))
def test_no_step_breaks_the_bounds_and_the_rollout_ends(case: tuple[Bounds, list[list[int]]], chance: object) -> None:
    """Pods become available or break at random; the sizes never exceed what the strategy allows by its own doing."""
    bounds, sets = case
    if sum(size for size, _ in sets) > bounds.replicas + bounds.surge:
        return
    for step in range(400):
        counts = [
            Count(name=str(number), replicas=size, available=available, created=(str(number), ""))
            for number, (size, available) in enumerate(sets)
        ]
        new, old = counts[0], counts[1:]
        total_before = sum(size for size, _ in sets)
        sizes = {"0": grow_new(bounds, new.replicas, total_before)}
        if sizes["0"] == new.replicas:
            sizes |= shrink_old(bounds, new, old)
        available_before = sum(available for _, available in sets)
        for number, row in enumerate(sets):
            row[0] = sizes.get(str(number), row[0])
            row[1] = min(row[0], row[1])  # a deleted pod was an available one, in the worst case
        total, available = sum(size for size, _ in sets), sum(found for _, found in sets)
        assert total <= max(total_before, bounds.replicas + bounds.surge)
        assert available >= min(available_before, bounds.replicas - bounds.unavailable)
        broken = step < 200
        for row in sets:
            if row[1] < row[0] and (not broken or chance.random() < 0.4):  # type: ignore[attr-defined]
                row[1] += 1
        if not broken and sets[0] == [bounds.replicas] * 2 and not any(size for size, _ in sets[1:]):
            return
    raise AssertionError(f"the rollout stands still at {sets} under {bounds}")


@given(rollouts(), st.integers(0, 60))
def test_scaling_in_the_middle_shares_out_exactly_what_is_allowed(
    case: tuple[Bounds, list[list[int]]], replicas: int
) -> None:
    before, sets = case
    bounds = Bounds(replicas=replicas, surge=before.surge, unavailable=min(before.unavailable, replicas))
    active = [
        Count(
            name=str(number),
            replicas=size,
            max_before=before.replicas + before.surge,
            created=(str(number), ""),
        )
        for number, (size, _) in enumerate(sets)
        if size
    ]
    sizes = spread(bounds, active)
    assert all(size >= 0 for size in sizes.values())
    if active and sum(count.replicas for count in active) <= before.replicas + before.surge:
        assert sum(sizes.values()) == (replicas + bounds.surge if replicas else 0)
