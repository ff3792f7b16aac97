"""Rules of persistent volumes and storage classes.

Source: k8s.io/kubernetes/pkg/apis/{core,storage}/validation/validation.go
"""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.rules.csi import driver_name, parameters, topology_terms
from steersman.cluster.api.rules.defaults import volume_source
from steersman.cluster.api.rules.fields import bad, bad_all, forbidden, immutable, one_of, required, unsupported
from steersman.cluster.api.rules.scheduling import validate_node_selector
from steersman.cluster.api.rules.security import steps_back
from steersman.cluster.api.rules.volume_claims import BLOCK_MODES, access_modes
from steersman.cluster.api.rules.volume_sources import NAME_AND_PORTAL, NAME_AND_PORTAL_CHARS_MAX, needed, one_source
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import parse

_NOT_SOURCES = (
    "accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
    "storageClassName", "volumeAttributesClassName", "volumeMode",
)  # fmt: skip
#: the order in which a volume's types are looked at
_TYPES = (
    "hostPath", "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "flocker", "nfs", "rbd", "quobyte", "cephfs",
    "iscsi", "cinder", "fc", "flexVolume", "azureFile", "vsphereVolume", "photonPersistentDisk", "portworxVolume",
    "azureDisk", "scaleIO", "local", "storageos", "csi",
)  # fmt: skip
_EXPAND = "controllerExpandSecretRef"
_NEWER_LABELS = {
    "beta.kubernetes.io/arch": "kubernetes.io/arch",
    "beta.kubernetes.io/instance-type": "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/os": "kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
}
_RECLAIM = ("Delete", "Recycle", "Retain")
_SECRETS = (
    "controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef",
)  # fmt: skip


