"""What several managers' applies and updates come to, step by step; the cases are those of structured-merge-diff.

Each step is an apply, a forced apply or an update of the spec of a pod (where lists are keyed, sets or atomic), or the
words of a conflict. At the end stand the spec and the paths that each manager owns.
"""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api import ssa
from steersman.cluster.api.fieldset import paths
from steersman.cluster.api.schema.node import SchemaNode, SchemaSet
from steersman.cluster.meta.errors import Conflict
from steersman.cluster.meta.objects import Obj


@pytest.fixture(scope="module")
def pod(definitions: Obj) -> SchemaNode:
    return SchemaSet(definitions).node("io.k8s.api.core.v1.Pod")


def c(*names: str, **more: Any) -> dict[str, Any]:
    """Containers by name, all with the same fields."""
    return {"containers": [{"name": name, **more} for name in names]}


def pod_of(spec: Obj, finalizers: Any = None) -> Obj:
    meta: Obj = {"name": "web"} if finalizers is None else {"name": "web", "finalizers": finalizers}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def a(name: str) -> str:
    return f'.spec.containers[name="{name}"]'


CASES: dict[str, tuple[list[tuple[str, str, Any]], Obj, dict[str, list[str]]]] = {
    "an item goes with its only applier": (
        [("apply", "one", c("a", "b", image="x")), ("apply", "one", c("a", image="x"))],
        c("a", image="x"),
        {"one": [a("a"), a("a") + ".image", a("a") + ".name"]},
    ),
    "an item stays while another applies it": (
        [("apply", "one", c("a", "b")), ("apply", "two", c("b", "c")), ("apply", "one", c("a"))],
        c("a", "b", "c"),
        {"one": [a("a"), a("a") + ".name"], "two": [a("b"), a("b") + ".name", a("c"), a("c") + ".name"]},
    ),
    "a field goes and its item stays": (
        [("apply", "one", c("a", image="x")), ("apply", "two", c("a", command=["y"])), ("apply", "one", c("a"))],
        c("a", command=["y"]),
        {"one": [a("a"), a("a") + ".name"], "two": [a("a"), a("a") + ".command", a("a") + ".name"]},
    ),
    "what an updater adds is not the applier's to remove": (
        [("apply", "one", c("a")), ("update", "kubelet", {**c("a", "b"), "nodeName": "n"}), ("apply", "one", c("a"))],
        {**c("a", "b"), "nodeName": "n"},
        {"one": [a("a"), a("a") + ".name"], "kubelet": [a("b"), a("b") + ".name", ".spec.nodeName"]},
    ),
    "what an updater changed stays when the applier leaves it out": (
        [("apply", "one", c("a", image="x")), ("update", "editor", c("a", image="y")), ("apply", "one", c("a"))],
        c("a", image="y"),
        {"one": [a("a"), a("a") + ".name"], "editor": [a("a") + ".image"]},
    ),
    "what an updater changed conflicts when it is applied again": (
        [("apply", "one", c("a", image="x")), ("update", "editor", c("a", image="y")),
         ("conflict", "one", c("a", image="x"))],
        c("a", image="y"),
        {"one": [a("a"), a("a") + ".name"], "editor": [a("a") + ".image"]},
    ),
    "force takes it back, and leaves nothing of the other": (
        [("apply", "one", c("a", image="x")), ("update", "editor", c("a", image="y")),
         ("force", "one", c("a", image="z"))],
        c("a", image="z"),
        {"one": [a("a"), a("a") + ".image", a("a") + ".name"]},
    ),
    "equal values are shared and then outlive either": (
        [("apply", "one", {"nodeName": "n"}), ("apply", "two", {"nodeName": "n"}), ("apply", "one", {})],
        {"nodeName": "n"},
        {"one": [".spec"], "two": [".spec.nodeName"]},
    ),
    "the last owner takes the value with it": (
        [("apply", "one", {"nodeName": "n"}), ("apply", "two", {"nodeName": "n"}), ("apply", "one", {}),
         ("apply", "two", {})],
        {},
        {"one": [".spec"], "two": [".spec"]},
    ),
    "an atomic list is owned whole": (
        [("apply", "one", {"tolerations": [{"key": "a"}]}), ("conflict", "two", {"tolerations": [{"key": "b"}]})],
        {"tolerations": [{"key": "a"}]},
        {"one": [".spec.tolerations"]},
    ),
    "an atomic map is owned whole": (
        [("apply", "one", {"nodeSelector": {"a": "b"}}), ("force", "two", {"nodeSelector": {"c": "d"}})],
        {"nodeSelector": {"c": "d"}},
        {"two": [".spec.nodeSelector"]},
    ),
    "keys of two fields": (
        [("apply", "one", c("a", ports=[{"containerPort": 1, "protocol": "TCP"}])),
         ("apply", "two", c("a", ports=[{"containerPort": 1, "protocol": "UDP"}])),
         ("apply", "one", c("a"))],
        c("a", ports=[{"containerPort": 1, "protocol": "UDP"}]),
        {"one": [a("a"), a("a") + ".name"],
         "two": [a("a"), a("a") + ".name", a("a") + '.ports[containerPort=1,protocol="UDP"]',
                 a("a") + '.ports[containerPort=1,protocol="UDP"].containerPort',
                 a("a") + '.ports[containerPort=1,protocol="UDP"].protocol']},
    ),
    "an update that removes an item frees it": (
        [("apply", "one", c("a", "b")), ("update", "editor", c("a"))],
        c("a"),
        {"one": [a("a"), a("a") + ".name"]},
    ),
    "an apply brings back what an update removed": (
        [("apply", "one", c("a", "b")), ("update", "editor", c("a")), ("apply", "one", c("a", "b"))],
        c("a", "b"),
        {"one": [a("a"), a("a") + ".name", a("b"), a("b") + ".name"]},
    ),
    "the order is the last applier's": (
        [("apply", "one", c("a", "b", "c")), ("apply", "one", c("c", "a", "b"))],
        c("c", "a", "b"),
        {"one": [path for name in "abc" for path in (a(name), a(name) + ".name")]},
    ),
}  # fmt: skip

