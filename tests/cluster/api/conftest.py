from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import orjson
import pytest
from msgspec.structs import replace

from steersman.cluster.api import write
from steersman.cluster.api.admission.quota import Charge, settle
from steersman.cluster.api.cel import Decision
from steersman.cluster.api.context import Deletion, WriteContext, Written
from steersman.cluster.api.kinds import Registry
from steersman.cluster.api.row import Kind
from steersman.cluster.api.steps import settled
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.resources import RESOURCE_QUOTAS, Resource

NOW = 1_760_000_000.0


@cache
def load_definitions(minor: str = "1.36") -> dict[str, Any]:
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{minor}.0-local"
    found: dict[str, Any] = json.loads((folder / "_definitions.json").read_text())["$defs"]
    return found


@pytest.fixture(scope="session")
def definitions() -> dict[str, Any]:
    """The OpenAPI definitions of Kubernetes 1.36, as the API server's shell reads and passes them in."""
    return load_definitions()


@dataclass
class Api:
    """An API server without a server: objects in a dict, writes through the pipeline."""

    registry: Registry
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    objects: dict[str, Obj] = field(default_factory=dict)
    reserved: set[str] = field(default_factory=set)
    now: float = NOW
    revision: int = 0

    @staticmethod
    def pod(name: str = "web", **spec: Any) -> Obj:
        return {"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "nginx:1.27"}], **spec}}

    @staticmethod
    def template(**spec: Any) -> Obj:
        containers = [{"name": "main", "image": "nginx:1.27"}]
        return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers, **spec}}

    @classmethod
    def deployment(cls, name: str = "web", **spec: Any) -> Obj:
        selector = {"matchLabels": {"app": "web"}}
        return {"metadata": {"name": name}, "spec": {"selector": selector, "template": cls.template(), **spec}}

    def row(self, plural: str) -> Kind:
        return next(kind for kind in self.registry.all() if kind.resource.plural == plural)

    def context(self, **changes: Any) -> WriteContext:
        base = WriteContext(
            now=self.now,
            new_uid=lambda: f"{self.rng.getrandbits(32):08x}-0000-4000-8000-{self.rng.getrandbits(48):012x}",
            random_suffix=lambda: "".join(self.rng.choice("bcdfg") for _ in range(5)),
            field_manager="test",
            field_validation="Strict",
            lookup=self.lookup,
            list=self.list,
            authorize=lambda question: Decision(allowed=True),
            by_kind=self.registry.by_kind,
        )
        return replace(base, **changes)

    def lookup(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        kind = self.registry.kind(resource.group, resource.version, resource.plural)
        assert kind is not None
        return self.objects.get(kind.key(namespace, name))

    def list(self, resource: Resource, namespace: str | None) -> Iterable[Obj]:
        kind = self.registry.kind(resource.group, resource.version, resource.plural)
        assert kind is not None
        prefix = kind.prefix(namespace or "")
        return [obj for key, obj in sorted(self.objects.items()) if key.startswith(prefix)]

    def stored(self, group: str, plural: str, namespace: str) -> Iterable[Obj]:
        prefix = self.row(plural).prefix(namespace)
        return [obj for key, obj in self.objects.items() if key.startswith(prefix)]

    def decode(self, plural: str, obj: Obj, validation: str = "Strict") -> Obj:
        return write.decode(self.registry, self.row(plural), orjson.dumps(obj), "application/json", validation)[0]

    def prepare(self, plural: str, obj: Obj, namespace: str = "default", **changes: Any) -> Written:
        """Runs a create without keeping what comes of it."""
        kind = self.row(plural)
        where = namespace if kind.resource.namespaced else ""
        return settled(write.create(self.registry, kind, self.decode(plural, obj), self.context(**changes), where))

    def create(self, plural: str, obj: Obj, namespace: str = "default", **changes: Any) -> Obj:
        written = self.prepare(plural, obj, namespace, **changes)
        assert not self.reserved & set(written.reservations)
        return self._keep(plural, written)

    def _keep(self, plural: str, written: Written) -> Obj:
        self.revision += 1
        self._reserve(written.reservations, written.releases)
        meta = {**written.obj["metadata"], "resourceVersion": str(self.revision)}
        obj = {**written.obj, "metadata": meta}
        kind = self.row(plural)
        key = kind.key(meta.get("namespace", ""), meta["name"])
        charge = Charge(kind, self.objects.get(key), None if written.remove else obj)
        quotas = self.list(RESOURCE_QUOTAS, charge.namespace) if charge.namespace else ()
        for quota in settle([charge], quotas, self.stored):
            self.objects[self.row("resourcequotas").key(charge.namespace, quota["metadata"]["name"])] = quota
        if written.remove:
            del self.objects[key]
        else:
            self.objects[key] = obj
        return obj

    def _reserve(self, gained: Mapping[str, Obj | None], released: Iterable[str]) -> None:
        self.reserved |= set(gained)
        self.objects |= {key: obj for key, obj in gained.items() if obj is not None}
        for key in released:
            self.reserved.discard(key)
            self.objects.pop(key, None)

    def update(self, plural: str, new: Obj, subresource: str = "", **changes: Any) -> Obj:
        kind = self.row(plural)
        old = self.get(plural, new["metadata"]["name"], new["metadata"].get("namespace", ""))
        copy = orjson.loads(orjson.dumps(new))
        steps = write.update(self.registry, kind, copy, old, subresource, self.context(**changes))
        return self._keep(plural, settled(steps))

    def change(self, plural: str, name: str, edit: Callable[[Obj], Any], subresource: str = "", **changes: Any) -> Obj:
        """Reads an object, edits a copy and writes it back."""
        kind = self.row(plural)
        old = self.get(plural, name, "default" if kind.resource.namespaced else "")
        copy = orjson.loads(orjson.dumps(old))
        edit(copy)
        return self.update(plural, copy, subresource, **changes)

    def patch(
        self, plural: str, name: str, patch: Any, media: str = write.MERGE_PATCH, subresource: str = "",
        force: bool = False, **changes: Any,
    ) -> Obj:  # fmt: skip
        kind = self.row(plural)
        namespace = "default" if kind.resource.namespaced else ""
        old = self.objects.get(kind.key(namespace, name))
        steps = write.patch(
            self.registry, kind, old, media, orjson.dumps(patch), subresource, self.context(**changes), force,
            namespace, name,
        )  # fmt: skip
        return self._keep(plural, settled(steps))

    def delete(self, plural: str, name: str, options: Obj | None = None) -> Deletion:
        kind = self.row(plural)
        namespace = "default" if kind.resource.namespaced else ""
        key = kind.key(namespace, name)
        deletion = write.delete(self.registry, kind, self.objects[key], options, self.context())
        if deletion.remove:
            del self.objects[key]
            self._reserve({}, deletion.releases)
        else:
            self.objects[key] = deletion.obj
        return deletion

    def get(self, plural: str, name: str, namespace: str = "default") -> Obj:
        return self.objects[self.row(plural).key(namespace, name)]


@pytest.fixture(scope="session")
def session_registry(definitions: dict[str, Any]) -> Registry:
    return Registry(definitions, "1.36")


@pytest.fixture
def api(session_registry: Registry, definitions: dict[str, Any]) -> Api:
    """A fresh cluster with a default namespace and service account; schemas compiled once per session."""
    registry = Registry(definitions, "1.36")
    registry._compiled = session_registry._compiled
    found = Api(registry)
    found.create("namespaces", {"metadata": {"name": "default"}})
    found.create("serviceaccounts", {"metadata": {"name": "default"}})
    return found
