"""Rules of containers: names, images, ports, hooks, and what restarts them.

Environment, mounts, resources, probes and security have files of their own.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial

from steersman.cluster.api.rules.environment import validate_env, validate_env_from
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    duplicate,
    forbidden,
    not_found,
    one_of,
    required,
    too_many,
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

_PULLS = ("Always", "IfNotPresent", "Never")
_PADDED = "must not have leading or trailing whitespace"
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_RESTARTS = ("Always", "Never", "OnFailure")
_ACTIONS = ("Restart", "RestartAllContainers")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
#: what of a container is right or wrong whatever its pod is
_ALONE = frozenset(("image", "imagePullPolicy", "terminationMessagePolicy", "ports", "env", "envFrom", "resources"))
_NOT_EPHEMERAL = (
    "ports", "resources", "resizePolicy", "restartPolicy", "restartPolicyRules", "livenessProbe", "readinessProbe",
    "startupProbe", "lifecycle",
)  # fmt: skip
_RULES_MAX = 20
_EXIT_CODES_MAX = 255


#: the rules of a probe by its field
_PROBE_RULES = {kind: partial(validate_probe, kind=kind) for kind in _PROBES}


@dataclass(frozen=True, slots=True)
class _Around:
    """What the rules of a container need of its pod."""

    spec: Obj
    volumes: Mapping[str, Obj]
    claims: Set[str]
    #: names of the containers before it, of all sorts
    names: set[str] = field(default_factory=set)


def validate_containers(
    path: str, spec: Obj, volumes: Mapping[str, Obj], claims: Set[str] = frozenset()
) -> list[Cause]:
    """Every broken rule of a PodSpec's containers, given its volumes by name and the names of its claims."""
    around = _Around(spec, volumes, claims)
    causes: list[Cause] = []
    if not spec.get("containers"):
        causes.append(required(f"{path}.containers"))
    host_ports: set[str] = set()
    conflicts: list[Cause] = []
    for index, one in enumerate(spec.get("containers") or ()):
        where = f"{path}.containers[{index}]"
        causes += _common(where, one, around) + _unique(where, one, around)
        causes += _lasting(where, one, around) + _restarts(where, one)
        conflicts += _host_ports(where, one, host_ports)
    causes += conflicts
    for index, one in enumerate(spec.get("initContainers") or ()):
        causes += _init(f"{path}.initContainers", index, one, around)
    for index, one in enumerate(spec.get("ephemeralContainers") or ()):
        causes += _ephemeral(f"{path}.ephemeralContainers[{index}]", one, around)
    return causes


def _init(path: str, index: int, one: Obj, around: _Around) -> list[Cause]:
    where, sidecar = f"{path}[{index}]", one.get("restartPolicy") == "Always"
    causes = _common(where, one, around) + _restarts(where, one) + _unique(where, one, around)
    causes += _host_ports(f"{path}[0]", one, set())  # so Kubernetes calls the place of every one
    if sidecar:
        return causes + _lasting(where, one, around)
    detail = "may not be set for init containers without restartPolicy=Always"
    causes += [forbidden(f"{where}.{key}", detail) for key in ("lifecycle", *_PROBES) if key in one]
    for place, row in enumerate(one.get("resizePolicy") or ()):
        if row.get("restartPolicy") == "RestartContainer":
            detail = "must not be set to 'RestartContainer' for non-sidecar initContainers"
            causes.append(bad(f"{where}.resizePolicy[{place}].restartPolicy", "RestartContainer", detail))
    return causes


def _ephemeral(path: str, one: Obj, around: _Around) -> list[Cause]:
    others = {other.get("name") for key in ("containers", "initContainers") for other in around.spec.get(key) or ()}
    causes = _common(path, one, around) + validate_image(path, one) + _unique(path, one, around)
    target = one.get("targetContainerName")
    if target and target not in others:
        causes.append(not_found(f"{path}.targetContainerName", target))
    detail = "cannot be set for an Ephemeral Container"
    causes += [forbidden(f"{path}.{key}", detail) for key in _NOT_EPHEMERAL if one.get(key)]
    for index, mount in enumerate(one.get("volumeMounts") or ()):
        for key in ("subPath", "subPathExpr"):
            if mount.get(key):
                causes.append(forbidden(f"{path}.volumeMounts[{index}].{key}", detail))
    return causes


def _unique(path: str, one: Obj, around: _Around) -> list[Cause]:
    name = one.get("name", "")
    if name in around.names:
        return [duplicate(f"{path}.name", name)]
    if name:
        around.names.add(name)
    return []


