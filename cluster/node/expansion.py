"""`$(VAR)` references in commands, arguments and environment values.

Source: k8s.io/kubernetes/third_party/forked/golang/expansion/expand.go
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(?:\$|\(([^()]*)\))")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Returns the text with `$(NAME)` replaced; unknown names stay as they are, `$$` stands for `$`."""
    if "$" not in text:
        return text

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match[1], match[0])

    return _REFERENCE.sub(value, text)


def expand_strict(text: str, variables: Mapping[str, str]) -> str:
    """Returns the text with every reference replaced (`subPathExpr`).

    Raises:
        KeyError: a variable is unknown; the argument is its name.
    """
    for match in _REFERENCE.finditer(text):
        if match[0] != "$$" and match[1] not in variables:
            raise KeyError(match[1])
    return expand(text, variables)