def default_volume(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")
    volume_source(spec)


def _sources(spec: Obj) -> list[str]:
    return [key for key in spec if key not in _NOT_SOURCES]


def validate_volume(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    capacity = spec.get("capacity") or {}
    causes = used_as("spec", spec)
    if not capacity:
        causes.append(required("spec.capacity"))
    if list(capacity) != ["storage"]:
        causes.append(unsupported("spec.capacity", capacity, ("storage",)))
    for key, value in capacity.items():
        if parse(value) < 0:
            causes.append(bad(f"spec.capacity[{key}]", value, "must be a valid resource quantity"))
        if parse(value) <= 0:
            causes.append(bad(f"spec.capacity[{key}]", value, "must be greater than zero"))
    policy = spec["persistentVolumeReclaimPolicy"]
    if policy not in _RECLAIM:
        causes.append(unsupported("spec.persistentVolumeReclaimPolicy", policy, _RECLAIM))
    if "nodeAffinity" in spec:
        causes += _affinity("spec.nodeAffinity", spec["nodeAffinity"])
    causes += made_of("spec", spec, obj["metadata"].get("name", ""))
    if spec.get("storageClassName"):
        causes += bad_all("spec.storageClassName", spec["storageClassName"], subdomain_errors(spec["storageClassName"]))
    if spec["volumeMode"] not in BLOCK_MODES:
        causes.append(unsupported("spec.volumeMode", spec["volumeMode"], BLOCK_MODES))
    if spec.get("volumeAttributesClassName") is not None:
        causes += _attributes(spec)
    return causes


def _affinity(path: str, affinity: Obj) -> list[Cause]:
    must, where = affinity.get("required"), f"{path}.required"
    return validate_node_selector(where, must) if must else [required(where, "must specify required node constraints")]


def used_as(path: str, spec: Obj) -> list[Cause]:
    """The rules of how a volume may be used."""
    modes, where = spec.get("accessModes") or [], f"{path}.accessModes"
    return ([] if modes else [required(where)]) + access_modes(where, modes)


def made_of(path: str, spec: Obj, name: str) -> list[Cause]:
    """The rules of what a volume is made of; `name` is its own."""
    causes = one_source(path, {key: spec[key] for key in _sources(spec)}, _TYPES, _source)
    iscsi = spec.get("iscsi") or {}
    portal = iscsi.get("targetPortal", "")
    if "initiatorName" in iscsi and len(f"{name}:{portal}") > NAME_AND_PORTAL_CHARS_MAX:
        causes.append(bad(f"{path}.iscsi.targetportal", portal, NAME_AND_PORTAL))
    if "local" in spec and "nodeAffinity" not in spec:
        causes.append(required(f"{path}.nodeAffinity", "Local volume requires node affinity"))
    is_recycled = spec.get("persistentVolumeReclaimPolicy") == "Recycle"
    if is_recycled and "hostPath" in spec and not spec["hostPath"].get("path", "").rstrip("/"):
        detail = "may not be 'recycle' for a hostPath mount of '/'"
        causes.append(forbidden(f"{path}.persistentVolumeReclaimPolicy", detail))
    return causes


def _source(path: str, kind: str, source: Obj) -> list[Cause]:
    match kind:
        case "local":
            found = source.get("path", "")
            return steps_back(f"{path}.path", found) if found else [required(f"{path}.path")]
        case "csi":
            return _csi(path, source)
    return needed(path, kind, source, is_persistent=True)


def _csi(path: str, source: Obj) -> list[Cause]:
    causes = driver_name(f"{path}.driver", source.get("driver", ""))
    if not source.get("volumeHandle"):
        causes.append(required(f"{path}.volumeHandle"))
    for key in _SECRETS:
        if source.get(key) is not None:
            for part, errors in (("name", subdomain_errors), ("namespace", label_1123_errors)):
                value, where = source[key].get(part, ""), f"{path}.{key}.{part}"
                causes += bad_all(where, value, errors(value)) if value else [required(where)]
    return causes


def _attributes(spec: Obj) -> list[Cause]:
    name, path = spec["volumeAttributesClassName"], "spec.volumeAttributesClassName"
    if not name:
        return [required(path, "an empty string is disallowed")]
    causes = bad_all(path, name, subdomain_errors(name))
    if "csi" not in spec:
        causes.append(required("spec.csi", "has to be specified when using volumeAttributesClassName"))
    return causes


def validate_volume_update(new: Obj, old: Obj) -> list[Cause]:
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    source, had = ({key: part[key] for key in _sources(part)} for part in (spec, before))
    if "csi" in source and "csi" in had and _EXPAND not in had["csi"]:  # which may be said later
        source["csi"] = {key: value for key, value in source["csi"].items() if key != _EXPAND}
    causes: list[Cause] = []
    if source != had:
        detail = "spec.persistentvolumesource is immutable after creation"
        causes.append(forbidden("spec.persistentvolumesource", detail))
    causes += immutable("volumeMode", spec.get("volumeMode"), before.get("volumeMode"))
    if before.get("nodeAffinity") is not None and not _is_like(spec.get("nodeAffinity"), before["nodeAffinity"]):
        detail = "field is immutable, except for updating from beta label to GA"
        causes.append(bad("nodeAffinity", spec.get("nodeAffinity"), detail))
    attributes = "volumeAttributesClassName"
    if before.get(attributes) is not None and spec.get(attributes) is None:
        causes.append(forbidden(f"spec.{attributes}", "update from non-nil value to nil is forbidden"))
    return causes


def _is_like(new: Any, old: Any) -> bool:
    """Whether an affinity is as it was, but for labels that are called by their newer names."""
    if isinstance(new, dict) and isinstance(old, dict):
        renamed = {**new, "key": old["key"]} if _NEWER_LABELS.get(old.get("key", ""), "") == new.get("key") else new
        return renamed.keys() == old.keys() and all(_is_like(renamed[key], old[key]) for key in old)
    if isinstance(new, list) and isinstance(old, list):
        return len(new) == len(old) and all(map(_is_like, new, old))
    return bool(new == old)


def default_class(obj: Obj) -> None:
    obj.setdefault("reclaimPolicy", "Delete")
    obj.setdefault("volumeBindingMode", "Immediate")


def validate_class(obj: Obj) -> list[Cause]:
    name = obj.get("provisioner", "")
    causes = bad_all("provisioner", name, qualified_name_errors(name.lower())) if name else [required("provisioner")]
    causes += parameters("parameters", obj.get("parameters") or {})
    causes += one_of("reclaimPolicy", obj.get("reclaimPolicy"), ("Delete", "Retain"))
    causes += topology_terms("allowedTopologies", obj.get("allowedTopologies") or [])
    return causes + one_of("volumeBindingMode", obj.get("volumeBindingMode"), ("Immediate", "WaitForFirstConsumer"))


def validate_class_update(new: Obj, old: Obj) -> list[Cause]:
    causes = []
    for key in ("parameters", "provisioner", "reclaimPolicy"):
        if new.get(key) != old.get(key):
            causes.append(forbidden(key, f"updates to {key} are forbidden."))
    return causes + immutable("volumeBindingMode", new.get("volumeBindingMode"), old.get("volumeBindingMode"))
