"""The node itself: registration, heartbeat, restart of the agent, absence of the API, orphans."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

from steersman.actors.nodeagent import NodeAgent
from steersman.cluster.meta.times import parse_time
from steersman.cluster.node.eviction import Pressure
from steersman.cluster.node.values import ContainerSpec, SandboxSpec

NODE = "/api/v1/nodes/n1"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"


def test_a_node_registers_with_what_it_has(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        node = world.api.objects[NODE]
        assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "n1"
        status = node["status"]
        assert {"type": "InternalIP", "address": "10.0.0.1"} in status["addresses"]
        assert status["capacity"] == {"cpu": "4", "memory": "8Gi", "pods": "20"}
        assert status["nodeInfo"]["containerRuntimeVersion"].startswith("simulated://")
        kinds = {row["type"]: row["status"] for row in status["conditions"]}
        assert kinds == {"MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False", "Ready": "True"}
        assert [row for row in status["images"] if "localhost/web:v1" in row["names"]]

    virtually(scenario)


def test_the_lease_is_renewed_and_the_status_is_left_alone(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        await asyncio.sleep(5)
        world.api.writes.clear()
        await asyncio.sleep(280)
        leases = [path for _, path, _ in world.api.writes if path == LEASE]
        statuses = [path for _, path, _ in world.api.writes if path == f"{NODE}/status"]
        assert 27 <= len(leases) <= 29
        assert len(statuses) <= 1
        assert world.now() - parse_time(world.api.objects[LEASE]["spec"]["renewTime"]) < 11
        await asyncio.sleep(320)
        assert [path for _, path, _ in world.api.writes if path == f"{NODE}/status"]

    virtually(scenario)


def test_a_restarted_agent_adopts_what_runs(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        probe = {"exec": {"command": ["check"]}, "periodSeconds": 10}
        world.create_pod(
            containers=[{"name": "main", "image": "web:1", "readinessProbe": probe, "startupProbe": probe}]
        )
        world.create_pod("job", annotations={"exit-after-s": "1"}, restartPolicy="Never")
        await world.ready()
        await world.until(lambda: world.status("job")["phase"] == "Succeeded")
        await asyncio.sleep(5)
        containers, status = await world.runtime.containers(), world.status()
        world.api.writes.clear()
        await world.restart_agent()
        await asyncio.sleep(120)
        assert await world.runtime.containers() == containers
        assert world.status() == status
        assert not [path for _, path, _ in world.api.writes if "/pods/" in path]
        assert world.status("job")["phase"] == "Succeeded"

    virtually(scenario)


def test_a_container_that_died_while_the_agent_was_away_is_restarted(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod()
        await world.ready()
        await world.agent.stop()
        running = (await world.runtime.containers())[0]
        await world.runtime.stop_container(running.id, 0)
        world.agent = world.new_agent()
        await world.agent.start()
        await world.until(lambda: world.container().get("restartCount") == 1)
        await world.ready()

    virtually(scenario)


def test_containers_run_on_while_the_api_is_away(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(annotations={"exit-after-s": "40"})
        await world.ready()
        first = world.container()["containerID"]
        world.api.go_away()
        await asyncio.sleep(60)
        attempts = [row.attempt for row in await world.runtime.containers()]
        assert max(attempts) == 1
        world.api.down = False
        await world.until(lambda: world.container().get("restartCount") >= 1)
        assert world.container()["containerID"] != first

    virtually(scenario)


def test_an_agent_that_starts_without_api_serves_once_it_is_there(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod()
        await world.ready()
        containers = await world.runtime.containers()
        await world.agent.stop()
        world.api.go_away()
        world.agent = world.new_agent()
        await world.agent.start()
        await asyncio.sleep(30)
        assert not world.agent.serving.is_set()
        world.api.down = False
        await world.agent.serving.wait()
        assert await world.runtime.containers() == containers

    virtually(scenario)


def test_what_belongs_to_no_pod_is_removed(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        spec = SandboxSpec(pod_uid="lost", name="lost", namespace="default", hostname="lost")
        sandbox = await world.runtime.run_sandbox(spec)
        image = await world.runtime.pull("web:1", ())
        container = ContainerSpec(
            pod_uid="lost", pod_name="lost", namespace="default", name="main", image=image.id, image_ref="web:1"
        )
        container_id = await world.runtime.create_container(sandbox.id, container)
        await world.runtime.start_container(container_id)
        await world.volumes.pod_file("lost", "x", b"", 0o644)
        await asyncio.sleep(20)
        assert await world.runtime.containers() == []
        assert await world.runtime.sandboxes() == []
        assert await world.volumes.pods() == []

    virtually(scenario)


def test_a_pod_deleted_while_the_agent_was_away_is_ended(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod()
        world.create_pod("other")
        await world.ready()
        await world.ready("other")
        await world.agent.stop()
        world.api.delete_gracefully("/api/v1/namespaces/default/pods/web")
        world.api.remove("/api/v1/namespaces/default/pods/other")
        world.agent = world.new_agent()
        await world.agent.start()
        await world.until(lambda: not world.exists())
        await asyncio.sleep(15)
        assert await world.runtime.containers() == []

    virtually(scenario)


def test_memory_pressure_evicts_the_pod_that_is_most_over_its_request(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        await world.agent.stop()
        low = Pressure(memory_available_bytes=1 << 20)
        pressures = [Pressure(memory_available_bytes=4 << 30)]
        world.agent = NodeAgent(
            world.client,
            world.runtime,
            world.volumes,
            replace(world.config, relist_s=5),
            now=world.now,
            rng=random.Random(3),
            pressure=lambda: pressures[-1],
        )
        await world.agent.start()
        asked = {"requests": {"memory": "1Gi"}}
        world.create_pod("modest", annotations={"memory": "1000Mi"}, containers=[_main(asked)])
        world.create_pod("greedy", annotations={"memory": "500Mi"})
        await world.ready("modest")
        await world.ready("greedy")
        pressures.append(low)
        await world.until(lambda: world.status("greedy")["phase"] == "Failed")
        pressures.append(Pressure(memory_available_bytes=4 << 30))
        status = world.status("greedy")
        assert status["reason"] == "Evicted"
        assert status["message"].startswith("The node was low on resource: memory. Threshold quantity: 100Mi")
        assert world.condition(world.pod("greedy"), "DisruptionTarget") == "True"
        assert world.is_ready("modest")

    virtually(scenario)


def _main(resources: dict[str, Any]) -> dict[str, Any]:
    return {"name": "main", "image": "web:1", "resources": resources}


def test_pods_wait_for_the_nodes_address_range(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        await world.agent.stop()
        world.api.remove(NODE)
        await world.runtime.purge()
        world.agent = world.new_agent()
        await world.agent.start()
        await world.agent.serving.wait()
        world.create_pod()
        world.create_pod("host", hostNetwork=True)
        await world.ready("host")
        assert world.status("host")["podIP"] == "10.0.0.1"
        assert world.condition(world.api.objects[NODE], "Ready") == "False"
        assert not world.is_ready()
        world.api.put(NODE, {**world.api.objects[NODE], "spec": {"podCIDR": "10.2.0.0/24"}})
        await world.ready()
        assert world.status()["podIP"].startswith("10.2.0.")

    virtually(scenario)
