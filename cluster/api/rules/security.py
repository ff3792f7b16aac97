"""Rules of security contexts: of pods and of containers, and what an operating system cannot have.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from steersman.cluster.api.rules.fields import bad, duplicate, forbidden, required, too_long, unsupported
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj

_ID_MAX = 2**31 - 1
_ID_DETAIL = "must be between 0 and 2147483647, inclusive"
_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_APPARMOR_BYTES_MAX = 4095
_SYSCTL_BYTES_MAX = 253
_SYSCTL = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
_SYSCTL_PATTERN = re.compile(_SYSCTL.removesuffix("$") + r"\Z")
_IPC_SYSCTLS = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")
_HOST = ("hostNetwork", "hostPID", "hostIPC")
_CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")
_NOT_ON_WINDOWS = (
    "appArmorProfile", "seLinuxOptions", "seccompProfile", "fsGroup", "fsGroupChangePolicy", "sysctls", "runAsUser",
    "runAsGroup", "supplementalGroups", "supplementalGroupsPolicy",
)  # fmt: skip
_CONTAINER_NOT_ON_WINDOWS = (
    "appArmorProfile", "seLinuxOptions", "seccompProfile", "capabilities", "readOnlyRootFilesystem", "privileged",
    "allowPrivilegeEscalation", "procMount", "runAsUser", "runAsGroup",
)  # fmt: skip


def identities(path: str, security: Obj, keys: Iterable[str]) -> list[Cause]:
    """The rules of user and group numbers."""
    return [
        bad(f"{path}.{key}", security[key], _ID_DETAIL)
        for key in keys
        if security.get(key) is not None and not 0 <= security[key] <= _ID_MAX
    ]


def choice(path: str, value: Any, supported: Sequence[str]) -> list[Cause]:
    """The cause of a value that is given and none of those supported."""
    return [] if value is None or value in supported else [unsupported(path, value, supported)]


def validate_pod_security(path: str, spec: Obj) -> list[Cause]:
    """Every broken rule of a pod's security context and of what it shares with its host."""
    causes = _context(f"{path}.securityContext", spec["securityContext"], spec) if spec.get("securityContext") else []
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        causes.append(bad(f"{path}.shareProcessNamespace", True, detail))
    if spec.get("hostUsers") is False:
        causes += [forbidden(f"{path}.{key}", "when `hostUsers` is false") for key in _HOST if spec.get(key)]
    if "os" in spec:
        match spec["os"].get("name"):
            case "windows":
                causes += _windows(path, spec)
            case "linux":
                causes += _linux(path, spec)
    return causes


def _context(where: str, security: Obj, spec: Obj) -> list[Cause]:
    causes = identities(where, security, ("runAsUser", "runAsGroup", "fsGroup"))
    for index, group in enumerate(security.get("supplementalGroups") or ()):
        if not 0 <= group <= _ID_MAX:
            causes.append(bad(f"{where}.supplementalGroups[{index}]", group, _ID_DETAIL))
    causes += choice(f"{where}.supplementalGroupsPolicy", security.get("supplementalGroupsPolicy"), ("Merge", "Strict"))
    causes += choice(f"{where}.fsGroupChangePolicy", security.get("fsGroupChangePolicy"), ("Always", "OnRootMismatch"))
    causes += choice(f"{where}.seLinuxChangePolicy", security.get("seLinuxChangePolicy"), ("MountOption", "Recursive"))
    causes += _sysctls(f"{where}.sysctls", security.get("sysctls") or (), spec)
    return causes + _profiles(where, security)


def _sysctls(path: str, rows: Sequence[Obj], spec: Obj) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, row in enumerate(rows):
        name, where = row.get("name", ""), f"{path}[{index}].name"
        if not name:
            causes.append(required(where))
        elif len(name) > _SYSCTL_BYTES_MAX or not _SYSCTL_PATTERN.match(name):
            causes.append(
                bad(where, name, f"must have at most {_SYSCTL_BYTES_MAX} characters and match regex {_SYSCTL}")
            )
        elif name in seen:
            causes.append(duplicate(where, name))
        seen.add(name)
        dotted = name.replace("/", ".")
        if spec.get("hostNetwork") and dotted.startswith("net."):
            causes.append(bad(where, name, "may not be specified when 'hostNetwork' is true"))
        if spec.get("hostIPC") and dotted.startswith(_IPC_SYSCTLS):
            causes.append(bad(where, name, "may not be specified when 'hostIPC' is true"))
    return causes


