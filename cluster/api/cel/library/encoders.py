"""Base64.

Source: github.com/google/cel-go/ext/encoders.go
"""

from __future__ import annotations

import base64
import binascii

from steersman.cluster.api.cel.errors import EvaluationError
from steersman.cluster.api.cel.overload import first_size, function, reads_text


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise EvaluationError("illegal base64 data") from None


FUNCTIONS = (
    function("base64.encode", "bytes -> string", lambda raw: base64.b64encode(raw).decode(), reads_text),
    function("base64.decode", "string -> bytes", _decode, reads_text, first_size),
)
