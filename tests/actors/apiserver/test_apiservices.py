"""APIServices: those that are there by themselves, and every operation on them."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from steersman.actors.http.client import HttpTransport
from steersman.actors.http.messages import Request
from steersman.actors.ports import User
from steersman.runtime.pki import Authority, Identity

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


# ---- front proxies of our own server


@pytest.fixture
async def fronted(make_api: Any, make_store: Any, tmp_path: Path) -> AsyncIterator[tuple[Any, Authority, Authority]]:
    """A server on TLS that takes users' certificates of one authority and front proxies' of another."""
    clients, proxies = Authority(tmp_path), Authority(tmp_path, "front-proxy-ca")
    clients.ensure()
    proxies.ensure()
    serving = clients.issue(Identity(file="server", common_name="api", hosts=("127.0.0.1",)))
    store = make_store(time.time)
    await store.start()
    api = await make_api(
        store, port=0, tls_cert=serving.cert.read_bytes(), tls_key=serving.key.read_bytes(),
        client_ca=clients.ca.read_bytes(), proxy_ca=proxies.ca.read_bytes(),
    )  # fmt: skip
    yield api, clients, proxies
    await api.server.stop()
    await store.stop()


async def _whoami(api: Any, ca: Path, pair: Any, **headers: str) -> Any:
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(pair.cert, pair.key)
    transport = HttpTransport([f"https://127.0.0.1:{api.server.port}"], tls=context)
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    body = orjson.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
    answer = await transport(
        Request(
            "POST",
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            {"content-type": "application/json", **sent},
            body,
        )
    )
    await transport.close()
    assert isinstance(answer.body, bytes)
    found = orjson.loads(answer.body)
    return found["status"]["userInfo"] if answer.status == 201 else answer.status


async def test_only_a_front_proxy_says_in_headers_who_asks(fronted: tuple[Any, Authority, Authority]) -> None:
    api, clients, proxies = fronted
    proxy = proxies.issue(Identity(file="front-proxy-client", common_name="front-proxy-client"))
    jane = {"x_remote_user": "jane", "x_remote_group": "a, b\nsystem:masters", "x_remote_extra_scopes": "read"}
    said = await _whoami(api, clients.ca, proxy, **jane)
    assert said["username"] == "jane" and said["groups"] == ["a, b", "system:masters", "system:authenticated"]
    assert said["extra"] == {"scopes": ["read"]}

    tom = clients.issue(Identity(file="tom", common_name="tom", organizations=("devs",)))
    said = await _whoami(api, clients.ca, tom, **jane)
    assert said["username"] == "tom", "a user's certificate does not make a proxy"
    same_name = clients.issue(Identity(file="fake", common_name="front-proxy-client"))
    assert (await _whoami(api, clients.ca, same_name, **jane))["username"] == "front-proxy-client"
    other_name = proxies.issue(Identity(file="other", common_name="other", organizations=("system:masters",)))
    assert await _whoami(api, clients.ca, other_name, **jane) == 401
    assert await _whoami(api, clients.ca, proxy) == 401, "a proxy itself is nobody"


async def test_extension_servers_find_whom_to_trust(fronted: tuple[Any, Authority, Authority]) -> None:
    api, clients, proxies = fronted
    path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
    data = (await api.ok("GET", path))["data"]
    assert data["client-ca-file"].strip() == clients.ca.read_text().strip()
    assert data["requestheader-client-ca-file"].strip() == proxies.ca.read_text().strip()
    reader = User("system:serviceaccount:wardle:server", ("system:serviceaccounts",))
    await api.refused(403, "GET", path, user=reader)
    roles = "/apis/rbac.authorization.k8s.io/v1"
    subject = {"kind": "ServiceAccount", "name": "server", "namespace": "wardle"}
    role = {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": "extension-apiserver-authentication-reader",
    }
    bindings = f"{roles}/namespaces/kube-system/rolebindings"
    await api.ok("POST", bindings, {"metadata": {"name": "wardle"}, "roleRef": role, "subjects": [subject]})
    assert (await api.ok("GET", path, user=reader))["data"] == data
