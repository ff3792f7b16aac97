from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api.columns import COLUMNS
from steersman.cluster.api.columns.descriptions import description
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.table import included, table
from steersman.cluster.meta.errors import BadRequest
from steersman.cluster.meta.times import format_time, parse_time

Obj = dict[str, Any]
CREATED = "2026-01-01T00:00:00Z"
NOW = parse_time(CREATED) + 300


def ago(seconds: float) -> str:
    return format_time(NOW - seconds)


def meta(name: str, **more: Any) -> Obj:
    return {"name": name, "creationTimestamp": CREATED, **more}


def row(kind: str, api_version: str, obj: Obj) -> dict[str, Any]:
    """The cells of one object by column name."""
    found = table(kind, api_version, [obj], NOW)
    names = [column["name"] for column in found["columnDefinitions"]]
    cells = found["rows"][0]["cells"]
    assert len(names) == len(cells)
    return dict(zip(names, cells, strict=True))


HEADINGS = [
    ("Pod", "v1", "Name Ready Status Restarts Age | IP, Node, Nominated Node, Readiness Gates"),
    (
        "Node",
        "v1",
        "Name Status Roles Age Version | Internal-IP, External-IP, OS-Image, Kernel-Version, Container-Runtime",
    ),
    ("Namespace", "v1", "Name Status Age | "),
    ("ValidatingAdmissionPolicy", "admissionregistration.k8s.io/v1", "Name Validations ParamKind Age | "),
    ("MutatingAdmissionPolicy", "admissionregistration.k8s.io/v1", "Name Mutations ParamKind Age | "),
    ("ValidatingAdmissionPolicyBinding", "admissionregistration.k8s.io/v1", "Name PolicyName ParamRef Age | "),
    ("Service", "v1", "Name Type Cluster-IP External-IP Port(s) Age | Selector"),
    ("Endpoints", "v1", "Name Endpoints Age | "),
    ("EndpointSlice", "discovery.k8s.io/v1", "Name AddressType Ports Endpoints Age | "),
    ("ConfigMap", "v1", "Name Data Age | "),
    ("Secret", "v1", "Name Type Data Age | "),
    ("ServiceAccount", "v1", "Name Secrets Age | "),
    ("Event", "v1", "Last Seen Type Reason Object Message | Subobject, Source, First Seen, Count, Name"),
    ("Lease", "coordination.k8s.io/v1", "Name Holder Age | "),
    ("Deployment", "apps/v1", "Name Ready Up-to-date Available Age | Containers, Images, Selector"),
    ("ReplicaSet", "apps/v1", "Name Desired Current Ready Age | Containers, Images, Selector"),
    ("StatefulSet", "apps/v1", "Name Ready Age | Containers, Images"),
    (
        "DaemonSet",
        "apps/v1",
        "Name Desired Current Ready Up-to-date Available Node Selector Age | Containers, Images, Selector",
    ),
    ("Job", "batch/v1", "Name Status Completions Duration Age | Containers, Images, Selector"),
    (
        "CronJob",
        "batch/v1",
        "Name Schedule Timezone Suspend Active Last Schedule Age | Containers, Images, Selector",
    ),
    ("Role", "rbac.authorization.k8s.io/v1", "Name Created At | "),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io/v1", "Name Role Age | Users, Groups, ServiceAccounts"),
    ("PriorityClass", "scheduling.k8s.io/v1", "Name Value Global-Default Age PreemptionPolicy | "),
    ("CustomResourceDefinition", "apiextensions.k8s.io/v1", "Name Created At | "),
    (
        "PersistentVolumeClaim",
        "v1",
        "Name Status Volume Capacity Access Modes StorageClass VolumeAttributesClass Age | VolumeMode",
    ),
    (
        "PersistentVolume",
        "v1",
        "Name Capacity Access Modes Reclaim Policy Status Claim StorageClass VolumeAttributesClass Reason Age"
        " | VolumeMode",
    ),
    ("PodDisruptionBudget", "policy/v1", "Name Min Available Max Unavailable Allowed Disruptions Age | "),
    ("HorizontalPodAutoscaler", "autoscaling/v2", "Name Reference Targets MinPods MaxPods Replicas Age | "),
    (
        "StorageClass",
        "storage.k8s.io/v1",
        "Name Provisioner ReclaimPolicy VolumeBindingMode AllowVolumeExpansion Age | ",
    ),
    ("Anything", "example.com/v1", "Name Age | "),
]


