"""Who asks and whether they may: feeds the decisions of `cluster/auth` from the cache.

Nothing here decides; it finds credentials in a request and objects in the cache, and keeps what was compiled of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from steersman.actors.apiserver.askedwebhooks import Modes
from steersman.actors.apiserver.authenticator import to_user
from steersman.actors.apiserver.cache import WatchCache, nodes_in
from steersman.actors.apiserver.entry import Entry, Event
from steersman.actors.ports import User
from steersman.cluster.api.cel import Decision, Question
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.auth import authorization, impersonation
from steersman.cluster.auth import node as node_rules
from steersman.cluster.auth.attributes import (
    ALLOWED,
    NO_OPINION,
    Attributes,
    Verdict,
    forbidden_message,
    selected_fields,
    selected_labels,
)
from steersman.cluster.auth.authorization import Mode
from steersman.cluster.auth.identity import AUTHENTICATED
from steersman.cluster.auth.rbac import EVERYTHING, MASTERS, Policy, Rule, compacted, compile_rules, uncovered
from steersman.cluster.meta.errors import BadRequest, Forbidden, not_found
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    Resource,
)

#: from this version on acting as somebody else may be constrained
_CONSTRAINED_SINCE = (1, 36)


def forbidden(user: User, attributes: Attributes, verdict: Verdict) -> Forbidden:
    """The refusal of an action."""
    return Forbidden(
        forbidden_message(user.name, attributes, verdict.reason),
        kind=attributes.resource, group=attributes.group, name=attributes.name,
    )  # fmt: skip


class Authorizer:
    """Says whether a user may do something: by default RBAC, and for nodes their own rules."""

    def __init__(self, cache: WatchCache, registry: Registry, modes: Modes) -> None:
        self._modes = modes
        self._constrains = tuple(map(int, registry.version.split("."))) >= _CONSTRAINED_SINCE
        self._cache = cache
        self._registry = registry
        self._prefixes = [
            _prefix(registry, row) for row in (ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS)
        ]
        self._pods = _prefix(registry, PODS)
        self._policy = Policy()
        self._compiled: tuple[int, ...] = ()
        #: node to the keys of pods that may be on it
        self._by_node: dict[str, dict[str, None]] = {}

    def start(self) -> None:
        """Begins to follow which pod is on which node."""
        shelf = self._cache.shelf(self._pods)
        for entry in shelf.within():
            self._follow(Event("ADDED", entry, None))
        shelf.listeners.append(self._follow)

    def _follow(self, event: Event) -> None:
        key = event.entry.key
        if event.previous is not None:
            for node in nodes_in(event.previous):
                if (keys := self._by_node.get(node)) is not None:
                    keys.pop(key, None)
                    if not keys:
                        del self._by_node[node]
        if event.type != "DELETED":
            for node in nodes_in(event.entry):
                self._by_node.setdefault(node, {})[key] = None

    def pods_on(self, node: str) -> Iterable[Obj]:
        shelf = self._cache.shelf(self._pods)
        for key in self._by_node.get(node, ()):
            entry = shelf.get(key)
            if entry is not None and (entry.obj.get("spec") or {}).get("nodeName") == node:
                yield entry.obj

    def policy(self) -> Policy:
        """The policy as the roles and bindings stand now."""
        shelves = [self._cache.shelf(prefix) for prefix in self._prefixes]
        state = tuple(shelf.generation for shelf in shelves) + tuple(shelf.floor for shelf in shelves)
        if state != self._compiled:
            roles, cluster_roles, role_bindings, cluster_role_bindings = (
                [entry.obj for entry in shelf.within()] for shelf in shelves
            )
            self._policy = Policy(
                roles=roles,
                cluster_roles=cluster_roles,
                role_bindings=role_bindings,
                cluster_role_bindings=cluster_role_bindings,
            )
            self._compiled = state
        return self._policy

    @property
    def asks(self) -> bool:
        """Whether a judgement may be broken off (`Unanswered`) because somebody else has to be asked."""
        return bool(self._modes.webhooks)

    def judge(self, user: User, attributes: Attributes) -> Verdict:
        """Whether a user may do something, and why; raises Unanswered."""
        if MASTERS in user.groups:
            return ALLOWED
        verdicts = []
        for mode in self._modes.modes:
            verdict = self._judge_by(mode, user, attributes)
            if verdict.allowed or verdict.denied:
                return verdict
            verdicts.append(verdict)
        return authorization.refused(verdicts)

    def _judge_by(self, mode: Mode, user: User, attributes: Attributes) -> Verdict:
        match mode.type:
            case authorization.NODE:
                node = node_rules.node_of(user.name, user.groups)
                return node_rules.judge(node, attributes, self.pods_on, self._find) if node else NO_OPINION
            case authorization.RBAC:
                return self.policy().judge(user.name, user.groups, attributes)
            case authorization.WEBHOOK:
                return self._modes.webhooks[mode.name].judge(user, attributes)
            case authorization.ALWAYS_ALLOW:
                return ALLOWED
        return Verdict(False, "Everything is forbidden.")

    def rules(self, user: User, namespace: str) -> tuple[list[Rule], list[str], bool]:
        """What a user may do in a namespace as far as rules can say it, what went wrong, and whether there is more."""
        found: list[Rule] = []
        wrong: list[str] = []
        more = False
        for mode in self._modes.modes:
            match mode.type:
                case authorization.RBAC:
                    found += self.policy().rules_in(user.name, user.groups, namespace)
                    wrong += self.policy().missing(user.name, user.groups, namespace)
                case authorization.ALWAYS_ALLOW:
                    found += EVERYTHING
                case authorization.WEBHOOK:
                    more = True
                    wrong.append("webhook authorizer does not support user rule resolution")
                case authorization.NODE if node_rules.node_of(user.name, user.groups):
                    more = True
                    wrong.append("node authorizer does not support user rule resolution")
        return found, wrong, more

    def _find(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        kind = self._registry.kind(resource.group, resource.version, resource.plural)
        if kind is None:
            return None
        entry = self._cache.shelf(kind.prefix()).get(f"{namespace}/{name}" if resource.namespaced else name)
        return None if entry is None else entry.obj

    def answer(self, user: User, question: Question) -> Decision:
        """The answer to a question of an expression."""
        if question.service_account is not None:
            namespace, name = question.service_account
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
            user = User(f"system:serviceaccount:{namespace}:{name}", groups)
        attributes = Attributes(
            verb=question.verb, path=question.path, group=question.group, version="*" if question.resource else "",
            resource=question.resource, subresource=question.subresource, namespace=question.namespace,
            name=question.name, fields=selected_fields(question.field_selector) if question.field_selector else (),
            labels=selected_labels(question.label_selector) if question.label_selector else (),
        )  # fmt: skip
        verdict = self.judge(user, attributes)
        return Decision(allowed=verdict.allowed, reason=verdict.reason, error=verdict.error)

    def allows(self, user: User, attributes: Attributes) -> bool:
        return self.judge(user, attributes).allowed

    def require(self, user: User, attributes: Attributes) -> Verdict:
        """Returns the verdict that allows it; raises Forbidden when the user may not."""
        verdict = self.judge(user, attributes)
        if not verdict.allowed:
            raise forbidden(user, attributes, verdict)
        return verdict

    def impersonate(self, user: User, headers: Mapping[str, str], attributes: Attributes) -> tuple[User, str] | None:
        """Returns whom a request acts as and by which constraint; None when it acts as its own user.

        Raises:
            BadRequest, Forbidden
        """
        try:
            wanted = impersonation.wanted_identity(headers)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        if wanted is None:
            return None

        def judge(about: Attributes, shown: Mapping[str, tuple[str, ...]] | None) -> Verdict:
            asker = user if shown is None else User(user.name, user.groups, user.uid, dict(shown))
            return self.judge(asker, about)

        try:
            identity, constraint = impersonation.act_as(
                wanted, attributes, user.name, user.extra, judge, constrained=self._constrains
            )
        except impersonation.Refused as refused:
            raise forbidden(user, refused.attributes, Verdict(False, refused.detail)) from None
        return to_user(identity), constraint

    def check_write(self, user: User, kind: Kind, obj: Obj, old: Entry | None) -> None:
        """The last look at an object about to be written: nobody grants more than they hold.

        Args:
            old: as it is; None of a new one.

        Raises:
            Forbidden, NotFound
        """
        if kind.resource.group != "rbac.authorization.k8s.io" or MASTERS in user.groups:
            return
        before = None if old is None else old.obj
        if before is None or _without_owners(before) != _without_owners(obj):
            self._check_grant(user, kind, obj, before or {})

    def _check_grant(self, user: User, kind: Kind, obj: Obj, old: Obj) -> None:
        meta, resource = obj["metadata"], kind.resource
        namespace, policy = meta.get("namespace", ""), self.policy()
        reference = obj.get("roleRef")
        # of a new role the request has no name
        verb, name, plural = "escalate", meta["name"] if old else "", resource.plural
        if reference is not None:
            plural = "clusterroles" if reference.get("kind") == "ClusterRole" else "roles"
            verb, name = "bind", reference.get("name", "")
        if self.allows(user, Attributes(verb, "", resource.group, "*", plural, "", namespace, name)):
            return
        wanted = compile_rules(obj.get("rules")) if reference is None else policy.rules_of(reference, namespace)
        if wanted is None:
            raise not_found(plural, name, resource.group)
        text = ""
        if missing := uncovered(wanted, policy.rules_in(user.name, user.groups, namespace)):
            lines = "\n".join(sorted({_rule_text(rule) for rule in compacted(missing)}))
            groups = " ".join(f'"{group}"' for group in user.groups)
            text = (
                f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:'
                f"\n{lines}"
            )
            if gone := policy.missing(user.name, user.groups, namespace):
                text += f"; resolution errors: [{' '.join(gone)}]"
        elif (obj.get("aggregationRule") or old.get("aggregationRule")) and uncovered(
            EVERYTHING, policy.rules_in(user.name, user.groups, "")
        ):
            text = "must have cluster-admin privileges to use an aggregationRule"
        if text:
            raise Forbidden(
                f'{resource} "{meta["name"]}" is forbidden: {text}',
                kind=resource.plural, group=resource.group, name=meta["name"],
            )  # fmt: skip


def _without_owners(obj: Obj) -> Obj:
    """The object without what a garbage collector changes."""
    ignored = ("ownerReferences", "finalizers", "resourceVersion", "managedFields", "generation")
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key not in ignored}}


def _rule_text(rule: Rule) -> str:
    def quoted(values: Iterable[str]) -> str:
        return "[" + " ".join(f'"{value}"' for value in sorted(values)) + "]"

    if rule.paths:
        return f"{{NonResourceURLs:{quoted(rule.paths)}, Verbs:{quoted(rule.verbs)}}}"
    names = f", ResourceNames:{quoted(rule.names)}" if rule.names else ""
    return f"{{APIGroups:{quoted(rule.groups)}, Resources:{quoted(rule.resources)}{names}, Verbs:{quoted(rule.verbs)}}}"


def _prefix(registry: Registry, resource: Resource) -> str:
    kind = registry.kind(resource.group, resource.version, resource.plural)
    if kind is None:
        raise LookupError(f"this version of Kubernetes has no {resource}")
    return kind.prefix()
