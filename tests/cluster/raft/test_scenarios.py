"""The stories in `scenarios/`: those of the Raft paper and thesis by name, and what went wrong elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.cluster.raft.scenario import parse, play, render

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_the_story_goes_as_it_is_written(path: Path) -> None:
    found = play(path)
    if os.environ.get("REWRITE"):
        path.write_text(render(found))
    assert render(found) == render(list(parse(path.read_text())))
