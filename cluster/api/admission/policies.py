"""Policies and their bindings, compiled: which of them concern an attempt, and with which parameters.

Source: k8s.io/apiserver/pkg/admission/plugin/policy/{generic,matching}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from steersman.cluster.api.admission.attempt import Attempt
from steersman.cluster.api.admission.expressions import Conditions
from steersman.cluster.api.admission.matching import Match
from steersman.cluster.api.admission.names import Expression, Names, compiled_variables
from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.errors import ApiError, not_found
from steersman.cluster.meta.objects import Obj, labels_of
from steersman.cluster.meta.resources import NAMESPACES
from steersman.cluster.meta.selectors import from_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What puts a policy into force.

    Args:
        match: where, on top of the policy's own; None for everywhere.
        param_ref: of the objects that the policy is evaluated with.
        actions: `Deny`, `Warn`, `Audit`: what follows of a failed validation.
    """

    name: str
    match: Match | None
    param_ref: Obj | None
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What policies of both sorts have.

    Args:
        variables: by name, in order.
        names: what the expressions after the variables may name.
        param_kind: apiVersion and kind of its parameters.
        spec: the whole of it, for what only one sort has.
    """

    name: str
    match: Match
    conditions: Conditions
    variables: Mapping[str, Expression]
    names: Names
    ignores_failure: bool
    param_kind: tuple[str, str] | None
    bindings: tuple[Binding, ...]
    spec: Obj


class Misconfigured(Exception):
    """A policy that cannot be evaluated as it is configured."""


def compile_policies(policies: Iterable[Obj], bindings: Iterable[Obj], *, makes: bool) -> Iterator[Policy]:
    """Compiles policies in order of their names; those without a binding are not in force.

    Args:
        makes: whether their expressions make objects.
    """
    bound: dict[str, list[Binding]] = {}
    for obj in sorted(bindings, key=lambda obj: str(obj["metadata"]["name"])):
        spec = obj.get("spec") or {}
        bound.setdefault(spec.get("policyName", ""), []).append(_binding(obj["metadata"]["name"], spec))
    for obj in sorted(policies, key=lambda obj: str(obj["metadata"]["name"])):
        name = obj["metadata"]["name"]
        if name in bound:
            yield _policy(name, obj.get("spec") or {}, tuple(bound[name]), makes)


def _binding(name: str, spec: Obj) -> Binding:
    rows = spec.get("matchResources")
    return Binding(
        name=name, match=None if rows is None else _match(rows), param_ref=spec.get("paramRef"),
        actions=tuple(spec.get("validationActions") or ()),
    )  # fmt: skip


def _match(row: Mapping[str, Any]) -> Match:
    return Match.of(row, row.get("resourceRules") or (), row.get("excludeResourceRules") or (), everything=True)


def _policy(name: str, spec: Obj, bindings: tuple[Binding, ...], makes: bool) -> Policy:
    kind = spec.get("paramKind")
    params = kind is not None
    variables, names = compiled_variables(spec, makes=makes)
    ignores = spec.get("failurePolicy") == "Ignore"
    return Policy(
        name=name,
        match=_match(spec.get("matchConstraints") or {}),
        conditions=Conditions.of(spec.get("matchConditions") or (), ignores, Names(params=params)),
        variables=variables,
        names=names,
        ignores_failure=ignores,
        param_kind=None if kind is None else (kind.get("apiVersion", ""), kind.get("kind", "")),
        bindings=bindings,
        spec=spec,
    )


def concerned(policy: Policy, binding: Binding, registry: Registry, attempt: Attempt, ctx: WriteContext) -> bool:
    """Whether a binding puts its policy into force for an attempt; raises Misconfigured."""
    try:
        return binding.match is None or binding.match.kind(registry, attempt, ctx) is not None
    except ApiError as error:
        raise Misconfigured(str(error)) from None


def shown_kind(policy: Policy, registry: Registry, attempt: Attempt, ctx: WriteContext) -> Kind | None:
    """As which kind a policy sees an attempt; None when it is none of its business. Raises Misconfigured."""
    try:
        return policy.match.kind(registry, attempt, ctx)
    except ApiError as error:
        raise Misconfigured(str(error)) from None


def param_resource(policy: Policy, registry: Registry) -> Kind | None:
    """The kind of a policy's parameters; raises Misconfigured when it is not known."""
    if policy.param_kind is None:
        return None
    kind = registry.by_kind(*policy.param_kind)
    if kind is None:
        version, name = policy.param_kind
        raise Misconfigured(f"failed to find resource referenced by paramKind: '{version}, Kind={name}'")
    return kind


def params_of(kind: Kind | None, reference: Obj | None, attempt: Attempt, ctx: WriteContext) -> list[Obj | None]:
    """The parameters that a binding names: the policy is evaluated once with each.

    Raises:
        Misconfigured: there are none, and that is not allowed; or the reference makes no sense here.
    """
    if kind is None or reference is None:
        return [None]
    resource, wanted = kind.resource, reference.get("namespace") or ""
    namespace = wanted
    if resource.namespaced:
        namespace = namespace or attempt.namespace
        if not namespace:
            raise Misconfigured(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
            )
    elif wanted:
        raise Misconfigured("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
    found: list[Obj | None]
    if name := reference.get("name"):
        one = ctx.lookup(resource, namespace, name)
        found = [] if one is None else [one]
    elif (selector := reference.get("selector")) is not None:
        chosen = from_dict(selector)
        found = [obj for obj in ctx.list(resource, namespace or None) if chosen.matches(labels_of(obj))]
    else:
        raise Misconfigured("one of name or selector must be provided")
    if not found and reference.get("parameterNotFoundAction") == "Deny":
        raise Misconfigured("no params found for policy binding with `Deny` parameterNotFoundAction")
    return found


def namespace_of(attempt: Attempt, ctx: WriteContext) -> Obj | None:
    """The Namespace that an attempt is in; raises NotFound."""
    if not attempt.namespace or attempt.resource == ("", "namespaces"):
        return None
    found = ctx.lookup(NAMESPACES, "", attempt.namespace)
    if found is None:
        raise not_found("namespaces", attempt.namespace)
    return found