#: structured-merge-diff's merge/duplicates_test.go, with environment variables as its items
DUPLICATES: dict[str, tuple[list[tuple[str, str, str]], str, dict[str, str]]] = {
    "items of one key are owned as one": (
        [("update", "one", "a1 a2 b3")], "a1 a2 b3", {"one": "env a b b.name b.value"}
    ),
    "who changes one of them owns them": (
        [("update", "one", "a1 a2 b3"), ("update", "two", "a1 a3 b3")], "a1 a3 b3",
        {"one": "env b b.name b.value", "two": "a"},
    ),
    "who adds a second owns both": (
        [("update", "one", "a1 b3"), ("update", "two", "a1 a2 b3")], "a1 a2 b3",
        {"one": "env b b.name b.value", "two": "a"},
    ),
    "who takes the second away owns what is left": (
        [("update", "one", "a1 a2 b3"), ("update", "two", "a1 b3")], "a1 b3",
        {"one": "env b b.name b.value", "two": "a a.name a.value"},
    ),
    "one more item is nothing to them": (
        [("update", "one", "a1 a2"), ("update", "two", "a1 a2 b3")], "a1 a2 b3",
        {"one": "env a", "two": "b b.name b.value"},
    ),
    "an apply of one conflicts, and replaces both by force": (
        [("update", "one", "a1 a2 b3"), ("conflict", "two", "a2"), ("force", "two", "a3")], "a3 b3",
        {"one": "env b b.name b.value", "two": "a a.name a.value"},
    ),
    "an apply of another leaves them": (
        [("update", "one", "a1 a2 b3"), ("force", "two", "b4")], "a1 a2 b4",
        {"one": "env a b b.name", "two": "b b.name b.value"},
    ),
    "they stay when their applier leaves the one out that was his": (
        [("apply", "one", "a1 b3"), ("update", "two", "a1 a2 b3"), ("apply", "one", "b3")], "a1 a2 b3",
        {"one": "b b.name b.value", "two": "a"},
    ),
}  # fmt: skip


def env(text: str) -> list[Obj]:
    return [{"name": item[0], "value": item[1]} for item in text.split()]


def env_path(text: str) -> str:
    key, dot, field = text.partition(".")
    base = a("c") + ".env"
    return base if text == "env" else f'{base}[name="{key}"]{dot}{field}'


