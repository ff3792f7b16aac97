"""Whether the tests of the store would notice: mistakes are put into the code, and each must be found soon."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.sim.mutations import NOTICED_BY_SCENARIOS, NOTICED_BY_STORIES, Mistake
from tests.sim.store import outcome

#: stories in which a mistake must show
SEEDS_MAX = 300


@pytest.mark.parametrize("mistake", NOTICED_BY_STORIES, ids=lambda mistake: mistake.__name__)
def test_stories_notice_the_mistake_to(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake(monkeypatch)
    assert any(outcome(seed) for seed in range(SEEDS_MAX)), f"{SEEDS_MAX} stories did not notice it"


@pytest.mark.parametrize(
    ("mistake", "scenario"), NOTICED_BY_SCENARIOS.items(), ids=[mistake.__name__ for mistake in NOTICED_BY_SCENARIOS]
)
def test_a_scenario_notices_the_mistake_to(
    mistake: Mistake, scenario: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario()
    mistake(monkeypatch)
    with pytest.raises(AssertionError):
        scenario()
