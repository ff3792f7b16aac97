"""Volumes, sandboxes, probes, back-off, admission, eviction, and the Node object."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from steersman.cluster.node.admission import admit, matches_node, requested
from steersman.cluster.node.backoff import Backoff, failed, next_backoff, ready_at
from steersman.cluster.node.config import NodeConfig
from steersman.cluster.node.eviction import Pressure, eviction, victim
from steersman.cluster.node.node_object import is_same_status, lease_object, node_object, node_status
from steersman.cluster.node.probes import ProbeKind, after, begin, is_over, must_kill, parse_probe
from steersman.cluster.node.sandbox import dns_config, hostname, sandbox_spec
from steersman.cluster.node.streams import exec_status, log_line
from steersman.cluster.node.values import Image, RuntimeFailure, RuntimeInfo
from steersman.cluster.node.volumes import (
    EmptyDir,
    HostPath,
    Payload,
    TokenSource,
    mount_plans,
    payload_files,
    plan,
    tokens_of,
    wanted,
)

NOW = 1_767_225_600.0
Obj = dict[str, Any]

# --- volumes


def _files(pod: Obj, configuration: Any = (), tokens: Any = ()) -> dict[str, tuple[bytes, int]]:
    payload = next(row for row in plan(pod) if isinstance(row, Payload))
    return payload_files(
        pod, payload, dict(configuration), dict(tokens), ips=(), host_ip="10.0.0.1", allocatable={"cpu": "4"}
    )


def test_every_supported_volume_has_a_plan(pod_of: Any) -> None:
    volumes = [
        {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "bare"},
        {"name": "host", "hostPath": {"path": "/data", "type": "Directory"}},
        {"name": "config", "configMap": {"name": "c"}},
        {"name": "secret", "secret": {"secretName": "s"}},
    ]
    found = plan(pod_of(volumes=volumes))
    assert found[0] == EmptyDir(volume="scratch", in_memory=True, size_bytes_max=1 << 20)
    assert found[1] == EmptyDir(volume="bare")
    assert found[2] == HostPath(volume="host", path="/data", kind="Directory")
    assert [row.in_memory for row in found[3:] if isinstance(row, Payload)] == [False, True]
    assert wanted(found) == [("ConfigMap", "c"), ("Secret", "s")]


def test_an_unsupported_volume_is_refused_by_name(pod_of: Any) -> None:
    with pytest.raises(RuntimeFailure, match="nfs volumes are not supported on this node"):
        plan(pod_of(volumes=[{"name": "x", "nfs": {"server": "a", "path": "/"}}]))


def test_items_choose_keys_paths_and_modes(pod_of: Any) -> None:
    source = {"name": "c", "defaultMode": 0o600, "items": [{"key": "a", "path": "dir/a", "mode": 0o400}]}
    pod = pod_of(volumes=[{"name": "v", "configMap": source}])
    configuration = {("ConfigMap", "c"): {"data": {"a": "1", "b": "2"}}}
    assert _files(pod, configuration) == {"dir/a": (b"1", 0o400)}
    everything = pod_of(volumes=[{"name": "v", "configMap": {"name": "c"}}])
    binary = {("ConfigMap", "c"): {"data": {"a": "1"}, "binaryData": {"z": base64.b64encode(b"\xff").decode()}}}
    assert _files(everything, binary) == {"a": (b"1", 0o644), "z": (b"\xff", 0o644)}


MISSING = [
    ({"configMap": {"name": "c"}}, 'configmap "c" not found'),
    ({"secret": {"secretName": "s"}}, 'secret "s" not found'),
    (
        {"configMap": {"name": "d", "items": [{"key": "k", "path": "k"}]}},
        "references non-existent configmap key: k in default/d",
    ),
]


@pytest.mark.parametrize(("source", "message"), MISSING, ids=[row[1] for row in MISSING])
def test_what_is_missing_fails_the_mount_unless_optional(pod_of: Any, source: Obj, message: str) -> None:
    configuration = {("ConfigMap", "d"): {"data": {}}}
    with pytest.raises(RuntimeFailure) as caught:
        _files(pod_of(volumes=[{"name": "v", **source}]), configuration)
    assert caught.value.message == f'MountVolume.SetUp failed for volume "v" : {message}'
    optional = {kind: {**fields, "optional": True} for kind, fields in source.items()}
    assert _files(pod_of(volumes=[{"name": "v", **optional}]), configuration) == {}


def test_a_projected_volume_joins_its_sources(pod_of: Any) -> None:
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
    pod = pod_of(volumes=[{"name": "v", "projected": {"defaultMode": 0o440, "sources": sources}}])
    token = TokenSource(path="token", expiration_s=3607)
    assert tokens_of(plan(pod)) == [token]
    files = _files(pod, {("ConfigMap", "ca"): {"data": {"ca.crt": "PEM"}}}, {token: "jwt"})
    assert {path: data for path, (data, _) in files.items()} == {
        "token": b"jwt",
        "ca.crt": b"PEM",
        "namespace": b"default",
        "labels": b'app="web"',
    }
    assert {mode for _, mode in files.values()} == {0o440}


def test_mounts_know_their_sub_paths(pod_of: Any) -> None:
    mounts = [
        {"name": "v", "mountPath": "/a", "subPathExpr": "logs/$(POD)"},
        {"name": "v", "mountPath": "/b", "readOnly": True, "mountPropagation": "HostToContainer"},
        {"name": "c", "mountPath": "/c"},
    ]
    pod = pod_of(volumes=[{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c"}}])
    found = mount_plans(pod, {"name": "main", "volumeMounts": mounts}, {"POD": "web"})
    assert [(row.sub_path, row.read_only, row.propagation) for row in found] == [
        ("logs/web", False, "None"),
        ("", True, "HostToContainer"),
        ("", True, "None"),
    ]
    with pytest.raises(RuntimeFailure, match="subPathExpr"):
        mount_plans(pod, {"name": "main", "volumeMounts": mounts[:1]}, {})
    with pytest.raises(RuntimeFailure, match='cannot find volume "no"'):
        mount_plans(pod, {"name": "main", "volumeMounts": [{"name": "no", "mountPath": "/x"}]}, {})


# --- sandboxes

DNS = [
    ({}, ("10.96.0.10",), ("default.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"), ("ndots:5",)),
    ({"dnsPolicy": "Default"}, ("9.9.9.9",), ("lan",), ("timeout:1",)),
    ({"hostNetwork": True}, ("9.9.9.9",), ("lan",), ("timeout:1",)),
    (
        {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
        ("10.96.0.10",),
        ("default.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"),
        ("ndots:5",),
    ),
    (
        {
            "dnsPolicy": "None",
            "dnsConfig": {
                "nameservers": ["1.1.1.1"],
                "searches": ["x.y"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
            },
        },
        ("1.1.1.1",),
        ("x.y",),
        ("ndots:2", "edns0"),
    ),
]


@pytest.mark.parametrize(("spec", "servers", "searches", "options"), DNS, ids=[str(row[0])[:40] for row in DNS])
def test_dns_policies(pod_of: Any, node: Any, spec: Obj, servers: Any, searches: Any, options: Any) -> None:
    found = dns_config(pod_of(**spec), node.config)
    assert (found.servers, found.searches, found.options) == (servers, searches, options)


HOSTNAMES = [
    ({}, "web"),
    ({"hostname": "other", "subdomain": "sub"}, "other"),
    ({"hostNetwork": True}, "host-1"),
    ({"hostname": "h", "subdomain": "sub", "setHostnameAsFQDN": True}, "h.sub.default.svc.cluster.local"),
]


@pytest.mark.parametrize(("spec", "expected"), HOSTNAMES, ids=[row[1] for row in HOSTNAMES])
def test_host_names(pod_of: Any, node: Any, spec: Obj, expected: str) -> None:
    assert hostname(pod_of(**spec), node.config) == expected


def test_a_sandbox_has_ports_aliases_and_sysctls(pod_of: Any, node: Any) -> None:
    ports = [{"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"}, {"containerPort": 81}]
    pod = pod_of(
        containers=[{"name": "main", "image": "x", "ports": ports}],
        hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a", "b"]}],
        securityContext={"sysctls": [{"name": "net.a", "value": "1"}]},
    )
    spec = sandbox_spec(pod, node.config, 3)
    assert [(row.container_port, row.host_port, row.host_ip) for row in spec.port_mappings] == [(80, 8080, "127.0.0.1")]
    assert (spec.host_aliases, spec.sysctls, spec.attempt) == ((("1.2.3.4", ("a", "b")),), (("net.a", "1"),), 3)
    on_host = sandbox_spec({**pod, "spec": {**pod["spec"], "hostNetwork": True}}, node.config, 0)
    assert on_host.port_mappings == ()


def test_a_pod_with_a_subdomain_has_a_full_name(pod_of: Any, node: Any) -> None:
    row = pod_of(hostname="h", subdomain="sub")
    assert sandbox_spec(row, node.config, 0).fqdn == "h.sub.default.svc.cluster.local"
    on_host = {**row, "spec": {**row["spec"], "hostNetwork": True}}
    assert sandbox_spec(on_host, node.config, 0).fqdn == ""
    assert sandbox_spec(pod_of(hostname="h"), node.config, 0).fqdn == ""


# --- probes and back-off


def test_probes_have_kubernetes_defaults() -> None:
    spec = parse_probe({"livenessProbe": {"exec": {"command": ["x"]}}}, ProbeKind.LIVENESS)
    assert spec is not None
    assert (spec.period_s, spec.deadline_s, spec.failure_threshold, spec.success_threshold) == (10, 1, 3, 1)
    assert parse_probe({}, ProbeKind.READINESS) is None


SEQUENCES = [
    (ProbeKind.LIVENESS, {}, "...", True, False),
    (ProbeKind.LIVENESS, {}, ".xx", True, False),
    (ProbeKind.LIVENESS, {}, "xxx", False, True),
    (ProbeKind.LIVENESS, {}, "x?x?x", False, True),
    (ProbeKind.READINESS, {}, "", False, False),
    (ProbeKind.READINESS, {"successThreshold": 2}, ".", False, False),
    (ProbeKind.READINESS, {"successThreshold": 2}, "..", True, False),
    (ProbeKind.READINESS, {}, ".xxx", False, False),
    (ProbeKind.READINESS, {}, ".xx.xx", True, False),
    (ProbeKind.STARTUP, {"failureThreshold": 5}, "xxxx", False, False),
    (ProbeKind.STARTUP, {"failureThreshold": 5}, "xxxxx", False, True),
    (ProbeKind.STARTUP, {"failureThreshold": 5}, "xxxx.", True, False),
]


@pytest.mark.parametrize(("kind", "fields", "answers", "verdict", "kill"), SEQUENCES, ids=lambda value: str(value))
def test_verdicts_turn_at_their_thresholds(
    kind: ProbeKind, fields: Obj, answers: str, verdict: bool, kill: bool
) -> None:
    spec = parse_probe({f"{kind}Probe": {"exec": {}, **fields}}, kind)
    assert spec is not None
    state = begin(spec, NOW, NOW)
    for answer in answers:
        state = after(spec, state, {".": True, "x": False, "?": None}[answer], NOW)
    assert (state.verdict, must_kill(spec, state)) == (verdict, kill)
    assert is_over(spec, state) is (kill or (kind is ProbeKind.STARTUP and verdict))


def test_the_first_probe_waits_for_its_delay_and_the_next_for_the_period() -> None:
    spec = parse_probe(
        {"readinessProbe": {"exec": {}, "initialDelaySeconds": 15, "periodSeconds": 4}}, ProbeKind.READINESS
    )
    assert spec is not None
    state = begin(spec, NOW, NOW + 1)
    assert state.due_at == NOW + 15
    assert after(spec, state, True, NOW + 15).due_at == NOW + 19
    assert begin(spec, NOW, NOW + 99, known=True).verdict


def test_back_off_doubles_to_five_minutes_and_forgets() -> None:
    backoff, now, delays = None, NOW, []
    for _ in range(7):
        backoff = next_backoff(backoff, now, now)
        delays.append(backoff.delay_s)
        now = ready_at(backoff, now)
    assert delays == [10, 20, 40, 80, 160, 300, 300]
    assert next_backoff(backoff, now + 601, now + 601) == Backoff(delay_s=10, since=now + 601)
    assert ready_at(None, NOW) == NOW
    twice = failed(failed(None, "A", "m", NOW), "A", "m", NOW + 10)
    assert (twice.retry_at, failed(twice, "A", "m", NOW, max_s=20).retry_at) == (NOW + 30, NOW + 20)


# --- admission and eviction

NODE: Obj = {"metadata": {"name": "n1", "labels": {"disk": "ssd", "cores": "8"}}, "spec": {},
             "status": {"allocatable": {"example.com/gpu": "2"}}}  # fmt: skip


def _asking(pod_of: Any, requests: Obj, **spec: Any) -> Obj:
    pod: Obj = pod_of(containers=[{"name": "main", "image": "x", "resources": {"requests": requests}}], **spec)
    return pod


FITS = [
    ({"cpu": "1"}, {"cpu": 3000}, ""),
    ({"cpu": "1"}, {"cpu": 3001}, "OutOfcpu"),
    ({"memory": "2Gi"}, {}, "OutOfmemory"),
    ({}, {"pods": 10}, "OutOfpods"),
    ({"example.com/gpu": "3"}, {}, "OutOfexample.com/gpu"),
    ({"example.com/gpu": "2"}, {}, ""),
    ({"example.com/unknown": "1"}, {}, ""),
    ({"ephemeral-storage": "1Gi"}, {}, ""),
]


@pytest.mark.parametrize(("requests", "used", "reason"), FITS, ids=str)
def test_what_does_not_fit_is_refused(pod_of: Any, requests: Obj, used: Obj, reason: str) -> None:
    refusal = admit(_asking(pod_of, requests), NODE, used, {"cpu": "4", "memory": "1Gi", "pods": "10"})
    assert (refusal.reason if refusal else "") == reason


def _terms(*expressions: Obj) -> Obj:
    terms = [{"matchExpressions": list(expressions)}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


PLACES = [
    ({"nodeSelector": {"disk": "ssd"}}, True),
    ({"nodeSelector": {"disk": "hdd"}}, False),
    ({"affinity": _terms({"key": "disk", "operator": "In", "values": ["ssd", "nvme"]})}, True),
    ({"affinity": _terms({"key": "cores", "operator": "Gt", "values": ["8"]})}, False),
    ({"affinity": _terms({"key": "gpu", "operator": "DoesNotExist"})}, True),
    ({"affinity": _terms()}, False),
]


@pytest.mark.parametrize(("spec", "fits"), PLACES, ids=str)
def test_selectors_and_affinity_hold_at_the_node_too(pod_of: Any, spec: Obj, fits: bool) -> None:
    assert matches_node(pod_of(**spec), NODE) is fits
    refusal = admit(pod_of(**spec), NODE, {}, {"pods": "10"})
    assert (refusal is None) is fits
    assert fits or (refusal is not None and refusal.reason == "NodeAffinity")


def test_only_no_execute_taints_keep_a_bound_pod_out(pod_of: Any) -> None:
    tainted = {**NODE, "spec": {"taints": [{"key": "a", "value": "b", "effect": "NoExecute"}]}}
    soft = {**NODE, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
    pod = pod_of()
    assert admit(pod, soft, {}, {"pods": "10"}) is None
    refusal = admit(pod, tainted, {}, {"pods": "10"})
    assert refusal is not None and refusal.reason == "TaintToleration"
    assert admit(pod_of(tolerations=[{"key": "a", "operator": "Exists"}]), tainted, {}, {"pods": "10"}) is None
    assert admit(pod_of(tolerations=[{"key": "a", "value": "b"}]), tainted, {}, {"pods": "10"}) is None
    assert requested(pod) == {"pods": 1}


def test_the_pod_furthest_over_its_request_is_evicted_and_critical_ones_never(pod_of: Any) -> None:
    def pod(uid: str, request: str = "0", priority: int = 0) -> Obj:
        made = _asking(pod_of, {"memory": request}, priority=priority)
        return {**made, "metadata": {**made["metadata"], "uid": uid}}

    pods = [pod("within", "1Gi"), pod("over", "10Mi"), pod("more-over", "10Mi"), pod("critical", priority=2 * 10**9)]
    usage = {name: {"main": size << 20} for name, size in (("within", 900), ("over", 50), ("more-over", 60))}
    usage["critical"] = {"main": 1 << 30}
    found = victim(pods, usage)
    assert found is not None and found["metadata"]["uid"] == "more-over"
    important = pod("more-over", "10Mi", priority=5)
    found = victim([*pods[:2], important], usage)
    assert found is not None and found["metadata"]["uid"] == "over"
    assert victim([], {}) is None
    refusal = eviction(pods[2], usage["more-over"], 50 << 20, 100 << 20)
    assert refusal.message == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51200Ki. "
        "Container main was using 61440Ki, request is 10Mi, has larger consumption of memory. "
    )


# --- the node

INFO = RuntimeInfo(name="oci", version="crun 1.8", pod_network="bridge", isolation=True)


def test_the_node_says_what_it_is() -> None:
    config = NodeConfig(
        name="n1",
        address="10.0.0.1",
        capacity={"cpu": "4", "memory": "8Gi", "pods": "110"},
        reserved={"cpu": "500m", "memory": "16Gi"},
        labels={"zone": "a"},
        port=10250,
    )
    made = node_object(config, INFO)
    assert made["metadata"]["labels"]["zone"] == "a"
    assert made["metadata"]["labels"]["kubernetes.io/os"] == "linux"
    images = [Image(id=f"sha256:{size}", names=(f"i:{size}",), size_bytes=size) for size in range(60)]
    status = node_status(config, INFO, images, Pressure(), NOW, ready=True, message="ok", before={})
    assert status["allocatable"] == {"cpu": "3500m", "memory": "0", "pods": "110"}
    assert status["nodeInfo"]["containerRuntimeVersion"] == "oci://crun 1.8"
    assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    assert len(status["images"]) == 50 and status["images"][0]["sizeBytes"] == 59


def test_conditions_turn_with_the_pressure_and_keep_their_times() -> None:
    config = NodeConfig(name="n1", address="10.0.0.1")
    calm = node_status(config, INFO, (), Pressure(), NOW, ready=True, message="ok", before={})
    low = Pressure(memory_available_bytes=1, disk_available_percent=5.0, pids_available=10)
    pressed = node_status(config, INFO, (), low, NOW + 60, ready=True, message="ok", before=calm)
    rows = {row["type"]: row for row in pressed["conditions"]}
    assert [rows[kind]["status"] for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")] == ["True"] * 3
    assert rows["MemoryPressure"]["reason"] == "KubeletHasInsufficientMemory"
    assert rows["Ready"]["lastTransitionTime"] != rows["MemoryPressure"]["lastTransitionTime"]
    later = node_status(config, INFO, (), Pressure(), NOW + 60, ready=True, message="ok", before=calm)
    assert is_same_status(calm, later)
    assert not is_same_status(calm, pressed)


def test_the_lease_belongs_to_the_node() -> None:
    lease = lease_object(NodeConfig(name="n1", address="10.0.0.1"), "uid-1", NOW)
    assert lease["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert lease["spec"]["renewTime"] == "2026-01-01T00:00:00.000000Z"


def test_small_things_that_streams_say() -> None:
    assert exec_status(0) == {"metadata": {}, "status": "Success"}
    assert exec_status(3)["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
    assert log_line(NOW + 0.5, b"x\n", timestamps=True) == b"2026-01-01T00:00:00.500000000Z x\n"