def _common(path: str, one: Obj, around: _Around) -> list[Cause]:
    """The rules that containers of all sorts have."""
    name = one.get("name", "")
    causes = [] if name else [required(f"{path}.name")]
    if name and (errors := label_1123_errors(name)):
        causes += bad_all(f"{path}.name", name, errors)
    alone = {key: value for key, value in one.items() if key in _ALONE}
    is_right = is_known_right(_on_its_own, alone)
    causes += [] if is_right else _first(path, one)
    if one.get("volumeMounts") or one.get("volumeDevices"):
        causes += validate_mounts(path, one, around.volumes)
    if not is_right:
        causes += one_of(f"{path}.imagePullPolicy", one.get("imagePullPolicy"), _PULLS)
        causes += validate_resources(f"{path}.resources", one.get("resources") or {}, around.claims)
    if one.get("resizePolicy"):
        restart = around.spec.get("restartPolicy", "")
        causes += validate_resize_policy(f"{path}.resizePolicy", one["resizePolicy"], restart)
    if one.get("securityContext"):
        host_users = around.spec.get("hostUsers")
        causes += validate_container_security(f"{path}.securityContext", one["securityContext"], host_users=host_users)
    return causes


def _on_its_own(path: str, one: Obj) -> list[Cause]:
    """The broken rules of a container for which its pod does not matter."""
    return [
        *_first(path, one),
        *one_of(f"{path}.imagePullPolicy", one.get("imagePullPolicy"), _PULLS),
        *validate_resources(f"{path}.resources", one.get("resources") or {}),
    ]


def _first(path: str, one: Obj) -> list[Cause]:
    causes = [] if one.get("image") else [required(f"{path}.image")]
    policies = ("File", "FallbackToLogsOnError")
    causes += one_of(f"{path}.terminationMessagePolicy", one.get("terminationMessagePolicy"), policies, in_order=True)
    if one.get("ports"):
        causes += validate_ports(f"{path}.ports", one["ports"])
    if one.get("env"):
        causes += validate_env(f"{path}.env", one["env"])
    if one.get("envFrom"):
        causes += validate_env_from(f"{path}.envFrom", one["envFrom"])
    return causes


def validate_image(path: str, one: Obj) -> list[Cause]:
    """The rule of images that a pod's containers have beside those of a template."""
    image = one.get("image", "")
    return [] if image == image.strip() else [bad(f"{path}.image", image, _PADDED)]


def _lasting(path: str, one: Obj, around: _Around) -> list[Cause]:
    """The rules of what only containers that run on may have."""
    causes: list[Cause] = []
    if "lifecycle" in one:
        causes += validate_lifecycle(f"{path}.lifecycle", one["lifecycle"], around.spec)
    for key in _PROBES:
        if key in one and not is_known_right(_PROBE_RULES[key], one[key]):
            causes += _PROBE_RULES[key](f"{path}.{key}", one[key])
    return causes


def _restarts(path: str, one: Obj) -> list[Cause]:
    policy, rules = one.get("restartPolicy"), one.get("restartPolicyRules") or ()
    causes: list[Cause] = []
    if policy is None and rules:
        causes.append(required(f"{path}.restartPolicy", "must specify restartPolicy when restart rules are used"))
    elif policy is not None and policy not in _RESTARTS:
        causes.append(unsupported(f"{path}.restartPolicy", policy, _RESTARTS))
    where = f"{path}.restartPolicyRules"
    if len(rules) > _RULES_MAX:
        causes.append(too_many(where, len(rules), _RULES_MAX))
    for index, rule in enumerate(rules):
        action, codes = rule.get("action", ""), rule.get("exitCodes")
        if action not in _ACTIONS:
            causes.append(unsupported(f"{where}[{index}].action", action, _ACTIONS))
        place = f"{where}[{index}].exitCodes"
        if codes is None:
            causes.append(required(place, "must be specified"))
            continue
        if codes.get("operator") not in ("In", "NotIn"):
            causes.append(unsupported(f"{place}.operator", codes.get("operator", ""), ("In", "NotIn")))
        if len(codes.get("values") or ()) > _EXIT_CODES_MAX:
            causes.append(too_many(f"{place}.values", len(codes["values"]), _EXIT_CODES_MAX))
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
        if port.get("protocol") not in _PROTOCOLS:
            causes += one_of(f"{where}.protocol", port.get("protocol"), _PROTOCOLS)
    return causes


def _host_ports(path: str, one: Obj, seen: set[str]) -> list[Cause]:
    causes = []
    for index, port in enumerate(one.get("ports") or ()):
        if not port.get("hostPort"):
            continue
        found = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{port['hostPort']}"
        if found in seen:
            causes.append(duplicate(f"{path}.ports[{index}].hostPort", found))
        seen.add(found)
    return causes
