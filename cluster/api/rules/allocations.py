"""Rules of a resource claim's status: what it was given, who may use it, and what drivers say of its devices.

Source: k8s.io/kubernetes/pkg/apis/resource/validation/validation.go
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_interface

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.claims import opaque, reference, references, request_names
from steersman.cluster.api.rules.conditions import validate_conditions
from steersman.cluster.api.rules.devicefields import binding_conditions, device_id, listed, raw_object, set_of
from steersman.cluster.api.rules.fields import (
    bad,
    base_of,
    forbidden,
    immutable,
    one_of,
    required,
    too_long,
    too_many,
)
from steersman.cluster.api.rules.scheduling import validate_node_selector
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj

_RESULTS_MAX, _CONFIGS_MAX, _RESERVED_MAX = 32, 64, 256
_DEVICE_CONDITIONS_MAX, _DATA_BYTES_MAX = 8, 10 * 1024
_INTERFACE_BYTES_MAX, _HARDWARE_BYTES_MAX, _IPS_MAX = 256, 128, 16
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_UUID_DETAIL = (
    "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal "
    "characters"
)
_INTERFACE_DETAIL = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"


def prepare_status(new: Obj, old: Obj, _ctx: WriteContext) -> None:
    """What drivers said of devices goes with the devices."""
    status = new.get("status") or {}
    lost = _allocated(old.get("status") or {}) - _allocated(status)
    rows = status.get("devices") or []
    left = [row for row in rows if _device_of(row) not in lost]
    if left:
        status["devices"] = left
    elif rows:
        del status["devices"]


def _allocated(status: Obj) -> set[tuple[str, ...]]:
    results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
    return {_device_of(row) for row in results}


def _device_of(row: Obj) -> tuple[str, ...]:
    return tuple(row.get(key, "") for key in ("driver", "pool", "device"))


def validate_status(new: Obj, old: Obj) -> list[Cause]:
    """An allocation comes and goes as a whole, and only an allocated claim is reserved."""
    status, before = new.get("status") or {}, old.get("status") or {}
    reserved, path = status.get("reservedFor") or [], "status.reservedFor"
    allocation = status.get("allocation")
    causes = set_of(path, reserved, _RESERVED_MAX, _consumer, lambda row: row.get("uid", ""))
    causes += _devices("status.devices", status)
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
        known = request_names((new.get("spec") or {}).get("devices") or {})
        causes += _allocation("status.allocation", allocation, known)
    return causes


def _consumer(path: str, row: Obj) -> list[Cause]:
    return [required(f"{path}.{key}") for key in ("resource", "name", "uid") if not row.get(key)]


def _allocation(path: str, allocation: Obj, known: Mapping[str, set[str]]) -> list[Cause]:
    devices = allocation.get("devices") or {}

    def result(where: str, row: Obj) -> list[Cause]:
        found = reference(f"{where}.request", row.get("request", ""), known) + device_id(where, row)
        return found + binding_conditions(where, row) + _share(where, row)

    def config(where: str, row: Obj) -> list[Cause]:
        found = one_of(f"{where}.source", row.get("source", ""), ("FromClaim", "FromClass"))
        return found + references(f"{where}.requests", row.get("requests") or (), known) + opaque(where, row)

    causes = listed(f"{path}.devices.results", devices.get("results") or (), _RESULTS_MAX, result)
    causes += listed(f"{path}.devices.config", devices.get("config") or (), _CONFIGS_MAX, config)
    if "nodeSelector" in allocation:
        causes += validate_node_selector(f"{path}.nodeSelector", allocation["nodeSelector"])
    return causes


def _share(path: str, row: Obj) -> list[Cause]:
    share = row.get("shareID")
    return [] if share is None or _UUID.match(share) else [bad(f"{path}.shareID", share, _UUID_DETAIL)]


def _key(row: Obj) -> str:
    return "/".join(row[key] for key in ("driver", "pool", "device", "shareID") if row.get(key))


def _devices(path: str, status: Obj) -> list[Cause]:
    """The rules of what drivers say of a claim's devices: it can be said of those alone that the claim has."""
    results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
    given = {_key(row) for row in results}
    rows = status.get("devices") or []

    def device(where: str, row: Obj) -> list[Cause]:
        causes = device_id(where, row) + _share(where, row)
        if _key(row) not in given:
            causes.append(bad(where, _key(row), "must be an allocated device in the claim"))
        conditions = row.get("conditions") or []
        if len(conditions) > _DEVICE_CONDITIONS_MAX:
            causes.append(too_many(f"{where}.conditions", len(conditions), _DEVICE_CONDITIONS_MAX))
        causes += validate_conditions(f"{where}.conditions", conditions)
        if row.get("data") is not None:
            causes += raw_object(f"{where}.data", row["data"], _DATA_BYTES_MAX)
        return causes + _network(f"{where}.networkData", row.get("networkData") or {})

    return set_of(path, rows, len(rows), device, _key)


def _network(path: str, data: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for key, limit in (("interfaceName", _INTERFACE_BYTES_MAX), ("hardwareAddress", _HARDWARE_BYTES_MAX)):
        if len(data.get(key, "")) > limit:
            causes.append(too_long(f"{path}.{key}", limit))
    return causes + set_of(f"{path}.ips", data.get("ips") or [], _IPS_MAX, _interface, lambda text: text)


def _interface(path: str, text: str) -> list[Cause]:
    """The rules of an address with the size of its network."""
    base = base_of(text)
    if base is None:
        return [bad(path, text, _INTERFACE_DETAIL)]
    plain = str(ip_interface(f"{base}/{int(text.partition('/')[2])}"))
    return [] if plain == text else [bad(path, text, f'must be in canonical form ("{plain}")')]
