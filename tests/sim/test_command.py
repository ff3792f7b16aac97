"""The command that plays stories: it tells which failed, and plays that one again."""

from __future__ import annotations

import sys

import pytest
from tests.sim.__main__ import main
from tests.sim.mistakes.watches import resume_a_watch_one_late


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tests.sim", *arguments])
    return main()


def test_it_tells_of_the_first_story_that_fails_and_plays_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resume_a_watch_one_late(monkeypatch)
    assert run(monkeypatch, "--seeds", "2", "--start", "40", "--jobs", "1") == 1
    *_, last = capsys.readouterr().out.splitlines()
    assert last.endswith("2 failed, the first: python -m tests.sim --seed 40")
    assert run(monkeypatch, "--seed", "40") == 1
    assert "revisions are missing or out of order" in capsys.readouterr().out


def test_it_is_content_when_nothing_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--seeds", "2", "--story-s", "0.5") == 0
    assert "2 stories in" in capsys.readouterr().out
    assert run(monkeypatch, "--point", "100", "--member", "2", "--everybody") == 0
    assert "fingerprint" in capsys.readouterr().out
