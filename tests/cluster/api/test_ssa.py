from __future__ import annotations

import copy
import json
from functools import partial
from typing import Any

import pytest

from steersman.cluster.api import ssa
from steersman.cluster.api.fieldset import Ambiguous
from steersman.cluster.api.lastapplied import ANNOTATION
from steersman.cluster.api.schema.node import SchemaNode, SchemaSet
from steersman.cluster.meta.errors import BadRequest, Conflict

Obj = dict[str, Any]


@pytest.fixture(scope="module")
def deployment(definitions: Obj) -> SchemaNode:
    return SchemaSet(definitions).node("io.k8s.api.apps.v1.Deployment")


@pytest.fixture(scope="module")
def pod(definitions: Obj) -> SchemaNode:
    return SchemaSet(definitions).node("io.k8s.api.core.v1.Pod")


@pytest.fixture(scope="module")
def config_map(definitions: Obj) -> SchemaNode:
    return SchemaSet(definitions).node("io.k8s.api.core.v1.ConfigMap")


def apply(schema: SchemaNode, live: Obj | None, applied: Obj, manager: str = "a", now: float = 0, **more: Any) -> Obj:
    version = applied.get("apiVersion", "v1")
    more = {"force": False, **more}
    return ssa.apply(schema, live, applied, manager=manager, api_version=version, now=now, **more)


def update(schema: SchemaNode, live: Obj | None, new: Obj, manager: str = "u", now: float = 0, **more: Any) -> Obj:
    return ssa.track_update(schema, live, new, manager=manager, api_version="v1", now=now, **more)


def cm(data: Obj | None = None, **metadata: Any) -> Obj:
    obj: Obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", **metadata}}
    return obj if data is None else {**obj, "data": data}


def fields(obj: Obj, manager: str, operation: str = "Apply") -> Obj | None:
    for row in obj["metadata"].get("managedFields", ()):
        if row["manager"] == manager and row["operation"] == operation:
            found: Obj = row["fieldsV1"]
            return found
    return None


def bare(obj: Obj) -> Obj:
    return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "managedFields"}}


def test_a_first_apply_creates_and_owns_what_it_names(deployment: SchemaNode) -> None:
    manifest: Obj = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "d", "labels": {"app": "web"}},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "args": ["x"]}],
                    "volumes": [{"name": "v", "emptyDir": {}}],
                },
            },
        },
    }
    made = apply(deployment, None, manifest)
    assert bare(made) == manifest
    assert made["metadata"]["managedFields"][0] | {"fieldsV1": None} == {
        "manager": "a",
        "operation": "Apply",
        "apiVersion": "apps/v1",
        "time": "1970-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": None,
    }
    port = 'k:{"containerPort":80,"protocol":"TCP"}'
    assert fields(made, "a") == {
        "f:metadata": {"f:labels": {"f:app": {}}},
        "f:spec": {
            "f:replicas": {},
            "f:selector": {},
            "f:template": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {
                    "f:containers": {
                        'k:{"name":"c"}': {
                            ".": {},
                            "f:args": {},
                            "f:image": {},
                            "f:name": {},
                            "f:ports": {port: {".": {}, "f:containerPort": {}}},
                        }
                    },
                    "f:volumes": {'k:{"name":"v"}': {".": {}, "f:emptyDir": {}, "f:name": {}}},
                },
            },
        },
    }


def test_a_create_by_update_owns_the_objects_on_the_way_too(pod: SchemaNode) -> None:
    made = update(
        pod,
        None,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "uid": "1", "labels": {"a": "b"}, "finalizers": ["x/y"]},
            "spec": {"containers": [{"name": "c", "resources": {}}], "tolerations": [{"key": "k"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        },
    )
    assert fields(made, "u", "Update") == {
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}, "f:finalizers": {".": {}, 'v:"x/y"': {}}},
        "f:spec": {
            "f:containers": {'k:{"name":"c"}': {".": {}, "f:name": {}, "f:resources": {}}},
            "f:tolerations": {},
        },
        "f:status": {"f:conditions": {".": {}, 'k:{"type":"Ready"}': {".": {}, "f:type": {}, "f:status": {}}}},
    }


def test_applying_the_same_again_changes_nothing_at_all(config_map: SchemaNode) -> None:
    made = apply(config_map, None, cm({"a": "1"}), now=1)
    assert apply(config_map, made, cm({"a": "1"}), now=99) == made


