"""Which operations a webhook or policy is asked about: rules, selectors, and equal resources of other versions.

Source: k8s.io/apiserver/pkg/admission/plugin/webhook/predicates and .../generic/webhook.go
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.cluster.api.admission.attempt import CREATE, UPDATE, Attempt
from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.meta.errors import not_found
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import NAMESPACES
from steersman.cluster.meta.selectors import LabelSelector, from_dict


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of `rules` or `resourceRules`.

    Args:
        resources: (resource, subresource) pairs.
        names: of objects; empty for any.
    """

    operations: frozenset[str]
    groups: frozenset[str]
    versions: frozenset[str]
    resources: tuple[tuple[str, str], ...]
    scope: str = "*"
    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Rule:
        pairs = [text.partition("/") for text in row.get("resources") or ()]
        return cls(
            operations=frozenset(row.get("operations") or ()),
            groups=frozenset(row.get("apiGroups") or ()),
            versions=frozenset(row.get("apiVersions") or ()),
            resources=tuple((resource, sub) for resource, _, sub in pairs),
            scope=row.get("scope") or "*",
            names=frozenset(row.get("resourceNames") or ()),
        )

    def takes(self, attempt: Attempt, kind: Kind) -> bool:
        """Whether the rule means the attempt, seen as one on `kind`."""
        resource = kind.resource
        if not ({"*", attempt.operation} & self.operations and {"*", resource.group} & self.groups):
            return False
        if not {"*", resource.version} & self.versions:
            return False
        if self.scope != "*":
            namespaced = bool(attempt.namespace) and attempt.resource != ("", "namespaces")
            if namespaced is not (self.scope == "Namespaced"):
                return False
        if self.names and attempt.name not in self.names:
            return False
        return any(name in ("*", resource.plural) and sub in ("*", attempt.subresource) for name, sub in self.resources)


@dataclass(frozen=True, slots=True)
class Match:
    """What a webhook or policy wants to see.

    Args:
        excluded: rules that take back what `rules` take in.
        equivalent: whether an operation on another version of the same objects counts.
        everything: whether no rules at all mean everything rather than nothing.
    """

    rules: tuple[Rule, ...]
    excluded: tuple[Rule, ...]
    namespaces: LabelSelector
    objects: LabelSelector
    equivalent: bool
    everything: bool = False

    @classmethod
    def of(
        cls, row: Mapping[str, Any], rules: Sequence[Any], excluded: Sequence[Any] = (), *, everything: bool = False
    ) -> Match:
        return cls(
            rules=tuple(map(Rule.of, rules)),
            excluded=tuple(map(Rule.of, excluded)),
            namespaces=from_dict(row.get("namespaceSelector") or {}),
            objects=from_dict(row.get("objectSelector") or {}),
            equivalent=row.get("matchPolicy") != "Exact",
            everything=everything and not rules,
        )

    def kind(self, registry: Registry, attempt: Attempt, ctx: WriteContext) -> Kind | None:
        """Returns the kind as which an attempt is shown; None when it is none of this match's business.

        Raises:
            NotFound: the namespace whose labels count does not exist.
        """
        found = self._by_rules(registry, attempt)
        if found is None or not self._in_namespace(attempt, ctx) or not self._selects(attempt):
            return None
        return found

    def _by_rules(self, registry: Registry, attempt: Attempt) -> Kind | None:
        if any(rule.takes(attempt, attempt.kind) for rule in self.excluded):
            return None
        if self.everything or any(rule.takes(attempt, attempt.kind) for rule in self.rules):
            return attempt.kind
        if self.equivalent:
            others = [kind for kind in registry.siblings(attempt.kind) if kind is not attempt.kind]
            if any(rule.takes(attempt, kind) for kind in others for rule in self.excluded):
                return None
            for rule in self.rules:
                for kind in others:
                    if rule.takes(attempt, kind):
                        return kind
        return None

    def _in_namespace(self, attempt: Attempt, ctx: WriteContext) -> bool:
        of_namespace = attempt.resource == ("", "namespaces")
        if not self.namespaces.requirements or not (attempt.namespace or of_namespace):
            return True
        if of_namespace and not attempt.subresource and attempt.operation in (CREATE, UPDATE):
            return self.namespaces.matches(_labels(attempt.obj))
        namespace = ctx.lookup(NAMESPACES, "", attempt.namespace)
        if namespace is None:
            raise not_found("namespaces", attempt.namespace)
        return self.namespaces.matches(_labels(namespace))

    def _selects(self, attempt: Attempt) -> bool:
        if not self.objects.requirements:
            return True
        return any(
            self.objects.matches(_labels(obj)) for obj in (attempt.obj, attempt.old) if obj and "metadata" in obj
        )


def _labels(obj: Obj | None) -> dict[str, str]:
    labels: dict[str, str] = ((obj or {}).get("metadata") or {}).get("labels") or {}
    return labels


def shown(obj: Obj | None, kind: Kind, wanted: Kind) -> Obj | None:
    """An object of one version of a kind as another version shows it."""
    if obj is None or kind is wanted:
        return obj
    return {
        **wanted.served(kind.stored(obj)),
        "apiVersion": wanted.api_version,
        "kind": wanted.resource.kind,
    }
