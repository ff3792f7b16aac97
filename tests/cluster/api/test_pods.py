from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api.rules.defaults import image_pull_policy
from steersman.cluster.api.rules.pods import fields, qos_class
from steersman.cluster.meta.errors import Invalid


def test_a_pod_is_filled_in_as_kubernetes_does(api: Any) -> None:
    sent = api.pod(automountServiceAccountToken=False)
    sent["spec"]["volumes"] = [
        {"name": "a"}, {"name": "b", "configMap": {"name": "c"}}, {"name": "d", "hostPath": {"path": "/x"}},
        {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
    ]  # fmt: skip
    sent["spec"]["containers"][0] |= {
        "ports": [{"containerPort": 80}],
        "readinessProbe": {"httpGet": {"port": 80}},
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    spec = api.create("pods", sent)["spec"]
    container = spec.pop("containers")[0]
    tolerations = spec.pop("tolerations")
    assert [row["key"] for row in tolerations] == ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
    assert spec == {
        "automountServiceAccountToken": False,
        "volumes": [
            {"name": "a", "emptyDir": {}},
            {"name": "b", "configMap": {"name": "c", "defaultMode": 420}},
            {"name": "d", "hostPath": {"path": "/x", "type": ""}},
            {
                "name": "p",
                "projected": {
                    "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}],
                    "defaultMode": 420,
                },
            },
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "enableServiceLinks": True,
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "priority": 0,
        "preemptionPolicy": "PreemptLowerPriority",
    }
    assert container == {
        "name": "main",
        "image": "nginx:1.27",
        "ports": [{"containerPort": 80, "protocol": "TCP"}],
        "readinessProbe": {
            "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
            "timeoutSeconds": 1,
            "periodSeconds": 10,
            "successThreshold": 1,
            "failureThreshold": 3,
        },
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP", "apiVersion": "v1"}}}],
        "resources": {"limits": {"memory": "64Mi"}, "requests": {"memory": "64Mi"}},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"), ("nginx:latest", "Always"), ("nginx:1", "IfNotPresent"), ("host:5000/nginx", "Always"),
        ("host:5000/nginx:1", "IfNotPresent"), ("nginx@sha256:abc", "IfNotPresent"), ("nginx:latest@sha256:a",
         "Always"),
    ],
)  # fmt: skip
def test_the_pull_policy_follows_from_the_tag(image: str, policy: str) -> None:
    assert image_pull_policy(image) == policy


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        ([{}], "BestEffort"),
        ([{"requests": {"cpu": "1"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}, {}], "Burstable"),
        ([{"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}], "Burstable"),
        ([{"requests": {"cpu": "0"}}], "BestEffort"),
    ],
)
def test_the_class_of_service_follows_from_the_resources(resources: list[Any], wanted: str) -> None:
    assert qos_class({"containers": [{"resources": row} for row in resources]}) == wanted


CONTAINER = {"name": "main", "image": "nginx:1"}


@pytest.mark.parametrize(
    ("spec", "field", "detail"),
    [
        ({"containers": []}, "spec.containers", "Required value"),
        ({"containers": [{"name": "a"}]}, "spec.containers[0].image", "Required value"),
        ({"containers": [{"image": "a"}]}, "spec.containers[0].name", "Required value"),
        ({"containers": [CONTAINER, CONTAINER]}, "spec.containers[1].name", 'Duplicate value: "main"'),
        ({"containers": [{"name": "A_b", "image": "x"}]}, "spec.containers[0].name", "a lowercase RFC 1123 label"),
        ({"restartPolicy": "Sometimes"}, "spec.restartPolicy", 'supported values: "Always", "OnFailure", "Never"'),
        ({"dnsPolicy": "None"}, "spec.dnsConfig", "must provide `dnsConfig` when `dnsPolicy` is None"),
        ({"activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds", "must be between 1 and 2147483647"),
        ({"nodeSelector": {"a": "b c"}}, "spec.nodeSelector", "a valid label must be"),
        ({"volumes": [{"name": "a"}, {"name": "a"}]}, "spec.volumes[1].name", 'Duplicate value: "a"'),
        ({"volumes": [{"name": "a", "emptyDir": {}, "secret": {"secretName": "s"}}]}, "spec.volumes[0].secret",
         "may not specify more than 1 volume type"),
        ({"volumes": [{"name": "a", "secret": {}}]}, "spec.volumes[0].secret.secretName", "Required value"),
        ({"volumes": [{"name": "a", "hostPath": {"path": "/a/../b"}}]}, "spec.volumes[0].hostPath.path", "'..'"),
        ({"volumes": [{"name": "a", "configMap": {"name": "c", "items": [{"key": "k", "path": "/abs"}]}}]},
         "spec.volumes[0].configMap.items[0].path", "must be a relative path"),
        ({"tolerations": [{"key": "a", "operator": "Maybe"}]}, "spec.tolerations[0].operator", "Unsupported value"),
        ({"tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 5}]}, "spec.tolerations[0].effect",
         "effect must be 'NoExecute' when `tolerationSeconds` is set"),
        ({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}},
         "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey", "can not be empty"),
        ({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}},
         "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms", "at least one"),
        ({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]},
         "spec.topologySpreadConstraints[0].maxSkew", "must be greater than zero"),
        ({"hostAliases": [{"ip": "1.2.3"}]}, "spec.hostAliases[0].ip", "must be a valid IP address"),
        ({"initContainers": [{**CONTAINER, "name": "i", "readinessProbe": {"exec": {"command": ["x"]}}}]},
         "spec.initContainers[0].readinessProbe", "may not be set for init containers"),
        ({"ephemeralContainers": [{"name": "e", "image": "x"}]}, "spec.ephemeralContainers", "cannot be set on create"),
    ],
)  # fmt: skip
def test_a_broken_spec_is_refused_field_by_field(api: Any, spec: Any, field: str, detail: str) -> None:
    with pytest.raises(Invalid) as refused:
        api.create("pods", api.pod(**spec))
    assert any(cause.field == field and detail in cause.message for cause in refused.value.causes), refused.value.causes


@pytest.mark.parametrize(
    ("extra", "field", "detail"),
    [
        ({"ports": [{"containerPort": 0}]}, "ports[0].containerPort", "Required value"),
        ({"ports": [{"containerPort": 70000}]}, "ports[0].containerPort", "must be between 1 and 65535, inclusive"),
        ({"ports": [{"containerPort": 1, "name": "no_way"}]}, "ports[0].name", "must contain only alpha-numeric"),
        ({"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]}, "ports[1].name",
         "Duplicate"),
        ({"env": [{"name": "A=B"}]}, "env[0].name", "a valid environment variable name"),
        ({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
         "env[0].valueFrom", "may not be specified when `value` is not empty"),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nothing"}}}]},
         "env[0].valueFrom.fieldRef.fieldPath", "error converting fieldPath: field label not supported: spec.nothing"),
        ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]}, "env[0].valueFrom.secretKeyRef.key",
         "Required value"),
        ({"envFrom": [{}]}, "envFrom", "must specify one of: `configMapRef` or `secretRef`"),
        ({"volumeMounts": [{"name": "gone", "mountPath": "/x"}]}, "volumeMounts[0].name", 'Not found: "gone"'),
        ({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}, "resources.requests",
         "must be less than or equal to cpu limit of 1"),
        ({"resources": {"requests": {"cpu": "-1"}}}, "resources.requests[cpu]", "must be greater than or equal to 0"),
        ({"resources": {"requests": {"disk": "1"}}}, "resources.requests[disk]", "must be a standard resource type"),
        ({"livenessProbe": {}}, "livenessProbe", "must specify a handler type"),
        ({"livenessProbe": {"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}}}, "livenessProbe.tcpSocket",
         "may not specify more than 1 handler type"),
        ({"livenessProbe": {"httpGet": {"port": 0}}}, "livenessProbe.httpGet.port", "between 1 and 65535"),
        ({"livenessProbe": {"exec": {"command": ["x"]}, "successThreshold": 2}}, "livenessProbe.successThreshold",
         "must be 1"),
        ({"readinessProbe": {"exec": {"command": ["x"]}, "periodSeconds": -1}}, "readinessProbe.periodSeconds",
         "greater"),
        ({"lifecycle": {"preStop": {}}}, "lifecycle.preStop", "must specify a handler type"),
        ({"imagePullPolicy": "Often"}, "imagePullPolicy", "Unsupported value"),
        ({"image": " nginx"}, "image", "must not have leading or trailing whitespace"),
    ],
)  # fmt: skip
def test_a_broken_container_is_refused_field_by_field(api: Any, extra: Any, field: str, detail: str) -> None:
    with pytest.raises(Invalid) as refused:
        api.create("pods", api.pod(containers=[{**CONTAINER, **extra}]))
    path = f"spec.containers[0].{field}"
    assert any(cause.field == path and detail in cause.message for cause in refused.value.causes), refused.value.causes


def test_the_message_of_a_refusal_is_kubernetes_own(api: Any) -> None:
    with pytest.raises(Invalid) as refused:
        api.create("pods", api.pod(containers=[{"name": "a"}]))
    assert refused.value.message == 'Pod "web" is invalid: spec.containers[0].image: Required value'


def test_only_some_fields_of_a_pod_ever_change(api: Any) -> None:
    api.create("pods", api.pod())
    image = {"spec": {"containers": [{"name": "main", "image": "nginx:2"}]}}
    found = api.patch("pods", "web", image, "application/strategic-merge-patch+json")
    assert (found["spec"]["containers"][0]["image"], found["metadata"]["generation"]) == ("nginx:2", 2)
    api.patch("pods", "web", {"spec": {"activeDeadlineSeconds": 100}})
    with pytest.raises(Invalid, match="must be less than or equal to previous value"):
        api.patch("pods", "web", {"spec": {"activeDeadlineSeconds": 200}})
    with pytest.raises(Invalid, match="pod updates may not change fields other than"):
        api.patch("pods", "web", {"spec": {"nodeName": "n1"}})
    api.patch("pods", "web", {"spec": {"tolerations": []}})
    assert len(api.get("pods", "web")["spec"]["tolerations"]) == 2
    with pytest.raises(Invalid, match="existing toleration can not be modified"):
        api.patch("pods", "web", {"spec": {"tolerations": [{"operator": "Exists"}]}})


def test_a_status_may_not_revive_or_reclass_a_pod(api: Any) -> None:
    api.create("pods", api.pod(restartPolicy="Never"))
    ended = [{"name": "main", "state": {"terminated": {"exitCode": 0}}}]
    api.change("pods", "web", lambda obj: obj["status"].update(containerStatuses=ended), "status")
    alive = [{"name": "main", "state": {"running": {}}}]
    with pytest.raises(Invalid, match="may not be transitioned to non-terminated state"):
        api.change("pods", "web", lambda obj: obj["status"].update(containerStatuses=alive), "status")
    with pytest.raises(Invalid, match="field is immutable"):
        api.change("pods", "web", lambda obj: obj["status"].update(qosClass="Guaranteed"), "status")


def test_pods_are_selected_by_node_and_phase(api: Any) -> None:
    found = fields(api.create("pods", api.pod(nodeName="n1")))
    assert (found["spec.nodeName"], found["status.phase"], found["spec.restartPolicy"]) == ("n1", "Pending", "Always")
