"""Extension API servers: a real one behind a Service, and what the cluster says while there is none."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from steersman import testing
from steersman.actors.ports import User
from steersman.runtime.pki import Authority, Identity

SERVER = Path(__file__).with_name("wardle.py")
SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
NAME = "v1alpha1.wardle.example.com"
FLUNDERS = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@dataclass
class Wardle:
    """A cluster and the extension server beside it, which is a process of its own."""

    cluster: testing.Cluster
    kubectl_path: str
    directory: Path
    authority: Authority
    token: str
    process: subprocess.Popen[str] | None = None
    port: int = 0

    def start(self) -> None:
        pair = self.authority.issue(Identity(file="wardle", common_name="wardle", hosts=("api.wardle.svc",)))
        api, ca = f"https://127.0.0.1:{self.cluster.embedded.api.port}", self.cluster.kubeconfig.with_name("ca.crt")
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER), "--host", "127.0.0.1", "--port", str(self.port), "--cert", str(pair.cert),
             "--key", str(pair.key), "--api", api, "--token", self.token, "--ca", str(ca)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def stop(self) -> None:
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def ask(self, method: str, target: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """Status and decoded answer of a request in the cluster's own process."""
        from steersman.actors.http.messages import Request

        async def call() -> tuple[int, Any]:
            user = more.get("user", User("jane", ("system:masters",)))
            headers = {"content-type": "application/json", **more.get("headers", {})}
            data = b"" if body is None else json.dumps(body).encode()
            response = await self.cluster.embedded.api(Request(method, target, headers, data, user))
            content = response.body
            if not isinstance(content, bytes):
                content = b"".join([piece async for piece in content])  # type: ignore[union-attr]
            return response.status, json.loads(content) if content[:1] in (b"{", b"[") else content.decode()

        return self.cluster.run(call())

    def ok(self, method: str, target: str, body: Any = None, **more: Any) -> Any:
        status, found = self.ask(method, target, body, **more)
        assert status < 300, found
        return found

    def condition(self) -> tuple[str, str, str]:
        rows = self.ok("GET", f"{SERVICES}/{NAME}").get("status", {}).get("conditions", [])
        return next(((r["status"], r["reason"], r["message"]) for r in rows if r["type"] == "Available"), ("", "", ""))

    def until(self, reason: str, deadline_s: float = 20.0) -> tuple[str, str, str]:
        """Waits until the APIService's condition has a reason."""
        end = time.monotonic() + deadline_s
        while (found := self.condition())[1] != reason:
            assert time.monotonic() < end, found
            time.sleep(0.02)
        return found

    def until_told(self, target: str, text: str, deadline_s: float = 10.0) -> Any:
        """Waits until a document says something."""
        end = time.monotonic() + deadline_s
        while text not in json.dumps(found := self.ok("GET", target)):
            assert time.monotonic() < end, found
            time.sleep(0.02)
        return found

    def kubectl(self, *words: str, fails: bool = False) -> str:
        done = subprocess.run(
            [self.kubectl_path, "--kubeconfig", str(self.cluster.kubeconfig), f"--cache-dir={self.directory}", *words],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode != 0) is fails, f"kubectl {' '.join(words)}: {done.stdout}\n{done.stderr}"
        return done.stderr if fails else done.stdout

    def service(self) -> dict[str, Any]:
        """The APIService as a user registers it."""
        bundle = base64.b64encode(self.authority.ca.read_bytes()).decode()
        where = {"namespace": "wardle", "name": "api", "port": 7443}
        spec = {
            "group": "wardle.example.com",
            "version": "v1alpha1",
            "groupPriorityMinimum": 2000,
            "versionPriority": 200,
        }
        return {"metadata": {"name": NAME}, "spec": {**spec, "service": where, "caBundle": bundle}}

    def slice(self) -> dict[str, Any]:
        labels = {"kubernetes.io/service-name": "api"}
        return {
            "metadata": {"name": "api-1", "namespace": "wardle", "labels": labels}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [{"name": "https", "port": self.port}],
        }  # fmt: skip


