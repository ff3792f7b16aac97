"""An hour of a cluster's life takes seconds, and the same seed gives the same hour."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.sim.rollout import Outcome, rolling_update

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hours() -> tuple[Outcome, list[str]]:
    """An hour lived here, and meanwhile the same one by an interpreter with another order of its sets."""
    command = [sys.executable, "-m", "tests.sim.rollout", "500", "50", "1"]
    environment = {**os.environ, "PYTHONHASHSEED": "4321"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        here = rolling_update(replicas=500, nodes=50, seed=1)
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return here, list(json.loads(printed))


def test_five_hundred_pods_roll_over_in_waves(hours):
    hour, _ = hours
    assert hour.images == ["example.org/web:2"]
    assert hour.status["availableReplicas"] == hour.status["updatedReplicas"] == hour.status["replicas"] == 500
    assert hour.finished_s > 600 + 2 * 300, "two waves at least, each available only after five minutes"
    assert float(hour.history[-1].split()[0]) - float(hour.history[0].split()[0]) > 3500


def test_another_process_with_another_hash_seed_lives_the_same_hour(hours):
    hour, other = hours
    assert len(other) == len(hour.history)
    assert next(((a, b) for a, b in zip(hour.history, other, strict=True) if a != b), None) is None


def test_the_same_seed_gives_the_same_history_and_another_seed_another():
    first, again, other = (rolling_update(replicas=12, nodes=4, seed=seed) for seed in (5, 5, 6))
    assert first.history == again.history
    assert first.history != other.history
    assert first.images == other.images
