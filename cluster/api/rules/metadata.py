"""Rules of ObjectMeta: of every object, and of every change.

Source: k8s.io/apimachinery/pkg/api/validation/objectmeta.go
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    duplicate,
    forbidden,
    key_errors,
    labels,
    masked,
    required,
    too_long,
)
from steersman.cluster.api.rules.options import field_manager
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

#: all annotations of an object together
ANNOTATIONS_BYTES_MAX = 256 * 1024
_WELL_KNOWN_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")
_BANNED_OWNERS = {("v1", "Event")}
#: of a subresource's name in `managedFields`
_SUBRESOURCE_BYTES_MAX = 256
IMMUTABLE = "field is immutable"


def validate_metadata(
    meta: Obj, namespaced: bool, name_errors: Callable[[str], list[str]], *, plain_finalizers: bool = False
) -> list[Cause]:
    """Every broken rule of an object's metadata.

    Args:
        plain_finalizers: finalizers need no domain in front of their names.
    """
    causes: list[Cause] = []
    if meta.get("generateName"):
        causes += bad_all("metadata.generateName", meta["generateName"], name_errors(masked(meta["generateName"])))
    name = meta.get("name", "")
    if not name:
        causes.append(required("metadata.name", "name or generateName is required"))
    else:
        causes += bad_all("metadata.name", name, name_errors(name))
    if namespaced:
        if not meta.get("namespace"):
            causes.append(required("metadata.namespace"))
        else:
            causes += bad_all("metadata.namespace", meta["namespace"], label_1123_errors(meta["namespace"]))
    elif meta.get("namespace"):
        causes.append(forbidden("metadata.namespace", "not allowed on this type"))
    if meta.get("labels"):
        causes += labels("metadata.labels", meta["labels"])
    if meta.get("annotations"):
        causes += validate_annotations("metadata.annotations", meta["annotations"])
    if meta.get("ownerReferences"):
        causes += _owners(meta["ownerReferences"])
    if meta.get("finalizers"):
        causes += _finalizers(meta["finalizers"], plain_finalizers)
    for index, row in enumerate(meta.get("managedFields") or ()):
        causes += field_manager(f"metadata.managedFields[{index}].manager", row.get("manager", ""))
        if len(row.get("subresource", "")) > _SUBRESOURCE_BYTES_MAX:
            causes.append(too_long(f"metadata.managedFields[{index}].subresource", _SUBRESOURCE_BYTES_MAX))
    return causes


def validate_annotations(path: str, found: dict[str, str]) -> list[Cause]:
    causes: list[Cause] = []
    size = 0
    for key, value in found.items():
        if errors := key_errors(key.lower()):
            causes += bad_all(path, key, errors)
        size += len(key) + len(value)
    if size > ANNOTATIONS_BYTES_MAX:
        causes.append(too_long(path, ANNOTATIONS_BYTES_MAX))
    return causes


DUPLICATE_OWNERS = (
    ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject "
    "such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}"
)
DUPLICATE_OWNERS_AFTER_ADMISSION = DUPLICATE_OWNERS.replace(
    "duplicate entries;", "duplicate entries after mutating admission happens;"
)


def dedupe_owners(meta: Obj) -> list[str]:
    """Takes out of metadata the owner references that are there already; returns their uids."""
    owners = meta.get("ownerReferences")
    if not isinstance(owners, list) or len(owners) < 2:
        return []
    kept: list[Obj] = []
    repeated = []
    for owner in owners:
        if owner in kept:
            repeated.append(str(owner.get("uid")))
        else:
            kept.append(owner)
    if repeated:
        meta["ownerReferences"] = kept
    return repeated


def _owners(owners: list[Obj]) -> list[Cause]:
    causes: list[Cause] = []
    controller = ""
    for index, owner in enumerate(owners):
        path = f"metadata.ownerReferences[{index}]"
        version = owner.get("apiVersion") or ""
        if version.count("/") > 1 or not version.rpartition("/")[2]:
            causes.append(bad(f"{path}.apiVersion", version, "version must not be empty"))
        for key in ("kind", "name", "uid"):
            if not owner.get(key):
                causes.append(bad(f"{path}.{key}", owner.get(key, ""), "must not be empty"))
        if (version, owner.get("kind")) in _BANNED_OWNERS:
            causes.append(bad(path, owner, f"/{version}, Kind={owner['kind']} is disallowed from being an owner"))
        if owner.get("controller"):
            if controller:
                detail = (
                    f'Only one reference can have Controller set to true. Found "true" in references for {controller} '
                    f"and {owner.get('name')}"
                )
                causes.append(bad("metadata.ownerReferences", owners, detail))
            controller = str(owner.get("name"))
    return causes


def _finalizers(names: list[str], plain: bool) -> list[Cause]:
    path = "metadata.finalizers"
    causes = [cause for name in names for cause in bad_all(path, name, qualified_name_errors(name))]
    if {"orphan", "foregroundDeletion"} <= set(names):
        causes.append(bad(path, names, "finalizer orphan and foregroundDeletion cannot be both set"))
    if not plain:
        causes += [cause for index, name in enumerate(names) for cause in _standing(f"{path}[{index}]", name)]
    return causes


def finalizer(path: str, name: str) -> list[Cause]:
    """The rules of a finalizer's name."""
    return bad_all(path, name, qualified_name_errors(name)) + _standing(path, name)


def _standing(path: str, name: str) -> list[Cause]:
    if is_distinct(name):
        return []
    return [bad(path, name, "name is neither a standard finalizer name nor is it fully qualified")]


def is_distinct(finalizer: str) -> bool:
    """Whether a finalizer is one of Kubernetes' own, or of somebody whom its name tells."""
    return "/" in finalizer or finalizer in _WELL_KNOWN_FINALIZERS


def validate_metadata_update(new: Obj, old: Obj) -> list[Cause]:
    """Every broken rule of a change of metadata."""
    causes: list[Cause] = []
    for key in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if new.get(key) != old.get(key):
            causes.append(bad(f"metadata.{key}", new.get(key), IMMUTABLE))
    if old.get("deletionTimestamp"):
        added = [item for item in new.get("finalizers") or () if item not in (old.get("finalizers") or ())]
        if added:
            detail = (
                "no new finalizers can be added if the object is being deleted, found new finalizers "
                f"[]string{{{', '.join(repr(item).replace(chr(39), chr(34)) for item in added)}}}"
            )
            causes.append(forbidden("metadata.finalizers", detail))
    return causes


def validate_unique(path: str, values: Iterable[Any]) -> list[Cause]:
    """The duplicates of a list that is a set."""
    seen: list[Any] = []
    causes = []
    for index, value in enumerate(values):
        if value in seen:
            causes.append(duplicate(f"{path}[{index}]", value))
        seen.append(value)
    return causes


def validate_name_subdomain(path: str, name: str) -> list[Cause]:
    return bad_all(path, name, subdomain_errors(name))