def test_applying_another_value_moves_the_time(config_map: SchemaNode) -> None:
    made = apply(config_map, None, cm({"a": "1"}), now=1)
    again = apply(config_map, made, cm({"a": "2"}), now=60)
    assert again["data"] == {"a": "2"}
    assert again["metadata"]["managedFields"][0]["time"] == "1970-01-01T00:01:00Z"


def test_what_is_left_out_is_removed_when_nobody_else_owns_it(config_map: SchemaNode) -> None:
    live = apply(config_map, None, cm({"a": "1", "b": "2"}))
    live = update(config_map, live, {**live, "data": {**live["data"], "c": "3"}})
    result = apply(config_map, live, cm({"a": "1"}))
    assert result["data"] == {"a": "1", "c": "3"}
    assert fields(result, "a") == {"f:data": {"f:a": {}}}
    assert fields(result, "u", "Update") == {"f:data": {"f:c": {}}}
    emptied = apply(config_map, apply(config_map, None, cm({"a": "1"})), cm())
    assert emptied == cm()


def test_what_others_applied_too_stays(config_map: SchemaNode) -> None:
    live = apply(config_map, None, cm({"a": "1", "shared": "s"}), "first")
    live = apply(config_map, live, cm({"shared": "s"}), "second")
    result = apply(config_map, live, cm({"a": "1"}), "first")
    assert result["data"] == {"a": "1", "shared": "s"}
    assert fields(result, "second") == {"f:data": {"f:shared": {}}}


def test_a_change_of_what_another_owns_conflicts(config_map: SchemaNode) -> None:
    live = apply(config_map, None, cm({"a": "1", "b": "1"}), "first")
    with pytest.raises(Conflict) as caught:
        apply(config_map, live, cm({"a": "2"}), "second")
    assert caught.value.message == 'Apply failed with 1 conflict: conflict with "first": .data.a'
    assert [c.to_dict() for c in caught.value.causes] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "first"', "field": ".data.a"}
    ]
    live = update(config_map, live, {**live, "data": {"a": "1", "b": "9"}}, "kubectl", 60)
    with pytest.raises(Conflict) as caught:
        apply(config_map, live, cm({"a": "2", "b": "2"}), "second")
    assert caught.value.message == (
        'Apply failed with 2 conflicts: conflicts with "first":\n- .data.a\n'
        'conflicts with "kubectl" using v1:\n- .data.b'
    )


def test_force_takes_fields_over(config_map: SchemaNode) -> None:
    live = apply(config_map, None, cm({"a": "1", "b": "1"}), "first")
    result = apply(config_map, live, cm({"a": "2"}), "second", force=True)
    assert result["data"] == {"a": "2", "b": "1"}
    assert fields(result, "first") == {"f:data": {"f:b": {}}}
    assert fields(result, "second") == {"f:data": {"f:a": {}}}


def test_a_manager_left_without_fields_is_dropped(config_map: SchemaNode) -> None:
    live = apply(config_map, None, cm({"a": "1"}), "first")
    result = apply(config_map, live, cm({"a": "2"}), "second", force=True)
    assert [row["manager"] for row in result["metadata"]["managedFields"]] == ["second"]


def test_the_same_value_is_owned_together_without_conflict(config_map: SchemaNode) -> None:
    live = apply(config_map, None, cm({"a": "1"}), "first")
    result = apply(config_map, live, cm({"a": "1"}), "second")
    assert fields(result, "first") == fields(result, "second") == {"f:data": {"f:a": {}}}


def test_an_update_takes_over_what_it_changes_and_frees_what_it_removes(config_map: SchemaNode) -> None:
    live = apply(config_map, None, cm({"a": "1", "b": "1", "c": "1"}))
    result = update(config_map, live, {**live, "data": {"a": "1", "b": "2"}}, "scaler")
    assert fields(result, "a") == {"f:data": {"f:a": {}}}
    assert fields(result, "scaler", "Update") == {"f:data": {"f:b": {}}}


def test_an_update_that_changes_nothing_keeps_every_time(config_map: SchemaNode) -> None:
    live = update(config_map, None, cm({"a": "1"}), now=1)
    assert update(config_map, live, copy.deepcopy(live), now=99) == live
    assert update(config_map, live, bare(live), now=99) == live, "a client that drops managedFields loses nothing"


def test_an_update_moves_the_time_when_it_sets_anything(config_map: SchemaNode) -> None:
    live = update(config_map, None, cm({"a": "1", "b": "1"}), now=1)
    same_set = update(config_map, live, {**live, "data": {"a": "2", "b": "1"}}, now=60)
    assert same_set["metadata"]["managedFields"][0]["time"] == "1970-01-01T00:01:00Z"
    less = update(config_map, live, {**live, "data": {"a": "1"}}, now=60)
    assert less["metadata"]["managedFields"][0]["time"] == "1970-01-01T00:00:01Z"


