"""Rules of device classes, resource claims and their templates.

What a CEL selector reads of a device is not checked, only that it is an expression which may come to a truth.

Source: k8s.io/kubernetes/pkg/apis/resource/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import orjson

from steersman.cluster.api.cel import CelError, Declarations
from steersman.cluster.api.cel import compile as compile_cel
from steersman.cluster.api.cel.types import BOOL, DYN
from steersman.cluster.api.rules.csi import driver_name
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    forbidden,
    immutable,
    labels,
    required,
    too_long,
    too_many,
    unsupported,
)
from steersman.cluster.api.rules.metadata import validate_annotations, validate_unique
from steersman.cluster.api.rules.scheduling import validate_node_selector
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, label_value_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.remembered import remembered

_LIST_MAX = 32
_SUBREQUESTS_MAX = 8
_TOLERATIONS_MAX = 16
_RESERVED_MAX = 256
_EXPRESSION_BYTES_MAX = 10 * 1024
_PARAMETERS_BYTES_MAX = 10 * 1024
_POOL_BYTES_MAX = 253
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
    causes += _listed("spec.config", spec.get("config") or (), _LIST_MAX, _opaque)
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


def validate_claim_update(new: Obj, old: Obj) -> list[Cause]:
    return immutable("spec", new.get("spec"), old.get("spec"))


def _listed(path: str, rows: Sequence[Obj], limit: int, rule: Callable[[str, Obj], list[Cause]]) -> list[Cause]:
    causes = [too_many(path, len(rows), limit)] if len(rows) > limit else []
    for index, row in enumerate(rows):
        causes += rule(f"{path}[{index}]", row)
    return causes


def name_label(path: str, name: str) -> list[Cause]:
    """The rules of a required DNS label."""
    return bad_all(path, name, label_1123_errors(name)) if name else [required(path)]


def pool_name(path: str, name: str) -> list[Cause]:
    """The rules of a pool's name: DNS names divided by slashes."""
    if not name:
        return [required(path)]
    causes = [too_long(path, _POOL_BYTES_MAX)] if len(name) > _POOL_BYTES_MAX else []
    for part in name.split("/"):
        causes += bad_all(path, part, subdomain_errors(part))
    return causes


def qualified(path: str, name: str, *, needs_domain: bool) -> list[Cause]:
    """The rules of attribute and capacity names: a C identifier, perhaps after a domain and a slash."""
    if not name:
        return [required(path, "name required")]
    domain, slash, rest = name.rpartition("/")
    causes: list[Cause] = []
    if slash and not domain:
        causes.append(required(path, "the domain must not be empty"))
    elif domain:
        causes += [too_long(path, 63)] if len(domain) > 63 else []
        causes += bad_all(path, domain, subdomain_errors(domain))
    elif needs_domain:
        causes.append(bad(path, name, "must include a domain"))
    if slash and not rest:
        causes.append(required(path, "the name must not be empty"))
    elif rest:
        causes += [too_long(path, 32)] if len(rest) > 32 else []
        if not (rest.isascii() and rest.isidentifier()):
            detail = (
                "a valid C identifier must start with alphabetic character or '_', followed by a string of "
                "alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for "
                "validation is '[A-Za-z_][A-Za-z0-9_]*')"
            )
            causes.append(bad(path, rest, detail))
    return causes


def _names(devices: Obj) -> Mapping[str, set[str]]:
    """The requests of a claim, each with its subrequests."""
    return {
        row.get("name", ""): {sub.get("name", "") for sub in row.get("firstAvailable") or ()}
        for row in devices.get("requests") or ()
    }


def _devices(path: str, devices: Obj) -> list[Cause]:
    known = _names(devices)
    requests = devices.get("requests") or []
    causes = _listed(f"{path}.requests", requests, _LIST_MAX, _request)
    causes += validate_unique(f"{path}.requests", (row.get("name", "") for row in requests))

    def constraint(where: str, row: Obj) -> list[Cause]:
        found = _references(f"{where}.requests", row.get("requests") or (), known)
        for key in ("matchAttribute", "distinctAttribute"):
            if row.get(key) is not None:
                return found + qualified(f"{where}.{key}", row[key], needs_domain=True)
        detail = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
        return [*found, required(where, detail)]

    def config(where: str, row: Obj) -> list[Cause]:
        return _references(f"{where}.requests", row.get("requests") or (), known) + _opaque(where, row)

    causes += _listed(f"{path}.constraints", devices.get("constraints") or (), _LIST_MAX, constraint)
    return causes + _listed(f"{path}.config", devices.get("config") or (), _LIST_MAX, config)


def _references(path: str, names: Sequence[str], known: Mapping[str, set[str]]) -> list[Cause]:
    causes = [too_many(path, len(names), _LIST_MAX)] if len(names) > _LIST_MAX else []
    for index, name in enumerate(names):
        causes += _reference(f"{path}[{index}]", name, known)
    return causes + validate_unique(path, names)


def _reference(path: str, name: str, known: Mapping[str, set[str]]) -> list[Cause]:
    parts = name.split("/")
    if len(parts) > 2:
        return [bad(path, name, _REFERENCE)]
    causes: list[Cause] = []
    for part in parts:
        causes += name_label(path, part)
    if parts[0] not in known or (len(parts) == 2 and parts[1] not in known[parts[0]]):
        causes.append(bad(path, name, _REFERENCE))
    return causes


