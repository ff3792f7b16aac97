"""What `steer up` finds out before it starts anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from steersman.actors import bringup, ranges
from steersman.cluster.config import ClusterConfig, render


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterConfig]:
    """Of a cluster that has its address ranges, as one that runs has."""
    monkeypatch.setattr(ranges, "_is_routed", lambda network: False)
    monkeypatch.setattr(ranges, "_held", [])
    yield ClusterConfig(data_dir=str(tmp_path / "data"), embedded=True)
    for holder in ranges._held:
        holder.close()


def test_a_cluster_that_runs_is_not_taken_for_another_one(config: ClusterConfig) -> None:
    first = bringup.prepare(config)
    (first.data_dir / "config.yaml").write_text(render(first.config))
    lock = bringup.lock(first)
    assert lock is not None and bringup.has_keeper(first.data_dir)
    again = bringup.prepare(config)
    assert again.config.networking == first.config.networking
    assert bringup.lock(again) is None, "its keeper has it"
    lock.close()
    assert not bringup.has_keeper(first.data_dir)
    with pytest.raises(bringup.BringUpFailed, match="another cluster on this machine uses"):
        bringup.prepare(config)


def test_what_another_version_recorded_is_read_as_far_as_it_is_understood(config: ClusterConfig) -> None:
    site = bringup.prepare(config)
    bringup.write_site(site)
    path = site.run / "site.json"
    tree = json.loads(path.read_text())
    tree["config"]["control_plane"]["gone"] = True
    path.write_text(json.dumps(tree))
    assert bringup.read_site(site.data_dir).config == site.config
    tree["config"]["control_plane"]["replicas"] = "many"
    path.write_text(json.dumps(tree))
    with pytest.raises(bringup.BringUpFailed, match="another version of Steersman"):
        bringup.read_site(site.data_dir)
