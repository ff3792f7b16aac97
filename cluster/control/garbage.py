"""Garbage collector: removes what its owners have left behind, and holds or orphans dependents when asked to.

Background: an object whose owners are all gone is deleted. Foreground: an owner marked `foregroundDeletion` stays until
the dependents that block it are gone. Orphan: dependents of an owner marked `orphan` lose their reference to it.
An owner that the caches do not show is looked up at the API server before anything is deleted for its absence.
Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from steersman.cluster.control.plan import (
    NOTHING_TO_DO,
    Batch,
    Draft,
    ExpectGone,
    Patch,
    Plan,
    delete,
    patch,
)
from steersman.cluster.control.spec import ControllerSpec, View
from steersman.cluster.meta.objects import Obj, is_deleting, key, namespace, owner_references, uid
from steersman.cluster.meta.resources import Resource

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
#: between a resource's name and an object's key in the keys of this controller
_SEPARATOR = "//"
#: how long to wait for a kind that the server does not offer now
UNKNOWN_KIND_S = 30.0


class OwnerState(Enum):
    SOLID = "exists"
    WAITING = "exists, and waits for its dependents to go"
    ABSENT = "is not in the caches"
    UNKNOWN = "cannot be looked up"


@dataclass(frozen=True, slots=True)
class Owner:
    """An owner reference and what is known of the owner. Args: gone: the check that it does not exist."""

    reference: Obj
    state: OwnerState
    gone: ExpectGone | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: dependents: (resource, object) pairs that refer to the object as an owner."""

    resource: Resource
    obj: Obj
    owners: tuple[Owner, ...] = ()
    dependents: tuple[tuple[Resource, Obj], ...] = ()


def key_of(resource: Resource, obj: Obj) -> str:
    return f"{resource}{_SEPARATOR}{key(obj)}"


def dependents_of(view: View, owner_uid: str) -> list[tuple[Resource, Obj]]:
    return [(resource, obj) for resource in view.resources() for obj in view.by_index(resource, "owner", owner_uid)]


def keys_of_any(resource: Resource, before: Obj | None, after: Obj | None, view: View) -> Iterable[str]:
    """What to look at when something changes: itself, and around an end its dependents and its owners."""
    if after is None:
        if before is None:
            return ()
        around = [key_of(*pair) for pair in dependents_of(view, uid(before))]
        return around + _owner_keys(before, view)
    if is_deleting(after):
        keys = _owner_keys(after, view) if before is None or not is_deleting(before) else []
        finalizers = after["metadata"].get("finalizers") or ()
        if FOREGROUND in finalizers or ORPHAN in finalizers:
            keys.append(key_of(resource, after))
            if before is None or not is_deleting(before):
                keys += [key_of(*pair) for pair in dependents_of(view, uid(after))]
        return keys
    references = owner_references(after)
    if not references or (before is not None and owner_references(before) == references):
        return ()
    return (key_of(resource, after), *(_owner_keys(before, view) if before is not None else ()))


def _owner_keys(obj: Obj, view: View) -> list[str]:
    """The keys of owners that may wait for this object."""
    keys = []
    for reference in owner_references(obj):
        resource = view.resource_of(reference["apiVersion"], reference["kind"])
        if resource is not None:
            space = namespace(obj) if resource.namespaced else ""
            keys.append(f"{resource}{_SEPARATOR}{_joined(space, reference['name'])}")
    return keys


def _joined(space: str, name: str) -> str:
    return f"{space}/{name}" if space else name


def observe(view: View, key: str) -> Observed | None:
    resource_name, _, object_key = key.partition(_SEPARATOR)
    resource = view.resource_named(resource_name)
    obj = view.get(resource, object_key) if resource is not None else None
    if resource is None or obj is None:
        return None
    owners = tuple(_owner(view, obj, reference) for reference in owner_references(obj))
    waiting = any(owner.state is OwnerState.WAITING for owner in owners)
    dependents = dependents_of(view, uid(obj)) if is_deleting(obj) or waiting else []
    return Observed(resource=resource, obj=obj, owners=owners, dependents=tuple(dependents))


