"""Rules of device classes, resource claims and their templates.

What a CEL selector reads of a device is not checked, only that it is an expression which may come to a truth.

Source: k8s.io/kubernetes/pkg/apis/resource/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steersman.cluster.api.cel import CelError, Declarations
from steersman.cluster.api.cel import compile as compile_cel
from steersman.cluster.api.cel.types import BOOL, DYN
from steersman.cluster.api.rules.csi import driver_name
from steersman.cluster.api.rules.devicefields import (
    EFFECTS,
    fully_qualified,
    label,
    listed,
    name_of,
    raw_object,
    set_of,
)
from steersman.cluster.api.rules.fields import bad, bad_all, immutable, labels, required, too_long, unsupported
from steersman.cluster.api.rules.metadata import validate_annotations
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_value_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.remembered import remembered

_LIST_MAX = 32
_SUBREQUESTS_MAX = 8
_TOLERATIONS_MAX = 16
_EXPRESSION_BYTES_MAX = 10 * 1024
_PARAMETERS_BYTES_MAX = 10 * 1024
_REFERENCE = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
_ONE_REQUEST = "exactly one of `exactly` or `firstAvailable` is required"


def default_claim(obj: Obj) -> None:
    _default_devices(obj.get("spec") or {})


def default_template(obj: Obj) -> None:
    _default_devices((obj.get("spec") or {}).get("spec") or {})


def _default_devices(spec: Obj) -> None:
    for request in (spec.get("devices") or {}).get("requests") or ():
        for one in (request.get("exactly"), *(request.get("firstAvailable") or ())):
            if one is None:
                continue
            if not one.get("allocationMode"):
                one["allocationMode"] = "ExactCount"
            if one["allocationMode"] == "ExactCount" and not one.get("count"):
                one["count"] = 1
            for toleration in one.get("tolerations") or ():
                toleration.setdefault("operator", "Equal")


def validate_class(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = _selectors("spec.selectors", spec.get("selectors") or ())
    causes += listed("spec.config", spec.get("config") or (), _LIST_MAX, opaque)
    name = spec.get("extendedResourceName")
    if name is not None and (qualified_name_errors(name) or "/" not in name or "kubernetes.io/" in name):
        causes.append(bad("spec.extendedResourceName", name, "must be a valid extended resource name"))
    return causes


def validate_claim(obj: Obj) -> list[Cause]:
    return _devices("spec.devices", (obj.get("spec") or {}).get("devices") or {})


def validate_template(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    meta = spec.get("metadata") or {}
    causes = labels("spec.metadata.labels", meta.get("labels") or {})
    causes += validate_annotations("spec.metadata.annotations", meta.get("annotations") or {})
    return causes + _devices("spec.spec.devices", (spec.get("spec") or {}).get("devices") or {})


def validate_claim_change(new: Obj, old: Obj) -> list[Cause]:
    """A claim stays as it is; one that does not is looked at as a new one."""
    causes = immutable("spec", new.get("spec"), old.get("spec"))
    return causes + validate_claim(new) if causes else []


def validate_template_change(new: Obj, old: Obj) -> list[Cause]:
    """The same of a template of claims."""
    causes = immutable("spec", new.get("spec"), old.get("spec"))
    return causes + validate_template(new) if causes else []


def request_names(devices: Obj) -> Mapping[str, set[str]]:
    """The requests of a claim, each with its subrequests."""
    return {
        row.get("name", ""): {sub.get("name", "") for sub in row.get("firstAvailable") or ()}
        for row in devices.get("requests") or ()
    }


def _devices(path: str, devices: Obj) -> list[Cause]:
    known = request_names(devices)
    causes = set_of(f"{path}.requests", devices.get("requests") or [], _LIST_MAX, _request, name_of)

    def constraint(where: str, row: Obj) -> list[Cause]:
        found = references(f"{where}.requests", row.get("requests") or (), known)
        for key in ("matchAttribute", "distinctAttribute"):
            if row.get(key) is not None:
                return found + fully_qualified(f"{where}.{key}", row[key])
        detail = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
        return [*found, required(where, detail)]

    def config(where: str, row: Obj) -> list[Cause]:
        return references(f"{where}.requests", row.get("requests") or (), known) + opaque(where, row)

    causes += listed(f"{path}.constraints", devices.get("constraints") or (), _LIST_MAX, constraint)
    return causes + listed(f"{path}.config", devices.get("config") or (), _LIST_MAX, config)


def references(path: str, names: Sequence[str], known: Mapping[str, set[str]]) -> list[Cause]:
    """The rules of the names of requests, each said once."""
    return set_of(path, names, _LIST_MAX, lambda where, name: reference(where, name, known), lambda name: name)


def reference(path: str, name: str, known: Mapping[str, set[str]]) -> list[Cause]:
    """The rules of the name of a request, or of one and its subrequest."""
    parts = name.split("/")
    if len(parts) > 2:
        return [bad(path, name, _REFERENCE)]
    causes: list[Cause] = []
    for part in parts:
        causes += label(path, part)
    if parts[0] not in known or (len(parts) == 2 and parts[1] not in known[parts[0]]):
        causes.append(bad(path, name, _REFERENCE))
    return causes


def _request(path: str, request: Obj) -> list[Cause]:
    causes = label(f"{path}.name", name_of(request))
    exactly, several = request.get("exactly"), request.get("firstAvailable") or []
    if exactly is None and not several:
        causes.append(required(path, _ONE_REQUEST))
    elif exactly is not None and several:
        causes.append(bad(path, None, f"{_ONE_REQUEST}, but multiple fields are set"))
    elif exactly is not None:
        causes += _wanted(f"{path}.exactly", exactly)
    else:
        causes += set_of(f"{path}.firstAvailable", several, _SUBREQUESTS_MAX, _subrequest, name_of)
    return causes


def _subrequest(path: str, one: Obj) -> list[Cause]:
    return label(f"{path}.name", name_of(one)) + _wanted(path, one)


def _wanted(path: str, one: Obj) -> list[Cause]:
    found, mode, count = one.get("deviceClassName", ""), one.get("allocationMode", ""), one.get("count", 0)
    where = f"{path}.deviceClassName"
    causes = bad_all(where, found, subdomain_errors(found)) if found else [required(where)]
    causes += _selectors(f"{path}.selectors", one.get("selectors") or ())
    if mode == "All":
        if count:
            causes.append(bad(f"{path}.count", count, "must not be specified when allocationMode is 'All'"))
    elif mode != "ExactCount":
        causes.append(unsupported(f"{path}.allocationMode", mode, ("All", "ExactCount")))
    elif count <= 0:
        causes.append(bad(f"{path}.count", count, "must be greater than zero"))
    return causes + listed(f"{path}.tolerations", one.get("tolerations") or (), _TOLERATIONS_MAX, _toleration)


def _toleration(path: str, row: Obj) -> list[Cause]:
    key, operator, value = row.get("key", ""), row.get("operator", ""), row.get("value", "")
    causes = bad_all(f"{path}.key", key, qualified_name_errors(key)) if key else []
    match operator:
        case "Exists":
            if value:
                causes.append(bad(f"{path}.value", value, "must be empty for operator `Exists`"))
        case "Equal":
            causes += bad_all(f"{path}.value", value, label_value_errors(value))
        case "":
            causes.append(required(f"{path}.operator"))
        case _:
            causes.append(unsupported(f"{path}.operator", operator, ("Equal", "Exists")))
    if row.get("effect") and row["effect"] not in EFFECTS:
        causes.append(unsupported(f"{path}.effect", row["effect"], EFFECTS))
    return causes


def _selectors(path: str, rows: Sequence[Obj]) -> list[Cause]:
    return listed(path, rows, _LIST_MAX, _selector)


def _selector(path: str, row: Obj) -> list[Cause]:
    cel = row.get("cel")
    if cel is None:
        return [required(f"{path}.cel")]
    expression, where = cel.get("expression", ""), f"{path}.cel.expression"
    if len(expression) > _EXPRESSION_BYTES_MAX:
        return [too_long(where, _EXPRESSION_BYTES_MAX)]
    wrong = _uncompiled(expression)
    return [bad(where, expression, wrong)] if wrong else []


@remembered(1024)
def _uncompiled(expression: str) -> str:
    """What keeps a selector from being one; empty when nothing does."""
    try:
        program = compile_cel(expression, Declarations(variables={"device": DYN}))
    except CelError as error:
        return f"compilation failed: {error}"
    if program.type in (BOOL, DYN):
        return ""
    return f"must evaluate to bool or the unknown type, not {program.type}"


def opaque(path: str, row: Obj) -> list[Cause]:
    """The rules of a configuration that only its driver understands."""
    found, where = row.get("opaque"), f"{path}.opaque"
    if found is None:
        return [required(where)]
    causes = driver_name(f"{where}.driver", found.get("driver", ""))
    return causes + raw_object(f"{where}.parameters", found.get("parameters"), _PARAMETERS_BYTES_MAX)
