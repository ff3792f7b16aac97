"""DefaultStorageClass, StorageObjectInUseProtection and PersistentVolumeClaimResize, and DefaultIngressClass, which
chooses in the same way as the first.

Source: https://kubernetes.io/docs/concepts/storage/storage-classes/#default-storageclass and
k8s.io/kubernetes/plugin/pkg/admission/{storage,network/defaultingressclass}
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from steersman.cluster.api.admission.attempt import Attempt
from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.objects import Obj, annotations_of
from steersman.cluster.meta.quantity import parse
from steersman.cluster.meta.resources import INGRESS_CLASSES, STORAGE_CLASSES

_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_OLD_CLASS = "volume.beta.kubernetes.io/storage-class"
_DEFAULT_INGRESS = "ingressclass.kubernetes.io/is-default-class"
_OLD_INGRESS = "kubernetes.io/ingress.class"


def admit_claim(claim: Obj, ctx: WriteContext) -> None:
    """Names the default class in a claim that says nothing (an empty name is a wish for none)."""
    spec = claim.setdefault("spec", {})
    if spec.get("storageClassName") is not None or _OLD_CLASS in annotations_of(claim):
        return
    if found := _newest(ctx.list(STORAGE_CLASSES, None), _DEFAULT):
        spec["storageClassName"] = found


def admit_ingress(ingress: Obj, ctx: WriteContext) -> None:
    """Names the default class in an ingress that names none."""
    spec = ingress.setdefault("spec", {})
    if spec.get("ingressClassName") is not None or _OLD_INGRESS in annotations_of(ingress):
        return
    if found := _newest(ctx.list(INGRESS_CLASSES, None), _DEFAULT_INGRESS):
        spec["ingressClassName"] = found


def protect_claim(claim: Obj, _ctx: WriteContext) -> None:
    """Keeps a claim for as long as pods use it."""
    _protect(claim, "kubernetes.io/pvc-protection")


def protect_volume(volume: Obj, _ctx: WriteContext) -> None:
    """Keeps a volume for as long as it is bound."""
    _protect(volume, "kubernetes.io/pv-protection")


def protect_attributes(attributes: Obj, _ctx: WriteContext) -> None:
    """Keeps a class of volumes' attributes for as long as volumes have them."""
    _protect(attributes, "kubernetes.io/vac-protection")


def _protect(obj: Obj, finalizer: str) -> None:
    finalizers = obj["metadata"].get("finalizers") or []
    if finalizer not in finalizers:
        obj["metadata"]["finalizers"] = [*finalizers, finalizer]


def _newest(classes: Iterable[Obj], annotation: str) -> str:
    """The youngest default class; of those of one second the first by name. Empty when there is none."""
    found = sorted(
        (cls["metadata"] for cls in classes if annotations_of(cls).get(annotation) == "true"),
        key=lambda meta: str(meta["name"]),
    )
    youngest: Obj = max(found, key=lambda meta: str(meta.get("creationTimestamp", "")), default={})
    return str(youngest.get("name", ""))


def validate_resize(attempt: Attempt, ctx: WriteContext) -> None:
    """Refuses to let a claim grow whose class does not provide for that."""
    new, old = attempt.obj or {}, attempt.old or {}
    if _size(new) <= _size(old):
        return
    name, before = (_class_of(obj) for obj in (new, old))
    found = ctx.lookup(STORAGE_CLASSES, "", name) if name and name == before else None
    if not (found or {}).get("allowVolumeExpansion"):
        raise attempt.forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support "
            "resize"
        )


def _size(claim: Obj) -> Decimal:
    return parse((((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}).get("storage", "0"))


def _class_of(claim: Obj) -> str:
    return annotations_of(claim).get(_OLD_CLASS) or (claim.get("spec") or {}).get("storageClassName") or ""
