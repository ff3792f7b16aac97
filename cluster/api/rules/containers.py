"""Rules of containers: names, images, ports, environment, mounts, probes, resources.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    duplicate,
    forbidden,
    not_found,
    not_negative,
    one_of,
    required,
    unsupported,
)
from steersman.cluster.api.rules.ports import port_name_errors, port_number
from steersman.cluster.api.rules.probes import validate_lifecycle, validate_probe
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, qualified_name_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import parse

_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_MESSAGE_POLICIES = ("FallbackToLogsOnError", "File")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_FIELD_PATHS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
    "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_ENV_NAME = re.compile(r"^[ -<>-~]*\Z")
_ENV_NAME_DETAIL = "a valid environment variable name must consist only of printable ASCII characters other than '='"
_STANDARD = ("cpu", "memory", "ephemeral-storage")
#: resources that may not be promised beyond what is there
_NO_OVERCOMMIT_PREFIX = "hugepages-"


def validate_containers(path: str, spec: Obj, volumes: Mapping[str, Obj]) -> list[Cause]:
    """Every broken rule of a PodSpec's containers; `volumes` are its volumes by name."""
    causes: list[Cause] = []
    if not spec.get("containers"):
        causes.append(required(f"{path}.containers"))
    names: set[str] = set()
    host_ports: set[tuple[str, str, int]] = set()
    for index, one in enumerate(spec.get("containers") or ()):
        where = f"{path}.containers[{index}]"
        causes += _container(where, one, volumes, names)
        causes += _host_ports(where, one, host_ports)
        if "restartPolicy" in one and "restartPolicyRules" not in one and one["restartPolicy"] not in (
            "Always", "OnFailure", "Never",
        ):  # fmt: skip
            causes.append(unsupported(f"{where}.restartPolicy", one["restartPolicy"], ("Always", "OnFailure", "Never")))
    for index, one in enumerate(spec.get("initContainers") or ()):
        where = f"{path}.initContainers[{index}]"
        causes += _container(where, one, volumes, names)
        if one.get("restartPolicy") != "Always":
            for key in (*_PROBES, "lifecycle"):
                if key in one:
                    causes.append(
                        forbidden(f"{where}.{key}", "may not be set for init containers without restartPolicy=Always")
                    )
    for index, one in enumerate(spec.get("ephemeralContainers") or ()):
        causes += _ephemeral(f"{path}.ephemeralContainers[{index}]", one, volumes, names)
    return causes


def _ephemeral(path: str, one: Obj, volumes: Mapping[str, Obj], names: set[str]) -> list[Cause]:
    target = one.get("targetContainerName")
    causes = []
    if target and target not in names:
        causes.append(not_found(f"{path}.targetContainerName", target))
    causes += _container(path, one, volumes, names)
    for key in (*_PROBES, "lifecycle", "ports"):
        if one.get(key):
            causes.append(forbidden(f"{path}.{key}", "cannot be set for an Ephemeral Container"))
    if (one.get("resources") or {}).get("limits") or (one.get("resources") or {}).get("requests"):
        causes.append(forbidden(f"{path}.resources", "cannot be set for an Ephemeral Container"))
    return causes


def _container(path: str, one: Obj, volumes: Mapping[str, Obj], names: set[str]) -> list[Cause]:
    causes: list[Cause] = []
    name = one.get("name", "")
    if not name:
        causes.append(required(f"{path}.name"))
    else:
        causes += bad_all(f"{path}.name", name, label_1123_errors(name))
        if name in names:
            causes.append(duplicate(f"{path}.name", name))
        names.add(name)
    image = one.get("image", "")
    if not image:
        causes.append(required(f"{path}.image"))
    elif image != image.strip():
        causes.append(bad(f"{path}.image", image, "must not have leading or trailing whitespace"))
    causes += one_of(f"{path}.imagePullPolicy", one.get("imagePullPolicy"), _PULL_POLICIES)
    if one.get("terminationMessagePolicy") not in _MESSAGE_POLICIES:
        causes += one_of(f"{path}.terminationMessagePolicy", one.get("terminationMessagePolicy"), _MESSAGE_POLICIES)
    if one.get("ports"):
        causes += validate_ports(f"{path}.ports", one["ports"])
    if one.get("env"):
        causes += validate_env(f"{path}.env", one["env"])
    if one.get("envFrom"):
        causes += _env_from(f"{path}.envFrom", one["envFrom"])
    if one.get("volumeMounts"):
        causes += _mounts(f"{path}.volumeMounts", one["volumeMounts"], volumes)
    if one.get("volumeDevices"):
        causes += _devices(f"{path}.volumeDevices", one, volumes)
    for key in _PROBES:
        if key in one:
            causes += validate_probe(f"{path}.{key}", one[key], key)
    if "lifecycle" in one:
        causes += validate_lifecycle(f"{path}.lifecycle", one["lifecycle"])
    if one.get("resources"):
        causes += validate_resources(f"{path}.resources", one["resources"])
    if one.get("securityContext"):
        causes += _security(f"{path}.securityContext", one["securityContext"])
    return causes