def _owner(view: View, obj: Obj, reference: Obj) -> Owner:
    resource = view.resource_of(reference["apiVersion"], reference["kind"])
    if resource is None or (resource.namespaced and not namespace(obj)):
        return Owner(reference, OwnerState.UNKNOWN)
    space = namespace(obj) if resource.namespaced else ""
    live = view.get(resource, _joined(space, reference["name"]))
    if live is None or uid(live) != reference["uid"]:
        gone = ExpectGone(resource=resource, namespace=space, name=reference["name"], uid=reference["uid"])
        return Owner(reference, OwnerState.ABSENT, gone)
    waits = is_deleting(live) and FOREGROUND in (live["metadata"].get("finalizers") or ())
    return Owner(reference, OwnerState.WAITING if waits else OwnerState.SOLID)


def reconcile(observed: Observed, now: float) -> Plan:
    if is_deleting(observed.obj):
        return _let_go(observed)
    by_state = {state: [owner for owner in observed.owners if owner.state is state] for state in OwnerState}
    absent, waiting = by_state[OwnerState.ABSENT], by_state[OwnerState.WAITING]
    if by_state[OwnerState.UNKNOWN]:
        return Plan(requeue_after_s=UNKNOWN_KIND_S)
    if not absent and not waiting:
        return NOTHING_TO_DO
    draft = Draft()
    draft.add(*(owner.gone for owner in absent))
    if by_state[OwnerState.SOLID]:
        kept = [owner.reference for owner in by_state[OwnerState.SOLID]]
        draft.add(patch(observed.resource, observed.obj, {"metadata": {"ownerReferences": kept}}))
        return draft.done()
    exact = observed.obj["metadata"].get("resourceVersion", "")
    finalizers = observed.obj["metadata"].get("finalizers") or ()
    policy: Literal["Background", "Foreground", "Orphan"] = "Background"
    if waiting and observed.dependents:
        if (unblocked := _unblocked(observed)) is not None:
            draft.add(unblocked)
            return draft.done()
        policy = "Foreground"
    elif ORPHAN in finalizers:
        policy = "Orphan"
    elif FOREGROUND in finalizers:
        policy = "Foreground"
    draft.add(delete(observed.resource, observed.obj, resource_version=exact, propagation=policy))
    return draft.done()


def _unblocked(observed: Observed) -> Patch | None:
    """Breaks a circle of owners, in which each would wait for the next: this one no longer blocks its owners."""
    circle = any(is_deleting(found) for _, found in observed.dependents)
    if not circle or not any(row.get("blockOwnerDeletion") for row in owner_references(observed.obj)):
        return None
    references = [{**row, "blockOwnerDeletion": False} for row in owner_references(observed.obj)]
    return patch(observed.resource, observed.obj, {"metadata": {"ownerReferences": references}})


def _let_go(observed: Observed) -> Plan:
    """Takes away the collector's own finalizers when their time has come."""
    finalizers = observed.obj["metadata"].get("finalizers") or ()
    own = uid(observed.obj)
    if ORPHAN in finalizers:
        changes = [
            patch(
                resource,
                found,
                {"metadata": {"ownerReferences": [row for row in owner_references(found) if row["uid"] != own]}},
            )
            for resource, found in observed.dependents
        ]
        steps = (Batch(tuple(changes)),) if changes else ()
        return Plan(steps=(*steps, _without(observed, ORPHAN)))
    if FOREGROUND in finalizers:
        blocking = any(
            row["uid"] == own and row.get("blockOwnerDeletion")
            for _, found in observed.dependents
            for row in owner_references(found)
        )
        if not blocking:
            return Plan(steps=(_without(observed, FOREGROUND),))
    return NOTHING_TO_DO


def _without(observed: Observed, finalizer: str) -> Patch:
    rest = [row for row in observed.obj["metadata"]["finalizers"] if row != finalizer]
    return patch(observed.resource, observed.obj, {"metadata": {"finalizers": rest or None}})


GARBAGE_COLLECTOR = ControllerSpec(
    name="garbagecollector",
    watches=(),
    observe=observe,
    reconcile=reconcile,
    keys_of_any=keys_of_any,
    discovers=True,
    workers=20,
)
