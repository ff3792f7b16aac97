from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from steersman.actors.controllers import ControllerHost
from steersman.cluster.api.components import CONTROLLER_MANAGER, fault_of
from steersman.cluster.meta.objects import is_pod_active, is_pod_ready
from steersman.cluster.meta.resources import DEPLOYMENTS, EVENTS, LEASES, PODS, REPLICA_SETS
from steersman.cluster.meta.times import format_time


def deployment(replicas: int, image: str = "web:1", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image}]},
            },
            **spec,
        },
    }


class Kubelet:
    """Runs every pod after a while and ends deleted ones; watches that a rollout keeps its promises."""

    def __init__(self, world: Any, seed: int, slowest_s: float = 5.0) -> None:
        self.world = world
        self.rng = random.Random(seed)
        self.slowest_s = slowest_s
        self.due: dict[str, float] = {}
        self.most_pods = 0
        self.fewest_available = 10**9
        self.guard = False

    async def run(self) -> None:
        api, now = self.world.api, self.world.now
        while True:
            pods = api.of(PODS)
            active = [pod for pod in pods if is_pod_active(pod)]
            self.most_pods = max(self.most_pods, len(active))
            if self.guard:
                self.fewest_available = min(self.fewest_available, sum(map(is_pod_ready, active)))
            for pod in pods:
                uid = pod["metadata"]["uid"]
                due = self.due.setdefault(uid, now() + self.rng.uniform(0.2, self.slowest_s))
                if pod["metadata"].get("deletionTimestamp"):
                    api.delete(PODS, "default", pod["metadata"]["name"], {"gracePeriodSeconds": 0})
                elif not pod["spec"].get("nodeName"):
                    api.update(PODS, {**pod, "spec": {**pod["spec"], "nodeName": f"node-{self.rng.randrange(3)}"}})
                elif not is_pod_ready(pod) and due <= now():
                    api.set_status(
                        PODS,
                        pod,
                        {
                            "phase": "Running",
                            "conditions": [
                                {"type": "Ready", "status": "True", "lastTransitionTime": format_time(now())}
                            ],
                        },
                    )
            await asyncio.sleep(0.1)


def host_of(world: Any, *names: str, **options: Any) -> ControllerHost:
    return ControllerHost(world.client, names, now=world.now, rng=world.rng, **options)


