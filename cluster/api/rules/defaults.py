"""Defaults of pods and of the templates that pods are made from.

Source: k8s.io/kubernetes/pkg/apis/core/v1/{defaults,zz_generated.defaults}.go of 1.36
"""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.rules.pod_resources import default_pod_resources
from steersman.cluster.meta.objects import Obj

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
#: volume types whose files have a default mode
_WITH_MODE = ("secret", "configMap", "downwardAPI", "projected")
#: type of a volume to what its fields are unless said
_SOURCES: dict[str, Obj] = {
    "azureDisk": {"cachingMode": "ReadWrite", "fsType": "ext4", "kind": "Shared", "readOnly": False},
    "hostPath": {"type": ""},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"keyring": "/etc/ceph/keyring", "pool": "rbd", "user": "admin"},
    "scaleIO": {"fsType": "xfs", "storageMode": "ThinProvisioned"},
}


def image_pull_policy(image: str) -> str:
    """Returns `Always` for an image without a tag or tagged latest, else `IfNotPresent`."""
    name, _, digest = image.partition("@")
    last = name.rpartition("/")[2]
    _, colon, tag = last.partition(":")
    if digest and not colon:
        return "IfNotPresent"
    return "Always" if not colon or tag == "latest" else "IfNotPresent"


def pod_spec(spec: Obj) -> None:
    """Fills in a PodSpec, in place."""
    put = spec.setdefault
    for volume in spec.get("volumes") or ():
        _volume(volume)
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for one in spec.get(key) or ():
            container(one)
    put("restartPolicy", "Always")
    put("terminationGracePeriodSeconds", 30)
    put("dnsPolicy", "ClusterFirst")
    put("securityContext", {})
    put("schedulerName", "default-scheduler")
    if spec.get("serviceAccountName"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif spec.get("serviceAccount") and "serviceAccountName" not in spec:
        spec["serviceAccountName"] = spec["serviceAccount"]
    if spec.get("hostNetwork"):
        _host_ports(spec)


def _host_ports(spec: Obj) -> None:
    for key in ("initContainers", "containers"):
        for one in spec.get(key) or ():
            for port in one.get("ports") or ():
                if not port.get("hostPort") and port.get("containerPort"):
                    port["hostPort"] = port["containerPort"]


def container(one: Obj) -> None:
    """Fills in a container, in place."""
    for port in one.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    for row in one.get("env") or ():
        source = row.get("valueFrom")
        if source:
            _env_source(source)
    if one.get("resources") is None:
        one["resources"] = {}
    for key in _PROBES:
        if key in one:
            _probe(one[key])
    if "lifecycle" in one:
        for handler in one["lifecycle"].values():
            if isinstance(handler, dict):
                _handler(handler)
    one.setdefault("terminationMessagePath", "/dev/termination-log")
    one.setdefault("terminationMessagePolicy", "File")
    if not one.get("imagePullPolicy"):
        one["imagePullPolicy"] = image_pull_policy(one.get("image", ""))
    security = one.get("securityContext")
    if security is not None and security.get("procMount") == "":
        security["procMount"] = "Default"


def _env_source(source: Obj) -> None:
    if "fieldRef" in source:
        source["fieldRef"].setdefault("apiVersion", "v1")
    if "resourceFieldRef" in source:
        source["resourceFieldRef"].setdefault("divisor", "0")
    if "fileKeyRef" in source:
        source["fileKeyRef"].setdefault("optional", False)


def _probe(probe: Obj) -> None:
    _handler(probe)
    for key, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(key):
            probe[key] = value


def _handler(handler: Obj) -> None:
    get = handler.get("httpGet")
    if get is not None:
        if not get.get("path"):
            get["path"] = "/"
        if not get.get("scheme"):
            get["scheme"] = "HTTP"
    if "grpc" in handler:
        handler["grpc"].setdefault("service", "")


def _volume(volume: Obj) -> None:
    kinds = [key for key in volume if key != "name"]
    if not kinds:
        volume["emptyDir"] = {}
        return
    for key in _WITH_MODE:
        source: Any = volume.get(key)
        if source is None:
            continue
        source.setdefault("defaultMode", 0o644)
        for item in source.get("items") or ():
            _downward_item(item)
        for projection in source.get("sources") or ():
            _projection(projection)
    if "ephemeral" in volume:
        claim_spec((volume["ephemeral"].get("volumeClaimTemplate") or {}).get("spec"))
    if "image" in volume and not volume["image"].get("pullPolicy"):
        volume["image"]["pullPolicy"] = image_pull_policy(volume["image"].get("reference", ""))
    volume_source(volume)


def volume_source(found: Obj) -> None:
    """Fills in what a volume is made of, in a pod or in a persistent volume, in place."""
    for kind, values in _SOURCES.items():
        if kind in found:
            for key, value in values.items():
                found[kind].setdefault(key, value)


def _downward_item(item: Obj) -> None:
    if "fieldRef" in item:
        item["fieldRef"].setdefault("apiVersion", "v1")
    if "resourceFieldRef" in item:
        item["resourceFieldRef"].setdefault("divisor", "0")


def _projection(projection: Obj) -> None:
    for item in (projection.get("downwardAPI") or {}).get("items") or ():
        _downward_item(item)
    token = projection.get("serviceAccountToken")
    if token is not None:
        token.setdefault("expirationSeconds", 3600)


def claim_spec(spec: Obj | None) -> None:
    """Fills in a PersistentVolumeClaimSpec, in place."""
    if spec is not None:
        spec.setdefault("volumeMode", "Filesystem")
        resources = spec.get("resources")
        if resources and resources.get("limits"):
            for key, value in resources["limits"].items():
                resources.setdefault("requests", {}).setdefault(key, value)


def pod(obj: Obj) -> None:
    """Fills in a Pod, in place."""
    spec = obj.setdefault("spec", {})
    pod_spec(spec)
    for key in ("initContainers", "containers"):
        for one in spec.get(key) or ():
            _requests(one["resources"])
    default_pod_resources(spec)
    spec.setdefault("enableServiceLinks", True)
    status = obj.get("status")
    if status and status.get("podIP") and not status.get("podIPs"):
        status["podIPs"] = [{"ip": status["podIP"]}]


def _requests(resources: Obj) -> None:
    """What is limited and not requested is requested up to its limit; so it is of a pod, not of a template."""
    if resources.get("limits"):
        requests = resources.setdefault("requests", {})
        for key, value in resources["limits"].items():
            requests.setdefault(key, value)


def template(spec: Obj | None) -> None:
    """Fills in the pod template of a workload's spec, in place."""
    if spec is None:
        return
    found = spec.setdefault("template", {})
    found.setdefault("metadata", {})
    pod_spec(found.setdefault("spec", {}))
