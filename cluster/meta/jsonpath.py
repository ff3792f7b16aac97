"""JSONPath templates as kubectl and CRD printer columns write them: `{range .items[*]}{.metadata.name}{"\\n"}{end}`.

Decides which values a path selects and how a template prints; parsed once, used often. Paths may select by name, index,
slice, union, wildcard, recursive descent and filters with one comparison (joined by `&&` and `||`).

Source: https://kubernetes.io/docs/reference/kubectl/jsonpath/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

_NAME = re.compile(r"(?:[^\s.\[\]{}()'\"=!<>|&,@$\\]|\\.)+")
_SLICE = re.compile(r"^\s*(-?\d*)\s*(?::\s*(-?\d*)\s*)?(?::\s*(-?\d*)\s*)?$")
_OPERATOR = re.compile(r"\s*(==|!=|<=|>=|<|>)\s*")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}


class JsonPathError(ValueError):
    """The template is malformed, or a value it needs is missing; the message says where."""


@dataclass(frozen=True, slots=True)
class _Text:
    text: str


@dataclass(frozen=True, slots=True)
class _Range:
    path: _Path
    body: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Path:
    absolute: bool
    steps: tuple[_Step, ...]


_Node = _Text | _Range | _Path


@dataclass(frozen=True, slots=True)
class _Field:
    name: str


@dataclass(frozen=True, slots=True)
class _Wildcard:
    pass


@dataclass(frozen=True, slots=True)
class _Descend:
    pass


@dataclass(frozen=True, slots=True)
class _Slice:
    start: int | None
    stop: int | None
    step: int | None
    single: bool


@dataclass(frozen=True, slots=True)
class _Union:
    parts: tuple[_Step, ...]


@dataclass(frozen=True, slots=True)
class _Filter:
    #: alternatives of conjunctions of (left, operator, right); an operator of None asks for existence
    alternatives: tuple[tuple[tuple[Any, str | None, Any], ...], ...]


_Step = _Field | _Wildcard | _Descend | _Slice | _Union | _Filter


class JsonPath:
    """A parsed template.

    Args:
        template: text with paths in braces.

    Raises:
        JsonPathError: the template is malformed.
    """

    def __init__(self, template: str) -> None:
        self._nodes = _Parser(template).template()

    def values(self, data: Any) -> list[Any]:
        """Returns every value that the template's paths select; missing fields select nothing."""
        found: list[Any] = []
        for node in self._nodes:
            if isinstance(node, _Path):
                found += _select(node, data, data, allow_missing=True)
        return found

    def text(self, data: Any, *, allow_missing: bool = True) -> str:
        """Returns the template with values in place of paths; several values of one path are joined by spaces.

        Raises:
            JsonPathError: a field is missing and that is not allowed.
        """
        return "".join(_render(self._nodes, data, data, allow_missing))


def relaxed(text: str) -> str:
    """Returns the template that a bare path means: `metadata.name`, `.metadata.name` and `{.metadata.name}` agree."""
    if "{" in text:
        return text
    return "{" + text + "}" if text.startswith((".", "[", "$", "@")) else "{." + text + "}"


