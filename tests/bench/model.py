"""What a pod costs in the object model: decoding, defaults, validation, and the whole create, in µs of one core."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import orjson
from tests.bench.figures import Figure, median

from steersman.cluster.api import write
from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.protobuf.codec import encode
from steersman.cluster.api.rules.metadata import validate_metadata
from steersman.cluster.api.steps import settled


def _pod() -> dict[str, Any]:
    container = {
        "image": "registry.example.com/team/application:1.2.3",
        "args": ["--listen=0.0.0.0:8080", "--log-level=info", "--feature-gates=a=true,b=false"],
        "env": [{"name": f"SETTING_{i}", "value": f"value-number-{i}-of-this-container"} for i in range(8)],
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "config", "mountPath": "/etc/app"}],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "initialDelaySeconds": 5},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 5},
        "securityContext": {"runAsNonRoot": True, "allowPrivilegeEscalation": False},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "application-7d4b9c6f5-x2x7k",
            "labels": {f"app.example.com/label-{i}": f"value-{i}" for i in range(8)},
            "annotations": {f"example.com/annotation-{i}": "some longer text " * 4 for i in range(5)},
        },
        "spec": {
            "containers": [{**container, "name": "main"}, {**container, "name": "side"}],
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "config", "configMap": {"name": "app"}}],
            "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "apps", "effect": "NoSchedule"}],
            "nodeSelector": {"kubernetes.io/os": "linux"},
        },
    }


PROTOBUF = "application/vnd.kubernetes.protobuf"
ROUNDS, CALLS = 7, 300


def _cost_us(name: str, run: Callable[[], Any]) -> Figure:
    found = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(CALLS):
            run()
        found.append((time.process_time() - start) / CALLS * 1e6)
    return median(f"model.{name}", found, "us")


def run() -> Iterator[Figure]:
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / "v1.36.0-local"
    registry = Registry(json.loads((folder / "_definitions.json").read_text())["$defs"], "1.36")
    kind = registry.kind("", "v1", "pods")
    assert kind is not None
    body = orjson.dumps(_pod())
    protobuf = encode(_pod())
    here = {"metadata": {"name": "here"}}
    context = WriteContext(
        now=1.76e9, new_uid=lambda: "00000000-0000-4000-8000-000000000000", random_suffix=lambda: "abcde",
        field_manager="bench", lookup=lambda _resource, _namespace, _name: here,
    )  # fmt: skip

    def read() -> dict[str, Any]:
        return write.decode(registry, kind, body)[0]

    def model() -> None:
        obj = read()
        obj["metadata"]["namespace"] = "default"
        kind.defaults(obj)
        assert not validate_metadata(obj["metadata"], True, kind.name_errors) + kind.validate(obj)

    def create() -> write.Written:
        return settled(write.create(registry, kind, read(), context, "default"))

    stored = create().obj
    stored_body = orjson.dumps({**stored, "status": {"phase": "Running", "podIP": "10.0.0.1"}})

    def status() -> write.Written:
        new, _ = write.decode(registry, kind, stored_body)
        return settled(write.update(registry, kind, new, stored, "status", context))

    yield Figure("model.body", len(body), "bytes")
    yield _cost_us("decode", read)
    yield _cost_us("decode_protobuf", lambda: write.decode(registry, kind, protobuf, PROTOBUF))
    yield _cost_us("decode_default_validate", model)
    yield _cost_us("create", create)
    yield _cost_us("status_update", status)