@pytest.mark.parametrize("kind,version,expected", HEADINGS, ids=[r[0] for r in HEADINGS])
def test_headings_are_those_of_kubectl(kind: str, version: str, expected: str) -> None:
    columns = table(kind, version, [], NOW)["columnDefinitions"]
    plain = " ".join(c["name"] for c in columns if c["priority"] == 0)
    assert f"{plain} | {', '.join(c['name'] for c in columns if c['priority'])}" == expected
    bare: Obj = {"metadata": meta("x")}
    assert len(table(kind, version, [bare], NOW)["rows"][0]["cells"]) == len(columns)


def running(name: str = "c", restarts: int = 0, ready: bool = True, **more: Any) -> Obj:
    return {
        "name": name,
        "ready": ready,
        "restartCount": restarts,
        "state": {"running": {"startedAt": CREATED}},
        **more,
    }


def waiting(reason: str, restarts: int = 0, **more: Any) -> Obj:
    return {"name": "c", "ready": False, "restartCount": restarts, "state": {"waiting": {"reason": reason}}, **more}


def ended(code: int, reason: str = "", **more: Any) -> Obj:
    state = {"terminated": {"exitCode": code, **({"reason": reason} if reason else {})}}
    return {"name": "c", "ready": False, "restartCount": 0, "state": state, **more}


def pod(phase: str, *statuses: Obj, init: tuple[Obj, ...] = (), **more: Any) -> Obj:
    spec: Obj = {"containers": [{"name": s["name"]} for s in statuses] or [{"name": "c"}]}
    if init:
        spec["initContainers"] = [{"name": s["name"], **s.pop("spec", {})} for s in init]
    status = {"phase": phase, "containerStatuses": list(statuses), "initContainerStatuses": list(init)}
    status |= more.pop("status", {})
    return {"metadata": meta("p", **more), "spec": spec, "status": status}


def initialized() -> Obj:
    return {"conditions": [{"type": "Initialized", "status": "True"}]}


