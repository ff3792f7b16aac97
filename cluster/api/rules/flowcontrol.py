"""Rules of flow schemas and priority levels: defaults and validation.

Source: k8s.io/kubernetes/pkg/apis/flowcontrol/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from steersman.cluster.api.rules.fields import as_struct, bad, bad_all, duplicate, forbidden, required, unsupported
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1123_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

_PRECEDENCE_MAX = 10000
_QUEUES_MAX = 10_000_000
_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
#: kind of a subject to its field, and the words that refuse another kind's field
_SUBJECTS = {"ServiceAccount": "serviceAccount", "User": "user", "Group": "group"}
#: shuffle sharding deals hands from 60 bits of entropy
_ENTROPY_BITS = 60


_ALL: Obj = {
    "resourceRules": [
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    ],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
}


def _groups(*names: str) -> list[Obj]:
    return [{"kind": "Group", "group": {"name": name}} for name in names]


#: what the mandatory schemas and levels have to be
_SCHEMAS: dict[str, Obj] = {
    "exempt": {
        "matchingPrecedence": 1,
        "priorityLevelConfiguration": {"name": "exempt"},
        "rules": [{"subjects": _groups("system:masters"), **_ALL}],
    },
    "catch-all": {
        "matchingPrecedence": 10000,
        "priorityLevelConfiguration": {"name": "catch-all"},
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": _groups("system:unauthenticated", "system:authenticated"), **_ALL}],
    },
}
_LEVELS: dict[str, Obj] = {
    "exempt": {"type": "Exempt"},
    "catch-all": {
        "type": "Limited",
        "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}},
    },
}


def default_schema(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("matchingPrecedence"):
        spec["matchingPrecedence"] = 1000


def default_level(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    exempt, limited = spec.get("exempt"), spec.get("limited")
    if spec.get("type") == "Exempt" and exempt is None:
        exempt = spec["exempt"] = {}
    if exempt is not None:
        exempt.setdefault("nominalConcurrencyShares", 0)
        exempt.setdefault("lendablePercent", 0)
    if limited is None:
        return
    limited.setdefault("nominalConcurrencyShares", 30)
    limited.setdefault("lendablePercent", 0)
    queuing = (limited.get("limitResponse") or {}).get("queuing")
    if queuing is not None:
        for key, value in (("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)):
            queuing[key] = queuing.get(key) or value


def validate_schema(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    precedence, path = spec["matchingPrecedence"], "spec.matchingPrecedence"
    causes: list[Cause] = []
    if precedence <= 0:
        causes.append(bad(path, precedence, "must be a positive value"))
    if precedence > _PRECEDENCE_MAX:
        causes.append(bad(path, precedence, f"must not be greater than {_PRECEDENCE_MAX}"))
    if precedence == 1 and obj["metadata"].get("name") != "exempt":
        causes.append(bad(path, 1, "only the schema named 'exempt' may have matchingPrecedence 1"))
    method = spec.get("distinguisherMethod")
    if method is not None and method.get("type") not in ("ByNamespace", "ByUser"):
        causes.append(
            unsupported("spec.distinguisherMethod.type", as_struct(method, Type="type"), ("ByNamespace", "ByUser"))
        )
    level = (spec.get("priorityLevelConfiguration") or {}).get("name", "")
    if level:
        causes += bad_all("spec.priorityLevelConfiguration.name", level, subdomain_errors(level))
    else:
        causes.append(required("spec.priorityLevelConfiguration.name", "must reference a priority level"))
    for index, rule in enumerate(spec.get("rules") or ()):
        causes += _rule(f"spec.rules[{index}]", rule)
    name = obj["metadata"].get("name", "")
    if spec != _SCHEMAS.get(name, spec):
        causes.append(bad("spec", spec, f"spec of '{name}' must equal the fixed value"))
    return causes


def _rule(path: str, rule: Obj) -> list[Cause]:
    causes: list[Cause] = []
    if not rule.get("subjects"):
        causes.append(required(f"{path}.subjects", "subjects must contain at least one value"))
    for index, subject in enumerate(rule.get("subjects") or ()):
        causes += _subject(f"{path}.subjects[{index}]", subject)
    if not rule.get("resourceRules") and not rule.get("nonResourceRules"):
        detail = "at least one of resourceRules and nonResourceRules has to be non-empty"
        causes.append(required(path, detail))
    for index, one in enumerate(rule.get("resourceRules") or ()):
        causes += _resources(f"{path}.resourceRules[{index}]", one)
    for index, one in enumerate(rule.get("nonResourceRules") or ()):
        causes += _urls(f"{path}.nonResourceRules[{index}]", one)
    return causes


def _subject(path: str, subject: Obj) -> list[Cause]:
    kind = subject.get("kind", "")
    own = _SUBJECTS.get(kind)
    if own is None:
        return [unsupported(f"{path}.kind", kind, tuple(_SUBJECTS))]
    causes: list[Cause] = []
    found = subject.get(own)
    if found is None:
        causes.append(required(f"{path}.{own}", f"{own} is required when subject kind is '{kind}'"))
    elif not found.get("name"):
        causes.append(required(f"{path}.{own}.name"))
    if found is not None and own == "serviceAccount":
        causes += _account(f"{path}.{own}", found)
    for other, field in _SUBJECTS.items():
        if field != own and subject.get(field) is not None:
            detail = f"{field} is forbidden when subject kind is not '{other}'"
            causes.append(forbidden(f"{path}.{field}", detail))
    return causes


def _account(path: str, account: Obj) -> list[Cause]:
    name, namespace = account.get("name", ""), account.get("namespace", "")
    causes = bad_all(f"{path}.name", name, subdomain_errors(name)) if name not in ("", "*") else []
    if not namespace:
        return [*causes, required(f"{path}.namespace", "must specify namespace for service account")]
    return causes + bad_all(f"{path}.namespace", namespace, label_1123_errors(namespace))


def _verbs(path: str, rule: Obj) -> list[Cause]:
    verbs = rule.get("verbs") or []
    if not verbs:
        return [required(f"{path}.verbs", "verbs must contain at least one value")]
    if "*" in verbs:
        return _alone(f"{path}.verbs", verbs, "verbs")
    return [] if set(verbs) <= set(_VERBS) else [unsupported(f"{path}.verbs", verbs, _VERBS)]


def _alone(path: str, values: Sequence[str], what: str) -> list[Cause]:
    if "*" not in values or len(values) == 1:
        return []
    return [bad(path, list(values), f"if '*' is present, must not specify other {what}")]


def _resources(path: str, rule: Obj) -> list[Cause]:
    causes = _verbs(path, rule)
    for key, one, many in (("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")):
        if not rule.get(key):
            causes.append(required(f"{path}.{key}", f"resource rules must supply at least one {one}"))
        else:
            causes += _alone(f"{path}.{key}", rule[key], many)
    spaces, where = rule.get("namespaces") or [], f"{path}.namespaces"
    if not spaces and not rule.get("clusterScope"):
        detail = "resource rules that are not cluster scoped must supply at least one namespace"
        causes.append(required(where, detail))
    elif "*" in spaces:
        causes += _alone(where, spaces, "namespaces")
    else:
        intro = "each member of this list must be '*' or a DNS-1123 label; "
        for index, space in enumerate(spaces):
            causes += bad_all(f"{where}[{index}]", space, (intro + text for text in label_1123_errors(space)))
    return causes


def _urls(path: str, rule: Obj) -> list[Cause]:
    causes, urls, where = _verbs(path, rule), rule.get("nonResourceURLs") or [], f"{path}.nonResourceURLs"
    if not urls:
        return [*causes, required(where, "nonResourceURLs must contain at least one value")]
    if "*" in urls:
        return causes + _alone(where, urls, "non-resource URLs")
    for index, url in enumerate(urls):
        causes += _url(f"{where}[{index}]", url)
    return causes


def _url(path: str, url: str) -> list[Cause]:
    if not url:
        return [bad(path, url, "must not be empty")]
    if url == "/":
        return []
    if not url.startswith("/"):
        return [bad(path, url, "must start with slash")]
    if " " in url:
        return [bad(path, url, "must not contain white-space")]
    if "//" in url:
        return [bad(path, url, "must not contain double slash")]
    if "*" in url and (url.count("*") > 1 or not url.endswith("/*")):
        return [bad(path, url, "wildcard can only do suffix matching")]
    return []


def validate_level(obj: Obj) -> list[Cause]:
    spec, name = obj["spec"], obj["metadata"].get("name", "")
    kind, causes = spec.get("type", ""), []
    if (name == "exempt") != (kind == "Exempt"):
        detail = "type must be 'Exempt' if and only if name is 'exempt'"
        causes.append(bad("spec.type", kind, detail))
    match kind:
        case "Exempt":
            if spec.get("limited") is not None:
                causes.append(forbidden("spec.limited", "must be nil if the type is not Limited"))
            causes += _shares("spec.exempt", spec.get("exempt") or {})
        case "Limited":
            if spec.get("exempt") is not None:
                causes.append(forbidden("spec.exempt", "must be nil if the type is Limited"))
            if spec.get("limited") is None:
                causes.append(required("spec.limited", "must not be empty when type is Limited"))
            else:
                causes += _limited("spec.limited", spec["limited"])
        case _:
            causes.append(unsupported("spec.type", kind, ("Exempt", "Limited")))
    fixed = {key: value for key, value in spec.items() if key != "exempt"} if name == "exempt" else spec
    if fixed != _LEVELS.get(name, fixed):
        but = " except the 'spec.exempt' field" if name == "exempt" else ""
        causes.append(bad("spec", spec, f"spec of '{name}'{but} must equal the fixed value"))
    return causes


def _shares(path: str, found: Obj) -> list[Cause]:
    causes: list[Cause] = []
    shares, lend = found.get("nominalConcurrencyShares", 0), found.get("lendablePercent", 0)
    if shares < 0:
        causes.append(bad(f"{path}.nominalConcurrencyShares", shares, "must be a non-negative integer"))
    if not 0 <= lend <= 100:
        causes.append(bad(f"{path}.lendablePercent", lend, "must be between 0 and 100, inclusive"))
    return causes


def _limited(path: str, limited: Obj) -> list[Cause]:
    causes = _shares(path, limited)
    borrow = limited.get("borrowingLimitPercent")
    if borrow is not None and borrow < 0:
        causes.append(bad(f"{path}.borrowingLimitPercent", borrow, "if specified, must be a non-negative integer"))
    response = limited.get("limitResponse") or {}
    queuing, where = response.get("queuing"), f"{path}.limitResponse"
    match response.get("type"):
        case "Reject":
            if queuing is not None:
                causes.append(forbidden(f"{where}.queuing", "must be nil if limited.limitResponse.type is not Limited"))
        case "Queue":
            if queuing is None:
                causes.append(
                    required(f"{where}.queuing", "must not be empty if limited.limitResponse.type is Limited")
                )
            else:
                causes += _queuing(f"{where}.queuing", queuing)
        case kind:
            causes.append(unsupported(f"{where}.type", kind or "", ("Queue", "Reject")))
    return causes


def _queuing(path: str, queuing: Obj) -> list[Cause]:
    queues, hand, length = queuing["queues"], queuing["handSize"], queuing["queueLengthLimit"]
    causes = [] if length > 0 else [bad(f"{path}.queueLengthLimit", length, "must be positive")]
    if queues <= 0:
        causes.append(bad(f"{path}.queues", queues, "must be positive"))
    elif queues > _QUEUES_MAX:
        causes.append(bad(f"{path}.queues", queues, f"must not be greater than {_QUEUES_MAX}"))
    if hand <= 0:
        causes.append(bad(f"{path}.handSize", hand, "must be positive"))
    elif hand > queues:
        causes.append(bad(f"{path}.handSize", hand, f"should not be greater than queues ({queues})"))
    elif math.ceil(math.log2(queues) * hand) > _ENTROPY_BITS:
        needed = f"required entropy bits of deckSize {queues} and handSize {hand}"
        causes.append(bad(f"{path}.handSize", hand, f"{needed} should not be greater than {_ENTROPY_BITS}"))
    return causes


def validate_status(new: Obj, _old: Obj) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, row in enumerate((new.get("status") or {}).get("conditions") or ()):
        path, kind = f"status.conditions[{index}].type", row.get("type", "")
        if kind in seen:
            causes.append(duplicate(path, kind))
        seen.add(kind)
        if not kind:
            causes.append(required(path, "must not be empty"))
    return causes
