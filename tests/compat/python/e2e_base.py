"""A pytest plugin for the tests that the official clients ship: the module that tells them which cluster to use.

Their `e2e_test.base` is in no wheel; it answers with the cluster of $KUBECONFIG.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from types import ModuleType
from typing import Any


def _configuration(package: str) -> Any:
    config = importlib.import_module(f"{package}.config")
    found = importlib.import_module(f"{package}.client").Configuration()
    loading = config.load_kube_config(client_configuration=found)
    if asyncio.iscoroutine(loading):
        asyncio.run(loading)
    return found


for _package in ("kubernetes", "kubernetes.aio", "kubernetes_asyncio"):
    _name = f"{_package}.e2e_test"
    _base = ModuleType(f"{_name}.base")
    _base.get_e2e_configuration = lambda package=_package: _configuration(package)  # type: ignore[attr-defined]
    sys.modules |= {_name: ModuleType(_name), f"{_name}.base": _base}
    sys.modules[_name].base = _base  # type: ignore[attr-defined]
