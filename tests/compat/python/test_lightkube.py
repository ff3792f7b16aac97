"""lightkube, in both its modes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lightkube import AsyncClient, Client, KubeConfig, codecs
from lightkube.core.exceptions import ApiError, ConditionError
from lightkube.generic_resource import (
    create_namespaced_resource,
    get_generic_resource,
    load_in_cluster_generic_resources,
)
from lightkube.models.core_v1 import Container, PodSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.operators import exists, in_
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, Node, Pod, Service
from lightkube.types import CascadeType, PatchType

from tests.compat.python.conftest import Place
from tests.compat.python.test_kubernetes import MANIFESTS
from tests.e2e.conftest import wait_for

BOATS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.light.example.org}
spec:
  group: light.example.org
  scope: Namespaced
  names: {plural: boats, kind: Boat}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.sails, statusReplicasPath: .status.sails}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


@pytest.fixture
def client(simulated: Place) -> Iterator[Client]:
    with Client(KubeConfig.from_file(simulated.kubeconfig), field_manager="light") as found:
        name = found.create(Namespace(metadata=ObjectMeta(generateName="light-"))).metadata.name
        found.namespace_of_test = name  # type: ignore[attr-defined]
        yield found
        found.delete(Namespace, name)


def config_map(name: str, labels: dict[str, str] | None = None, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, labels=labels), data=data)


def test_manifests_are_loaded_created_and_waited_for(client: Client) -> None:
    space = client.namespace_of_test
    objects = codecs.load_all_yaml(MANIFESTS.partition("---\napiVersion: v1\nkind: List")[0])
    assert [type(obj) for obj in objects] == [Service, Deployment]
    for obj in objects:
        client.create(obj, namespace=space)
    found = client.wait(Deployment, "web", for_conditions=["Available"], namespace=space)
    assert found.status.readyReplicas == 2
    pods = list(client.list(Pod, namespace=space, labels={"app": in_(["web"]), "pod-template-hash": exists()}))
    assert {pod.status.phase for pod in pods} == {"Running"}
    assert list(client.list(Pod, namespace=space, fields={"status.phase": "Pending"})) == []
    scale = client.get(Deployment.Scale, "web", namespace=space)
    scale.spec.replicas = 1
    assert client.replace(scale, "web", namespace=space).spec.replicas == 1
    client.delete(Deployment, "web", namespace=space, cascade=CascadeType.FOREGROUND)
    wait_for("no pods", lambda: not list(client.list(Pod, namespace=space)))


def test_patches_apply_and_conflicts(client: Client) -> None:
    space = client.namespace_of_test
    client.create(config_map("one", a="1"), namespace=space)
    found = client.patch(ConfigMap, "one", {"data": {"b": "2"}}, namespace=space)
    assert found.data == {"a": "1", "b": "2"}
    found = client.patch(ConfigMap, "one", {"data": {"a": None}}, patch_type=PatchType.MERGE, namespace=space)
    assert found.data == {"b": "2"}
    operations = [{"op": "test", "path": "/data/b", "value": "3"}, {"op": "remove", "path": "/data/b"}]
    with pytest.raises(ApiError) as refused:
        client.patch(ConfigMap, "one", operations, patch_type=PatchType.JSON, namespace=space)
    assert refused.value.status.code == 422
    applied = client.apply(config_map("two", a="1"), namespace=space)
    assert applied.metadata.managedFields[0].manager == "light"
    with pytest.raises(ApiError) as conflict:
        client.apply(config_map("two", a="2"), namespace=space, field_manager="other")
    assert conflict.value.status.reason == "Conflict"
    forced = client.apply(config_map("two", a="2"), namespace=space, field_manager="other", force=True)
    assert forced.data == {"a": "2"}
    client.deletecollection(ConfigMap, namespace=space)
    left = {row.metadata.name for row in client.list(ConfigMap, namespace=space)}
    assert left <= {"kube-root-ca.crt"}


def test_a_list_is_read_in_chunks_and_a_watch_goes_on_from_its_version(client: Client) -> None:
    space = client.namespace_of_test
    for number in range(5):
        client.create(config_map(f"map-{number}", {"set": "yes"}), namespace=space)
    rows = client.list(ConfigMap, namespace=space, labels={"set": "yes"}, chunk_size=2)
    names = [row.metadata.name for row in rows]
    assert names == [f"map-{number}" for number in range(5)] and rows.resourceVersion
    client.delete(ConfigMap, "map-0", namespace=space)
    client.create(config_map("late", {"set": "yes"}), namespace=space)
    events = []
    for sort, obj in client.watch(
        ConfigMap, namespace=space, labels={"set": "yes"}, resource_version=rows.resourceVersion, server_timeout=10
    ):
        events.append((sort, obj.metadata.name))
        if len(events) == 2:
            break
    assert events == [("DELETED", "map-0"), ("ADDED", "late")]


def test_custom_objects_are_generic_resources(client: Client) -> None:
    space = client.namespace_of_test
    definition = codecs.load_all_yaml(BOATS)[0]
    client.create(definition)
    try:
        client.wait(CustomResourceDefinition, "boats.light.example.org", for_conditions=["Established"])
        load_in_cluster_generic_resources(client)
        boats = get_generic_resource("light.example.org/v1", "Boat")
        assert boats is not None
        made = client.create(boats(metadata=ObjectMeta(name="one"), spec={"sails": 2}), namespace=space)
        assert made.spec == {"sails": 2} and made.status is None
        made["status"] = {"sails": 1}
        assert client.replace(made, namespace=space).status is None
        made = client.get(boats, "one", namespace=space)
        typed = create_namespaced_resource("light.example.org", "v1", "Boat", "boats")
        status = client.patch(
            typed.Status, "one", {"status": {"sails": 1}}, patch_type=PatchType.MERGE, namespace=space
        )
        assert status.status == {"sails": 1}
        scale = client.get(typed.Scale, "one", namespace=space)
        assert (scale.spec.replicas, scale.status.replicas) == (2, 1)
    finally:
        client.delete(CustomResourceDefinition, "boats.light.example.org")


async def test_the_asynchronous_client_does_the_same(simulated: Place, client: Client) -> None:
    space = client.namespace_of_test
    async with AsyncClient(KubeConfig.from_file(simulated.kubeconfig), field_manager="light") as found:
        assert [node.metadata.name async for node in found.list(Node)] == ["node-0"]
        await found.apply(config_map("one", a="1"), namespace=space)
        spec = PodSpec(containers=[Container(name="main", image="example.org/main")])
        await found.create(Pod(metadata=ObjectMeta(name="one"), spec=spec), namespace=space)
        pod = await found.wait(Pod, "one", for_conditions=["Ready"], namespace=space)
        assert pod.status.phase == "Running"
        async for sort, obj in found.watch(Pod, namespace=space, server_timeout=10):
            assert (sort, obj.metadata.name) == ("ADDED", "one")
            break
        with pytest.raises(ConditionError):
            await found.wait(Pod, "one", for_conditions=["Never"], raise_for_conditions=["Ready"], namespace=space)
        await found.delete(Pod, "one", namespace=space, grace_period=0)
        with pytest.raises(ApiError) as absent:
            await found.get(Pod, "one", namespace=space)
        assert absent.value.status.code == 404


async def test_logs_and_commands_of_a_container(containers: Place) -> None:
    with Client(KubeConfig.from_file(containers.kubeconfig), namespace="default") as client:
        command = ["sh", "-c", "echo one; echo two; sleep 1000"]
        spec = PodSpec(containers=[Container(name="main", image="busybox", command=command)])
        client.create(Pod(metadata=ObjectMeta(name="light"), spec=spec))
        try:
            client.wait(Pod, "light", for_conditions=["Ready"])
            lines = []
            for line in client.log("light", follow=True):
                lines.append(line)
                if len(lines) == 2:
                    break
            assert lines == ["one\n", "two\n"]
            assert list(client.log("light", tail_lines=1)) == ["two\n"]
            # the other mode closes its socket while a thread still reads there, which then takes what comes for whoever
            # gets that number next: against a server of Python's own modules, too, one of some hundred commands broke
            async with AsyncClient(KubeConfig.from_file(containers.kubeconfig), namespace="default") as beside:
                said = await beside.exec(
                    "light", command=["sh", "-c", "echo out; echo err >&2; exit 3"], stdout=True, stderr=True
                )
            assert (said.stdout, said.stderr, said.exit_code) == ("out\n", "err\n", 3)
        finally:
            client.delete(Pod, "light", grace_period=0)
