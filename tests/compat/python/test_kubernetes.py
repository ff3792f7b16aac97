"""The official client, synchronous: what its own tests leave out."""

from __future__ import annotations

import datetime
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.informer import ADDED, DELETED, MODIFIED, SharedInformer
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from kubernetes.stream import portforward, stream

from tests.compat.python.conftest import Place
from tests.e2e.conftest import wait_for

MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: example.org/web}]}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: first}, data: {a: "1"}}
- {apiVersion: batch/v1, kind: CronJob, metadata: {name: often}, spec: {schedule: "*/5 * * * *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: example.org/job}]}}}}}}
"""  # noqa: E501 (a manifest)

#: what this client of Kubernetes 1.37 knows and a server of 1.36 does not
_ABSENT = {
    "CertificatesV1Api.list_cluster_trust_bundle",
    "CertificatesV1Api.list_pod_certificate_request_for_all_namespaces",
    "ResourceV1Api.list_device_taint_rule",
    "StoragemigrationV1Api.list_storage_version_migration",
}


def connect(place: Place) -> client.ApiClient:
    return config.new_client_from_config(str(place.kubeconfig))


@pytest.fixture
def api(simulated: Place) -> Iterator[client.ApiClient]:
    with connect(simulated) as found:
        yield found


@pytest.fixture
def space(api: client.ApiClient, request: pytest.FixtureRequest) -> Iterator[str]:
    core = client.CoreV1Api(api)
    name = core.create_namespace({"metadata": {"generateName": "sync-"}}).metadata.name
    wait_for("the service account", lambda: core.list_namespaced_service_account(name).items)
    yield name
    core.delete_namespace(name)


def config_map(name: str, **data: str) -> client.V1ConfigMap:
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"set": "yes"}), data=data)


def test_typed_objects_are_created_read_replaced_and_deleted(api: client.ApiClient, space: str) -> None:
    core = client.CoreV1Api(api)
    made = core.create_namespaced_config_map(space, config_map("one", a="1"))
    assert made.metadata.creation_timestamp.tzinfo is not None and made.metadata.uid
    made.data["b"] = "2"
    replaced = core.replace_namespaced_config_map("one", space, made)
    assert replaced.data == {"a": "1", "b": "2"}
    with pytest.raises(ApiException) as conflict:
        core.replace_namespaced_config_map("one", space, made)
    assert (conflict.value.status, json.loads(conflict.value.body)["reason"]) == (409, "Conflict")
    status = core.delete_namespaced_config_map("one", space)
    assert status["status"] == "Success" and status["details"]["uid"] == made.metadata.uid
    with pytest.raises(ApiException) as absent:
        core.read_namespaced_config_map("one", space)
    assert absent.value.status == 404


def test_every_typed_list_and_table_of_the_api_can_be_read(api: client.ApiClient) -> None:
    """Each model checks on reading that the fields it requires are there."""
    asked, failed = 0, {}
    for group in (name for name in dir(client) if re.fullmatch(r"\w+V[12]Api", name)):
        calls = getattr(client, group)(api)
        for method in dir(calls):
            if method.startswith("list_") and "namespaced" not in method and not method.endswith(("_info", "_content")):
                try:
                    getattr(calls, method)()
                except (ApiException, ValueError) as error:
                    failed[f"{group}.{method}"] = str(error)
                asked += 1
    assert asked > 50
    absent = {name for name, text in failed.items() if "(404)" in text}
    assert absent == _ABSENT
    # events that were written by way of the core group have none, and the client wants one
    assert "eventTime" in failed.pop("EventsV1Api.list_event_for_all_namespaces")
    assert set(failed) == absent


def test_each_sort_of_patch_is_taken(api: client.ApiClient, space: str) -> None:
    apps = client.AppsV1Api(api)
    utils.create_from_yaml(api, yaml_objects=list(yaml.safe_load_all(MANIFESTS)), namespace=space)
    found = apps.patch_namespaced_deployment(
        "web", space, {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "example.org/side"}]}}}}
    )
    assert [row.name for row in found.spec.template.spec.containers] == ["side", "web"]
    found = apps.patch_namespaced_deployment("web", space, [{"op": "replace", "path": "/spec/replicas", "value": 3}])
    assert found.spec.replicas == 3
    found = apps.patch_namespaced_deployment_scale("web", space, {"spec": {"replicas": 1}})
    assert found.spec.replicas == 1
    dry = apps.patch_namespaced_deployment("web", space, {"spec": {"paused": True}}, dry_run="All")
    assert dry.spec.paused and not apps.read_namespaced_deployment("web", space).spec.paused


def test_objects_of_a_file_are_created_each_with_its_kind(api: client.ApiClient, space: str, tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(MANIFESTS)
    created = utils.create_from_yaml(api, str(path), namespace=space)
    assert [type(row).__name__ for rows in created for row in rows] == [
        "V1Service", "V1Deployment", "V1ConfigMap", "V1CronJob",
    ]  # fmt: skip
    with pytest.raises(utils.FailToCreateError) as failure:
        utils.create_from_yaml(api, str(path), namespace=space)
    assert {error.status for error in failure.value.api_exceptions} == {409}
    apps = client.AppsV1Api(api)
    wait_for("two pods", lambda: apps.read_namespaced_deployment("web", space).status.ready_replicas == 2)


def test_a_watch_goes_on_where_it_ended(api: client.ApiClient, space: str) -> None:
    core = client.CoreV1Api(api)
    start = core.list_namespaced_config_map(space).metadata.resource_version
    for name in ("a", "b", "c"):
        core.create_namespaced_config_map(space, config_map(name))
    seen, watcher = [], watch.Watch()
    for event in watcher.stream(core.list_namespaced_config_map, space, resource_version=start, label_selector="set"):
        seen.append(event["object"].metadata.name)
        if len(seen) == 2:
            watcher.stop()
    again = watch.Watch()
    for event in again.stream(core.list_namespaced_config_map, space, resource_version=watcher.resource_version):
        if event["object"].metadata.name != "kube-root-ca.crt":
            seen.append(event["object"].metadata.name)
            again.stop()
    assert seen == ["a", "b", "c"]


def test_a_long_list_comes_in_pages(api: client.ApiClient, space: str) -> None:
    core = client.CoreV1Api(api)
    for number in range(5):
        core.create_namespaced_config_map(space, config_map(f"page-{number}"))
    names, more, left = [], None, []
    while True:
        page = core.list_namespaced_config_map(space, limit=2, _continue=more)
        names += [row.metadata.name for row in page.items]
        left.append(page.metadata.remaining_item_count)
        if not (more := page.metadata._continue):
            break
    assert names == sorted(names) and len(names) == 6
    assert left == [4, 2, None]


def test_the_dynamic_client_applies_and_reports_conflicts(api: client.ApiClient, space: str) -> None:
    maps = dynamic.DynamicClient(api).resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "1", "b": "1"}}
    maps.server_side_apply(body, namespace=space, field_manager="one")
    with pytest.raises(dynamic.exceptions.ConflictError) as conflict:
        maps.server_side_apply({**body, "data": {"a": "2"}}, namespace=space, field_manager="two")
    assert json.loads(conflict.value.body)["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a"}
    ]
    maps.server_side_apply({**body, "data": {"a": "2"}}, namespace=space, field_manager="two", force_conflicts=True)
    found = maps.server_side_apply({**body, "data": {"b": "1"}}, namespace=space, field_manager="one")
    assert found.data.to_dict() == {"a": "2", "b": "1"}
    owners = {row.manager: row.fieldsV1["f:data"].to_dict() for row in found.metadata.managedFields}
    assert owners == {"one": {"f:b": {}}, "two": {"f:a": {}}}


def test_an_informer_keeps_a_cache_and_tells_of_changes(api: client.ApiClient, space: str) -> None:
    core = client.CoreV1Api(api)
    core.create_namespaced_config_map(space, config_map("early"))
    told: list[tuple[str, str]] = []
    informer = SharedInformer(core.list_namespaced_config_map, namespace=space, label_selector="set=yes")
    for sort in (ADDED, MODIFIED, DELETED):
        informer.add_event_handler(sort, lambda obj, sort=sort: told.append((sort, obj.metadata.name)))
    informer.start()
    try:
        wait_for("the first object", lambda: told == [(ADDED, "early")])
        core.create_namespaced_config_map(space, config_map("late"))
        core.patch_namespaced_config_map("late", space, {"data": {"new": "1"}})
        core.delete_namespaced_config_map("early", space)
        wait_for("its changes", lambda: len(told) == 4)
        assert told[1:] == [(ADDED, "late"), (MODIFIED, "late"), (DELETED, "early")]
        assert [obj.metadata.name for obj in informer.cache.list()] == ["late"]
    finally:
        informer.stop()


def test_one_candidate_leads_and_the_next_follows_when_it_stops(
    api: client.ApiClient, simulated: Place, space: str
) -> None:
    config.load_kube_config(str(simulated.kubeconfig))
    events: list[str] = []
    failing = threading.Event()

    def candidate(name: str) -> threading.Thread:
        lock = LeaseLock("lock", space, name)
        if name == "one":
            update = lock.update
            lock.update = lambda *words: False if failing.is_set() else update(*words)  # type: ignore[method-assign]
        settings = electionconfig.Config(
            lock, lease_duration=3, renew_deadline=2, retry_period=1,
            onstarted_leading=lambda: events.append(f"{name} leads"),
            onstopped_leading=lambda: events.append(f"{name} stopped"),
        )  # fmt: skip
        thread = threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True)
        thread.start()
        return thread

    candidate("one")
    wait_for("a leader", lambda: events == ["one leads"])
    candidate("two")
    lease = client.CoordinationV1Api(api).read_namespaced_lease("lock", space)
    assert lease.spec.holder_identity == "one" and isinstance(lease.spec.renew_time, datetime.datetime)
    failing.set()
    wait_for("the next leader", lambda: "two leads" in events, deadline_s=30)
    assert events[0] == "one leads"
    assert client.CoordinationV1Api(api).read_namespaced_lease("lock", space).spec.holder_identity == "two"


def pod(name: str, *command: str, **more: Any) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "main", "image": "busybox", "command": list(command), **more}
    return {"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}


@pytest.fixture(scope="module")
def live(containers: Place) -> Iterator[client.CoreV1Api]:
    """The API of a cluster in which two pods run: a shell that can be attached to, and a web server."""
    with connect(containers) as api:
        core = client.CoreV1Api(api)
        core.create_namespaced_pod(
            "default", pod("echo", "sh", "-c", "echo ready; while read l; do echo got $l; done", stdin=True)
        )
        core.create_namespaced_pod("default", {"metadata": {"name": "web"}, "spec": {"containers": [
            {"name": "web", "image": "nginx"}
        ]}})  # fmt: skip
        names = ("echo", "web")
        wait_for(
            "both pods",
            lambda: all(core.read_namespaced_pod(n, "default").status.phase == "Running" for n in names),
        )
        yield core
        for name in names:
            core.delete_namespaced_pod(name, "default", grace_period_seconds=0)


def test_a_command_is_run_with_its_streams_and_exit_code(live: client.CoreV1Api) -> None:
    said = stream(
        live.connect_get_namespaced_pod_exec, "echo", "default", command=["sh", "-c", "echo out; echo err >&2"],
        stderr=True, stdin=False, stdout=True, tty=False,
    )  # fmt: skip
    assert sorted(said.split()) == ["err", "out"]
    shell = stream(
        live.connect_get_namespaced_pod_exec, "echo", "default", command=["sh"],
        stderr=True, stdin=True, stdout=True, tty=False, _preload_content=False,
    )  # fmt: skip
    shell.write_stdin("echo $((6*7))\n")
    assert shell.readline_stdout(timeout=10) == "42"
    shell.write_stdin("echo no >&2\n")
    assert shell.readline_stderr(timeout=10) == "no"
    shell.write_stdin("exit 3\n")
    shell.run_forever(timeout=10)
    assert shell.returncode == 3


def test_a_command_works_on_with_what_it_was_sent_when_its_client_has_left(live: client.CoreV1Api) -> None:
    for size in (7, 300_000):
        sent = stream(
            live.connect_get_namespaced_pod_exec, "echo", "default",
            command=["sh", "-c", f"sleep 0.2; cat > /tmp/{size}; mv /tmp/{size} /tmp/whole-{size}"],
            stderr=True, stdin=True, stdout=True, tty=False, _preload_content=False,
        )  # fmt: skip
        sent.write_stdin("x" * size)
        sent.close()

        def whole(size: int = size) -> bool:
            command = ["sh", "-c", f"wc -c < /tmp/whole-{size}"]
            said = stream(
                live.connect_get_namespaced_pod_exec, "echo", "default", command=command,
                stderr=False, stdin=False, stdout=True, tty=False,
            )  # fmt: skip
            return bool(said.strip() == str(size))

        wait_for(f"{size} bytes", whole, 20)


def test_one_can_attach_to_a_container(live: client.CoreV1Api) -> None:
    attached = stream(
        live.connect_get_namespaced_pod_attach, "echo", "default",
        stderr=True, stdin=True, stdout=True, tty=False, _preload_content=False,
    )  # fmt: skip
    attached.write_stdin("hello\n")
    assert attached.readline_stdout(timeout=10) == "got hello"
    attached.close()


def test_a_port_is_forwarded(live: client.CoreV1Api) -> None:
    forward = portforward(live.connect_get_namespaced_pod_portforward, "web", "default", ports="80")
    line = forward.socket(80)
    line.setblocking(True)
    line.settimeout(10)
    line.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while piece := line.recv(4096):
        answer += piece
    line.close()
    assert answer.startswith(b"HTTP/1.1 200 OK") and answer.endswith(b"Welcome to nginx!\n")
    assert forward.error(80) is None

    refused = portforward(live.connect_get_namespaced_pod_portforward, "web", "default", ports="81")
    line = refused.socket(81)
    line.settimeout(10)
    line.setblocking(True)
    assert line.recv(1) == b""
    wait_for("the reason", lambda: refused.error(81), deadline_s=10)
    assert "81" in refused.error(81)


def test_logs_are_read_whole_cut_and_followed(live: client.CoreV1Api) -> None:
    live.create_namespaced_pod(
        "default", pod("counter", "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done; sleep 1000")
    )
    try:
        wait_for("a running pod", lambda: live.read_namespaced_pod("counter", "default").status.phase == "Running")
        followed = []
        watcher = watch.Watch()
        for line in watcher.stream(live.read_namespaced_pod_log, "counter", "default"):
            followed.append(line)
            if len(followed) == 5:
                watcher.stop()
        assert followed == [f"line {number}" for number in range(1, 6)]
        assert live.read_namespaced_pod_log("counter", "default", tail_lines=2) == "line 4\nline 5\n"
        assert live.read_namespaced_pod_log("counter", "default", limit_bytes=6) == "line 1"
        stamped = live.read_namespaced_pod_log("counter", "default", timestamps=True, tail_lines=1)
        datetime.datetime.fromisoformat(stamped.split()[0][:26] + "+00:00")
    finally:
        live.delete_namespaced_pod("counter", "default", grace_period_seconds=0)
