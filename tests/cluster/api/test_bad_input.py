"""Whatever a client sends, the answer is an object or a refusal, never a bug."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from steersman.cluster.api import write
from steersman.cluster.api.rows import ROWS
from steersman.cluster.api.schema.node import SchemaNode
from steersman.cluster.api.steps import settled
from steersman.cluster.meta.errors import ApiError

TEXTS = (
    "", "a", "web", "UPPER", "a/b", "25%", "100m", "Always", "None", "ClusterIP", "1.2.3.4", "x" * 70, "é", "*", "0",
    "RollingUpdate", "Never", "In", "Exists", "kubernetes.io/x", "2020-01-01T00:00:00Z", "ExternalName",
)  # fmt: skip
NAMES = ("spec", "template", "metadata", "containers", "name")


def invent(rng: random.Random, node: SchemaNode, depth: int = 0) -> Any:
    """A value of the right types and otherwise without sense."""
    match node.type:
        case "object" if node.additional is not None:
            return {rng.choice(TEXTS): invent(rng, node.additional, depth + 1) for _ in range(rng.randint(0, 2))}
        case "object":
            if depth > 9:
                return {}
            usual = 0.6 if depth < 2 else 0.25
            return {
                name: invent(rng, child, depth + 1)
                for name, child in node.properties.items()
                if rng.random() < (0.8 if name in node.required or name in NAMES else usual)
            }
        case "array":
            items = node.items
            return (
                [invent(rng, items, depth + 1) for _ in range(rng.choice((0, 1, 1, 2)))] if items and depth < 10 else []
            )
        case "string":
            special = {"byte": ("", "YQ=="), "date-time": ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00.5+01:00")}
            return rng.choice(special.get(node.format, TEXTS))
        case "integer":
            return rng.choice((0, 1, -1, 80, 70000, 2**31 - 1))
        case "number":
            return rng.choice((0, 1.5))
        case "boolean":
            return rng.random() < 0.5
        case "quantity":
            return rng.choice(("1", "-1", "100m", "1Gi", "1e3", 5, 0.5))
        case "int-or-string":
            return rng.choice((0, 5, "25%", "http", "x%"))
    return rng.choice((None, 1, "a", {}, [], {"type": "object"}))


def sent(api: Any, kind: Any, rng: random.Random) -> Any:
    obj = invent(rng, api.registry.schema(kind))
    obj.pop("apiVersion", None)
    obj.pop("kind", None)
    meta = obj.get("metadata") or {}
    for key in ("namespace", "resourceVersion", "uid", "managedFields"):
        meta.pop(key, None)
    if rng.random() < 0.9:
        meta["name"] = "web"
    for key in ("labels", "annotations", "ownerReferences", "finalizers"):
        if rng.random() < 0.8:
            meta.pop(key, None)
    obj["metadata"] = meta
    return write.decode(api.registry, kind, orjson.dumps(obj), "application/json", "Strict")[0]


RESOURCES = sorted({str(kind.resource) for kind in ROWS if not kind.virtual})


@pytest.mark.parametrize("resource", RESOURCES)
def test_invented_objects_are_taken_or_refused(api: Any, resource: str) -> None:
    kind = next(row for row in api.registry.all() if str(row.resource) == resource)
    namespace = "default" if kind.resource.namespaced else ""
    stored: list[Any] = []
    for seed in range(40):
        rng = random.Random(f"{resource} {seed}")
        try:
            obj = settled(write.create(api.registry, kind, sent(api, kind, rng), api.context(), namespace)).obj
            stored.append({**obj, "metadata": {**obj["metadata"], "resourceVersion": "1"}})
            kind.selectable_fields(obj)
        except ApiError as refused:
            assert refused.code < 500
        for old in stored[-1:]:
            for subresource in ("", "status") if "status" in kind.subresources else ("",):
                try:
                    new = sent(api, kind, rng)
                    new["metadata"]["name"] = old["metadata"]["name"]
                    settled(write.update(api.registry, kind, new, old, subresource, api.context()))
                except ApiError as refused:
                    assert refused.code < 500
            options = rng.choice((None, {"propagationPolicy": "Foreground"}, {"gracePeriodSeconds": 0}))
            write.delete(api.registry, kind, old, options, api.context())


def test_deep_patches_are_refused(api: Any) -> None:
    api.create("configmaps", {"metadata": {"name": "a"}})
    kind = api.row("configmaps")
    old = api.get("configmaps", "a")
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    for media in (write.MERGE_PATCH, write.STRATEGIC_PATCH, write.APPLY_PATCH):
        with pytest.raises(ApiError) as refused:
            settled(write.patch(api.registry, kind, old, media, deep, "", api.context()))
        assert refused.value.code < 500