def test_list_items_belong_to_who_named_them(deployment: SchemaNode) -> None:
    def with_containers(*rows: Obj) -> Obj:
        spec = {"template": {"spec": {"containers": list(rows)}}}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w"}, "spec": spec}

    live = apply(deployment, None, with_containers({"name": "a", "image": "1"}, {"name": "b", "image": "1"}), "team")
    live = apply(deployment, live, with_containers({"name": "side", "image": "s"}), "injector")
    names = [row["name"] for row in live["spec"]["template"]["spec"]["containers"]]
    assert sorted(names) == ["a", "b", "side"]
    result = apply(deployment, live, with_containers({"name": "b", "image": "2"}), "team")
    rows = {row["name"]: row["image"] for row in result["spec"]["template"]["spec"]["containers"]}
    assert rows == {"b": "2", "side": "s"}


def test_defaults_nobody_owns_survive_an_apply_that_drops_their_neighbour(deployment: SchemaNode) -> None:
    base: Obj = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w"}}
    live = apply(deployment, None, {**base, "spec": {"replicas": 2, "minReadySeconds": 5}})
    live["spec"]["revisionHistoryLimit"] = 10
    result = apply(deployment, live, {**base, "spec": {"replicas": 2}})
    assert result["spec"] == {"replicas": 2, "revisionHistoryLimit": 10}


def test_dropping_an_applied_object_drops_its_defaults_with_it(pod: SchemaNode) -> None:
    base: Obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "w"}}
    live = apply(pod, None, {**base, "spec": {"containers": [{"name": "c", "livenessProbe": {"periodSeconds": 3}}]}})
    live["spec"]["containers"][0]["livenessProbe"]["successThreshold"] = 1
    result = apply(pod, live, {**base, "spec": {"containers": [{"name": "c"}]}})
    assert result["spec"]["containers"] == [{"name": "c"}]


