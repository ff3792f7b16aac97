"""Decisions that look at an object in several versions of its kind, when only a webhook can convert it.

Who owns what is written down in the version of each writer and compared there. The decision stays a plain function: it
is made again with what the webhook has said meanwhile, until it needs no other version any more.

Source: k8s.io/apimachinery/pkg/util/managedfields/internal/versionconverter.go
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import orjson

from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.api.schema.node import SchemaNode
from steersman.cluster.api.ssa import Versions
from steersman.cluster.api.steps import Steps
from steersman.cluster.meta.objects import Obj

T = TypeVar("T")


class _Unconverted(Exception):
    """An object that the decision needs in another version."""

    def __init__(self, obj: Obj, key: tuple[str, bytes]) -> None:
        self.obj, self.key = obj, key


def in_versions(
    registry: Registry, kind: Kind, new_uid: Callable[[], str], decide: Callable[[Versions], T]
) -> Steps[T]:
    """Returns what is decided, given the other versions of a kind.

    Args:
        new_uid: names a call of the webhook.

    Raises:
        ConversionFailed: the webhook does not convert.
    """
    if kind.converter is None:
        return decide(partial(registry.in_version, kind))
    known: Known = {}
    other = partial(_version, registry, kind, known)
    while True:
        try:
            return decide(other)
        except _Unconverted as wanted:
            obj, key = wanted.obj, wanted.key
        known[key] = yield from kind.converter.convert(obj, key[0], new_uid())


Known = dict[tuple[str, bytes], Obj]
Convert = Callable[[Obj], Obj]


def _version(
    registry: Registry, kind: Kind, known: Known, api_version: str
) -> tuple[SchemaNode, Convert, Convert] | None:
    found = registry.in_version(kind, api_version)
    if found is None:
        return None
    schema, there, back = found
    return schema, _converted(known, api_version, there), _converted(known, kind.api_version, back)


def _converted(known: Known, target: str, served: Convert) -> Convert:
    """Turns an object into another version, if the webhook has been asked for it already."""

    def convert(obj: Obj) -> Obj:
        bare = {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "managedFields"}}
        key = (target, orjson.dumps(bare))
        if key not in known:
            raise _Unconverted(bare, key)
        return served(known[key])

    return convert