def _profiles(path: str, security: Obj) -> list[Cause]:
    causes = []
    if "seccompProfile" in security:
        causes += _seccomp(f"{path}.seccompProfile", security["seccompProfile"])
    if "appArmorProfile" in security:
        causes += _apparmor(f"{path}.appArmorProfile", security["appArmorProfile"])
    return causes


def _seccomp(path: str, profile: Obj) -> list[Cause]:
    kind, local, where = profile.get("type", ""), profile.get("localhostProfile"), f"{path}.localhostProfile"
    causes: list[Cause] = []
    if not kind:
        causes.append(required(f"{path}.type", "type is required when seccompProfile is set"))
    elif kind not in _PROFILES:
        causes.append(unsupported(f"{path}.type", kind, _PROFILES))
    if kind != "Localhost":
        if local is not None:
            causes.append(bad(where, local, "can only be set when seccomp type is Localhost"))
    elif local is None:
        causes.append(required(where, "must be set when seccomp type is Localhost"))
    else:
        causes += descending(where, local)
    return causes


def _apparmor(path: str, profile: Obj) -> list[Cause]:
    kind, local, where = profile.get("type", ""), profile.get("localhostProfile"), f"{path}.localhostProfile"
    if not kind:
        return [required(f"{path}.type", "type is required when appArmorProfile is set")]
    if kind not in _PROFILES:
        return [unsupported(f"{path}.type", kind, _PROFILES)]
    if kind != "Localhost":
        return [bad(where, local, "can only be set when AppArmor type is Localhost")] if local is not None else []
    if local is None or local == "":
        return [required(where, "must be set when AppArmor type is Localhost")]
    if local != local.strip():
        return [bad(where, local, "must not be padded with whitespace")]
    return [too_long(where, _APPARMOR_BYTES_MAX)] if len(local) > _APPARMOR_BYTES_MAX else []


def descending(path: str, found: str) -> list[Cause]:
    """The rules of a path below some other: relative, and never upwards."""
    causes = []
    if found.startswith("/"):
        causes.append(bad(path, found, "must be a relative path"))
    if ".." in found.split("/"):
        causes.append(bad(path, found, "must not contain '..'"))
    return causes


def validate_container_security(path: str, security: Obj, *, host_users: bool | None = None) -> list[Cause]:
    """Every broken rule of a container's security context; `host_users` is the pod's."""
    causes = identities(path, security, ("runAsUser", "runAsGroup"))
    mount = security.get("procMount")
    causes += choice(f"{path}.procMount", mount, ("Default", "Unmasked"))
    if mount == "Unmasked" and host_users is not False:
        causes.append(bad(f"{path}.procMount", mount, "`hostUsers` must be false to use `Unmasked`"))
    causes += _profiles(path, security)
    if security.get("allowPrivilegeEscalation") is False:
        refusal = "cannot set `allowPrivilegeEscalation` to false and"
        if security.get("privileged"):
            causes.append(bad(path, security, f"{refusal} `privileged` to true"))
        if "CAP_SYS_ADMIN" in ((security.get("capabilities") or {}).get("add") or ()):
            causes.append(bad(path, security, f"{refusal} `capabilities.Add` CAP_SYS_ADMIN"))
    return causes


def _contexts(path: str, spec: Obj) -> Iterator[tuple[str, Obj]]:
    """The security contexts of all containers, each with its path."""
    for key in _CONTAINER_LISTS:
        for index, one in enumerate(spec.get(key) or ()):
            if one.get("securityContext"):
                yield f"{path}.{key}[{index}].securityContext", one["securityContext"]


def _windows(path: str, spec: Obj) -> list[Cause]:
    detail, security = "cannot be set for a windows pod", spec.get("securityContext") or {}
    causes = [
        forbidden(f"{path}.securityContext.{key}", detail) for key in _NOT_ON_WINDOWS if security.get(key) is not None
    ]
    causes += [forbidden(f"{path}.hostUsers", detail)] if spec.get("hostUsers") is not None else []
    for key in ("hostPID", "hostIPC", "shareProcessNamespace"):
        if spec.get(key):
            causes.append(forbidden(f"{path}.{key}", detail))
    for where, found in _contexts(path, spec):
        causes += [
            forbidden(f"{where}.{key}", detail) for key in _CONTAINER_NOT_ON_WINDOWS if found.get(key) is not None
        ]
    return causes


def _linux(path: str, spec: Obj) -> list[Cause]:
    places = [(f"{path}.securityContext", spec.get("securityContext") or {}), *_contexts(path, spec)]
    detail = "windows options cannot be set for a linux pod"
    return [forbidden(f"{where}.windowsOptions", detail) for where, found in places if "windowsOptions" in found]
