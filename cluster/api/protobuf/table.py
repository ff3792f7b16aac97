"""The messages by name, their fields parsed when first used.

A field is written `number name type`. Types: `s` string, `i` integer, `b` boolean, `y` bytes, `d` double, a word for
the special cases that `codec` knows, or the name of a message (beginning with a dot: of the same package). Before the
type: `*` repeated, `%` map from strings. After it: `!` the fields stand among the parent's in JSON, `+` a zero is kept,
because the field is required or tells a zero from nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from steersman.cluster.api.protobuf import fields_cluster, fields_core, fields_workloads

_MESSAGES = {**fields_core.MESSAGES, **fields_workloads.MESSAGES, **fields_cluster.MESSAGES}
_SCALARS = {"s", "i", "b", "y", "d"}
#: groups whose protobuf package is not the first part of their name
_PACKAGES = {"rbac.authorization.k8s.io": "rbac", "": "core"}


@dataclass(frozen=True, slots=True)
class Field:
    """Args: type: a scalar's letter, a special word or a message name; inline, keep_zero: as in the table."""

    number: int
    name: str
    type: str
    repeated: bool = False
    mapped: bool = False
    inline: bool = False
    keep_zero: bool = False

    @property
    def is_scalar(self) -> bool:
        return self.type in _SCALARS


@dataclass(frozen=True, slots=True)
class Message:
    name: str
    by_number: dict[int, Field]
    by_name: dict[str, Field]
    inlined: tuple[Field, ...]
    #: names of JSON fields that belong to inlined messages, to the field that holds them
    owners: dict[str, Field]


@cache
def message(name: str) -> Message | None:
    """Returns a message by its full name, as `core.v1.Pod`, or None."""
    text = _MESSAGES.get(name)
    if text is None:
        return None
    package = name.rpartition(".")[0]
    rows = [_field(part, package) for part in text.split(" | ")] if text else []
    inlined = tuple(row for row in rows if row.inline)
    owners: dict[str, Field] = {}
    for row in inlined:
        inner = message(row.type)
        for key in (*inner.by_name, *inner.owners) if inner else ():
            owners[key] = row
    by_name = {row.name: row for row in rows if not row.inline}
    return Message(name, {row.number: row for row in rows}, by_name, inlined, owners)


def _field(text: str, package: str) -> Field:
    number, name, kind = text.split(" ")
    repeated, mapped = kind.startswith("*"), kind.startswith("%")
    kind = kind.lstrip("*%")
    inline, keep = kind.endswith("!"), kind.endswith("+")
    kind = kind.rstrip("!+")
    if kind.startswith("."):
        kind = package + kind
    return Field(int(number), name, kind, repeated, mapped, inline, keep)


def message_of(api_version: str, kind: str) -> Message | None:
    """Returns the message of a kind, or None when it has no protobuf form."""
    group, _, version = api_version.rpartition("/")
    package = _PACKAGES.get(group) or group.partition(".")[0]
    return message(f"{package}.{version}.{kind}") or message(f"meta.v1.{kind}")
