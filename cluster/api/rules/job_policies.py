"""Rules of what a Job makes of its pods' ends: failure policies, success policies, managers.

Source: k8s.io/kubernetes/pkg/apis/batch/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Sequence

from steersman.cluster.api.rules import indexes
from steersman.cluster.api.rules.fields import bad, bad_all, duplicate, required, show, too_long, too_many, unsupported
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

_RULES_MAX = 20
_EXIT_CODES_MAX = 255
_PATTERNS_MAX = 20
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_OPERATORS = ("In", "NotIn")
_STATUSES = ("False", "True", "Unknown")
_INDEXES_BYTES_MAX = 64 * 1024
_MANAGER_BYTES_MAX = 63


def failure_policy(path: str, policy: Obj, spec: Obj) -> list[Cause]:
    """Every broken rule of a failure policy; `spec` is its Job's."""
    rules, where = policy.get("rules") or [], f"{path}.rules"
    causes = [too_many(where, len(rules), _RULES_MAX)] if len(rules) > _RULES_MAX else []
    pod = (spec.get("template") or {}).get("spec") or {}
    names = {one.get("name") for key in ("containers", "initContainers") for one in pod.get(key) or ()}
    for index, rule in enumerate(rules):
        causes += _rule(f"{where}[{index}]", rule, names, indexed=spec.get("backoffLimitPerIndex") is not None)
    return causes


def _rule(path: str, rule: Obj, containers: set[str | None], *, indexed: bool) -> list[Cause]:
    action, codes, patterns = rule.get("action", ""), rule.get("onExitCodes"), rule.get("onPodConditions")
    causes: list[Cause] = []
    if not action:
        causes.append(required(f"{path}.action", _values(_ACTIONS)))
    elif action == "FailIndex" and not indexed:
        causes.append(bad(f"{path}.action", action, "requires the backoffLimitPerIndex to be set"))
    elif action not in _ACTIONS:
        causes.append(unsupported(f"{path}.action", action, _ACTIONS))
    if codes is not None:
        causes += _exit_codes(f"{path}.onExitCodes", codes, containers)
    if patterns:
        causes += _conditions(f"{path}.onPodConditions", patterns)
    if codes is not None and patterns:
        causes.append(_unfit(path, "specifying both OnExitCodes and OnPodConditions is not supported"))
    elif codes is None and not patterns:
        causes.append(_unfit(path, "specifying one of OnExitCodes and OnPodConditions is required"))
    return causes


def _unfit(path: str, detail: str) -> Cause:
    return Cause(path, f"Invalid value: {detail}", "FieldValueInvalid")


def _values(supported: Sequence[str]) -> str:
    return f"valid values: [{' '.join(map(show, supported))}]"


def _exit_codes(path: str, codes: Obj, containers: set[str | None]) -> list[Cause]:
    operator, values, name = codes.get("operator", ""), codes.get("values") or [], codes.get("containerName")
    causes: list[Cause] = []
    if not operator:
        causes.append(required(f"{path}.operator", _values(_OPERATORS)))
    elif operator not in _OPERATORS:
        causes.append(unsupported(f"{path}.operator", operator, _OPERATORS))
    if name is not None and name not in containers:
        detail = "must be one of the container or initContainer names in the pod template"
        causes.append(bad(f"{path}.containerName", name, detail))
    where = f"{path}.values"
    if not values:
        causes.append(bad(where, values, "at least one value is required"))
    elif len(values) > _EXIT_CODES_MAX:
        causes.append(too_many(where, len(values), _EXIT_CODES_MAX))
    for index, value in enumerate(values):
        if value == 0 and operator == "In":
            causes.append(bad(f"{where}[{index}]", value, "must not be 0 for the In operator"))
        if value in values[:index]:
            causes.append(duplicate(f"{where}[{index}]", value))
    if values != sorted(values):
        causes.append(bad(where, values, "must be ordered"))
    return causes


def _conditions(path: str, patterns: Sequence[Obj]) -> list[Cause]:
    causes = [too_many(path, len(patterns), _PATTERNS_MAX)] if len(patterns) > _PATTERNS_MAX else []
    for index, row in enumerate(patterns):
        kind, status, where = row.get("type", ""), row.get("status", ""), f"{path}[{index}]"
        causes += bad_all(f"{where}.type", kind, qualified_name_errors(kind))
        if not status:
            causes.append(required(f"{where}.status", _values(_STATUSES)))
        elif status not in _STATUSES:
            causes.append(unsupported(f"{where}.status", status, _STATUSES))
    return causes


def success_policy(path: str, policy: Obj, spec: Obj) -> list[Cause]:
    """Every broken rule of a success policy; `spec` is its Job's."""
    rules, where = policy.get("rules") or [], f"{path}.rules"
    if not rules:
        return [required(where, "at least one rules must be specified when the successPolicy is specified")]
    causes = [too_many(where, len(rules), _RULES_MAX)] if len(rules) > _RULES_MAX else []
    for index, rule in enumerate(rules):
        causes += _success_rule(f"{where}[{index}]", rule, spec.get("completions") or 0)
    return causes


def _success_rule(path: str, rule: Obj, completions: int) -> list[Cause]:
    count, listed = rule.get("succeededCount"), rule.get("succeededIndexes")
    if count is None and listed is None:
        return [required(path, "at least one of succeededCount or succeededIndexes must be specified")]
    causes: list[Cause] = []
    total = completions
    if listed is not None:
        where = f"{path}.succeededIndexes"
        if len(listed) > _INDEXES_BYTES_MAX:
            causes.append(too_long(where, _INDEXES_BYTES_MAX))
        try:
            total = indexes.count(listed, completions)
        except indexes.IndexesError as error:
            causes.append(bad(where, listed, f"error parsing succeededIndexes: {error}"))
            total = 0
    if count is not None:
        where = f"{path}.succeededCount"
        if count < 0:
            causes.append(bad(where, count, "must be greater than or equal to 0"))
        if count > completions:
            detail = f"must be less than or equal to {completions} (the number of specified completions)"
            causes.append(bad(where, count, detail))
        if listed is not None and count > total:
            meant = "the number of indexes in the specified succeededIndexes field"
            detail = f"must be less than or equal to {total} ({meant})"
            causes.append(bad(where, count, detail))
    return causes


def manager(path: str, name: str) -> list[Cause]:
    """The rules of who manages a Job: a domain and a path."""
    return _prefixed(path, name) + ([too_long(path, _MANAGER_BYTES_MAX)] if len(name) > _MANAGER_BYTES_MAX else [])


def _prefixed(path: str, name: str) -> list[Cause]:
    domain, slash, rest = name.partition("/")
    if not slash or not domain or not rest:
        return [bad(path, name, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    return bad_all(path, domain, subdomain_errors(domain))
