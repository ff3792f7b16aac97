"""`steer backup` and `steer restore` on a cluster of real processes, without Ray and without containers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.test_embedded import Embedded

pytestmark = pytest.mark.e2e


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Embedded]:
    place = Embedded(tmp_path / "data", 31200)
    yield place
    place.run("down", "--delete-data")


@contextmanager
def writer(place: Embedded) -> Iterator[None]:
    """Somebody who makes objects all the time."""
    loop = 'n=0; while :; do n=$((n+1)); "$0" -m steersman.cli.main create configmap "busy-$n" >/dev/null; done'
    with subprocess.Popen(
        ["sh", "-c", loop, sys.executable], env=place.environment, stderr=subprocess.DEVNULL, start_new_session=True
    ) as it:
        yield
        os.killpg(it.pid, signal.SIGKILL)  # the command under way too


def test_a_cluster_comes_back_from_a_backup_taken_while_it_was_used(place: Embedded, tmp_path: Path) -> None:
    file = str(tmp_path / "cluster.backup")
    up = place.up("--runtime", "none")
    assert up.returncode == 0, up.stderr
    for number in range(3):
        place.steer("create", "configmap", f"kept-{number}", f"--from-literal=n={number}")
    with writer(place):
        assert "Saved" in place.steer("backup", file)
    assert "is good: revision" in place.steer("backup", "--verify", file)
    uid = place.get("configmap", "kept-1")["metadata"]["uid"]
    place.steer("delete", "configmap", "kept-0", "kept-1", "--wait=false")
    place.steer("create", "configmap", "later")

    assert "`steer down` first" in place.run("restore", file).stderr
    place.steer("down")
    assert "--force" in place.run("restore", file).stderr
    assert "the former state is kept in" in place.steer("restore", "--force", file)
    again = place.up("--runtime", "none")
    assert again.returncode == 0, again.stderr

    found = {row["metadata"]["name"]: row for row in place.get("configmaps")["items"]}
    assert {"kept-0", "kept-1", "kept-2"} <= found.keys() and "later" not in found
    assert found["kept-1"]["metadata"]["uid"] == uid and found["kept-1"]["data"] == {"n": "1"}
    place.steer("create", "configmap", "afterwards")
    assert int(place.get("configmap", "afterwards")["metadata"]["resourceVersion"]) > 1_000_000_000

    place.steer("down")
    damaged = tmp_path / "damaged.backup"
    damaged.write_bytes(Path(file).read_bytes()[:-7000])
    refused = place.run("restore", "--force", str(damaged))
    assert refused.returncode == 1 and "is damaged or was cut off" in refused.stderr
    assert (place.data_dir / "store" / "1" / "member.json").exists(), "nothing was touched"
