"""Rules of persistent volume claims, and of the templates that claims are made from.

Source: k8s.io/kubernetes/pkg/apis/core/validation/validation.go, pkg/registry/core/persistentvolumeclaim/strategy.go
"""

from __future__ import annotations

from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.rules.defaults import claim_spec
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    forbidden,
    immutable,
    label_selector,
    one_of,
    required,
    unsupported,
)
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import subdomain_errors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.quantity import parse

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
BLOCK_MODES = ("Block", "Filesystem")
_PROTECT = "kubernetes.io/pvc-protection"
_FIXED = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"


def default_claim(obj: Obj) -> None:
    claim_spec(obj.setdefault("spec", {}))


def prepare_create(obj: Obj, _ctx: WriteContext) -> None:
    finalizers = obj["metadata"].get("finalizers") or []
    if _PROTECT not in finalizers:
        obj["metadata"]["finalizers"] = [*finalizers, _PROTECT]
    _join_sources(obj["spec"])


def prepare_update(new: Obj, _old: Obj, _ctx: WriteContext) -> None:
    _join_sources(new["spec"])


def _join_sources(spec: Obj) -> None:
    """The older and the newer field for where data comes from say the same."""
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source is not None and reference is None:
        spec["dataSourceRef"] = dict(source)
    elif reference is not None and source is None and reference.get("namespace") is None:
        spec["dataSource"] = dict(reference)


def validate_claim(obj: Obj) -> list[Cause]:
    return validate_claim_spec("spec", obj.get("spec") or {})


def access_modes(path: str, modes: list[str]) -> list[Cause]:
    """The rules of how volumes may be used."""
    causes: list[Cause] = []
    for mode in modes:
        causes += one_of(path, mode, ACCESS_MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        causes.append(forbidden(path, "may not use ReadWriteOncePod with other access modes"))
    return causes


def validate_claim_spec(path: str, spec: Obj) -> list[Cause]:
    causes = label_selector(f"{path}.selector", spec.get("selector"))
    modes = spec.get("accessModes") or []
    if not modes:
        causes.append(required(f"{path}.accessModes", "at least 1 access mode is required"))
    causes += access_modes(f"{path}.accessModes", modes)
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        causes.append(required(f"{path}.resources[storage]"))
    elif parse(storage) <= 0:
        causes.append(bad(f"{path}.resources[storage]", storage, "must be greater than zero"))
    for key in ("storageClassName", "volumeAttributesClassName"):
        if spec.get(key):
            causes += bad_all(f"{path}.{key}", spec[key], subdomain_errors(spec[key]))
    if spec.get("volumeMode") is not None and spec["volumeMode"] not in BLOCK_MODES:
        causes.append(unsupported(f"{path}.volumeMode", spec["volumeMode"], BLOCK_MODES))
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    for key, found in (("dataSource", source), ("dataSourceRef", reference)):
        if found is not None:
            causes += _source(f"{path}.{key}", found)
    if source is not None and reference is not None and any(
        source.get(key) != reference.get(key) for key in ("apiGroup", "kind", "name")
    ):  # fmt: skip
        causes.append(bad(path, source, "must match dataSourceRef"))
    return causes


def _source(path: str, source: Obj) -> list[Cause]:
    causes = [required(f"{path}.{key}") for key in ("name", "kind") if not source.get(key)]
    if not source.get("apiGroup") and source.get("kind") != "PersistentVolumeClaim":
        detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        causes.append(bad(path, source.get("kind", ""), detail))
    if source.get("apiGroup"):
        causes += bad_all(f"{path}.apiGroup", source["apiGroup"], subdomain_errors(source["apiGroup"]))
    return causes


def _size(obj: Obj) -> object:
    return ((((obj.get("spec") or {}).get("resources") or {}).get("requests")) or {}).get("storage", "0")


def validate_claim_update(new: Obj, old: Obj) -> list[Cause]:
    """A claim stays as it is; bound it may grow, and be given another class of attributes."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    bound = (new.get("status") or {}).get("phase") == "Bound"
    causes: list[Cause] = []
    if _frozen(spec, before, bound=bound) != _frozen(before, before, bound=bound):
        causes.append(forbidden("spec", _FIXED))
    wanted, had = parse(str(_size(new))), parse(str(_size(old)))
    held = parse(((old.get("status") or {}).get("capacity") or {}).get("storage", "0"))
    if wanted < had and wanted <= held:
        path = "spec.resources.requests.storage"
        causes.append(forbidden(path, "field can not be less than status.capacity"))
    causes += immutable("volumeMode", spec.get("volumeMode"), before.get("volumeMode"))
    attributes = "volumeAttributesClassName"
    if before.get(attributes) is not None and spec.get(attributes) is None:
        causes.append(forbidden(f"spec.{attributes}", "update from non-nil value to nil is forbidden"))
    return causes


def _frozen(spec: Obj, before: Obj, *, bound: bool) -> Obj:
    """What of a claim's spec does not change."""
    free = [key for key in ("volumeName", "storageClassName") if not before.get(key) and before.get(key) != ""]
    if bound:
        free.append("volumeAttributesClassName")
    kept = {key: value for key, value in spec.items() if key not in free}
    if bound and (kept.get("resources") or {}).get("requests"):
        requests = {key: value for key, value in kept["resources"]["requests"].items() if key != "storage"}
        kept["resources"] = {**kept["resources"], "requests": requests}
    return kept
