"""Role-based access: whether any role bound to a user allows an action.

A `Policy` is compiled from the four RBAC kinds and never changes; build a new one when any of them does. It refuses to
know where the objects come from.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steersman.cluster.auth.attributes import ALLOWED, NO_OPINION, Attributes, Verdict
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.selectors import NOTHING, LabelSelector, SelectorError, from_dict

#: the group that may do everything, whatever the roles say
MASTERS = "system:masters"
#: answers kept; the table starts anew when it is full
_DECISIONS_MAX = 20_000


_FIELDS = ("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs")


@dataclass(frozen=True, slots=True)
class Rule:
    """One `PolicyRule`, compiled to sets. Args: source: as it was written, with its lists in their order."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    paths: tuple[str, ...] = ()
    source: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    def allows(self, attributes: Attributes) -> bool:
        if attributes.verb not in self.verbs and "*" not in self.verbs:
            return False
        if not attributes.resource:
            return any(_path_matches(path, attributes.path) for path in self.paths)
        if attributes.group not in self.groups and "*" not in self.groups:
            return False
        if not self._covers_resource(attributes.resource, attributes.subresource):
            return False
        return not self.names or (attributes.name in self.names and bool(attributes.name))

    def _covers_resource(self, resource: str, subresource: str) -> bool:
        if "*" in self.resources:
            return True
        if not subresource:
            return resource in self.resources
        return f"{resource}/{subresource}" in self.resources or f"*/{subresource}" in self.resources

    def to_dict(self) -> Obj:
        if self.source is not None:
            return {key: list(self.source[key]) for key in _FIELDS if self.source.get(key)}
        row: Obj = {"verbs": sorted(self.verbs)}
        if self.paths:
            row["nonResourceURLs"] = list(self.paths)
            return row
        row["apiGroups"] = sorted(self.groups)
        row["resources"] = sorted(self.resources)
        if self.names:
            row["resourceNames"] = sorted(self.names)
        return row


_ANY = frozenset({"*"})
#: what only an administrator of the cluster has
EVERYTHING = (Rule(_ANY, _ANY, _ANY), Rule(_ANY, paths=("*",)))


def _path_matches(pattern: str, path: str) -> bool:
    return pattern == "*" or pattern == path or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def compile_rules(rows: Sequence[Mapping[str, Any]] | None) -> tuple[Rule, ...]:
    """Compiles the `rules` of a Role or ClusterRole."""
    return tuple(
        Rule(
            frozenset(row.get("verbs") or ()),
            frozenset(row.get("apiGroups") or ()),
            frozenset(row.get("resources") or ()),
            frozenset(row.get("resourceNames") or ()),
            tuple(row.get("nonResourceURLs") or ()),
            row,
        )
        for row in rows or ()
    )


@dataclass(frozen=True, slots=True)
class Grant:
    """A role bound to a subject: where it holds (empty for everywhere), and what is said when it allows something."""

    namespace: str
    rules: tuple[Rule, ...]
    verdict: Verdict


