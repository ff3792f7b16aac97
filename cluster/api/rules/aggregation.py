"""Rules of APIServices: which group and version another server serves, or this one itself.

Source: k8s.io/kube-aggregator/pkg/apis/apiregistration/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.fields import bad, bad_all, required, unsupported
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1035_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.times import format_time

_LOCAL = "Local APIServices are always available"


def default_service(obj: Obj) -> None:
    service = obj.setdefault("spec", {}).get("service")
    if service is not None:
        service.setdefault("port", 443)


def prepare_create(obj: Obj, ctx: WriteContext) -> None:
    """What this server serves itself is there from the beginning."""
    if obj["spec"].get("service") is None:
        condition = {"type": "Available", "status": "True", "reason": "Local", "message": _LOCAL}
        obj["status"] = {"conditions": [{**condition, "lastTransitionTime": format_time(ctx.now)}]}


def validate_service(obj: Obj) -> list[Cause]:
    spec, name = obj["spec"], obj["metadata"].get("name", "")
    group, version = spec.get("group", ""), spec.get("version", "")
    causes: list[Cause] = []
    if name and name != f"{version}.{group}":
        causes.append(bad("metadata.name", name, f'must be `spec.version+"."+spec.group`: "{version}.{group}"'))
    if not group and version != "v1":
        causes.append(required("spec.group", "only v1 may have an empty group and it better be legacy kube"))
    if group:
        causes += bad_all("spec.group", group, subdomain_errors(group))
    causes += bad_all("spec.version", version, label_1035_errors(version))
    for key, limit in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
        if not 0 < spec.get(key, 0) <= limit:
            causes.append(bad(f"spec.{key}", spec.get(key, 0), f"must be positive and less than {limit}"))
    return causes + _target(spec)


def _target(spec: Obj) -> list[Cause]:
    service, insecure, bundle = spec.get("service"), bool(spec.get("insecureSkipTLSVerify")), spec.get("caBundle")
    causes: list[Cause] = []
    if service is None:
        if bundle:
            size = len(bundle) * 3 // 4
            causes.append(bad("spec.caBundle", f"{size} bytes", "local APIServices may not have a caBundle"))
        if insecure:
            detail = "local APIServices may not have insecureSkipTLSVerify"
            causes.append(bad("spec.insecureSkipTLSVerify", True, detail))
        return causes
    causes += [required(f"spec.service.{key}") for key in ("namespace", "name") if not service.get(key)]
    if insecure and bundle:
        causes.append(bad("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present"))
    return causes


def validate_status(new: Obj, _old: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for index, row in enumerate((new.get("status") or {}).get("conditions") or ()):
        state, known = row.get("status", ""), ("True", "False", "Unknown")
        if state not in known:
            causes.append(unsupported(f"status.conditions[{index}].status", state, known, in_order=True))
    return causes
