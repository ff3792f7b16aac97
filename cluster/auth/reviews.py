"""Answers to the review kinds: what a SubjectAccessReview asks about, and how verdicts are written down.

Source: https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steersman.cluster.auth.attributes import Attributes, Verdict, selected_fields
from steersman.cluster.auth.rbac import Rule
from steersman.cluster.auth.tokens import Identity
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj


def asked(spec: Obj) -> Attributes:
    """The action a `(Self)SubjectAccessReview` spec asks about."""
    if row := spec.get("resourceAttributes"):
        return Attributes(
            row.get("verb", ""),
            "",
            row.get("group", ""),
            row.get("version", ""),
            row.get("resource", ""),
            row.get("subresource", ""),
            row.get("namespace", ""),
            row.get("name", ""),
            selected=_selected(row.get("fieldSelector") or {}),
        )
    row = spec.get("nonResourceAttributes") or {}
    return Attributes(row.get("verb", ""), row.get("path", ""))


def _selected(selector: Obj) -> tuple[tuple[str, str], ...]:
    """The fields that a review's selector restricts the request to, with the value of each."""
    if raw := selector.get("rawSelector"):
        return selected_fields(raw)
    return tuple(
        (row.get("key", ""), row["values"][0])
        for row in selector.get("requirements") or ()
        if row.get("operator") == "In" and len(row.get("values") or ()) == 1
    )


def access_causes(spec: Obj, *, of_self: bool, namespace: str = "") -> list[Cause]:
    """What is wrong with an access review; `namespace` is that of a LocalSubjectAccessReview."""
    causes = []
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource and other:
        text = "Invalid value: cannot be specified in combination with resourceAttributes"
        causes.append(Cause("spec.nonResourceAttributes", text))
    if not resource and not other:
        text = "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified"
        causes.append(Cause("spec.resourceAttributes", text))
    if not of_self and not spec.get("user") and not spec.get("groups"):
        causes.append(Cause("spec.user", "Invalid value: at least one of user or group must be specified"))
    if namespace and (resource or {}).get("namespace") != namespace:
        causes.append(
            Cause("spec.resourceAttributes.namespace", f"Invalid value: must match metadata.namespace: {namespace}")
        )
    return causes


def access_status(verdict: Verdict) -> Obj:
    """The status of an access review."""
    row: Obj = {"allowed": verdict.allowed}
    if verdict.denied:
        row["denied"] = True
    if verdict.reason:
        row["reason"] = verdict.reason
    if verdict.error:
        row["evaluationError"] = verdict.error
    return row


def rules_status(rules: Sequence[Rule], *, is_node: bool = False) -> Obj:
    """The status of a SelfSubjectRulesReview; what a node may do is not told by rules alone."""
    status: Obj = {
        "resourceRules": [rule.to_dict() for rule in rules if not rule.paths],
        "nonResourceRules": [rule.to_dict() for rule in rules if rule.paths],
        "incomplete": is_node,
    }
    if is_node:
        status["evaluationError"] = "node authorizer does not support user rule resolution"
    return status


def user_info(name: str, groups: Sequence[str], uid: str, extra: Mapping[str, Sequence[str]]) -> Obj:
    info: Obj = {"username": name, "groups": list(groups)}
    if uid:
        info["uid"] = uid
    if extra:
        info["extra"] = {key: list(values) for key, values in extra.items()}
    return info


def token_status(identity: Identity | None, audiences: Sequence[str], error: str = "") -> Obj:
    """The status of a TokenReview."""
    if identity is None:
        return {"authenticated": False, "user": {}, **({"error": error} if error else {})}
    user = user_info(identity.name, identity.groups, identity.uid, dict(identity.extra))
    return {"authenticated": True, "user": user, "audiences": list(audiences)}
