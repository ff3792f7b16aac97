"""Resource quotas, charged in the transaction that stores what they count."""

from __future__ import annotations

import asyncio
from typing import Any

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
