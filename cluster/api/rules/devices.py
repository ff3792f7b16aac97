"""Rules of ResourceSlices: the devices that a driver offers.

Source: k8s.io/kubernetes/pkg/apis/resource/validation/validation.go
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.row import meta_fields
from steersman.cluster.api.rules.csi import driver_name
from steersman.cluster.api.rules.devicefields import (
    EFFECTS,
    binding_conditions,
    label,
    listed,
    mapped,
    name_label,
    name_of,
    pool_name,
    qualified,
    set_of,
)
from steersman.cluster.api.rules.fields import bad, bad_all, forbidden, immutable, one_of, required, too_long
from steersman.cluster.api.rules.requestpolicies import validate_request_policy
from steersman.cluster.api.rules.scheduling import validate_node_selector
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_value_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.times import format_time

_DEVICES_MAX = 128
#: of devices with taints or shared counters
_ADVANCED_DEVICES_MAX = 64
_COUNTER_SETS_MAX = 8
_COUNTERS_MAX = 32
_CONSUMED_SETS_MAX = 2
_ATTRIBUTES_MAX = 32
_TAINTS_MAX = 16
_VALUE_BYTES_MAX = 64
_PLACES = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
_SEMVER_PART = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    rf"(-{_SEMVER_PART}(\.{_SEMVER_PART})*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?\Z",
    re.ASCII,
)
_ONE_PLACE = (
    "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true "
    "in the ResourceSlice spec"
)
_NO_PLACE = (
    "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the "
    "ResourceSlice spec"
)


def slice_fields(obj: Obj) -> dict[str, str]:
    spec = obj.get("spec") or {}
    return {**meta_fields(obj), "spec.nodeName": spec.get("nodeName", ""), "spec.driver": spec.get("driver", "")}


def prepare_create(obj: Obj, ctx: WriteContext) -> None:
    """Taints tell since when they are there."""
    for device in (obj.get("spec") or {}).get("devices") or ():
        for taint in device.get("taints") or ():
            taint.setdefault("timeAdded", format_time(ctx.now))


def prepare_update(new: Obj, _old: Obj, ctx: WriteContext) -> None:
    """As at creation."""
    prepare_create(new, ctx)


def validate_slice(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    return _identity(spec) + _contents(spec)


def validate_slice_change(new: Obj, old: Obj) -> list[Cause]:
    """As of a new slice, but whose it is stays."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    name, had = ((side.get("pool") or {}).get("name") for side in (spec, before))
    causes = _identity(spec) + immutable("spec.pool.name", name, had)
    for key in ("driver", "nodeName"):
        causes += immutable(f"spec.{key}", spec.get(key), before.get(key))
    return causes + _contents(spec)


def _identity(spec: Obj) -> list[Cause]:
    return driver_name("spec.driver", spec.get("driver", "")) + _pool("spec.pool", spec.get("pool") or {})


def _contents(spec: Obj) -> list[Cause]:
    causes = _place("spec", spec)
    if spec.get("devices") is not None and spec.get("sharedCounters") is not None:
        causes.append(bad("spec", "", "only one of `sharedCounters` or `devices` is allowed"))
    devices = spec.get("devices") or []
    advanced = any(device.get("taints") or device.get("consumesCounters") for device in devices)
    limit = _ADVANCED_DEVICES_MAX if advanced else _DEVICES_MAX
    placed = bool(spec.get("perDeviceNodeSelection"))

    def device(path: str, row: Obj) -> list[Cause]:
        return _device(path, row) + _device_place(path, row, required_here=placed) + binding_conditions(path, row)

    causes += set_of("spec.devices", devices, limit, device, name_of)
    counters = spec.get("sharedCounters") or []
    return causes + set_of("spec.sharedCounters", counters, _COUNTER_SETS_MAX, _counter_set, name_of)


def _pool(path: str, pool: Obj) -> list[Cause]:
    causes = pool_name(f"{path}.name", pool.get("name", ""))
    if pool.get("resourceSliceCount", 0) <= 0:
        causes.append(bad(f"{path}.resourceSliceCount", pool.get("resourceSliceCount", 0), "must be greater than zero"))
    if pool.get("generation", 0) < 0:
        causes.append(bad(f"{path}.generation", pool["generation"], "must be greater than or equal to zero"))
    return causes


