"""Rules of containers: names, images, ports, hooks, and what restarts them.

Environment, mounts, resources, probes and security have files of their own.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

from steersman.cluster.api.rules.environment import validate_env, validate_env_from
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    duplicate,
    forbidden,
    ip,
    not_found,
    one_of,
    required,
    unsupported,
)
from steersman.cluster.api.rules.known import is_known_right
from steersman.cluster.api.rules.mounts import validate_mounts
from steersman.cluster.api.rules.ports import is_port, port_name_errors, port_number
from steersman.cluster.api.rules.probes import validate_lifecycle, validate_probe
from steersman.cluster.api.rules.resources import validate_resize_policy, validate_resources
from steersman.cluster.api.rules.security import validate_container_security
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors
from steersman.cluster.meta.objects import Obj

#: fields that are one of a few words
_CHOICES = (
    ("imagePullPolicy", ("Always", "IfNotPresent", "Never")),
    ("terminationMessagePolicy", ("FallbackToLogsOnError", "File")),
)
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_RESTARTS = ("Always", "Never", "OnFailure")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
#: what of a container is right or wrong whatever its pod is
_ALONE = frozenset(
    (*_PROBES, "image", "imagePullPolicy", "terminationMessagePolicy", "ports", "env", "envFrom", "resources")
)
_EPHEMERAL = frozenset(
    {
        "name", "image", "command", "args", "workingDir", "env", "envFrom", "volumeMounts", "volumeDevices",
        "terminationMessagePath", "terminationMessagePolicy", "imagePullPolicy", "securityContext", "stdin",
        "stdinOnce", "tty", "targetContainerName",
    }
)  # fmt: skip
_RULES_MAX = 20
_EXIT_CODES_MAX = 255


@dataclass(frozen=True, slots=True)
class _Around:
    """What the rules of a container need of its pod."""

    spec: Obj
    volumes: Mapping[str, Obj]
    claims: Container[str]
    #: names of containers seen so far
    names: set[str] = field(default_factory=set)


def validate_containers(path: str, spec: Obj, volumes: Mapping[str, Obj], claims: Container[str] = ()) -> list[Cause]:
    """Every broken rule of a PodSpec's containers, given its volumes by name and the names of its claims."""
    around = _Around(spec, volumes, claims)
    causes: list[Cause] = []
    if not spec.get("containers"):
        causes.append(required(f"{path}.containers"))
    host_ports: set[tuple[str, str, int]] = set()
    for index, one in enumerate(spec.get("containers") or ()):
        where = f"{path}.containers[{index}]"
        causes += _container(where, one, around)
        causes += _host_ports(where, one, host_ports)
    for index, one in enumerate(spec.get("initContainers") or ()):
        where = f"{path}.initContainers[{index}]"
        causes += _container(where, one, around)
        if one.get("restartPolicy") != "Always":
            detail = "may not be set for init containers without restartPolicy=Always"
            causes += [forbidden(f"{where}.{key}", detail) for key in (*_PROBES, "lifecycle") if key in one]
    for index, one in enumerate(spec.get("ephemeralContainers") or ()):
        causes += _ephemeral(f"{path}.ephemeralContainers[{index}]", one, around)
    return causes


def _ephemeral(path: str, one: Obj, around: _Around) -> list[Cause]:
    target = one.get("targetContainerName")
    causes = []
    if target and target not in around.names:
        causes.append(not_found(f"{path}.targetContainerName", target))
    causes += _container(path, one, around)
    detail = "cannot be set for an Ephemeral Container"
    causes += [forbidden(f"{path}.{key}", detail) for key, value in one.items() if key not in _EPHEMERAL and value]
    for index, mount in enumerate(one.get("volumeMounts") or ()):
        for key in ("subPath", "subPathExpr"):
            if mount.get(key):
                causes.append(forbidden(f"{path}.volumeMounts[{index}].{key}", detail))
    return causes


