"""What `steer up` tells its user."""

from __future__ import annotations

from pathlib import Path

import pytest

from steersman.cli import lifecycle
from steersman.cluster.config import parse


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        ({}, "steer status;  steer get nodes;"),
        ({"name": "lab"}, "steer status --name lab;  steer get nodes --name lab;"),
        (
            {"name": "lab", "data_dir": "/srv/lab"},
            "export STEERSMAN_DATA_DIR=/srv/lab;  steer status;  steer get nodes;",
        ),
        ({"name": "lab", "data_dir": str(Path("~/.steersman/lab").expanduser())}, "steer status --name lab;"),
    ],
    ids=["default", "named", "elsewhere", "where a name would put it"],
)
def test_the_commands_it_suggests_mean_the_cluster_just_started(
    overrides: dict[str, str], wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lifecycle._announce(parse("", overrides), "https://127.0.0.1:17403", "", 1.0)
    assert f"steer:   {wanted}" in capsys.readouterr().out
