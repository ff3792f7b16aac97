"""The asynchronous official client: watches, apply, files, streams and leader election."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kubernetes_asyncio import client, config, dynamic, utils, watch
from kubernetes_asyncio.client.exceptions import ApiException
from kubernetes_asyncio.leaderelection import electionconfig, leaderelection
from kubernetes_asyncio.leaderelection.resourcelock.leaselock import LeaseLock
from kubernetes_asyncio.stream import WsApiClient

from tests.compat.python.conftest import Place
from tests.compat.python.test_kubernetes import MANIFESTS, pod

_DEADLINE_S = 30.0


@pytest.fixture
async def api(simulated: Place) -> AsyncIterator[client.ApiClient]:
    async with await config.new_client_from_config(str(simulated.kubeconfig)) as found:
        yield found


@pytest.fixture
async def space(api: client.ApiClient) -> AsyncIterator[str]:
    core = client.CoreV1Api(api)
    name = (await core.create_namespace({"metadata": {"generateName": "async-"}})).metadata.name
    yield name
    await core.delete_namespace(name)


async def test_a_rollout_is_followed_by_a_watch(api: client.ApiClient, space: str, tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(MANIFESTS)
    await utils.create_from_yaml(api, str(path), namespace=space)
    apps = client.AppsV1Api(api)
    ready: list[int] = []
    async with watch.Watch() as watcher, asyncio.timeout(_DEADLINE_S):
        async for event in watcher.stream(
            apps.list_namespaced_deployment, space, field_selector="metadata.name=web", allow_watch_bookmarks=True
        ):
            if event["type"] == "BOOKMARK":
                continue
            ready.append(event["object"].status.ready_replicas or 0)
            if ready[-1] == 2:
                break
    assert ready[-1] == 2


async def test_many_requests_at_once_are_answered(api: client.ApiClient, space: str) -> None:
    core = client.CoreV1Api(api)
    made = await asyncio.gather(
        *(core.create_namespaced_config_map(space, {"metadata": {"name": f"map-{n}"}}) for n in range(40))
    )
    assert len({row.metadata.resource_version for row in made}) == 40
    results = await asyncio.gather(
        *(
            core.patch_namespaced_config_map("map-0", space, {"data": {f"key-{n}": str(n)}})
            for n in range(20)
        )
    )  # fmt: skip
    assert len({row.metadata.resource_version for row in results}) == 20
    assert len((await core.read_namespaced_config_map("map-0", space)).data) == 20
    await core.delete_collection_namespaced_config_map(space, field_selector="metadata.name!=map-1")
    left = {row.metadata.name for row in (await core.list_namespaced_config_map(space)).items}
    assert left - {"kube-root-ca.crt"} == {"map-1"}


async def test_the_dynamic_client_applies_custom_objects(api: client.ApiClient, space: str) -> None:
    found = await dynamic.DynamicClient(api)
    crds = await found.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    group = f"{space}.example.org"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    await crds.create(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"boats.{group}"},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"plural": "boats", "kind": "Boat"},
                "versions": [
                    {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
                ],
            },
        }
    )  # fmt: skip
    async with asyncio.timeout(_DEADLINE_S):
        async for event in crds.watch(name=f"boats.{group}"):
            conditions = {row.type: row.status for row in event["object"].status.conditions or ()}
            if conditions.get("Established") == "True":
                break
    boats = await (await dynamic.DynamicClient(api)).resources.get(api_version=f"{group}/v1", kind="Boat")
    body = {"apiVersion": f"{group}/v1", "kind": "Boat", "metadata": {"name": "one"}, "spec": {"sails": 2}}
    made = await boats.server_side_apply(body, namespace=space, field_manager="shipyard")
    assert made.spec.sails == 2 and made.metadata.managedFields[0].manager == "shipyard"
    with pytest.raises(ApiException) as conflict:
        await client.CustomObjectsApi(api).patch_namespaced_custom_object(
            group, "v1", space, "boats", "one", {**body, "spec": {"sails": 3}}, field_manager="pirates",
            _content_type="application/apply-patch+yaml",
        )  # fmt: skip
    assert json.loads(conflict.value.body)["reason"] == "Conflict"
    await crds.delete(name=f"boats.{group}")


async def test_one_candidate_leads_until_it_is_cancelled(api: client.ApiClient, space: str) -> None:
    events: asyncio.Queue[str] = asyncio.Queue()

    def candidate(name: str) -> asyncio.Task[None]:
        async def lead() -> None:
            await events.put(f"{name} leads")
            await asyncio.Event().wait()

        async def stop() -> None:
            await events.put(f"{name} stopped")

        settings = electionconfig.Config(
            LeaseLock("lock", space, name, api), lease_duration=3, renew_deadline=2, retry_period=1,
            onstarted_leading=lead, onstopped_leading=stop,
        )  # fmt: skip
        return asyncio.ensure_future(leaderelection.LeaderElection(settings).run())

    async with asyncio.timeout(_DEADLINE_S):
        first = candidate("one")
        assert await events.get() == "one leads"
        second = candidate("two")
        lease = await client.CoordinationV1Api(api).read_namespaced_lease("lock", space)
        assert lease.spec.holder_identity == "one" and lease.spec.lease_duration_seconds == 3
        first.cancel()
        while (event := await events.get()) != "two leads":
            assert event == "one stopped"
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)


async def test_commands_and_logs_of_a_container(containers: Place) -> None:
    async with await config.new_client_from_config(str(containers.kubeconfig)) as api:
        core = client.CoreV1Api(api)
        await core.create_namespaced_pod("default", pod("async", "sh", "-c", "echo ready; sleep 1000"))
        try:
            async with watch.Watch() as watcher, asyncio.timeout(_DEADLINE_S):
                async for event in watcher.stream(
                    core.list_namespaced_pod, "default", field_selector="metadata.name=async"
                ):
                    if event["object"].status.phase == "Running":
                        break
            async with watch.Watch() as watcher, asyncio.timeout(_DEADLINE_S):
                async for line in watcher.stream(core.read_namespaced_pod_log, "async", "default", follow=True):
                    assert line == "ready\n"
                    break
            settings = client.Configuration()
            await config.load_kube_config(str(containers.kubeconfig), client_configuration=settings)
            async with WsApiClient(settings) as streams:
                said = await client.CoreV1Api(streams).connect_get_namespaced_pod_exec(
                    "async", "default", command=["sh", "-c", "echo out; exit 3"],
                    stderr=True, stdin=False, stdout=True, tty=False,
                )  # fmt: skip
                assert said == "out\n"
                line = await client.CoreV1Api(streams).connect_get_namespaced_pod_exec(
                    "async", "default", command=["cat"],
                    stderr=True, stdin=True, stdout=True, tty=False, _preload_content=False,
                )  # fmt: skip
                async with line as socket, asyncio.timeout(_DEADLINE_S):
                    await socket.send_bytes(b"\x00hello\n")
                    while not (piece := await socket.receive_bytes())[1:]:
                        pass
                    assert piece == b"\x01hello\n"
        finally:
            await core.delete_namespaced_pod("async", "default", grace_period_seconds=0)