@pytest.fixture(scope="module")
def wardle(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Wardle]:
    from tests.actors.apiserver.conftest import kubectls

    directory = tmp_path_factory.mktemp("wardle")
    authority = Authority(directory)
    authority.ensure()
    with testing.cluster(nodes=1) as cluster:
        found = Wardle(cluster, (kubectls() or [""])[-1], directory, authority, "")
        for body in ({"metadata": {"name": "wardle"}},):
            found.ok("POST", "/api/v1/namespaces", body)
        found.ok("POST", "/api/v1/namespaces/wardle/serviceaccounts", {"metadata": {"name": "server"}})
        asked = found.ok("POST", "/api/v1/namespaces/wardle/serviceaccounts/server/token", {"spec": {}})
        found.token = asked["status"]["token"]
        subject = [{"kind": "ServiceAccount", "name": "server", "namespace": "wardle"}]
        for path, kind, name in (
            ("clusterrolebindings", "ClusterRole", "system:auth-delegator"),
            ("namespaces/kube-system/rolebindings", "Role", "extension-apiserver-authentication-reader"),
        ):
            role = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
            found.ok("POST", f"{RBAC}/{path}", {"metadata": {"name": "wardle"}, "roleRef": role, "subjects": subject})
        yield found
        found.stop()


@pytest.fixture
def served(wardle: Wardle) -> Iterator[Wardle]:
    """With the server running, registered and available."""
    if wardle.process is None:
        wardle.start()
    port = [{"name": "https", "port": 7443, "targetPort": 7443}]
    wardle.ask("POST", "/api/v1/namespaces/wardle/services", {"metadata": {"name": "api"}, "spec": {"ports": port}})
    slices = "/apis/discovery.k8s.io/v1/namespaces/wardle/endpointslices"
    wardle.ask("POST", slices, wardle.slice())
    wardle.ask("POST", SERVICES, wardle.service())
    wardle.until("Passed")
    yield wardle
    wardle.ask("DELETE", FLUNDERS)


def test_an_apiservice_says_step_by_step_what_its_server_lacks(wardle: Wardle) -> None:
    wardle.ok("POST", SERVICES, wardle.service())
    assert wardle.until("ServiceNotFound") == ("False", "ServiceNotFound", 'service/api in "wardle" is not present')
    assert wardle.ask("GET", FLUNDERS) == (503, "service unavailable\n")
    path = "/api/v1/namespaces/wardle/services"
    port = {"name": "https", "port": 443, "targetPort": 7443}
    wardle.ok("POST", path, {"metadata": {"name": "api"}, "spec": {"ports": [port]}})
    assert wardle.until("ServicePortError")[2] == 'service/api in "wardle" is not listening on port 7443'
    service = wardle.ok("GET", f"{path}/api")
    service["spec"]["ports"] = [{**port, "port": 7443}]
    wardle.ok("PUT", f"{path}/api", service)
    assert wardle.until("EndpointsNotFound")[2] == 'cannot find endpointslices for service/api in "wardle"'
    slices = "/apis/discovery.k8s.io/v1/namespaces/wardle/endpointslices"
    wardle.port = 1
    part = wardle.slice()
    wardle.ok("POST", slices, {**part, "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": False}}]})
    text = 'endpointslices for service/api in "wardle" have no addresses with port name "https"'
    assert wardle.until("MissingEndpoints")[2] == text
    wardle.ok("PUT", f"{slices}/api-1", part)
    url = "https://127.0.0.1:1/apis/wardle.example.com/v1alpha1"
    why = f'failing or missing response from {url}: Get "{url}": dial tcp 127.0.0.1:1: connect: connection refused'
    assert wardle.until("FailedDiscoveryCheck") == ("False", "FailedDiscoveryCheck", why)
    metrics = wardle.ask("GET", "/metrics")[1]
    assert f'aggregator_unavailable_apiservice{{name="{NAME}"}} 1' in metrics
    assert 'aggregator_unavailable_apiservice{name="v1.apps"} 0' in metrics

    wardle.port = 0
    wardle.start()
    wardle.ok("PUT", f"{slices}/api-1", wardle.slice())
    assert wardle.until("Passed") == ("True", "Passed", "all checks passed")
    assert f'aggregator_unavailable_apiservice{{name="{NAME}"}} 0' in wardle.ask("GET", "/metrics")[1]


