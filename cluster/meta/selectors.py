"""Label and field selectors: parsed once, matched often.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
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


#: keys that are looked up one by one, as in nearly every selector
_FEW = 8


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """A conjunction of requirements; with none it matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        found = labels or {}
        return all(requirement.matches(found) for requirement in self.requirements)

    def matcher(self) -> Callable[[Mapping[str, str]], bool]:
        """As `matches`, for many objects: takes as long as one has labels, however many requirements there are."""
        by_key: dict[str, list[Requirement]] = {}
        for requirement in self.requirements:
            by_key.setdefault(requirement.key, []).append(requirement)
        rules = {key: _of_value(rows) for key, rows in by_key.items()}
        needed = {row.key for row in self.requirements if row.operator not in ("NotIn", "DoesNotExist")}

        if len(rules) <= _FEW:
            few = [(key, fits, key not in needed) for key, fits in rules.items()]
            return lambda labels: _fits_few(labels, few)

        def matches(labels: Mapping[str, str]) -> bool:
            if len(needed) > len(labels) or not needed <= labels.keys():
                return False
            shared = labels if len(labels) < len(rules) else rules
            return all(rules[key](labels[key]) for key in shared if key in rules and key in labels)

        return matches

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


def _fits_few(labels: Mapping[str, str], rules: Sequence[tuple[str, Callable[[str], bool], bool]]) -> bool:
    for key, fits, may_lack in rules:
        value = labels.get(key)
        if not (may_lack if value is None else fits(value)):
            return False
    return True


def _of_value(rows: Sequence[Requirement]) -> Callable[[str], bool]:
    """Whether the value that a label has fits every requirement on it."""
    taken = [frozenset(row.values) for row in rows if row.operator == "In"]
    allowed = frozenset.intersection(*taken) if taken else None
    denied = frozenset(value for row in rows if row.operator == "NotIn" for value in row.values)
    is_unwanted = any(row.operator == "DoesNotExist" for row in rows)
    if allowed is not None and len(taken) == len(rows):
        return allowed.__contains__
    compared = list(dict.fromkeys(row for row in rows if row.operator in ("Gt", "Lt")))

    def fits(value: str) -> bool:
        if is_unwanted or value in denied or (allowed is not None and value not in allowed):
            return False
        return all(_compare(value, row.operator, row.values[0]) for row in compared)

    return fits


EVERYTHING = LabelSelector()
#: matches no label set at all
NOTHING = LabelSelector(
    (Requirement("steersman.none/none", "Exists"), Requirement("steersman.none/none", "DoesNotExist"))
)

_OPERATORS = {"=": "In", "==": "In", "!=": "NotIn", "in": "In", "notin": "NotIn", ">": "Gt", "<": "Lt"}
#: a word (which `in` and `notin` are as well, where a value is expected), or the longest special symbol
_TOKEN = re.compile(r"[ \t\r\n]*(==|!=|[=!<>(),]|[^=!<>(), \t\r\n]+)")
_SPECIAL = frozenset(["==", "!=", *"=!<>(),", ""])


class _Words:
    """The tokens of a label selector, taken one by one; the end is an empty one."""

    def __init__(self, text: str) -> None:
        # Go's lexer takes a zero byte for the end
        self._tokens: list[str] = [*_TOKEN.findall(text.partition("\0")[0]), ""]
        self._at = 0

    @property
    def next(self) -> str:
        return self._tokens[self._at]

    def take(self) -> str:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token


def parse_labels(text: str) -> LabelSelector:
    """Parses `app=web,tier in (a,b),!old,version!=2` as the query parameter `labelSelector` carries it.

    Raises:
        SelectorError: the text is no selector; in the words of k8s.io/apimachinery/pkg/labels.
    """
    words = _Words(text)
    requirements: list[Requirement] = []
    while words.next:
        if words.next in _SPECIAL - {"!"}:
            raise SelectorError(f"found '{words.next}', expected: !, identifier, or 'end of string'")
        try:
            requirements.append(_requirement(words))
        except SelectorError as error:
            raise SelectorError(f"unable to parse requirement: {error}") from None
        separator = words.take()
        if separator not in (",", ""):
            raise SelectorError(f"found '{separator}', expected: ',' or 'end of string'")
        if separator and words.next in _SPECIAL - {"!"}:
            raise SelectorError(f"found '{words.next}', expected: identifier after ','")
    return LabelSelector(tuple(sorted(requirements, key=lambda r: r.key)))


