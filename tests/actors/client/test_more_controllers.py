from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from steersman.actors.controllers import ControllerHost
from steersman.cluster.control import CONTROLLERS
from steersman.cluster.control.nodelifecycle import UNREACHABLE
from steersman.cluster.control.spec import ControlSettings
from steersman.cluster.meta.errors import NotFound
from steersman.cluster.meta.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    JOBS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from steersman.cluster.meta.times import format_time


def host_of(world: Any, *names: str, **options: Any) -> ControllerHost:
    return ControllerHost(world.client, names, now=world.now, rng=world.rng, **options)


def job(name: str = "work", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "parallelism": 3,
            "completions": 10,
            "backoffLimit": 6,
            "selector": {"matchLabels": {"job-name": name}},
            "template": {
                "metadata": {"labels": {"job-name": name}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]},
            },
            **spec,
        },
    }


async def run_pods(world: Any, rng: random.Random, failing: float = 0.0) -> None:
    """Ends every pod after a while, some in failure; deleted ones end at once."""
    while True:
        for pod in world.api.of(PODS):
            phase = (pod.get("status") or {}).get("phase", "")
            if pod["metadata"].get("deletionTimestamp"):
                if phase not in ("Succeeded", "Failed"):
                    world.api.set_status(PODS, pod, {"phase": "Failed"})
                else:
                    world.api.delete(PODS, "default", pod["metadata"]["name"], {"gracePeriodSeconds": 0})
            elif phase == "" and rng.random() < 0.3:
                failed = rng.random() < failing
                ended = {"exitCode": int(failed), "finishedAt": format_time(world.now())}
                status = {
                    "phase": "Failed" if failed else "Succeeded",
                    "containerStatuses": [{"name": "c", "state": {"terminated": ended}}],
                }
                world.api.set_status(PODS, pod, status)
        await asyncio.sleep(0.3)


def conditions(obj: dict[str, Any]) -> dict[str, str]:
    return {
        row["type"]: row.get("reason", "") for row in obj["status"].get("conditions", ()) if row["status"] == "True"
    }


