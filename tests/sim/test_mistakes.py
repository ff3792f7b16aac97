"""Whether the tests of the store would notice: mistakes are put into the code, and each must be found soon."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
from tests.cluster.raft.test_mutations import MUTATIONS
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
    mistake: Mistake, script: partial[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    script()
    mistake(monkeypatch)
    with pytest.raises(AssertionError):
        script()


def test_the_table_in_the_readme_is_that_of_the_code() -> None:
    text = Path(__file__).with_name("README.md").read_text()
    store, core = text.split("## Mistakes that are noticed")[1].split("Into the consensus core alone")
    rows = dict(re.findall(r"\| `(\w+)` \| `?(\w+)`? \|$", store, re.MULTILINE))
    assert rows == {
        **{mistake.__name__: "stories" for mistake in NOTICED_BY_STORIES},
        **{mistake.__name__: script.args[0].__name__ for mistake, script in NOTICED_BY_SCRIPT.items()},
    }
    assert sorted(re.findall(r"`(\w+)`", core.split("|---|---|")[1])) == sorted(each.__name__ for each in MUTATIONS)
