"""Semantic versions.

Source: k8s.io/apiserver/pkg/cel/library/semverlib.go and https://semver.org
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from steersman.cluster.api.cel.errors import EvaluationError
from steersman.cluster.api.cel.overload import function, method, reads_text
from steersman.cluster.api.cel.types import Type
from steersman.cluster.api.cel.values import Opaque

_NUMBER = r"(0|[1-9]\d*)"
_PART = r"(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_PART}(?:\.{_PART})*))?(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?"
)


@dataclass(frozen=True, slots=True)
class Semver(Opaque):
    type: ClassVar[Type] = Type("kubernetes.Semver")
    numbers: tuple[int, int, int]
    before: tuple[str, ...]
    build: str = field(default="", compare=False)

    @property
    def rank(self) -> Any:
        """What versions are ordered by: a pre-release is before the release, numbers are before texts."""
        parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in self.before)
        return (self.numbers, not parts, parts)


def _semver(text: str, normalize: bool = False) -> Semver:
    found = _SEMVER.fullmatch(_normal(text) if normalize else text)
    if found is None:
        raise EvaluationError(f'semver parse error during conversion from string: invalid version "{text}"')
    major, minor, patch, before, build = found.groups()
    return Semver((int(major), int(minor), int(patch)), tuple(before.split(".")) if before else (), build or "")


def _normal(text: str) -> str:
    """The version with three numbers that have no zeros before them, and without a leading `v`."""
    core, mark, rest = re.match(r"v?([^-+]*)([-+]?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    numbers = [part.lstrip("0") or "0" if part.isdigit() else part for part in core.split(".")]
    return ".".join([*numbers, "0", "0"][: max(3, len(numbers))]) + mark + rest


def _is_semver(text: str, normalize: bool = False) -> bool:
    try:
        _semver(text, normalize)
    except EvaluationError:
        return False
    return True


def _compare(left: Semver, right: Semver) -> int:
    return int(left.rank > right.rank) - int(left.rank < right.rank)


_S = "kubernetes.Semver"
FUNCTIONS = (
    *(function("semver", f"{kind} -> {_S}", _semver, reads_text) for kind in ("string", "string, bool")),
    *(function("isSemver", f"{kind} -> bool", _is_semver, reads_text) for kind in ("string", "string, bool")),
    *(
        method(name, f"{_S} -> int", lambda version, index=index: version.numbers[index])
        for index, name in enumerate(("major", "minor", "patch"))
    ),
    method("compareTo", f"{_S}, {_S} -> int", _compare),
    method("isGreaterThan", f"{_S}, {_S} -> bool", lambda a, b: a.rank > b.rank),
    method("isLessThan", f"{_S}, {_S} -> bool", lambda a, b: a.rank < b.rank),
)
