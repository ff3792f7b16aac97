"""Namespace: empties a namespace that is being deleted, pods first, and lets it go when nothing is left.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/ and KEP-5080
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from steersman.cluster.control.plan import (
    NOTHING_TO_DO,
    Batch,
    DeleteCollection,
    Draft,
    ExpectEmpty,
    Plan,
    Replace,
    status_patch,
)
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.objects import Obj, is_deleting, name, namespace, with_condition
from steersman.cluster.meta.resources import EVENTS, NAMESPACES, PODS, Resource

FINALIZER = "kubernetes"
#: between two looks at whether all kinds are known again
UNDISCOVERED_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What is known of a namespace that goes.

    Args:
        resources: every namespaced kind; remaining: what the namespace still holds of them.
        undiscovered: groups' versions, as `apps/v1`, whose kinds are not known at present.
    """

    namespace: Obj
    resources: tuple[Resource, ...] = ()
    remaining: Mapping[Resource, tuple[Obj, ...]]
    undiscovered: tuple[str, ...] = ()


def keys_of_any(resource: Resource, before: Obj | None, after: Obj | None, view: View) -> Iterable[str]:
    """The namespace that goes, when its content changes."""
    obj = after if after is not None else before
    space = namespace(obj) if obj is not None else ""
    if not space:
        return ()
    found = view.get(NAMESPACES, space)
    return (space,) if found is not None and is_deleting(found) else ()


def observe(view: View, key: str) -> Observed | None:
    found = view.get(NAMESPACES, key)
    if found is None or not is_deleting(found) or FINALIZER not in ((found.get("spec") or {}).get("finalizers") or ()):
        return None
    resources = tuple(resource for resource in view.resources() if resource.namespaced)
    remaining = {resource: tuple(view.by_index(resource, "namespace", key)) for resource in resources}
    return Observed(
        namespace=found,
        resources=resources,
        remaining={resource: objects for resource, objects in remaining.items() if objects},
        undiscovered=tuple(sorted(view.undiscovered())),
    )


def reconcile(observed: Observed, now: float) -> Plan:
    space = name(observed.namespace)
    draft = Draft()
    draft.add(status_patch(NAMESPACES, observed.namespace, _status(observed, now)))
    if observed.remaining:
        # pods go before what may protect others from them, as network policies
        first = {PODS: observed.remaining[PODS]} if PODS in observed.remaining else observed.remaining
        doomed = [
            DeleteCollection(resource=resource, namespace=space)
            for resource, objects in first.items()
            if not all(map(is_deleting, objects))
        ]
        draft.look_again(UNDISCOVERED_S if observed.undiscovered else None)
        if not doomed and not draft.steps and not observed.undiscovered:
            return NOTHING_TO_DO
        draft.add(Batch(tuple(doomed)) if doomed else None)
        return draft.done()
    if observed.undiscovered:
        draft.look_again(UNDISCOVERED_S)
        return draft.done()
    events = [resource for resource in observed.resources if resource.plural == EVENTS.plural]
    draft.add(*(DeleteCollection(resource=resource, namespace=space) for resource in events[:1]))
    draft.add(Batch(tuple(ExpectEmpty(resource=resource, namespace=space) for resource in observed.resources)))
    rest = [row for row in observed.namespace["spec"]["finalizers"] if row != FINALIZER]
    # the status written above made the version stale; the finalize subresource writes nothing but the finalizers
    meta = {field: value for field, value in observed.namespace["metadata"].items() if field != "resourceVersion"}
    freed = {**observed.namespace, "metadata": meta, "spec": {**observed.namespace["spec"], "finalizers": rest}}
    draft.add(Replace(resource=NAMESPACES, obj=freed, subresource="finalize"))
    return draft.done()


def _status(observed: Observed, now: float) -> Obj:
    status: Obj = dict(observed.namespace.get("status") or {})
    rows = status.get("conditions") or []
    finalizers: dict[str, int] = {}
    for objects in observed.remaining.values():
        for obj in objects:
            for row in obj["metadata"].get("finalizers") or ():
                finalizers[row] = finalizers.get(row, 0) + 1
    counts = ", ".join(
        f"{resource} has {len(objects)} resource instances"
        for resource, objects in sorted(observed.remaining.items(), key=lambda pair: str(pair[0]))
    )
    held = ", ".join(f"{row} in {count} resource instances" for row, count in sorted(finalizers.items()))
    table = (
        ("NamespaceDeletionDiscoveryFailure", True, "DiscoveryFailed", _undiscovered(observed.undiscovered))
        if observed.undiscovered
        else ("NamespaceDeletionDiscoveryFailure", False, "ResourcesDiscovered",
              "All resources successfully discovered"),
        ("NamespaceDeletionGroupVersionParsingFailure", False, "ParsedGroupVersions",
         "All legacy kube types successfully parsed"),
        ("NamespaceDeletionContentFailure", False, "ContentDeleted",
         "All content successfully deleted, may be waiting on finalization"),
        ("NamespaceContentRemaining", True, "SomeResourcesRemain", f"Some resources are remaining: {counts}")
        if counts
        else ("NamespaceContentRemaining", False, "ContentRemoved", "All content successfully removed"),
        ("NamespaceFinalizersRemaining", True, "SomeFinalizersRemain",
         f"Some content in the namespace has finalizers remaining: {held}")
        if held
        else ("NamespaceFinalizersRemaining", False, "ContentHasNoFinalizers",
              "All content-preserving finalizers finished"),
    )  # fmt: skip
    for kind, truth, reason, message in table:
        rows = with_condition(rows, kind, "True" if truth else "False", now, reason=reason, message=message)
    return {**status, "phase": "Terminating", "conditions": rows}


def _undiscovered(versions: tuple[str, ...]) -> str:
    rows = ", ".join(f"{version}: stale GroupVersion discovery: {version}" for version in versions)
    text = f"unable to retrieve the complete list of server APIs: {rows}"
    return f"Discovery failed for some groups, {len(versions)} failing: {text}"


NAMESPACE = ControllerSpec(
    name="namespace",
    watches=(Watch(resource=NAMESPACES, keys=own_key),),
    observe=observe,
    reconcile=reconcile,
    keys_of_any=keys_of_any,
    discovers=True,
    workers=4,
    interval_s=0.2,
)