def _container(path: str, one: Obj, around: _Around) -> list[Cause]:
    causes: list[Cause] = []
    name = one.get("name", "")
    if not name:
        causes.append(required(f"{path}.name"))
    else:
        if errors := label_1123_errors(name):
            causes += bad_all(f"{path}.name", name, errors)
        if name in around.names:
            causes.append(duplicate(f"{path}.name", name))
        around.names.add(name)
    alone = {key: value for key, value in one.items() if key in _ALONE}
    is_right = is_known_right(_on_its_own, alone)
    causes += [] if is_right else _first(path, one)
    if one.get("volumeMounts") or one.get("volumeDevices"):
        causes += validate_mounts(path, one, around.volumes)
    causes += [] if is_right else _probes(path, one)
    if "lifecycle" in one:
        grace = around.spec.get("terminationGracePeriodSeconds")
        causes += validate_lifecycle(f"{path}.lifecycle", one["lifecycle"], grace)
    if one.get("resources") and not is_right:
        causes += validate_resources(f"{path}.resources", one["resources"], around.claims)
    return causes + _rarer(path, one, around)


def _on_its_own(path: str, one: Obj) -> list[Cause]:
    """The broken rules of a container for which its pod does not matter."""
    return [
        *_first(path, one),
        *_probes(path, one),
        *validate_resources(f"{path}.resources", one.get("resources") or {}),
    ]


def _first(path: str, one: Obj) -> list[Cause]:
    causes: list[Cause] = []
    image = one.get("image", "")
    if not image:
        causes.append(required(f"{path}.image"))
    elif image != image.strip():
        causes.append(bad(f"{path}.image", image, "must not have leading or trailing whitespace"))
    for key, supported in _CHOICES:
        if one.get(key) not in supported:
            causes += one_of(f"{path}.{key}", one.get(key), supported)
    if one.get("ports"):
        causes += validate_ports(f"{path}.ports", one["ports"])
    if one.get("env"):
        causes += validate_env(f"{path}.env", one["env"])
    if one.get("envFrom"):
        causes += validate_env_from(f"{path}.envFrom", one["envFrom"])
    return causes


def _probes(path: str, one: Obj) -> list[Cause]:
    return [cause for key in _PROBES if key in one for cause in validate_probe(f"{path}.{key}", one[key], key)]


def _rarer(path: str, one: Obj, around: _Around) -> list[Cause]:
    causes: list[Cause] = []
    if one.get("resizePolicy"):
        restart = around.spec.get("restartPolicy", "")
        causes += validate_resize_policy(f"{path}.resizePolicy", one["resizePolicy"], restart)
    if one.get("securityContext"):
        host_users = around.spec.get("hostUsers")
        causes += validate_container_security(f"{path}.securityContext", one["securityContext"], host_users=host_users)
    if "restartPolicy" in one and one["restartPolicy"] not in _RESTARTS:
        causes.append(unsupported(f"{path}.restartPolicy", one["restartPolicy"], _RESTARTS))
    if one.get("restartPolicyRules"):
        causes += _restart_rules(path, one)
    if one.get("volumeDevices") and around.spec.get("hostUsers") is False:
        causes.append(forbidden(f"{path}.volumeDevices", "when `hostUsers` is false"))
    return causes


def _restart_rules(path: str, one: Obj) -> list[Cause]:
    rules, where = one["restartPolicyRules"], f"{path}.restartPolicyRules"
    causes: list[Cause] = []
    if "restartPolicy" not in one:
        detail = "must specify restartPolicy when restart rules are used"
        causes.append(required(f"{path}.restartPolicy", detail))
    if len(rules) > _RULES_MAX:
        causes.append(Cause(where, f"Too long: must have at most {_RULES_MAX} items", "FieldValueTooLong"))
    for index, rule in enumerate(rules):
        action, codes = rule.get("action", ""), rule.get("exitCodes")
        causes += one_of(f"{where}[{index}].action", action, ("Restart", "RestartAllContainers"))
        if codes is None:
            causes.append(required(f"{where}[{index}].exitCodes", "must be specified"))
            continue
        causes += one_of(f"{where}[{index}].exitCodes.operator", codes.get("operator"), ("In", "NotIn"))
        if len(codes.get("values") or ()) > _EXIT_CODES_MAX:
            detail = f"Too long: must have at most {_EXIT_CODES_MAX} items"
            causes.append(Cause(f"{where}[{index}].exitCodes.values", detail, "FieldValueTooLong"))
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
        number = port.get("containerPort")
        if not number:
            causes.append(required(f"{where}.containerPort"))
        elif not is_port(number):
            causes += port_number(f"{where}.containerPort", number)
        if port.get("hostPort"):
            causes += port_number(f"{where}.hostPort", port["hostPort"])
        if port.get("hostIP"):
            causes += ip(f"{where}.hostIP", port["hostIP"])
        if port.get("protocol") not in _PROTOCOLS:
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
