"""Rules of pods by their operating system: what each cannot have, and what Windows alone has.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from steersman.cluster.api.rules.fields import bad, bad_all, forbidden, required, unsupported
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import subdomain_errors
from steersman.cluster.meta.objects import Obj

_LISTS = ("initContainers", "containers", "ephemeralContainers")
_NOT_ON_WINDOWS = (
    "appArmorProfile", "seLinuxOptions", "seccompProfile", "fsGroup", "fsGroupChangePolicy", "sysctls", "runAsUser",
    "runAsGroup", "supplementalGroups", "supplementalGroupsPolicy", "seLinuxChangePolicy",
)  # fmt: skip
_CONTAINER_NOT_ON_WINDOWS = (
    "appArmorProfile", "seLinuxOptions", "seccompProfile", "capabilities", "readOnlyRootFilesystem", "privileged",
    "allowPrivilegeEscalation", "procMount", "runAsUser", "runAsGroup",
)  # fmt: skip
_CREDENTIALS_BYTES_MAX = 64 * 1024
_DOMAIN_CHARS_MAX, _USER_CHARS_MAX = 256, 104
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NET_BIOS = re.compile(r'[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}\Z')
_DNS_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_DNS = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*\Z")
_USER_CHARS = re.compile(r'["/\\:;|=,+*?<>@\[\]]')
_DOTS_AND_SPACES = re.compile(r"[. ]+\Z")


def _containers(path: str, spec: Obj) -> Iterator[tuple[str, Obj]]:
    """The security contexts of all containers, each with its path; empty where there is none."""
    for key in _LISTS:
        for index, one in enumerate(spec.get(key) or ()):
            yield f"{path}.{key}[{index}].securityContext", one.get("securityContext") or {}


def validate_os(path: str, spec: Obj) -> list[Cause]:
    """Every broken rule of a pod that says its operating system."""
    match spec["os"].get("name", ""):
        case "":
            return [required(f"{path}.os.name")]
        case "windows":
            return _windows(path, spec)
        case "linux":
            return _linux(path, spec)
        case other:
            return [unsupported(f"{path}.os", other, ("linux", "windows"))]


def _windows(path: str, spec: Obj) -> list[Cause]:
    detail, security = "cannot be set for a windows pod", spec.get("securityContext") or {}
    causes = [
        forbidden(f"{path}.securityContext.{key}", detail)
        for key in _NOT_ON_WINDOWS
        if security.get(key) is not None and (key != "sysctls" or security[key])
    ]
    for key in ("hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"):
        if spec.get(key) or (key in ("hostUsers", "shareProcessNamespace") and spec.get(key) is not None):
            causes.append(forbidden(f"{path}.{key}", detail))
    for where, found in _containers(path, spec):
        causes += [
            forbidden(f"{where}.{key}", detail) for key in _CONTAINER_NOT_ON_WINDOWS if found.get(key) is not None
        ]
    return causes


def _linux(path: str, spec: Obj) -> list[Cause]:
    places = [(f"{path}.securityContext", spec.get("securityContext") or {}), *_containers(path, spec)]
    detail = "windows options cannot be set for a linux pod"
    return [forbidden(f"{where}.windowsOptions", detail) for where, found in places if "windowsOptions" in found]


def validate_host_process(path: str, spec: Obj) -> list[Cause]:
    """The rules of pods whose containers run as processes of their Windows host: all do, on its network."""
    whole = ((spec.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess")
    causes: list[Cause] = []
    among, count = 0, 0
    for where, found in _containers(path, spec):
        own = (found.get("windowsOptions") or {}).get("hostProcess")
        count += 1
        if whole is not None and own is not None and whole != own:
            detail = f"pod hostProcess value must be identical if both are specified, was {str(whole).lower()}"
            causes.append(bad(f"{where}.windowsOptions.hostProcess", own, detail))
        among += bool(whole if own is None else own)
    if among and among != count:
        detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
        causes.append(bad(path, "", detail))
    if among and not spec.get("hostNetwork"):
        detail = "hostNetwork must be true if pod contains any hostProcess containers"
        causes.append(bad(f"{path}.hostNetwork", False, detail))
    return causes


def validate_windows_options(path: str, options: Obj) -> list[Cause]:
    """Every broken rule of what only Windows has in a security context."""
    name, credentials, user = (
        options.get(key) for key in ("gmsaCredentialSpecName", "gmsaCredentialSpec", "runAsUserName")
    )
    causes: list[Cause] = []
    if name is not None:
        causes += bad_all(f"{path}.gmsaCredentialSpecName", name, subdomain_errors(name))
    where = f"{path}.gmsaCredentialSpec"
    if credentials == "":
        causes.append(bad(where, credentials, "gmsaCredentialSpec cannot be an empty string"))
    elif credentials is not None and len(credentials.encode()) > _CREDENTIALS_BYTES_MAX:
        detail = f"gmsaCredentialSpec size must be under {_CREDENTIALS_BYTES_MAX // 1024} KiB"
        causes.append(bad(where, credentials, detail))
    return causes if user is None else causes + bad_all(f"{path}.runAsUserName", user, _user_errors(user))


def _user_errors(text: str) -> list[str]:
    field = "runAsUserName"
    if not text:
        return [f"{field} cannot be an empty string"]
    if _CONTROL.search(text):
        return [f"{field} cannot contain control characters"]
    if text.count("\\") > 1:
        return [f"{field} cannot contain more than one backslash"]
    domain, has_domain, user = text.rpartition("\\")
    errors: list[str] = []
    if len(domain) >= _DOMAIN_CHARS_MAX:
        errors.append(f"{field}'s Domain length must be under {_DOMAIN_CHARS_MAX} characters")
    if has_domain and not (_NET_BIOS.match(domain) or _DNS.match(domain)):
        errors.append(f"{field}'s Domain doesn't match the NetBios nor the DNS format")
    if not user:
        errors.append(f"{field}'s User cannot be empty")
    elif len(user) > _USER_CHARS_MAX:
        errors.append(f"{field}'s User length must not be longer than {_USER_CHARS_MAX} characters")
    if _DOTS_AND_SPACES.match(user):
        errors.append(f"{field}'s User cannot contain only periods or spaces")
    if _USER_CHARS.search(user):
        errors.append(f"{field}'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]")
    return errors
