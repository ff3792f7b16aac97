"""The conditions a pod sets on nodes and on other pods, as hashable values compiled once from its spec.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from steersman.cluster.meta import selectors
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.selectors import LabelSelector, Requirement

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True)
class NodeTerm:
    """A conjunction of conditions on one node.

    Args:
        labels: requirements on its labels.
        names: requirements on its name (`matchFields` on `metadata.name`).
        empty: a term with no condition at all, which matches no node.
    """

    labels: tuple[Requirement, ...] = ()
    names: tuple[Requirement, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.labels and not self.names


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Toleration:
    """Args: operator: `Exists` or `Equal`; an empty key with `Exists` tolerates all; an empty effect any effect."""

    key: str
    operator: str
    value: str
    effect: str

    def tolerates(self, taint: Taint) -> bool:
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        if self.operator == "Exists":
            return True
        return bool(self.key) and self.value == taint.value


@dataclass(frozen=True, slots=True)
class PodSelector:
    """Which pods are meant: those in these namespaces whose labels match.

    Args:
        namespaces: named ones.
        namespace_selector: further namespaces, by their labels; None for none.
        labels: the condition on the pod.
    """

    namespaces: tuple[str, ...]
    labels: LabelSelector
    namespace_selector: LabelSelector | None = None

    def matches(self, namespace: str, labels: Mapping[str, str], namespaces: Mapping[str, Mapping[str, str]]) -> bool:
        """Args: namespaces: the labels of every namespace known."""
        if namespace not in self.namespaces and (
            self.namespace_selector is None or not self.namespace_selector.matches(namespaces.get(namespace))
        ):
            return False
        return self.labels.matches(labels)


@dataclass(frozen=True, slots=True)
class PodTerm:
    """Nearness to the pods selected, measured by a label of the node."""

    selector: PodSelector
    topology_key: str


@dataclass(frozen=True, slots=True)
class SpreadConstraint:
    """How unevenly pods may lie over the domains of a topology key.

    Args:
        hard: `DoNotSchedule`; otherwise it only scores.
        min_domains: fewer eligible domains than this count as one that is empty.
        honor_affinity: nodes that the pod's own affinity refuses do not count.
        honor_taints: nodes whose taints the pod does not tolerate do not count.
    """

    topology_key: str
    max_skew: int
    hard: bool
    selector: LabelSelector
    min_domains: int = 1
    honor_affinity: bool = True
    honor_taints: bool = False


def node_terms(rows: Iterable[Obj]) -> tuple[NodeTerm, ...]:
    """The terms of a `NodeSelector`; they are alternatives."""
    return tuple(node_term(row) for row in rows)


def node_term(row: Obj) -> NodeTerm:
    def requirements(field: str) -> tuple[Requirement, ...]:
        found = row.get(field) or ()
        return tuple(Requirement(e["key"], e["operator"], tuple(sorted(e.get("values") or ()))) for e in found)

    return NodeTerm(requirements("matchExpressions"), requirements("matchFields"))


def taints_of(rows: Iterable[Obj]) -> tuple[Taint, ...]:
    return tuple(Taint(row["key"], row.get("value") or "", row.get("effect") or "") for row in rows)


def tolerations_of(rows: Iterable[Obj]) -> tuple[Toleration, ...]:
    return tuple(
        Toleration(
            row.get("key") or "", row.get("operator") or "Equal", row.get("value") or "", row.get("effect") or ""
        )
        for row in rows
    )


def pod_term(row: Obj, namespace: str, labels: Mapping[str, str]) -> PodTerm:
    """Compiles a `PodAffinityTerm` of a pod in `namespace` with `labels`."""
    named = row.get("namespaces") or []
    by_label = row.get("namespaceSelector")
    if not named and by_label is None:
        named = [namespace]
    selector = _with_label_keys(selectors.from_dict(row.get("labelSelector")), row, labels)
    namespace_selector = None if by_label is None else selectors.from_dict(by_label)
    return PodTerm(PodSelector(tuple(sorted(named)), selector, namespace_selector), row["topologyKey"])


def spread_constraint(row: Obj, labels: Mapping[str, str]) -> SpreadConstraint:
    return SpreadConstraint(
        topology_key=row["topologyKey"],
        max_skew=int(row["maxSkew"]),
        hard=row.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule",
        selector=_with_label_keys(selectors.from_dict(row.get("labelSelector")), row, labels),
        min_domains=int(row.get("minDomains") or 1),
        honor_affinity=row.get("nodeAffinityPolicy", "Honor") == "Honor",
        honor_taints=row.get("nodeTaintsPolicy", "Ignore") == "Honor",
    )


def _with_label_keys(selector: LabelSelector, row: Obj, labels: Mapping[str, str]) -> LabelSelector:
    extra = [Requirement(key, "In", (labels[key],)) for key in row.get("matchLabelKeys") or () if key in labels]
    extra += [Requirement(key, "NotIn", (labels[key],)) for key in row.get("mismatchLabelKeys") or () if key in labels]
    wanted = [requirement for requirement in extra if requirement not in selector.requirements]
    if not wanted:
        return selector
    return LabelSelector(tuple(sorted((*selector.requirements, *wanted), key=lambda r: (r.key, r.operator))))
