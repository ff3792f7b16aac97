"""Rules of what CSI drivers tell the cluster: drivers, their nodes, capacities, volume attributes.

Source: k8s.io/kubernetes/pkg/apis/storage/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    duplicate,
    forbidden,
    immutable,
    label_selector,
    not_negative,
    required,
    too_long,
    unsupported,
)
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import parse

_DRIVER_BYTES_MAX = 63
_NODE_ID_BYTES_MAX = 256
_POLICIES = ("File", "None", "ReadWriteOnceWithFSType")
_MODES = ("Persistent", "Ephemeral")
PARAMETERS_BYTES_MAX = 256 * 1024
_PARAMETERS_MAX = 512
_UPDATE_S_MIN = 10


def driver_name(path: str, name: str) -> list[Cause]:
    """The rules of a CSI driver's name."""
    if not name:
        return [required(path)]
    causes = [too_long(path, _DRIVER_BYTES_MAX)] if len(name) > _DRIVER_BYTES_MAX else []
    return causes + bad_all(path, name, subdomain_errors(name.lower()))


def default_driver(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    for key in ("podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"):
        spec.setdefault(key, False)
    spec.setdefault("attachRequired", True)
    spec.setdefault("fsGroupPolicy", "ReadWriteOnceWithFSType")
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def prepare_driver_update(new: Obj, old: Obj, _ctx: WriteContext) -> None:
    """Changes are counted from nothing: node agents look at the generation."""
    if new["spec"] != (old.get("spec") or {}):
        new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1


def validate_driver(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    causes: list[Cause] = []
    if spec["fsGroupPolicy"] not in _POLICIES:
        causes.append(unsupported("spec.fsGroupPolicy", spec["fsGroupPolicy"], _POLICIES))
    requests = spec.get("tokenRequests") or ()
    causes += _token_requests("spec.tokenRequests", requests)
    for mode in spec["volumeLifecycleModes"]:
        if mode not in _MODES:
            causes.append(unsupported("spec.volumeLifecycleModes", mode, _MODES, in_order=True))
    seconds = spec.get("nodeAllocatableUpdatePeriodSeconds")
    if seconds is not None and seconds < _UPDATE_S_MIN:
        detail = f"must be greater than or equal to {_UPDATE_S_MIN} seconds"
        causes.append(bad("spec.nodeAllocatableUpdatePeriodSeconds", seconds, detail))
    secret = spec.get("serviceAccountTokenInSecrets")
    if secret is not None and not requests:
        detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified"
        causes.append(bad("spec.serviceAccountTokenInSecrets", secret, detail))
    return causes


def _token_requests(path: str, requests: Sequence[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, row in enumerate(requests):
        audience, seconds, where = row.get("audience", ""), row.get("expirationSeconds"), f"{path}[{index}]"
        if audience in seen:
            causes.append(duplicate(f"{where}.audience", audience))
            continue
        seen.add(audience)
        if seconds is not None and seconds < 600:
            causes.append(bad(f"{where}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"))
        elif seconds is not None and seconds > 2**32:
            detail = "may not specify a duration larger than 2^32 seconds"
            causes.append(bad(f"{where}.expirationSeconds", seconds, detail))
    return causes


def validate_driver_update(new: Obj, old: Obj) -> list[Cause]:
    before, after = old.get("spec") or {}, new["spec"]
    causes: list[Cause] = []
    # Kubernetes calls the first one's place otherwise than the field
    for key, name in (("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")):
        causes += immutable(f"spec.{name}", after.get(key), before.get(key))
    return causes


def validate_node(obj: Obj) -> list[Cause]:
    causes: list[Cause] = []
    names: set[str] = set()
    for index, driver in enumerate((obj.get("spec") or {}).get("drivers") or ()):
        path, name, node = f"spec.drivers[{index}]", driver.get("name", ""), driver.get("nodeID", "")
        causes += driver_name(f"{path}.name", name)
        if not node:
            causes.append(required(f"{path}.nodeID"))
        elif len(node) > _NODE_ID_BYTES_MAX:
            detail = f"must be {_NODE_ID_BYTES_MAX} characters or less"
            causes.append(bad(f"{path}.nodeID", node, detail))
        causes += not_negative(f"{path}.allocatable.count", (driver.get("allocatable") or {}).get("count"))
        if name in names:
            causes.append(duplicate(f"{path}.name", name))
        names.add(name)
        causes += _topology(path, driver.get("topologyKeys") or [])
    return causes


def _topology(path: str, keys: list[str]) -> list[Cause]:
    causes: list[Cause] = []
    for index, key in enumerate(keys):
        causes += [] if key else [required(path)]
        if key in keys[:index]:
            causes.append(duplicate(path, key))
        causes += bad_all(path, key, qualified_name_errors(key))
    return causes


def validate_node_update(new: Obj, old: Obj) -> list[Cause]:
    """What a driver says of a node stays; how many volumes it takes may change."""
    after = [_fixed(driver) for driver in (new.get("spec") or {}).get("drivers") or ()]
    causes: list[Cause] = []
    for last in (old.get("spec") or {}).get("drivers") or ():
        for driver in after:
            if driver.get("name") == last.get("name"):
                causes += immutable("spec.drivers", driver, _fixed(last))
    return causes


def _fixed(driver: Obj) -> Obj:
    return {key: value for key, value in driver.items() if key != "allocatable"}


def validate_capacity(obj: Obj) -> list[Cause]:
    causes = label_selector("nodeTopology", obj.get("nodeTopology"))
    name = obj.get("storageClassName", "")
    causes += bad_all("storageClassName", name, subdomain_errors(name))
    if "capacity" in obj and parse(obj["capacity"]) < 0:
        causes.append(bad("capacity", obj["capacity"], "must be greater than or equal to 0"))
    return causes


def validate_capacity_update(new: Obj, old: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for key in ("nodeTopology", "storageClassName"):
        causes += immutable(key, new.get(key), old.get(key))
    return causes


def parameters(path: str, found: Mapping[str, str]) -> list[Cause]:
    """The rules of the parameters that a class hands to its driver."""
    if len(found) > _PARAMETERS_MAX:
        return [too_long(path, _PARAMETERS_MAX)]
    causes = [bad(path, key, "field can not be empty.") for key in found if not key]
    if sum(len(key) + len(value) for key, value in found.items()) > PARAMETERS_BYTES_MAX:
        causes.append(too_long(path, PARAMETERS_BYTES_MAX))
    return causes


def validate_attributes(obj: Obj) -> list[Cause]:
    name, found = obj.get("driverName", ""), obj.get("parameters") or {}
    causes = bad_all("driverName", name, qualified_name_errors(name.lower())) if name else [required("driverName")]
    if not found:
        detail = "must contain at least one key/value pair"
        return [*causes, required("parameters", detail)]
    return causes + parameters("parameters", found)


def validate_attributes_update(new: Obj, old: Obj) -> list[Cause]:
    causes = []
    if new.get("driverName") != old.get("driverName"):
        causes.append(forbidden("driverName", "updates to driverName are forbidden."))
    if new.get("parameters") != old.get("parameters"):
        causes.append(forbidden("parameters", "updates to parameters are forbidden."))
    return causes


def topology_terms(path: str, terms: list[Obj]) -> list[Cause]:
    """The rules of a storage class's allowed topologies."""
    causes: list[Cause] = []
    # Kubernetes compares with as many empty terms as there are terms, beside those that went before
    before: list[dict[str, set[str]]] = [{} for _ in terms]
    for index, term in enumerate(terms):
        where, found = f"{path}[{index}].matchLabelExpressions", dict[str, set[str]]()
        for place, row in enumerate(term.get("matchLabelExpressions") or ()):
            key, values = row.get("key", ""), row.get("values") or []
            causes += [] if values else [required(f"{where}[{place}].values")]
            for position, value in enumerate(values):
                if value in values[:position]:
                    causes.append(duplicate(f"{where}[{place}].values[{position}]", value))
            causes += bad_all(f"{where}[{place}].key", key, qualified_name_errors(key))
            if key in found:
                causes.append(duplicate(f"{where}[{place}].key", key))
            found[key] = set(values)
        causes += [duplicate(where, "") for other in before if other == found]
        before.append(found)
    return causes
