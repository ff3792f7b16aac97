"""From bytes to JSON trees: JSON and YAML as Kubernetes reads them, and what both may say twice.

Decides what is no JSON or YAML at all, in the words of Go's readers; what a tree means is others' business.

Source: sigs.k8s.io/json, sigs.k8s.io/yaml
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import orjson
import yaml

from steersman.cluster.api.jsonfaults import fault
from steersman.cluster.meta.errors import BadRequest, RequestEntityTooLarge

#: the deepest nesting that is followed
DEPTH_MAX = 64
#: maps and lists of one object: each costs its check many times the two bytes that it takes
BRANCHES_MAX = 50_000
#: with so many, those that say who owns which field among them, it is not even read
_BRANCHES_READ_MAX = 4 * BRANCHES_MAX
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
#: aliases expand: a YAML document may not grow beyond this many values
_YAML_NODES_MAX = 200_000


class Malformed(BadRequest):
    """A text that cannot be read; its message is the reader's, for the caller to say what it was read for."""


# ---- JSON


def read_json(body: bytes) -> Any:
    """Reads one JSON document.

    Raises:
        Malformed, RequestEntityTooLarge
    """
    if len(body) > _BRANCHES_READ_MAX and body.count(b"{") + body.count(b"[") > _BRANCHES_READ_MAX:
        bare = _STRING.sub(b"", body)
        if bare.count(b"{") + bare.count(b"[") > _BRANCHES_READ_MAX:
            raise RequestEntityTooLarge(f"the object holds more than {BRANCHES_MAX} maps and lists")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        found = fault(body)
        if found is None:  # Go replaces bytes that are no UTF-8
            try:
                return orjson.loads(body.decode("utf-8", "replace"))
            except orjson.JSONDecodeError:
                found = str(error)
        raise Malformed(found) from None


def name_of(tree: Any) -> str:
    """What Go calls the sort of a JSON value."""
    match tree:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def says_once(body: bytes, tree: Any) -> bool:
    """Whether it can be seen at once that a JSON text names no field twice: each that is lost takes a colon with it."""
    try:
        return b"\\u" not in body and body.count(b":") == orjson.dumps(tree).count(b":")
    except orjson.JSONEncodeError:  # it is nested more deeply than anything that is taken
        return True


class _Rows(list[tuple[str, Any]]):
    """A JSON object as it was written."""


def written_fields(body: bytes) -> Iterator[str]:
    """The paths of all fields of a JSON text in its order: what it names twice comes twice."""
    yield from _fields(json.loads(body.decode("utf-8", "replace"), object_pairs_hook=_Rows), "")


def _fields(tree: Any, path: str) -> Iterator[str]:
    if isinstance(tree, _Rows):
        for key, value in tree:
            here = f"{path}.{key}" if path else key
            yield here
            if isinstance(value, list):
                yield from _fields(value, here)
    else:
        for index, value in enumerate(tree):
            if isinstance(value, list):
                yield from _fields(value, f"{path}[{index}]")


# ---- YAML

