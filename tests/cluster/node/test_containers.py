"""What a container is started with: environment, commands, resources, security, images, mounts."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from steersman.cluster.node.containers import container_spec, field_path, simulation, target_id
from steersman.cluster.node.environment import Surroundings, environment, service_variables, wanted
from steersman.cluster.node.expansion import expand, expand_strict
from steersman.cluster.node.images import credentials_for, default_policy, full_reference, must_pull, parse_pull_secret
from steersman.cluster.node.resources import (
    container_resources,
    cpu_quota_us,
    cpu_shares,
    effective_requests,
    pod_resources,
    qos_class,
)
from steersman.cluster.node.security import check_non_root, security_context
from steersman.cluster.node.values import ContainerState, ContainerStatus, Image, RegistryAuth, RuntimeFailure

Obj = dict[str, Any]
IMAGE = Image(id="sha256:1", names=("web:1",))


def _service(name: str, address: str, port: int, namespace: str = "default", **more: Any) -> Obj:
    ports = [{"port": port, "name": "http-main", "protocol": "TCP"}]
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": address, "ports": ports, **more}}


SERVICES = (
    _service("kubernetes", "10.96.0.1", 443),
    _service("my-db", "10.96.0.7", 5432),
    _service("far", "10.96.0.8", 80, "other"),
    _service("headless", "None", 80),
)


def _around(**configuration: Any) -> Surroundings:
    objects = {tuple(key.split("_")): value for key, value in configuration.items()}
    return Surroundings(
        ips=("10.1.0.5", "fd00::5"),
        host_ip="10.0.0.1",
        configuration=objects,
        services=SERVICES,
        allocatable={"cpu": "4", "memory": "8Gi"},
    )


def test_a_debugging_container_looks_at_a_running_one() -> None:
    def row(name: str, state: ContainerState, number: int) -> ContainerStatus:
        return ContainerStatus(
            id=f"{name}-{number}", sandbox_id="s", pod_uid="u", pod_name="p", namespace="n", name=name, attempt=number,
            state=state,
        )  # fmt: skip

    rows = (
        row("main", ContainerState.EXITED, 0),
        row("main", ContainerState.RUNNING, 1),
        row("other", ContainerState.EXITED, 0),
    )
    assert target_id({"name": "debugger", "targetContainerName": "main"}, rows) == "main-1"
    assert target_id({"name": "debugger"}, rows) == ""
    with pytest.raises(RuntimeFailure, match="unable to find target container other"):
        target_id({"name": "debugger", "targetContainerName": "other"}, rows)


EXPANSIONS = [
    ("$(A)-$(B)", "1-2"),
    ("$$(A)", "$(A)"),
    ("$(MISSING)", "$(MISSING)"),
    ("$$$(A)", "$1"),
    ("$A $", "$A $"),
    ("$(A", "$(A"),
]


@pytest.mark.parametrize(("text", "expected"), EXPANSIONS)
def test_references_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


def test_a_strict_expansion_names_what_is_missing() -> None:
    assert expand_strict("logs/$(A)", {"A": "1"}) == "logs/1"
    with pytest.raises(KeyError, match="B"):
        expand_strict("$(B)", {})


def test_service_variables_have_dockers_and_kubernetes_forms() -> None:
    rows = service_variables(SERVICES, "default", links=True)
    assert rows["MY_DB_SERVICE_HOST"] == "10.96.0.7"
    assert rows["MY_DB_SERVICE_PORT"] == rows["MY_DB_SERVICE_PORT_HTTP_MAIN"] == "5432"
    assert rows["MY_DB_PORT"] == rows["MY_DB_PORT_5432_TCP"] == "tcp://10.96.0.7:5432"
    assert rows["MY_DB_PORT_5432_TCP_ADDR"] == "10.96.0.7"
    assert not [name for name in rows if name.startswith(("FAR", "HEADLESS"))]
    assert set(service_variables(SERVICES, "other", links=False)) == {
        name for name in rows if name.startswith("KUBERNETES_")
    }


def test_the_environment_comes_from_everywhere(pod_of: Any) -> None:
    main = {
        "name": "main",
        "image": "web:1",
        "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}},
        "envFrom": [
            {"configMapRef": {"name": "base"}, "prefix": "P_"},
            {"secretRef": {"name": "gone", "optional": True}},
        ],
        "env": [
            {"name": "PLAIN", "value": "x"},
            {"name": "REF", "value": "$(PLAIN)-$(P_A)-$(MY_DB_SERVICE_HOST)-$(LATER)"},
            {"name": "LATER", "value": "y"},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "k"}}},
            {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "base", "key": "no", "optional": True}}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}},
            {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}}},
            {"name": "ALL", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Gi"}}},
        ],
    }
    assert wanted(main) == [("ConfigMap", "base"), ("Secret", "gone"), ("Secret", "sec")]
    around = _around(
        ConfigMap_base={"data": {"A": "1"}, "binaryData": {"B": "eA=="}},
        Secret_gone=None,
        Secret_sec={"data": {"k": base64.b64encode(b"pw").decode()}},
    )
    rows = dict(environment(pod_of(containers=[main]), main, around))
    expected = {
        "P_A": "1",
        "PLAIN": "x",
        "REF": "x-1-10.96.0.7-$(LATER)",
        "KEY": "pw",
        "POD": "web",
        "IP": "10.1.0.5",
        "IPS": "10.1.0.5,fd00::5",
        "HOST": "10.0.0.1",
        "LABEL": "web",
        "CPUS": "2",
        "MEM": "64",
        "ALL": "8",
    }
    assert {name: rows[name] for name in expected} == expected
    assert "NONE" not in rows and "P_B" not in rows


MISSING = [
    ({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]}, 'configmap "m" not found'),
    ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "m", "key": "k"}}}]}, 'secret "m" not found'),
    ({"envFrom": [{"secretRef": {"name": "m"}}]}, 'secret "m" not found'),
    (
        {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]},
        "couldn't find key k in ConfigMap default/c",
    ),
    ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]}, "unsupported fieldPath: x"),
]


@pytest.mark.parametrize(("fields", "message"), MISSING, ids=[row[1] for row in MISSING])
def test_what_is_missing_is_named(pod_of: Any, fields: Obj, message: str) -> None:
    main = {"name": "main", "image": "web:1", **fields}
    with pytest.raises(RuntimeFailure) as caught:
        environment(pod_of(containers=[main]), main, _around(ConfigMap_c={"data": {}}))
    assert (caught.value.reason, caught.value.message) == ("CreateContainerConfigError", message)


def test_the_order_to_the_runtime_has_everything_resolved(pod_of: Any, node: Any) -> None:
    main = {
        "name": "main",
        "image": "web:1",
        "command": ["sh", "-c"],
        "args": ["echo $(GREETING) $(NOBODY)"],
        "workingDir": "/srv",
        "tty": True,
    }
    pod = pod_of(containers=[main])
    spec = container_spec(pod, main, 2, image=IMAGE, environment=(("GREETING", "hi"),), mounts=(), config=node.config)
    assert (spec.command, spec.args) == (("sh", "-c"), ("echo hi $(NOBODY)",))
    assert (spec.attempt, spec.image, spec.image_ref, spec.working_dir, spec.tty) == (
        2,
        "sha256:1",
        "web:1",
        "/srv",
        True,
    )
    assert field_path(pod, "main") == "spec.containers{main}"


def test_simulated_behaviour_is_for_all_containers_or_for_one(pod_of: Any) -> None:
    pod = pod_of(containers=[{"name": "a", "image": "x"}, {"name": "b", "image": "x"}])
    prefix = "simulated.steersman/"
    pod["metadata"]["annotations"] = {
        f"{prefix}cpu": "1m",
        f"{prefix}a.exit-code": "3",
        f"{prefix}b.cpu": "2m",
        "x": "y",
    }
    assert simulation(pod, "a") == (("cpu", "1m"), ("exit-code", "3"))
    assert simulation(pod, "b") == (("cpu", "2m"),)


def _resources(requests: Obj | None = None, limits: Obj | None = None, **more: Any) -> Obj:
    return {"name": "c", "image": "x", "resources": {"requests": requests or {}, "limits": limits or {}}, **more}


QOS = [
    ([_resources()], "BestEffort"),
    ([_resources({"cpu": "1"})], "Burstable"),
    ([_resources({}, {"cpu": "1", "memory": "1Gi"})], "Guaranteed"),
    ([_resources({"cpu": "500m", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi"})], "Burstable"),
    ([_resources({}, {"cpu": "1", "memory": "1Gi"}), _resources()], "Burstable"),
    ([_resources({"cpu": "0"})], "BestEffort"),
]


@pytest.mark.parametrize(("containers", "expected"), QOS, ids=[str(index) for index in range(len(QOS))])
def test_quality_of_service(pod_of: Any, containers: list[Obj], expected: str) -> None:
    assert qos_class(pod_of(containers=containers)) == expected


def test_a_pod_needs_what_its_hungriest_moment_needs(pod_of: Any) -> None:
    init = _resources({"cpu": "2"})
    side = _resources({"cpu": "500m"}, restartPolicy="Always")
    mains = [_resources({"cpu": "300m", "memory": "1Gi"}), _resources({"cpu": "300m"})]
    pod = pod_of(initContainers=[side, init], containers=mains, overhead={"cpu": "100m"})
    assert effective_requests(pod) == {"cpu": "2600m", "memory": "1Gi"}
    pod = pod_of(initContainers=[init, side], containers=mains)
    assert effective_requests(pod) == {"cpu": "2", "memory": "1Gi"}


def test_cgroup_numbers(pod_of: Any) -> None:
    assert [cpu_shares(milli) for milli in (0, 1, 250, 1000, 10**9)] == [2, 2, 256, 1024, 262144]
    assert [cpu_quota_us(milli) for milli in (0, 5, 250)] == [0, 1000, 25000]
    main = _resources({"cpu": "250m", "memory": "64Mi"}, {"cpu": "1", "memory": "128Mi"})
    found = container_resources(pod_of(containers=[main]), main, 8 << 30)
    assert (found.cpu_shares, found.cpu_quota_us, found.memory_limit_bytes) == (256, 100_000, 128 << 20)
    assert 3 <= found.oom_score_adj <= 999
    best = _resources()
    assert container_resources(pod_of(containers=[best]), best, 8 << 30).oom_score_adj == 1000
    sure = _resources({}, {"cpu": "1", "memory": "1Gi"})
    assert container_resources(pod_of(containers=[sure]), sure, 8 << 30).oom_score_adj == -997
    whole = pod_resources(pod_of(containers=[main, sure]))
    assert (whole.cpu_quota_us, whole.memory_limit_bytes) == (200_000, (128 << 20) + (1 << 30))
    assert pod_resources(pod_of(containers=[main, best])).memory_limit_bytes == 0


def test_the_containers_security_context_wins_over_the_pods(pod_of: Any) -> None:
    own = {
        "runAsUser": 7,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
    }
    shared = {"runAsUser": 5, "runAsGroup": 6, "fsGroup": 9, "supplementalGroups": [8, 9]}
    main = {"name": "main", "image": "x", "securityContext": own}
    found = security_context(pod_of(containers=[main], securityContext=shared), main)
    assert (found.run_as_user, found.run_as_group, found.supplemental_groups) == (7, 6, (8, 9))
    assert (found.no_new_privileges, found.read_only_root) == (True, True)
    assert (found.capabilities_add, found.capabilities_drop) == (("NET_ADMIN",), ("ALL",))


NON_ROOT = [
    ("", None, "image will run as root"),
    ("0:0", None, "image will run as root"),
    ("app", None, "non-numeric user (app)"),
    ("1000:1000", None, ""),
    ("", 1000, ""),
    ("1000", 0, "runAsUser breaks non-root policy"),
]


@pytest.mark.parametrize(("user", "run_as", "refusal"), NON_ROOT, ids=str)
def test_non_root_is_checked_against_the_image(pod_of: Any, user: str, run_as: int | None, refusal: str) -> None:
    own: Obj = {"runAsNonRoot": True}
    if run_as is not None:
        own["runAsUser"] = run_as
    main = {"name": "main", "image": "x", "securityContext": own}
    image = Image(id="sha256:1", names=(), user=user)
    if not refusal:
        check_non_root(pod_of(containers=[main]), main, image)
        return
    with pytest.raises(RuntimeFailure) as caught:
        check_non_root(pod_of(containers=[main]), main, image)
    assert refusal in caught.value.message


REFERENCES = [
    ("web", "docker.io/library/web:latest"),
    ("user/web:2", "docker.io/user/web:2"),
    ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
    ("example.com/web:1", "example.com/web:1"),
    ("web:1@sha256:" + "a" * 64, "docker.io/library/web:1@sha256:" + "a" * 64),
    ("sha256:" + "b" * 64, "sha256:" + "b" * 64),
]


@pytest.mark.parametrize(("short", "full"), REFERENCES)
def test_references_have_a_full_form(short: str, full: str) -> None:
    assert full_reference(short) == full


@pytest.mark.parametrize("bad", ["", "Web", "web:", "a//b", "web:1:2", "user/WEB", "-x"])
def test_bad_references_are_refused(bad: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        full_reference(bad)
    assert caught.value.reason == "InvalidImageName"


PULLS = [
    (None, "web:latest", True, True),
    (None, "web", True, True),
    (None, "web:1", True, False),
    (None, "web:1", False, True),
    ("Always", "web:1", True, True),
    ("IfNotPresent", "web", True, False),
    ("Never", "web", True, False),
]


@pytest.mark.parametrize(("policy", "image", "present", "pulled"), PULLS, ids=str)
def test_pull_policies(policy: str | None, image: str, present: bool, pulled: bool) -> None:
    assert must_pull({"image": image, "imagePullPolicy": policy}, present) is pulled
    assert default_policy("web") == "Always"


def test_never_pulling_an_absent_image_is_an_error() -> None:
    with pytest.raises(RuntimeFailure) as caught:
        must_pull({"image": "web:1", "imagePullPolicy": "Never"}, False)
    assert caught.value.reason == "ErrImageNeverPull"


def _secret(key: str, content: Any) -> Obj:
    return {"data": {key: base64.b64encode(json.dumps(content).encode()).decode()}}


def test_pull_secrets_are_read_in_both_forms_and_nonsense_is_passed_over() -> None:
    encoded = base64.b64encode(b"me:pa:ss").decode()
    auths = {"example.com": {"auth": encoded}, "other.io": {"username": "u", "password": "p"}, "empty.io": {}}
    rows = parse_pull_secret(_secret(".dockerconfigjson", {"auths": auths}))
    assert [(row.registry, row.auth.username, row.auth.password) for row in rows] == [
        ("example.com", "me", "pa:ss"),
        ("other.io", "u", "p"),
    ]
    assert parse_pull_secret(_secret(".dockercfg", {"a.io": {"auth": encoded}}))[0].registry == "a.io"
    assert parse_pull_secret({"data": {".dockerconfigjson": "not base64"}}) == []
    assert parse_pull_secret(_secret(".dockerconfigjson", ["no"])) == []
    assert parse_pull_secret({}) == []


CREDENTIALS = [
    ("example.com/team/web:1", ["example.com/team", "example.com"]),
    ("example.com/other/web:1", ["example.com"]),
    ("sub.example.com/web", ["*.example.com"]),
    ("web", ["https://index.docker.io/v1/"]),
    ("127.0.0.1:5000/web", ["127.0.0.1:5000"]),
    ("nobody.io/web", []),
]


@pytest.mark.parametrize(("image", "registries"), CREDENTIALS, ids=[row[0] for row in CREDENTIALS])
def test_credentials_go_to_their_registry_alone(image: str, registries: list[str]) -> None:
    names = [
        "example.com",
        "example.com/team",
        "*.example.com",
        "https://index.docker.io/v1/",
        "127.0.0.1:5000",
    ]
    auths = {name: {"username": name, "password": "x"} for name in names}
    rows = parse_pull_secret(_secret(".dockerconfigjson", {"auths": auths}))
    assert credentials_for(image, rows) == tuple(RegistryAuth(username=name, password="x") for name in registries)
