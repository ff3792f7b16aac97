"""What a controller declares: what it watches, how a change maps to keys, how a key is observed and reconciled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from steersman.cluster.control.plan import Plan, Refusal
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """What the controllers are told of their cluster.

    Args:
        cluster_cidr: the range that nodes get their pod ranges from; empty when nodes bring their own.
        node_prefix_length: size of a node's range, as 24.
        root_ca: PEM of the CA that every namespace publishes in `kube-root-ca.crt`; empty for none.
        node_grace_s: how long a node may be silent before it counts as lost.
        terminated_pods_max: finished pods kept in the cluster before the oldest are removed.
    """

    cluster_cidr: str = "10.244.0.0/16"
    node_prefix_length: int = 24
    root_ca: str = ""
    node_grace_s: float = 40.0
    terminated_pods_max: int = 12500


class View(Protocol):
    """Read access to what is watched. Objects are shared: never change one."""

    @property
    def settings(self) -> ControlSettings: ...

    def get(self, resource: Resource, key: str) -> Obj | None: ...
    def all(self, resource: Resource) -> list[Obj]: ...
    def by_index(self, resource: Resource, index: str, value: str) -> list[Obj]:
        """The objects with `value` in one of `indexes.INDEXES` that the controller declared for the resource."""
        ...

    def index_values(self, resource: Resource, index: str) -> list[str]:
        """Every value that some object has in that index."""
        ...

    def unchanged_s(self, resource: Resource, key: str) -> float | None:
        """How long ago this process saw the object change last, in seconds; None for an unknown object."""
        ...

    def resources(self) -> Sequence[Resource]:
        """Every resource that can be listed, watched and deleted, in the server's preferred versions."""
        ...

    def undiscovered(self) -> Sequence[str]:
        """The groups' versions, as `apps/v1`, of which nobody knows at present what there is."""
        ...

    def resource_of(self, api_version: str, kind: str) -> Resource | None:
        """The resource of a kind; None while the server offers no such kind."""
        ...

    def resource_named(self, name: str) -> Resource | None:
        """The resource whose text is `name`, as `deployments.apps`."""
        ...


#: which keys a change of an object touches
Keys = Callable[[Obj, View], Iterable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A resource that a controller reads.

    Args:
        keys: the keys to reconcile when an object changes; called with the object before and the object after.
        indexes: names in `indexes.INDEXES`.
        timed: whether `View.unchanged_s` is asked of this resource.
    """

    resource: Resource
    keys: Keys
    indexes: tuple[str, ...] = ()
    timed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSpec:
    """A controller.

    Args:
        name: as `deployment`.
        observe: collects everything that `reconcile` needs about a key, or None when there is nothing to do.
        reconcile: decides; pure.
        refused: what to do about an action that was refused (events, a condition), beside trying again.
        keys_of_any: where given, every resource of the server is watched, and this maps a change (the object before
            and after) to keys.
        discovers: whether the view's `resources`, `resource_of` or `resource_named` are asked.
        at_start: keys to reconcile when the controller begins, beside those of all objects.
        workers: keys reconciled at the same time.
        interval_s: least time between two reconciliations of one key, which gathers what changes in between.
    """

    name: str
    watches: tuple[Watch, ...]
    observe: Callable[[View, str], Any]
    reconcile: Callable[[Any, float], Plan]
    refused: Callable[[Any, Refusal, float], Plan] | None = None
    discovers: bool = False
    keys_of_any: Callable[[Resource, Obj | None, Obj | None, View], Iterable[str]] | None = None
    at_start: tuple[str, ...] = ()
    workers: int = 8
    interval_s: float = 0.0


def own_key(obj: Obj, view: View) -> Iterable[str]:
    """The object's own key."""
    meta = obj["metadata"]
    return (f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else meta["name"],)


def key_of_controller(kind: str, group: str) -> Keys:
    """The key of the object's controller when it is of this kind."""

    def keys(obj: Obj, view: View) -> Iterable[str]:
        for reference in obj["metadata"].get("ownerReferences") or ():
            if (
                reference.get("controller")
                and reference["kind"] == kind
                and reference["apiVersion"].partition("/")[0] == group
            ):
                return (f"{obj['metadata']['namespace']}/{reference['name']}",)
        return ()

    return keys


#: a registry of names to controllers
Controllers = Mapping[str, ControllerSpec]
