"""The history of a workload as ControllerRevisions: a snapshot of each template that it has had, for going back.

A pod tells its revision by that one's hash (of a DaemonSet) or name (of a StatefulSet).

Source: k8s.io/kubernetes/pkg/controller/{daemon/update,history/controller_history}.go
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from steersman.cluster.control.plan import Action, Create, delete, patch
from steersman.cluster.control.pods import claim, template_hash
from steersman.cluster.meta.objects import Obj, annotations_of, controller_reference, labels_of, name, namespace, uid
from steersman.cluster.meta.resources import CONTROLLER_REVISIONS, Resource
from steersman.cluster.meta.selectors import LabelSelector

HASH_LABEL = "controller-revision-hash"
_KEPT = 10


@dataclass(frozen=True, slots=True)
class History:
    """Args: digest: of the present template, as its pods carry it; steps: what makes the history true."""

    digest: str
    steps: tuple[Action, ...] = ()


def history(
    owner: Obj,
    resource: Resource,
    selector: LabelSelector,
    revisions: Iterable[Obj],
    orphans: Iterable[Obj],
    pods: Iterable[Obj],
) -> History:
    """Returns the revision of the owner's template, with what is to be written so that it is the newest one.

    Args:
        revisions: those that the owner controls.
        orphans: revisions of the namespace that nobody controls.
        pods: the owner's; the revisions they were made from are kept.
    """
    claimed = claim(owner, resource, CONTROLLER_REVISIONS, selector, revisions, orphans)
    data = _snapshot(owner)
    same = [found for found in claimed.owned if found.get("data") == data]
    # a digest of different things, so that sets of two kinds with one name and template do not meet
    fresh = template_hash(owner["spec"]["template"] if resource.kind == "DaemonSet" else data)
    digest = _digest(same, fresh)
    if claimed.steps:  # what is adopted counts from the next turn on
        return History(digest, claimed.steps)
    old = sorted((found for found in claimed.owned if found not in same), key=_revision)
    number = max(map(_revision, old), default=0) + 1
    steps: list[Action] = []
    if not same:
        steps.append(_creation(owner, resource, data, digest, number))
    else:
        *doubles, current = sorted(same, key=_revision)
        steps += [delete(CONTROLLER_REVISIONS, found) for found in doubles]
        if _revision(current) < number:
            steps.append(patch(CONTROLLER_REVISIONS, current, {"revision": number}))
    live = {labels_of(pod).get(HASH_LABEL) for pod in pods}
    return History(digest, (*steps, *(delete(CONTROLLER_REVISIONS, found) for found in _expired(owner, old, live))))


def _expired(owner: Obj, old: Sequence[Obj], live: set[str | None]) -> list[Obj]:
    """The oldest revisions that no pod has, as many as there are too many."""
    limit = owner["spec"].get("revisionHistoryLimit")
    count = len(old) - (_KEPT if limit is None else limit)
    return [found for found in old if not {labels_of(found).get(HASH_LABEL), name(found)} & live][: max(0, count)]


def _digest(same: Sequence[Obj], fresh: str) -> str:
    current = max(same, key=_revision, default=None)
    return (labels_of(current).get(HASH_LABEL) if current is not None else None) or fresh


def _snapshot(owner: Obj) -> Obj:
    """What a patch takes to give a workload this template again."""
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def _revision(found: Obj) -> int:
    number: int = found.get("revision", 0)
    return number


def _creation(owner: Obj, resource: Resource, data: Obj, digest: str, number: int) -> Create:
    labels = dict((owner["spec"]["template"].get("metadata") or {}).get("labels") or {})
    meta: Obj = {
        "name": f"{name(owner)}-{digest}",
        "namespace": namespace(owner),
        "labels": labels | {HASH_LABEL: digest},
        "ownerReferences": [controller_reference(owner, resource.api_version, resource.kind)],
    }
    if annotations := annotations_of(owner):
        meta["annotations"] = dict(annotations)
    found = {
        "apiVersion": CONTROLLER_REVISIONS.api_version,
        "kind": CONTROLLER_REVISIONS.kind,
        "metadata": meta,
        "data": data,
        "revision": number,
    }
    return Create(resource=CONTROLLER_REVISIONS, obj=found, owner_uid=uid(owner))