def test_an_empty_object_that_is_applied_stays(pod: SchemaNode) -> None:
    base: Obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "w"}}
    live = apply(pod, None, {**base, "spec": {"volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}]}})
    result = apply(pod, live, {**base, "spec": {"volumes": [{"name": "v", "emptyDir": {}}]}})
    assert result["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]


def test_atomic_values_are_replaced_and_owned_whole(deployment: SchemaNode) -> None:
    base: Obj = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w"}}
    live = apply(deployment, None, {**base, "spec": {"selector": {"matchLabels": {"a": "1"}}}}, "first")
    with pytest.raises(Conflict, match=r"\.spec\.selector$"):
        apply(deployment, live, {**base, "spec": {"selector": {"matchLabels": {"b": "1"}}}}, "second")


def test_sets_unite_across_managers(pod: SchemaNode) -> None:
    base: Obj = {"apiVersion": "v1", "kind": "Pod"}
    live = apply(pod, None, {**base, "metadata": {"name": "p", "finalizers": ["x/a", "x/b"]}}, "first")
    live = apply(pod, live, {**base, "metadata": {"name": "p", "finalizers": ["x/c"]}}, "second")
    assert live["metadata"]["finalizers"] == ["x/a", "x/b", "x/c"]
    live = apply(pod, live, {**base, "metadata": {"name": "p", "finalizers": ["x/b"]}}, "first")
    assert sorted(live["metadata"]["finalizers"]) == ["x/b", "x/c"]


def test_status_written_through_its_subresource_has_an_entry_of_its_own(pod: SchemaNode) -> None:
    live = update(pod, None, {"metadata": {"name": "p"}, "spec": {"nodeName": "n"}}, "kubelet")
    result = update(pod, live, {**live, "status": {"phase": "Running"}}, "kubelet", subresource="status")
    rows = {row.get("subresource", ""): row["fieldsV1"] for row in result["metadata"]["managedFields"]}
    assert rows == {"": {"f:spec": {"f:nodeName": {}}}, "status": {"f:status": {"f:phase": {}}}}


def test_the_first_apply_over_an_untracked_object_records_its_past(config_map: SchemaNode) -> None:
    result = apply(config_map, cm({"a": "1", "b": "1"}), cm({"a": "1"}))
    assert fields(result, "before-first-apply", "Update") == {"f:data": {".": {}, "f:a": {}, "f:b": {}}}
    with pytest.raises(Conflict, match="before-first-apply"):
        apply(config_map, cm({"a": "1"}), cm({"a": "2"}))


def test_untracked_objects_stay_untracked_by_updates(config_map: SchemaNode) -> None:
    assert update(config_map, cm({"a": "1"}), cm({"a": "2"})) == cm({"a": "2"})


def test_a_client_may_set_or_reset_managed_fields_but_not_corrupt_them(config_map: SchemaNode) -> None:
    live = apply(config_map, None, cm({"a": "1"}), "first")
    entry = {**live["metadata"]["managedFields"][0], "manager": "renamed"}
    renamed = update(config_map, live, cm({"a": "1"}, managedFields=[entry]))
    assert fields(renamed, "renamed") == {"f:data": {"f:a": {}}} and fields(renamed, "first") is None
    assert "managedFields" not in update(config_map, live, cm({"a": "1"}, managedFields=[{}]))["metadata"]
    reset = update(config_map, live, cm({"a": "2"}, managedFields=[{}]))
    assert "managedFields" not in reset["metadata"], "a reset with a change tracks nothing either"
    whole = live["metadata"]["managedFields"][0]
    for corrupt in ({"fieldsV1": {"f:data": 3}}, {"fieldsType": ""}, {"apiVersion": ""}, {"operation": "Replace"}):
        kept = update(config_map, live, cm({"a": "1"}, managedFields=[{**whole, **corrupt}]))
        assert kept["metadata"]["managedFields"] == live["metadata"]["managedFields"]
    assert update(config_map, live, cm({"a": "1"}, managedFields=[])) == live


def test_too_many_updaters_are_folded_into_one(config_map: SchemaNode) -> None:
    live = update(config_map, None, cm({"k": "0"}), "m0")
    for i in range(1, 15):
        live = update(config_map, live, {**live, "data": {**live["data"], f"k{i}": "x"}}, f"m{i}", now=i)
    rows = live["metadata"]["managedFields"]
    assert len(rows) == 10 and rows[0]["manager"] == "ancient-changes"
    assert set(rows[0]["fieldsV1"]["f:data"]) >= {"f:k", "f:k1", "f:k2"}


def test_updaters_of_subresources_count_and_each_version_has_a_fold_of_its_own(config_map: SchemaNode) -> None:
    live = update(config_map, None, cm({"k": "0"}), "m0")
    for i in range(1, 13):
        version, part = ("v2" if i % 2 else "v1"), ("status" if i == 12 else "")
        new = {**live, "data": {**live["data"], f"k{i}": "x"}}
        live = ssa.track_update(
            config_map, live, new, manager=f"m{i}", api_version=version, now=i, subresource=part,
            other=lambda _version: (config_map, lambda obj: obj, lambda obj: obj),
        )  # fmt: skip
    rows = live["metadata"]["managedFields"]
    assert len(rows) == 10
    folds = {row["apiVersion"]: row for row in rows if row["manager"] == "ancient-changes"}
    assert sorted(folds["v1"]["fieldsV1"]["f:data"]) == [".", "f:k", "f:k2", "f:k4"]
    assert folds["v1"]["time"] == "1970-01-01T00:00:04Z", "of the newest that is folded in"
    assert sorted(folds["v2"]["fieldsV1"]["f:data"]) == ["f:k1", "f:k3"]


def test_an_apply_that_changes_nothing_owns_without_a_time(config_map: SchemaNode) -> None:
    live = update(config_map, None, cm({"a": "1", "b": "1"}), now=1)
    live = apply(config_map, live, cm({"a": "1"}), "second", now=2)
    row = next(row for row in live["metadata"]["managedFields"] if row["manager"] == "second")
    assert "time" not in row and row["fieldsV1"] == {"f:data": {"f:a": {}}}
    live = apply(config_map, live, cm({"a": "1", "b": "2"}), "second", force=True, now=3)
    live = apply(config_map, live, cm({"a": "1", "b": "2"}), "second", now=4)
    assert live["metadata"]["managedFields"][0]["time"] == "1970-01-01T00:00:03Z"


def annotated(data: Obj, last: Obj) -> Obj:
    text = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": last})
    return cm(data, annotations={ANNOTATION: text})


def test_kubectl_takes_over_what_it_applied_on_the_clients_side(config_map: SchemaNode) -> None:
    live = update(config_map, None, annotated({"a": "1", "b": "1"}, {"a": "1", "b": "1"}), "kubectl-client-side-apply")
    taken = apply(config_map, live, cm({"a": "2", "b": "1"}), "kubectl")
    assert taken["data"] == {"a": "2", "b": "1"}
    told = json.loads(taken["metadata"]["annotations"][ANNOTATION])
    assert told["data"] == {"a": "2", "b": "1"} and "annotations" not in told["metadata"]
    with pytest.raises(Conflict):
        apply(config_map, live, cm({"a": "2"}), "somebody")


def test_kubectl_still_conflicts_over_what_others_changed_since(config_map: SchemaNode) -> None:
    live = update(config_map, None, annotated({"a": "1", "b": "1"}, {"a": "1", "b": "1"}), "kubectl-client-side-apply")
    live = update(config_map, live, {**live, "data": {"a": "1", "b": "9"}}, "editor")
    with pytest.raises(Conflict, match=r'1 conflict: conflict with "editor" using v1: .data.b'):
        apply(config_map, live, cm({"a": "2", "b": "2"}), "kubectl")


def test_an_apply_may_not_bring_managed_fields_or_ambiguous_items(pod: SchemaNode, config_map: SchemaNode) -> None:
    with pytest.raises(BadRequest, match="must be nil"):
        apply(config_map, None, cm({}, managedFields=[{"manager": "x"}]))
    twice = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "a"}, {"name": "a"}]}}
    with pytest.raises(Ambiguous):
        apply(pod, None, twice)


