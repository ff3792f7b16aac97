"""The checks of the pod security standards: each looks at one thing that pods may get wrong.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/ and k8s.io/pod-security-admission/policy
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.cluster.meta.objects import Obj, annotations_of

_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
        "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    }
)  # fmt: skip
#: minor version to the sysctls that are safe since then
_SYSCTLS = (
    (0, ("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies",
         "net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start")),
    (27, ("net.ipv4.ip_local_reserved_ports",)),
    (29, ("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
          "net.ipv4.tcp_keepalive_probes")),
    (32, ("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem")),
)  # fmt: skip
_VOLUMES = frozenset(
    {
        "name", "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim",
        "projected", "secret",
    }
)  # fmt: skip
_SELINUX = frozenset({"", "container_t", "container_init_t", "container_kvm_t"})
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_PROFILES = ("RuntimeDefault", "Localhost")


@dataclass(frozen=True, slots=True)
class Subject:
    """A pod as checks look at it. Args: minor: of the Kubernetes version whose standards count."""

    meta: Mapping[str, Any]
    spec: Mapping[str, Any]
    minor: int

    @property
    def containers(self) -> list[Obj]:
        fields = ("initContainers", "containers", "ephemeralContainers")
        return [row for field in fields for row in self.spec.get(field) or ()]

    @property
    def contexts(self) -> list[tuple[str, Obj]]:
        """Name and security context of each container."""
        return [(row.get("name", ""), row.get("securityContext") or {}) for row in self.containers]

    @property
    def pod(self) -> Obj:
        """The security context of the pod."""
        return self.spec.get("securityContext") or {}

    @property
    def is_windows(self) -> bool:
        return self.minor >= 25 and (self.spec.get("os") or {}).get("name") == "windows"


#: reason and detail of what is wrong; None when nothing is
Finding = tuple[str, str] | None
Check = Callable[[Subject], Finding]


def quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _named(noun: str, names: Sequence[str]) -> str:
    return f"{noun}{'s' if len(names) != 1 else ''} {quoted(names)}"


def _setters(in_pod: bool, containers: Sequence[str]) -> str:
    return " and ".join((["pod"] if in_pod else []) + ([_named("container", containers)] if containers else []))


# ---- baseline


def _app_armor(subject: Subject) -> Finding:
    bad: list[str] = []

    def wrong(context: Obj) -> bool:
        kind = (context.get("appArmorProfile") or {}).get("type")
        return kind is not None and kind not in _PROFILES

    names = [name for name, context in subject.contexts if wrong(context)]
    if wrong(subject.pod) or names:
        bad.append(f'{_setters(wrong(subject.pod), names)} must not set AppArmor profile type to "Unconfined"')
    for key, value in sorted(annotations_of({"metadata": subject.meta}).items()):
        if key.startswith(_APPARMOR) and value not in ("", "runtime/default") and not value.startswith("localhost/"):
            bad.append(f'annotation: {key}="{value}"')
    noun = "forbidden AppArmor profile" + ("s" if len(bad) > 1 else "")
    return (noun, ", ".join(bad)) if bad else None


def _added(subject: Subject, allowed: frozenset[str]) -> tuple[list[str], list[str]]:
    """Containers that add capabilities beyond those allowed, and the capabilities."""
    names, added = [], set()
    for name, context in subject.contexts:
        more = set((context.get("capabilities") or {}).get("add") or ()) - allowed
        if more:
            names.append(name)
            added |= more
    return names, sorted(added)


def _capabilities(subject: Subject) -> Finding:
    names, added = _added(subject, _CAPABILITIES)
    if not names:
        return None
    detail = f"{_named('container', names)} must not include {quoted(added)} in securityContext.capabilities.add"
    return "non-default capabilities", detail


def _host_namespaces(subject: Subject) -> Finding:
    used = [f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if subject.spec.get(key)]
    return ("host namespaces", ", ".join(used)) if used else None


def _host_paths(subject: Subject) -> Finding:
    names = [row.get("name", "") for row in subject.spec.get("volumes") or () if row.get("hostPath") is not None]
    return ("hostPath volumes", _named("volume", names)) if names else None


def _host_ports(subject: Subject) -> Finding:
    names, ports = [], set()
    for row in subject.containers:
        used = {port["hostPort"] for port in row.get("ports") or () if port.get("hostPort")}
        if used:
            names.append(row.get("name", ""))
            ports |= {str(port) for port in used}
    if not names:
        return None
    verb, noun = "uses" if len(names) == 1 else "use", "hostPort" if len(ports) == 1 else "hostPorts"
    return "hostPort", f"{_named('container', names)} {verb} {noun} {', '.join(sorted(ports))}"


def _probe_hosts(subject: Subject) -> Finding:
    if subject.minor < 34:
        return None
    names, hosts = [], set()
    for row in subject.containers:
        lifecycle = row.get("lifecycle") or {}
        handlers = [row.get(key) or {} for key in ("livenessProbe", "readinessProbe", "startupProbe")]
        handlers += [lifecycle.get(key) or {} for key in ("postStart", "preStop")]
        used = {(part.get(key) or {}).get("host") for part in handlers for key in ("httpGet", "tcpSocket")} - {None, ""}
        if used:
            names.append(row.get("name", ""))
            hosts |= {str(host) for host in used}
    if not names:
        return None
    verb = "uses" if len(names) == 1 else "use"
    noun = "probe or lifecycle host" if len(hosts) == 1 else "probe or lifecycle hosts"
    return "probe or lifecycle host", f"{_named('container', names)} {verb} {noun} {quoted(sorted(hosts))}"


def _privileged(subject: Subject) -> Finding:
    names = [name for name, context in subject.contexts if context.get("privileged")]
    detail = f"{_named('container', names)} must not set securityContext.privileged=true"
    return ("privileged", detail) if names else None


def _proc_mount(subject: Subject) -> Finding:
    bad = {name: context["procMount"] for name, context in subject.contexts
           if context.get("procMount") not in (None, "Default")}  # fmt: skip
    if not bad:
        return None
    kinds = quoted(sorted(set(bad.values())))
    return "procMount", f"{_named('container', list(bad))} must not set securityContext.procMount to {kinds}"


def _selinux(subject: Subject) -> Finding:
    allowed = _SELINUX | ({"container_engine_t"} if subject.minor >= 31 else set())

    def wrong(context: Obj) -> bool:
        options = context.get("seLinuxOptions") or {}
        return options.get("type", "") not in allowed or bool(options.get("user") or options.get("role"))

    names = [name for name, context in subject.contexts if wrong(context)]
    if not names and not wrong(subject.pod):
        return None
    rows = [context.get("seLinuxOptions") or {} for _, context in (("", subject.pod), *subject.contexts)]
    kinds = sorted({row.get("type", "") for row in rows} - allowed)
    data = [_named("type", kinds)] if kinds else []
    data += [f"{key} may not be set" for key in ("user", "role") if any(row.get(key) for row in rows)]
    setters = _setters(wrong(subject.pod), names)
    return "seLinuxOptions", f"{setters} set forbidden securityContext.seLinuxOptions: {'; '.join(data)}"


def _seccomp_type(context: Obj) -> str | None:
    kind: str | None = (context.get("seccompProfile") or {}).get("type")
    return kind


def _seccomp(subject: Subject) -> Finding:
    rows = [("", subject.pod), *subject.contexts]
    kinds = {kind for _, context in rows if (kind := _seccomp_type(context)) is not None and kind not in _PROFILES}
    if not kinds:
        return None
    names = [name for name, context in subject.contexts if _seccomp_type(context) in kinds]
    setters = _setters(_seccomp_type(subject.pod) in kinds, names)
    return "seccompProfile", f"{setters} must not set securityContext.seccompProfile.type to {quoted(sorted(kinds))}"


def _sysctls(subject: Subject) -> Finding:
    safe = {name for since, names in _SYSCTLS if subject.minor >= since for name in names}
    bad = [row.get("name", "") for row in subject.pod.get("sysctls") or () if row.get("name") not in safe]
    return ("forbidden sysctls", ", ".join(bad)) if bad else None


def _host_process(subject: Subject) -> Finding:
    def wrong(context: Obj) -> bool:
        return bool((context.get("windowsOptions") or {}).get("hostProcess"))

    names = [name for name, context in subject.contexts if wrong(context)]
    if not names and not wrong(subject.pod):
        return None
    detail = f"{_setters(wrong(subject.pod), names)} must not set securityContext.windowsOptions.hostProcess=true"
    return "hostProcess", detail


# ---- restricted


def _escalation(subject: Subject) -> Finding:
    names = [name for name, context in subject.contexts if context.get("allowPrivilegeEscalation") is not False]
    if subject.is_windows or not names:
        return None
    detail = f"{_named('container', names)} must set securityContext.allowPrivilegeEscalation=false"
    return "allowPrivilegeEscalation != false", detail


def _few_capabilities(subject: Subject) -> Finding:
    if subject.is_windows:
        return None
    drops = [(name, (context.get("capabilities") or {}).get("drop") or ()) for name, context in subject.contexts]
    missing = [name for name, dropped in drops if "ALL" not in dropped]
    details = [f'{_named("container", missing)} must set securityContext.capabilities.drop=["ALL"]'] if missing else []
    names, added = _added(subject, frozenset({"NET_BIND_SERVICE"}))
    if names:
        wrong = f"must not include {quoted(added)} in securityContext.capabilities.add"
        details.append(f"{_named('container', names)} {wrong}")
    return ("unrestricted capabilities", "; ".join(details)) if details else None


def _volume_types(subject: Subject) -> Finding:
    bad: dict[str, list[str]] = {}
    for row in subject.spec.get("volumes") or ():
        if kinds := [key for key in row if key not in _VOLUMES]:
            bad[row.get("name", "")] = kinds
    if not bad:
        return None
    kinds = sorted({kind for row in bad.values() for kind in row})
    verb, noun = "uses" if len(bad) == 1 else "use", "type" if len(kinds) == 1 else "types"
    detail = f"{_named('volume', list(bad))} {verb} restricted volume {noun} {quoted(kinds)}"
    return "restricted volume types", detail


def _non_root(subject: Subject) -> Finding:
    reason, inherited = "runAsNonRoot != true", subject.pod.get("runAsNonRoot")
    wrong = [name for name, context in subject.contexts if context.get("runAsNonRoot") is False]
    if inherited is False or wrong:
        covered = all(context.get("runAsNonRoot") is True for _, context in subject.contexts)
        if wrong or not covered:
            return reason, f"{_setters(inherited is False, wrong)} must not set securityContext.runAsNonRoot=false"
    if inherited is not None:
        return None
    missing = [name for name, context in subject.contexts if context.get("runAsNonRoot") is None]
    if not missing:
        return None
    return reason, f"pod or {_named('container', missing)} must set securityContext.runAsNonRoot=true"


def _run_as_root(subject: Subject) -> Finding:
    if subject.minor < 23:
        return None
    names = [name for name, context in subject.contexts if context.get("runAsUser") == 0]
    in_pod = subject.pod.get("runAsUser") == 0
    return ("runAsUser=0", f"{_setters(in_pod, names)} must not set runAsUser=0") if in_pod or names else None


def _seccomp_set(subject: Subject) -> Finding:
    if subject.is_windows:
        return None
    if (found := _seccomp(subject)) is not None:
        return found
    missing = [name for name, context in subject.contexts if _seccomp_type(context) is None]
    if _seccomp_type(subject.pod) is not None or not missing:
        return None
    wanted = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return "seccompProfile", f"pod or {_named('container', missing)} {wanted}"


#: checks of the baseline by name, in order of their names in Kubernetes
BASELINE: Mapping[str, Check] = {
    "appArmorProfile": _app_armor,
    "capabilities_baseline": _capabilities,
    "hostNamespaces": _host_namespaces,
    "hostPathVolumes": _host_paths,
    "hostPorts": _host_ports,
    "hostProbesAndHostLifecycle": _probe_hosts,
    "privileged": _privileged,
    "procMount": _proc_mount,
    "seLinuxOptions": _selinux,
    "seccompProfile_baseline": _seccomp,
    "sysctls": _sysctls,
    "windowsHostProcess": _host_process,
}
#: those of the baseline that `restricted` says more strictly
OVERRIDDEN = frozenset({"capabilities_baseline", "hostPathVolumes", "seccompProfile_baseline"})
RESTRICTED: tuple[Check, ...] = (
    _escalation, _few_capabilities, _volume_types, _non_root, _run_as_root, _seccomp_set,
)  # fmt: skip
