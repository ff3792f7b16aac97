"""Reads and writes as the API's documentation promises them, called in this process."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any
from urllib.parse import quote, urlencode

import orjson
import pytest

from steersman.actors.ports import User

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
AUTOSCALERS = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
OLDER_AUTOSCALERS = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
PODS = "/api/v1/namespaces/default/pods"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "example.com/web:1"}], **spec},
    }


async def names(api: Any, target: str) -> list[str]:
    return [row["metadata"]["name"] for row in (await api.ok("GET", target))["items"]]


async def test_an_object_is_created_read_changed_and_deleted(api: Any) -> None:
    made = await api.ok("POST", CONFIG_MAPS, config_map("a", x="1"))
    assert made["metadata"]["uid"] and made["metadata"]["resourceVersion"]
    assert await api.ok("GET", f"{CONFIG_MAPS}/a") == made
    changed = await api.ok("PUT", f"{CONFIG_MAPS}/a", {**made, "data": {"x": "2"}})
    assert int(changed["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    again = await api.ok("PUT", f"{CONFIG_MAPS}/a", changed)
    assert again["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"], (
        "nothing changed, nothing written"
    )
    status = await api.ok("DELETE", f"{CONFIG_MAPS}/a")
    assert status["status"] == "Success" and status["details"]["uid"] == made["metadata"]["uid"]
    await api.refused(404, "GET", f"{CONFIG_MAPS}/a")


@pytest.mark.parametrize(
    ("media", "patch"),
    [
        ("application/merge-patch+json", {"data": {"y": "2"}}),
        ("application/strategic-merge-patch+json", {"data": {"y": "2"}}),
        ("application/json-patch+json", [{"op": "add", "path": "/data/y", "value": "2"}]),
        ("application/apply-patch+yaml", {"apiVersion": "v1", "kind": "ConfigMap", "data": {"y": "2"}}),
    ],
    ids=["merge", "strategic", "json", "apply"],
)
async def test_every_kind_of_patch_changes_the_object(api: Any, media: str, patch: Any) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a", x="1"))
    patched = await api.ok("PATCH", f"{CONFIG_MAPS}/a?fieldManager=me", patch, content_type=media)
    assert patched["data"] == {"x": "1", "y": "2"}


async def test_patches_of_many_clients_at_once_are_all_kept(api: Any) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    media = "application/merge-patch+json"
    patches = [api.ok("PATCH", f"{CONFIG_MAPS}/a", {"data": {str(n): "x"}}, content_type=media) for n in range(30)]
    await asyncio.gather(*patches)
    assert set((await api.ok("GET", f"{CONFIG_MAPS}/a"))["data"]) == {str(n) for n in range(30)}


async def test_of_two_who_change_the_same_version_one_is_refused(api: Any) -> None:
    made = await api.ok("POST", CONFIG_MAPS, config_map("a"))
    answers = await asyncio.gather(
        *(api.call("PUT", f"{CONFIG_MAPS}/a", {**made, "data": {"x": str(n)}}) for n in range(2))
    )
    assert sorted(answer.status for answer in answers) == [200, 409]


async def test_a_dry_run_answers_and_stores_nothing(api: Any) -> None:
    assert (await api.call("POST", f"{CONFIG_MAPS}?dryRun=All", config_map("a"))).status == 201
    await api.refused(404, "GET", f"{CONFIG_MAPS}/a")
    made = await api.ok("POST", CONFIG_MAPS, config_map("a", x="1"))
    await api.ok("PUT", f"{CONFIG_MAPS}/a?dryRun=All", {**made, "data": {"x": "2"}})
    await api.ok("DELETE", f"{CONFIG_MAPS}/a?dryRun=All")
    assert await api.ok("GET", f"{CONFIG_MAPS}/a") == made


async def test_lists_are_sorted_selected_and_paged_at_one_revision(api: Any) -> None:
    for n in (3, 1, 2, 0):
        labels = {"even": str(n % 2 == 0).lower()}
        await api.ok("POST", CONFIG_MAPS, {"metadata": {"name": f"c{n}", "labels": labels}})
    assert await names(api, CONFIG_MAPS) == ["c0", "c1", "c2", "c3"]
    assert await names(api, f"{CONFIG_MAPS}?labelSelector=even%3Dtrue") == ["c0", "c2"]
    assert await names(api, f"{CONFIG_MAPS}?fieldSelector=metadata.name%3Dc1") == ["c1"]
    others = "fieldSelector=metadata.name!%3Dc1,metadata.namespace%3Ddefault"
    assert await names(api, f"/api/v1/configmaps?{others}") == ["c0", "c2", "c3"]
    page = await api.ok("GET", f"{CONFIG_MAPS}?limit=3")
    assert page["metadata"]["remainingItemCount"] == 1
    await api.ok("POST", CONFIG_MAPS, config_map("c9"))
    await api.ok("DELETE", f"{CONFIG_MAPS}/c3")
    rest = await api.ok("GET", f"{CONFIG_MAPS}?limit=3&continue={page['metadata']['continue']}")
    assert [row["metadata"]["name"] for row in rest["items"]] == ["c3"], "the list is of its first page's revision"
    assert rest["metadata"]["resourceVersion"] == page["metadata"]["resourceVersion"]
    version = page["metadata"]["resourceVersion"]
    exact = await names(api, f"{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")
    assert exact == ["c0", "c1", "c2", "c3"]


async def test_other_namespaces_are_apart(api: Any) -> None:
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default-2"}})
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    await api.ok("POST", "/api/v1/namespaces/default-2/configmaps", config_map("b"))
    assert await names(api, CONFIG_MAPS) == ["a"]
    both = await names(api, "/api/v1/configmaps?fieldSelector=metadata.namespace!%3Dkube-system")
    assert both == ["b", "a"], "in the store's order"


async def test_tables_and_metadata_alone_are_given_to_those_who_ask(api: Any) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a", x="1"))
    table = await api.ok("GET", CONFIG_MAPS, accept=TABLE)
    assert table["kind"] == "Table" and [row["cells"][:2] for row in table["rows"]] == [["a", 1]]
    one = await api.ok("GET", f"{CONFIG_MAPS}/a", accept=TABLE)
    assert one["columnDefinitions"][0]["name"] == "Name"
    partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    listed = await api.ok("GET", CONFIG_MAPS, accept=partial)
    assert listed["kind"] == "PartialObjectMetadataList" and "data" not in listed["items"][0]
    await api.refused(406, "GET", CONFIG_MAPS, accept="image/png")


async def test_a_watch_shows_what_enters_changes_and_leaves_its_selection(api: Any) -> None:
    await api.ok("POST", CONFIG_MAPS, {"metadata": {"name": "old", "labels": {"a": "1"}}})
    watch = await api.watch(f"{CONFIG_MAPS}?watch=1&labelSelector=a%3D1")
    assert (await watch.next())[1]["metadata"]["name"] == "old"
    media = "application/merge-patch+json"
    await api.ok("POST", CONFIG_MAPS, config_map("other"))
    await api.ok("PATCH", f"{CONFIG_MAPS}/old", {"data": {"x": "1"}}, content_type=media)
    assert (await watch.next())[0] == "MODIFIED"
    await api.ok("PATCH", f"{CONFIG_MAPS}/other", {"metadata": {"labels": {"a": "1"}}}, content_type=media)
    kind, obj = await watch.next()
    assert (kind, obj["metadata"]["name"]) == ("ADDED", "other")
    left = await api.ok("PATCH", f"{CONFIG_MAPS}/old", {"metadata": {"labels": {"a": None}}}, content_type=media)
    kind, obj = await watch.next()
    assert (kind, obj["metadata"]["labels"]) == ("DELETED", {"a": "1"})
    assert obj["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]
    await api.ok("DELETE", f"{CONFIG_MAPS}/other")
    assert (await watch.next())[0] == "DELETED"
    await watch.close()
    assert api.server.watches.open == 0


async def test_a_watch_resumes_from_any_revision_that_is_remembered(api: Any) -> None:
    version = (await api.ok("GET", CONFIG_MAPS))["metadata"]["resourceVersion"]
    for n in range(3):
        await api.ok("POST", CONFIG_MAPS, config_map(f"c{n}"))
    await api.ok("DELETE", f"{CONFIG_MAPS}/c1")
    watch = await api.watch(f"{CONFIG_MAPS}?watch=1&resourceVersion={version}")
    seen = [await watch.next() for _ in range(4)]
    assert [(kind, obj["metadata"]["name"]) for kind, obj in seen] == [
        ("ADDED", "c0"), ("ADDED", "c1"), ("ADDED", "c2"), ("DELETED", "c1"),
    ]  # fmt: skip
    versions = [int(obj["metadata"]["resourceVersion"]) for _, obj in seen]
    assert versions == sorted(versions) and versions[0] > int(version)
    await watch.close()


async def test_a_watch_of_one_node_sees_only_its_pods(api: Any) -> None:
    watch = await api.watch("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1")
    for name, node in (("a", "n2"), ("b", "n1")):
        await api.ok("POST", PODS, pod(name, nodeName=node))
    await api.ok("POST", PODS, pod("c"))
    assert (await watch.next())[1]["metadata"]["name"] == "b"
    await api.ok("POST", f"{PODS}/c/binding", {"target": {"kind": "Node", "name": "n1"}})
    kind, obj = await watch.next()
    assert (kind, obj["metadata"]["name"]) == ("ADDED", "c")
    await watch.close()


async def test_a_watch_list_ends_its_first_state_with_a_marked_bookmark(api: Any) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    target = f"{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    watch = await api.watch(target)
    assert (await watch.next())[0] == "ADDED"
    kind, obj = await watch.next()
    assert kind == "BOOKMARK" and obj["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    await watch.close()


async def test_a_watch_as_table_sends_its_columns_once(api: Any) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    watch = await api.watch(f"{CONFIG_MAPS}?watch=1", accept=TABLE)
    await api.ok("POST", CONFIG_MAPS, config_map("b"))
    first, second = await watch.next(), await watch.next()
    assert first[1]["columnDefinitions"] and not second[1].get("columnDefinitions")
    assert second[1]["rows"][0]["cells"][0] == "b"
    await watch.close()


async def test_a_watch_ends_after_its_timeout(api: Any) -> None:
    watch = await api.watch(f"{CONFIG_MAPS}?watch=1&timeoutSeconds=1")
    with pytest.raises(StopAsyncIteration):
        await watch.next()


async def test_a_watch_of_a_forgotten_revision_is_told_so(api: Any) -> None:
    shelf = api.server.cache.shelf("/registry/core/configmaps/")
    shelf.floor = 10_000
    for _ in range(2):
        await api.ok("POST", CONFIG_MAPS, {"metadata": {"generateName": "c-"}})
    kind, status = await (await api.watch(f"{CONFIG_MAPS}?watch=1&resourceVersion=1")).next()
    assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")


async def test_a_reader_who_falls_too_far_behind_is_cut_off(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersman.actors.apiserver.watcher.WAITING_MAX", 3)
    watch = await api.watch(f"{CONFIG_MAPS}?watch=1")
    for n in range(6):
        await api.ok("POST", CONFIG_MAPS, config_map(f"c{n}"))
    with pytest.raises(StopAsyncIteration):
        while True:
            await watch.next()


async def test_a_long_list_is_sent_in_pieces_and_is_whole(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersman.actors.apiserver.reads.LIST_WHOLE_MAX", 3)
    monkeypatch.setattr("steersman.actors.apiserver.forms.ENTRIES_IN_PIECE", 2)
    for n in range(5):
        await api.ok("POST", CONFIG_MAPS, config_map(f"c{n}"))
    response = await api.call("GET", CONFIG_MAPS)
    pieces = [piece async for piece in response.body]
    assert len(pieces) == 5
    assert [item["metadata"]["name"] for item in orjson.loads(b"".join(pieces))["items"]] == [f"c{n}" for n in range(5)]


async def test_looking_at_every_object_keeps_only_some_decoded(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersman.actors.apiserver.entry.DECODED_MAX", 3)
    for n in range(9):
        await api.ok("POST", CONFIG_MAPS, config_map(f"c{n}"))
    assert await names(api, CONFIG_MAPS)  # the cache shows what was written
    shelf = api.server.cache.shelf("/registry/core/configmaps/")
    assert [entry.obj["metadata"]["name"] for entry in shelf.within("default")] == [f"c{n}" for n in range(9)]
    assert sum(entry.is_decoded for entry in shelf.within()) <= 3


SELECTED = {
    "metadata.name=b": ["b"],
    "status.phase=Pending": ["a", "b"],
    "status.phase=Running": [],
    "spec.nodeName=": ["a", "b"],
    "spec.restartPolicy=Never": ["b"],
    "spec.restartPolicy!=Never": ["a"],
    "spec.hostNetwork=false": ["a", "b"],
    "spec.restartPolicy=Always,metadata.namespace=default": ["a"],
    'metadata.name="': [],
}


@pytest.mark.parametrize("selector", SELECTED)
async def test_field_selectors_compare_texts(api: Any, selector: str) -> None:
    for name, policy in (("a", "Always"), ("b", "Never")):
        await api.ok("POST", PODS, pod(name, restartPolicy=policy))
    assert await names(api, f"{PODS}?fieldSelector={quote(selector)}") == SELECTED[selector]


async def test_status_and_spec_are_written_apart(api: Any) -> None:
    made = await api.ok("POST", PODS, pod("p"))
    changed = {**made, "status": {"phase": "Running"}}
    assert (await api.ok("PUT", f"{PODS}/p", changed))["status"]["phase"] == "Pending"
    spec = {**made["spec"], "activeDeadlineSeconds": 5}
    written = await api.ok("PUT", f"{PODS}/p/status", {**changed, "spec": spec})
    assert written["status"]["phase"] == "Running" and "activeDeadlineSeconds" not in written["spec"]


async def test_a_scale_shows_and_sets_replicas(api: Any) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]}
    spec = {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    base = "/apis/apps/v1/namespaces/default/deployments"
    await api.ok("POST", base, {"metadata": {"name": "d"}, "spec": spec})
    scale = await api.ok("GET", f"{base}/d/scale")
    assert (scale["kind"], scale["spec"]["replicas"], scale["status"]["selector"]) == ("Scale", 2, "a=b")
    scaled = await api.ok("PUT", f"{base}/d/scale", {**scale, "spec": {"replicas": 7}})
    assert scaled["spec"]["replicas"] == 7 and int(scaled["metadata"]["resourceVersion"]) > 0
    media = "application/merge-patch+json"
    await api.ok("PATCH", f"{base}/d/scale", {"spec": {"replicas": 4}}, content_type=media)
    assert (await api.ok("GET", f"{base}/d"))["spec"]["replicas"] == 4
    await api.refused(409, "PUT", f"{base}/d/scale", {**scale, "spec": {"replicas": 7}})


async def test_a_pod_is_bound_once_and_waits_for_its_node_when_deleted(api: Any) -> None:
    await api.ok("POST", PODS, pod("p"))
    target = {"target": {"kind": "Node", "name": "n1"}}
    await api.ok("POST", f"{PODS}/p/binding", target)
    await api.refused(409, "POST", f"{PODS}/p/binding", target)
    deleted = await api.ok("DELETE", f"{PODS}/p")
    assert deleted["metadata"]["deletionGracePeriodSeconds"] == 30
    assert (await api.ok("GET", f"{PODS}/p"))["metadata"]["deletionTimestamp"]
    await api.ok("DELETE", f"{PODS}/p?gracePeriodSeconds=0")
    await api.refused(404, "GET", f"{PODS}/p")


async def test_of_two_schedulers_one_binds(api: Any) -> None:
    await api.ok("POST", PODS, pod("p"))
    answers = await asyncio.gather(
        *(api.call("POST", f"{PODS}/p/binding", {"target": {"name": node}}) for node in ("n1", "n2", "n3"))
    )
    assert sorted(answer.status for answer in answers) == [201, 409, 409]


async def test_an_eviction_asks_the_disruption_budget(api: Any) -> None:
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    await api.ok("POST", budgets, {"metadata": {"name": "b"}, "spec": spec})
    media = "application/merge-patch+json"
    status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    for name in ("p", "q"):
        await api.ok("POST", PODS, pod(name, nodeName="n1"))
        await api.ok("PATCH", f"{PODS}/{name}/status", status, content_type=media)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "deleteOptions": {"gracePeriodSeconds": 0}}
    await api.ok("POST", f"{PODS}/p/eviction", {**eviction, "metadata": {"name": "p"}})
    refused = await api.refused(429, "POST", f"{PODS}/q/eviction", {**eviction, "metadata": {"name": "q"}})
    assert refused["details"]["causes"][0]["reason"] == "DisruptionBudget"
    assert await names(api, PODS) == ["q"]


async def test_a_collection_is_deleted_by_selector(api: Any) -> None:
    for n in range(4):
        await api.ok("POST", CONFIG_MAPS, {"metadata": {"name": f"c{n}", "labels": {"odd": str(n % 2)}}})
    deleted = await api.ok("DELETE", f"{CONFIG_MAPS}?labelSelector=odd%3D1")
    assert [row["metadata"]["name"] for row in deleted["items"]] == ["c1", "c3"]
    assert await names(api, CONFIG_MAPS) == ["c0", "c2"]


async def test_a_large_text_that_says_something_again_is_told_of_as_a_small_one(api: Any) -> None:
    filler = b"x" * 70_000
    head = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata:\n  k: v\n  k: w\n  filler: " + filler
    yaml, apply = {"content_type": "application/yaml"}, {"content_type": "application/apply-patch+yaml"}
    made = await api.call("POST", CONFIG_MAPS, head % b"a", **yaml)
    assert made.status == 201 and made.headers["warning"] == '299 - "line 6: key \\"k\\" already set in map"'
    refused = await api.refused(400, "POST", f"{CONFIG_MAPS}?fieldValidation=Strict", head % b"b", **yaml)
    assert refused["message"].endswith('yaml: unmarshal errors:\n  line 6: key "k" already set in map')
    applied = await api.call("PATCH", f"{CONFIG_MAPS}/a?fieldManager=m&force=1", head % b"a", **apply)
    assert applied.status == 200 and "already set in map" in applied.headers["warning"]
    refused = await api.refused(400, "PATCH", f"{CONFIG_MAPS}/a?fieldManager=m", b"a: b: c\n#" + filler, **apply)
    assert refused["message"].startswith("error decoding YAML: error converting YAML to JSON: yaml: mapping values")


async def test_a_part_of_a_collection_is_deleted_and_shown_as_it_was(api: Any) -> None:
    for name in "abc":
        await api.ok("POST", CONFIG_MAPS, {"metadata": {"name": name, "finalizers": ["a.example.com/b"]}})
    found = await api.ok("DELETE", f"{CONFIG_MAPS}?limit=2&gracePeriodSeconds=-1")
    assert [row["metadata"]["name"] for row in found["items"]] == ["a", "b"]
    assert not any("deletionTimestamp" in row["metadata"] for row in found["items"])
    assert found["metadata"]["remainingItemCount"] == 1
    left = (await api.ok("GET", CONFIG_MAPS))["items"]
    assert ["deletionTimestamp" in row["metadata"] for row in left] == [True, True, False]
    await api.ok("DELETE", f"{CONFIG_MAPS}?{urlencode({'continue': found['metadata']['continue'], 'limit': 5})}")
    assert all("deletionTimestamp" in row["metadata"] for row in (await api.ok("GET", CONFIG_MAPS))["items"])
    refused = await api.refused(409, "DELETE", CONFIG_MAPS, {"preconditions": {"uid": "other"}})
    assert "the UID in the precondition (other) does not match the UID in record" in refused["message"]
    refused = await api.refused(400, "DELETE", f"{CONFIG_MAPS}/a?gracePeriodSeconds=1s")
    assert refused["message"] == 'strconv.ParseInt: parsing "1s": invalid syntax'


async def test_a_finalizer_keeps_an_object_until_it_is_taken_off(api: Any) -> None:
    await api.ok("POST", CONFIG_MAPS, {"metadata": {"name": "a", "finalizers": ["example.com/hold"]}})
    assert (await api.ok("DELETE", f"{CONFIG_MAPS}/a"))["metadata"]["deletionTimestamp"]
    media = "application/merge-patch+json"
    await api.ok("PATCH", f"{CONFIG_MAPS}/a", {"metadata": {"finalizers": None}}, content_type=media)
    await api.refused(404, "GET", f"{CONFIG_MAPS}/a")


async def test_a_namespace_goes_when_its_finalizer_is_taken_off(api: Any) -> None:
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "n"}})
    going = await api.ok("DELETE", "/api/v1/namespaces/n")
    assert going["status"]["phase"] == "Terminating"
    refused = await api.refused(403, "POST", "/api/v1/namespaces/n/configmaps", config_map("a"))
    assert "being terminated" in refused["message"]
    await api.ok("PUT", "/api/v1/namespaces/n/finalize", {**going, "spec": {}})
    await api.refused(404, "GET", "/api/v1/namespaces/n")


async def test_services_get_addresses_and_ports_of_their_own(api: Any) -> None:
    base = "/api/v1/namespaces/default/services"
    spec = {"type": "NodePort", "ports": [{"port": 80}]}
    made = await asyncio.gather(
        *(api.ok("POST", base, {"metadata": {"name": f"s{n}"}, "spec": spec}) for n in range(6))
    )
    assert len({row["spec"]["clusterIP"] for row in made}) == 6
    assert len({row["spec"]["ports"][0]["nodePort"] for row in made}) == 6
    taken = made[0]["spec"]["clusterIP"]
    refused = await api.refused(422, "POST", base, {"metadata": {"name": "t"}, "spec": {**spec, "clusterIP": taken}})
    assert "already allocated" in refused["message"]
    await api.ok("DELETE", f"{base}/s0")
    await api.ok("POST", base, {"metadata": {"name": "t"}, "spec": {**spec, "clusterIP": taken}})


async def test_both_event_apis_show_the_same_events(api: Any) -> None:
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "reason": "Started",
        "message": "it runs",
        "type": "Normal",
    }
    await api.ok("POST", "/api/v1/namespaces/default/events", event)
    shown = await api.ok("GET", "/apis/events.k8s.io/v1/namespaces/default/events/e")
    assert (shown["note"], shown["regarding"]["name"]) == ("it runs", "p")
    assert await names(api, "/api/v1/events?fieldSelector=involvedObject.name%3Dp") == ["e"]


async def test_generated_names_differ(api: Any) -> None:
    made = [await api.ok("POST", CONFIG_MAPS, {"metadata": {"generateName": "g-"}}) for _ in range(5)]
    found = {row["metadata"]["name"] for row in made}
    assert len(found) == 5 and all(name.startswith("g-") for name in found)


async def test_a_name_that_cannot_be_made_up_is_told_after_eight_tries(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffixes = itertools.chain(["aaaaa", "aaaaa", "bbbbb"], itertools.repeat("aaaaa"))
    monkeypatch.setattr(api.server.writer, "random_suffix", lambda: next(suffixes))
    made = [await api.ok("POST", CONFIG_MAPS, {"metadata": {"generateName": "g-"}}) for _ in range(2)]
    assert [row["metadata"]["name"] for row in made] == ["g-aaaaa", "g-bbbbb"]
    found = await api.refused(409, "POST", CONFIG_MAPS, {"metadata": {"generateName": "g-"}})
    assert (found["reason"], found["details"]["retryAfterSeconds"]) == ("AlreadyExists", 1)
    assert found["message"] == (
        'configmaps "g-aaaaa" already exists, the server was not able to generate a unique name for the object'
    )


async def test_warnings_come_in_headers(api: Any) -> None:
    body = {**config_map("a"), "surprise": 1}
    response = await api.call("POST", CONFIG_MAPS, body)
    assert response.status == 201 and response.headers["warning"] == '299 - "unknown field \\"surprise\\""'
    assert (
        "warning"
        not in (await api.call("POST", f"{CONFIG_MAPS}?fieldValidation=Ignore", {**body, **config_map("b")})).headers
    )


async def test_version_and_metrics(api: Any) -> None:
    assert (await api.ok("GET", "/version/", user=None))["minor"] == "36"
    await api.ok("GET", CONFIG_MAPS)
    await api.ok("POST", f"{CONFIG_MAPS}?dryRun=All", config_map("a"))
    await api.refused(404, "GET", "/apis/thought-up.example.com/v1/things")
    page = (await api.call("GET", "/metrics")).body.decode()
    of = 'component="apiserver",verb="{}",dry_run="{}",group="",version="v1",resource="configmaps",subresource=""'
    assert f'apiserver_request_total{{{of.format("LIST", "")},scope="namespace",code="200"}} 1' in page
    assert f'apiserver_request_total{{{of.format("POST", "All")},scope="resource",code="201"}} 1' in page
    of = of.format("LIST", "").replace(',dry_run=""', "")
    assert f'apiserver_request_sli_duration_seconds_count{{{of},scope="namespace"}} 1' in page
    assert "thought-up" not in page and 'apiserver_current_inflight_requests{request_kind="readOnly"} 1' in page
    assert 'authentication_attempts{result="success"} ' in page
    assert 'authorization_attempts_total{result="allowed"} ' in page
    await api.refused(401, "GET", "/metrics", user=None)


async def test_discovery_is_tagged_and_not_sent_twice(api: Any) -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    first = await api.call("GET", "/apis", accept=accept)
    assert "as=APIGroupDiscoveryList" in first.headers["content-type"] and first.headers["vary"] == "Accept"
    assert orjson.loads(first.body)["items"][1]["metadata"]["name"] == "apps"
    again = await api.call("GET", "/apis", accept=accept, if_none_match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert (await api.ok("GET", "/apis"))["kind"] == "APIGroupList"
    assert (await api.ok("GET", "/api/v1"))["kind"] == "APIResourceList"


async def test_openapi_documents_are_found_by_the_index(api: Any) -> None:
    index = await api.ok("GET", "/openapi/v3")
    url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
    response = await api.call("GET", url)
    assert "immutable" in response.headers["cache-control"]
    assert "io.k8s.api.apps.v1.Deployment" in orjson.loads(response.body)["components"]["schemas"]
    assert "definitions" in await api.ok("GET", "/openapi/v2")
    older = {"accept": "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"}
    response = await api.call("GET", "/openapi/v2", **older)
    assert response.headers["content-type"].endswith("+protobuf") and response.body.startswith(b"\n\x032.0")


async def test_an_autoscaler_is_the_same_in_both_versions(api: Any) -> None:
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3}
    await api.ok("POST", OLDER_AUTOSCALERS, {"metadata": {"name": "web"}, "spec": spec})
    found = await api.ok("GET", f"{AUTOSCALERS}/web")
    assert found["apiVersion"] == "autoscaling/v2"
    assert found["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 80
    older = await api.ok("GET", f"{OLDER_AUTOSCALERS}/web")
    assert older["spec"] == {**spec, "minReplicas": 1, "targetCPUUtilizationPercentage": 80}


async def test_too_many_requests_of_one_user_are_refused_and_the_cluster_goes_on(api: Any) -> None:
    api.server._flows.dispatcher.seats = 20
    api.server._flows._changed = True
    everybody = User("jane", ("system:authenticated",))
    await api.ok(
        "POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        {
            "metadata": {"name": "jane"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        },
    )  # fmt: skip
    flood = [api.call("GET", CONFIG_MAPS, user=everybody) for _ in range(400)]
    scheduler = api.call("GET", "/api/v1/nodes", user=User("system:kube-scheduler"))
    *answers, theirs = await asyncio.gather(*flood, scheduler)
    assert {answer.status for answer in answers} == {200, 429} and theirs.status == 200
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.headers["retry-after"] == "1"
    assert (await api.call("GET", CONFIG_MAPS, user=everybody)).status == 200
