from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest


@cache
def load_definitions(minor: str = "1.36") -> dict[str, Any]:
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{minor}.0-local"
    found: dict[str, Any] = json.loads((folder / "_definitions.json").read_text())["$defs"]
    return found


@pytest.fixture(scope="session")
def definitions() -> dict[str, Any]:
    """The OpenAPI definitions of Kubernetes 1.36, as the API server's shell reads and passes them in."""
    return load_definitions()
