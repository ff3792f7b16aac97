"""Lets go of claims, volumes and classes of their attributes that are being deleted, once nothing uses them.

Source: k8s.io/kubernetes/pkg/controller/volume/{pvcprotection,pvprotection,vacprotection} and
https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from steersman.cluster.control import indexes
from steersman.cluster.control.plan import NOTHING_TO_DO, Plan, patch
from steersman.cluster.control.spec import ControllerSpec, View, Watch, own_key
from steersman.cluster.meta.objects import Obj, is_deleting
from steersman.cluster.meta.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    VOLUME_ATTRIBUTES_CLASSES,
    Resource,
)

_FINALIZERS = {
    PERSISTENT_VOLUME_CLAIMS: "kubernetes.io/pvc-protection",
    PERSISTENT_VOLUMES: "kubernetes.io/pv-protection",
    VOLUME_ATTRIBUTES_CLASSES: "kubernetes.io/vac-protection",
}
_WITH_ATTRIBUTES = (PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES)
#: begins the key of a class of attributes, which is named as freely as a volume
_CLASS = ":"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """
    Args:
        obj: a claim, a volume or a class of attributes that is being deleted.
        users: the pods that name the claim; the volumes and claims that name the class.
    """

    resource: Resource
    obj: Obj
    users: tuple[Obj, ...] = ()


def observe(view: View, key: str) -> Observed | None:
    resource = PERSISTENT_VOLUME_CLAIMS if "/" in key else PERSISTENT_VOLUMES
    if key.startswith(_CLASS):
        resource, key = VOLUME_ATTRIBUTES_CLASSES, key.removeprefix(_CLASS)
    obj = view.get(resource, key)
    if obj is None or not is_deleting(obj) or _FINALIZERS[resource] not in (obj["metadata"].get("finalizers") or ()):
        return None
    users: list[Obj] = []
    if resource is PERSISTENT_VOLUME_CLAIMS:
        users = view.by_index(PODS, "claim", key)
    elif resource is VOLUME_ATTRIBUTES_CLASSES:
        users = [row for kind in _WITH_ATTRIBUTES for row in view.by_index(kind, "attributes", key)]
    return Observed(resource=resource, obj=obj, users=tuple(users))


def reconcile(observed: Observed, _now: float) -> Plan:
    in_use = bool(observed.users)
    if observed.resource is PERSISTENT_VOLUME_CLAIMS:
        in_use = any(pod["spec"].get("nodeName") for pod in observed.users)
    elif observed.resource is PERSISTENT_VOLUMES:
        in_use = (observed.obj.get("status") or {}).get("phase") == "Bound"
    if in_use:
        return NOTHING_TO_DO
    mine = _FINALIZERS[observed.resource]
    rest = [row for row in observed.obj["metadata"]["finalizers"] if row != mine]
    return Plan(steps=(patch(observed.resource, observed.obj, {"metadata": {"finalizers": rest or None}}),))


def _claims(pod: Obj, _view: View) -> Iterable[str]:
    return indexes.claim(pod)


def _own_and_class(obj: Obj, view: View) -> Iterable[str]:
    return (*own_key(obj, view), *(f"{_CLASS}{name}" for name in indexes.attributes(obj)))


def _class(obj: Obj, _view: View) -> Iterable[str]:
    return (f"{_CLASS}{obj['metadata']['name']}",)


VOLUME_PROTECTION = ControllerSpec(
    name="volume-protection",
    watches=(
        *(Watch(resource=resource, keys=_own_and_class, indexes=("attributes",)) for resource in _WITH_ATTRIBUTES),
        Watch(resource=VOLUME_ATTRIBUTES_CLASSES, keys=_class),
        Watch(resource=PODS, keys=_claims, indexes=("claim",)),
    ),
    observe=observe,
    reconcile=reconcile,
    workers=2,
)
