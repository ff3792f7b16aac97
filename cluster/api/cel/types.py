"""The types of expressions: what a declaration says of a variable, and what the checker finds of every part.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#values
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Type:
    """A type.

    Args:
        name: `int`, `list`, `kubernetes.Quantity`, the name of an object, ...; one capital letter is a parameter of a
            signature, `_var` with a number one that stands for a type not known yet.
        params: of lists, maps, optionals and types.
        unordered: of a list: None, `set` or the names of its keys (`x-kubernetes-list-type`), as equality sees it.
        size_max: most items, characters or entries there can be; None when nobody knows. For the estimate of cost.
    """

    name: str
    params: tuple[Type, ...] = ()
    unordered: tuple[str, ...] | None = field(default=None, compare=False)
    size_max: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        if not self.params:
            return _SHOWN.get(self.name, self.name)
        return f"{self.name}({', '.join(map(str, self.params))})"

    @property
    def is_param(self) -> bool:
        return (len(self.name) == 1 and self.name.isupper()) or self.name.startswith("_var")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an object: its type, and its name in the JSON tree where that is no identifier."""

    type: Type
    key: str


@dataclass(frozen=True, slots=True)
class ObjectType(Type):
    """An object with known fields; two are the same when their names are.

    Args:
        fields: by the name that expressions use.
    """

    fields: Mapping[str, Field] = field(default_factory=dict, compare=False)

    __hash__ = Type.__hash__


_SHOWN = {"null_type": "null"}

DYN = Type("dyn")
ERROR = Type("!error!")
BOOL = Type("bool")
INT = Type("int")
UINT = Type("uint")
DOUBLE = Type("double")
STRING = Type("string")
BYTES = Type("bytes")
NULL = Type("null_type")
TIMESTAMP = Type("timestamp")
DURATION = Type("duration")
#: the types whose names are expressions themselves
NAMED = {
    **{kind.name: kind for kind in (BOOL, INT, UINT, DOUBLE, STRING, BYTES, NULL)},
    "list": Type("list", (DYN,)),
    "map": Type("map", (DYN, DYN)),
    "type": Type("type"),
    "google.protobuf.Timestamp": TIMESTAMP,
    "google.protobuf.Duration": DURATION,
    "optional_type": Type("optional_type", (DYN,)),
}


def list_of(item: Type) -> Type:
    return Type("list", (item,))


def map_of(key: Type, value: Type) -> Type:
    return Type("map", (key, value))


def optional_of(value: Type) -> Type:
    return Type("optional_type", (value,))


def type_of(value: Type) -> Type:
    return Type("type", (value,))


def is_dyn(kind: Type) -> bool:
    return kind.name in ("dyn", "!error!")


@lru_cache(maxsize=1024)
def parse_type(text: str) -> Type:
    """Reads a type as signatures have it: `map(string, list(A))`."""
    name, _, rest = text.strip().partition("(")
    return Type(name, tuple(parse_type(part) for part in split_types(rest[:-1]))) if rest else Type(name)


def param_names(kind: Type) -> tuple[str, ...]:
    """The names of the parameters in a type."""
    return (kind.name,) if kind.is_param else tuple(name for part in kind.params for name in param_names(part))


def split_types(text: str) -> list[str]:
    """Parts a list of types at its commas, outside parentheses."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and not depth:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def assign(wanted: Type, found: Type, bound: dict[str, Type]) -> bool:
    """Whether a value of type `found` can be used where `wanted` is; both may have parameters.

    Args:
        bound: what the parameters met so far stand for; grows where the types fit.

    Source: github.com/google/cel-go/checker/types.go
    """
    trial = dict(bound)
    if not fits(wanted, found, trial):
        return False
    bound.update(trial)
    return True


def fits(wanted: Type, found: Type, bound: dict[str, Type]) -> bool:
    """As `assign`, where nobody needs what parameters stood for before in case that the types do not fit."""
    if wanted.is_param:
        can, is_known = _stands_for(found, wanted, bound)
        if can or is_known:
            return can
    if found.is_param:
        return _stands_for(wanted, found, bound)[0]
    if wanted is found or is_dyn(wanted) or is_dyn(found):
        return True
    if found.name == "null_type" or wanted.name == "null_type":
        return found.name == wanted.name or _takes_null(wanted) or _takes_null(found)
    if wanted.name == "type" and found.name == "type":
        return True
    return (
        wanted.name == found.name
        and len(wanted.params) == len(found.params)
        and all(fits(a, b, bound) for a, b in zip(wanted.params, found.params, strict=True))
    )


def _stands_for(kind: Type, param: Type, bound: dict[str, Type]) -> tuple[bool, bool]:
    """Whether a parameter can stand for a type, and whether it stood for one already."""
    known = bound.get(param.name)
    if param in (kind, known):
        return True, True
    if known is not None:
        if not fits(kind, known, bound):
            return False, True
        kind = general(known, kind)
    if not _refers(kind, param, bound):
        bound[param.name] = kind
        return True, known is not None
    return known is not None, known is not None


def _refers(kind: Type, param: Type, bound: Mapping[str, Type]) -> bool:
    """Whether a parameter is a part of a type."""
    if kind == param:
        return True
    if kind.is_param:
        return kind.name in bound and _refers(bound[kind.name], param, bound)
    return any(_refers(part, param, bound) for part in kind.params)


def general(one: Type, other: Type) -> Type:
    """The type of what is of one of two types that fit each other: where one is not known, the other does not help."""
    if is_dyn(one) or is_dyn(other):
        return DYN
    if one.is_param or other.is_param:
        return one if one.is_param else other
    if one.name == "null_type":
        return other
    if len(one.params) != len(other.params):
        return Type(one.name)
    if one.params and one.name == other.name and one.params != other.params:
        params = tuple(general(a, b) for a, b in zip(one.params, other.params, strict=True))
        return Type(one.name, params, one.unordered, one.size_max)
    return one


def resolve(kind: Type, bound: Mapping[str, Type], *, free: bool = False) -> Type:
    """The type with its parameters replaced.

    Args:
        free: whether a parameter that stands for nothing stays one; otherwise it becomes `dyn`.
    """
    if kind.is_param:
        known = bound.get(kind.name)
        return resolve(known, bound, free=free) if known is not None else kind if free else DYN
    if not kind.params:
        return kind
    params = tuple(resolve(item, bound, free=free) for item in kind.params)
    return kind if params == kind.params else Type(kind.name, params, kind.unordered, kind.size_max)


def _takes_null(kind: Type) -> bool:
    return isinstance(kind, ObjectType) or kind.name in ("timestamp", "duration") or "." in kind.name
