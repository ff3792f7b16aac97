"""Whether the tests of the store would notice: mistakes are put into the code, and each must be found soon."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.sim.mistakes.patching import Mistake
from tests.sim.mistakes.table import NOTICED_BY_SCRIPT, NOTICED_BY_STORIES, STORIES_MAX
from tests.sim.playing import outcome


@pytest.mark.parametrize("mistake", NOTICED_BY_STORIES, ids=lambda mistake: mistake.__name__)
def test_stories_notice_the_mistake_to(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake(monkeypatch)
    assert any(outcome(seed) for seed in range(STORIES_MAX)), f"{STORIES_MAX} stories did not notice it"


@pytest.mark.parametrize(
    ("mistake", "script"), NOTICED_BY_SCRIPT.items(), ids=[mistake.__name__ for mistake in NOTICED_BY_SCRIPT]
)
def test_a_script_notices_the_mistake_to(
    mistake: Mistake, script: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    script()
    mistake(monkeypatch)
    with pytest.raises(AssertionError):
        script()