def _request(path: str, request: Obj) -> list[Cause]:
    causes = name_label(f"{path}.name", request.get("name", ""))
    exactly, several = request.get("exactly"), request.get("firstAvailable") or []
    if exactly is None and not several:
        causes.append(required(path, _ONE_REQUEST))
    elif exactly is not None and several:
        causes.append(bad(path, None, f"{_ONE_REQUEST}, but multiple fields are set"))
    elif exactly is not None:
        causes += _wanted(f"{path}.exactly", exactly)
    else:
        causes += _listed(f"{path}.firstAvailable", several, _SUBREQUESTS_MAX, _subrequest)
        causes += validate_unique(f"{path}.firstAvailable", (row.get("name", "") for row in several))
    return causes


def _subrequest(path: str, one: Obj) -> list[Cause]:
    return name_label(f"{path}.name", one.get("name", "")) + _wanted(path, one)


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
    return causes + _listed(f"{path}.tolerations", one.get("tolerations") or (), _TOLERATIONS_MAX, _toleration)


def _toleration(path: str, row: Obj) -> list[Cause]:
    key, operator, value = row.get("key", ""), row.get("operator", ""), row.get("value", "")
    causes = bad_all(f"{path}.key", key, qualified_name_errors(key)) if key else []
    match operator:
        case "Exists":
            if value:
                causes.append(bad(f"{path}.value", value, "must be empty for operator `Exists`"))
        case "Equal":
            causes += bad_all(f"{path}.value", value, label_value_errors(value))
            if not key:
                causes.append(required(f"{path}.key"))
        case "":
            causes.append(required(f"{path}.operator"))
        case _:
            causes.append(unsupported(f"{path}.operator", operator, ("Equal", "Exists")))
    if row.get("effect") and row["effect"] not in ("NoExecute", "NoSchedule"):
        causes.append(unsupported(f"{path}.effect", row["effect"], ("NoExecute", "NoSchedule")))
    return causes


def _selectors(path: str, rows: Sequence[Obj]) -> list[Cause]:
    return _listed(path, rows, _LIST_MAX, _selector)


def _selector(path: str, row: Obj) -> list[Cause]:
    cel = row.get("cel")
    if cel is None:
        return [required(f"{path}.cel")]
    expression, where = cel.get("expression", ""), f"{path}.cel.expression"
    if not expression:
        return [required(where)]
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


def _opaque(path: str, row: Obj) -> list[Cause]:
    opaque, where = row.get("opaque"), f"{path}.opaque"
    if opaque is None:
        return [required(where)]
    causes = driver_name(f"{where}.driver", opaque.get("driver", ""))
    parameters = opaque.get("parameters")
    if parameters is None:
        causes.append(required(f"{where}.parameters"))
    elif len(orjson.dumps(parameters)) > _PARAMETERS_BYTES_MAX:
        causes.append(too_long(f"{where}.parameters", _PARAMETERS_BYTES_MAX))
    return causes


def validate_claim_status(new: Obj, old: Obj) -> list[Cause]:
    """An allocation comes and goes as a whole, and only an allocated claim is reserved."""
    status, before = new.get("status") or {}, old.get("status") or {}
    reserved, path = status.get("reservedFor") or [], "status.reservedFor"
    causes = _listed(path, reserved, _RESERVED_MAX, _consumer)
    causes += validate_unique(path, (row.get("uid", "") for row in reserved))
    allocation = status.get("allocation")
    if reserved and allocation is None:
        causes.append(forbidden(path, "may not be specified when `allocated` is not set"))
    elif new["metadata"].get("deletionTimestamp") and any(
        row not in (before.get("reservedFor") or ()) for row in reserved
    ):
        detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
        causes.append(forbidden(path, detail))
    if allocation is not None and before.get("allocation") is not None:
        causes += immutable("status.allocation", allocation, before["allocation"])
    elif allocation is not None:
        causes += _allocation("status.allocation", allocation, _names((new.get("spec") or {}).get("devices") or {}))
    return causes


def _consumer(path: str, row: Obj) -> list[Cause]:
    return [required(f"{path}.{key}") for key in ("resource", "name", "uid") if not row.get(key)]


def _allocation(path: str, allocation: Obj, known: Mapping[str, set[str]]) -> list[Cause]:
    devices = allocation.get("devices") or {}

    def result(where: str, row: Obj) -> list[Cause]:
        found = _reference(f"{where}.request", row.get("request", ""), known)
        found += driver_name(f"{where}.driver", row.get("driver", ""))
        found += pool_name(f"{where}.pool", row.get("pool", ""))
        return found + name_label(f"{where}.device", row.get("device", ""))

    def config(where: str, row: Obj) -> list[Cause]:
        source, found = row.get("source", ""), _references(f"{where}.requests", row.get("requests") or (), known)
        if not source:
            found.append(required(f"{where}.source"))
        elif source not in ("FromClaim", "FromClass"):
            found.append(unsupported(f"{where}.source", source, ("FromClaim", "FromClass")))
        return found + _opaque(where, row)

    causes = _listed(f"{path}.devices.results", devices.get("results") or (), _LIST_MAX, result)
    causes += _listed(f"{path}.devices.config", devices.get("config") or (), 2 * _LIST_MAX, config)
    if "nodeSelector" in allocation:
        causes += validate_node_selector(f"{path}.nodeSelector", allocation["nodeSelector"])
    return causes
