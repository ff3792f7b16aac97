"""Questions of access: `authorizer.group('').resource('pods').namespace('a').check('create').allowed()`.

Who decides is a function that the caller gives; it is asked once per `check`.

Source: k8s.io/apiserver/pkg/cel/library/authz.go
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from steersman.cluster.api.cel.overload import method
from steersman.cluster.api.cel.types import Type
from steersman.cluster.api.cel.values import Opaque


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: a path, or a resource.

    Args:
        service_account: (namespace, name) when not the request's own user is meant.
    """

    verb: str = ""
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    field_selector: str = ""
    label_selector: str = ""
    service_account: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Opaque):
    """The answer; `error` is empty unless the authorizer failed."""

    type: ClassVar[Type] = Type("kubernetes.authorization.Decision")
    allowed: bool
    reason: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Authorizer(Opaque):
    """The value of the variable `authorizer`."""

    type: ClassVar[Type] = Type("kubernetes.authorization.Authorizer")
    ask: Callable[[Question], Decision]
    question: Question = Question()


class PathCheck(Authorizer):
    __slots__ = ()
    type: ClassVar[Type] = Type("kubernetes.authorization.PathCheck")


class GroupCheck(Authorizer):
    __slots__ = ()
    type: ClassVar[Type] = Type("kubernetes.authorization.GroupCheck")


class ResourceCheck(Authorizer):
    """The value of the variable `authorizer.requestResource`, too."""

    __slots__ = ()
    type: ClassVar[Type] = Type("kubernetes.authorization.ResourceCheck")


def _narrowed(kind: type[Authorizer], key: str) -> Callable[[Authorizer, str], Authorizer]:
    def narrow(check: Authorizer, text: str) -> Authorizer:
        changes: dict[str, Any] = {key: text}
        return kind(check.ask, replace(check.question, **changes))

    return narrow


def _as_account(check: Authorizer, namespace: str, name: str) -> Authorizer:
    return Authorizer(check.ask, replace(check.question, service_account=(namespace, name)))


def _check(check: Authorizer, verb: str) -> Decision:
    return check.ask(replace(check.question, verb=verb))


_PREFIX = "kubernetes.authorization."
_A, _P, _G, _R, _D = (
    f"{_PREFIX}{name}" for name in ("Authorizer", "PathCheck", "GroupCheck", "ResourceCheck", "Decision")
)
#: asking costs as much as many comparisons
_ASKING = 350_000
FUNCTIONS = (
    method("path", f"{_A}, string -> {_P}", _narrowed(PathCheck, "path")),
    method("group", f"{_A}, string -> {_G}", _narrowed(GroupCheck, "group")),
    method("serviceAccount", f"{_A}, string, string -> {_A}", _as_account),
    method("resource", f"{_G}, string -> {_R}", _narrowed(ResourceCheck, "resource")),
    method("subresource", f"{_R}, string -> {_R}", _narrowed(ResourceCheck, "subresource")),
    method("namespace", f"{_R}, string -> {_R}", _narrowed(ResourceCheck, "namespace")),
    method("name", f"{_R}, string -> {_R}", _narrowed(ResourceCheck, "name")),
    method("fieldSelector", f"{_R}, string -> {_R}", _narrowed(ResourceCheck, "field_selector")),
    method("labelSelector", f"{_R}, string -> {_R}", _narrowed(ResourceCheck, "label_selector")),
    *(method("check", f"{kind}, string -> {_D}", _check, lambda _sizes: _ASKING) for kind in (_P, _R)),
    method("allowed", f"{_D} -> bool", lambda decision: decision.allowed),
    method("reason", f"{_D} -> string", lambda decision: decision.reason),
    method("errored", f"{_D} -> bool", lambda decision: bool(decision.error)),
    method("error", f"{_D} -> string", lambda decision: decision.error),
)
