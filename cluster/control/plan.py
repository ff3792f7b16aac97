"""What a controller may decide: checks, writes and events as values, carried out in one place by the controller host.

A plan is carried out step by step. A step is one action, or a `Batch` of independent ones. The first check that does
not hold, or write that is refused, ends the plan; its key is reconciled again from what is observed then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from steersman.cluster.meta.objects import Obj, name, namespace, uid
from steersman.cluster.meta.resources import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Creates an object; one of that name that exists already is taken as created when `owner_uid` controls it.

    Args:
        owner_uid: the controller's own uid; empty where an existing object of that name will do, whoever made it.
    """

    resource: Resource
    obj: Obj
    owner_uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """Merges `patch` into an object, if it still is the one of `uid` (and of `resource_version`, when given)."""

    resource: Resource
    namespace: str
    name: str
    patch: Mapping[str, Any]
    uid: str = ""
    resource_version: str = ""
    subresource: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    """Writes the whole object; its `resourceVersion` is the precondition."""

    resource: Resource
    obj: Obj
    subresource: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Deletes the object of that name and uid; one that is gone already is a success.

    Args:
        resource_version: delete only this very version.
        grace_s: None for the object's own grace period.
    """

    resource: Resource
    namespace: str
    name: str
    uid: str
    resource_version: str = ""
    propagation: Literal["", "Background", "Foreground", "Orphan"] = ""
    grace_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteCollection:
    """Deletes everything of a kind in a namespace."""

    resource: Resource
    namespace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectGone:
    """Checks with the API server itself that the object of that uid does not exist; without a uid, that none does."""

    resource: Resource
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectAlive:
    """Checks with the API server itself that the object of that uid exists and is not being deleted."""

    resource: Resource
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectEmpty:
    """Checks with the API server itself that a namespace holds nothing of a kind."""

    resource: Resource
    namespace: str


Action = Create | Patch | Replace | Delete | DeleteCollection | ExpectGone | ExpectAlive | ExpectEmpty


@dataclass(frozen=True, slots=True)
class Batch:
    """Independent actions: 1, then 2, 4, 8 … at once, so that a refusal that would meet all is met few times."""

    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """What users are told of an object. Args: type: `Normal` or `Warning`."""

    obj: Obj
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done about a key now.

    Args:
        steps: in order.
        requeue_after_s: look again after so long even if nothing changes; None for not.
        events: told once every step has succeeded.
    """

    steps: tuple[Action | Batch, ...] = ()
    requeue_after_s: float | None = None
    events: tuple[Event, ...] = ()

    @property
    def actions(self) -> list[Action]:
        """Every action, batches unfolded."""
        found: list[Action] = []
        for step in self.steps:
            found += step.actions if isinstance(step, Batch) else (step,)
        return found


NOTHING_TO_DO = Plan()


@dataclass(frozen=True, slots=True)
class Refusal:
    """An action that the API server refused. Args: reason, message: of the answered `Status`."""

    action: Action
    reason: str
    message: str


@dataclass(slots=True)
class Draft:
    """A plan in the making."""

    steps: list[Action | Batch] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    requeue_after_s: float | None = None

    def add(self, *steps: Action | Batch | None) -> None:
        self.steps += [step for step in steps if step is not None]

    def tell(self, obj: Obj, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self.events.append(Event(obj, type_, reason, message))

    def look_again(self, after_s: float | None) -> None:
        """Keeps the soonest of the wanted delays."""
        if after_s is not None and (self.requeue_after_s is None or after_s < self.requeue_after_s):
            self.requeue_after_s = max(0.0, after_s)

    def done(self) -> Plan:
        return Plan(steps=tuple(self.steps), events=tuple(self.events), requeue_after_s=self.requeue_after_s)


def patch(
    resource: Resource, obj: Obj, changes: Mapping[str, Any], *, subresource: str = "", exact: bool = True
) -> Patch:
    """Returns the patch of an observed object; with `exact` it holds for this very version only."""
    return Patch(
        resource=resource,
        namespace=namespace(obj),
        name=name(obj),
        patch=changes,
        uid=uid(obj),
        resource_version=obj["metadata"].get("resourceVersion", "") if exact else "",
        subresource=subresource,
    )


def merge_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the merge patch that turns `old` into `new`: inner maps field by field, what is gone as null."""
    changes: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            changes[key] = value
        elif isinstance(value, Mapping) and isinstance(old[key], Mapping):
            if inner := merge_difference(old[key], value):
                changes[key] = inner
        elif old[key] != value:
            changes[key] = value
    return changes


def status_patch(resource: Resource, obj: Obj, status: Obj, *, exact: bool = False) -> Patch | None:
    """Returns the patch that makes `status` the object's status, or None when it is already."""
    changes = merge_difference(obj.get("status") or {}, status)
    return patch(resource, obj, {"status": changes}, subresource="status", exact=exact) if changes else None


def delete(resource: Resource, obj: Obj, **how: Any) -> Delete:
    """Returns the deletion of an observed object."""
    return Delete(resource=resource, namespace=namespace(obj), name=name(obj), uid=uid(obj), **how)