def test_who_wrote_in_a_version_that_is_no_more_is_forgotten(config_map: SchemaNode) -> None:
    live = update(config_map, None, cm({"a": "1"}), "old")
    live = ssa.track_update(config_map, live, cm({"a": "1", "b": "1"}), manager="new", api_version="v2", now=1)
    assert [row["manager"] for row in live["metadata"]["managedFields"]] == ["new"]


def test_inputs_are_left_alone(config_map: SchemaNode) -> None:
    live = apply(config_map, None, cm({"a": "1"}), "first")
    before, manifest = copy.deepcopy(live), cm({"b": "2"})
    result = apply(config_map, live, manifest, "second")
    result["data"]["z"] = "changed"
    assert live == before and manifest == cm({"b": "2"})


def test_objects_without_schema_are_tracked_by_their_shape() -> None:
    thing: Obj = {"apiVersion": "x/v1", "kind": "T", "metadata": {"name": "t"}, "spec": {"a": {"b": 1}, "l": [1, 2]}}
    made = ssa.apply(None, None, thing, manager="m", force=False, api_version="x/v1", now=0)
    assert fields(made, "m") == {"f:spec": {".": {}, "f:a": {".": {}, "f:b": {}}, "f:l": {}}}


def autoscaler(version: str, **spec: Any) -> Obj:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    meta = {"apiVersion": f"autoscaling/{version}", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}}
    return {**meta, "spec": {"maxReplicas": 3, "scaleTargetRef": target, **spec}}


@pytest.mark.parametrize("other_owns", [False, True])
def test_what_was_declared_in_another_version_is_taken_away_as_it_was_declared(api: Any, other_owns: bool) -> None:
    rows = {version: api.registry.kind("autoscaling", version, "horizontalpodautoscalers") for version in ("v1", "v2")}

    def applied(version: str, live: Obj | None, manager: str, **spec: Any) -> Obj:
        kind = rows[version]
        seen = None if live is None else kind.served(live)
        done = apply(
            api.registry.schema(kind), seen, autoscaler(version, **spec), manager,
            other=partial(api.registry.in_version, kind),
        )  # fmt: skip
        return kind.stored(done)

    live = applied("v1", None, "mine", targetCPUUtilizationPercentage=50, minReplicas=2)
    live["spec"]["behavior"] = {"scaleUp": {"stabilizationWindowSeconds": 3}}  # nobody's
    if other_owns:
        metrics = rows["v2"].served(live)["spec"]["metrics"]
        live = applied("v2", live, "theirs", metrics=metrics)
    spec = rows["v2"].served(applied("v2", live, "mine"))["spec"]
    assert ("metrics" in spec) is other_owns and "minReplicas" not in spec
    assert spec["scaleTargetRef"]["name"] == "web" and spec["maxReplicas"] == 3
    assert spec["behavior"] == {"scaleUp": {"stabilizationWindowSeconds": 3}}


def test_what_was_declared_in_a_version_that_is_no_more_stays(config_map: SchemaNode) -> None:
    live = apply(config_map, None, cm({"a": "1", "b": "2"}))
    live["metadata"]["managedFields"][0]["apiVersion"] = "v0"
    assert apply(config_map, live, cm({"a": "1"}))["data"] == {"a": "1", "b": "2"}