def _place(path: str, spec: Obj) -> list[Cause]:
    """Where the devices can be reached: said in just one way."""
    causes: list[Cause] = []
    if spec.get("nodeName") is not None:
        if spec["nodeName"]:
            causes += bad_all(f"{path}.nodeName", spec["nodeName"], subdomain_errors(spec["nodeName"]))
        else:
            causes.append(bad(f"{path}.nodeName", "", "must be either unset or set to a non-empty string"))
    if "nodeSelector" in spec:
        causes += validate_node_selector(f"{path}.nodeSelector", spec["nodeSelector"])
        terms = spec["nodeSelector"].get("nodeSelectorTerms") or []
        if len(terms) != 1:
            where = f"{path}.nodeSelector.nodeSelectorTerms"
            causes.append(bad(where, terms, "must have exactly one node selector term"))
    for key in ("allNodes", "perDeviceNodeSelection"):
        if spec.get(key) is False:
            causes.append(bad(f"{path}.{key}", False, "must be either unset or set to true"))
    said = [f"`{key}`" for key in _PLACES if spec.get(key)]
    detail = f"exactly one of {', '.join(f'`{key}`' for key in _PLACES)} is required"
    if not said:
        causes.append(required(path, detail))
    elif len(said) > 1:
        causes.append(bad(path, f"{{{', '.join(said)}}}", f"{detail}, but multiple fields are set"))
    return causes


def _counter_set(path: str, row: Obj) -> list[Cause]:
    return name_label(f"{path}.name", name_of(row)) + _counters(f"{path}.counters", row.get("counters") or {})


def _counters(path: str, counters: Obj) -> list[Cause]:
    return mapped(path, counters, _COUNTERS_MAX, label, _any_value) if counters else [required(path)]


def _any_value(_path: str, _value: Any) -> list[Cause]:
    return []


def _consumed(path: str, row: Obj) -> list[Cause]:
    causes = name_label(f"{path}.counterSet", row.get("counterSet", ""))
    return causes + _counters(f"{path}.counters", row.get("counters") or {})


def _device(path: str, device: Obj) -> list[Cause]:
    causes = label(f"{path}.name", name_of(device))
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    if len(attributes) + len(capacity) > _ATTRIBUTES_MAX:
        detail = f"the total number of attributes and capacities must not exceed {_ATTRIBUTES_MAX}"
        causes.append(bad(path, len(attributes) + len(capacity), detail))
    shared = bool(device.get("allowMultipleAllocations"))

    def one(where: str, row: Obj) -> list[Cause]:
        policy = row.get("requestPolicy")
        if policy is None:
            return []
        if not shared:
            return [forbidden(f"{where}.requestPolicy", "allowMultipleAllocations must be true")]
        return validate_request_policy(f"{where}.requestPolicy", policy, row.get("value", "0"))

    causes += mapped(f"{path}.attributes", attributes, len(attributes), qualified, _attribute)
    causes += mapped(f"{path}.capacity", capacity, len(capacity), qualified, one)
    causes += listed(f"{path}.taints", device.get("taints") or (), _TAINTS_MAX, _taint)
    consumed, where = device.get("consumesCounters") or [], f"{path}.consumesCounters"
    return causes + set_of(where, consumed, _CONSUMED_SETS_MAX, _consumed, lambda row: row.get("counterSet", ""))


def _device_place(path: str, device: Obj, *, required_here: bool) -> list[Cause]:
    """Where a device can be reached: said of each where the slice says so, and of none where it does not."""
    node, selector, everywhere = (device.get(key) for key in ("nodeName", "nodeSelector", "allNodes"))
    if not required_here:
        said_at_all = any(value is not None for value in (node, selector, everywhere))
        return [bad(path, None, _NO_PLACE)] if said_at_all else []
    causes: list[Cause] = []
    if node:
        causes += bad_all(f"{path}.nodeName", node, subdomain_errors(node))
    elif node is not None:
        causes.append(bad(f"{path}.nodeName", node, "must not be empty"))
    if selector is not None:
        causes += validate_node_selector(f"{path}.nodeSelector", selector)
    if everywhere is False:
        causes.append(bad(f"{path}.allNodes", False, "must be either unset or set to true"))
    said = (("`nodeName`", node), ("`nodeSelector`", selector is not None), ("`allNodes`", everywhere))
    found = [name for name, is_said in said if is_said]
    if not found:
        causes.append(required(path, _ONE_PLACE))
    elif len(found) > 1:
        causes.append(bad(path, f"{{{', '.join(found)}}}", _ONE_PLACE))
    return causes


def _attribute(path: str, value: Mapping[str, Any]) -> list[Cause]:
    text, version = value.get("string"), value.get("version")
    causes = [too_long(f"{path}.string", _VALUE_BYTES_MAX)] if text and len(text) > _VALUE_BYTES_MAX else []
    if version is not None:
        if not _SEMVER.match(version):
            causes.append(bad(f"{path}.version", version, "must be a string compatible with semver.org spec 2.0.0"))
        if len(version) > _VALUE_BYTES_MAX:
            causes.append(too_long(f"{path}.version", _VALUE_BYTES_MAX))
    if len(value) != 1:
        causes.append(bad(path, dict(value) or "", "exactly one value must be specified"))
    return causes


def _taint(path: str, taint: Obj) -> list[Cause]:
    key, value, effect = taint.get("key", ""), taint.get("value", ""), taint.get("effect", "")
    causes = bad_all(f"{path}.key", key, qualified_name_errors(key))
    causes += bad_all(f"{path}.value", value, label_value_errors(value))
    return causes + one_of(f"{path}.effect", effect, EFFECTS)