@pytest.mark.parametrize("mode", ["NonIndexed", "Indexed"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_job_counts_each_pod_once_though_answers_are_lost(virtually: Any, mode: str, seed: int) -> None:
    async def scenario(world: Any) -> None:
        from steersman.actors.http.messages import Request, Response
        from steersman.cluster.meta.errors import ServerTimeout

        chance = random.Random(seed)

        def lose(request: Request) -> Response | None:
            if request.method in ("POST", "PATCH") and "/events" not in request.target and chance.random() < 0.2:
                if chance.random() < 0.5:
                    world.api._route(request)
                raise ServerTimeout("the answer was lost")
            return None

        world.api.hooks.append(lose)
        host = host_of(world, "job")
        await host.start()
        running = asyncio.create_task(run_pods(world, random.Random(seed), failing=0.15))
        most = 0

        def done() -> bool:
            nonlocal most
            found = world.api.of(JOBS)[0]
            active = [pod for pod in world.api.of(PODS) if not (pod.get("status") or {}).get("phase")]
            most = max(most, len(active))
            return "Complete" in conditions(found) if found.get("status") else False

        world.api.create(JOBS, job(completionMode=mode, backoffLimit=60))
        await world.until(done, within_s=3600)
        status = world.api.of(JOBS)[0]["status"]
        pods = world.api.of(PODS)
        assert status["succeeded"] == len([1 for pod in pods if pod["status"]["phase"] == "Succeeded"]) == 10
        assert status.get("failed", 0) == len([1 for pod in pods if pod["status"]["phase"] == "Failed"])
        assert status["uncountedTerminatedPods"] == {}
        assert not any(pod["metadata"].get("finalizers") for pod in pods)
        assert conditions(world.api.of(JOBS)[0]) == {
            "SuccessCriteriaMet": "CompletionsReached",
            "Complete": "CompletionsReached",
        }
        if mode == "Indexed":
            assert status["completedIndexes"] == "0-9"
        assert most <= 3
        assert host.bugs == []
        running.cancel()
        await host.stop()

    virtually(scenario)


def test_a_job_that_always_fails_stops_at_its_limit_with_growing_pauses(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        host = host_of(world, "job")
        await host.start()
        running = asyncio.create_task(run_pods(world, random.Random(1), failing=1.0))
        started = world.loop.time()
        world.api.create(JOBS, job(parallelism=1, completions=1, backoffLimit=3))
        await world.until(lambda: "Failed" in conditions({"status": {}, **world.api.of(JOBS)[0]}), within_s=3600)
        live = world.api.of(JOBS)[0]
        assert live["status"]["failed"] == 4
        assert conditions(live)["Failed"] == "BackoffLimitExceeded"
        assert 10 + 20 + 40 <= world.loop.time() - started < 120
        running.cancel()
        await host.stop()

    virtually(scenario)


def test_a_suspended_job_runs_nothing_and_goes_on_when_resumed(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        host = host_of(world, "job")
        await host.start()
        world.api.create(JOBS, job(suspend=True))
        await asyncio.sleep(5)
        assert world.api.of(PODS) == []
        assert conditions(world.api.of(JOBS)[0]) == {"Suspended": "JobSuspended"}
        live = world.api.of(JOBS)[0]
        world.api.update(JOBS, {**live, "spec": {**live["spec"], "suspend": False}})
        await world.until(lambda: len(world.api.of(PODS)) == 3)
        await host.stop()

    virtually(scenario)


def test_the_pods_of_a_job_that_is_deleted_go_with_it(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        host = host_of(world, "job", "garbagecollector")
        await host.start()
        world.api.create(JOBS, job())
        await world.until(lambda: len(world.api.of(PODS)) == 3)
        world.api.delete(JOBS, "default", "work", {"propagationPolicy": "Background"})
        await world.until(lambda: not world.api.of(JOBS) and not world.api.of(PODS), within_s=60)
        await host.stop()

    virtually(scenario)


def pod(name: str, ip: str, ready: bool = True, **meta: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}, **meta},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"app": "web"},
            "clusterIP": "10.96.0.7",
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
            **spec,
        },
    }


def test_slices_and_endpoints_follow_the_pods(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        host = host_of(world, "endpointslice", "endpoints")
        await host.start()
        world.api.create(SERVICES, service())
        await world.until(lambda: len(world.api.of(ENDPOINT_SLICES)) == 1)
        assert world.api.of(ENDPOINT_SLICES)[0]["endpoints"] == []
        for number in range(250):
            world.api.create(PODS, pod(f"p{number}", f"10.0.{number // 100}.{number % 100}", ready=number != 0))

        def held() -> int:
            return sum(len(found["endpoints"]) for found in world.api.of(ENDPOINT_SLICES))

        await world.until(lambda: held() == 250)
        assert sorted(len(found["endpoints"]) for found in world.api.of(ENDPOINT_SLICES)) == [50, 100, 100]
        rows = [row for found in world.api.of(ENDPOINT_SLICES) for row in found["endpoints"]]
        assert [row["targetRef"]["name"] for row in rows if not row["conditions"]["ready"]] == ["p0"]
        assert world.api.of(ENDPOINT_SLICES)[0]["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
        classic = world.api.of(ENDPOINTS)[0]["subsets"]
        assert len(classic[0]["addresses"]) == 249
        assert [row["targetRef"]["name"] for row in classic[0]["notReadyAddresses"]] == ["p0"]
        before = world.api.revision
        for number in range(250):
            world.api.delete(PODS, "default", f"p{number}", {"gracePeriodSeconds": 0})
        await world.until(lambda: held() == 0)
        await asyncio.sleep(2)
        assert len(world.api.of(ENDPOINT_SLICES)) == 1
        assert world.api.revision > before
        assert host.bugs == []
        await host.stop()

    virtually(scenario)


def owned(name: str, owner: dict[str, Any], resource: Resource, **meta: Any) -> dict[str, Any]:
    reference = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {"metadata": {"name": name, "namespace": "default", "ownerReferences": [reference], **meta}, "spec": {}}


def family(world: Any) -> dict[str, Any]:
    """A Deployment, its ReplicaSet, two pods of it, and a custom object that a pod owns."""
    api = world.api
    parent = api.create(DEPLOYMENTS, {"metadata": {"name": "d", "namespace": "default"}, "spec": {}})
    middle = api.create(REPLICA_SETS, owned("r", parent, DEPLOYMENTS))
    children = [api.create(PODS, owned(f"p{number}", middle, REPLICA_SETS)) for number in range(2)]
    widgets = Resource("example.com", "v1", "widgets", "Widget")
    api.extra[widgets.group, widgets.version, widgets.plural] = widgets
    api.create(widgets, owned("w", children[0], PODS))
    return {"widgets": widgets}


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_what_owners_leave_behind_is_removed(virtually: Any, policy: str) -> None:
    async def scenario(world: Any) -> None:
        widgets = family(world)["widgets"]
        host = host_of(world, "garbagecollector")
        await host.start()
        await host.ready()
        await asyncio.sleep(1)
        assert len(world.api.of(PODS)) == 2
        world.api.delete(DEPLOYMENTS, "default", "d", {"propagationPolicy": policy})
        everything = (DEPLOYMENTS, REPLICA_SETS, PODS, widgets)
        await world.until(lambda: not any(world.api.of(resource) for resource in everything))
        if policy == "Foreground":
            ends = [kind for _, kind, change, _ in world.api.log if change == "DELETED"]
            assert ends.index("deployments.apps") > ends.index("replicasets.apps") > ends.index("pods")
        assert host.bugs == []
        await host.stop()

    virtually(scenario)


def test_orphans_stay_without_their_owner(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        family(world)
        host = host_of(world, "garbagecollector")
        await host.start()
        await host.ready()
        world.api.delete(DEPLOYMENTS, "default", "d", {"propagationPolicy": "Orphan"})
        await world.until(lambda: not world.api.of(DEPLOYMENTS))
        await asyncio.sleep(5)
        assert world.api.of(REPLICA_SETS)[0]["metadata"].get("ownerReferences", []) == []
        assert len(world.api.of(PODS)) == 2
        await host.stop()

    virtually(scenario)


def test_a_namespace_goes_with_everything_in_it(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        api = world.api
        settings = ControlSettings(root_ca="PEM")
        host = host_of(world, "namespace", "serviceaccount", "root-ca", settings=settings)
        await host.start()
        api.create(NAMESPACES, {"metadata": {"name": "team"}, "spec": {"finalizers": ["kubernetes"]}})
        await world.until(lambda: bool(api.of(SERVICE_ACCOUNTS, "team") and api.of(CONFIG_MAPS, "team")))
        assert api.of(CONFIG_MAPS, "team")[0]["data"] == {"ca.crt": "PEM"}
        held = {"metadata": {"name": "held", "namespace": "team", "finalizers": ["example.com/x"]}}
        api.create(CONFIG_MAPS, held)
        for number in range(3):
            api.create(PODS, {"metadata": {"name": f"p{number}", "namespace": "team"}, "spec": {}})
        api.delete(NAMESPACES, "", "team")
        await world.until(lambda: not api.of(PODS, "team") and len(api.of(CONFIG_MAPS, "team")) == 1)
        await asyncio.sleep(2)
        live = api.of(NAMESPACES)[0]
        assert conditions(live)["NamespaceFinalizersRemaining"] == "SomeFinalizersRemain"
        assert "configmaps" in str(live["status"]["conditions"])
        held = api.of(CONFIG_MAPS, "team")[0]
        api.update(CONFIG_MAPS, {**held, "metadata": {**held["metadata"], "finalizers": []}})
        await world.until(lambda: not api.of(NAMESPACES))
        assert not [key for key in api.objects if key[1] == "team"]
        with pytest.raises(NotFound):
            await world.client.get(NAMESPACES, "team")
        assert host.bugs == []
        await host.stop()

    virtually(scenario)


def node(name: str, ready: bool = True) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def test_a_silent_node_is_tainted_and_its_pods_leave_when_their_patience_ends(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        api = world.api
        host = host_of(world, "nodelifecycle", "nodeipam")
        await host.start()

        beats = []
        for name, until in (("n1", 100.0), ("n2", 1000.0)):
            api.create(NODES, node(name))
            api.create(LEASES, {"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": {}})
            beats.append(asyncio.create_task(beat(world, name, until)))
        patient = pod("patient", "10.0.0.1")
        patient["spec"]["tolerations"] = [
            {"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
        ]
        api.create(PODS, patient)
        api.create(PODS, pod("hasty", "10.0.0.2"))
        await asyncio.sleep(5)
        cidrs = [found["spec"]["podCIDR"] for found in api.of(NODES)]
        assert cidrs == ["10.244.0.0/24", "10.244.1.0/24"]

        def deleting() -> set[str]:
            return {row["metadata"]["name"] for row in api.of(PODS) if row["metadata"].get("deletionTimestamp")}

        await world.until(lambda: deleting() == {"hasty"}, within_s=160)
        assert 140 <= world.loop.time() <= 145
        silent = api.of(NODES)[0]
        assert silent["status"]["conditions"][0]["reason"] == "NodeStatusUnknown"
        assert {(row["key"], row["effect"]) for row in silent["spec"]["taints"]} == {
            (UNREACHABLE, "NoExecute"),
            (UNREACHABLE, "NoSchedule"),
        }
        await world.until(lambda: deleting() == {"hasty", "patient"}, within_s=320)
        assert 440 <= world.loop.time() <= 445
        api.set_status(NODES, silent, {"conditions": [{"type": "Ready", "status": "True"}]})
        beats.append(asyncio.create_task(beat(world, "n1", 1000.0)))
        await world.until(lambda: "taints" not in api.of(NODES)[0]["spec"], within_s=30)
        for beating in beats:
            beating.cancel()
        assert host.bugs == []
        await host.stop()

    virtually(scenario)


async def beat(world: Any, name: str, until: float) -> None:
    while world.loop.time() < until:
        lease = next(row for row in world.api.of(LEASES) if row["metadata"]["name"] == name)
        world.api.update(LEASES, {**lease, "spec": {"renewTime": str(world.loop.time())}})
        await asyncio.sleep(10)


def test_a_lonely_silent_node_keeps_its_pods(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        host = host_of(world, "nodelifecycle")
        await host.start()
        world.api.create(NODES, node("n1"))
        world.api.create(PODS, pod("p", "10.0.0.1"))
        await asyncio.sleep(300)
        silent = world.api.of(NODES)[0]
        assert [row["effect"] for row in silent["spec"]["taints"]] == ["NoSchedule"]
        assert not world.api.of(PODS)[0]["metadata"].get("deletionTimestamp")
        assert world.api.of(PODS)[0]["status"]["conditions"][0]["status"] == "False"
        await host.stop()

    virtually(scenario)


def test_pods_of_a_missing_node_and_the_oldest_of_too_many_finished_are_removed(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        api = world.api
        host = host_of(world, "podgc", settings=ControlSettings(terminated_pods_max=2))
        await host.start()
        api.create(PODS, pod("astray", "10.0.0.1"))
        for number in range(4):
            done = {"metadata": {"name": f"done{number}", "namespace": "default"}, "spec": {}}
            api.create(PODS, {**done, "status": {"phase": "Succeeded"}})
        await world.until(lambda: len(api.of(PODS)) == 3, within_s=30)
        await asyncio.sleep(100)
        assert [row["metadata"]["name"] for row in api.of(PODS)] == ["done2", "done3"]
        assert host.bugs == []
        await host.stop()

    virtually(scenario)


def test_a_finished_job_goes_when_its_time_is_over(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        host = host_of(world, "job", "ttl-after-finished", "garbagecollector")
        await host.start()
        running = asyncio.create_task(run_pods(world, random.Random(1)))
        world.api.create(JOBS, job(ttlSecondsAfterFinished=100))
        await world.until(lambda: "Complete" in conditions({"status": {}, **world.api.of(JOBS)[0]}))
        await asyncio.sleep(90)
        assert world.api.of(JOBS)
        await world.until(lambda: not world.api.of(JOBS) and not world.api.of(PODS), within_s=30)
        running.cancel()
        assert host.bugs == []
        await host.stop()

    virtually(scenario)


def test_every_controller_starts_and_finds_nothing_to_do_in_an_empty_cluster(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        host = host_of(world, *CONTROLLERS)
        await host.start()
        await host.ready()
        await asyncio.sleep(121.3)  # at full seconds some look again whether all is well
        assert host.idle
        assert host.bugs == []
        assert not [call for call in world.api.calls if call[0] != "GET"]
        await host.stop()

    virtually(scenario)
