"""Rules of persistent volumes and storage classes.

Source: k8s.io/kubernetes/pkg/apis/{core,storage}/validation/validation.go
"""

from __future__ import annotations

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.csi import driver_name, parameters, topology_terms
from steersman.cluster.api.rules.defaults import volume_source
from steersman.cluster.api.rules.fields import bad, bad_all, forbidden, immutable, one_of, required, unsupported
from steersman.cluster.api.rules.scheduling import validate_node_selector
from steersman.cluster.api.rules.volume_claims import BLOCK_MODES, access_modes
from steersman.cluster.api.rules.volume_sources import needed, one_source
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import parse

_PROTECT = "kubernetes.io/pv-protection"
_NOT_SOURCES = (
    "accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
    "storageClassName", "volumeAttributesClassName", "volumeMode",
)  # fmt: skip
_RECLAIM = ("Delete", "Recycle", "Retain")
_SECRETS = (
    "controllerExpandSecretRef", "controllerPublishSecretRef", "nodeExpandSecretRef", "nodePublishSecretRef",
    "nodeStageSecretRef",
)  # fmt: skip


def default_volume(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")
    volume_source(spec)


def prepare_volume(obj: Obj, _ctx: WriteContext) -> None:
    finalizers = obj["metadata"].get("finalizers") or []
    if _PROTECT not in finalizers:
        obj["metadata"]["finalizers"] = [*finalizers, _PROTECT]


def _sources(spec: Obj) -> list[str]:
    return [key for key in spec if key not in _NOT_SOURCES]


def validate_volume(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    modes, capacity = spec.get("accessModes") or [], spec.get("capacity") or {}
    causes = [] if modes else [required("spec.accessModes")]
    causes += access_modes("spec.accessModes", modes)
    if not capacity:
        causes.append(required("spec.capacity"))
    elif list(capacity) != ["storage"]:
        causes.append(unsupported("spec.capacity", capacity, ("storage",)))
    for key, value in capacity.items():
        if parse(value) <= 0:
            causes.append(bad(f"spec.capacity[{key}]", value, "must be greater than zero"))
    policy = spec["persistentVolumeReclaimPolicy"]
    if policy not in _RECLAIM:
        causes.append(unsupported("spec.persistentVolumeReclaimPolicy", policy, _RECLAIM))
    if "nodeAffinity" in spec:
        causes += _affinity("spec.nodeAffinity", spec["nodeAffinity"])
    sources = _sources(spec)
    causes += one_source("spec", sources)
    for kind in sources[:1]:
        causes += _source(f"spec.{kind}", kind, spec)
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


def _source(path: str, kind: str, spec: Obj) -> list[Cause]:
    source = spec[kind]
    match kind:
        case "local":
            found = source.get("path", "")
            causes = [] if found else [required(f"{path}.path")]
            if ".." in found.split("/"):
                causes.append(bad(f"{path}.path", found, "must not contain '..'"))
            if "nodeAffinity" not in spec:
                causes.append(required("metadata.annotations", "Local volume requires node affinity"))
            return causes
        case "csi":
            return _csi(path, source)
    causes = needed(path, kind, source)
    if kind == "hostPath" and source.get("path") == "/" and spec["persistentVolumeReclaimPolicy"] == "Recycle":
        detail = "may not be 'recycle' for a hostPath mount of '/'"
        causes.append(forbidden("spec.persistentVolumeReclaimPolicy", detail))
    return causes


def _csi(path: str, source: Obj) -> list[Cause]:
    causes = driver_name(f"{path}.driver", source.get("driver", ""))
    if not source.get("volumeHandle"):
        causes.append(required(f"{path}.volumeHandle"))
    for key in _SECRETS:
        if source.get(key) is not None:
            causes += [required(f"{path}.{key}.{part}") for part in ("name", "namespace") if not source[key].get(part)]
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
    source = {key: spec[key] for key in _sources(spec)}
    causes: list[Cause] = []
    if source != {key: before[key] for key in _sources(before)}:
        detail = "spec.persistentvolumesource is immutable after creation"
        causes.append(forbidden("spec.persistentvolumesource", detail))
    causes += immutable("volumeMode", spec.get("volumeMode"), before.get("volumeMode"))
    if before.get("nodeAffinity") is not None and spec.get("nodeAffinity") != before["nodeAffinity"]:
        detail = "field is immutable, except for updating from beta label to GA"
        causes.append(bad("spec.nodeAffinity", spec.get("nodeAffinity"), detail))
    attributes = "volumeAttributesClassName"
    if before.get(attributes) is not None and spec.get(attributes) is None:
        causes.append(forbidden(f"spec.{attributes}", "update from non-nil value to nil is forbidden"))
    return causes


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
