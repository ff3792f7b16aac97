"""Regular expressions in RE2's syntax and with its linear time.

Source: k8s.io/apiserver/pkg/cel/library/regex.go
"""

from __future__ import annotations

from typing import Any

import re2

from steersman.cluster.api.cel.errors import EvaluationError
from steersman.cluster.api.cel.overload import function, matches_pattern, method
from steersman.cluster.meta.remembered import remembered

#: compiled patterns that are kept
_PATTERNS_MAX = 1024
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False


@remembered(_PATTERNS_MAX)
def compiled(pattern: str) -> Any:
    """Returns a pattern, compiled; raises EvaluationError."""
    try:
        return re2.compile(pattern, _OPTIONS)
    except re2.error as error:
        raise EvaluationError(f"error parsing regexp: {_detail(error, pattern)}") from None


#: what Go's parser says where the one in C++ says something else
_GO_WORDS = {
    "missing )": "missing closing )", "missing ]": "missing closing ]",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator", "invalid repetition size": "invalid repeat count",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid named capture group": "invalid named capture", "trailing \\": "trailing backslash at end of expression",
}  # fmt: skip


def _detail(error: Exception, pattern: str) -> str:
    """The error in Go's words, with the part of the pattern that it is about."""
    text = error.args[0] if error.args else ""
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    what, _, part = text.partition(": ")
    if what in ("missing )", "unexpected )"):
        part = pattern
    return f"{_GO_WORDS.get(what, what)}: `{part}`"


def _matches(text: str, pattern: str) -> bool:
    return compiled(pattern).search(text) is not None


def _find(text: str, pattern: str) -> str:
    found = compiled(pattern).search(text)
    return found[0] if found is not None else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found: list[str] = []
    for match in compiled(pattern).finditer(text):
        if 0 <= limit <= len(found):
            break
        found.append(match[0])
    return found


FUNCTIONS = (
    function("matches", "string, string -> bool", _matches, matches_pattern),
    method("matches", "string, string -> bool", _matches, matches_pattern),
    method("find", "string, string -> string", _find, matches_pattern),
    method("findAll", "string, string -> list(string)", _find_all, matches_pattern),
    method("findAll", "string, string, int -> list(string)", _find_all, matches_pattern),
)
