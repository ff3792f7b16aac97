"""kubernetes-lite: the dynamic client of client-go itself, as a Python library.

It is installed beside the others for this test alone, since it wants an older orjson than the product has; and it
brings Go's runtime along, so that it runs in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compat.python.conftest import Place

_WHEEL = "kubernetes_lite==0.1.0"

_SCRIPT = """
import json
from kubernetes_lite.client import DynamicClient
from kubernetes_lite.errors import ConflictError, NotFoundError

maps = DynamicClient().resource("v1", "ConfigMap")
body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "lite", "namespace": "default"}}
said = {}
made = maps.create({**body, "data": {"a": "1"}})
watch = maps.watch(namespace="default", resource_version=made["metadata"]["resourceVersion"])
found = maps.apply({**body, "data": {"b": "2"}}, field_manager="go")
said["applied"] = dict(found["data"])
said["managers"] = sorted(row["manager"] for row in found["metadata"]["managedFields"])
found = maps.patch("lite", "application/merge-patch+json", {"data": {"a": None}}, namespace="default")
said["patched"] = dict(found["data"])
try:
    maps.update({**made, "data": {"c": "3"}})
except ConflictError as error:
    said["stale"] = "the object has been modified" in str(error)
rows = maps.list(namespace="default", field_selector="metadata.name=lite")["items"]
said["listed"] = [row["metadata"]["name"] for row in rows]
maps.delete(name="lite", namespace="default")
try:
    maps.get(name="lite", namespace="default")
except NotFoundError as error:
    said["gone"] = str(error)
said["events"] = []
for event in watch:
    said["events"].append(event["Type"])
    if event["Type"] == "DELETED":
        break
watch.stop()
said["nodes"] = len(DynamicClient().resource("v1", "Node").list()["items"])
print(json.dumps(said))
"""


def test_client_go_works_from_python(simulated: Place, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), _WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        pytest.skip(f"{_WHEEL} cannot be had: {done.stderr[-500:]}")
    run = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env={**simulated.environment, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert said == {
        "applied": {"a": "1", "b": "2"},
        "managers": sorted(["go", Path(sys.executable).name]),
        "patched": {"b": "2"},
        "stale": True,
        "listed": ["lite"],
        "gone": 'configmaps "lite" not found',
        "events": ["MODIFIED", "MODIFIED", "DELETED"],
        "nodes": 1,
    }