def rolled_out(world: Any, replicas: int) -> bool:
    live = world.api.of(DEPLOYMENTS)[0]
    status = live.get("status") or {}
    return bool(
        status.get("observedGeneration") == live["metadata"]["generation"]
        and status.get("updatedReplicas", 0) == replicas
        and status.get("replicas", 0) == replicas
        and status.get("availableReplicas", 0) == replicas
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_rolling_update_keeps_its_bounds_at_every_moment(virtually: Any, seed: int) -> None:
    async def scenario(world: Any) -> None:
        host = host_of(world, "deployment", "replicaset")
        await host.start()
        kubelet = Kubelet(world, seed)
        running = asyncio.create_task(kubelet.run())
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": "20%"}}
        world.api.create(DEPLOYMENTS, deployment(10, strategy=rolling))
        await world.until(lambda: rolled_out(world, 10))
        assert kubelet.most_pods == 10
        kubelet.guard = True
        live = world.api.of(DEPLOYMENTS)[0]
        world.api.update(DEPLOYMENTS, {**live, "spec": deployment(10, "web:2", strategy=rolling)["spec"]})
        await world.until(lambda: rolled_out(world, 10))
        assert kubelet.most_pods <= 13
        assert kubelet.fewest_available >= 8
        assert {pod["spec"]["containers"][0]["image"] for pod in world.api.of(PODS)} == {"web:2"}
        live = world.api.of(DEPLOYMENTS)[0]
        assert live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"
        conditions = {row["type"]: row for row in live["status"]["conditions"]}
        assert conditions["Available"]["reason"] == "MinimumReplicasAvailable"
        assert conditions["Progressing"]["reason"] == "NewReplicaSetAvailable"
        assert host.bugs == []
        running.cancel()
        await host.stop()

    virtually(scenario)


def test_a_deployment_of_a_thousand_pods_costs_few_requests(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        host = host_of(world, "deployment", "replicaset")
        await host.start()
        running = asyncio.create_task(Kubelet(world, 1).run())
        world.api.create(DEPLOYMENTS, deployment(1000))
        await world.until(lambda: rolled_out(world, 1000))
        assert len([1 for method, target in world.api.calls if method == "POST" and "/pods" in target]) == 1000
        patches = [target for method, target in world.api.calls if method == "PATCH" and "/events/" not in target]
        assert len(patches) < 250
        running.cancel()
        await host.stop()
        assert host.bugs == []

    virtually(scenario)


def test_undoing_restores_the_old_replica_set_under_a_new_revision(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        host = host_of(world, "deployment", "replicaset")
        await host.start()
        running = asyncio.create_task(Kubelet(world, 1).run())
        world.api.create(DEPLOYMENTS, deployment(3))
        await world.until(lambda: rolled_out(world, 3))
        for image in ("web:2", "web:1"):
            live = world.api.of(DEPLOYMENTS)[0]
            world.api.update(DEPLOYMENTS, {**live, "spec": deployment(3, image)["spec"]})
            await world.until(lambda: rolled_out(world, 3))
        found = {
            row["spec"]["template"]["spec"]["containers"][0]["image"]: row["metadata"]["annotations"]
            for row in world.api.of(REPLICA_SETS)
        }
        assert found["web:1"]["deployment.kubernetes.io/revision"] == "3"
        assert found["web:1"]["deployment.kubernetes.io/revision-history"] == "1"
        assert found["web:2"]["deployment.kubernetes.io/revision"] == "2"
        running.cancel()
        await host.stop()

    virtually(scenario)


def test_recreate_never_runs_two_versions_at_once(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        host = host_of(world, "deployment", "replicaset")
        await host.start()
        running = asyncio.create_task(Kubelet(world, 4).run())
        world.api.create(DEPLOYMENTS, deployment(4, strategy={"type": "Recreate"}))
        await world.until(lambda: rolled_out(world, 4))
        live = world.api.of(DEPLOYMENTS)[0]
        spec = deployment(4, "web:2", strategy={"type": "Recreate"})["spec"]
        world.api.update(DEPLOYMENTS, {**live, "spec": spec})

        def one_version() -> bool:
            assert len({pod["spec"]["containers"][0]["image"] for pod in world.api.of(PODS)}) <= 1
            return rolled_out(world, 4)

        await world.until(one_version)
        running.cancel()
        await host.stop()
        assert host.bugs == []

    virtually(scenario)


def test_a_lost_answer_does_not_make_a_second_pod(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        from steersman.actors.http.messages import Request, Response
        from steersman.cluster.meta.errors import ServerTimeout

        lost = 0

        def lose(request: Request) -> Response | None:
            nonlocal lost
            if request.method == "POST" and request.target.endswith("/pods") and lost < 3:
                lost += 1
                world.api._route(request)
                raise ServerTimeout("the answer was lost")
            return None

        world.api.hooks.append(lose)
        host = host_of(world, "replicaset")
        await host.start()
        spec = deployment(5)["spec"]
        world.api.create(REPLICA_SETS, {"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
        await world.until(lambda: len(world.api.of(PODS)) >= 5)
        await asyncio.sleep(5)
        assert lost == 3
        assert len(world.api.of(PODS)) == 5
        created = [1 for _, kind, change, _ in world.api.log if kind == "pods" and change == "ADDED"]
        assert len(created) == 5
        await host.stop()

    virtually(scenario)


def test_of_two_hosts_only_the_holder_of_the_lease_acts_and_the_other_takes_over(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        hosts = [host_of(world, "replicaset", identity=who, leader_election=True) for who in ("a", "b")]
        for host in hosts:
            await host.start()
        await world.until(lambda: any(host.leading for host in hosts))
        await asyncio.sleep(60)
        assert [host.leading for host in hosts].count(True) == 1
        assert fault_of(CONTROLLER_MANAGER, world.api.of(LEASES), world.now()) == ""
        first = next(host for host in hosts if host.leading)
        other = next(host for host in hosts if not host.leading)
        await first.stop()
        spec = deployment(2)["spec"]
        world.api.create(REPLICA_SETS, {"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
        await world.until(lambda: len(world.api.of(PODS)) == 2, within_s=20)
        assert other.leading
        await other.stop()

    virtually(scenario)


def test_events_tell_of_the_scaling(virtually: Any) -> None:
    async def scenario(world: Any) -> None:
        host = host_of(world, "deployment", "replicaset")
        await host.start()
        world.api.create(DEPLOYMENTS, deployment(2))
        await world.until(lambda: len(world.api.of(EVENTS)) >= 3)
        told = {(row["reason"], row["involvedObject"]["kind"]) for row in world.api.of(EVENTS)}
        assert ("ScalingReplicaSet", "Deployment") in told
        assert ("SuccessfulCreate", "ReplicaSet") in told
        await host.stop()

    virtually(scenario)