@pytest.mark.parametrize("name", DUPLICATES)
def test_items_that_share_a_key_are_one(pod: SchemaNode, name: str) -> None:
    steps, left, owned = DUPLICATES[name]
    frame = pod_of({"containers": [{"name": "c"}]})
    live: Obj = ssa.track_update(pod, None, frame, manager="base", api_version="v1", now=0)
    for operation, manager, text in steps:
        obj = pod_of({"containers": [{"name": "c", "env": env(text)}]})
        if operation == "update":
            live = ssa.track_update(pod, live, obj, manager=manager, api_version="v1", now=1)
            continue
        try:
            live = ssa.apply(pod, live, obj, manager=manager, force=operation == "force", api_version="v1", now=1)
            assert operation != "conflict"
        except Conflict as refused:
            assert operation == "conflict"
            assert refused.causes[0].field == env_path("a")
    assert live["spec"]["containers"][0]["env"] == env(left)
    found = {
        row["manager"]: [path for path in paths(row["fieldsV1"]) if ".env" in path]
        for row in live["metadata"]["managedFields"]
        if row["manager"] != "base"
    }
    assert found == {manager: [env_path(text) for text in texts.split()] for manager, texts in owned.items()}


@pytest.mark.parametrize("name", CASES)
def test_managers_share_an_object(pod: SchemaNode, name: str) -> None:
    steps, spec, owned = CASES[name]
    live: Obj | None = None
    for now, (operation, manager, wanted) in enumerate(steps):
        obj = pod_of(wanted)
        if operation == "update":
            live = ssa.track_update(pod, live, obj, manager=manager, api_version="v1", now=now)
            continue
        force = operation == "force"
        try:
            live = ssa.apply(pod, live, obj, manager=manager, force=force, api_version="v1", now=now)
            assert operation != "conflict"
        except Conflict:
            assert operation == "conflict"
    assert live is not None
    assert live.get("spec", {}) == spec
    found = {row["manager"]: list(paths(row["fieldsV1"])) for row in live["metadata"].get("managedFields", ())}
    assert found == owned


def test_a_set_is_shared_by_item(pod: SchemaNode) -> None:
    live: Obj | None = None
    for manager, finalizers in (("one", ["x/a", "x/b"]), ("two", ["x/b", "x/c"]), ("one", ["x/a"])):
        obj = pod_of({}, finalizers)
        live = ssa.apply(pod, live, obj, manager=manager, force=False, api_version="v1", now=0)
    assert live is not None and live["metadata"]["finalizers"] == ["x/a", "x/b", "x/c"]


def thing(**rows: Any) -> SchemaNode:
    item = {"type": "object", "properties": {"name": {"type": "string"}, "value": {"type": "string"}}}
    struct = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
    listed = {"type": "array", "items": item, **rows.get("rows", {})}
    more = {"rows": listed, "struct": {**struct, **rows.get("struct", {})}}
    return SchemaSet({"Thing": {"type": "object", "properties": more}}, structural=True).node("Thing")


GRANULAR = thing(rows={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]})
ATOMIC = thing(rows={"x-kubernetes-list-type": "atomic"}, struct={"x-kubernetes-map-type": "atomic"})
#: structured-merge-diff's merge/schema_change_test.go: what the first applied, the second tries, and they own at last
REGRAINED: dict[str, tuple[SchemaNode, SchemaNode, Obj, Obj, list[str], dict[str, list[str]]]] = {
    "a struct that has become atomic is its owners' whole": (
        GRANULAR, ATOMIC, {"struct": {"a": "1"}}, {"struct": {"b": "2"}}, [".struct"], {"two": [".struct"]},
    ),
    "a list that has become atomic is its owners' whole": (
        GRANULAR, ATOMIC, {"rows": [{"name": "x"}]}, {"rows": [{"name": "y"}]}, [".rows"], {"two": [".rows"]},
    ),
    "of a struct that has become granular nobody owns the fields": (
        ATOMIC, GRANULAR, {"struct": {"a": "1"}}, {"struct": {"a": "2"}}, [],
        {"one": [".struct"], "two": [".struct.a"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REGRAINED)
def test_who_owned_fields_owns_what_their_schema_has_become(name: str) -> None:
    before, after, first, second, clashes, owned = REGRAINED[name]

    def applied(schema: SchemaNode, live: Obj | None, manager: str, config: Obj, *, force: bool) -> Obj:
        obj = {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "t"}, **config}
        return ssa.apply(schema, live, obj, manager=manager, force=force, api_version="v1", now=0)

    live = applied(before, None, "one", first, force=False)
    try:
        applied(after, live, "two", second, force=False)
        assert not clashes
    except Conflict as refused:
        assert [cause.field for cause in refused.causes] == clashes
    updated = {**live, **second}
    tracked = ssa.track_update(after, live, updated, manager="two", api_version="v1", now=0, may_regrain=True)
    for found in (applied(after, live, "two", second, force=True), tracked):
        found_owners = {row["manager"]: list(paths(row["fieldsV1"])) for row in found["metadata"]["managedFields"]}
        assert found_owners == owned
