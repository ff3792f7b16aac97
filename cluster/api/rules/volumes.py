"""Rules of persistent volumes, claims and storage classes.

Source: k8s.io/kubernetes/pkg/apis/{core,storage}/validation/validation.go
"""

from __future__ import annotations

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.csi import parameters, topology_terms
from steersman.cluster.api.rules.defaults import claim_spec
from steersman.cluster.api.rules.fields import bad, bad_all, forbidden, immutable, one_of, required
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import qualified_name_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import parse

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_BLOCK_MODES = ("Block", "Filesystem")
_PROTECT = "kubernetes.io/pvc-protection"
_NOT_SOURCES = (
    "accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
    "storageClassName", "volumeAttributesClassName", "volumeMode",
)  # fmt: skip
_SPEC_FIXED = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
)


def default_claim(obj: Obj) -> None:
    claim_spec(obj.setdefault("spec", {}))


def prepare_claim(obj: Obj, _ctx: WriteContext) -> None:
    finalizers = obj["metadata"].get("finalizers") or []
    if _PROTECT not in finalizers:
        obj["metadata"]["finalizers"] = [*finalizers, _PROTECT]


def validate_claim(obj: Obj) -> list[Cause]:
    return validate_claim_spec("spec", obj.get("spec") or {})


def validate_claim_spec(path: str, spec: Obj) -> list[Cause]:
    causes: list[Cause] = []
    modes = spec.get("accessModes") or []
    if not modes:
        causes.append(required(f"{path}.accessModes", "at least 1 access mode is required"))
    for mode in modes:
        causes += one_of(f"{path}.accessModes", mode, ACCESS_MODES)
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        causes.append(required(f"{path}.resources[storage]"))
    elif parse(storage) <= 0:
        causes.append(bad(f"{path}.resources[storage]", storage, "must be greater than zero"))
    if spec.get("volumeMode") is not None:
        causes += one_of(f"{path}.volumeMode", spec["volumeMode"], _BLOCK_MODES)
    return causes


def validate_claim_update(new: Obj, old: Obj) -> list[Cause]:
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    free = ["resources", "volumeAttributesClassName"]
    free += [key for key in ("volumeName",) if not before.get(key)]
    fixed = {key: value for key, value in spec.items() if key not in free}
    if fixed != {key: value for key, value in before.items() if key not in free}:
        return [forbidden("spec", _SPEC_FIXED)]
    wanted, had = ((side.get("resources") or {}).get("requests") or {} for side in (spec, before))
    if "storage" in wanted and "storage" in had and parse(wanted["storage"]) < parse(had["storage"]):
        path = "spec.resources.requests.storage"
        return [forbidden(path, "field can not be less than status.capacity")]
    return []


def default_volume(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")
    if "hostPath" in spec:
        spec["hostPath"].setdefault("type", "")


def prepare_volume(obj: Obj, _ctx: WriteContext) -> None:
    finalizers = obj["metadata"].get("finalizers") or []
    if "kubernetes.io/pv-protection" not in finalizers:
        obj["metadata"]["finalizers"] = [*finalizers, "kubernetes.io/pv-protection"]


def _sources(spec: Obj) -> list[str]:
    return [key for key in spec if key not in _NOT_SOURCES]


def validate_volume(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if not spec.get("accessModes"):
        causes.append(required("spec.accessModes"))
    for mode in spec.get("accessModes") or ():
        causes += one_of("spec.accessModes", mode, ACCESS_MODES)
    if "storage" not in (spec.get("capacity") or {}):
        causes.append(required("spec.capacity", "must have at least one resource"))
    causes += one_of(
        "spec.persistentVolumeReclaimPolicy", spec["persistentVolumeReclaimPolicy"], ("Delete", "Recycle", "Retain")
    )
    sources = _sources(spec)
    if not sources:
        causes.append(required("spec", "must specify a volume type"))
    for extra in sources[1:]:
        causes.append(forbidden(f"spec.{extra}", "may not specify more than 1 volume type"))
    if "local" in spec and "nodeAffinity" not in spec:
        causes.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
    return causes


def validate_volume_update(new: Obj, old: Obj) -> list[Cause]:
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    source = {key: spec[key] for key in _sources(spec)}
    if source != {key: before[key] for key in _sources(before)}:
        return [forbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation")]
    return immutable("spec.volumeMode", spec.get("volumeMode"), before.get("volumeMode"))


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