def _requirement(words: _Words) -> Requirement:
    absent = words.next == "!" and words.take() == "!"
    key = _word(words.take())
    if errors := qualified_name_errors(key):
        raise SelectorError(f"<nil>: Invalid value: {_quoted(key)}: {'; '.join(errors)}")
    if absent or words.next in ("", ","):
        return Requirement(key, "DoesNotExist" if absent else "Exists")
    operator = words.take()
    if operator not in _OPERATORS:
        raise SelectorError(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")
    if operator in ("in", "notin"):
        values = _values(words)
    else:
        values = ("",) if words.next in ("", ",") else (_word(words.take()),)
    requirement = Requirement(key, _OPERATORS[operator], values)
    if causes := _causes(requirement):
        raise SelectorError(causes[0] if len(causes) == 1 else f"[{', '.join(causes)}]")
    return requirement


def _values(words: _Words) -> tuple[str, ...]:
    if (opening := words.take()) != "(":
        raise SelectorError(f"found '{opening}' expected: '('")
    first, values = words.next, set[str]()
    if first == ")":
        values.add("")
    elif first != "," and first in _SPECIAL:
        raise SelectorError(f"found '{first}', expected: ',', ')' or identifier")
    while words.next != ")":
        token = words.take()
        if token == ",":
            if not values or words.next in (",", ")"):
                values.add("")
        elif token in _SPECIAL:
            raise SelectorError(f"found '{token}', expected: ',', or identifier")
        else:
            values.add(token)
            if words.next not in (",", ")"):
                raise SelectorError(f"found '{words.next}', expected: ',' or ')'")
    words.take()
    return tuple(sorted(values))


def _word(token: str) -> str:
    if token in _SPECIAL:
        raise SelectorError(f"found '{token}', expected: identifier")
    return token


def _quoted(text: str) -> str:
    """A text in quotes as Go writes it (of what stands in selectors)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _causes(requirement: Requirement) -> list[str]:
    """What is wrong with the values."""
    causes = []
    if requirement.operator in ("Gt", "Lt") and not re.fullmatch(r"[+-]?\d{1,19}", requirement.values[0], re.ASCII):
        causes.append(
            f"values[0]: Invalid value: {_quoted(requirement.values[0])}: "
            "for 'Gt', 'Lt' operators, the value must be an integer"
        )
    for index, value in enumerate(requirement.values):
        if errors := label_value_errors(value):
            path = f"values[{index}][{requirement.key}]"
            causes.append(f"{path}: Invalid value: {_quoted(value)}: {'; '.join(errors)}")
    return causes


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

    def matcher(self) -> Callable[[Mapping[str, str]], bool]:
        """As `matches`, for many objects: takes as long as there are fields, however many requirements there are."""
        wanted: dict[str, set[str]] = {}
        denied: dict[str, set[str]] = {}
        for path, equal, value in self.requirements:
            (wanted if equal else denied).setdefault(path, set()).add(value)
        if any(len(values) > 1 for values in wanted.values()):
            return lambda _fields: False
        exact = [(path, *values) for path, values in wanted.items()]

        def matches(fields: Mapping[str, str]) -> bool:
            if any(fields.get(path, "") != value for path, value in exact):
                return False
            return not any(fields.get(path, "") in values for path, values in denied.items())

        return matches


def parse_fields(text: str) -> FieldSelector:
    """Parses `metadata.name=web,status.phase!=Running`; a backslash escapes `,`, `=` and itself.

    Raises:
        SelectorError: a term has no operator, or a value what has to be escaped; in the words of
            k8s.io/apimachinery/pkg/fields.
    """
    requirements = []
    for term in sorted(re.findall(r"(?:[^,\\]|\\.|\\$)+", text, re.DOTALL)):
        match = re.match(r"(.*?)(!=|==|=)(.*)", term, re.DOTALL)
        if match is None:
            raise SelectorError(f"invalid selector: '{text}'; can't understand '{term}'")
        requirements.append((match[1], match[2] != "!=", _unescaped(match[3])))
    return FieldSelector(tuple(requirements))


def _unescaped(value: str) -> str:
    for part in re.findall(r"\\.?|[,=]", value, re.DOTALL):
        if part in (",", "="):
            raise SelectorError(f"invalid field selector: unescaped character in value: {ord(part)}")
        if part not in ("\\\\", "\\,", "\\="):
            raise SelectorError(f"invalid field selector: invalid escape sequence: {part}")
    return re.sub(r"\\(.)", r"\1", value)