def test_objects_of_an_extension_server_are_made_read_changed_and_deleted(served: Wardle) -> None:
    made = served.ok("POST", FLUNDERS, {"metadata": {"name": "one"}, "spec": {"flunderReference": "two"}})
    assert made["metadata"]["annotations"] == {"wardle.example.com/by": "jane"}
    patch = {"headers": {"content-type": "application/merge-patch+json"}}
    patched = served.ok("PATCH", f"{FLUNDERS}/one", {"spec": {"flunderReference": "three"}}, **patch)
    assert patched["spec"] == {"flunderReference": "three"}
    assert served.ok("PUT", f"{FLUNDERS}/one", {**patched, "spec": {}})["spec"] == {}
    assert [row["metadata"]["name"] for row in served.ok("GET", FLUNDERS)["items"]] == ["one"]
    assert served.ask("GET", f"{FLUNDERS}/none")[0] == 404
    served.ok("DELETE", f"{FLUNDERS}/one")
    assert served.ok("GET", FLUNDERS)["items"] == []


def test_an_extension_server_is_asked_for_what_was_understood_and_allowed_here(served: Wardle) -> None:
    served.ok("POST", FLUNDERS, {"metadata": {"name": "slashed"}})
    assert served.ok("GET", f"{FLUNDERS}%2Fslashed")["metadata"]["name"] == "slashed"
    assert served.ok("GET", f"{FLUNDERS}?watch=1;x&limit=%zz")["kind"] == "FlunderList"
    assert served.ask("GET", f"/{FLUNDERS}")[0] == 404
    served.ok("DELETE", f"{FLUNDERS}/slashed")


def test_who_may_is_decided_here_and_there(served: Wardle) -> None:
    stranger = {"user": User("tom", ("devs",), "", {"scopes": ("a", "b")})}
    status, refusal = served.ask("GET", FLUNDERS, **stranger)
    text = 'flunders.wardle.example.com is forbidden: User "tom" cannot list resource "flunders" in API group '
    assert status == 403 and refusal["message"] == text + '"wardle.example.com" in the namespace "default"'
    forged = {"x-remote-user": "root", "x-remote-group": "system:masters", "authorization": "Bearer x"}
    rules = [{"apiGroups": ["wardle.example.com"], "resources": ["flunders"], "verbs": ["list", "create"]}]
    served.ok("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "flunders"}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "flunders"}
    subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "devs"}]
    served.ok("POST", f"{RBAC}/clusterrolebindings", {"metadata": {"name": "f"}, "roleRef": role, "subjects": subjects})
    made = served.ok("POST", FLUNDERS, {"metadata": {"name": "toms"}}, headers=forged, **stranger)
    assert made["metadata"]["annotations"] == {"wardle.example.com/by": "tom"}


def test_an_extension_server_is_discovered_in_every_form(served: Wardle) -> None:
    groups = served.ok("GET", "/apis")["groups"]
    assert groups[-1]["name"] == "wardle.example.com"
    assert groups[-1]["preferredVersion"] == {"groupVersion": "wardle.example.com/v1alpha1", "version": "v1alpha1"}
    assert served.ok("GET", "/apis/wardle.example.com")["kind"] == "APIGroup"
    assert served.ok("GET", "/apis/wardle.example.com/v1alpha1")["resources"][0]["name"] == "flunders"
    items = served.ok("GET", "/apis", headers={"accept": AGGREGATED})["items"]
    (version,) = next(item for item in items if item["metadata"]["name"] == "wardle.example.com")["versions"]
    assert version["freshness"] == "Current"
    flunders = next(row for row in version["resources"] if row["resource"] == "flunders")
    assert flunders["scope"] == "Namespaced" and flunders["shortNames"] == ["fl"]
    assert flunders["responseKind"] == {"group": "wardle.example.com", "version": "v1alpha1", "kind": "Flunder"}
    assert [row["subresource"] for row in flunders["subresources"]] == ["echo"]


def test_kubectl_works_on_what_an_extension_server_serves(served: Wardle) -> None:
    if not served.kubectl_path:
        pytest.skip("there is no kubectl on this machine")
    assert "flunders" in served.kubectl("api-resources", "--api-group=wardle.example.com")
    served.ok("POST", FLUNDERS, {"metadata": {"name": "one"}, "spec": {"flunderReference": "two"}})
    assert served.kubectl("get", "fl").split() == ["NAME", "NEIGHBOUR", "one", "two"]
    assert "wardle/api   True" in served.kubectl("get", "apiservice", NAME)
    served.until_told("/openapi/v3", "wardle.example.com")
    assert "The flunder beside it." in served.kubectl("explain", "flunders.spec")
    served.kubectl("delete", "flunder", "one")
    served.kubectl("create", "--raw", FLUNDERS, "-f", _flunder(served.directory, "raw"))
    assert "raw" in served.kubectl("get", "wardle", "-A")


