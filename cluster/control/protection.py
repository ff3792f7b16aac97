"""Lets go of claims and volumes that are being deleted, once no pod on a node and no bound claim uses them.

Source: k8s.io/kubernetes/pkg/controller/volume/{pvcprotection,pvprotection} and
https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from steersman.cluster.control import indexes
from steersman.cluster.control.plan import NOTHING_TO_DO, Plan, patch
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.objects import Obj, is_deleting
from steersman.cluster.meta.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, Resource

_FINALIZERS = {
    PERSISTENT_VOLUME_CLAIMS: "kubernetes.io/pvc-protection",
    PERSISTENT_VOLUMES: "kubernetes.io/pv-protection",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Args: obj: a claim or a volume that is being deleted; users: the pods that name the claim."""

    resource: Resource
    obj: Obj
    users: tuple[Obj, ...] = ()


def observe(view: View, key: str) -> Observed | None:
    resource = PERSISTENT_VOLUME_CLAIMS if "/" in key else PERSISTENT_VOLUMES
    obj = view.get(resource, key)
    if obj is None or not is_deleting(obj) or _FINALIZERS[resource] not in (obj["metadata"].get("finalizers") or ()):
        return None
    users = view.by_index(PODS, "claim", key) if resource is PERSISTENT_VOLUME_CLAIMS else ()
    return Observed(resource=resource, obj=obj, users=tuple(users))


def reconcile(observed: Observed, _now: float) -> Plan:
    in_use = any(pod["spec"].get("nodeName") for pod in observed.users)
    if observed.resource is PERSISTENT_VOLUMES:
        in_use = (observed.obj.get("status") or {}).get("phase") == "Bound"
    if in_use:
        return NOTHING_TO_DO
    mine = _FINALIZERS[observed.resource]
    rest = [row for row in observed.obj["metadata"]["finalizers"] if row != mine]
    return Plan(steps=(patch(observed.resource, observed.obj, {"metadata": {"finalizers": rest or None}}),))


def _claims(pod: Obj, _view: View) -> Iterable[str]:
    return indexes.claim(pod)


VOLUME_PROTECTION = ControllerSpec(
    name="volume-protection",
    watches=(
        Watch(resource=PERSISTENT_VOLUME_CLAIMS, keys=own_key),
        Watch(resource=PERSISTENT_VOLUMES, keys=own_key),
        Watch(resource=PODS, keys=_claims, indexes=("claim",)),
    ),
    observe=observe,
    reconcile=reconcile,
    workers=2,
)
