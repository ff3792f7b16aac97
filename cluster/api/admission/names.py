"""What the expressions of policies and of webhooks' match conditions may name, and their compilation.

Source: k8s.io/apiserver/pkg/admission/plugin/cel/{compile,composition}.go and .../policy/mutating
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from steersman.cluster.api.cel import (
    BOOL,
    DYN,
    STRING,
    Authorizer,
    CelError,
    Declarations,
    Field,
    ObjectType,
    Program,
    ResourceCheck,
    Type,
    list_of,
    map_of,
)
from steersman.cluster.api.cel import compile as compile_cel
from steersman.cluster.api.cel.types import INT, TIMESTAMP
from steersman.cluster.meta.objects import Obj


def _object(name: str, /, **fields: Type) -> ObjectType:
    return ObjectType(name, fields={key: Field(kind, key) for key, kind in fields.items()})


_GVK = _object("kubernetes.GroupVersionKind", group=STRING, version=STRING, kind=STRING)
_GVR = _object("kubernetes.GroupVersionResource", group=STRING, version=STRING, resource=STRING)
_USER = _object(
    "kubernetes.UserInfo", username=STRING, uid=STRING, groups=list_of(STRING), extra=map_of(STRING, list_of(STRING))
)
_REQUEST = _object(
    "kubernetes.AdmissionRequest", kind=_GVK, resource=_GVR, subResource=STRING, requestKind=_GVK,
    requestResource=_GVR, requestSubResource=STRING, name=STRING, namespace=STRING, operation=STRING, userInfo=_USER,
    dryRun=BOOL, options=DYN,
)  # fmt: skip
_NAMESPACE = _object(
    "kubernetes.Namespace",
    metadata=_object(
        "kubernetes.NamespaceMetadata", name=STRING, generateName=STRING, namespace=STRING,
        labels=map_of(STRING, STRING), annotations=map_of(STRING, STRING), UID=STRING, creationTimestamp=TIMESTAMP,
        deletionGracePeriodSeconds=INT, deletionTimestamp=TIMESTAMP, generation=INT, resourceVersion=STRING,
        finalizers=list_of(STRING),
    ),
    spec=_object("kubernetes.NamespaceSpec", finalizers=list_of(STRING)),
    status=_object("kubernetes.NamespaceStatus", phase=STRING),
)  # fmt: skip
_PATCH = _object("JSONPatch", op=STRING, path=STRING, value=DYN, **{"from": STRING})
_BASE: dict[str, Type] = {"object": DYN, "oldObject": DYN, "request": _REQUEST}
_ASKING = {"authorizer": Authorizer.type, "authorizer.requestResource": ResourceCheck.type}


class _AnyFields(Mapping[str, Field]):
    """The fields of an object whose schema does not matter: every name is one, of any type."""

    def __getitem__(self, name: str) -> Field:
        return Field(DYN, name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class _Makeable(Mapping[str, ObjectType]):
    """The types of objects that a mutation makes: `Object`, `Object.spec`, ... and `JSONPatch`."""

    def __getitem__(self, name: str) -> ObjectType:
        if name == _PATCH.name:
            return _PATCH
        if name == "Object" or name.startswith("Object."):
            return ObjectType(name, fields=_AnyFields())
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter((_PATCH.name, "Object"))

    def __len__(self) -> int:
        return 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What an expression may name.

    Args:
        params: whether there are parameters; authorizer: whether access may be asked about.
        policy: it is one of a policy, not of a webhook: it knows the namespace and variables.
        makes: it makes objects or patches.
        variables: (name, type) of those declared before it.
    """

    params: bool = False
    authorizer: bool = True
    policy: bool = True
    makes: bool = False
    variables: tuple[tuple[str, Type], ...] = ()

    def declarations(self) -> Declarations:
        found = {**_BASE, **(_ASKING if self.authorizer else {})}
        if self.params:
            found["params"] = DYN
        if self.policy:
            found["namespaceObject"] = _NAMESPACE
            found["variables"] = _object("kubernetes.variables", **dict(self.variables))
        return Declarations(variables=found, types=_Makeable() if self.makes else {})


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that may fail to compile; then every evaluation fails with that."""

    source: str
    program: Program | None
    failure: str = ""

    @property
    def type(self) -> Type:
        return self.program.type if self.program is not None else DYN


@lru_cache(maxsize=4096)
def expression(source: str, names: Names) -> Expression:
    """Compiles an expression; the same source is compiled once."""
    try:
        return Expression(source, compile_cel(source, names.declarations()))
    except CelError as error:
        return Expression(source, None, f"compilation error: {error}")


def compiled_variables(spec: Obj, *, makes: bool) -> tuple[dict[str, Expression], Names]:
    """The variables of a policy, each knowing those before it, and what the expressions after them may name."""
    params = spec.get("paramKind") is not None
    found: dict[str, Expression] = {}
    names = Names(params=params, makes=makes)
    for row in spec.get("variables") or ():
        name = row.get("name", "")
        made = found[name] = expression(row.get("expression", ""), names)
        names = Names(params=params, makes=makes, variables=(*names.variables, (name, made.type)))
    return found, names
