"""Which flow a request belongs to, and how many seats each level of priority gets.

Schemas are tried in the order of their precedence; the first that fits names the level. Refuses to know how many
requests there are.

Source: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/ and
k8s.io/apiserver/pkg/util/flowcontrol/{rule,apf_controller}.go
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from steersman.cluster.auth.attributes import Attributes
from steersman.cluster.meta.objects import Obj

EXEMPT, CATCH_ALL = "exempt", "catch-all"
_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelSpec:
    """How a level of priority works, in seats of one server.

    Args:
        nominal: seats that are its own; lower: those it never lends; upper: the most it may have with borrowed ones.
        queues: 0 for a level that refuses what does not fit.
    """

    name: str
    uid: str
    exempt: bool
    nominal: int
    lower: int
    upper: int
    queues: int = 0
    hand_size: int = 0
    queue_length_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """A FlowSchema: whose requests it takes, to which level they go, and what tells its flows apart."""

    name: str
    uid: str
    level: str
    precedence: int
    method: str
    rules: tuple[Obj, ...]

    def matches(self, user: str, groups: Sequence[str], attributes: Attributes) -> bool:
        return any(
            any(_is_subject(row, user, groups) for row in rule.get("subjects") or ()) and _asks(rule, attributes)
            for rule in self.rules
        )

    def flow(self, user: str, attributes: Attributes) -> str:
        """What tells a request's flow from the others of the schema."""
        match self.method:
            case "ByUser":
                return user
            case "ByNamespace":
                return attributes.namespace
        return ""


def _is_subject(row: Obj, user: str, groups: Sequence[str]) -> bool:
    match row.get("kind"):
        case "User":
            return row["user"]["name"] in ("*", user)
        case "Group":
            return row["group"]["name"] == "*" or row["group"]["name"] in groups
        case "ServiceAccount":
            account = row["serviceAccount"]
            prefix = f"{_ACCOUNT}{account['namespace']}:"
            return user.startswith(prefix) if account["name"] == "*" else user == prefix + str(account["name"])
    return False


def _asks(rule: Obj, attributes: Attributes) -> bool:
    if attributes.is_resource:
        return any(_takes(row, attributes) for row in rule.get("resourceRules") or ())
    return any(
        _has(row["verbs"], attributes.verb)
        and any(
            url in ("*", attributes.path) or (url.endswith("*") and attributes.path.startswith(url[:-1]))
            for url in row["nonResourceURLs"]
        )
        for row in rule.get("nonResourceRules") or ()
    )


def _takes(row: Obj, attributes: Attributes) -> bool:
    below = attributes.subresource
    resource = f"{attributes.resource}/{below}" if below else attributes.resource
    if not (_has(row["verbs"], attributes.verb) and _has(row["apiGroups"], attributes.group)):
        return False
    if not _has(row["resources"], resource):
        return False
    if not attributes.namespace:
        return bool(row.get("clusterScope"))
    return _has(row.get("namespaces") or (), attributes.namespace)


def _has(wanted: Sequence[str], value: str) -> bool:
    return value in wanted or "*" in wanted


def read_levels(objects: Iterable[Obj], seats: int) -> dict[str, LevelSpec]:
    """Shares the seats of a server out among the levels.

    Args:
        seats: requests of one server in flight at once.
    """
    rows = {obj["metadata"]["name"]: obj for obj in objects}
    rows.setdefault(EXEMPT, {"metadata": {"name": EXEMPT}, "spec": {"type": "Exempt"}})
    refusing = {"limitResponse": {"type": "Reject"}, "nominalConcurrencyShares": 5}
    rows.setdefault(CATCH_ALL, {"metadata": {"name": CATCH_ALL}, "spec": {"type": "Limited", "limited": refusing}})
    total = sum(_part(obj).get("nominalConcurrencyShares", 0) for obj in rows.values()) or 1
    return {name: _level(obj, seats, total) for name, obj in rows.items()}


def _part(obj: Obj) -> Obj:
    spec = obj["spec"]
    part: Obj = spec.get("exempt" if spec["type"] == "Exempt" else "limited") or {}
    return part


def _share(count: int, percent: int) -> int:
    """A half counts as a whole, as Go rounds."""
    return math.floor(count * percent / 100 + 0.5)


def _level(obj: Obj, seats: int, total: int) -> LevelSpec:
    part = _part(obj)
    nominal = math.ceil(seats * part.get("nominalConcurrencyShares", 0) / total)
    lendable = _share(nominal, part.get("lendablePercent") or 0)
    borrowing = part.get("borrowingLimitPercent")
    queuing = (part.get("limitResponse") or {}).get("queuing") or {}
    return LevelSpec(
        name=obj["metadata"]["name"],
        uid=obj["metadata"].get("uid", ""),
        exempt=obj["spec"]["type"] == "Exempt",
        nominal=nominal,
        lower=nominal - lendable,
        upper=seats if borrowing is None else nominal + _share(nominal, borrowing),
        queues=queuing.get("queues", 0),
        hand_size=queuing.get("handSize", 0),
        queue_length_max=queuing.get("queueLengthLimit", 0),
    )


def read_schemas(objects: Iterable[Obj], levels: Iterable[str]) -> list[Schema]:
    """Compiles the schemas whose level exists, the first to be tried first; there is always one for everything."""
    known = set(levels)
    found = [_schema(obj) for obj in objects if level_of(obj) in known]
    names = {schema.name for schema in found}
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    paths = {"verbs": ["*"], "nonResourceURLs": ["*"]}
    fixed = ((EXEMPT, 1, "", "system:masters"), (CATCH_ALL, 10_000, "ByUser", "*"))
    for name, precedence, method, group in fixed:
        if name not in names:
            subjects = [{"kind": "Group", "group": {"name": group}}]
            rule = {"subjects": subjects, "resourceRules": [everything], "nonResourceRules": [paths]}
            found.append(Schema(name=name, uid="", level=name, precedence=precedence, method=method, rules=(rule,)))
    return sorted(found, key=lambda schema: (schema.precedence, schema.name))


def _schema(obj: Obj) -> Schema:
    spec = obj["spec"]
    return Schema(
        name=obj["metadata"]["name"],
        uid=obj["metadata"].get("uid", ""),
        level=level_of(obj),
        precedence=spec.get("matchingPrecedence") or 1000,
        method=(spec.get("distinguisherMethod") or {}).get("type", ""),
        rules=tuple(spec.get("rules") or ()),
    )


def level_of(schema: Obj) -> str:
    """The level that a FlowSchema names."""
    return str((schema["spec"].get("priorityLevelConfiguration") or {}).get("name", ""))


def dangling(schema: Obj, levels: Iterable[str], now: str) -> list[Obj] | None:
    """The conditions of a FlowSchema that say whether its level exists; None when they say so already."""
    level = level_of(schema)
    gone = level not in set(levels)
    what = f'This FlowSchema references the PriorityLevelConfiguration object named "{level}"'
    wanted = {
        "type": "Dangling",
        "status": "True" if gone else "False",
        "reason": "NotFound" if gone else "Found",
        "message": f"{what} but there is no such object" if gone else f"{what} and it exists",
    }
    present = list((schema.get("status") or {}).get("conditions") or ())
    old: Obj = next((row for row in present if row.get("type") == "Dangling"), {})
    if all(old.get(key) == value for key, value in wanted.items()):
        return None
    changed = now if old.get("status") != wanted["status"] else old.get("lastTransitionTime", now)
    others = [row for row in present if row.get("type") != "Dangling"]
    return [*others, {**wanted, "lastTransitionTime": changed}]
