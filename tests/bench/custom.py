"""What expressions and custom resources cost, in µs of one core: compile, evaluate, and create an object with rules."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import orjson
from tests.bench.figures import Figure, median

from steersman.cluster.api import cel, write
from steersman.cluster.api.context import WriteContext
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.steps import settled

ROUNDS, CALLS = 7, 300
STRING, INTEGER = {"type": "string", "maxLength": 63}, {"type": "integer"}
SPEC = {
    "type": "object",
    "properties": {
        "replicas": INTEGER,
        "maxReplicas": INTEGER,
        "image": STRING,
        "items": {
            "type": "array", "maxItems": 20,
            "items": {"type": "object", "properties": {"name": STRING, "port": INTEGER}},
        },
    },
}  # fmt: skip
#: name to rule
RULES = {
    "compare": "self.replicas <= self.maxReplicas",
    "has": "!has(self.image) || self.image.startsWith('registry')",
    "all-10": "self.items.all(i, i.name.startsWith('item') && i.port > 0)",
    "unique-10": "self.items.all(a, self.items.exists_one(b, a.name == b.name))",
    "matches": "self.image.matches('^[a-z0-9.-]+(/[a-z0-9._-]+)*(:[a-z0-9.]+)?$')",
}
VALUE = {
    "replicas": 3, "maxReplicas": 5, "image": "registry.example.com/team/app:1.2.3",
    "items": [{"name": f"item-{index}", "port": 8000 + index} for index in range(10)],
}  # fmt: skip


def _cost_us(name: str, run: Callable[[], Any]) -> Figure:
    found = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(CALLS):
            run()
        found.append((time.process_time() - start) / CALLS * 1e6)
    return median(f"custom.{name}", found, "us")


def run() -> Iterator[Figure]:
    kind = cel.schema_type(SPEC, "self")
    assert kind is not None
    declared = cel.Declarations(variables={"self": kind})
    for name, rule in RULES.items():
        program = cel.compile(rule, declared)
        yield _cost_us(f"compile-{name}", lambda rule=rule: cel.compile(rule, declared))
        yield _cost_us(f"evaluate-{name}", lambda program=program: program.evaluate({"self": VALUE}, cel.Budget(1e7)))
    for name, rules in (("plain", []), ("with-rules", list(RULES.values()))):
        yield _cost_us(f"create-{name}", _creation([{"rule": rule} for rule in rules]))


def _creation(rules: list[Any]) -> Callable[[], Any]:
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / "v1.36.0-local"
    registry = Registry(json.loads((folder / "_definitions.json").read_text())["$defs"], "1.36")
    schema = {"type": "object", "properties": {"spec": {**SPEC, "x-kubernetes-validations": rules}}}
    (row,) = registry.add_crd({
        "metadata": {"name": "apps.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "apps", "kind": "App"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    })  # fmt: skip
    here = {"metadata": {"name": "here"}}
    context = WriteContext(
        now=1.76e9, new_uid=lambda: "00000000-0000-4000-8000-000000000000", random_suffix=lambda: "abcde",
        field_manager="bench", lookup=lambda _resource, _namespace, _name: here,
    )  # fmt: skip
    body = orjson.dumps({"apiVersion": "example.com/v1", "kind": "App", "metadata": {"name": "a"}, "spec": VALUE})

    def create() -> Any:
        obj = write.decode(registry, row, body)[0]
        return settled(write.create(registry, row, obj, context, "default"))

    create()
    return create
