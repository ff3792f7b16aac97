"""Pods on a node: started, restarted, probed, ended; the runtime is simulated and so is time."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any


def test_a_pod_runs_and_says_so(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod()
        await world.ready()
        status = world.status()
        assert status["phase"] == "Running"
        assert status["podIP"].startswith("10.1.0.")
        assert status["podIPs"] == [{"ip": status["podIP"]}]
        assert status["hostIP"] == "10.0.0.1"
        assert status["qosClass"] == "BestEffort"
        row = world.container()
        assert (row["ready"], row["started"], row["restartCount"]) == (True, True, 0)
        assert row["containerID"].startswith("simulated://")
        reasons = ["Pulling", "Pulled", "Created", "Started"]
        await world.until(lambda: world.api.events("Started"))
        assert [reason for reason in reasons if world.api.events(reason)] == reasons
        assert world.api.events("Started") == ["Container started"]

    virtually(scenario)


def test_a_quick_start_costs_one_status_write(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod()
        await world.ready()
        await asyncio.sleep(60)
        writes = [body for method, path, body in world.api.writes if method == "PATCH" and path.endswith("/web/status")]
        assert len(writes) == 1, writes

    virtually(scenario)


def test_a_crashing_container_backs_off_longer_and_longer(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(annotations={"exit-after-s": "1", "exit-code": "3"})
        starts: list[float] = []
        seen: set[str] = set()
        while len(starts) < 8:
            row = world.container()
            if "running" in (row.get("state") or {}) and row["containerID"] not in seen:
                seen.add(row["containerID"])
                starts.append(world.now())
            await asyncio.sleep(0.05)
        pauses = [round(later - earlier) for earlier, later in itertools.pairwise(starts)]
        assert pauses == [1, 11, 21, 41, 81, 161, 301]
        await world.until(lambda: world.state() == "CrashLoopBackOff")
        row = world.container()
        assert row["restartCount"] == 7
        assert row["lastState"]["terminated"]["exitCode"] == 3
        assert row["lastState"]["terminated"]["reason"] == "Error"
        assert row["state"]["waiting"]["message"].startswith(
            "back-off 5m0s restarting failed container=main pod=web_default("
        )
        assert world.status()["phase"] == "Running"
        assert world.condition(world.pod(), "Ready") == "False"
        assert any("Back-off restarting failed container main" in text for text in world.api.events("BackOff"))

    virtually(scenario)


def test_a_pod_that_completes_succeeds_and_keeps_its_log(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(annotations={"exit-after-s": "5"}, restartPolicy="Never")
        await world.until(lambda: world.status()["phase"] == "Succeeded")
        await asyncio.sleep(30)
        assert world.container()["state"]["terminated"]["reason"] == "Completed"
        assert world.condition(world.pod(), "Ready") == "False"
        assert not [row for row in await world.runtime.sandboxes() if row.ready]
        assert len(await world.runtime.containers()) == 1

    virtually(scenario)


def test_a_failed_pod_is_not_restarted_when_its_policy_is_never(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(annotations={"exit-after-s": "1", "exit-code": "2"}, restartPolicy="Never")
        await world.until(lambda: world.status()["phase"] == "Failed")
        await asyncio.sleep(600)
        assert world.container()["restartCount"] == 0
        assert world.container()["state"]["terminated"]["exitCode"] == 2

    virtually(scenario)


def test_on_failure_restarts_until_success(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(annotations={"exit-after-s": "1", "exit-code": "1"}, restartPolicy="OnFailure")
        await world.until(lambda: world.container().get("restartCount") == 2)
        assert world.status()["phase"] in ("Running",)

    virtually(scenario)


def test_init_containers_run_in_order_before_the_main_ones(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(
            annotations={"first.exit-after-s": "10", "second.exit-after-s": "10"},
            initContainers=[{"name": "first", "image": "i:1"}, {"name": "second", "image": "i:1"}],
        )
        await world.until(lambda: world.state("first") == "running")
        assert world.state("second") == world.state("main") == "PodInitializing"
        assert world.condition(world.pod(), "Initialized") == "False"
        await world.until(lambda: world.state("second") == "running")
        assert world.container("first")["state"]["terminated"]["exitCode"] == 0
        assert world.container("first")["ready"]
        assert world.state("main") == "PodInitializing"
        assert world.status()["phase"] == "Pending"
        await world.ready()
        assert world.condition(world.pod(), "Initialized") == "True"

    virtually(scenario)


def test_a_failing_init_container_is_retried_and_blocks_the_pod(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(
            annotations={"first.exit-after-s": "1", "first.exit-code": "1"},
            initContainers=[{"name": "first", "image": "i:1"}],
        )
        await world.until(lambda: world.state("first") == "CrashLoopBackOff")
        assert world.status()["phase"] == "Pending"
        assert world.state("main") == "PodInitializing"

    virtually(scenario)


def test_a_failing_init_container_fails_a_pod_that_never_restarts(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(
            annotations={"first.exit-after-s": "1", "first.exit-code": "1"},
            initContainers=[{"name": "first", "image": "i:1"}],
            restartPolicy="Never",
        )
        await world.until(lambda: world.status()["phase"] == "Failed")
        assert world.state("main") == "PodInitializing"

    virtually(scenario)


def test_sidecars_start_first_and_stop_last(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        sidecar = {"image": "s:1", "restartPolicy": "Always"}
        world.create_pod(
            annotations={
                "main.stop-after-s": "3",
                "one.stop-after-s": "2",
                "two.ready-after-s": "8",
                "two.stop-after-s": "1",
            },
            initContainers=[
                {"name": "one", **sidecar},
                {"name": "two", **sidecar, "startupProbe": {"exec": {"command": ["true"]}, "periodSeconds": 5}},
            ],
        )
        await world.until(lambda: world.state("two") == "running")
        assert world.state("main") == "PodInitializing"
        await world.ready()
        world.api.delete_gracefully("/api/v1/namespaces/default/pods/web")
        ended: dict[str, float] = {}
        while world.exists():
            for row in await world.runtime.containers():
                if row.finished_at:
                    ended.setdefault(row.name, row.finished_at)
            await asyncio.sleep(0.1)
        assert ended["main"] < ended["two"] < ended["one"]

    virtually(scenario)


def test_a_job_with_a_sidecar_ends_when_its_main_container_ends(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(
            annotations={"main.exit-after-s": "5"},
            initContainers=[{"name": "side", "image": "s:1", "restartPolicy": "Always"}],
            restartPolicy="Never",
        )
        await world.until(lambda: world.status()["phase"] == "Succeeded", 60)
        assert "terminated" in world.container("side")["state"]

    virtually(scenario)


def test_readiness_follows_its_probe(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        probe = {"httpGet": {"port": 80, "path": "/"}, "periodSeconds": 5}
        world.create_pod(
            annotations={"ready-after-s": "12"},
            containers=[{"name": "main", "image": "web:1", "readinessProbe": probe}],
        )
        await world.until(lambda: world.state() == "running")
        assert not world.is_ready()
        began = world.now()
        await world.ready()
        assert 10 <= world.now() - began <= 18
        assert world.container()["restartCount"] == 0
        assert any(text.startswith("Readiness probe failed: ") for text in world.api.events("Unhealthy"))

    virtually(scenario)


def test_a_failed_liveness_probe_restarts_the_container(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        probe = {"exec": {"command": ["check"]}, "periodSeconds": 2, "failureThreshold": 3}
        world.create_pod(
            annotations={"fail-probe": "yes"}, containers=[{"name": "main", "image": "web:1", "livenessProbe": probe}]
        )
        await world.until(lambda: world.container().get("restartCount") == 1, 60)
        assert "Container main failed liveness probe, will be restarted" in world.api.events("Killing")

    virtually(scenario)


def test_a_startup_probe_holds_the_others_back(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        liveness = {"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1}
        startup = {"exec": {"command": ["check"]}, "periodSeconds": 5, "failureThreshold": 10}
        world.create_pod(
            annotations={"ready-after-s": "22"},
            containers=[{"name": "main", "image": "web:1", "livenessProbe": liveness, "startupProbe": startup}],
        )
        await world.until(lambda: world.state() == "running")
        assert world.container()["started"] is False
        await world.ready()
        assert world.container()["started"] is True
        await asyncio.sleep(60)
        assert world.container()["restartCount"] == 0

    virtually(scenario)


def test_deletion_runs_pre_stop_and_keeps_to_the_grace(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        lifecycle = {"preStop": {"sleep": {"seconds": 5}}}
        world.create_pod(
            annotations={"stop-after-s": "3600"},
            containers=[{"name": "main", "image": "web:1", "lifecycle": lifecycle}],
        )
        await world.ready()
        began = world.now()
        world.api.delete_gracefully("/api/v1/namespaces/default/pods/web", 20)
        finals: list[Any] = []
        while world.exists():
            finals.append(world.status())
            await asyncio.sleep(0.05)
        assert 19.5 <= world.now() - began <= 22
        assert "Stopping container main" in world.api.events("Killing")
        assert await world.runtime.sandboxes() == []
        assert await world.volumes.pods() == []
        patches = [body for method, path, body in world.api.writes if path.endswith("web/status")]
        assert patches[-1]["status"]["phase"] == "Failed"
        assert patches[-1]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137

    virtually(scenario)


def test_a_shorter_grace_cuts_a_running_deletion_short(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(annotations={"stop-after-s": "3600"})
        await world.ready()
        world.api.delete_gracefully("/api/v1/namespaces/default/pods/web", 600)
        await asyncio.sleep(10)
        assert world.exists()
        world.api.delete_gracefully("/api/v1/namespaces/default/pods/web", 0)
        await world.until(lambda: not world.exists(), 5)

    virtually(scenario)


def test_a_pod_removed_by_force_is_stopped_all_the_same(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod()
        await world.ready()
        world.api.remove("/api/v1/namespaces/default/pods/web")
        await asyncio.sleep(5)
        assert await world.runtime.containers() == []
        assert await world.runtime.sandboxes() == []

    virtually(scenario)


def test_a_pod_of_the_same_name_replaces_one_that_is_gone(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod()
        await world.ready()
        first = world.pod()["metadata"]["uid"]
        world.api.remove("/api/v1/namespaces/default/pods/web")
        world.create_pod()
        await world.ready()
        await asyncio.sleep(5)
        assert {row.pod_uid for row in await world.runtime.containers()} == {world.pod()["metadata"]["uid"]} != {first}

    virtually(scenario)


def test_an_active_deadline_ends_the_pod(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(activeDeadlineSeconds=60)
        await world.ready()
        await world.until(lambda: world.status()["phase"] == "Failed", 90)
        assert world.status()["reason"] == "DeadlineExceeded"
        assert world.event_count("Pod was active on the node longer than the specified deadline") == 1
        assert not [row for row in await world.runtime.sandboxes() if row.ready]

    virtually(scenario)


def test_a_missing_image_is_told_and_tried_again(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(containers=[{"name": "main", "image": "nowhere:1"}])
        await world.until(lambda: world.state() == "ErrImagePull")
        await world.until(lambda: world.state() == "ImagePullBackOff")
        assert 'Back-off pulling image "nowhere:1"' in world.container()["state"]["waiting"]["message"]
        assert world.status()["phase"] == "Pending"
        await asyncio.sleep(65)
        assert world.event_count("Failed to pull image") >= 3
        world.runtime._missing.clear()
        await world.ready()

    virtually(scenario, missing_images=["nowhere:1"])


def test_a_never_pulled_image_is_not_pulled(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(containers=[{"name": "main", "image": "absent:1", "imagePullPolicy": "Never"}])
        await world.until(lambda: world.state() == "ErrImageNeverPull")
        await world.until(lambda: world.event_count("Error: ErrImageNeverPull") >= 2)
        assert 'Container image "absent:1" is not present with pull policy of Never' in world.api.events(
            "ErrImageNeverPull"
        )
        assert world.api.events("BackOff") == []

    virtually(scenario)


def test_a_missing_config_map_holds_the_container_until_it_is_there(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        env = [{"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}}]
        world.create_pod(containers=[{"name": "main", "image": "web:1", "env": env}])
        await world.until(lambda: world.state() == "CreateContainerConfigError")
        assert world.container()["state"]["waiting"]["message"] == 'configmap "settings" not found'
        path = "/api/v1/namespaces/default/configmaps/settings"
        world.api.put(path, {"metadata": {"name": "settings"}, "data": {"colour": "blue"}})
        await world.ready()
        container = next(iter(world.runtime._containers.values()))
        assert dict(container.spec.env)["COLOUR"] == "blue"
        assert dict(container.spec.env)["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"

    virtually(scenario)


def test_mounted_configuration_follows_the_api(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        path = "/api/v1/namespaces/default/configmaps/settings"
        world.api.put(path, {"metadata": {"name": "settings"}, "data": {"colour": "blue"}})
        world.create_pod(
            volumes=[{"name": "settings", "configMap": {"name": "settings"}}],
            containers=[
                {
                    "name": "main",
                    "image": "web:1",
                    "volumeMounts": [{"name": "settings", "mountPath": "/etc/settings"}],
                }
            ],
        )
        await world.ready()
        uid = world.pod()["metadata"]["uid"]
        shown = f"/simulated/{uid}/payload/settings"
        assert world.volumes.contents[uid][shown] == {"colour": (b"blue", 0o644)}
        world.api.put(path, {**world.api.objects[path], "data": {"colour": "red"}})
        await asyncio.sleep(70)
        assert world.volumes.contents[uid][shown] == {"colour": (b"red", 0o644)}
        mount = next(iter(world.runtime._containers.values())).spec.mounts[0]
        assert (mount.container_path, mount.read_only) == ("/etc/settings", True)

    virtually(scenario)


def test_a_missing_secret_volume_is_told_and_mounted_later(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(volumes=[{"name": "key", "secret": {"secretName": "key"}}])
        await world.until(lambda: world.api.events("FailedMount"))
        assert world.api.events("FailedMount") == ['MountVolume.SetUp failed for volume "key" : secret "key" not found']
        await world.until(lambda: world.state() == "ContainerCreating", 5)
        world.api.put("/api/v1/namespaces/default/secrets/key", {"metadata": {"name": "key"}, "data": {"a": "eHk="}})
        await world.ready()

    virtually(scenario)


def test_tokens_are_renewed_before_they_expire(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}
        world.create_pod(volumes=[{"name": "access", "projected": {"sources": [token]}}])
        await world.ready()
        uid = world.pod()["metadata"]["uid"]
        shown = f"/simulated/{uid}/payload/access"
        first = world.volumes.contents[uid][shown]["token"][0]
        await asyncio.sleep(590)
        assert world.volumes.contents[uid][shown]["token"][0] != first

    virtually(scenario)


def test_a_container_that_cannot_start_shows_why(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(annotations={"fail-start": "no such file"})
        await world.until(lambda: world.state() == "RunContainerError")
        assert world.container()["state"]["waiting"]["message"] == "no such file"
        await world.until(lambda: world.state() == "CrashLoopBackOff")
        await world.until(lambda: world.container()["restartCount"] >= 2)

    virtually(scenario)


def test_a_changed_image_restarts_only_its_container(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(containers=[{"name": "main", "image": "web:1"}, {"name": "other", "image": "web:1"}])
        await world.ready()
        other = world.container("other")["containerID"]
        pod = world.pod()
        containers = [{"name": "main", "image": "web:2"}, {"name": "other", "image": "web:1"}]
        world.api.put("/api/v1/namespaces/default/pods/web", {**pod, "spec": {**pod["spec"], "containers": containers}})
        await world.until(lambda: world.container().get("restartCount") == 1)
        assert world.container("other")["containerID"] == other
        assert "Container main definition changed, will be restarted" in world.api.events("Killing")

    virtually(scenario)


def test_a_pod_that_does_not_fit_fails_at_the_door(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        big = {"requests": {"cpu": "3"}}
        world.create_pod("one", containers=[{"name": "main", "image": "web:1", "resources": big}])
        await world.ready("one")
        world.create_pod("two", containers=[{"name": "main", "image": "web:1", "resources": big}])
        await world.until(lambda: world.status("two")["phase"] == "Failed")
        assert world.status("two")["reason"] == "OutOfcpu"
        assert world.status("two")["message"] == (
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 3000, used: 3000, capacity: 4000"
        )
        assert len(await world.runtime.sandboxes()) == 1

    virtually(scenario)


def test_a_pod_that_has_ended_leaves_its_room_to_others(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        containers = [{"name": "main", "image": "web:1", "resources": {"requests": {"cpu": "3"}}}]
        world.create_pod("one", annotations={"exit-after-s": "1"}, restartPolicy="Never", containers=containers)
        await world.until(lambda: world.status("one")["phase"] == "Succeeded")
        world.create_pod("two", containers=containers)
        await world.ready("two")

    virtually(scenario)


def test_a_lost_sandbox_is_replaced(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod()
        await world.ready()
        sandbox = (await world.runtime.sandboxes())[0]
        await world.runtime.stop_sandbox(sandbox.id)
        await world.until(lambda: world.container().get("restartCount") == 1)
        await world.ready()
        ready = [row for row in await world.runtime.sandboxes() if row.ready]
        assert [row.attempt for row in ready] == [1]
        assert world.api.events("SandboxChanged")

    virtually(scenario)


def test_readiness_gates_are_waited_for(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(readinessGates=[{"conditionType": "example.com/load-balancer"}])
        await world.until(lambda: world.condition(world.pod(), "ContainersReady") == "True")
        assert world.condition(world.pod(), "Ready") == "False"
        pod = world.pod()
        row = {"type": "example.com/load-balancer", "status": "True"}
        status = {**pod["status"], "conditions": [*pod["status"]["conditions"], row]}
        world.api.put("/api/v1/namespaces/default/pods/web", {**pod, "status": status})
        await world.ready()
        assert world.condition(world.pod(), "example.com/load-balancer") == "True"

    virtually(scenario)


def test_old_generations_are_cleaned_up(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        world.create_pod(annotations={"exit-after-s": "1"})
        await world.until(lambda: world.container().get("restartCount") == 5)
        await asyncio.sleep(20)
        attempts = sorted(row.attempt for row in await world.runtime.containers())
        assert attempts[-2:] == attempts == [4, 5]

    virtually(scenario)
