"""Resource quotas, charged in the transaction that stores what they count."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson

from steersman.cluster.auth.encryption import render_encryption

CORE = "/api/v1/namespaces/default"
MAPS, PODS, QUOTA = f"{CORE}/configmaps", f"{CORE}/pods", f"{CORE}/resourcequotas/q"
MERGE = "application/merge-patch+json"


async def quota(api: Any, hard: Any, **spec: Any) -> None:
    await api.ok("POST", f"{CORE}/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard, **spec}})


async def used(api: Any) -> Any:
    await api.server.cache.fresh()
    return ((await api.ok("GET", QUOTA)).get("status") or {}).get("used")


def pod(name: str = "web", cpu: str = "", **spec: Any) -> Any:
    resources = {"requests": {"cpu": cpu}} if cpu else {}
    containers = [{"name": "main", "image": "nginx", "resources": resources}]
    return {"metadata": {"name": name}, "spec": {"containers": containers, **spec}}


async def test_what_is_used_follows_creations_ends_and_deletions(api: Any) -> None:
    await api.ok("POST", PODS, pod("before", "100m"))
    await quota(api, {"pods": "3", "requests.cpu": "1", "count/deployments.apps": "1"})
    await api.ok("POST", PODS, pod("a", "200m"))
    assert await used(api) == {"count/deployments.apps": "0", "pods": "2", "requests.cpu": "300m"}
    found = await api.refused(403, "POST", PODS, pod("b", "800m"))
    detail = "exceeded quota: q, requested: requests.cpu=800m, used: requests.cpu=300m, limited: requests.cpu=1"
    assert found["message"] == f'pods "b" is forbidden: {detail}'
    found = await api.refused(403, "POST", PODS, pod("b"))
    assert found["message"].endswith("failed quota: q: must specify requests.cpu for: main")
    await api.ok("PATCH", f"{PODS}/a/status", {"status": {"phase": "Succeeded"}}, content_type=MERGE)
    assert (await used(api))["pods"] == "1"
    await api.ok("DELETE", f"{PODS}/before")
    assert await used(api) == {"count/deployments.apps": "0", "pods": "0", "requests.cpu": "0"}
    await api.ok("DELETE", f"{PODS}/a")
    assert (await used(api))["pods"] == "0"


async def test_a_dry_run_is_refused_but_not_charged(api: Any) -> None:
    await quota(api, {"configmaps": "1"})
    await api.ok("POST", f"{MAPS}?dryRun=All", {"metadata": {"name": "a"}})
    await api.ok("POST", MAPS, {"metadata": {"name": "a"}})
    await api.refused(403, "POST", f"{MAPS}?dryRun=All", {"metadata": {"name": "b"}})
    assert await used(api) == {"configmaps": "1"}


async def test_updates_are_charged_the_difference(api: Any) -> None:
    await quota(api, {"services.nodeports": "2", "services.loadbalancers": "0"})
    ports = [{"port": 80}, {"port": 81, "name": "b"}]
    spec = {"type": "ClusterIP", "ports": [{**row, "name": f"p{row['port']}"} for row in ports]}
    await api.ok("POST", f"{CORE}/services", {"metadata": {"name": "s"}, "spec": spec})
    await api.ok("PATCH", f"{CORE}/services/s", {"spec": {"type": "NodePort"}}, content_type=MERGE)
    assert (await used(api))["services.nodeports"] == "2"
    load_balancer = {"spec": {"type": "LoadBalancer"}}
    await api.refused(403, "PATCH", f"{CORE}/services/s", load_balancer, content_type=MERGE)
    await api.ok("PATCH", f"{CORE}/services/s", {"spec": {"type": "ClusterIP"}}, content_type=MERGE)
    assert (await used(api))["services.nodeports"] == "0"


async def test_scopes_say_which_pods_count(api: Any) -> None:
    for name, spec in (
        ("best", {"scopes": ["BestEffort"]}),
        ("other", {"scopes": ["NotBestEffort", "NotTerminating"]}),
        ("high", {"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}),
    ):  # fmt: skip
        row = {"metadata": {"name": name}, "spec": {"hard": {"pods": "1"}, **spec}}
        await api.ok("POST", f"{CORE}/resourcequotas", row)
    await api.ok("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": "high"}, "value": 5})
    await api.ok("POST", PODS, pod("a"))
    await api.ok("POST", PODS, pod("b", "1"))
    await api.ok("POST", PODS, pod("c", "1", activeDeadlineSeconds=5, priorityClassName="high"))
    for name, refused in (("best", pod("d")), ("other", pod("d", "1")),
                          ("high", pod("d", "1", activeDeadlineSeconds=5, priorityClassName="high"))):  # fmt: skip
        assert f"exceeded quota: {name}, " in (await api.refused(403, "POST", PODS, refused))["message"]


async def test_two_servers_together_never_give_more_than_there_is(api: Any, make_api: Any) -> None:
    other = await make_api(api.store)
    try:
        await quota(api, {"configmaps": "10"})
        await other.server.cache.fresh()
        calls = [(api if n % 2 else other).call("POST", MAPS, {"metadata": {"name": f"m{n}"}}) for n in range(40)]
        codes = [response.status for response in await asyncio.gather(*calls)]
        assert sorted(codes) == [201] * 10 + [403] * 30
        assert await used(api) == {"configmaps": "10"}
        gone = [(api if n % 2 else other).call("DELETE", f"{MAPS}/m{n}") for n, code in enumerate(codes) if code == 201]
        assert {response.status for response in await asyncio.gather(*gone)} == {200}
        assert await used(api) == {"configmaps": "0"}
    finally:
        await other.server.stop()


async def test_writes_that_come_together_are_charged_together_and_have_a_revision_each(api: Any) -> None:
    await quota(api, {"configmaps": "30"})
    names = [f"m{n % 25}" for n in range(40)]  # the last 15 exist by then
    answers = await asyncio.gather(*(api.call("POST", MAPS, {"metadata": {"name": name}}) for name in names))
    assert sorted(answer.status for answer in answers) == [201] * 25 + [409] * 15
    made = [orjson.loads(answer.body)["metadata"] for answer in answers if answer.status == 201]
    assert len({meta["resourceVersion"] for meta in made}) == 25
    assert await used(api) == {"configmaps": "25"}
    answers = await asyncio.gather(*(api.call("POST", MAPS, {"metadata": {"name": f"n{n}"}}) for n in range(12)))
    assert sorted(answer.status for answer in answers) == [201] * 5 + [403] * 7
    assert await used(api) == {"configmaps": "30"}


async def test_a_quota_can_be_changed_while_many_are_charged_to_it(api: Any) -> None:
    await quota(api, {"configmaps": "1000"})
    ended = asyncio.Event()

    async def create(worker: int) -> int:
        made = 0
        while not ended.is_set():
            await api.ok("POST", MAPS, {"metadata": {"name": f"m{worker}-{made}"}})
            made += 1
        return made

    workers = [asyncio.create_task(create(worker)) for worker in range(8)]
    for hard in ("2000", "3000"):
        await api.ok("PATCH", QUOTA, {"spec": {"hard": {"configmaps": hard}}}, content_type=MERGE)
    ended.set()
    made = sum(await asyncio.gather(*workers))
    assert await used(api) == {"configmaps": str(made)}


async def test_an_encrypted_quota_holds_as_well(make_api: Any, make_store: Any, tmp_path: Path) -> None:
    store = make_store(time.time)
    await store.start()
    path = tmp_path / "encryption.yaml"
    path.write_text(render_encryption("k", bytes(32)).replace("[secrets]", "[resourcequotas]"))
    api = await make_api(store, encryption=path)
    await quota(api, {"configmaps": "10"})
    calls = (api.call("POST", MAPS, {"metadata": {"name": f"m{n}"}}) for n in range(20))
    codes = [response.status for response in await asyncio.gather(*calls)]
    assert sorted(codes) == [201] * 10 + [403] * 10
    assert await used(api) == {"configmaps": "10"}
    await api.server.stop()
    await store.stop()


async def test_what_is_limited_needs_a_quota_that_covers_it(make_api: Any, make_store: Any, tmp_path: Path) -> None:
    scope = {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}
    limited = [
        {"resource": "pods", "matchScopes": [scope]},
        {"resource": "persistentvolumeclaims", "matchContains": ["gold."]},
    ]
    base = {"apiVersion": "apiserver.config.k8s.io/v1"}
    own = {**base, "kind": "ResourceQuotaConfiguration", "limitedResources": limited}
    file = tmp_path / "admission.yaml"
    plugins = [{"name": "ResourceQuota", "configuration": own}]
    file.write_bytes(orjson.dumps({**base, "kind": "AdmissionConfiguration", "plugins": plugins}))
    store = make_store(time.time)
    await store.start()
    api = await make_api(store, admission=file)
    await api.ok("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": "high"}, "value": 7})
    await api.ok("POST", f"{CORE}/serviceaccounts", {"metadata": {"name": "default"}})
    await api.ok("POST", PODS, pod("low"))
    found = await api.refused(403, "POST", PODS, pod("web", priorityClassName="high"))
    detail = "insufficient quota to match these scopes: [{PriorityClass In [high]}]"
    assert found["message"] == f'pods "web" is forbidden: {detail}'
    storage = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "gold",
        "resources": {"requests": {"storage": "1"}},
    }
    claim = {"metadata": {"name": "c"}, "spec": storage}
    found = await api.refused(403, "POST", f"{CORE}/persistentvolumeclaims", claim)
    keys = "gold.storageclass.storage.k8s.io/persistentvolumeclaims,gold.storageclass.storage.k8s.io/requests.storage"
    assert found["message"].endswith(f"insufficient quota to consume: {keys}")
    await quota(api, {"pods": "1"}, scopeSelector={"matchExpressions": [scope]})
    await api.ok("POST", PODS, pod("web", priorityClassName="high"))
    assert (await api.refused(403, "POST", PODS, pod("b", priorityClassName="high")))["message"].count("exceeded quota")
    await api.ok("PATCH", f"{PODS}/web", {"metadata": {"labels": {"a": "b"}}}, content_type=MERGE)
    await api.server.stop()
    off = await make_api(store, admission_plugins_off=("ResourceQuota",))
    await off.ok("POST", PODS, pod("b", priorityClassName="high"))
    await off.server.stop()
    await store.stop()
