"""StatefulSets over the real API server, on simulated nodes and virtual time; and what no cluster shows in time."""

from __future__ import annotations

import asyncio
from typing import Any

from steersman import testing
from steersman.cluster.control import statefulset
from steersman.cluster.control.identity import claim_changes
from steersman.cluster.meta.objects import is_pod_ready
from steersman.cluster.meta.resources import (
    CONTROLLER_REVISIONS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    STATEFUL_SETS,
)

LABELS = {"app": "db"}


def db(replicas: int = 3, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "main", "image": "db:1"}]
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": containers, "terminationGracePeriodSeconds": 1}}
    return {
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": "default"},
        "spec": {"replicas": replicas, "serviceName": "db", "selector": {"matchLabels": LABELS}, "template": template,
                 **spec},
    }  # fmt: skip


class World:
    """A simulated cluster, and every step of the pods' life in it."""

    def __init__(self, cluster: Any) -> None:
        self.client = cluster.client
        self._history: list[str] = cluster.history
        self._read = 0
        self._there: set[str] = set()

    async def told(self) -> list[str]:
        """The pods that have come (`+db-0`) and gone (`-db-0`) since the last look, a while from now, in order."""
        await asyncio.sleep(20)
        found = []
        for line in self._history[self._read :]:
            _, what, key, *_ = line.split(" ")
            if not key.startswith("/registry/core/pods/default/"):
                continue
            name = key.rpartition("/")[2]
            if what == "delete":
                self._there.discard(name)
                found.append(f"-{name}")
            elif name not in self._there:
                self._there.add(name)
                found.append(f"+{name}")
        self._read = len(self._history)
        return found

    async def status(self) -> Any:
        return (await self.client.get(STATEFUL_SETS, "db", "default"))["status"]

    async def patch(self, spec: Any) -> None:
        await self.client.patch(STATEFUL_SETS, "db", {"spec": spec}, "default", kind="strategic")

    async def image(self, image: str) -> None:
        await self.patch({"template": {"spec": {"containers": [{"name": "main", "image": image}]}}})

    async def images(self) -> list[str]:
        pods = sorted((await self.client.list(PODS, "default")).items, key=lambda row: row["metadata"]["name"])
        return [pod["spec"]["containers"][0]["image"] for pod in pods]


def play(scenario: Any, **behaviour: Any) -> None:
    async def whole(cluster: Any) -> None:
        await scenario(World(cluster))

    with testing.simulation(nodes=2, **behaviour) as cluster:
        cluster.run(whole(cluster))


def test_pods_come_in_order_and_go_in_reverse() -> None:
    async def scenario(world: World) -> None:
        await world.client.create(STATEFUL_SETS, db())
        assert await world.told() == ["+db-0", "+db-1", "+db-2"]
        pod = await world.client.get(PODS, "db-1", "default")
        assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("db-1", "db")
        assert pod["metadata"]["labels"].items() >= {
            "statefulset.kubernetes.io/pod-name": "db-1", "apps.kubernetes.io/pod-index": "1"}.items()  # fmt: skip
        status = await world.status()
        assert pod["metadata"]["labels"]["controller-revision-hash"] == status["currentRevision"]
        assert [status[key] for key in ("replicas", "readyReplicas", "availableReplicas", "updatedReplicas")] == [3] * 4
        await world.patch({"replicas": 1})
        assert await world.told() == ["-db-2", "-db-1"]
        await world.patch({"replicas": 2, "ordinals": {"start": 5}})
        assert await world.told() == ["+db-5", "+db-6", "-db-0"]

    play(scenario)


def test_an_update_goes_backwards_down_to_its_partition() -> None:
    async def scenario(world: World) -> None:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
        await world.client.create(STATEFUL_SETS, db(updateStrategy=strategy))
        await world.told()
        await world.image("db:2")
        assert await world.told() == ["-db-2", "+db-2"]
        assert await world.images() == ["db:1", "db:1", "db:2"]
        status = await world.status()
        assert status["currentRevision"] != status["updateRevision"]
        assert (status["currentReplicas"], status["updatedReplicas"]) == (2, 1)
        await world.client.delete(PODS, "db-0", "default")
        assert await world.told() == ["-db-0", "+db-0"]
        assert await world.images() == ["db:1", "db:1", "db:2"]  # below the partition the former revision comes back
        await world.patch({"updateStrategy": {"rollingUpdate": {"partition": 0}}})
        assert await world.told() == ["-db-1", "+db-1", "-db-0", "+db-0"]
        status = await world.status()
        assert status["currentRevision"] == status["updateRevision"] and status["currentReplicas"] == 3
        assert len((await world.client.list(CONTROLLER_REVISIONS, "default")).items) == 2

    play(scenario)


