"""Clusters inside tests: quick, several at once, on a fixture, and repeatable under virtual time."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from steersman import testing
from steersman.cluster.meta.resources import CONFIG_MAPS, NAMESPACES, NODES, PODS, Resource

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "one", "namespace": "default"},
    "spec": {"containers": [{"name": "c", "image": "example.org/c"}]},
}


def test_a_cluster_is_ready_within_two_seconds_with_all_its_nodes():
    begun = time.process_time()
    with testing.cluster(nodes=3) as c:
        took_s = time.process_time() - begun
        nodes = c.run(c.client.list(NODES)).items
    assert [node["metadata"]["name"] for node in nodes] == ["node-0", "node-1", "node-2"]
    assert not any(node["spec"].get("taints") for node in nodes)
    assert took_s < 2.0


def test_several_clusters_live_side_by_side():
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}}
    with testing.cluster() as first, testing.cluster() as second:
        first.run(first.client.create(CONFIG_MAPS, config_map, "default"))
        names = [
            [row["metadata"]["name"] for row in c.run(c.client.list(CONFIG_MAPS, "default")).items]
            for c in (first, second)
        ]
        assert "mine" in names[0] and "mine" not in names[1]
        assert first.kubeconfig.exists() and first.kubeconfig != second.kubeconfig
        directory = first.kubeconfig.parent
    assert not directory.exists()


def test_a_pod_runs_on_it(cluster):
    async def until_running() -> str:
        await cluster.client.create(PODS, POD, "default")
        async for _, pod in cluster.client.watch(PODS, "default", field_selector="metadata.name=one"):
            if pod.get("status", {}).get("phase") == "Running":
                return str(pod["spec"]["nodeName"])
        return ""

    assert cluster.run(until_running()) == "node-0"
    assert any("/registry/core/pods/default/one" in line for line in cluster.history)


def test_its_components_are_well_though_they_need_no_leases(cluster):
    statuses = Resource("", "v1", "componentstatuses", "ComponentStatus", namespaced=False)
    found = cluster.run(cluster.client.list(statuses)).items
    said = {row["metadata"]["name"]: row["conditions"][0]["status"] for row in found}
    assert said == {"controller-manager": "True", "etcd-0": "True", "scheduler": "True"}


def test_the_fixture_is_found_by_any_project(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "from steersman.cluster.meta.resources import NAMESPACES\n"
        "def test_it(cluster):\n"
        "    rows = cluster.run(cluster.client.list(NAMESPACES)).items\n"
        "    assert 'kube-system' in [row['metadata']['name'] for row in rows]\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "1 passed" in run.stdout, run.stdout + run.stderr


def test_a_simulated_cluster_has_no_kubeconfig_and_needs_no_time():
    with testing.simulation(nodes=2, seed=3) as c:
        names = [row["metadata"]["name"] for row in c.run(c.client.list(NAMESPACES)).items]
        assert "default" in names
        with pytest.raises(RuntimeError, match="listens on no socket"):
            _ = c.kubeconfig


def test_an_error_inside_a_simulation_is_the_only_one_told(capsys):
    with pytest.raises(ZeroDivisionError), testing.simulation():
        _ = 1 / 0
    assert "never retrieved" not in capsys.readouterr().err
