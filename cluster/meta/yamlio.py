"""YAML as Kubernetes' tools read and write it: no dates, no sexagesimal numbers, `1e3` is a number, keys unique.

Source: sigs.k8s.io/yaml (YAML 1.1 scalars with Go's number forms)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_BOOL = re.compile(r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$")
_INT = re.compile(r"^(?:[-+]?0b[0-1_]+|[-+]?0o?[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


class Loader(_Loader):  # type: ignore[misc]
    """Reads manifests."""


class Dumper(_Dumper):  # type: ignore[misc]
    """Writes objects; quotes whatever some YAML reader might take for something else."""


for _class in (Loader, Dumper):
    _class.yaml_implicit_resolvers = {
        char: [(tag, pattern) for tag, pattern in rows if tag.rpartition(":")[2] in ("null", "merge", "value")]
        for char, rows in _class.yaml_implicit_resolvers.items()
    }
    _class.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("yYnNtTfFoO"))
    _class.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^[yYnN]$"), list("yYnN"))
Dumper.add_implicit_resolver("tag:yaml.org,2002:timestamp", re.compile(r"^\d{4}-\d\d?-\d\d?"), list("0123456789"))
Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?\d+(:[0-5]?\d)+"), list("-+0123456789"))


_STRING = "tag:yaml.org,2002:str"


def _string(dumper: Any, text: str) -> Any:
    """Blocks for texts of several lines, double quotes for what would read as something else."""
    if "\n" in text and "\t" not in text and not any(line != line.rstrip() for line in text.split("\n")):
        return dumper.represent_scalar(_STRING, text, style="|")
    plain = text and dumper.resolve(yaml.ScalarNode, text, (True, False)) == _STRING
    return dumper.represent_scalar(_STRING, text, style=None if plain else '"')


def _int(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    digits = text.lstrip("+-")
    if digits.startswith(("0x", "0b", "0o")):
        value = int(digits, 0)
    else:
        value = int(digits, 8) if len(digits) > 1 and digits.startswith("0") else int(digits)
    return -value if text.startswith("-") else value


def _float(loader: Any, node: Any) -> float | int:
    text = loader.construct_scalar(node).replace("_", "").lower()
    special = text.lstrip("+-")
    if special in (".inf", ".nan"):
        return float(text.replace(".", ""))
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


class DuplicateKey(yaml.MarkedYAMLError):
    """A mapping names a key twice."""


def _mapping(loader: Any, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        if isinstance(key_node, yaml.ScalarNode):
            if key_node.value in seen:
                raise DuplicateKey(problem=f'key "{key_node.value}" is already set', problem_mark=key_node.start_mark)
            seen.add(key_node.value)
    loader.flatten_mapping(node)
    return {_key(loader, key): loader.construct_object(value, deep=True) for key, value in node.value}


def _key(loader: Any, node: yaml.Node) -> str:
    """Keys of JSON objects are strings, however YAML would read them."""
    if not isinstance(node, yaml.ScalarNode):
        raise yaml.constructor.ConstructorError(None, None, "keys must be scalars", node.start_mark)
    return str(node.value)


Dumper.add_representer(str, _string)
Loader.add_constructor("tag:yaml.org,2002:int", _int)
Loader.add_constructor("tag:yaml.org,2002:float", _float)
Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def documents(text: str | bytes) -> Iterator[tuple[Any, yaml.Node]]:
    """Yields each document as a value, with the tree of nodes that knows its lines; empty ones are left out.

    Raises:
        yaml.YAMLError: the text is no YAML; its `problem_mark` knows where.
    """
    loader = Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            value = loader.construct_document(node)
            if value is not None:
                yield value, node
    finally:
        loader.dispose()


def load(text: str | bytes) -> Any:
    """Returns the first document; raises yaml.YAMLError."""
    return next((value for value, _ in documents(text)), None)


def dump(value: Any) -> str:
    """Returns the value as YAML, keys sorted, long lines kept."""
    text: str = yaml.dump(value, Dumper=Dumper, sort_keys=True, allow_unicode=True, width=1 << 30)
    return text
