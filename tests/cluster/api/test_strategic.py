from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api.schema.node import SchemaNode, SchemaSet
from steersman.cluster.api.strategic import strategic_merge
from steersman.cluster.meta.errors import BadRequest, Invalid


@pytest.fixture(scope="module")
def deployment(definitions: dict[str, Any]) -> SchemaNode:
    return SchemaSet(definitions).node("io.k8s.api.apps.v1.Deployment")


@pytest.fixture(scope="module")
def pod(definitions: dict[str, Any]) -> SchemaNode:
    return SchemaSet(definitions).node("io.k8s.api.core.v1.Pod")


def containers(*rows: dict[str, Any], **extra: Any) -> dict[str, Any]:
    return {"spec": {"containers": list(rows), **extra}}


A, B, C = {"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}, {"name": "c", "image": "c:1"}


def test_containers_merge_by_name_and_new_ones_come_first(pod: SchemaNode) -> None:
    patch = containers({"name": "b", "image": "b:2"}, {"name": "z", "image": "z", "tty": None})
    result = strategic_merge(pod, containers(A, B), patch)
    assert result == containers(A, {"name": "b", "image": "b:2"}, {"name": "z", "image": "z"})
    assert strategic_merge(pod, containers(A, B), containers(C)) == containers(C, A, B)
    assert strategic_merge(pod, containers(A, B, C), containers(C, A)) == containers(B, C, A)


def test_an_item_is_deleted_by_directive(pod: SchemaNode) -> None:
    assert strategic_merge(pod, containers(A, B), containers({"name": "a", "$patch": "delete"})) == containers(B)


def test_a_list_is_replaced_by_directive(pod: SchemaNode) -> None:
    assert strategic_merge(pod, containers(A, B), containers({"$patch": "replace"}, C)) == containers(C)


def test_a_map_is_replaced_or_emptied_by_directive(pod: SchemaNode) -> None:
    live = {"metadata": {"labels": {"a": "1", "b": "2"}}}
    replaced = strategic_merge(pod, live, {"metadata": {"labels": {"$patch": "replace", "c": "3"}}})
    assert replaced == {"metadata": {"labels": {"c": "3"}}}
    emptied = strategic_merge(pod, live, {"metadata": {"labels": {"$patch": "delete"}}})
    assert emptied == {"metadata": {"labels": {}}}


def test_the_order_of_items_follows_the_directive(pod: SchemaNode) -> None:
    order = [{"name": "c"}, {"name": "a"}, {"name": "b"}]
    patch = containers({"name": "c", "image": "c:1"}, **{"$setElementOrder/containers": order})
    result = strategic_merge(pod, containers(A, B), patch)
    assert [row["name"] for row in result["spec"]["containers"]] == ["c", "a", "b"]


def test_items_the_order_does_not_name_keep_their_place(pod: SchemaNode) -> None:
    patch = containers({"name": "c", "image": "c:2"}, **{"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]})
    result = strategic_merge(pod, containers(A, B, C), patch)
    assert [row["name"] for row in result["spec"]["containers"]] == ["b", "c", "a"]


def test_an_order_alone_reorders(pod: SchemaNode) -> None:
    patch = {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}
    result = strategic_merge(pod, containers(A, B), patch)
    assert [row["name"] for row in result["spec"]["containers"]] == ["b", "a"]


def test_an_order_that_contradicts_the_patch_is_refused(pod: SchemaNode) -> None:
    patch = containers(B, A, **{"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]})
    with pytest.raises(BadRequest, match="doesn't match"):
        strategic_merge(pod, containers(A), patch)


def test_scalars_unite_and_are_deleted_by_directive(pod: SchemaNode) -> None:
    live = {"metadata": {"finalizers": ["x", "y"]}}
    patch = {"metadata": {"finalizers": ["z", "y"], "$deleteFromPrimitiveList/finalizers": ["x"]}}
    assert strategic_merge(pod, live, patch) == {"metadata": {"finalizers": ["z", "y"]}}
    only = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["y"]}}
    assert strategic_merge(pod, live, only) == {"metadata": {"finalizers": ["x"]}}


def test_retain_keys_drops_the_rest_of_a_union(deployment: SchemaNode) -> None:
    live = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, "replicas": 3}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic_merge(deployment, live, patch) == {"spec": {"strategy": {"type": "Recreate"}, "replicas": 3}}


def test_atomic_lists_are_replaced_and_null_removes(pod: SchemaNode) -> None:
    live = {"spec": {"containers": [{"name": "a", "command": ["x", "y"], "image": "i"}], "nodeName": "n"}}
    patch = {"spec": {"containers": [{"name": "a", "command": ["z"]}], "nodeName": None}}
    assert strategic_merge(pod, live, patch) == {
        "spec": {"containers": [{"name": "a", "command": ["z"], "image": "i"}]}
    }


def test_ports_merge_by_their_key_and_keep_what_is_not_named(deployment: SchemaNode, definitions: Any) -> None:
    service = SchemaSet(definitions).node("io.k8s.api.core.v1.Service")
    live = {"spec": {"ports": [{"port": 80, "targetPort": 8080, "nodePort": 30000}]}}
    patch = {"spec": {"ports": [{"port": 80, "targetPort": 9090}]}}
    merged = strategic_merge(service, live, patch)
    assert merged == {"spec": {"ports": [{"port": 80, "targetPort": 9090, "nodePort": 30000}]}}
    live = {"spec": {"ports": [{"port": 53, "name": "a"}, {"port": 53, "name": "b", "protocol": "UDP"}]}}
    merged = strategic_merge(service, live, {"spec": {"ports": [{"port": 53, "targetPort": 1}]}})
    assert merged["spec"]["ports"][0] == {"port": 53, "name": "a", "targetPort": 1}, "of two with a key, the first"


X: dict[str, Any] = {"name": "a", "command": ["x", "y", "z", "x"]}
#: apimachinery's strategicpatch: what directives make of lists that are replaced whole, and of what is not there
DIRECTIVES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "items of an atomic list are deleted": (
        X, {"name": "a", "$deleteFromPrimitiveList/command": ["y"]}, {"name": "a", "command": ["x", "z", "x"]},
    ),
    "an atomic list is put into order": (
        X, {"name": "a", "$setElementOrder/command": ["z", "x"]}, {"name": "a", "command": ["y", "z", "x", "x"]},
    ),
    "an atomic list in the patch wins": (
        X, {"name": "a", "command": ["n"], "$setElementOrder/command": ["n"]}, {"name": "a", "command": ["n"]},
    ),
    "nothing is deleted that is not there": (A, {"name": "a", "livenessProbe": {"$patch": "delete"}}, A),
    "nothing is replaced that is not there": (
        A, {"name": "a", "resources": {"$patch": "replace", "limits": {"cpu": "1"}}}, A,
    ),
    "nor in what is new": (
        A, {"name": "a", "lifecycle": {"preStop": {"$patch": "delete"}, "stopSignal": "SIGINT"}},
        {**A, "lifecycle": {"stopSignal": "SIGINT"}},
    ),
    "what is there is replaced": (
        {**A, "resources": {"limits": {"cpu": "1"}}}, {"name": "a", "resources": {"$patch": "replace", "claims": []}},
        {**A, "resources": {"claims": []}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DIRECTIVES)
def test_directives_do_as_much_as_they_say(pod: SchemaNode, name: str) -> None:
    before, patch, after = DIRECTIVES[name]
    assert strategic_merge(pod, containers(before), containers(patch)) == containers(after)


def test_an_atomic_list_of_objects_has_no_order_to_be_given(pod: SchemaNode) -> None:
    live = containers(A, tolerations=[{"key": "a"}, {"key": "b"}])
    with pytest.raises(Invalid):
        strategic_merge(pod, live, {"spec": {"$setElementOrder/tolerations": [{"key": "b"}, {"key": "a"}]}})


GENERIC = "the server rejected our request due to an error in our request"
MALFORMED = [
    ("missing merge key", containers({"image": "x"}), "map: map[image:x] does not contain declared merge key: name"),
    ("unknown directive", {"spec": {"$patch": "x", "a": 1}}, "unknown patch type: x in map: map[$patch:x a:1]"),
    ("merge directive", {"spec": {"$patch": "merge"}}, "unknown patch type: merge in map: map[$patch:merge]"),
    ("merge directive in a list", containers({"$patch": "merge"}),
     "merging lists cannot yet be specified in the patch"),
    ("unknown one in a list", containers({"$patch": "x"}), "unknown patch type: x in map: map[$patch:x]"),
    ("retainKeys without the key", {"spec": {"$retainKeys": ["a"], "nodeName": "n"}}, GENERIC),
    ("retainKeys no list", {"spec": {"$retainKeys": "a"}}, "invalid patch format of retainKeys"),
    ("order no list", {"spec": {"containers": [A], "$setElementOrder/containers": 3}},
     "invalid patch format of setElementOrder list"),
    ("deletions no list", {"metadata": {"finalizers": ["a"], "$deleteFromPrimitiveList/finalizers": 3}},
     "invalid patch format of primitive list"),
    ("another order", {"spec": {"containers": [A], "$setElementOrder/containers": [{"name": "z"}]}},
     "The order in patch list:\n[map[image:a:1 name:a]]\n doesn't match $setElementOrder list:\n[map[name:z]]\n"),
    ("list of lists", {"spec": {"containers": [[A]]}}, GENERIC),
    ("scalar in a keyed list", {"spec": {"containers": [3]}},
     "list element types are not identical: [[map[image:a:1 name:a]] [3]]"),
    ("no object", [1], "error decoding patch: a strategic merge patch of an object is an object"),
]  # fmt: skip


@pytest.mark.parametrize("name,patch,told", MALFORMED, ids=[row[0] for row in MALFORMED])
def test_a_malformed_patch_is_refused_in_kubernetes_words(pod: SchemaNode, name: str, patch: Any, told: str) -> None:
    with pytest.raises((BadRequest, Invalid)) as refused:
        strategic_merge(pod, containers(A), patch)
    assert refused.value.message == told


def test_nothing_is_shared_with_the_inputs(pod: SchemaNode) -> None:
    live, patch = containers(A), containers({"name": "b", "args": ["x"]})
    result = strategic_merge(pod, live, patch)
    for row in result["spec"]["containers"]:
        row["image"] = "changed"
        row.setdefault("args", []).append("more")
    assert live == containers(A) and patch == containers({"name": "b", "args": ["x"]})
