"""Rules of ResourceSlices: the devices that a driver offers.

Source: k8s.io/kubernetes/pkg/apis/resource/validation/validation.go
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from steersman.cluster.api.row import meta_fields
from steersman.cluster.api.rules.claims import name_label, pool_name, qualified
from steersman.cluster.api.rules.csi import driver_name
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    duplicate,
    immutable,
    required,
    too_long,
    too_many,
    unsupported,
)
from steersman.cluster.api.rules.scheduling import validate_node_selector
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_value_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

_DEVICES_MAX = 128
#: of devices with taints or shared counters
_ADVANCED_DEVICES_MAX = 64
_COUNTER_SETS_MAX = 8
_COUNTERS_MAX = 32
_ATTRIBUTES_MAX = 32
_TAINTS_MAX = 16
_VALUE_BYTES_MAX = 64
_PLACES = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
_KINDS = ("bool", "int", "string", "version")
_EFFECTS = ("NoExecute", "NoSchedule", "None")
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?\Z"
)


def slice_fields(obj: Obj) -> dict[str, str]:
    spec = obj.get("spec") or {}
    return {**meta_fields(obj), "spec.nodeName": spec.get("nodeName", ""), "spec.driver": spec.get("driver", "")}


def validate_slice(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = driver_name("spec.driver", spec.get("driver", ""))
    causes += _pool("spec.pool", spec.get("pool") or {}) + _place("spec", spec)
    devices, counters = spec.get("devices") or [], spec.get("sharedCounters") or []
    if devices and counters:
        causes.append(bad("spec", "", "only one of `sharedCounters` or `devices` is allowed"))
    advanced = any(device.get("taints") or device.get("consumesCounters") for device in devices)
    limit = _ADVANCED_DEVICES_MAX if advanced else _DEVICES_MAX
    if len(devices) > limit:
        causes.append(too_many("spec.devices", len(devices), limit))
    if len(counters) > _COUNTER_SETS_MAX:
        causes.append(too_many("spec.sharedCounters", len(counters), _COUNTER_SETS_MAX))
    for key, rows, rule in (("devices", devices, _device), ("sharedCounters", counters, _counter_set)):
        seen: set[str] = set()
        for index, row in enumerate(rows):
            causes += rule(f"spec.{key}[{index}]", row)
            if row.get("name") in seen:
                causes.append(duplicate(f"spec.{key}[{index}]", row.get("name")))
            seen.add(row.get("name", ""))
    return causes


def validate_slice_update(new: Obj, old: Obj) -> list[Cause]:
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    name, had = ((side.get("pool") or {}).get("name") for side in (spec, before))
    causes = immutable("spec.pool.name", name, had)
    for key in ("driver", "nodeName"):
        causes += immutable(f"spec.{key}", spec.get(key), before.get(key))
    return causes


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
    causes = name_label(f"{path}.name", row.get("name", ""))
    counters = row.get("counters") or {}
    if not counters:
        causes.append(required(f"{path}.counters"))
    elif len(counters) > _COUNTERS_MAX:
        causes.append(too_many(f"{path}.counters", len(counters), _COUNTERS_MAX))
    for name in counters:
        causes += name_label(f"{path}.counters", name)
    return causes


def _device(path: str, device: Obj) -> list[Cause]:
    causes = name_label(f"{path}.name", device.get("name", ""))
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    if len(attributes) + len(capacity) > _ATTRIBUTES_MAX:
        detail = f"the total number of attributes and capacities must not exceed {_ATTRIBUTES_MAX}"
        causes.append(bad(path, len(attributes) + len(capacity), detail))
    for name, value in attributes.items():
        causes += qualified(f"{path}.attributes", name, needs_domain=False)
        causes += _attribute(f"{path}.attributes[{name}]", value)
    for name in capacity:
        causes += qualified(f"{path}.capacity", name, needs_domain=False)
    taints = device.get("taints") or []
    if len(taints) > _TAINTS_MAX:
        causes.append(too_many(f"{path}.taints", len(taints), _TAINTS_MAX))
    for index, taint in enumerate(taints):
        causes += _taint(f"{path}.taints[{index}]", taint)
    return causes


def _attribute(path: str, value: Mapping[str, Any]) -> list[Cause]:
    found = [key for key in _KINDS if value.get(key) is not None]
    if not found:
        return [required(path, "exactly one value must be specified")]
    if len(found) > 1:
        return [bad(path, dict(value), "exactly one value must be specified")]
    key = found[0]
    text = value[key]
    if key in ("string", "version") and len(text) > _VALUE_BYTES_MAX:
        return [too_long(f"{path}.{key}", _VALUE_BYTES_MAX)]
    if key == "version" and not _SEMVER.match(text):
        return [bad(f"{path}.version", text, "must be a string compatible with semver.org spec 2.0.0")]
    return []


def _taint(path: str, taint: Obj) -> list[Cause]:
    key, value, effect = taint.get("key", ""), taint.get("value", ""), taint.get("effect", "")
    causes = bad_all(f"{path}.key", key, qualified_name_errors(key))
    causes += bad_all(f"{path}.value", value, label_value_errors(value))
    if not effect:
        causes.append(required(f"{path}.effect"))
    elif effect not in _EFFECTS:
        causes.append(unsupported(f"{path}.effect", effect, _EFFECTS))
    return causes
