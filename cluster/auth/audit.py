"""What of a request is written down for later: an audit policy, and the event of each stage of a request.

The first rule that fits decides the level; no rule means nothing. Refuses to know where events go.

Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/ and k8s.io/apiserver/pkg/audit/policy
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import yaml

from steersman.cluster.auth.attributes import Attributes
from steersman.cluster.meta.objects import Obj


class Level(IntEnum):
    """How much is written: nothing, who did what, also the request's object, also the answer's."""

    NONE = 0
    METADATA = 1
    REQUEST = 2
    REQUEST_RESPONSE = 3


_LEVELS = {
    "None": Level.NONE, "Metadata": Level.METADATA, "Request": Level.REQUEST,
    "RequestResponse": Level.REQUEST_RESPONSE,
}  # fmt: skip
LEVEL_NAMES = {level: name for name, level in _LEVELS.items()}

RECEIVED, STARTED, COMPLETE, PANIC = "RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"
_STAGES = (RECEIVED, STARTED, COMPLETE, PANIC)
_MIX = "rules cannot apply to both regular resources and non-resource URLs"


class InvalidPolicy(ValueError):
    """The text is no audit policy; the message names every mistake with its field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Args: omit_stages: that leave no event; omit_managed_fields: of the objects in events."""

    level: Level
    omit_stages: frozenset[str] = frozenset()
    omit_managed_fields: bool = False


_NOTHING = Decision(level=Level.NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    decision: Decision
    users: frozenset[str]
    groups: frozenset[str]
    verbs: frozenset[str]
    namespaces: frozenset[str]
    #: group, resources and names of each row
    resources: tuple[tuple[str, tuple[str, ...], frozenset[str]], ...]
    paths: tuple[str, ...]

    def matches(self, user: str, groups: Sequence[str], attributes: Attributes) -> bool:
        if self.users and user not in self.users:
            return False
        if self.groups and self.groups.isdisjoint(groups):
            return False
        if self.verbs and attributes.verb not in self.verbs:
            return False
        if self.namespaces or self.resources:
            return self._matches_resource(attributes)
        if self.paths:
            return not attributes.is_resource and any(_path_matches(path, attributes.path) for path in self.paths)
        return True

    def _matches_resource(self, attributes: Attributes) -> bool:
        if not attributes.is_resource or (self.namespaces and attributes.namespace not in self.namespaces):
            return False
        if not self.resources:
            return True
        for group, resources, names in self.resources:
            if group == attributes.group and (
                not resources
                or ((not names or attributes.name in names) and any(_names(row, attributes) for row in resources))
            ):
                return True
        return False


def _names(resource: str, attributes: Attributes) -> bool:
    own, below = attributes.resource, attributes.subresource
    if resource in ("*", f"{own}/{below}" if below else own):
        return True
    return resource == f"{own}/*" or (bool(below) and resource == f"*/{below}")


def _path_matches(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))


class AuditPolicy:
    """Says how much of a request is written down."""

    def __init__(self, rules: Sequence[_Rule]) -> None:
        self._rules = tuple(rules)

    def decide(self, user: str, groups: Sequence[str], attributes: Attributes) -> Decision:
        for rule in self._rules:
            if rule.matches(user, groups, attributes):
                return rule.decision
        return _NOTHING


def read_policy(text: str) -> AuditPolicy:
    """Compiles a `Policy` of `audit.k8s.io/v1`.

    Raises:
        InvalidPolicy
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidPolicy(f"not valid YAML: {error}") from None
    if not isinstance(tree, dict) or tree.get("kind") != "Policy" or tree.get("apiVersion") != "audit.k8s.io/v1":
        raise InvalidPolicy("apiVersion and kind must be audit.k8s.io/v1 and Policy")
    rows = tree.get("rules") or []
    mistakes = _stage_mistakes(tree.get("omitStages"), "omitStages")
    for at, row in enumerate(rows):
        mistakes += _mistakes(row, f"rules[{at}]") if isinstance(row, dict) else [f"rules[{at}]: must be a mapping"]
    if not rows:
        mistakes.append("rules: Required value: a policy without rules writes nothing")
    if mistakes:
        raise InvalidPolicy("; ".join(mistakes))
    return AuditPolicy([_rule(row, tree) for row in rows])


