"""What the server makes of pods, and what may change in them; what is refused stands in `refusals/pods.txt`."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from steersman.cluster.meta.errors import Invalid

MAIN = {"name": "main", "image": "nginx:1"}


def spread(**more: Any) -> dict[str, Any]:
    row = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", **more}
    return {"topologySpreadConstraints": [row]}


def test_a_pod_with_everything_right_is_taken(api: Any) -> None:
    container = {
        **MAIN, "volumeMounts": [{"name": "n", "mountPath": "/n", "readOnly": True, "recursiveReadOnly": "Enabled"}],
        "volumeDevices": [{"name": "b", "devicePath": "/dev/b"}], "resources": {"claims": [{"name": "gpu"}]},
        "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}],
        "securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}},
        "lifecycle": {"preStop": {"sleep": {"seconds": 0}}},
    }  # fmt: skip
    spec = {
        "containers": [container], "terminationGracePeriodSeconds": 5, "os": {"name": "linux"},
        "volumes": [{"name": "n", "nfs": {"server": "a", "path": "/"}},
                    {"name": "b", "persistentVolumeClaim": {"claimName": "c"}}],
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}],
        "dnsConfig": {"searches": ["_srv.example.com.", "."]},
    }  # fmt: skip
    assert api.create("pods", api.pod(**spec))["spec"]["os"] == {"name": "linux"}


def test_keys_of_the_pods_own_labels_become_part_of_the_selector(api: Any) -> None:
    term = {"topologyKey": "zone", "labelSelector": {}, "mismatchLabelKeys": ["team"]}
    pod = api.pod(**spread(labelSelector={"matchLabels": {"app": "web"}}, matchLabelKeys=["hash", "gone"]))
    pod["spec"]["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    pod["metadata"]["labels"] = {"hash": "1", "team": "a"}
    found = api.create("pods", pod)["spec"]
    selector = found["topologySpreadConstraints"][0]["labelSelector"]
    assert selector["matchExpressions"] == [{"key": "hash", "operator": "In", "values": ["1"]}]
    term = found["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert term["labelSelector"]["matchExpressions"] == [{"key": "team", "operator": "NotIn", "values": ["a"]}]


def resize(api: Any, **resources: Any) -> Any:
    def edit(obj: Any) -> None:
        obj["spec"]["containers"][0]["resources"] = resources
        obj["spec"]["nodeName"] = "ignored"

    return api.change("pods", "web", edit, "resize")


def test_a_resize_changes_resources_and_nothing_else(api: Any) -> None:
    start = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}}
    api.create("pods", api.pod(containers=[{**MAIN, "resources": start}]))
    found = resize(api, requests={"cpu": "2", "memory": "1Gi"}, limits={"cpu": "2"})
    assert found["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "2"
    assert "nodeName" not in found["spec"] and found["metadata"]["generation"] == 2
    for resources, message in (
        ({"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}, "resource requests cannot be removed"),
        ({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}, "QOS Class may not"),
        ({"requests": {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1"}, "limits": {"cpu": "2"}}, "only cpu and"),
    ):
        with pytest.raises(Invalid, match=message):
            resize(api, **orjson.loads(orjson.dumps(resources)))


def test_containers_of_a_pod_neither_come_nor_go(api: Any) -> None:
    api.create("pods", api.pod())
    with pytest.raises(Invalid, match=r"spec\.containers: Forbidden: pod updates may not add or remove containers"):
        api.change("pods", "web", lambda obj: obj["spec"]["containers"].append({**MAIN, "name": "b"}))


def test_a_gated_pod_is_only_narrowed(api: Any) -> None:
    api.create("pods", api.pod(schedulingGates=[{"name": "a/b"}], nodeSelector={"x": "y"}))
    api.change("pods", "web", lambda obj: obj["spec"]["nodeSelector"].update(z="1"))
    with pytest.raises(Invalid, match=r"only additions to spec\.nodeSelector are allowed"):
        api.change("pods", "web", lambda obj: obj["spec"].update(nodeSelector={"z": "1"}))