PODS = [
    ("pending", pod("Pending"), "0/1", "Pending", "0"),
    ("running", pod("Running", running("a"), running("b", ready=False)), "1/2", "Running", "0"),
    (
        "crash loop",
        pod("Running", waiting("CrashLoopBackOff", 4, lastState={"terminated": {"finishedAt": ago(60)}})),
        "0/1",
        "CrashLoopBackOff",
        "4 (60s ago)",
    ),
    ("completed", pod("Succeeded", ended(0, "Completed")), "0/1", "Completed", "0"),
    ("failed with code", pod("Failed", ended(3)), "0/1", "ExitCode:3", "0"),
    ("out of memory", pod("Failed", ended(137, "OOMKilled")), "0/1", "OOMKilled", "0"),
    ("creating", pod("Pending", waiting("ContainerCreating")), "0/1", "ContainerCreating", "0"),
    ("init running", pod("Pending", init=(running("i", ready=False),)), "0/1", "Init:0/1", "0"),
    (
        "init failing",
        pod("Pending", init=(waiting("CrashLoopBackOff", 2),)),
        "0/1",
        "Init:CrashLoopBackOff",
        "2",
    ),
    ("init failed", pod("Failed", init=(ended(1, "Error"),)), "0/1", "Init:Error", "0"),
    (
        "second init",
        pod("Pending", init=(ended(0, "Completed"), running("j", ready=False))),
        "0/1",
        "Init:1/2",
        "0",
    ),
    (
        "sidecar",
        pod("Running", running("a"), init=(running("s", started=True, spec={"restartPolicy": "Always"}),)),
        "2/2",
        "Running",
        "0",
    ),
    (
        "deleting",
        pod("Running", running(), deletionTimestamp=CREATED),
        "1/1",
        "Terminating",
        "0",
    ),
    (
        "lost node",
        pod("Running", running(), deletionTimestamp=CREATED, status={"reason": "NodeLost"}),
        "1/1",
        "Unknown",
        "0",
    ),
    ("evicted", pod("Failed", status={"reason": "Evicted"}), "0/1", "Evicted", "0"),
    (
        "gated",
        pod(
            "Pending", status={"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}
        ),
        "0/1",
        "SchedulingGated",
        "0",
    ),
    (
        "one of two done, not ready",
        pod("Running", ended(0, "Completed"), running("b")),
        "1/2",
        "NotReady",
        "0",
    ),
]


@pytest.mark.parametrize("name,obj,ready,word,restarts", PODS, ids=[r[0] for r in PODS])
def test_pod_cells(name: str, obj: Obj, ready: str, word: str, restarts: str) -> None:
    cells = row("Pod", "v1", obj)
    assert (cells["Ready"], cells["Status"], cells["Restarts"], cells["Age"]) == (ready, word, restarts, "5m")


def test_pod_wide_cells() -> None:
    obj = pod("Running", running(), status={"podIPs": [{"ip": "10.0.0.1"}]})
    obj["spec"] |= {"nodeName": "n1", "readinessGates": [{"conditionType": "x"}]}
    cells = row("Pod", "v1", obj)
    assert [cells[k] for k in ("IP", "Node", "Nominated Node", "Readiness Gates")] == [
        "10.0.0.1",
        "n1",
        "<none>",
        "0/1",
    ]


def test_node_cells() -> None:
    labels = {"node-role.kubernetes.io/control-plane": "", "node-role.kubernetes.io/worker": ""}
    node = {
        "metadata": meta("n", labels=labels),
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "10.1.1.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian"},
        },
    }
    cells = row("Node", "v1", node)
    assert cells["Status"] == "Ready,SchedulingDisabled" and cells["Roles"] == "control-plane,worker"
    assert cells["Internal-IP"] == "10.1.1.1" and cells["External-IP"] == "<none>" and cells["OS-Image"] == "Debian"
    assert row("Node", "v1", {"metadata": meta("n")})["Status"] == "Unknown"


SERVICES = [
    ({"type": "ClusterIP", "clusterIP": "10.0.0.1", "ports": [{"port": 80, "protocol": "TCP"}]}, "<none>", "80/TCP"),
    ({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080, "protocol": "UDP"}]}, "<none>", "80:30080/UDP"),
    ({"type": "LoadBalancer", "ports": []}, "<pending>", "<none>"),
    ({"type": "ExternalName", "externalName": "a.b"}, "a.b", "<none>"),
    ({"type": "ClusterIP", "externalIPs": ["1.1.1.1", "2.2.2.2"]}, "1.1.1.1,2.2.2.2", "<none>"),
]


@pytest.mark.parametrize("spec,external,ports", SERVICES)
def test_service_cells(spec: Obj, external: str, ports: str) -> None:
    cells = row("Service", "v1", {"metadata": meta("s"), "spec": spec})
    assert (cells["External-IP"], cells["Port(s)"]) == (external, ports)