def _stage_mistakes(stages: Any, path: str) -> list[str]:
    wanted = ", ".join(f'"{stage}"' for stage in _STAGES)
    return [
        f'{path}[{at}]: Unsupported value: "{stage}": supported values: {wanted}'
        for at, stage in enumerate(stages or ())
        if stage not in _STAGES
    ]


def _mistakes(row: Mapping[str, Any], path: str) -> list[str]:
    found = _stage_mistakes(row.get("omitStages"), f"{path}.omitStages")
    if row.get("level") not in _LEVELS:
        wanted = ", ".join(f'"{level}"' for level in _LEVELS)
        found.append(f'{path}.level: Unsupported value: "{row.get("level") or ""}": supported values: {wanted}')
    urls = row.get("nonResourceURLs") or ()
    if urls and (row.get("resources") or row.get("namespaces")):
        found.append(f"{path}.nonResourceURLs: Invalid value: {list(urls)}: {_MIX}")
    for at, url in enumerate(urls):
        if url != "*" and not str(url).startswith("/"):
            found.append(f"{path}.nonResourceURLs[{at}]: Invalid value: {url!r}: must begin with a '/' character")
        elif "*" in str(url)[:-1]:
            text = "wildcards '*' must be the final character of the rule"
            found.append(f"{path}.nonResourceURLs[{at}]: Invalid value: {url!r}: {text}")
    for at, resource in enumerate(row.get("resources") or ()):
        if resource.get("resourceNames") and not resource.get("resources"):
            text = "using resourceNames requires at least one resource"
            found.append(f"{path}.resources[{at}].resourceNames: Invalid value: {text}")
    return found


def _rule(row: Mapping[str, Any], policy: Mapping[str, Any]) -> _Rule:
    omit = row.get("omitManagedFields")
    return _Rule(
        decision=Decision(
            level=_LEVELS[row["level"]],
            omit_stages=frozenset(row.get("omitStages") or ()) | frozenset(policy.get("omitStages") or ()),
            omit_managed_fields=bool(policy.get("omitManagedFields") if omit is None else omit),
        ),
        users=frozenset(row.get("users") or ()),
        groups=frozenset(row.get("userGroups") or ()),
        verbs=frozenset(row.get("verbs") or ()),
        namespaces=frozenset(row.get("namespaces") or ()),
        resources=tuple(
            (one.get("group") or "", tuple(one.get("resources") or ()), frozenset(one.get("resourceNames") or ()))
            for one in row.get("resources") or ()
        ),
        paths=tuple(row.get("nonResourceURLs") or ()),
    )


def object_ref(attributes: Attributes, obj: Obj | None) -> Obj:
    """What a request is about; what its path does not say comes from its object."""
    meta = (obj.get("metadata") if isinstance(obj, dict) else None) or {}
    meta = meta if isinstance(meta, dict) else {}
    row = {
        "resource": attributes.resource,
        "namespace": attributes.namespace or meta.get("namespace", ""),
        "name": attributes.name or meta.get("name", ""),
        "uid": meta.get("uid", ""),
        "apiGroup": attributes.group,
        "apiVersion": attributes.version,
        "resourceVersion": meta.get("resourceVersion", ""),
        "subresource": attributes.subresource,
    }
    return {key: value for key, value in row.items() if value}


def response_status(code: int, answer: Obj | None) -> Obj:
    """The status of an answer; of an answer that is a Status what it says."""
    row: Obj = {"metadata": {}}
    if answer is not None and answer.get("kind") == "Status" and answer.get("apiVersion") == "v1":
        row |= {key: answer[key] for key in ("status", "message", "reason", "details") if answer.get(key)}
    row["code"] = code
    return row


def without_managed_fields(obj: Obj) -> Obj:
    """The object, or list of objects, without the bookkeeping of its fields."""
    if isinstance(obj.get("items"), list):
        obj = {**obj, "items": [without_managed_fields(row) if isinstance(row, dict) else row for row in obj["items"]]}
    meta = obj.get("metadata")
    if isinstance(meta, dict) and "managedFields" in meta:
        obj = {**obj, "metadata": {key: value for key, value in meta.items() if key != "managedFields"}}
    return obj
