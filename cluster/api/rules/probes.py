"""Rules of probes and lifecycle handlers.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from steersman.cluster.api.rules.fields import bad, forbidden, not_negative, required, unsupported
from steersman.cluster.api.rules.ports import port_number, port_or_name
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj

_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_COUNTS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
_HEADER = re.compile(r"[-A-Za-z0-9]+\Z")
_HEADER_DETAIL = (
    "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for "
    "validation is '[-A-Za-z0-9]+')"
)
#: what a pod without a grace period of its own has
_GRACE_S = 30
_SIGNALS = {
    "linux": (
        *(
            f"SIG{name}"
            for name in (
                "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
                "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
                "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
            )
        ),
        *(f"SIGRTMIN+{number}" for number in range(1, 16)),
        *(f"SIGRTMAX-{number}" for number in range(1, 15)),
    ),
    "windows": ("SIGKILL", "SIGTERM"),
}  # fmt: skip


def validate_probe(path: str, probe: Obj, kind: str) -> list[Cause]:
    """Every broken rule of a probe; `kind` is the name of its field."""
    causes = _handler(path, probe, ("exec", "httpGet", "tcpSocket", "grpc"), _GRACE_S)
    for key in _COUNTS:
        if (probe.get(key) or 0) < 0:
            causes += not_negative(f"{path}.{key}", probe[key])
    own_grace, where = probe.get("terminationGracePeriodSeconds"), f"{path}.terminationGracePeriodSeconds"
    if own_grace is not None and own_grace <= 0:
        causes.append(bad(where, own_grace, "must be greater than 0"))
    if kind == "readinessProbe":
        if own_grace is not None:
            causes.append(bad(where, own_grace, "must not be set for readinessProbes"))
    elif probe.get("successThreshold", 1) != 1:
        causes.append(bad(f"{path}.successThreshold", probe["successThreshold"], "must be 1"))
    return causes


def validate_lifecycle(path: str, lifecycle: Obj, spec: Obj) -> list[Cause]:
    """Every broken rule of a container's hooks; `spec` is its pod's."""
    grace_s = spec.get("terminationGracePeriodSeconds")
    causes: list[Cause] = []
    for key in ("postStart", "preStop"):
        if key in lifecycle:
            allowed = ("exec", "httpGet", "tcpSocket", "sleep")
            causes += _handler(f"{path}.{key}", lifecycle[key], allowed, _GRACE_S if grace_s is None else grace_s)
    signal, where = lifecycle.get("stopSignal"), f"{path}.stopSignal"
    if signal is None:
        return causes
    if "os" not in spec:
        return [*causes, forbidden(where, "may not be set for containers with empty `spec.os.name`")]
    known = _SIGNALS.get(spec["os"].get("name", ""), (signal,))
    return causes if signal in known else [*causes, unsupported(where, signal, known)]


def _handler(path: str, handler: Obj, allowed: Sequence[str], grace_s: int) -> list[Cause]:
    found = [key for key in _HANDLERS if key in handler and key in allowed]
    if not found:
        return [required(path, "must specify a handler type")]
    causes = _action(f"{path}.{found[0]}", found[0], handler[found[0]], grace_s)
    return causes + [forbidden(f"{path}.{extra}", "may not specify more than 1 handler type") for extra in found[1:]]


def _action(path: str, key: str, action: Obj, grace_s: int) -> list[Cause]:
    match key:
        case "exec" if not action.get("command"):
            return [required(f"{path}.command")]
        case "httpGet":
            return _http(path, action)
        case "tcpSocket":
            return port_or_name(f"{path}.port", action.get("port"))
        case "grpc":
            return port_number(f"{path}.port", action.get("port", 0))
        case "sleep" if not 0 <= action.get("seconds", 0) <= grace_s:
            detail = f"must be non-negative and less than terminationGracePeriodSeconds ({grace_s})"
            return [bad(path, action.get("seconds", 0), detail)]
    return []


def _http(path: str, action: Obj) -> list[Cause]:
    causes = [] if action.get("path") else [required(f"{path}.path")]
    causes += port_or_name(f"{path}.port", action.get("port"))
    if action.get("scheme") not in ("HTTP", "HTTPS"):
        causes.append(unsupported(f"{path}.scheme", action.get("scheme", ""), ("HTTP", "HTTPS")))
    for header in action.get("httpHeaders") or ():
        if not _HEADER.match(header.get("name", "")):
            causes.append(bad(f"{path}.httpHeaders", header.get("name", ""), _HEADER_DETAIL))
    return causes