class Policy:
    """Who may do what, by the roles and bindings it was compiled from."""

    def __init__(
        self,
        *,
        roles: Iterable[Obj] = (),
        cluster_roles: Iterable[Obj] = (),
        role_bindings: Iterable[Obj] = (),
        cluster_role_bindings: Iterable[Obj] = (),
    ) -> None:
        clusterwide = aggregate(list(cluster_roles))
        self._rules: dict[tuple[str, str], tuple[Rule, ...]] = {
            ("", name): compile_rules(rows) for name, rows in clusterwide.items()
        }
        for role in roles:
            meta = role["metadata"]
            self._rules[meta["namespace"], meta["name"]] = compile_rules(role.get("rules"))
        self._grants: dict[tuple[str, str], list[Grant]] = {}
        #: by subject the bindings' namespaces, with what is said of their roles that do not exist
        self._missing: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for binding in cluster_role_bindings:
            self._bind(binding, "")
        for binding in role_bindings:
            self._bind(binding, binding["metadata"]["namespace"])
        self._decisions: dict[tuple[Any, ...], Verdict] = {}

    def _bind(self, binding: Obj, namespace: str) -> None:
        reference = binding.get("roleRef") or {}
        name = reference.get("name", "")
        if reference.get("kind") == "ClusterRole":
            rules = self._rules.get(("", name))
        else:
            rules = self._rules.get((namespace, name)) if namespace else None
        if rules is None:
            text = f'{str(reference.get("kind", "")).lower()}.rbac.authorization.k8s.io "{name}" not found'
            for subject in binding.get("subjects") or ():
                self._missing.setdefault(_subject_key(subject, namespace), []).append((namespace, text))
        if not rules:
            return
        for subject in binding.get("subjects") or ():
            grant = Grant(namespace, rules, Verdict(True, _reason(binding, subject, namespace)))
            self._grants.setdefault(_subject_key(subject, namespace), []).append(grant)

    def grants(self, user: str, groups: Iterable[str]) -> Iterable[Grant]:
        """Every grant of a user, its own first."""
        yield from self._grants.get(("User", user), ())
        for group in groups:
            yield from self._grants.get(("Group", group), ())

    def judge(self, user: str, groups: Sequence[str], attributes: Attributes) -> Verdict:
        """Whether any role allows the action."""
        if MASTERS in groups:
            return ALLOWED
        key = (
            user, tuple(groups), attributes.verb, attributes.group, attributes.resource, attributes.subresource,
            attributes.namespace, attributes.name, "" if attributes.resource else attributes.path,
        )  # fmt: skip
        decision = self._decisions.get(key)
        if decision is None:
            decision = self._decide(user, groups, attributes)
            if len(self._decisions) >= _DECISIONS_MAX:
                self._decisions.clear()
            self._decisions[key] = decision
        return decision

    def _decide(self, user: str, groups: Sequence[str], attributes: Attributes) -> Verdict:
        for grant in self.grants(user, groups):
            if grant.namespace and (grant.namespace != attributes.namespace or not attributes.resource):
                continue
            if any(rule.allows(attributes) for rule in grant.rules):
                return grant.verdict
        if self._missing and (found := self.missing(user, groups, attributes.namespace if attributes.resource else "")):
            return Verdict(False, f"RBAC: {found[0] if len(found) == 1 else '[' + ', '.join(found) + ']'}")
        return NO_OPINION

    def missing(self, user: str, groups: Sequence[str], namespace: str) -> list[str]:
        """What is said of the roles that a user is bound to and that do not exist."""
        keys = (("User", user), *(("Group", group) for group in groups))
        rows = (row for key in keys for row in self._missing.get(key, ()))
        return list(dict.fromkeys(text for where, text in rows if where in ("", namespace)))

    def rules_in(self, user: str, groups: Sequence[str], namespace: str) -> list[Rule]:
        """Every rule that holds for a user in a namespace (`SelfSubjectRulesReview`)."""
        found: dict[Rule, None] = {}
        for grant in self.grants(user, groups):
            if not grant.namespace or grant.namespace == namespace:
                found.update(dict.fromkeys(grant.rules))
        return list(found)

    def rules_of(self, reference: Mapping[str, Any], namespace: str) -> tuple[Rule, ...] | None:
        """The rules of the role that a `roleRef` names; None when it does not exist."""
        scope = "" if reference.get("kind") == "ClusterRole" else namespace
        return self._rules.get((scope, reference.get("name", "")))


def _subject_key(subject: Mapping[str, Any], namespace: str) -> tuple[str, str]:
    if subject.get("kind") == "ServiceAccount":
        return "User", f"system:serviceaccount:{subject.get('namespace') or namespace}:{subject.get('name', '')}"
    return subject.get("kind", ""), subject.get("name", "")


