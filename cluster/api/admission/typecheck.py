"""What a validating policy's expressions say that the resources it is about do not have: warnings for its status.

They never change what the policy does. Rules with wildcards are about too much to be checked.

Source: k8s.io/apiserver/pkg/admission/plugin/policy/validating/typechecking.go
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from steersman.cluster.api.admission.names import Names
from steersman.cluster.api.cel import DYN, STRING, CelError, Declarations, Field, ObjectType, Type, list_of, map_of
from steersman.cluster.api.cel import compile as compile_cel
from steersman.cluster.api.cel.schema import escaped
from steersman.cluster.api.cel.types import BOOL, BYTES, DOUBLE, DURATION, INT, TIMESTAMP
from steersman.cluster.api.schema.node import SchemaNode
from steersman.cluster.meta.objects import Obj

if TYPE_CHECKING:
    from steersman.cluster.api.kinds import Registry
    from steersman.cluster.api.row import Kind

#: kinds that one policy is checked against at most
TYPES_MAX = 10
_SCALARS = {"boolean": BOOL, "integer": INT, "number": DOUBLE, "string": STRING}
_FORMATS = {"byte": BYTES, "date": TIMESTAMP, "date-time": TIMESTAMP, "duration": DURATION}


class _Fields(Mapping[str, Field]):
    """The fields of an object, each typed when it is first named: schemas may contain themselves."""

    def __init__(self, node: SchemaNode, name: str) -> None:
        self._node = node
        self._name = name
        self._keys = {shown: key for key in node.properties if (shown := escaped(key)) is not None}

    def __getitem__(self, name: str) -> Field:
        key = self._keys[name]
        return Field(type_of(self._node.properties[key], f"{self._name}.{key}"), key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def type_of(node: SchemaNode, name: str) -> Type:
    """Returns the type of what a schema describes; DYN where it does not say enough.

    Args:
        name: of the type, should it be an object's.
    """
    if node.type == "string":
        return _FORMATS.get(node.format, STRING)
    if node.type == "array":
        return list_of(type_of(node.items, f"{name}.@idx")) if node.items is not None else DYN
    if node.type != "object":
        return _SCALARS.get(node.type, DYN)
    if node.additional is not None:
        return map_of(STRING, type_of(node.additional, f"{name}.@elem"))
    return DYN if node.preserve_unknown else ObjectType(name, fields=_Fields(node, name))


def observe(registry: Registry, policy: Obj) -> None:
    """Writes into a policy's status that it has been checked, and what was found."""
    found = warnings(registry, policy.get("spec") or {})
    checking: Obj = {"expressionWarnings": found} if found else {}
    before = policy.get("status") or {}
    generation = policy["metadata"].get("generation", 1)
    policy["status"] = {**before, "observedGeneration": generation, "typeChecking": checking}


def warnings(registry: Registry, spec: Obj) -> list[Obj]:
    """The `ExpressionWarning`s of a policy's validations."""
    kinds = _kinds(registry, spec)
    found: list[Obj] = []
    if not kinds:
        return found
    scopes = [(kind, _declarations(registry, kind, spec)) for kind in kinds]
    for index, row in enumerate(spec.get("validations") or ()):
        for key in ("expression", "messageExpression"):
            if not (source := row.get(key)):
                continue
            if lines := [line for kind, scope in scopes if (line := _wrong(kind, scope, source))]:
                found.append({"fieldRef": f"spec.validations[{index}].{key}", "warning": "\n".join(lines)})
    return found


def _wrong(kind: Kind, scope: Declarations, source: str) -> str:
    try:
        compile_cel(source, scope)
    except CelError as error:
        resource = kind.resource
        group = f"{resource.group}/{resource.version}" if resource.group else f"/{resource.version}"
        return f"{group}, Kind={resource.kind}: {error}\n"
    return ""


def _kinds(registry: Registry, spec: Obj) -> list[Kind]:
    """The kinds that the rules name, in order, as many as are checked."""
    found: dict[tuple[str, str, str], Kind] = {}
    for rule in (spec.get("matchConstraints") or {}).get("resourceRules") or ():
        groups, versions = rule.get("apiGroups") or (), rule.get("apiVersions") or ()
        if any("*" in text for text in (*groups, *versions)):
            continue
        names = sorted(text for text in rule.get("resources") or () if "*" not in text and "/" not in text)
        for address in (
            (group, version, name) for group in sorted(groups) for version in sorted(versions) for name in names
        ):
            kind = registry.kind(*address)
            if kind is not None and not kind.virtual and len(found) < TYPES_MAX:
                found[kind.resource.group, kind.resource.version, kind.resource.kind] = kind
    return [found[key] for key in sorted(found)]


def _declarations(registry: Registry, kind: Kind, spec: Obj) -> Declarations:
    """What the expressions may name, the policy's variables among it, for objects of one kind."""
    param = spec.get("paramKind") or {}
    params = registry.by_kind(param.get("apiVersion", ""), param.get("kind", "")) if param else None
    own: dict[str, Type] = {key: type_of(registry.schema(kind), kind.resource.kind) for key in ("object", "oldObject")}
    if params is not None:
        own["params"] = type_of(registry.schema(params), params.resource.kind)

    def scope(variables: tuple[tuple[str, Type], ...]) -> Declarations:
        base = Names(params=bool(param), variables=variables).declarations()
        return Declarations(variables={**base.variables, **own}, types=base.types)

    known: tuple[tuple[str, Type], ...] = ()
    for row in spec.get("variables") or ():
        try:
            kind_of_value = compile_cel(row.get("expression", ""), scope(known)).type
        except CelError:
            kind_of_value = DYN
        known = (*known, (row.get("name", ""), kind_of_value))
    return scope(known)
