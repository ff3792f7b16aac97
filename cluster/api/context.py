"""What a write is told and what it answers: the values between the API server's shell and the write pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Struct

from steersman.cluster.api.admission.settings import AdmissionSettings
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import Resource

if TYPE_CHECKING:
    from steersman.cluster.api.admission.hooks import Hooks
    from steersman.cluster.api.cel import Decision, Question
    from steersman.cluster.api.row import Kind


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ApiSettings:
    """The cluster's own figures; one of them is like no other.

    Args:
        service_cidr: where cluster IPs come from, as `10.96.0.0/16`.
        node_port_range: first and last node port, both included.
        plugins, plugins_off: admission plugins that are on beside the usual ones, and those that are off.
        admission: what the plugins are told.
        default_toleration_s: how long a pod stays on a node that is not ready or not reachable.
    """

    service_cidr: str = "10.96.0.0/16"
    node_port_range: tuple[int, int] = (30000, 32767)
    cluster_domain: str = "cluster.local"
    default_toleration_s: int = 300
    plugins: frozenset[str] = frozenset()
    plugins_off: frozenset[str] = frozenset()
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)


_USUAL = ApiSettings()


class Lookup(Protocol):
    """Finds one object by address, from a cache that may lag; None when there is none."""

    def __call__(self, resource: Resource, namespace: str, name: str, /) -> Obj | None: ...


class Listing(Protocol):
    """The objects of a kind, in one namespace or (None) in all, from a cache that may lag."""

    def __call__(self, resource: Resource, namespace: str | None, /) -> Iterable[Obj]: ...


def _nobody_decides(_question: Question) -> Decision:
    raise LookupError("there is no authorizer to ask")


class WriteContext(Struct, frozen=True, kw_only=True):
    """Everything a write may depend on beside the objects themselves.

    Args:
        now: Unix seconds.
        new_uid: a fresh UUID; random_suffix: five characters for `generateName`.
        user, groups, user_uid, user_extra: who asks.
        field_manager: whose fields these become; empty means the first word of the user agent was unknown.
        field_validation: `Strict`, `Warn` or `Ignore`.
        dry_run: nothing is going to be stored.
        lookup, list: other objects; what they return is shared and must not be changed.
        hooks: the webhooks and policies that are configured; None when there are none.
        authorize: whether the one who asks may do something.
        by_kind: the row of an apiVersion and kind; None when there is none.
        warn: takes a sentence for the client; annotate: takes a key and a value for the audit log; annotate_object: for
            one that holds objects, as it would tell what is in them. All may be told the same again when the write is
            decided again.
    """

    now: float
    new_uid: Callable[[], str]
    random_suffix: Callable[[], str]
    user: str = ""
    groups: tuple[str, ...] = ()
    user_uid: str = ""
    user_extra: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    field_manager: str = ""
    field_validation: str = "Warn"
    dry_run: bool = False
    lookup: Lookup = lambda _resource, _namespace, _name: None
    list: Listing = lambda _resource, _namespace: ()
    settings: ApiSettings = msgspec.field(default_factory=lambda: _USUAL)
    hooks: Hooks | None = None
    authorize: Callable[[Question], Decision] = _nobody_decides
    by_kind: Callable[[str, str], Kind | None] = lambda _version, _kind: None
    warn: Callable[[str], None] = lambda _text: None
    annotate: Callable[[str, str], None] = lambda _key, _value: None
    annotate_object: Callable[[str, str], None] = lambda _key, _value: None


class Written(Struct, frozen=True, kw_only=True):
    """What to store.

    Args:
        obj: the object to put, without a new resourceVersion (the store gives it).
        warnings: texts for `Warning` headers.
        reservations: store keys that must not exist and are to be created with the object, and the objects that are to
            stand there, if any (service addresses and node ports); when one exists, run the write again on fresh state.
        releases: reservation keys to delete with the write.
        changed: False when nothing would change: store nothing, answer with the old object.
        remove: the write took the last finalizer off an object being deleted: delete it instead of putting it.
    """

    obj: Obj
    warnings: tuple[str, ...] = ()
    reservations: Mapping[str, Obj | None] = msgspec.field(default_factory=dict)
    releases: tuple[str, ...] = ()
    changed: bool = True
    remove: bool = False


class Deletion(Struct, frozen=True, kw_only=True):
    """What a delete comes to.

    Args:
        remove: delete the key now; otherwise put `obj`, which is marked as being deleted.
        obj: the object as the answer shows it.
        releases: reservation keys to delete with it, when `remove`.
        changed: False when it was already marked: nothing to store.
    """

    remove: bool
    obj: Obj
    releases: tuple[str, ...] = ()
    changed: bool = True
    warnings: tuple[str, ...] = ()
