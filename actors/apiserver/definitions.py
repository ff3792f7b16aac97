"""Reads the OpenAPI definitions of a Kubernetes minor version from the package `kubernetes-validate`."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson


@lru_cache(maxsize=2)
def read_definitions(version: str) -> dict[str, Any]:
    """Returns the definitions by name; shared by the servers of a process, not to be changed.

    Args:
        version: the minor version, as `1.36`.

    Raises:
        LookupError: the package does not carry that version; the message names those it does.
    """
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or spec.origin is None:
        raise LookupError("the package kubernetes-validate is not installed")
    root = Path(spec.origin).parent / "kubernetes-json-schema"
    path = root / f"v{version}.0-local" / "_definitions.json"
    if not path.is_file():
        known = sorted({p.parent.name[1:].rpartition(".0-")[0] for p in root.glob("v*-local/_definitions.json")})
        raise LookupError(f"Kubernetes {version} is not known; choose one of {', '.join(known)}")
    found: dict[str, Any] = orjson.loads(path.read_bytes())["$defs"]
    return found
