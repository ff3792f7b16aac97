"""What a pod asks for, and which pods are equal."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.sched.pods import effective_requests


def container(cpu: str, **more: Any) -> dict[str, Any]:
    return {"name": "c", "resources": {"requests": {"cpu": cpu}}, **more}


@pytest.mark.parametrize(
    ("spec", "cpu_milli"),
    [
        pytest.param({"containers": [container("100m"), container("200m")]}, 300, id="containers add up"),
        pytest.param({"initContainers": [container("1")], "containers": [container("100m")]}, 1000, id="init peak"),
        pytest.param(
            {"initContainers": [container("1", restartPolicy="Always")], "containers": [container("100m")]},
            1100,
            id="a sidecar adds",
        ),
        pytest.param(
            {
                "initContainers": [container("300m", restartPolicy="Always"), container("1")],
                "containers": [container("100m")],
            },
            1300,
            id="an init container beside a sidecar",
        ),
        pytest.param({"containers": [container("100m")], "overhead": {"cpu": "50m"}}, 150, id="overhead"),
        pytest.param(
            {"containers": [container("100m")], "resources": {"requests": {"cpu": "2"}}},
            2000,
            id="the pod's own figure",
        ),
    ],
)
def test_requests_are_the_most_needed_at_once(spec: dict[str, Any], cpu_milli: int) -> None:
    assert effective_requests(spec)["cpu"] == cpu_milli


def test_equal_pods_share_a_class_and_different_ones_do_not(world: Any) -> None:
    one, two = world.pod("a", cpu="1", labels={"x": "1"}), world.pod("b", cpu="1", labels={"x": "1"})
    assert one.pod_class is two.pod_class
    for other in (
        world.pod("c", cpu="2", labels={"x": "1"}),
        world.pod("d", cpu="1", labels={"x": "2"}),
        world.pod("e", cpu="1", labels={"x": "1"}, namespace="other"),
        world.pod("f", cpu="1", labels={"x": "1"}, nodeSelector={"a": "b"}),
    ):
        assert other.pod_class is not one.pod_class
