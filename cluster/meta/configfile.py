"""What the configuration files of `apiserver.config.k8s.io` have in common: versions, fields and how mistakes are told.

Source: k8s.io/apiserver/pkg/apis/apiserver and k8s.io/apimachinery/pkg/util/validation/field/errors.go
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import yaml

_GROUP = "apiserver.config.k8s.io"


class Expression(Protocol):
    """An expression over one variable.

    Args:
        source: its text.
    """

    source: str

    def __call__(self, value: Any) -> Any:
        """Returns what it comes to as a JSON value; raises ValueError where it fails."""
        ...

    def selects(self, field: str) -> bool:
        """Whether it reads this field of its variable."""
        ...


#: compiles an expression over a variable of this name, which must be a condition or may be anything; raises ValueError
#: with what is wrong with it
Compile = Callable[[str, str, bool], Expression]


class Mistakes(list[str]):
    """What is wrong with a file, in Kubernetes' words; the first words name the field."""

    def required(self, path: str, detail: str = "") -> None:
        self.append(f"{path}: Required value" + (f": {detail}" if detail else ""))

    def invalid(self, path: str, value: Any, detail: str) -> None:
        self.append(f"{path}: Invalid value: {json.dumps(value, default=str)}: {detail}")

    def duplicate(self, path: str, value: str) -> None:
        self.append(f"{path}: Duplicate value: {json.dumps(value)}")

    def unsupported(self, path: str, value: Any, known: Iterable[str]) -> None:
        listed = ", ".join(f'"{one}"' for one in known)
        self.append(f"{path}: Unsupported value: {json.dumps(value, default=str)}: supported values: {listed}")

    def too_many(self, path: str, count: int, most: int) -> None:
        self.append(f"{path}: Too many: {count}: must have at most {most} items")

    def unknown(self, row: Mapping[str, Any], known: Iterable[str], path: str) -> None:
        """Tells fields that do not exist: a file is read strictly."""
        for field in sorted(set(row) - set(known)):
            self.append(f'strict decoding error: unknown field "{f"{path}.{field}" if path else field}"')

    def mapping(self, value: Any, path: str, known: Iterable[str]) -> Mapping[str, Any]:
        """The mapping at a place of the file; an empty one, told, where there is something else."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.append(f"{path}: must be a mapping")
            return {}
        self.unknown(value, known, path)
        return value

    def rows(self, value: Any, path: str) -> list[Any]:
        """The list at a place of the file; an empty one, told, where there is something else."""
        if value is None:
            return []
        if not isinstance(value, list):
            self.append(f"{path}: must be a list")
            return []
        return value


def read_tree(text: str, kind: str, versions: Iterable[str]) -> Mapping[str, Any]:
    """The document in a file.

    Raises:
        ValueError: it is none, or of another kind or version.
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {error}") from None
    if not isinstance(tree, dict) or tree.get("kind") != kind:
        raise ValueError(f"kind: must be {kind}")
    known = [f"{_GROUP}/{version}" for version in versions]
    if tree.get("apiVersion") not in known:
        raise ValueError(f"apiVersion: must be one of {', '.join(known)}")
    return tree
