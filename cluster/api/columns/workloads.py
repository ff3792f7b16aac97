"""Columns of Deployment, ReplicaSet, ReplicationController, StatefulSet, DaemonSet, PodTemplate and
ControllerRevision."""

from __future__ import annotations

from typing import Any

from steersman.cluster.api.columns.column import (
    Age,
    Column,
    Columns,
    Name,
    age,
    container_names_and_images,
    labels_text,
    name,
    selector_text,
    sub,
    wide,
)
from steersman.cluster.meta.objects import Obj, controller_of


def _template(obj: Obj) -> list[str]:
    return container_names_and_images(sub(obj, "spec", "template", "spec"))


def _deployment(obj: Obj, now: float) -> list[Any]:
    spec, status = sub(obj, "spec"), sub(obj, "status")
    return [
        name(obj),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 1)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        age(obj, now),
        *_template(obj),
        selector_text(spec.get("selector")),
    ]


def _replica_set(obj: Obj, now: float) -> list[Any]:
    spec, status = sub(obj, "spec"), sub(obj, "status")
    return [
        name(obj),
        spec.get("replicas", 1),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        age(obj, now),
        *_template(obj),
        selector_text(spec.get("selector")),
    ]


def _replication_controller(obj: Obj, now: float) -> list[Any]:
    return [*_replica_set({**obj, "spec": {**sub(obj, "spec"), "selector": None}}, now)[:-1], _plain_selector(obj)]


def _plain_selector(obj: Obj) -> str:
    return labels_text(sub(obj, "spec").get("selector"))


def _stateful_set(obj: Obj, now: float) -> list[Any]:
    ready = f"{sub(obj, 'status').get('readyReplicas', 0)}/{sub(obj, 'spec').get('replicas', 1)}"
    return [name(obj), ready, age(obj, now), *_template(obj)]


def _daemon_set(obj: Obj, now: float) -> list[Any]:
    spec, status = sub(obj, "spec"), sub(obj, "status")
    return [
        name(obj),
        status.get("desiredNumberScheduled", 0),
        status.get("currentNumberScheduled", 0),
        status.get("numberReady", 0),
        status.get("updatedNumberScheduled", 0),
        status.get("numberAvailable", 0),
        labels_text(sub(spec, "template", "spec").get("nodeSelector")),
        age(obj, now),
        *_template(obj),
        selector_text(spec.get("selector")),
    ]


def _revision(obj: Obj, now: float) -> list[Any]:
    owner = controller_of(obj)
    text = f"{owner['kind'].lower()}.{owner['apiVersion'].partition('/')[0]}/{owner['name']}" if owner else "<none>"
    return [name(obj), text, obj.get("revision", 0), age(obj, now)]


def _pod_template(obj: Obj, now: float) -> list[Any]:
    shown = container_names_and_images(sub(obj, "template", "spec"))
    return [name(obj), *shown, labels_text(sub(obj, "template", "metadata").get("labels"))]


def _numbers(*names: str) -> tuple[Column, ...]:
    return tuple(Column(text, type="integer") for text in names)


_PODS = wide("Containers", "Images")
_REPLICAS = (Name, *_numbers("Desired", "Current", "Ready"), Age, *_PODS, *wide("Selector"))
COLUMNS = {
    ("apps", "Deployment"): Columns(
        (Name, Column("Ready"), Column("Up-to-date"), Column("Available"), Age, *_PODS, *wide("Selector")), _deployment
    ),
    ("apps", "ReplicaSet"): Columns(_REPLICAS, _replica_set),
    ("", "ReplicationController"): Columns(_REPLICAS, _replication_controller),
    ("apps", "StatefulSet"): Columns((Name, Column("Ready"), Age, *_PODS), _stateful_set),
    ("apps", "DaemonSet"): Columns(
        (
            Name,
            *_numbers("Desired", "Current", "Ready", "Up-to-date", "Available"),
            Column("Node Selector"),
            Age,
            *_PODS,
            *wide("Selector"),
        ),
        _daemon_set,
    ),
    ("", "PodTemplate"): Columns((Name, Column("Containers"), Column("Images"), Column("Pod Labels")), _pod_template),
    ("apps", "ControllerRevision"): Columns((Name, Column("Controller"), Column("Revision"), Age), _revision),
}
