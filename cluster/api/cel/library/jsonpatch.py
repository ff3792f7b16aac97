"""What mutations need to write JSON patches.

Source: k8s.io/apiserver/pkg/cel/library/jsonpatch.go
"""

from __future__ import annotations

from steersman.cluster.api.cel.overload import function, reads_text


def _escape_key(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


FUNCTIONS = (function("jsonpatch.escapeKey", "string -> string", _escape_key, reads_text),)
