"""Answers to the review kinds: what a SubjectAccessReview asks about, and how verdicts are written down.

Source: https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from steersman.cluster.auth.attributes import Attributes, Verdict, selected_fields, selected_labels
from steersman.cluster.auth.rbac import Rule
from steersman.cluster.auth.tokens import Identity
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.selectors import Requirement


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
            fields=_read(row.get("fieldSelector") or {}, selected_fields, _FIELD_VALUES)[0],
            labels=_read(row.get("labelSelector") or {}, selected_labels, _LABEL_VALUES)[0],
        )
    row = spec.get("nonResourceAttributes") or {}
    return Attributes(row.get("verb", ""), row.get("path", ""))


#: of each operator how many values a requirement may have, at least and at most
_FIELD_VALUES = {"In": (1, 1), "NotIn": (1, 1)}
_LABEL_VALUES = {"In": (1, 1000), "NotIn": (1, 1000), "Exists": (0, 0), "DoesNotExist": (0, 0)}


def _read(
    selector: Obj, parse: Callable[[str], tuple[Requirement, ...]], known: Mapping[str, tuple[int, int]]
) -> tuple[tuple[Requirement, ...], bool]:
    """What a review's selector restricts the request to, and whether all of it could be read."""
    if raw := selector.get("rawSelector"):
        found = parse(raw)
        return found, bool(found)
    rows = [
        Requirement(row.get("key", ""), row.get("operator", ""), tuple(sorted(row.get("values") or ())))
        for row in selector.get("requirements") or ()
    ]
    good = []
    for row in rows:
        least, most = known.get(row.operator, (1, 0))
        if least <= len(row.values) <= most:
            good.append(row)
    return tuple(good), len(good) == len(rows)


def evaluation_error(spec: Obj, error: str) -> str:
    """What a review says went wrong: the authorizers' own error, and selectors that could not be read."""
    found = [error] if error else []
    row = spec.get("resourceAttributes") or {}
    for field, parse, known in (
        ("fieldSelector", selected_fields, _FIELD_VALUES),
        ("labelSelector", selected_labels, _LABEL_VALUES),
    ):
        good, whole = _read(row.get(field) or {}, parse, known)
        if not whole:
            part = "partially " if good else ""
            found.append(f"spec.resourceAttributes.{field} {part}ignored due to parse error")
    return found[0] if len(found) == 1 else f"[{', '.join(found)}]" if found else ""


def _selector_causes(selector: Obj | None, path: str) -> list[Cause]:
    if selector is None:
        return []
    raw, rows = selector.get("rawSelector", ""), selector.get("requirements") or ()
    causes = []
    if raw and rows:
        text = f'Invalid value: "{raw}": may not specified at the same time as requirements'
        causes.append(Cause(f"{path}.rawSelector", text))
    if not raw and not rows:
        text = f"Required value: when {path} is specified, requirements or rawSelector is required"
        causes.append(Cause(f"{path}.requirements", text, "FieldValueRequired"))
    for at, row in enumerate(rows):
        where, operator = f"{path}.requirements[{at}]", row.get("operator", "")
        if not row.get("key"):
            causes.append(Cause(f"{where}.key", "Required value: must be specified", "FieldValueRequired"))
        if operator in ("In", "NotIn") and not row.get("values"):
            text = "Required value: must be specified when `operator` is 'In' or 'NotIn'"
            causes.append(Cause(f"{where}.values", text, "FieldValueRequired"))
        if operator in ("Exists", "DoesNotExist") and row.get("values"):
            text = "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            causes.append(Cause(f"{where}.values", text, "FieldValueForbidden"))
    return causes


def access_causes(
    spec: Obj, metadata: Obj | None = None, *, of_self: bool, local: bool = False, namespace: str = ""
) -> list[Cause]:
    """What is wrong with an access review; `namespace` is that of the metadata of a local one."""
    causes: list[Cause] = []
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource and other:
        text = f"Invalid value: {_shown(other)}: cannot be specified in combination with resourceAttributes"
        causes.append(Cause("spec.nonResourceAttributes", text))
    if not resource and not other:
        text = "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"
        causes.append(Cause("spec.resourceAttributes", text))
    if not of_self and not spec.get("user") and not spec.get("groups"):
        causes.append(Cause("spec.user", 'Invalid value: "": at least one of user or group must be specified'))
    for field in ("fieldSelector", "labelSelector"):
        causes += _selector_causes((resource or {}).get(field), f"spec.resourceAttributes.{field}")
    free = ("managedFields", "namespace") if local else ("managedFields",)
    if any(value and key not in free for key, value in (metadata or {}).items()):
        detail = "must be empty except for namespace" if local else "must be empty"
        causes.append(Cause("metadata", f"Invalid value: {_shown(metadata or {})}: {detail}"))
    if local and resource and resource.get("namespace", "") != namespace:
        text = f'Invalid value: "{resource.get("namespace", "")}": must match metadata.namespace'
        causes.append(Cause("spec.resourceAttributes.namespace", text))
    if local and other:
        text = f"Invalid value: {_shown(other)}: disallowed on this kind of request"
        causes.append(Cause("spec.nonResourceAttributes", text))
    return causes


def _shown(value: Obj) -> str:
    return json.dumps(value, separators=(",", ":"))


def access_status(spec: Obj, verdict: Verdict) -> Obj:
    """The status of an access review."""
    row: Obj = {"allowed": verdict.allowed}
    if verdict.denied:
        row["denied"] = True
    if verdict.reason:
        row["reason"] = verdict.reason
    if error := evaluation_error(spec, verdict.error):
        row["evaluationError"] = error
    return row


def rules_status(rules: Sequence[Rule], wrong: Sequence[str] = (), more: bool = False) -> Obj:
    """The status of a SelfSubjectRulesReview. Args: wrong: what failed; more: whether rules do not say everything."""
    status: Obj = {
        "resourceRules": [rule.to_dict() for rule in rules if not rule.paths],
        "nonResourceRules": [rule.to_dict() for rule in rules if rule.paths],
        "incomplete": more,
    }
    if wrong:
        status["evaluationError"] = wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]"
    return status


def user_info(name: str, groups: Sequence[str], uid: str, extra: Mapping[str, Sequence[str]]) -> Obj:
    info: Obj = {"username": name}
    if groups:
        info["groups"] = list(groups)
    if uid:
        info["uid"] = uid
    if extra:
        info["extra"] = {key: list(values) for key, values in extra.items()}
    return info


def token_status(identity: Identity | None, audiences: Sequence[str], error: str = "") -> Obj:
    """The status of a TokenReview."""
    if identity is None:
        return {"user": {}, **({"error": error} if error else {})}
    user = user_info(identity.name, identity.groups, identity.uid, dict(identity.extra))
    return {"authenticated": True, "user": user, **({"audiences": list(audiences)} if audiences else {})}
