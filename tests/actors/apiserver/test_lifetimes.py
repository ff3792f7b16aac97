"""Several servers on one store, restarts, virtual time, streams to nodes, and a store that fails."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from steersman.actors.apiserver import ApiServer, ApiServerConfig
from steersman.actors.apiserver.bootstrap import read_objects
from steersman.actors.clocks import VirtualTimeLoop
from steersman.actors.http.channels import pair
from steersman.actors.http.messages import Request, Upgrade
from steersman.actors.ports import Frame, User
from steersman.cluster.store.values import Range, StoreError, Unavailable

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
POD = {"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "x"}]}}
ADMIN = User("admin", ("system:masters",))


@pytest.fixture
async def store(make_store: Any) -> AsyncIterator[Any]:
    made = make_store(time.time)
    await made.start()
    yield made
    await made.stop()


async def test_servers_that_start_together_agree_on_what_every_cluster_has(store: Any, make_api: Any) -> None:
    servers = await asyncio.gather(*(make_api(store) for _ in range(3)))
    found = [await api.ok("GET", "/api/v1/namespaces") for api in servers]
    names = [row["metadata"]["name"] for row in found[0]["items"]]
    assert names == ["default", "kube-node-lease", "kube-public", "kube-system"]
    assert all(other["items"] == found[0]["items"] for other in found)
    services = await servers[0].ok("GET", "/api/v1/services")
    addresses = {row["metadata"]["name"]: row["spec"]["clusterIP"] for row in services["items"]}
    assert addresses == {"kubernetes": "10.96.0.1", "kube-dns": "10.96.0.10"}
    for api in servers:
        await api.server.stop()


def test_bootstrap_objects_are_there_once_and_bindings_name_roles_among_them() -> None:
    rows = read_objects("10.0.0.0/8", 1)
    found = [(row["kind"], row["metadata"].get("namespace"), row["metadata"]["name"]) for row in rows]
    assert len(set(found)) == len(found) > 30
    bound = {row["roleRef"]["name"] for row in rows if row["kind"] == "ClusterRoleBinding"}
    assert bound <= {name for kind, _, name in found if kind == "ClusterRole"}


#: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings
ROLES = """
admin cluster-admin edit system:aggregate-to-admin system:aggregate-to-edit system:aggregate-to-view
system:auth-delegator system:basic-user system:certificates.k8s.io:certificatesigningrequests:nodeclient
system:certificates.k8s.io:certificatesigningrequests:selfnodeclient
system:certificates.k8s.io:kube-apiserver-client-approver
system:certificates.k8s.io:kube-apiserver-client-kubelet-approver
system:certificates.k8s.io:kubelet-serving-approver system:certificates.k8s.io:legacy-unknown-approver
system:discovery system:heapster system:kube-aggregator system:kube-controller-manager system:kube-dns
system:kube-scheduler system:kubelet-api-admin system:monitoring system:node system:node-bootstrapper
system:node-problem-detector system:node-proxier system:persistent-volume-provisioner system:public-info-viewer
system:service-account-issuer-discovery system:volume-scheduler view
"""
CONTROLLERS = """
attachdetach-controller certificate-controller clusterrole-aggregation-controller cronjob-controller
daemon-set-controller deployment-controller device-taint-eviction-controller disruption-controller
endpoint-controller endpointslice-controller endpointslicemirroring-controller ephemeral-volume-controller
expand-controller generic-garbage-collector horizontal-pod-autoscaler job-controller
legacy-service-account-token-cleaner namespace-controller node-controller persistent-volume-binder
pod-garbage-collector pv-protection-controller pvc-protection-controller replicaset-controller
replication-controller resource-claim-controller resourcequota-controller root-ca-cert-publisher route-controller
selinux-warning-controller service-account-controller service-cidrs-controller service-controller
statefulset-controller ttl-after-finished-controller ttl-controller validatingadmissionpolicy-status-controller
volumeattributesclass-protection-controller
"""


def test_the_default_cluster_roles_are_those_of_kubernetes() -> None:
    found = {row["metadata"]["name"] for row in read_objects("10.0.0.0/8", 1) if row["kind"] == "ClusterRole"}
    own = {name for name in found if name.startswith("steersman:")}
    assert found - own == {*ROLES.split(), *(f"system:controller:{name}" for name in CONTROLLERS.split())}


async def test_a_server_that_starts_again_writes_no_default_anew_and_mends_what_lacks(
    store: Any, make_api: Any
) -> None:
    first = await make_api(store)
    roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    await first.ok("PUT", f"{roles}/system:basic-user", {"metadata": {"name": "system:basic-user"}, "rules": []})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    await first.ok("DELETE", f"{bindings}/system:discovery")
    await first.ok("POST", bindings, {"metadata": {"name": "system:discovery"}, "roleRef": reference})
    await first.server.stop()
    await (await make_api(store)).server.stop()
    third = await make_api(store)
    mended = await third.ok("GET", f"{roles}/system:basic-user")
    assert len(mended["rules"]) == 3 and mended["metadata"]["labels"] == {
        "kubernetes.io/bootstrapping": "rbac-defaults"
    }
    assert (await third.ok("GET", f"{bindings}/system:discovery"))["roleRef"]["name"] == "system:discovery"
    before = (await third.ok("GET", roles))["metadata"]["resourceVersion"]
    await third.server.stop()
    fourth = await make_api(store)
    assert (await fourth.ok("GET", roles))["metadata"]["resourceVersion"] == before
    await fourth.server.stop()


@pytest.mark.parametrize(("service_cidr", "port"), [("10.96.0.0/16", 443), ("127.96.0.0/16", 6443)])
def test_the_api_s_own_service_has_a_port_that_can_be_listened_on(service_cidr: str, port: int) -> None:
    services = [row for row in read_objects(service_cidr, 6443) if row["kind"] == "Service"]
    (own,) = (row for row in services if row["metadata"]["name"] == "kubernetes")
    assert own["spec"]["ports"] == [{"name": "https", "port": port, "protocol": "TCP", "targetPort": 6443}]


async def test_what_one_server_writes_the_other_shows_at_once(store: Any, make_api: Any) -> None:
    one, other = await make_api(store), await make_api(store)
    watch = await other.watch(f"{CONFIG_MAPS}?watch=1")
    for n in range(5):
        await one.ok("POST", CONFIG_MAPS, {"metadata": {"name": f"c{n}"}})
        assert len((await other.ok("GET", CONFIG_MAPS))["items"]) == n + 1
    assert [(await watch.next())[1]["metadata"]["name"] for _ in range(5)] == [f"c{n}" for n in range(5)]
    patch = {"data": {"x": "1"}}
    media = "application/merge-patch+json"
    await asyncio.gather(*(api.ok("PATCH", f"{CONFIG_MAPS}/c0", patch, content_type=media) for api in (one, other)))
    await watch.close()
    await one.server.stop()
    await other.server.stop()


async def test_a_watch_goes_on_at_another_server_after_its_own_has_stopped(store: Any, make_api: Any) -> None:
    one = await make_api(store)
    version = (await one.ok("GET", CONFIG_MAPS))["metadata"]["resourceVersion"]
    watch = await one.watch(f"{CONFIG_MAPS}?watch=1&resourceVersion={version}")
    await one.ok("POST", CONFIG_MAPS, {"metadata": {"name": "a"}})
    await one.server.stop()
    with pytest.raises(StopAsyncIteration):
        while True:
            await watch.next()
    other = await make_api(store)
    resumed = await other.watch(f"{CONFIG_MAPS}?watch=1&resourceVersion={version}")
    assert (await resumed.next())[1]["metadata"]["name"] == "a", "also what happened before it started"
    await resumed.close()
    await other.server.stop()


async def test_the_kubernetes_service_leads_to_every_server_that_lives(store: Any, make_api: Any) -> None:
    one, other = await make_api(store, port=0), await make_api(store, port=0)
    selector = "labelSelector=kubernetes.io/service-name%3Dkubernetes"
    path = f"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?{selector}"
    found = (await one.ok("GET", path))["items"]
    ports = {row["ports"][0]["port"] for row in found}
    assert ports == {one.server.port, other.server.port}
    await one.server.stop()
    await other.server._bootstrap._renew("127.0.0.1", other.server.port)
    found = (await other.ok("GET", path))["items"]
    assert [row["ports"][0]["port"] for row in found] == [other.server.port]
    await other.server.stop()


class Failing:
    """A store that stops answering when told to."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def range(self, request: Range) -> Any:
        self._check()
        return await self._inner.range(request)

    async def txn(self, request: Any) -> Any:
        self._check()
        return await self._inner.txn(request)

    def _check(self) -> None:
        if self.broken:
            raise Unavailable("no leader")