def _reason(binding: Obj, subject: Mapping[str, Any], namespace: str) -> str:
    """How Kubernetes names the binding that allows something."""
    name, reference = binding["metadata"]["name"], binding.get("roleRef") or {}
    which = f'RoleBinding "{name}/{namespace}"' if namespace else f'ClusterRoleBinding "{name}"'
    who = subject.get("name", "")
    if subject.get("kind") == "ServiceAccount":
        who = f"{who}/{subject.get('namespace') or namespace}"
    return (
        f'RBAC: allowed by {which} of {reference.get("kind", "")} "{reference.get("name", "")}" '
        f'to {subject.get("kind", "")} "{who}"'
    )


def _selector(row: Obj) -> LabelSelector:
    """A selector of an `aggregationRule`; one that cannot be read selects nothing, and spoils no other role."""
    try:
        return from_dict(row)
    except SelectorError:
        return NOTHING


def aggregate(cluster_roles: Sequence[Obj]) -> dict[str, list[Obj]]:
    """Returns the rules of each ClusterRole, those of its `aggregationRule` gathered from the roles it selects."""
    labels = {role["metadata"]["name"]: role["metadata"].get("labels") or {} for role in cluster_roles}
    own = {role["metadata"]["name"]: list(role.get("rules") or ()) for role in cluster_roles}
    selectors = {
        role["metadata"]["name"]: [
            _selector(row) for row in (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()
        ]
        for role in cluster_roles
    }
    gathered: dict[str, list[Obj]] = {}

    def gather(name: str, path: tuple[str, ...]) -> list[Obj]:
        if name in gathered:
            return gathered[name]
        if not selectors[name]:
            gathered[name] = own[name]
            return own[name]
        rows: list[Obj] = []
        for other in sorted(own):
            if other not in path and other != name and any(s.matches(labels[other]) for s in selectors[name]):
                rows += [row for row in gather(other, (*path, name)) if row not in rows]
        if not path:
            gathered[name] = rows
        return rows

    for name in own:
        gather(name, ())
    return gathered


def uncovered(wanted: Sequence[Rule], held: Sequence[Rule]) -> list[Rule]:
    """Returns the part of `wanted` that `held` does not grant, in single-verb, single-resource rules.

    A user may only give away what it holds itself: the escalation check of roles and bindings.
    """
    missing = []
    for rule in wanted:
        for atom in _atoms(rule):
            if not any(_covers(other, atom) for other in held):
                missing.append(atom)
    return missing


def compacted(rules: Iterable[Rule]) -> list[Rule]:
    """The same rules with the verbs of one resource together, in a fixed order."""
    verbs: dict[tuple[Any, ...], set[str]] = {}
    for rule in rules:
        place = (rule.paths, tuple(sorted(rule.groups)), tuple(sorted(rule.resources)), tuple(sorted(rule.names)))
        verbs.setdefault(place, set()).update(rule.verbs)
    return [
        Rule(frozenset(found), frozenset(groups), frozenset(resources), frozenset(names), paths)
        for (paths, groups, resources, names), found in sorted(verbs.items())
    ]


def _atoms(rule: Rule) -> Iterable[Rule]:
    for verb in sorted(rule.verbs):
        one = frozenset({verb})
        for path in rule.paths:
            yield Rule(one, paths=(path,))
        for group in sorted(rule.groups):
            for resource in sorted(rule.resources):
                for name in sorted(rule.names) or [""]:
                    names = frozenset({name}) if name else frozenset[str]()
                    yield Rule(one, frozenset({group}), frozenset({resource}), names)


def _covers(held: Rule, atom: Rule) -> bool:
    if not (atom.verbs <= held.verbs or "*" in held.verbs):
        return False
    if atom.paths:
        return any(_path_matches(path, atom.paths[0]) for path in held.paths)
    if not (atom.groups <= held.groups or "*" in held.groups):
        return False
    (resource,) = atom.resources
    _, slash, subresource = resource.partition("/")
    known = (
        resource in held.resources or "*" in held.resources or (bool(slash) and f"*/{subresource}" in held.resources)
    )
    return known and (not held.names or (bool(atom.names) and atom.names <= held.names))