def validate_ports(path: str, ports: Sequence[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        where = f"{path}[{index}]"
        name = port.get("name")
        if name:
            if errors := port_name_errors(name):
                causes += bad_all(f"{where}.name", name, errors)
            elif name in names:
                causes.append(duplicate(f"{where}.name", name))
            names.add(name)
        if not port.get("containerPort"):
            causes.append(required(f"{where}.containerPort"))
        else:
            causes += port_number(f"{where}.containerPort", port["containerPort"])
        if port.get("hostPort"):
            causes += port_number(f"{where}.hostPort", port["hostPort"])
        causes += one_of(f"{where}.protocol", port.get("protocol"), _PROTOCOLS)
    return causes


def _host_ports(path: str, one: Obj, seen: set[tuple[str, str, int]]) -> list[Cause]:
    causes = []
    for index, port in enumerate(one.get("ports") or ()):
        if not port.get("hostPort"):
            continue
        found = (port.get("protocol", ""), port.get("hostIP", ""), port["hostPort"])
        if found in seen:
            causes.append(duplicate(f"{path}.ports[{index}].hostPort", f"{found[0]}/{found[1]}/{found[2]}"))
        seen.add(found)
    return causes


def env_name_errors(name: str) -> list[str]:
    """What breaks the rule of an environment variable's name; empty when nothing does."""
    return [] if _ENV_NAME.match(name) else [_ENV_NAME_DETAIL]


def validate_env(path: str, rows: Sequence[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    for index, row in enumerate(rows):
        where = f"{path}[{index}]"
        name = row.get("name", "")
        if not name:
            causes.append(required(f"{where}.name"))
        elif errors := env_name_errors(name):
            causes += bad_all(f"{where}.name", name, errors)
        source = row.get("valueFrom")
        if source is None:
            continue
        found = [key for key in _ENV_SOURCES if key in source]
        if not found:
            detail = (
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
            )
            causes.append(bad(f"{where}.valueFrom", "", detail))
        elif len(found) > 1:
            causes.append(bad(f"{where}.valueFrom", "", "may not have more than one field specified at a time"))
        elif row.get("value"):
            causes.append(bad(f"{where}.valueFrom", "", "may not be specified when `value` is not empty"))
        causes += _env_source(f"{where}.valueFrom", source)
    return causes


def _env_source(path: str, source: Obj) -> list[Cause]:
    causes = []
    for key in ("configMapKeyRef", "secretKeyRef"):
        if key in source:
            if not source[key].get("name"):
                causes.append(required(f"{path}.{key}.name"))
            if not source[key].get("key"):
                causes.append(required(f"{path}.{key}.key"))
    if "fieldRef" in source:
        causes += validate_field_ref(f"{path}.fieldRef", source["fieldRef"], _FIELD_PATHS)
    if "resourceFieldRef" in source:
        causes += validate_resource_ref(f"{path}.resourceFieldRef", source["resourceFieldRef"], in_volume=False)
    return causes


def validate_field_ref(path: str, reference: Obj, supported: Sequence[str]) -> list[Cause]:
    found = reference.get("fieldPath", "")
    if not found:
        return [required(f"{path}.fieldPath")]
    match = re.fullmatch(r"metadata\.(annotations|labels)\['(.*)'\]", found)
    if match:
        return bad_all(f"{path}.fieldPath", found, qualified_name_errors(match[2]))
    return [] if found in supported else [unsupported(f"{path}.fieldPath", found, supported)]


def validate_resource_ref(path: str, reference: Obj, *, in_volume: bool) -> list[Cause]:
    causes = []
    if in_volume and not reference.get("containerName"):
        causes.append(required(f"{path}.containerName"))
    found = reference.get("resource", "")
    names = ("cpu", "ephemeral-storage", "memory")
    supported = [f"{side}.{name}" for side in ("limits", "requests") for name in names]
    if not found:
        causes.append(required(f"{path}.resource"))
    elif found not in supported and ".hugepages-" not in found:
        causes.append(unsupported(f"{path}.resource", found, supported))
    return causes


def _env_from(path: str, rows: Sequence[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    for index, row in enumerate(rows):
        where = f"{path}[{index}]"
        if row.get("prefix"):
            causes += bad_all(f"{where}.prefix", row["prefix"], env_name_errors(row["prefix"]))
        found = [key for key in ("configMapRef", "secretRef") if key in row]
        if not found:
            causes.append(bad(where, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(found) > 1:
            causes.append(bad(where, "", "may not have more than one field specified at a time"))
        for key in found:
            if not row[key].get("name"):
                causes.append(required(f"{where}.{key}.name"))
    return causes


def _mounts(path: str, mounts: Sequence[Obj], volumes: Mapping[str, Obj]) -> list[Cause]:
    causes: list[Cause] = []
    places: set[str] = set()
    for index, mount in enumerate(mounts):
        where = f"{path}[{index}]"
        name, place = mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            causes.append(required(f"{where}.name"))
        elif name not in volumes:
            causes.append(not_found(f"{where}.name", name))
        if not place:
            causes.append(required(f"{where}.mountPath"))
        elif place in places:
            causes.append(bad(f"{where}.mountPath", place, "must be unique"))
        places.add(place)
        if mount.get("subPath"):
            causes += _local_path(f"{where}.subPath", mount["subPath"])
        if mount.get("subPathExpr"):
            if mount.get("subPath"):
                causes.append(
                    bad(f"{where}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive")
                )
            causes += _local_path(f"{where}.subPathExpr", mount["subPathExpr"])
        modes = ("Bidirectional", "HostToContainer", "None")
        if mount.get("mountPropagation") is not None and mount["mountPropagation"] not in modes:
            causes.append(unsupported(f"{where}.mountPropagation", mount["mountPropagation"], modes))
    return causes


def _local_path(path: str, found: str) -> list[Cause]:
    causes = []
    if found.startswith("/"):
        causes.append(bad(path, found, "must be a relative path"))
    if ".." in found.split("/"):
        causes.append(bad(path, found, "must not contain '..'"))
    return causes


def _devices(path: str, one: Obj, volumes: Mapping[str, Obj]) -> list[Cause]:
    causes: list[Cause] = []
    for index, device in enumerate(one["volumeDevices"]):
        where = f"{path}[{index}]"
        volume = volumes.get(device.get("name", ""))
        if not device.get("name"):
            causes.append(required(f"{where}.name"))
        elif volume is None:
            causes.append(not_found(f"{where}.name", device["name"]))
        elif "persistentVolumeClaim" not in volume and "ephemeral" not in volume:
            detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            causes.append(bad(f"{where}.name", device["name"], detail))
        if not device.get("devicePath"):
            causes.append(required(f"{where}.devicePath"))
    return causes


def validate_resources(path: str, resources: Obj) -> list[Cause]:
    """Every broken rule of requests and limits."""
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    causes: list[Cause] = []
    for side, found in (("limits", limits), ("requests", requests)):
        for key, value in found.items():
            where = f"{path}.{side}"
            causes += _resource_name(where, key)
            if parse(value) < 0:
                causes.append(bad(f"{where}[{key}]", value, "must be greater than or equal to 0"))
    for key, value in requests.items():
        bound = limits.get(key)
        if bound is not None and parse(value) > parse(bound):
            causes.append(bad(f"{path}.requests", value, f"must be less than or equal to {key} limit of {bound}"))
        elif (bound is None or parse(value) != parse(bound)) and key.startswith(_NO_OVERCOMMIT_PREFIX):
            causes.append(bad(f"{path}.requests", value, f"must be equal to {key} limit of {bound or 0}"))
    return causes


def _resource_name(path: str, key: str) -> list[Cause]:
    if key in _STANDARD:
        return []
    if errors := qualified_name_errors(key):
        return bad_all(path, key, errors)
    if "/" not in key and not key.startswith("hugepages-"):
        return [bad(path, key, "must be a standard resource type or fully qualified")]
    return []


def _security(path: str, security: Obj) -> list[Cause]:
    causes = []
    for key in ("runAsUser", "runAsGroup"):
        causes += not_negative(f"{path}.{key}", security.get(key))
    if security.get("allowPrivilegeEscalation") is False:
        if security.get("privileged"):
            detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            causes.append(bad(path, security, detail))
        if "CAP_SYS_ADMIN" in ((security.get("capabilities") or {}).get("add") or ()):
            detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            causes.append(bad(path, security, detail))
    return causes