def test_endpoints_show_three_addresses_and_how_many_more() -> None:
    addresses = [{"ip": f"10.0.0.{i}"} for i in range(1, 6)]
    obj = {"metadata": meta("e"), "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]}
    assert row("Endpoints", "v1", obj)["Endpoints"] == "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more..."
    slice_ = {
        "metadata": meta("e"),
        "addressType": "IPv4",
        "ports": [{"port": 80}],
        "endpoints": [{"addresses": [row["ip"]]} for row in addresses],
    }
    cells = row("EndpointSlice", "discovery.k8s.io/v1", slice_)
    assert (cells["Ports"], cells["Endpoints"]) == ("80", "10.0.0.1,10.0.0.2,10.0.0.3 + 2 more...")


def test_workload_cells() -> None:
    template = {"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "j:2"}]}}
    selector = {"matchLabels": {"app": "w"}, "matchExpressions": [{"key": "t", "operator": "In", "values": ["x", "y"]}]}
    obj = {
        "metadata": meta("w"),
        "spec": {"replicas": 3, "template": template, "selector": selector},
        "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1, "replicas": 3},
    }
    cells = row("Deployment", "apps/v1", obj)
    assert list(cells.values()) == ["w", "2/3", 3, 1, "5m", "a,b", "i:1,j:2", "app=w,t in (x,y)"]
    assert list(row("ReplicaSet", "apps/v1", obj).values())[:5] == ["w", 3, 3, 2, "5m"]


JOBS: list[tuple[str, Obj, Obj, tuple[str, str, str]]] = [
    ("running", {"completions": 3}, {"succeeded": 1, "startTime": ago(90)}, ("Running", "1/3", "90s")),
    (
        "complete",
        {"completions": 1},
        {
            "succeeded": 1,
            "startTime": ago(200),
            "completionTime": ago(160),
            "conditions": [{"type": "Complete", "status": "True"}],
        },
        ("Complete", "1/1", "40s"),
    ),
    ("work queue", {"parallelism": 4}, {}, ("Running", "0/1 of 4", "")),
    ("suspended", {}, {"conditions": [{"type": "Suspended", "status": "True"}]}, ("Suspended", "0/1", "")),
]


@pytest.mark.parametrize("name,spec,status,expected", JOBS, ids=[r[0] for r in JOBS])
def test_job_cells(name: str, spec: Obj, status: Obj, expected: tuple[str, str, str]) -> None:
    cells = row("Job", "batch/v1", {"metadata": meta("j"), "spec": spec, "status": status})
    assert (cells["Status"], cells["Completions"], cells["Duration"]) == expected


def test_event_cells_follow_the_series() -> None:
    event: Obj = {
        "metadata": meta("e"),
        "type": "Warning",
        "reason": "BackOff",
        "message": " restarting \n",
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
        "source": {"component": "kubelet", "host": "n1"},
        "firstTimestamp": ago(100),
        "lastTimestamp": ago(10),
        "count": 7,
    }
    cells = row("Event", "v1", event)
    assert (cells["Last Seen"], cells["Object"], cells["Message"]) == ("10s", "pod/p", "restarting")
    assert (cells["Source"], cells["First Seen"], cells["Count"]) == ("kubelet, n1", "100s", 7)
    event = {"metadata": meta("e"), "eventTime": ago(50), "series": {"count": 3, "lastObservedTime": ago(5)}}
    assert (row("Event", "v1", event)["Last Seen"], row("Event", "v1", event)["Count"]) == ("5s", 3)


def test_bindings_volumes_and_budgets() -> None:
    binding = {
        "metadata": meta("b"),
        "roleRef": {"kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "namespace": "d", "name": "s"}],
    }
    cells = row("RoleBinding", "rbac.authorization.k8s.io/v1", binding)
    assert list(cells.values()) == ["b", "ClusterRole/admin", "5m", "u", "", "d/s"]
    budget = {"metadata": meta("b"), "spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1}}
    assert list(row("PodDisruptionBudget", "policy/v1", budget).values()) == ["b", "50%", "N/A", 1, "5m"]
    claim = {
        "metadata": meta("c"),
        "spec": {"volumeName": "pv", "storageClassName": "fast"},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]},
    }
    assert list(row("PersistentVolumeClaim", "v1", claim).values())[:6] == ["c", "Bound", "pv", "1Gi", "RWO", "fast"]


def test_custom_columns_take_cells_by_path() -> None:
    columns = [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Ok", "type": "boolean", "jsonPath": ".spec.ok", "priority": 1},
        {"name": "Names", "type": "string", "jsonPath": ".spec.rows[*].n"},
        {"name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Broken", "type": "string", "jsonPath": ".spec["},
    ]
    obj = {"metadata": meta("x"), "spec": {"size": 3, "ok": True, "rows": [{"n": "a"}, {"n": "b"}]}}
    found = table("Foo", "e.com/v1", [obj, {"metadata": meta("y")}], NOW, columns=columns)
    assert [c["name"] for c in found["columnDefinitions"]] == ["Name", "Size", "Ok", "Names", "Since", "Broken"]
    assert found["rows"][0]["cells"] == ["x", 3, True, "a", "5m", None]
    assert found["rows"][1]["cells"] == ["y", None, None, None, "5m", None]
    default = table("Foo", "e.com/v1", [obj], NOW, columns=[])
    assert default["rows"][0]["cells"] == ["x", "5m"]


def test_rows_carry_what_was_asked_for() -> None:
    obj: Obj = {"metadata": meta("x"), "data": {}}
    by_default = table("ConfigMap", "v1", [obj], NOW, resource_version="7")
    assert by_default["metadata"] == {"resourceVersion": "7"}
    assert by_default["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert table("ConfigMap", "v1", [obj], NOW, include_object="Object")["rows"][0]["object"] is obj
    assert table("ConfigMap", "v1", [obj], NOW, include_object="None")["rows"][0]["object"] is None
    assert table("ConfigMap", "v1", [obj], NOW, with_definitions=False)["columnDefinitions"] is None
    assert [included(text) for text in ("", "None", "Object")] == ["Metadata", "None", "Object"]
    with pytest.raises(BadRequest, match="must be 'Metadata', 'Object', 'None', or empty"):
        included("All")


def test_policies_and_bindings_show_what_they_refer_to() -> None:
    group = "admissionregistration.k8s.io/v1"
    params = {"apiVersion": "v1", "kind": "ConfigMap"}
    policy = {"metadata": meta("p"), "spec": {"validations": [{}, {}], "paramKind": params}}
    assert row("ValidatingAdmissionPolicy", group, policy) == {
        "Name": "p", "Validations": 2, "ParamKind": "v1/ConfigMap", "Age": "5m",
    }  # fmt: skip
    binding = {"metadata": meta("b"), "spec": {"policyName": "p", "paramRef": {"name": "x"}}}
    assert row("MutatingAdmissionPolicyBinding", group, binding) == {
        "Name": "b", "PolicyName": "p", "ParamRef": "*/x", "Age": "5m",
    }  # fmt: skip


INGRESS_RULES = [
    ([], "*"),
    ([{"host": "a"}, {}], "a"),
    ([{"host": "a"}, {"host": "b"}, {"host": "c"}], "a,b,c"),
    ([{"host": "a"}, {"host": "b"}, {"host": "c"}, {}], "a,b,c + 1 more..."),
    ([{"host": "a"}, {}, {"host": "b"}, {"host": "c"}, {"host": "d"}], "a,b,c + 2 more..."),
]


@pytest.mark.parametrize(("rules", "hosts"), INGRESS_RULES)
def test_an_ingress_shows_three_hosts_and_each_balancer_once(rules: list[Obj], hosts: str) -> None:
    balancers = [{"ip": "10.0.0.2"}, {"hostname": "lb"}, {"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {}]
    status = {"loadBalancer": {"ingress": balancers}}
    cells = row("Ingress", "networking.k8s.io/v1", {"metadata": meta("i"), "spec": {"rules": rules}, "status": status})
    assert (cells["Hosts"], cells["Address"]) == (hosts, "10.0.0.1,10.0.0.2,lb")


def test_what_is_unusual_is_shown_as_kubernetes_shows_it() -> None:
    group = "flowcontrol.apiserver.k8s.io/v1"
    schemas = [
        {"metadata": meta(name), "spec": {"matchingPrecedence": at}} for name, at in (("a", 9), ("c", 1), ("b", 1))
    ]
    assert [found["cells"][0] for found in table("FlowSchema", group, schemas, NOW)["rows"]] == ["b", "c", "a"]
    level = {"metadata": meta("l"), "spec": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 5}}}
    assert row("PriorityLevelConfiguration", group, level)["NominalConcurrencyShares"] == "<none>"
    unready = {"metadata": meta("e"), "subsets": [{"notReadyAddresses": [{"ip": "10.0.0.1"}]}]}
    assert row("Endpoints", "v1", unready)["Endpoints"] == ""
    ports = [{"name": "web"}, {"port": 80, "name": "x"}, {}]
    assert row("EndpointSlice", "discovery.k8s.io/v1", {"metadata": meta("e"), "ports": ports})["Ports"] == "web,80,*"
    selector = {
        "matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}],
    }  # fmt: skip
    binding = {"metadata": meta("b"), "spec": {"policyName": "p", "paramRef": {"selector": selector}}}
    assert row("ValidatingAdmissionPolicyBinding", "admissionregistration.k8s.io/v1", binding)["ParamRef"] == (
        "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{"
        "LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}"
    )
    event = {"metadata": meta("e"), "involvedObject": {"kind": "Pod"}}
    event |= {"reportingComponent": "c", "reportingInstance": "n1"}
    cells = row("Event", "v1", event)
    assert (cells["Object"], cells["Source"]) == ("pod", "c, n1")


METRICS = [
    ([], [], "<none>"),
    ([{"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}],
     [{"type": "Resource", "resource": {"current": {"averageUtilization": 0, "averageValue": "0"}}}], "cpu: 0%/80%"),
    ([{"type": "ContainerResource", "containerResource": {"name": "memory", "target": {"averageValue": "1Gi"}}}], [],
     "memory: <unknown>/1Gi"),
    ([{"type": "Resource", "resource": {"name": "cpu", "target": {}}}], [], "cpu: <unknown>/<auto>"),
    ([{"type": "Pods", "pods": {"metric": {"name": "qps"}, "target": {"averageValue": "10"}}},
      {"type": "Object", "object": {"metric": {"name": "hits"}, "target": {"value": "5"}}}],
     [{"type": "Pods", "pods": {"current": {"averageValue": "7"}}}], "7/10, <unknown>/5"),
    ([{"type": "External", "external": {"metric": {"name": "q"}, "target": {"averageValue": "3"}}}] * 3,
     [{"type": "External", "external": {"current": {"averageValue": "2"}}}],
     "2/3 (avg), <unknown>/3 (avg) + 1 more..."),
]  # fmt: skip


@pytest.mark.parametrize(("metrics", "current", "expected"), METRICS)
def test_an_autoscaler_shows_two_metrics_and_how_many_more(
    metrics: list[Obj], current: list[Obj], expected: str
) -> None:
    obj = {"metadata": meta("h"), "spec": {"metrics": metrics}, "status": {"currentMetrics": current}}
    assert row("HorizontalPodAutoscaler", "autoscaling/v2", obj)["Targets"] == expected


#: columns of which Kubernetes says nothing either
_UNTOLD = {("node.k8s.io", "RuntimeClass", "Handler")}


def test_every_column_is_described_by_a_sentence_or_by_the_field_it_shows(session_registry: Registry) -> None:
    documented = session_registry.documentation
    described = {
        (group, kind, column.name): description(group, kind, column.name, documented)
        for (group, kind), layout in COLUMNS.items()
        for column in layout.columns
    }
    assert {column for column, text in described.items() if not text} == _UNTOLD
    found = table("Pod", "v1", [], NOW, documented=documented)["columnDefinitions"]
    assert found[1]["description"] == "The aggregate readiness state of this pod for accepting traffic."
    assert found[4]["description"].startswith("CreationTimestamp is a timestamp representing the server time when")
    assert found[6]["description"].startswith("NodeName indicates in which node this pod is scheduled.")


def test_columns_of_a_custom_kind_are_described_by_its_definition_or_by_their_paths() -> None:
    columns = [{"name": "A", "jsonPath": ".spec.a"}, {"name": "B", "description": "b", "jsonPath": ".b"}]
    found = table("Gadget", "example.com/v1", [], NOW, columns=columns)["columnDefinitions"]
    by_path = "Custom resource definition column (in JSONPath format): .spec.a"
    assert [column["description"] for column in found[1:]] == [by_path, "b"]
    plain = table("Gadget", "example.com/v1", [], NOW, columns=())["columnDefinitions"]
    assert [(column["name"], column["type"]) for column in plain] == [("Name", "string"), ("Age", "date")]


@pytest.mark.parametrize(
    ("phase", "message"), [("Succeeded", "The pod has completed successfully."), ("Failed", "The pod failed.")]
)
def test_the_row_of_a_pod_that_is_over_says_so(phase: str, message: str) -> None:
    pods = [{"metadata": meta("a"), "spec": {}, "status": {"phase": each}} for each in (phase, "Running")]
    over, running = table("Pod", "v1", pods, NOW)["rows"]
    assert over["conditions"] == [{"type": "Completed", "status": "True", "reason": phase, "message": message}]
    assert "conditions" not in running
