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
    required,
    unsupported,
)
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj, annotations_of
from steersman.cluster.meta.quantity import parse

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
BLOCK_MODES = ("Block", "Filesystem")
_ATTRIBUTES = "volumeAttributesClassName"
#: how the class of a claim's storage was said before there was a field
_CLASS_MARK = "volume.beta.kubernetes.io/storage-class"
_NO_QUANTITY = "must be a valid resource quantity"
_RESIZES = (
    "ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizePending", "NodeResizeInProgress",
    "NodeResizeInfeasible",
)  # fmt: skip
_FIXED = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"


def default_claim(obj: Obj) -> None:
    claim_spec(obj.setdefault("spec", {}))


def prepare_create(obj: Obj, _ctx: WriteContext) -> None:
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
    causes = [unsupported(path, mode, ACCESS_MODES) for mode in modes if mode not in ACCESS_MODES]
    known = {mode for mode in modes if mode in ACCESS_MODES}
    if "ReadWriteOncePod" in known and len(known) > 1:
        causes.append(forbidden(path, "may not use ReadWriteOncePod with other access modes"))
    return causes


def validate_claim_spec(path: str, spec: Obj) -> list[Cause]:
    modes = spec.get("accessModes") or []
    causes = [] if modes else [required(f"{path}.accessModes", "at least 1 access mode is required")]
    causes += label_selector(f"{path}.selector", spec.get("selector"))
    causes += access_modes(f"{path}.accessModes", modes)
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        causes.append(required(f"{path}.resources[storage]"))
    elif parse(storage) <= 0:
        causes.append(bad(f"{path}.resources[storage]", storage, "must be greater than zero"))
    if spec.get("storageClassName"):
        causes += _class(path, "storageClassName", spec)
    if spec.get("volumeMode") is not None and spec["volumeMode"] not in BLOCK_MODES:
        causes.append(unsupported(f"{path}.volumeMode", spec["volumeMode"], BLOCK_MODES))
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    for key, found in (("dataSource", source), ("dataSourceRef", reference)):
        if found is not None:
            causes += _source(f"{path}.{key}", found)
    if source is not None and reference is not None:
        if reference.get("namespace"):
            causes.append(bad(path, {}, "may not be specified when dataSourceRef.namespace is specified"))
        elif any(source.get(key) != reference.get(key) for key in ("apiGroup", "kind", "name")):
            causes.append(bad(path, {}, "must match dataSourceRef"))
    return causes + _class(path, "volumeAttributesClassName", spec) if spec.get(_ATTRIBUTES) else causes


def _class(path: str, key: str, spec: Obj) -> list[Cause]:
    return bad_all(f"{path}.{key}", spec[key], subdomain_errors(spec[key]))


def _source(path: str, source: Obj) -> list[Cause]:
    causes = [required(f"{path}.{key}") for key in ("name", "kind") if not source.get(key)]
    if not source.get("apiGroup") and source.get("kind") != "PersistentVolumeClaim":
        detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        causes.append(bad(path, source.get("kind", ""), detail))
    if source.get("apiGroup"):
        causes += bad_all(f"{path}.apiGroup", source["apiGroup"], subdomain_errors(source["apiGroup"]))
    if source.get("namespace"):
        causes += bad_all(f"{path}.namespace", source["namespace"], label_1123_errors(source["namespace"]))
    return causes


def _size(obj: Obj) -> object:
    return ((((obj.get("spec") or {}).get("resources") or {}).get("requests")) or {}).get("storage", "0")


def validate_claim_update(new: Obj, old: Obj) -> list[Cause]:
    """A claim stays as it is; bound it may grow, and be given another class of attributes."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    marks, had_marks = annotations_of(new), annotations_of(old)
    causes: list[Cause] = []
    by_mark = _is_class_of_mark(new, old)
    if not by_mark and marks.get(_CLASS_MARK, "") != had_marks.get(_CLASS_MARK, ""):
        where = f"metadata.annotations.{_CLASS_MARK}"
        causes.append(bad(where, marks.get(_CLASS_MARK, ""), "field is immutable"))
    may_name = by_mark or spec.get("storageClassName") == had_marks.get(_CLASS_MARK, spec.get("storageClassName"))
    bound = (new.get("status") or {}).get("phase") == "Bound"
    free = ["volumeName"] if not before.get("volumeName") else []
    if may_name and before.get("storageClassName") is None and spec.get("storageClassName") is not None:
        free.append("storageClassName")
    if _frozen(spec, free, bound=bound) != _frozen(before, free, bound=bound):
        causes.append(forbidden("spec", _FIXED))
    wanted, had = parse(str(_size(new))), parse(str(_size(old)))
    held = parse(((old.get("status") or {}).get("capacity") or {}).get("storage", "0"))
    if wanted < had and wanted <= held:
        path = "spec.resources.requests.storage"
        causes.append(forbidden(path, "field can not be less than status.capacity"))
    causes += immutable("volumeMode", spec.get("volumeMode"), before.get("volumeMode"))
    current = (old.get("status") or {}).get("currentVolumeAttributesClassName")
    if spec.get(_ATTRIBUTES) != before.get(_ATTRIBUTES) and current is not None and not spec.get(_ATTRIBUTES):
        word = "nil" if spec.get(_ATTRIBUTES) is None else "empty string"
        detail = f"update to {word} is forbidden when status.currentVolumeAttributesClassName is not nil"
        causes.append(forbidden(f"spec.{_ATTRIBUTES}", detail))
    return causes


def _is_class_of_mark(new: Obj, old: Obj) -> bool:
    """Whether a claim now says by its field what class of storage its annotation said."""
    marks, had_marks = annotations_of(new), annotations_of(old)
    named = (new.get("spec") or {}).get("storageClassName")
    if _CLASS_MARK not in had_marks or (old.get("spec") or {}).get("storageClassName") is not None:
        return False
    return named == had_marks[_CLASS_MARK] and marks.get(_CLASS_MARK, named) == named


def _frozen(spec: Obj, free: list[str], *, bound: bool) -> Obj:
    """What of a claim's spec does not change."""
    free = [*free, _ATTRIBUTES] if bound else free
    kept = {key: value for key, value in spec.items() if key not in free}
    if bound and (kept.get("resources") or {}).get("requests"):
        requests = {key: value for key, value in kept["resources"]["requests"].items() if key != "storage"}
        kept["resources"] = {**kept["resources"], "requests": requests}
    return kept


def validate_claim_status(new: Obj, _old: Obj) -> list[Cause]:
    """Every broken rule of what is said of a claim."""
    status, causes = new.get("status") or {}, []
    for key, value in (status.get("capacity") or {}).items():
        if parse(value) < 0:
            causes.append(bad(f"status.capacity[{key}]", value, _NO_QUANTITY))
    for key, value in (status.get("allocatedResourceStatuses") or {}).items():
        causes += _resource_key("status.allocatedResourceStatuses", key)
        if value not in _RESIZES:
            causes.append(unsupported("status.allocatedResourceStatuses", key, _RESIZES))
    for key, value in (status.get("allocatedResources") or {}).items():
        wrong = _resource_key("status.allocatedResources", key)
        if not wrong and parse(value) < 0:
            wrong.append(bad(f"status.allocatedResources[{key}]", value, _NO_QUANTITY))
        causes += wrong
    return causes


def _resource_key(path: str, key: str) -> list[Cause]:
    if errors := qualified_name_errors(key):
        return bad_all(path, key, errors)
    is_native = "/" not in key or "kubernetes.io/" in key
    return [unsupported(path, key, ("storage",))] if is_native and key != "storage" else []