def printed(value: Any) -> str:
    """One value as a template prints it: scalars bare, objects and lists as JSON."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case float() if value.is_integer():
            return str(int(value))
        case dict() | list():
            return orjson.dumps(value).decode()
    return str(value)


def _render(nodes: Sequence[_Node], data: Any, root: Any, allow_missing: bool) -> Iterator[str]:
    for node in nodes:
        match node:
            case _Text(text):
                yield text
            case _Path():
                yield " ".join(printed(value) for value in _select(node, data, root, allow_missing))
            case _Range(path, body):
                for value in _select(path, data, root, allow_missing):
                    yield from _render(body, value, root, allow_missing)


def _select(path: _Path, data: Any, root: Any, allow_missing: bool) -> list[Any]:
    current = [root if path.absolute else data]
    lenient = allow_missing
    for step in path.steps:
        current = [found for value in current for found in _step(step, value, root, lenient)]
        lenient = allow_missing or isinstance(step, _Descend)
    return current


def _step(step: _Step, value: Any, root: Any, allow_missing: bool) -> list[Any]:
    match step:
        case _Field(name):
            if isinstance(value, dict) and name in value:
                return [value[name]]
            if isinstance(value, list) and not allow_missing:
                raise JsonPathError(f"{name} is not found: a list has no fields")
            if not allow_missing:
                raise JsonPathError(f"{name} is not found")
            return []
        case _Wildcard():
            return list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
        case _Descend():
            return list(_descendants(value))
        case _Slice():
            return _sliced(step, value, allow_missing)
        case _Union(parts):
            return [found for part in parts for found in _step(part, value, root, allow_missing)]
        case _Filter():
            rows = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
            return [row for row in rows if _passes(step, row, root)]


def _descendants(value: Any) -> Iterator[Any]:
    yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(child, dict | list):
            yield from _descendants(child)


def _sliced(step: _Slice, value: Any, allow_missing: bool) -> list[Any]:
    if not isinstance(value, list):
        if allow_missing:
            return []
        raise JsonPathError(f"{printed(value)} is not array or slice")
    if not step.single:
        return value[step.start : step.stop : step.step]
    index = step.start or 0
    if -len(value) <= index < len(value):
        return [value[index]]
    if allow_missing:
        return []
    raise JsonPathError(f"array index out of bounds: index {index}, length {len(value)}")


def _passes(step: _Filter, row: Any, root: Any) -> bool:
    return any(all(_holds(*test, row, root) for test in tests) for tests in step.alternatives)


def _holds(left: Any, operator: str | None, right: Any, row: Any, root: Any) -> bool:
    found = _operand(left, row, root)
    if operator is None:
        return bool(found)
    wanted = _operand(right, row, root)
    if not found or not wanted:
        return False
    return _compare(found[0], operator, wanted[0])


def _operand(operand: Any, row: Any, root: Any) -> list[Any]:
    return _select(operand, row, root, allow_missing=True) if isinstance(operand, _Path) else [operand]


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}


def _compare(left: Any, operator: str, right: Any) -> bool:
    if isinstance(left, str) != isinstance(right, str):
        left, right = printed(left), printed(right)
    try:
        return _COMPARISONS[operator](left, right)
    except TypeError:
        return False


class _Parser:
    """Recursive descent over one template."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def _fail(self, message: str) -> JsonPathError:
        return JsonPathError(f"{message} at position {self._at} of {self._text!r}")

    def _peek(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _take(self, text: str) -> bool:
        if self._peek(text):
            self._at += len(text)
            return True
        return False

    def _spaces(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def template(self) -> tuple[_Node, ...]:
        nodes = self._nodes(in_range=False)
        if self._at < len(self._text):
            raise self._fail("unexpected {end}")
        return nodes

    def _nodes(self, *, in_range: bool) -> tuple[_Node, ...]:
        nodes: list[_Node] = []
        while self._at < len(self._text):
            brace = self._text.find("{", self._at)
            if brace != self._at:
                end = len(self._text) if brace < 0 else brace
                nodes.append(_Text(self._text[self._at : end]))
                self._at = end
                continue
            if re.match(r"\{\s*end\s*\}", self._text[brace:]):
                if not in_range:
                    raise self._fail("not in range, nothing to end")
                self._at = self._text.index("}", brace) + 1
                return tuple(nodes)
            self._at += 1
            nodes += self._action()
        if in_range:
            raise self._fail("unterminated range")
        return tuple(nodes)

    def _action(self) -> list[_Node]:
        found: list[_Node] = []
        while True:
            self._spaces()
            if self._at >= len(self._text):
                raise self._fail("unclosed action")
            if self._take("}"):
                return found
            if self._text[self._at] in "\"'":
                found.append(_Text(self._quoted()))
            elif re.match(r"range\b", self._text[self._at :]):
                self._at += len("range")
                self._spaces()
                path = self._path()
                self._spaces()
                if not self._take("}"):
                    raise self._fail("unclosed range")
                found.append(_Range(path, self._nodes(in_range=True)))
                return found
            else:
                found.append(self._path())

    def _quoted(self) -> str:
        quote, self._at = self._text[self._at], self._at + 1
        chars: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            self._at += 1
            if char == quote:
                return "".join(chars)
            if char == "\\" and self._at < len(self._text):
                follow = self._text[self._at]
                self._at += 1
                char = _ESCAPES.get(follow, "\\" + follow)
            chars.append(char)
        raise self._fail("unterminated quoted string")

    def _path(self) -> _Path:
        start = self._at
        absolute = self._take("$")
        if not absolute:
            self._take("@")
        steps: list[_Step] = []
        while self._at < len(self._text):
            if self._take(".."):
                steps.append(_Descend())
                if not self._peek("["):
                    steps.append(self._name())
            elif self._take("."):
                if self._at < len(self._text) and (_NAME.match(self._text, self._at) or self._peek("*")):
                    steps.append(self._name())
            elif self._take("["):
                steps.append(self._bracket())
            elif not steps and _NAME.match(self._text, self._at):
                steps.append(self._name())
            else:
                break
        if self._at == start:
            raise self._fail("unrecognized character")
        return _Path(absolute, tuple(steps))

    def _name(self) -> _Step:
        if self._take("*"):
            return _Wildcard()
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise self._fail("a field name is missing")
        self._at = match.end()
        return _Field(re.sub(r"\\(.)", r"\1", match[0]))

    def _bracket(self) -> _Step:
        self._spaces()
        if self._take("?("):
            return self._filter()
        parts: list[_Step] = []
        while True:
            self._spaces()
            if self._at < len(self._text) and self._text[self._at] in "\"'":
                parts.append(_Field(self._quoted()))
            else:
                end = min((i for i in (self._text.find(c, self._at) for c in ",]") if i >= 0), default=-1)
                if end < 0:
                    raise self._fail("unterminated array")
                parts.append(self._index(self._text[self._at : end].strip()))
                self._at = end
            self._spaces()
            if self._take("]"):
                return parts[0] if len(parts) == 1 else _Union(tuple(parts))
            if not self._take(","):
                raise self._fail("unterminated array")

    def _index(self, text: str) -> _Step:
        if text == "*":
            return _Wildcard()
        match = _SLICE.match(text)
        if match is None or not text:
            raise self._fail(f"invalid array index {text}")
        numbers = [int(part) if part and part != "-" else None for part in match.groups()]
        if numbers[2] is not None and numbers[2] <= 0:
            raise self._fail("step must be > 0")
        return _Slice(numbers[0], numbers[1], numbers[2], single=":" not in text)

    def _filter(self) -> _Filter:
        alternatives: list[tuple[tuple[Any, str | None, Any], ...]] = []
        tests: list[tuple[Any, str | None, Any]] = []
        while True:
            self._spaces()
            left = self._value()
            operator = _OPERATOR.match(self._text, self._at)
            right = None
            if operator:
                self._at = operator.end()
                right = self._value()
            tests.append((left, operator[1] if operator else None, right))
            self._spaces()
            if self._take("&&"):
                continue
            if self._take("||"):
                alternatives.append(tuple(tests))
                tests = []
                continue
            break
        self._spaces()
        if not self._take(")"):
            raise self._fail("unterminated filter")
        self._spaces()
        if not self._take("]"):
            raise self._fail("unterminated filter")
        return _Filter((*alternatives, tuple(tests)))

    def _value(self) -> Any:
        if self._at < len(self._text) and self._text[self._at] in "\"'":
            return self._quoted()
        literal = re.compile(r"-?\d+(\.\d+)?|true\b|false\b").match(self._text, self._at)
        if literal is None:
            return self._path()
        self._at = literal.end()
        return orjson.loads(literal[0])