def _flunder(directory: Path, name: str) -> str:
    path = directory / f"{name}.json"
    path.write_text(json.dumps({"metadata": {"name": name}}))
    return str(path)


def test_the_openapi_documents_hold_what_an_extension_server_says(served: Wardle) -> None:
    name, base = "com.example.wardle.v1alpha1.Flunder", "apis/wardle.example.com/v1alpha1"
    index = served.until_told("/openapi/v3", "wardle.example.com")
    assert index["paths"][base]["serverRelativeURL"] == f"/openapi/v3/{base}?hash=1"
    assert name in served.ok("GET", f"/openapi/v3/{base}")["components"]["schemas"]
    whole = served.until_told("/openapi/v2", "wardle.example.com")
    assert name in whole["definitions"] and f"/{base}/namespaces/{{namespace}}/flunders" in whole["paths"]
    assert "io.k8s.api.core.v1.Pod" in whole["definitions"]


def test_watches_and_switched_connections_pass_through(served: Wardle) -> None:
    context = ssl.create_default_context(cafile=str(served.cluster.kubeconfig.with_name("ca.crt")))
    base = served.cluster.kubeconfig.with_name("admin")
    context.load_cert_chain(base.with_suffix(".crt"), base.with_suffix(".key"))

    async def talk() -> tuple[bytes, bytes]:
        async def opened(target: str, *lines: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            found = await asyncio.open_connection("127.0.0.1", served.cluster.embedded.api.port, ssl=context)
            found[1].write("\r\n".join([f"GET {target} HTTP/1.1", "host: api", *lines, "", ""]).encode())
            return found

        watching, closing = await opened(f"{FLUNDERS}?watch=1")
        await watching.readuntil(b"\r\n\r\n")
        upgrade = ("connection: Upgrade", "upgrade: websocket", "sec-websocket-key: AQIDBAUGBwgJCgsMDQ4PEC==")
        reader, writer = await opened(f"{FLUNDERS}/x/echo", *upgrade, "sec-websocket-version: 13")
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x00any bytes\xff")
        said = head.split(b"\r\n")[0] + await reader.readexactly(11)
        writer.close()
        await asyncio.to_thread(served.ask, "POST", FLUNDERS, {"metadata": {"name": "seen"}})
        await watching.readline()
        event = await watching.readline()
        closing.close()
        return said, event

    async def in_time() -> tuple[bytes, bytes]:
        async with asyncio.timeout(20):
            return await talk()

    said, event = asyncio.run(in_time())
    assert said == b"HTTP/1.1 101 Switching Protocols\x00any bytes\xff"
    found = json.loads(event)
    assert found["type"] == "ADDED" and found["object"]["metadata"]["name"] == "seen"


def test_an_aggregated_api_goes_the_way_of_the_conformance_suite(served: Wardle) -> None:
    """As "Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator"."""
    made = served.ok("POST", FLUNDERS, {"metadata": {"name": "rest-flunder"}, "spec": {}})
    assert made["kind"] == "Flunder" and made["metadata"]["namespace"] == "default"
    served.ok("POST", FLUNDERS, {"metadata": {"name": "dynamic-flunder"}})
    names = [row["metadata"]["name"] for row in served.ok("GET", FLUNDERS)["items"]]
    assert names == ["dynamic-flunder", "rest-flunder"]
    served.ok("DELETE", f"{FLUNDERS}/dynamic-flunder")
    assert served.ask("GET", f"{FLUNDERS}/dynamic-flunder")[0] == 404

    path = f"{SERVICES}/{NAME}"
    status = served.ok("GET", f"{path}/status")
    assert {row["type"]: row["status"] for row in status["status"]["conditions"]} == {"Available": "True"}
    merge = {"headers": {"content-type": "application/merge-patch+json"}}
    patched = served.ok("PATCH", path, {"spec": {"versionPriority": 400}}, **merge)
    assert patched["spec"]["versionPriority"] == 400
    assert NAME in [row["metadata"]["name"] for row in served.ok("GET", SERVICES)["items"]]
    labelled = {**served.ok("GET", path)}
    labelled["metadata"]["labels"] = {"e2e-apiservice": "patched"}
    assert served.ok("PUT", path, labelled)["metadata"]["labels"] == {"e2e-apiservice": "patched"}

    updated = {"type": "StatusUpdated", "status": "True", "reason": "E2E", "message": "Set from e2e test"}
    now = served.ok("GET", path)
    now["status"]["conditions"].append({**updated, "lastTransitionTime": None})
    served.ok("PUT", f"{path}/status", now)
    rows = {row["type"]: row for row in served.ok("GET", f"{path}/status")["status"]["conditions"]}
    assert rows["StatusUpdated"]["message"] == "Set from e2e test" and rows["Available"]["status"] == "True"
    patched_row = {**updated, "type": "StatusPatched", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    served.ok("PATCH", f"{path}/status", {"status": {"conditions": [patched_row]}}, **merge)
    served.until("Passed")  # the controller puts back what the patch took away
    rows = {row["type"]: row for row in served.ok("GET", f"{path}/status")["status"]["conditions"]}
    assert rows["StatusPatched"]["reason"] == "E2E" and rows["Available"]["status"] == "True"

    served.ok("DELETE", f"{SERVICES}?labelSelector=e2e-apiservice%3Dpatched")
    assert served.ask("GET", path)[0] == 404 and served.ask("GET", FLUNDERS)[0] == 404
    assert "wardle.example.com" not in json.dumps(served.ok("GET", "/apis"))


def test_an_apiservice_that_loses_its_service_is_local(served: Wardle) -> None:
    now = served.ok("GET", f"{SERVICES}/{NAME}")
    spec = {key: value for key, value in now["spec"].items() if key not in ("service", "caBundle")}
    served.ok("PUT", f"{SERVICES}/{NAME}", {**now, "spec": spec})
    assert served.until("Local") == ("True", "Local", "Local APIServices are always available")
    assert served.ask("GET", FLUNDERS)[0] == 404, "nobody serves it"
    served.ok("DELETE", f"{SERVICES}/{NAME}")


def test_a_server_that_dies_is_stale_and_comes_back(served: Wardle) -> None:
    served.stop()
    slices = "/apis/discovery.k8s.io/v1/namespaces/wardle/endpointslices"
    served.ok("PUT", f"{slices}/api-1", {**served.slice(), "endpoints": [{"addresses": ["127.0.0.2"]}]})
    assert served.until("FailedDiscoveryCheck")[0] == "False"
    assert served.ask("GET", FLUNDERS) == (503, "service unavailable\n")
    items = served.ok("GET", "/apis", headers={"accept": AGGREGATED})["items"]
    (version,) = next(item for item in items if item["metadata"]["name"] == "wardle.example.com")["versions"]
    assert version["freshness"] == "Stale" and version["resources"]

    served.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "gone"}})
    served.ok("DELETE", "/api/v1/namespaces/gone")
    space = served.until_told("/api/v1/namespaces/gone", "DiscoveryFailed")
    rows = {row["type"]: row for row in space["status"]["conditions"]}
    assert rows["NamespaceDeletionDiscoveryFailure"]["message"] == (
        "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: "
        "wardle.example.com/v1alpha1: stale GroupVersion discovery: wardle.example.com/v1alpha1"
    )
    served.start()
    served.ok("PUT", f"{slices}/api-1", served.slice())
    served.until("Passed")
    assert served.ok("GET", FLUNDERS)["items"] == []
    end = time.monotonic() + 20
    while served.ask("GET", "/api/v1/namespaces/gone")[0] != 404:
        assert time.monotonic() < end, served.ok("GET", "/api/v1/namespaces/gone")
        time.sleep(0.05)


def test_a_namespace_takes_the_objects_of_extension_servers_with_it(served: Wardle) -> None:
    served.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "short"}})
    flunders = FLUNDERS.replace("default", "short")
    served.ok("POST", flunders, {"metadata": {"name": "inside"}})
    served.ok("DELETE", "/api/v1/namespaces/short")
    end = time.monotonic() + 20
    while served.ask("GET", "/api/v1/namespaces/short")[0] != 404:
        assert time.monotonic() < end, served.ok("GET", "/api/v1/namespaces/short")
        time.sleep(0.05)
    assert served.ok("GET", flunders)["items"] == []
