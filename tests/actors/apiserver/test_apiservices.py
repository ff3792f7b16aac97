"""APIServices: those that are there by themselves, and every operation on them."""

from __future__ import annotations

import asyncio
from typing import Any

SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def until(condition: Any, deadline_s: float = 10.0) -> Any:
    """The first true answer of a question that is asked again and again."""
    async with asyncio.timeout(deadline_s):
        while True:
            if found := await condition():
                return found
            await asyncio.sleep(0.02)


def definition(group: str, *versions: str, plural: str = "gadgets") -> Any:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    rows = [{"name": name, "served": True, "storage": not n, "schema": schema} for n, name in enumerate(versions)]
    names = {"plural": plural, "kind": plural.title().removesuffix("s")}
    return {
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": rows},
    }


async def names(api: Any) -> set[str]:
    return {row["metadata"]["name"] for row in (await api.ok("GET", SERVICES))["items"]}


async def test_every_built_in_version_has_an_apiservice_that_is_local_and_available(api: Any) -> None:
    found = {row["metadata"]["name"]: row for row in (await api.ok("GET", SERVICES))["items"]}
    groups = await api.ok("GET", "/apis")
    served = {f"{row['version']}.{group['name']}" for group in groups["groups"] for row in group["versions"]}
    assert set(found) == (served - {"v1.apiregistration.k8s.io"}) | {"v1."}
    apps = found["v1.apps"]
    assert apps["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
    assert apps["spec"] == {"group": "apps", "groupPriorityMinimum": 17800, "version": "v1", "versionPriority": 15}
    condition = apps["status"]["conditions"][0]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Available", "True", "Local")
    assert [group["name"] for group in groups["groups"]][:4] == [
        "apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io",
    ]  # fmt: skip


async def test_a_version_of_custom_resources_gets_an_apiservice_and_loses_it_with_the_last_definition(api: Any) -> None:
    await api.ok("POST", CRDS, definition("toys.example.com", "v1", "v1beta1"))
    await api.ok("POST", CRDS, definition("toys.example.com", "v1", plural="dolls"))
    await until(lambda: _has(api, "v1.toys.example.com", "v1beta1.toys.example.com"))
    made = await api.ok("GET", f"{SERVICES}/v1.toys.example.com")
    assert made["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "true"}
    assert (made["spec"]["groupPriorityMinimum"], made["spec"]["versionPriority"]) == (1000, 100)

    await api.ok("DELETE", f"{SERVICES}/v1.toys.example.com")
    await until(lambda: _has(api, "v1.toys.example.com"))
    await api.ok("DELETE", f"{CRDS}/gadgets.toys.example.com")
    await until(lambda: _lacks(api, "v1beta1.toys.example.com"))
    assert "v1.toys.example.com" in await names(api), "another definition serves this version"
    await api.ok("DELETE", f"{CRDS}/dolls.toys.example.com")
    await until(lambda: _lacks(api, "v1.toys.example.com"))


async def _has(api: Any, *wanted: str) -> bool:
    return set(wanted) <= await names(api)


async def _lacks(api: Any, name: str) -> bool:
    return name not in await names(api)


async def test_a_new_server_mends_the_apiservices_that_it_manages_and_no_others(api: Any, make_api: Any) -> None:
    broken = await api.ok("GET", f"{SERVICES}/v1.apps")
    broken["spec"]["versionPriority"] = 7
    await api.ok("PUT", f"{SERVICES}/v1.apps", broken)
    kept = await api.ok("GET", f"{SERVICES}/v1.batch")
    kept["spec"]["versionPriority"], kept["metadata"]["labels"] = 7, {}
    await api.ok("PUT", f"{SERVICES}/v1.batch", kept)
    await api.ok("DELETE", f"{SERVICES}/v1.policy")
    gone = {"group": "old.example.com", "version": "v1", "groupPriorityMinimum": 10, "versionPriority": 10}
    label = {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
    await api.ok("POST", SERVICES, {"metadata": {"name": "v1.old.example.com", "labels": label}, "spec": gone})

    other = await make_api(api.store)
    try:
        found = {row["metadata"]["name"]: row for row in (await other.ok("GET", SERVICES))["items"]}
        assert found["v1.apps"]["spec"]["versionPriority"] == 15
        assert found["v1.batch"]["spec"]["versionPriority"] == 7
        assert "v1.policy" in found and "v1.old.example.com" not in found
    finally:
        await other.server.stop()


async def test_an_apiservice_of_somebody_elses_goes_before_what_is_served_here(api: Any) -> None:
    where = {"namespace": "default", "name": "none"}
    spec = {"group": "mine.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100}
    await api.ok("POST", SERVICES, {"metadata": {"name": "v1.mine.example.com"}, "spec": {**spec, "service": where}})
    await api.ok("POST", CRDS, definition("mine.example.com", "v1", "v2"))
    await until(lambda: _has(api, "v2.mine.example.com"))
    path = "/apis/mine.example.com/{}/namespaces/default/gadgets"
    assert (await api.call("GET", path.format("v1"))).status == 503
    assert (await api.ok("GET", path.format("v2")))["items"] == []
    assert (await api.ok("GET", f"{SERVICES}/v1.mine.example.com"))["spec"]["service"] == {**where, "port": 443}

    await api.ok("DELETE", f"{SERVICES}/v1.mine.example.com")
    await until(lambda: _has(api, "v1.mine.example.com"))
    assert (await api.ok("GET", path.format("v1")))["items"] == []


async def test_an_apiservice_that_vanished_unseen_is_forgotten(api: Any) -> None:
    where = {"namespace": "default", "name": "none"}
    spec = {"group": "gone.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100}
    await api.ok("POST", SERVICES, {"metadata": {"name": "v1.gone.example.com"}, "spec": {**spec, "service": where}})
    path = "/apis/gone.example.com/v1/things"
    assert (await api.call("GET", path)).status == 503
    shelf = api.server.cache.shelf("/registry/apiregistration.k8s.io/apiservices/")
    listeners, shelf.listeners = shelf.listeners, []
    await api.ok("DELETE", f"{SERVICES}/v1.gone.example.com")
    shelf.listeners = listeners
    assert (await api.call("GET", path)).status == 503
    service = {"metadata": {"name": "none"}, "spec": {"ports": [{"port": 443}]}}
    await api.ok("POST", "/api/v1/namespaces/default/services", service)  # has it looked at

    async def forgotten() -> bool:
        return bool((await api.call("GET", path)).status == 404)

    await until(forgotten)
