"""Rules of namespaces, nodes and leases.

Source: k8s.io/kubernetes/pkg/apis/core/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.row import meta_fields
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    cidr,
    duplicate,
    forbidden,
    not_negative,
    required,
    show,
    unsupported,
)
from steersman.cluster.api.rules.metadata import finalizer
from steersman.cluster.api.rules.resources import quantity
from steersman.cluster.api.rules.scheduling import EFFECTS
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_value_errors, qualified_name_errors
from steersman.cluster.meta.objects import Obj

_FEATURE_BYTES_MAX = 253
_FEATURE = re.compile(r"[A-Z][A-Za-z0-9]*(/[A-Za-z0-9]+)*")
_FEATURE_DETAIL = (
    "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or "
    "MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
)
NAME_LABEL = "kubernetes.io/metadata.name"


def default_namespace(obj: Obj) -> None:
    """Every namespace carries its name as a label."""
    meta = obj["metadata"]
    if meta.get("name"):
        meta.setdefault("labels", {})[NAME_LABEL] = meta["name"]


def prepare_namespace(obj: Obj, _ctx: WriteContext) -> None:
    default_namespace(obj)
    spec = obj.setdefault("spec", {})
    if "kubernetes" not in (spec.get("finalizers") or ()):
        spec["finalizers"] = [*(spec.get("finalizers") or ()), "kubernetes"]


def prepare_namespace_update(new: Obj, old: Obj, _ctx: WriteContext) -> None:
    """Finalizers of the spec change through `/finalize` alone."""
    new["spec"] = old.get("spec") or {}


def finalized(new: Obj, old: Obj) -> Obj:
    """The namespace as `/finalize` leaves it: only the finalizers of its spec differ."""
    wanted = (new.get("spec") or {}).get("finalizers") or []
    return {**old, "spec": {"finalizers": wanted} if wanted else {}}


def validate_namespace(obj: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for item in (obj.get("spec") or {}).get("finalizers") or ():
        causes += finalizer("spec.finalizers", item)
    return causes


def validate_finalize(new: Obj, _old: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for index, item in enumerate((new.get("spec") or {}).get("finalizers") or ()):
        causes += finalizer(f"spec.finalizers[{index}]", item)
    return causes


def validate_namespace_status(new: Obj, _old: Obj) -> list[Cause]:
    """A namespace is terminating when it is being deleted, and active when it is not."""
    dying = bool(new["metadata"].get("deletionTimestamp"))
    phase, wanted = (new.get("status") or {}).get("phase", ""), "Terminating" if dying else "Active"
    if phase == wanted:
        return []
    state = "not empty" if dying else "empty"
    return [bad("status.Phase", phase, f"may only be '{wanted}' if `deletionTimestamp` is {state}")]


def namespace_fields(obj: Obj) -> dict[str, str]:
    meta = obj["metadata"]
    phase = (obj.get("status") or {}).get("phase", "")
    return {"metadata.name": meta.get("name", ""), "status.phase": phase}


def default_node(obj: Obj) -> None:
    """What can be allocated is the capacity unless the node says otherwise; its first range has a field of its own."""
    spec = obj.get("spec") or {}
    if spec.get("podCIDR") and (spec.get("podCIDRs") or [""])[0] != spec["podCIDR"]:
        spec["podCIDRs"] = [spec["podCIDR"]]
    elif spec.get("podCIDRs") and not spec.get("podCIDR"):
        spec["podCIDR"] = spec["podCIDRs"][0]
    status = obj.get("status")
    if status and status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def node_fields(obj: Obj) -> dict[str, str]:
    unschedulable = (obj.get("spec") or {}).get("unschedulable")
    return {**meta_fields(obj), "spec.unschedulable": "true" if unschedulable else "false"}


def validate_node(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    status = obj.get("status") or {}
    causes = _taints(spec.get("taints") or ()) + _amounts(status) + _features(status.get("declaredFeatures") or [])
    cidrs = spec.get("podCIDRs") or ()
    for index, text in enumerate(cidrs):
        causes += cidr(f"spec.podCIDRs[{index}]", text)
    if len(cidrs) > 1 and sorted(":" in text for text in cidrs) != [False, True]:
        causes.append(bad("spec.podCIDRs", cidrs, "may specify no more than one CIDR for each IP family"))
    return causes


def _taints(taints: Sequence[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(taints):
        path = f"metadata.taints[{index}]"  # so Kubernetes calls their place
        key, value, effect = taint.get("key", ""), taint.get("value", ""), taint.get("effect", "")
        causes += bad_all(f"{path}.key", key, qualified_name_errors(key))
        if wrong := label_value_errors(value):
            causes.append(bad(f"{path}.value", value, ";".join(wrong)))
        if not effect:
            causes.append(required(f"{path}.effect"))
        elif effect not in EFFECTS:
            causes.append(unsupported(f"{path}.effect", effect, EFFECTS, in_order=True))
        if (key, effect) in seen:
            shown = {"Key": key, "Value": value, "Effect": effect, "TimeAdded": taint.get("timeAdded")}
            detail = f"Duplicate value: {show(shown)}: taints must be unique by key and effect pair"
            causes.append(Cause(path, detail, "FieldValueDuplicate"))
        seen.add((key, effect))
    return causes


def _amounts(status: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for part in ("capacity", "allocatable"):
        for name, amount in (status.get(part) or {}).items():
            causes += quantity(f"status.{part}.{name}", name, amount)
    return causes


def _features(names: list[str]) -> list[Cause]:
    """The rules of what a node says that it can do: names in order, each once."""
    path, causes = "status.declaredFeatures", list[Cause]()
    for index, name in enumerate(names):
        where = f"{path}[{index}]"
        if len(name) > _FEATURE_BYTES_MAX:
            text = f"must be no more than {_FEATURE_BYTES_MAX} characters"
            causes.append(bad(where, name, f"invalid feature name {show(name)}: {text}"))
        elif not _FEATURE.fullmatch(name):
            causes.append(bad(where, name, f"invalid feature name {show(name)}: {_FEATURE_DETAIL}"))
        if index and name == names[index - 1]:
            causes.append(duplicate(where, name))
        elif index and name < names[index - 1]:
            causes.append(bad(where, name, "list must be sorted alphabetically"))
    return causes


def validate_node_update(new: Obj, old: Obj) -> list[Cause]:
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    causes = []
    if before.get("podCIDRs") and spec.get("podCIDRs") != before["podCIDRs"]:
        detail = 'node updates may not change podCIDR except from "" to valid'
        causes.append(forbidden("spec.podCIDRs", detail))
    if before.get("providerID") and spec.get("providerID") != before["providerID"]:
        detail = 'node updates may not change providerID except from "" to valid'
        causes.append(forbidden("spec.providerID", detail))
    if spec.get("externalID", "") != before.get("externalID", ""):
        causes.append(forbidden("spec.externalID", "may not be updated"))
    return causes


def validate_node_status(new: Obj, _old: Obj) -> list[Cause]:
    status = new.get("status") or {}
    causes = _amounts(status) + _features(status.get("declaredFeatures") or [])
    seen: list[Obj] = []
    for index, address in enumerate(status.get("addresses") or ()):
        if address in seen:
            shown = {"Type": address.get("type", ""), "Address": address.get("address", "")}
            causes.append(duplicate(f"status.addresses[{index}]", shown))
        seen.append(address)
    return causes


def validate_lease(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    duration, strategy, preferred = spec.get("leaseDurationSeconds"), spec.get("strategy"), spec.get("preferredHolder")
    causes: list[Cause] = []
    if duration is not None and duration <= 0:
        causes.append(bad("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    causes += not_negative("spec.leaseTransitions", spec.get("leaseTransitions"))
    if strategy is not None:
        path = "spec.strategy.strategy"  # so Kubernetes calls its place
        if "/" in strategy:
            causes += bad_all(path, strategy, qualified_name_errors(strategy))
        elif strategy != "OldestEmulationVersion":
            causes.append(unsupported(path, strategy, ("OldestEmulationVersion",)))
    if preferred and not strategy:
        causes.append(forbidden("spec.preferredHolder", "may only be specified if `strategy` is defined"))
    return causes
