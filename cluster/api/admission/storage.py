"""DefaultStorageClass: a claim that names no class gets the cluster's default one.

Source: https://kubernetes.io/docs/concepts/storage/storage-classes/#default-storageclass
"""

from __future__ import annotations

from steersman.cluster.api.context import WriteContext
from steersman.cluster.meta.objects import Obj, annotations_of
from steersman.cluster.meta.resources import Resource

STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
_DEFAULT = "storageclass.kubernetes.io/is-default-class"


def admit_claim(claim: Obj, ctx: WriteContext) -> None:
    """Names the default class in a claim that says nothing (an empty name is a wish for none)."""
    spec = claim.setdefault("spec", {})
    if "storageClassName" in spec:
        return
    classes = [cls for cls in ctx.list(STORAGE_CLASSES, None) if annotations_of(cls).get(_DEFAULT) == "true"]
    if classes:
        newest = max(classes, key=lambda cls: (cls["metadata"].get("creationTimestamp", ""), cls["metadata"]["name"]))
        spec["storageClassName"] = newest["metadata"]["name"]