async def test_a_store_without_leader_gives_a_timeout_and_stale_reads_go_on(store: Any, make_api: Any) -> None:
    failing = Failing(store)
    api = await make_api(failing)
    await api.ok("POST", CONFIG_MAPS, {"metadata": {"name": "a"}})
    failing.broken = True
    await api.refused(504, "GET", CONFIG_MAPS)
    await api.refused(504, "POST", CONFIG_MAPS, {"metadata": {"name": "b"}})
    assert len((await api.ok("GET", f"{CONFIG_MAPS}?resourceVersion=0"))["items"]) == 1
    failing.broken = False
    await api.ok("POST", CONFIG_MAPS, {"metadata": {"name": "b"}})
    await api.server.stop()


async def test_a_revision_from_the_future_is_waited_for_and_then_refused(
    store: Any, make_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await make_api(store)
    version = int((await api.ok("GET", CONFIG_MAPS))["metadata"]["resourceVersion"])
    waiting = asyncio.create_task(api.ok("GET", f"{CONFIG_MAPS}?resourceVersion={version + 1}"))
    await asyncio.sleep(0)
    await api.ok("POST", CONFIG_MAPS, {"metadata": {"name": "a"}})
    assert len((await waiting)["items"]) == 1
    monkeypatch.setattr("steersman.actors.apiserver.cache.REACH_S", 0.01)
    refused = await api.refused(504, "GET", f"{CONFIG_MAPS}?resourceVersion=999999")
    assert refused["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    await api.server.stop()


# ---- streams


async def converse(api: Any, target: str) -> tuple[Any, asyncio.Task[None]]:
    """Opens exec or attach as an in-process client does."""
    response = await api.server(Request("POST", target, {}, b"", ADMIN, upgrade=True))
    assert response.status == 101 and isinstance(response.body, Upgrade) and response.body.run is not None
    mine, theirs = pair()
    return mine, asyncio.ensure_future(response.body.run(theirs))


async def test_exec_carries_input_output_and_the_outcome(api: Any) -> None:
    await api.ok(
        "POST",
        PODS,
        POD,
    )
    mine, task = await converse(api, f"{PODS}/p/exec?command=cat&command=-&stdin=true&stdout=true&tty=true&stderr=1")
    await mine.send(Frame(0, b"hi"))
    assert await mine.receive() == Frame(1, b"HI")
    await mine.send(Frame(255, b"\x00"))
    end = await mine.receive()
    assert end.channel == 3 and orjson.loads(end.data)["status"] == "Success"
    await task
    request = api.nodes.agents["n1"].requests[-1]
    assert (request.command, request.container, request.tty, request.stderr) == (("cat", "-"), "c", True, False)


async def test_logs_flow_from_the_node(api: Any) -> None:
    await api.ok(
        "POST",
        PODS,
        POD,
    )
    response = await api.call("GET", f"{PODS}/p/log?tailLines=2&follow=true&sinceSeconds=5&timestamps=1")
    assert [piece async for piece in response.body] == [b"line 0\n", b"line 1\n"]
    request = api.nodes.agents["n1"].requests[-1]
    assert (request.tail_lines, request.follow, request.since_s, request.timestamps) == (2, True, 5.0, True)
    refused = await api.refused(404, "GET", f"{PODS}/p/log?previous=true")
    assert "previous terminated container" in refused["message"]
    refused = await api.refused(422, "GET", f"{PODS}/p/log?tailLines=-1&limitBytes=0&sinceSeconds=0")
    assert refused["message"] == (
        'PodLogOptions "p" is invalid: [tailLines: Invalid value: -1: must be greater than or equal to 0, '
        "limitBytes: Invalid value: 0: must be greater than 0, sinceSeconds: Invalid value: 0: must be greater than 0]"
    )
    refused = await api.refused(400, "GET", f"{PODS}/p/log?tailLines=many")
    assert refused["message"] == 'strconv.ParseInt: parsing "many": invalid syntax'


async def test_images_stats_and_proxies_go_through_to_the_node(api: Any) -> None:
    async def archive() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 1000

    for node in ("n1", "n2"):
        await api.ok("POST", "/api/v1/nodes", {"metadata": {"name": node}})
    request = Request("POST", "/api/v1/nodes/n1/proxy/images", {}, b"", ADMIN, upload=archive())
    response = await api.server(request)
    assert (
        orjson.loads(response.body) == {"loaded": ["example.com/loaded:1"]} and api.nodes.agents["n1"].uploaded == 3000
    )
    assert (await api.ok("GET", "/api/v1/nodes/n1/proxy/images"))["images"][0]["id"] == "sha256:1"
    assert (await api.ok("GET", "/api/v1/nodes/n1/proxy/stats/summary"))["node"]["nodeName"] == "n1"
    await api.refused(503, "GET", "/api/v1/nodes/n2/proxy/stats/summary")
    await api.refused(404, "GET", "/api/v1/nodes/n3/proxy/stats/summary")
    await api.refused(404, "GET", "/api/v1/namespaces/default/services/none/proxy")
    pod = await api.ok("POST", PODS, POD)
    status = {"phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}]}
    await api.ok("PUT", f"{PODS}/p/status", {**pod, "status": status})
    answer = await api.call("GET", f"{PODS}/p:8080/proxy/some/where?q=1")
    assert answer.headers["content-type"] == "text/plain"
    assert b"".join([piece async for piece in answer.body]) == b"you sent GET /some/where?q=1 HTTP/1.1"
    assert api.nodes.agents["n1"].requests[-1] == ("default", "p", 8080)
    endpoints = {
        "addresses": [{"ip": "10.1.0.1", "targetRef": {"kind": "Pod", "name": "p", "namespace": "default"}}],
        "ports": [{"port": 9090}],
    }
    for name in ("s", "empty"):
        service = {"metadata": {"name": name}, "spec": {"ports": [{"port": 9090}]}}
        await api.ok("POST", "/api/v1/namespaces/default/services", service)
    await api.ok("POST", "/api/v1/namespaces/default/endpoints", {"metadata": {"name": "s"}, "subsets": [endpoints]})
    answer = await api.call("GET", "/api/v1/namespaces/default/services/s:9090/proxy/")
    assert b"".join([piece async for piece in answer.body]) == b"you sent GET / HTTP/1.1"
    await api.refused(503, "GET", "/api/v1/namespaces/default/services/empty/proxy/")


# ---- virtual time


def run_virtually(make_store: Any, seed: int) -> list[Any]:
    """An hour in which objects are written and watched; returns everything that was seen."""
    loop = VirtualTimeLoop()
    seen: list[Any] = []

    async def hour() -> None:
        store = make_store(loop.now, seed)
        await store.start()

        class Nobody:
            async def connect(self, node: str) -> Any:
                raise StoreError(node)

        server = ApiServer(
            store=store, nodes=Nobody(), config=ApiServerConfig(port=None), now=loop.now, rng=random.Random(seed)
        )
        await server.start()

        async def call(method: str, target: str, body: Any = None) -> Any:
            data = b"" if body is None else orjson.dumps(body)
            headers = {"content-type": "application/json", "user-agent": "test"}
            return await server(Request(method, target, headers, data, ADMIN))

        watch = (await call("GET", f"{CONFIG_MAPS}?watch=1&allowWatchBookmarks=1&timeoutSeconds=3600")).body

        async def follow() -> None:
            async for piece in watch:
                seen.append((round(loop.time(), 3), piece))

        following = asyncio.ensure_future(follow())
        for _ in range(60):
            await call("POST", CONFIG_MAPS, {"metadata": {"generateName": "c-"}})
            await asyncio.sleep(60)
        await following
        await server.stop()
        await store.stop()

    try:
        loop.run_until_complete(hour())
    finally:
        loop.close()
    return seen


def test_an_hour_of_virtual_time_is_the_same_every_time(make_store: Any) -> None:
    began = time.monotonic()
    first, second, other = (run_virtually(make_store, seed) for seed in (1, 1, 2))
    assert time.monotonic() - began < 20
    assert sum(piece.count(b'"ADDED"') for _, piece in first) == 60
    assert first == second and first != other
