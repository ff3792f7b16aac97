"""Label and field selectors: parsed once, matched often.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.cluster.meta.names import label_value_errors, qualified_name_errors


class SelectorError(ValueError):
    """The text is no selector; the message says where it goes wrong."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on a label.

    Args:
        key: the label's key.
        operator: `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt` or `Lt`.
        values: the values to compare with; sorted.
    """

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "Gt" | "Lt":
                return _compare(value, self.operator, self.values[0])
        raise SelectorError(f'"{self.operator}" is not a valid label selector operator')

    def __str__(self) -> str:
        match self.operator:
            case "In" | "NotIn":
                if self.operator == "In" and len(self.values) == 1:
                    return f"{self.key}={self.values[0]}"
                return f"{self.key} {self.operator.lower()} ({','.join(self.values)})"
            case "Exists":
                return self.key
            case "DoesNotExist":
                return f"!{self.key}"
        return f"{self.key}{'>' if self.operator == 'Gt' else '<'}{self.values[0]}"


def _compare(value: str | None, operator: str, bound: str) -> bool:
    try:
        left, right = int(value or ""), int(bound)
    except ValueError:
        return False
    return left > right if operator == "Gt" else left < right


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """A conjunction of requirements; with none it matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        found = labels or {}
        return all(requirement.matches(found) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


EVERYTHING = LabelSelector()
#: matches no label set at all
NOTHING = LabelSelector(
    (Requirement("steersman.none/none", "Exists"), Requirement("steersman.none/none", "DoesNotExist"))
)

_TOKEN = re.compile(r"\s*(notin\b|in\b|==|!=|[=<>!(),]|[^\s=<>!(),]+)")


def _tokens(text: str) -> list[str]:
    found, position = [], 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise SelectorError(f"unable to parse requirement: unexpected text at {text[position:]!r}")
        found.append(match[1])
        position = match.end()
    return found


def parse_labels(text: str) -> LabelSelector:
    """Parses `app=web,tier in (a,b),!old,version!=2` as the query parameter `labelSelector` carries it.

    Raises:
        SelectorError: the text is no selector.
    """
    tokens = _tokens(text)
    requirements: list[Requirement] = []
    position = 0
    while position < len(tokens):
        requirement, position = _requirement(tokens, position)
        _check(requirement)
        requirements.append(requirement)
        if position < len(tokens):
            if tokens[position] != "," or position + 1 == len(tokens):
                raise SelectorError(f"unable to parse requirement: found '{tokens[position]}', expected: ','")
            position += 1
    return LabelSelector(tuple(sorted(requirements, key=lambda r: r.key)))


def _requirement(tokens: Sequence[str], position: int) -> tuple[Requirement, int]:
    def at(index: int) -> str:
        return tokens[index] if index < len(tokens) else ""

    if tokens[position] == "!":
        return Requirement(_word(at(position + 1)), "DoesNotExist"), position + 2
    key = _word(tokens[position])
    operator = at(position + 1)
    match operator:
        case "" | ",":
            return Requirement(key, "Exists"), position + 1
        case "=" | "==" | "!=":
            value = at(position + 2)
            empty = value in ("", ",")
            end = position + (2 if empty else 3)
            kind = "NotIn" if operator == "!=" else "In"
            return Requirement(key, kind, ("" if empty else _word(value),)), end
        case "<" | ">":
            return Requirement(key, "Lt" if operator == "<" else "Gt", (_word(at(position + 2)),)), position + 3
        case "in" | "notin":
            values, end = _values(tokens, position + 2)
            return Requirement(key, "In" if operator == "in" else "NotIn", values), end
    raise SelectorError(f"unable to parse requirement: found '{operator}', expected: in, notin, =, ==, !=, gt, lt")


def _values(tokens: Sequence[str], position: int) -> tuple[tuple[str, ...], int]:
    if position >= len(tokens) or tokens[position] != "(":
        found = tokens[position] if position < len(tokens) else ""
        raise SelectorError(f"unable to parse requirement: found '{found}' expected: '('")
    values: set[str] = set()
    last = "("
    for index in range(position + 1, len(tokens)):
        token = tokens[index]
        if token == ")":
            if last in ("(", ","):
                values.add("")
            return tuple(sorted(values)), index + 1
        if token == ",":
            if last in ("(", ","):
                values.add("")
        else:
            values.add(_word(token))
        last = token
    raise SelectorError("unable to parse requirement: found '', expected: ',' or ')'")


def _word(token: str) -> str:
    if not token or token in "=<>!(),":
        raise SelectorError(f"unable to parse requirement: found '{token}', expected: identifier")
    return token


def _check(requirement: Requirement) -> None:
    if errors := qualified_name_errors(requirement.key):
        raise SelectorError(f'key: Invalid value: "{requirement.key}": {"; ".join(errors)}')
    if requirement.operator in ("Gt", "Lt"):
        if not requirement.values[0].lstrip("-").isdigit():
            raise SelectorError("values[0]: Invalid value: for 'Gt', 'Lt' operators, the value must be an integer")
        return
    for value in requirement.values:
        if errors := label_value_errors(value):
            raise SelectorError(f'values[0][{requirement.key}]: Invalid value: "{value}": {"; ".join(errors)}')


def from_dict(selector: Mapping[str, Any] | None) -> LabelSelector:
    """Returns the selector of a `LabelSelector` object; None matches nothing, `{}` everything.

    Raises:
        SelectorError: an expression's operator is unknown.
    """
    if selector is None:
        return NOTHING
    requirements = [Requirement(key, "In", (value,)) for key, value in (selector.get("matchLabels") or {}).items()]
    for row in selector.get("matchExpressions") or ():
        if row.get("operator") not in ("In", "NotIn", "Exists", "DoesNotExist"):
            raise SelectorError(f'"{row.get("operator")}" is not a valid label selector operator')
        requirements.append(Requirement(row["key"], row["operator"], tuple(sorted(row.get("values") or ()))))
    return LabelSelector(tuple(sorted(requirements, key=lambda r: r.key)))


def from_map(labels: Mapping[str, str] | None) -> LabelSelector:
    """Returns the selector of a plain map (Service, ReplicationController); an empty one matches nothing."""
    if not labels:
        return NOTHING
    return LabelSelector(tuple(Requirement(key, "In", (value,)) for key, value in sorted(labels.items())))


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """A conjunction of (field path, must be equal, value)."""

    requirements: tuple[tuple[str, bool, str], ...] = ()

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Whether the object whose selectable fields are `fields` (path to text) is selected."""
        return all((fields.get(path, "") == value) is equal for path, equal, value in self.requirements)


def parse_fields(text: str) -> FieldSelector:
    """Parses `metadata.name=web,status.phase!=Running`; a backslash escapes `,`, `=` and itself.

    Raises:
        SelectorError: a term has no operator.
    """
    requirements = []
    for term in re.split(r"(?<!\\),", text):
        if not term:
            continue
        match = re.match(r"^((?:[^=!\\]|\\.)+)(==|!=|=)(.*)$", term, re.DOTALL)
        if match is None:
            raise SelectorError(f"invalid selector: '{text}'; can't understand '{term}'")
        value = re.sub(r"\\(.)", r"\1", match[3])
        requirements.append((match[1].strip(), match[2] != "!=", value))
    return FieldSelector(tuple(requirements))
