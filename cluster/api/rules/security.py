"""Rules of security contexts: of pods and of containers, and of what they share with their host.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from steersman.cluster.api.rules.fields import bad, duplicate, forbidden, required, too_long, unsupported
from steersman.cluster.api.rules.windows import validate_windows_options
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
#: what may be shared with the host, and where Kubernetes says that it may not
_HOST = {"hostNetwork": "hostNetwork", "hostPID": "HostPID", "hostIPC": "HostIPC"}


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


def validate_pod_context(path: str, security: Obj, spec: Obj) -> list[Cause]:
    """Every broken rule of a pod's security context; `spec` is the pod's."""
    causes = identities(path, security, ("fsGroup", "runAsUser", "runAsGroup"))
    for index, group in enumerate(security.get("supplementalGroups") or ()):
        if not 0 <= group <= _ID_MAX:
            causes.append(bad(f"{path}.supplementalGroups[{index}]", group, _ID_DETAIL))
    causes += _sysctls(f"{path}.sysctls", security.get("sysctls") or (), spec)
    causes += choice(f"{path}.fsGroupChangePolicy", security.get("fsGroupChangePolicy"), ("Always", "OnRootMismatch"))
    causes += _profiles(path, security)
    causes += choice(f"{path}.supplementalGroupsPolicy", security.get("supplementalGroupsPolicy"), ("Merge", "Strict"))
    return causes + choice(
        f"{path}.seLinuxChangePolicy", security.get("seLinuxChangePolicy"), ("MountOption", "Recursive")
    )


def validate_host_users(path: str, spec: Obj) -> list[Cause]:
    """The rules of pods with users of their own, which share no other namespace with the host."""
    detail = "when `hostUsers` is false"
    causes = [forbidden(f"{path}.{place}", detail) for key, place in _HOST.items() if spec.get(key)]
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for index, one in enumerate(spec.get(key) or ()):
            if one.get("volumeDevices"):
                causes.append(forbidden(f"{path}.{key}[{index}].volumeDevices", detail))
    return causes


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
    if "windowsOptions" in security:
        causes += validate_windows_options(f"{path}.windowsOptions", security["windowsOptions"])
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
            shown = {"Type": kind, "LocalhostProfile": local}
            causes.append(bad(where, shown, "can only be set when seccomp type is Localhost"))
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
    if local is None:
        return [required(where, "must be set when AppArmor type is Localhost")]
    causes: list[Cause] = []
    if local != local.strip():
        causes.append(bad(where, local, "must not be padded with whitespace"))
    elif not local:
        causes.append(required(where, "must be set when AppArmor type is Localhost"))
    return [*causes, too_long(where, _APPARMOR_BYTES_MAX)] if len(local.encode()) > _APPARMOR_BYTES_MAX else causes


def descending(path: str, found: str) -> list[Cause]:
    """The rules of a path below some other: relative, and never upwards."""
    causes = [bad(path, found, "must be a relative path")] if found.startswith("/") else []
    return causes + steps_back(path, found)


def steps_back(path: str, found: str) -> list[Cause]:
    """The rule of a path that never leads upwards."""
    return [bad(path, found, "must not contain '..'")] if ".." in found.split("/") else []


def local_path(path: str, found: str) -> list[Cause]:
    """The rules of where a volume's file is: below the volume, under no name that the volume keeps to itself."""
    causes = descending(path, found)
    if found.startswith("..") and not found.startswith("../"):
        causes.append(bad(path, found, "must not start with '..'"))
    return causes


def validate_container_security(path: str, security: Obj, *, host_users: bool | None = None) -> list[Cause]:
    """Every broken rule of a container's security context; `host_users` is the pod's."""
    causes = identities(path, security, ("runAsUser", "runAsGroup"))
    mount = security.get("procMount")
    causes += choice(f"{path}.procMount", mount, ("Default", "Unmasked"))
    if mount == "Unmasked" and host_users is not False:
        causes.append(bad(f"{path}.procMount", mount, "`hostUsers` must be false to use `Unmasked`"))
    if "seccompProfile" in security:
        causes += _seccomp(f"{path}.seccompProfile", security["seccompProfile"])
    if security.get("allowPrivilegeEscalation") is False:
        refusal = "cannot set `allowPrivilegeEscalation` to false and"
        if security.get("privileged"):
            causes.append(bad(path, security, f"{refusal} `privileged` to true"))
        if "CAP_SYS_ADMIN" in ((security.get("capabilities") or {}).get("add") or ()):
            causes.append(bad(path, security, f"{refusal} `capabilities.Add` CAP_SYS_ADMIN"))
    rest: Obj = {key: security[key] for key in ("windowsOptions", "appArmorProfile") if key in security}
    return causes + _profiles(path, rest)