def test_pods_in_parallel_do_not_wait_and_those_on_delete_stay_old() -> None:
    async def scenario(world: World) -> None:
        await world.client.create(
            STATEFUL_SETS, db(4, podManagementPolicy="Parallel", updateStrategy={"type": "OnDelete"})
        )
        await asyncio.sleep(0.5)
        pods = (await world.client.list(PODS, "default")).items
        assert len(pods) == 4 and not any(map(is_pod_ready, pods))
        await world.told()
        await world.image("db:2")
        assert await world.told() == []
        await world.client.delete(PODS, "db-3", "default")
        assert await world.told() == ["-db-3", "+db-3"]
        assert await world.images() == ["db:1", "db:1", "db:1", "db:2"]
        await world.patch({"replicas": 0})
        assert sorted(await world.told()) == ["-db-0", "-db-1", "-db-2", "-db-3"]

    play(scenario, start_delay_s=2)


def test_what_fails_is_made_again_and_what_fits_is_adopted() -> None:
    async def scenario(world: World) -> None:
        orphan = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db-0", "namespace": "default",
                                                                   "labels": LABELS}}  # fmt: skip
        await world.client.create(PODS, {**orphan, "spec": db()["spec"]["template"]["spec"]})
        await world.client.create(STATEFUL_SETS, db(2, updateStrategy={"type": "OnDelete"}))
        assert await world.told() == ["+db-0", "+db-1"]
        pod = await world.client.get(PODS, "db-0", "default")
        assert pod["metadata"]["ownerReferences"][0]["kind"] == "StatefulSet"
        await world.client.patch(PODS, "db-1", {"status": {"phase": "Failed"}}, "default", subresource="status")
        assert await world.told() == ["-db-1", "+db-1"]
        assert (await world.status())["readyReplicas"] == 2

    play(scenario)


def test_each_pod_has_claims_of_its_own_that_outlive_it() -> None:
    claim = {"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip

    async def scenario(world: World) -> None:
        await world.client.create(STATEFUL_SETS, db(2, volumeClaimTemplates=[claim], podManagementPolicy="Parallel"))
        await world.told()
        names = [row["metadata"]["name"] for row in (await world.client.list(PERSISTENT_VOLUME_CLAIMS)).items]
        assert names == ["data-db-0", "data-db-1"]
        pod = await world.client.get(PODS, "db-1", "default")
        assert pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == "data-db-1"
        await world.client.delete(STATEFUL_SETS, "db", "default", propagation="Foreground")
        await world.told()
        assert len((await world.client.list(PERSISTENT_VOLUME_CLAIMS)).items) == 2

    play(scenario)


def test_a_claim_goes_with_its_set_or_its_pod_where_the_set_says_so() -> None:
    policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    found = db(1, persistentVolumeClaimRetentionPolicy=policy, volumeClaimTemplates=[{"metadata": {"name": "data"}}])
    found["metadata"]["uid"] = "set"
    pods = {n: {"metadata": {"name": f"db-{n}", "uid": f"pod-{n}"}} for n in (0, 1)}
    claims = [{"metadata": {"name": f"data-db-{n}", "namespace": "default", "uid": f"c{n}"}} for n in (0, 1)]
    changes = claim_changes(found, claims, pods, range(1))
    owners = [change.patch["metadata"]["ownerReferences"] for change in changes]
    assert [[row["uid"] for row in rows] for rows in owners] == [["set"], ["pod-1"]]
    found["spec"]["persistentVolumeClaimRetentionPolicy"] = {}
    owned = [{"metadata": {**claims[0]["metadata"], "ownerReferences": owners[0]}}]
    (change,) = claim_changes(found, owned, pods, range(1))
    assert change.patch == {"metadata": {"ownerReferences": None}}


def test_a_set_that_is_being_deleted_makes_nothing() -> None:
    found = db()
    found["metadata"] |= {"uid": "set", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    (step,) = statefulset.reconcile(statefulset.Observed(stateful_set=found), 0.0).actions
    assert type(step).__name__ == "Patch"
