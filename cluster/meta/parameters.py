"""Values of query parameters, read as k8s.io/apimachinery/pkg/runtime converts them."""

from __future__ import annotations

import json

from steersman.cluster.meta.errors import BadRequest

_INT64_MAX = (1 << 63) - 1


def is_true(text: str) -> bool:
    """A boolean that is there: whatever is not `0` or `false`, also when it has no value."""
    return text != "0" and text.lower() != "false"


def whole_number(text: str) -> int:
    """A whole number as Go reads it; raises BadRequest."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits.isascii() or not digits.isdigit():
        raise BadRequest(f"strconv.ParseInt: parsing {json.dumps(text)}: invalid syntax")
    number = int(text) if len(digits) < 20 else _INT64_MAX + 1
    if not -_INT64_MAX - 1 <= number <= _INT64_MAX:
        raise BadRequest(f"strconv.ParseInt: parsing {json.dumps(text)}: value out of range")
    return number
