"""Every example that the documentation names does what it says."""

import asyncio
from pathlib import Path

import pytest
import yaml

from steersman import testing
from steersman.client import DEPLOYMENTS, JOBS, Resource
from steersman.cluster.config import parse
from steersman.cluster.meta.objects import is_true

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
MANIFESTS = sorted(path.name for path in EXAMPLES.glob("*.yaml") if "apiVersion" in path.read_text())


def applied(name):
    return [tree for tree in yaml.safe_load_all((EXAMPLES / name).read_text()) if tree]


async def apply(client, tree):
    rows = {f"{row.resource.api_version}/{row.resource.kind}": row.resource for row in await client.discover()}
    resource: Resource = rows[f"{tree['apiVersion']}/{tree['kind']}"]
    await client.patch(resource, tree["metadata"]["name"], tree, "default", kind="apply", field_manager="test")


def test_there_are_manifests():
    assert "web.yaml" in MANIFESTS


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_accepted_whole(name):
    with testing.simulation() as cluster:

        async def scenario():
            for tree in applied(name):
                await apply(cluster.client, tree)

        cluster.run(scenario())
        for tree in applied(name):
            assert any(f"/{tree['metadata']['name']} " in line for line in cluster.history)


def test_the_web_example_becomes_available():
    with testing.simulation() as cluster:

        async def scenario():
            for tree in applied("web.yaml"):
                await apply(cluster.client, tree)
            await asyncio.sleep(30)
            return await cluster.client.get(DEPLOYMENTS, "web", "default")

        assert is_true(cluster.run(scenario()), "Available")


def test_the_job_example_runs_every_piece():
    with testing.simulation() as cluster:

        async def scenario():
            for tree in applied("job.yaml"):
                tree["spec"]["template"].setdefault("metadata", {})["annotations"] = {
                    "simulated.steersman/exit-after-s": "2"
                }
                await apply(cluster.client, tree)
            await asyncio.sleep(60)
            return await cluster.client.get(JOBS, "pieces", "default")

        status = cluster.run(scenario())["status"]
        assert status["succeeded"] == 4
        assert status["completedIndexes"] == "0-3"


def test_the_configuration_example_is_valid():
    config = parse((EXAMPLES / "cluster.yaml").read_text())
    assert config.ports.resolved().api == 7403
