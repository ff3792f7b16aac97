"""Rules of probes and lifecycle handlers.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Sequence

from steersman.cluster.api.rules.fields import bad, forbidden, not_negative, required, unsupported
from steersman.cluster.api.rules.ports import port_or_name
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj

_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")


def validate_probe(path: str, probe: Obj, kind: str) -> list[Cause]:
    """Every broken rule of a probe; `kind` is the name of its field."""
    causes = _handler(path, probe, ("exec", "httpGet", "tcpSocket", "grpc"))
    for key in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        causes += not_negative(f"{path}.{key}", probe.get(key))
    if kind != "readinessProbe" and probe.get("successThreshold", 1) != 1:
        causes.append(bad(f"{path}.successThreshold", probe["successThreshold"], "must be 1"))
    own_grace = probe.get("terminationGracePeriodSeconds")
    if own_grace is not None:
        if kind == "readinessProbe":
            detail = "must not be set for readinessProbes"
            causes.append(bad(f"{path}.terminationGracePeriodSeconds", own_grace, detail))
        elif own_grace <= 0:
            causes.append(bad(f"{path}.terminationGracePeriodSeconds", own_grace, "must be greater than 0"))
    return causes


def validate_lifecycle(path: str, lifecycle: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for key in ("postStart", "preStop"):
        if key in lifecycle:
            causes += _handler(f"{path}.{key}", lifecycle[key], ("exec", "httpGet", "tcpSocket", "sleep"))
    return causes


def _handler(path: str, handler: Obj, allowed: Sequence[str]) -> list[Cause]:
    found = [key for key in _HANDLERS if key in handler]
    causes: list[Cause] = []
    for extra in found[1:]:
        causes.append(forbidden(f"{path}.{extra}", "may not specify more than 1 handler type"))
    if not found:
        return [required(path, "must specify a handler type")]
    key = found[0]
    if key not in allowed:
        return [*causes, forbidden(f"{path}.{key}", "may not be used here")]
    action = handler[key]
    where = f"{path}.{key}"
    match key:
        case "exec" if not action.get("command"):
            causes.append(required(f"{where}.command"))
        case "httpGet":
            if not action.get("path"):
                causes.append(required(f"{where}.path"))
            causes += port_or_name(f"{where}.port", action.get("port"))
            if action.get("scheme") not in ("HTTP", "HTTPS"):
                causes.append(unsupported(f"{where}.scheme", action.get("scheme", ""), ("HTTP", "HTTPS")))
        case "tcpSocket":
            causes += port_or_name(f"{where}.port", action.get("port"))
        case "grpc":
            causes += port_or_name(f"{where}.port", action.get("port"))
        case "sleep":
            causes += not_negative(f"{where}.seconds", action.get("seconds"))
    return causes