#: how YAML 1.1 writes numbers, without those to the base 60: Kubernetes' reader takes `12:30:45` for text
_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)\Z"),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?\Z|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"
    ),
}
#: digits of an integer that are read one by one; with more it is a floating number in any case
_DIGITS_MAX = 400


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.1 as Kubernetes reads it: timestamps stay text, and what a document may grow to is counted as it grows.

    Args:
        repeated: (line, key) of what is said again.
    """

    def __init__(self, stream: bytes) -> None:
        self._nodes_left = _YAML_NODES_MAX
        self.repeated: list[tuple[int, str]] = []
        super().__init__(stream)

    def _spend(self, nodes: int) -> None:
        self._nodes_left -= nodes
        if self._nodes_left < 0:
            raise yaml.YAMLError("document contains excessive aliasing")

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        """Called by the parser before each node that it makes."""
        self._spend(1)

    def flatten_mapping(self, node: Any) -> None:
        """Merges (`<<`) copy: a few lines of them would fill any memory."""
        self._note_repeated(node)
        super().flatten_mapping(node)
        self._spend(len(node.value))

    def _note_repeated(self, node: Any) -> None:
        keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
        if len(set(keys)) == len(keys):
            return
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key.value, str) and key.value in seen:
                self.repeated.append((value.start_mark.line + 1, key.value))
            elif isinstance(key.value, str):
                seen.add(key.value)

    def construct_yaml_int(self, node: Any) -> int | float:
        text = str(self.construct_scalar(node)).replace("_", "")
        if len(text) > _DIGITS_MAX:
            raise yaml.YAMLError("the number has too many digits")
        digits = text.lstrip("+-")
        if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
            text = text.replace("0", "0o", 1)
        return int(text, 0)

    def construct_yaml_float(self, node: Any) -> float:
        text = str(self.construct_scalar(node)).replace("_", "").lower()
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rows if tag not in ("tag:yaml.org,2002:timestamp", *_NUMBERS)]
    for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, list("-+.0123456789"))

#: integers from here on have no floating value
_FLOAT_MAX = 10**308


def read_yaml(body: bytes) -> tuple[Any, list[str]]:
    """Reads one YAML document (JSON is YAML).

    Returns:
        its tree, and a sentence for each key that it names again.

    Raises:
        Malformed: no YAML, more than one document, or aliases that expand without reason.
    """
    if body[:1] == b"{":  # clients apply JSON under the name of YAML
        try:
            tree = orjson.loads(body)
            if says_once(body, tree):
                return tree, []
        except orjson.JSONDecodeError:
            pass
    try:
        loader = _Loader(body)
        try:
            tree = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise Malformed(f"yaml: {_yaml_fault(error)}") from None
    except (RecursionError, ValueError, TypeError) as error:
        raise Malformed(f"yaml: {' '.join(str(error).split())}") from None
    repeated = [f'line {line}: key "{key}" already set in map' for line, key in sorted(loader.repeated)]
    return _plain(tree, [_YAML_NODES_MAX]), repeated


def _yaml_fault(error: yaml.YAMLError) -> str:
    """What go-yaml says: the problem, after the line unless it is the first."""
    problem = getattr(error, "problem", None)
    if not problem:
        return " ".join(str(error).split())
    mark, context = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    line = 0
    if mark is not None and mark.line:
        line = mark.line + isinstance(error, yaml.scanner.ScannerError)
    elif context is not None:
        line = context.line
    return f"line {line}: {problem}" if line else str(problem)


def parse_yaml(body: bytes) -> Any:
    """The tree of one YAML document; raises as `read_yaml`."""
    return read_yaml(body)[0]


def _plain(tree: Any, left: list[int], depth: int = 0) -> Any:
    """Copies what aliases share, and turns keys into strings."""
    left[0] -= 1
    if left[0] < 0:
        raise Malformed("yaml: document contains excessive aliasing")
    if depth > DEPTH_MAX:
        raise BadRequest(f"the object is nested deeper than {DEPTH_MAX} levels")
    if isinstance(tree, dict):
        return {_key(key): _plain(value, left, depth + 1) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_plain(value, left, depth + 1) for value in tree]
    if isinstance(tree, bytes):
        return tree.decode("utf-8", "replace")
    if isinstance(tree, (int, float)):
        return _number(tree)
    if isinstance(tree, str):
        return tree if tree.isascii() else tree.encode("utf-8", "replace").decode()
    return None if tree is None else str(tree)


def _number(value: float) -> float:
    """A number as JSON can carry it: integers of more than 64 bits become floating, as in Go."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        value = float(value) if abs(value) < _FLOAT_MAX else math.inf
    if isinstance(value, float) and not math.isfinite(value):
        raise Malformed(f"json: unsupported value: {value}")
    return value


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return key if isinstance(key, str) else str(key)
