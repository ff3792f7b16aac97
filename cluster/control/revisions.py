"""A Deployment's ReplicaSets: which is the new one, which are old, their revisions, names and annotations.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#checking-rollout-history-of-a-deployment
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.cluster.control.pods import template_hash
from steersman.cluster.control.rollout import Bounds, Count
from steersman.cluster.meta.objects import Obj, annotations_of, controller_reference, name, namespace
from steersman.cluster.meta.resources import DEPLOYMENTS

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
HASH_LABEL = "pod-template-hash"
#: annotations of the Deployment that its ReplicaSets do not inherit
_NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        "deprecated.deployment.rollback.to",
    }
)
_HISTORY_CHARS_MAX = 2000


def age(replica_set: Obj) -> tuple[str, str]:
    """Sorts older ReplicaSets first."""
    return replica_set["metadata"].get("creationTimestamp") or "", name(replica_set)


def same_template(replica_set: Obj, deployment: Obj) -> bool:
    """Whether a ReplicaSet runs the Deployment's template, its hash label aside."""
    return _without_hash(replica_set["spec"].get("template") or {}) == _without_hash(deployment["spec"]["template"])


def _without_hash(template: Mapping[str, Any]) -> dict[str, Any]:
    meta = {key: value for key, value in (template.get("metadata") or {}).items() if value is not None}
    meta["labels"] = {key: value for key, value in (meta.get("labels") or {}).items() if key != HASH_LABEL}
    return {**template, "metadata": meta}


def split_new(deployment: Obj, replica_sets: Sequence[Obj]) -> tuple[Obj | None, list[Obj]]:
    """Returns (the ReplicaSet of the present template, the others oldest first)."""
    by_age = sorted(replica_sets, key=age)
    new = next((found for found in by_age if same_template(found, deployment)), None)
    return new, [found for found in by_age if found is not new]


def revision(obj: Obj) -> int:
    """The revision number; 0 where there is none."""
    text = annotations_of(obj).get(REVISION, "")
    return int(text) if text.isdigit() else 0


def size_annotations(bounds: Bounds) -> dict[str, str]:
    return {DESIRED_REPLICAS: str(bounds.replicas), MAX_REPLICAS: str(bounds.replicas + bounds.surge)}


def new_annotations(deployment: Obj, replica_set: Obj | None, wanted_revision: int) -> dict[str, str]:
    """Returns the annotations that the new ReplicaSet lacks: the Deployment's own, and a higher revision."""
    present = annotations_of(replica_set) if replica_set is not None else {}
    wanted = {key: value for key, value in annotations_of(deployment).items() if key not in _NOT_COPIED}
    old = revision(replica_set) if replica_set is not None else 0
    if old < wanted_revision:
        wanted[REVISION] = str(wanted_revision)
        if old:
            history = [*filter(None, present.get(REVISION_HISTORY, "").split(",")), str(old)]
            while len(",".join(history)) > _HISTORY_CHARS_MAX:
                history.pop(0)
            wanted[REVISION_HISTORY] = ",".join(history)
    return {key: value for key, value in wanted.items() if present.get(key) != value}


def new_replica_set(deployment: Obj, bounds: Bounds, replicas: int, wanted_revision: int) -> Obj:
    """Returns the ReplicaSet of the Deployment's present template; its name follows from the template alone."""
    template = deployment["spec"]["template"]
    collisions = (deployment.get("status") or {}).get("collisionCount") or 0
    digest = template_hash(template, collisions)
    labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: digest}
    selector = deployment["spec"].get("selector") or {}
    spec: Obj = {
        "replicas": replicas,
        "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH_LABEL: digest}},
        "template": {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}},
    }
    if deployment["spec"].get("minReadySeconds"):
        spec["minReadySeconds"] = deployment["spec"]["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{name(deployment)}-{digest}",
            "namespace": namespace(deployment),
            "labels": labels,
            "annotations": new_annotations(deployment, None, wanted_revision) | size_annotations(bounds),
            "ownerReferences": [controller_reference(deployment, DEPLOYMENTS.api_version, DEPLOYMENTS.kind)],
        },
        "spec": spec,
    }


def count_of(replica_set: Obj) -> Count:
    """Returns a ReplicaSet in numbers."""
    text = annotations_of(replica_set).get(MAX_REPLICAS, "")
    return Count(
        name=name(replica_set),
        replicas=size_of(replica_set),
        available=(replica_set.get("status") or {}).get("availableReplicas") or 0,
        max_before=int(text) if text.isdigit() else 0,
        created=age(replica_set),
    )


def size_of(replica_set: Obj) -> int:
    found: int | None = replica_set["spec"].get("replicas")
    return 1 if found is None else found


def expired(deployment: Obj, old: Sequence[Obj]) -> list[Obj]:
    """Returns the old ReplicaSets beyond the history's limit that are empty and settled, lowest revision first."""
    limit = deployment["spec"].get("revisionHistoryLimit")
    limit = 10 if limit is None else limit
    kept = [found for found in old if not found["metadata"].get("deletionTimestamp")]
    beyond = sorted(kept, key=lambda found: (revision(found), age(found)))[: max(0, len(kept) - limit)]
    return [
        found
        for found in beyond
        if not size_of(found)
        and not (found.get("status") or {}).get("replicas")
        and found["metadata"].get("generation", 0) <= ((found.get("status") or {}).get("observedGeneration") or 0)
    ]
