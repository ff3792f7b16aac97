"""Admission webhooks, asked over HTTPS at a server of their own."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from steersman.actors.apiserver import webhooks
from steersman.actors.apiserver.config import AuditConfig
from steersman.actors.http.limits import HttpLimits
from steersman.actors.http.messages import Request, Response
from steersman.actors.http.server import HttpServer
from steersman.cluster.auth.audit import read_policy
from steersman.runtime.pki import Authority, Identity

GO = "json: cannot unmarshal"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
POD = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "main", "image": "nginx"}]}}

Answer = Callable[[Any], Any]


def own_address() -> str:
    """An address of this machine that is none of its loopback; empty when it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        found = str(probe.getsockname()[0])
    return "" if found.startswith(("127.", "0.")) else found


@dataclass
class Hook:
    """A webhook server: each path answers as its function says, and remembers what it was asked."""

    ca: str
    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    status: int = 200
    delay_s: float = 0.0

    async def __call__(self, request: Request) -> Response:
        path, _, query = request.target.partition("?")
        review = orjson.loads(request.body)
        header = {"host": request.headers["host"], "authorization": request.headers.get("authorization", "")}
        self.asked.append((path, {**review["request"], "query": query, **header}))
        await asyncio.sleep(self.delay_s)
        response = {"allowed": True, **(self.answers[path](review["request"]) or {})}
        response.setdefault("uid", review["request"]["uid"])
        body = {"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response}
        return Response(self.status, {"content-type": "application/json"}, orjson.dumps(body))

    def config(self, path: str) -> Any:
        return {"url": f"https://127.0.0.1:{self.port}{path}", "caBundle": self.ca}

    def requests(self, path: str) -> list[Any]:
        return [request for asked, request in self.asked if asked == path]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    found = Authority(tmp_path_factory.mktemp("hooks"))
    found.ensure()
    found.issue(Identity(file="hook", common_name="hook", hosts=("127.0.0.1", "hook.default.svc")))
    return found


@pytest.fixture
async def hook(authority: Authority) -> AsyncIterator[Hook]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = authority.issue(Identity(file="hook", common_name="hook", hosts=("127.0.0.1", "hook.default.svc")))
    context.load_cert_chain(Path(pair.cert), Path(pair.key))
    found = Hook(base64.b64encode(authority.ca.read_bytes()).decode())
    server = HttpServer(
        found, host="0.0.0.0", port=0, tls=context, identify=lambda _cert: None,
        uploads=lambda _method, _target: False, limits=HttpLimits(),
    )  # fmt: skip
    await server.start()
    found.port = server.port
    yield found
    await server.stop()


def patch(*operations: Any) -> Any:
    return {"patchType": "JSONPatch", "patch": base64.b64encode(orjson.dumps(operations)).decode()}


def add(key: str, value: str) -> Answer:
    return lambda request: patch({"op": "add", "path": f"/data/{key}", "value": value})


def deny(message: str = "", **status: Any) -> Answer:
    return lambda request: {"allowed": False, "status": {**({"message": message} if message else {}), **status}}


def rule(*resources: str, operations: Any = ("CREATE",), groups: Any = ("",), versions: Any = ("v1",)) -> Any:
    return {
        "operations": list(operations), "apiGroups": list(groups), "apiVersions": list(versions),
        "resources": list(resources),
    }  # fmt: skip


async def register(api: Any, sort: str, name: str, *hooks: Any) -> Any:
    """Makes a configuration of webhooks; fields that every one needs are filled in."""
    rows = []
    for index, row in enumerate(hooks):
        base = {
            "name": f"h{index}.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "rules": [rule("configmaps")],
        }  # fmt: skip
        rows.append({**base, **row})
    return await api.ok(
        "POST", f"{ADMISSION}/{sort}webhookconfigurations", {"metadata": {"name": name}, "webhooks": rows}
    )


async def test_a_mutating_webhook_changes_what_is_stored_and_its_object_is_pruned(api: Any, hook: Hook) -> None:
    hook.answers["/m"] = lambda request: patch(
        {"op": "add", "path": "/data", "value": {"a": "1"}}, {"op": "add", "path": "/nonsense", "value": 1}
    )
    await register(api, "mutating", "m", {"clientConfig": hook.config("/m")})
    made = await api.ok("POST", MAPS, {"metadata": {"name": "a", "labels": {"x": "y"}}})
    assert made["data"] == {"a": "1"} and "nonsense" not in made
    assert (await api.ok("GET", f"{MAPS}/a"))["data"] == {"a": "1"}
    request = hook.requests("/m")[0]
    assert request["kind"] == request["requestKind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    assert request["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert (request["operation"], request["name"], request["namespace"]) == ("CREATE", "a", "default")
    assert request["userInfo"]["username"] == "admin" and "system:masters" in request["userInfo"]["groups"]
    assert request["object"]["metadata"]["labels"] == {"x": "y"} and request["oldObject"] is None
    assert request["dryRun"] is False and request["options"]["kind"] == "CreateOptions"
    assert request["query"] == "timeout=10s"


async def test_mutating_webhooks_see_each_others_work_in_order_of_their_names(api: Any, hook: Hook) -> None:
    hook.answers["/one"] = add("one", "1")
    hook.answers["/two"] = lambda request: add("two", "2")(request) if "one" in request["object"]["data"] else None
    await register(api, "mutating", "b", {"clientConfig": hook.config("/two")})
    await register(api, "mutating", "a", {"clientConfig": hook.config("/one")})
    made = await api.ok("POST", MAPS, {"metadata": {"name": "a"}, "data": {"zero": "0"}})
    assert made["data"] == {"zero": "0", "one": "1", "two": "2"}


async def test_a_webhook_is_asked_again_when_a_later_one_has_changed_the_object(api: Any, hook: Hook) -> None:
    hook.answers["/first"] = lambda request: add("seen", "1")(request) if "late" in request["object"]["data"] else None
    hook.answers["/late"] = add("late", "1")
    hook.answers["/never"] = lambda request: None
    await register(
        api, "mutating", "m",
        {"name": "never.example.com", "clientConfig": hook.config("/never")},
        {"name": "first.example.com", "clientConfig": hook.config("/first"), "reinvocationPolicy": "IfNeeded"},
        {"name": "late.example.com", "clientConfig": hook.config("/late")},
    )  # fmt: skip
    made = await api.ok("POST", MAPS, {"metadata": {"name": "a"}, "data": {"x": "0"}})
    assert made["data"] == {"x": "0", "late": "1", "seen": "1"}
    assert [path for path, _ in hook.asked] == ["/never", "/first", "/late", "/first"]


@pytest.mark.parametrize(
    ("status", "code", "reason", "message"),
    [
        ({"message": "no"}, 400, None, ": no"),
        ({"message": "no", "code": 403, "reason": "Forbidden"}, 403, "Forbidden", ": no"),
        ({"reason": "TooBad"}, 400, "TooBad", ": TooBad"),
        ({}, 400, None, " without explanation"),
        ({"message": "teapot", "code": 418}, 418, None, ": teapot"),
        ({"message": "fine", "code": 200}, 400, None, ": fine"),
        ({"message": "much", "code": 99999, "details": None}, 400, None, ": much"),
    ],
)
async def test_a_refusal_carries_the_webhooks_words_and_code(
    api: Any, hook: Hook, status: Any, code: int, reason: str | None, message: str
) -> None:
    hook.answers["/v"] = lambda request: {"allowed": False, "status": status}
    await register(api, "validating", "v", {"clientConfig": hook.config("/v")})
    found = await api.refused(code, "POST", MAPS, {"metadata": {"name": "a"}})
    assert found["message"] == f'admission webhook "h0.example.com" denied the request{message}'
    assert found.get("reason") == reason
    await api.refused(404, "GET", f"{MAPS}/a")


async def test_warnings_and_annotations_come_through_even_with_a_refusal(api: Any, hook: Hook) -> None:
    hook.answers["/v"] = lambda request: {
        "allowed": request["name"] == "good", "warnings": ["mind the gap"], "auditAnnotations": {"k": "v"},
    }  # fmt: skip
    await register(api, "validating", "v", {"clientConfig": hook.config("/v")})
    for name, status in (("good", 201), ("bad", 400)):
        response = await api.call("POST", MAPS, {"metadata": {"name": name}})
        assert (response.status, response.headers["warning"]) == (status, '299 - "mind the gap"')


async def test_updates_patches_applies_deletes_and_collections_are_asked_about(api: Any, hook: Hook) -> None:
    hook.answers["/v"] = lambda request: None
    every = [rule("configmaps", operations=("*",))]
    await register(api, "validating", "v", {"clientConfig": hook.config("/v"), "rules": every})
    for name in "ab":
        await api.ok("POST", MAPS, {"metadata": {"name": name}})
    await api.ok("PUT", f"{MAPS}/a", {"metadata": {"name": "a"}, "data": {"x": "1"}})
    merge = "application/merge-patch+json"
    await api.ok("PATCH", f"{MAPS}/a", {"data": {"x": "2"}}, content_type=merge)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    await api.ok("PATCH", f"{MAPS}/c?fieldManager=me", body, content_type="application/apply-patch+yaml")
    await api.ok("DELETE", f"{MAPS}/a")
    await api.ok("DELETE", MAPS)
    found = [(row["operation"], row["name"]) for row in hook.requests("/v")]
    assert found[:6] == [("CREATE", "a"), ("CREATE", "b"), ("UPDATE", "a"), ("UPDATE", "a"), ("CREATE", "c"),
                         ("DELETE", "a")]  # fmt: skip
    assert sorted(found[6:]) == [("DELETE", "b"), ("DELETE", "c")]
    updated, deleted = hook.requests("/v")[3], hook.requests("/v")[5]
    assert (updated["oldObject"]["data"], updated["object"]["data"]) == ({"x": "1"}, {"x": "2"})
    assert deleted["object"] is None and deleted["oldObject"]["data"] == {"x": "2"}
    assert deleted["options"]["kind"] == "DeleteOptions"


async def test_scale_status_and_actions_are_operations_of_their_own(api: Any, hook: Hook) -> None:
    hook.answers["/v"] = lambda request: None
    hook.answers["/m"] = lambda request: patch({"op": "replace", "path": "/spec/replicas", "value": 3})
    rules = [rule("*/*", operations=("*",), groups=("*",), versions=("*",))]
    await register(api, "validating", "v", {"clientConfig": hook.config("/v"), "rules": rules})
    scale = [rule("deployments/scale", operations=("UPDATE",), groups=("apps",))]
    await register(api, "mutating", "m", {"clientConfig": hook.config("/m"), "rules": scale})
    template = {"metadata": {"labels": {"a": "b"}}, "spec": POD["spec"]}
    deployment = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}
    base = "/apis/apps/v1/namespaces/default/deployments"
    await api.ok("POST", base, deployment)
    merge = "application/merge-patch+json"
    scaled = await api.ok("PATCH", f"{base}/d/scale", {"spec": {"replicas": 9}}, content_type=merge)
    assert scaled["spec"]["replicas"] == 3
    assert (await api.ok("GET", f"{base}/d"))["spec"]["replicas"] == 3
    apply = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 7}}
    query, media = "fieldManager=me&force=true", "application/apply-patch+yaml"
    applied = await api.ok("PATCH", f"{base}/d/scale?{query}", apply, content_type=media)
    assert applied["spec"]["replicas"] == 3
    assert (await api.ok("GET", f"{base}/d"))["metadata"]["managedFields"][0]["manager"] == "me"
    await api.ok("PATCH", f"{base}/d/status", {"status": {"replicas": 3}}, content_type=merge)
    await api.ok("POST", "/api/v1/namespaces/default/pods", POD)
    await api.ok("POST", "/api/v1/namespaces/default/pods/web/binding", {"target": {"kind": "Node", "name": "n1"}})
    await api.ok("POST", "/api/v1/namespaces/default/pods/web/eviction", {"metadata": {"name": "web"}})
    found = [(row["kind"]["kind"], row.get("subResource", ""), row["operation"]) for row in hook.requests("/v")]
    assert found == [
        ("Deployment", "", "CREATE"), *[("Scale", "scale", "UPDATE")] * 2, ("Deployment", "status", "UPDATE"),
        ("Pod", "", "CREATE"), ("Binding", "binding", "CREATE"), ("Eviction", "eviction", "CREATE"),
    ]  # fmt: skip
    sent = hook.requests("/v")[1]
    assert (sent["oldObject"]["spec"], sent["object"]["spec"]) == ({"replicas": 1}, {"replicas": 3})


async def test_connections_can_be_refused(api: Any, hook: Hook) -> None:
    hook.answers["/v"] = deny("attaching to pod 'web' is not allowed")
    rules = [rule("pods/attach", "pods/exec", "pods/portforward", "pods/proxy", operations=("CONNECT",))]
    await api.ok("POST", "/api/v1/namespaces/default/pods", {**POD, "spec": {**POD["spec"], "nodeName": "n1"}})
    await register(api, "validating", "v", {"clientConfig": hook.config("/v"), "rules": rules})
    pod = "/api/v1/namespaces/default/pods/web"
    for target in (f"{pod}/attach?stdin=true&container=main", f"{pod}/exec?command=ls&command=-l", f"{pod}/portforward",
                   f"{pod}/proxy/a/b"):  # fmt: skip
        request = Request("GET", target, {"user-agent": "t"}, b"", api_user(api), upgrade=True)
        response = await api.server(request)
        assert response.status == 400 and b"attaching to pod 'web' is not allowed" in response.body
    kinds = [row["object"] for row in hook.requests("/v")]
    assert kinds[0] == {"kind": "PodAttachOptions", "apiVersion": "v1", "stdin": True, "container": "main"}
    assert kinds[1] == {"kind": "PodExecOptions", "apiVersion": "v1", "command": ["ls", "-l"]}
    assert kinds[3] == {"kind": "PodProxyOptions", "apiVersion": "v1", "path": "a/b"}
    assert {row["operation"] for row in hook.requests("/v")} == {"CONNECT"}


def api_user(_api: Any) -> Any:
    from steersman.actors.ports import User

    return User("admin", ("system:masters",))


async def test_a_webhook_that_is_late_fails_the_write_or_is_passed_over(api: Any, hook: Hook) -> None:
    hook.answers["/v"] = lambda request: None
    hook.delay_s = 1.5
    config = {"clientConfig": hook.config("/v"), "timeoutSeconds": 1}
    await register(api, "validating", "v", config)
    found = await api.refused(500, "POST", MAPS, {"metadata": {"name": "a"}})
    url = f"https://127.0.0.1:{hook.port}/v?timeout=1s"
    text = f'failed calling webhook "h0.example.com": failed to call webhook: Post "{url}": context deadline exceeded'
    assert found["message"] == f"Internal error occurred: {text}"
    assert found["details"]["causes"] == [{"message": text}]
    await api.ok("DELETE", f"{ADMISSION}/validatingwebhookconfigurations/v")
    await register(api, "validating", "v", {**config, "failurePolicy": "Ignore"})
    await api.ok("POST", MAPS, {"metadata": {"name": "a"}})


async def test_a_client_waits_for_a_write_no_longer_than_it_says(api: Any, hook: Hook) -> None:
    hook.answers["/v"] = lambda request: None
    hook.delay_s = 1.5
    await register(api, "validating", "v", {"clientConfig": hook.config("/v")})
    found = await api.refused(504, "POST", f"{MAPS}?timeout=200ms", {"metadata": {"name": "a"}})
    text = "Timeout: request did not complete within requested timeout - context deadline exceeded"
    assert (found["reason"], found["message"]) == ("Timeout", text)
    await api.refused(404, "GET", f"{MAPS}/a")
    await api.ok("POST", f"{MAPS}?timeout=5s", {"metadata": {"name": "a"}})
    await api.ok("POST", f"{MAPS}?timeout=0", {"metadata": {"name": "b"}})


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda r: {"uid": "other"}, 'received invalid webhook response: expected response.uid="'),
        (lambda r: patch({"op": "add", "path": "/x", "value": 1}), "validating webhook may not return response.patch"),
        (lambda r: {"patchType": "JSONPatch"}, "validating webhook may not return response.patchType"),
        *(
            (lambda r, row=row: row, wrong)
            for row, wrong in (
                (
                    {"allowed": "yes"},
                    f"{GO} string into Go struct field AdmissionResponse.response.allowed of type bool",
                ),
                (
                    {"warnings": "x"},
                    f"{GO} string into Go struct field AdmissionResponse.response.warnings of type []str",
                ),
                (
                    {"warnings": [1]},
                    f"{GO} number into Go struct field AdmissionResponse.response.warnings of type string",
                ),
                ({"auditAnnotations": []}, "auditAnnotations of type map[string]string"),
                (
                    {"status": {"code": "403"}},
                    f"{GO} string into Go struct field Status.response.status.code of type int32",
                ),
                (
                    {"status": {"code": 1 << 40}},
                    f"{GO} number {1 << 40} into Go struct field Status.response.status.code",
                ),
                (
                    {"status": {"details": {"causes": ["x"]}}},
                    "StatusDetails.response.status.details.causes of type v1.St",
                ),
                ({"patch": 7}, f"{GO} number into Go struct field AdmissionResponse.response.patch of type []uint8"),
                ({"patch": "!"}, "illegal base64 data"),
                ({"patchType": 7}, "patchType of type v1.PatchType"),
            )
        ),
    ],
)
async def test_nonsense_from_a_webhook_is_a_failed_call(api: Any, hook: Hook, answer: Answer, message: str) -> None:
    hook.answers["/v"] = answer
    await register(api, "validating", "v", {"clientConfig": hook.config("/v")})
    found = await api.refused(500, "POST", MAPS, {"metadata": {"name": "a"}})
    assert message in found["message"]


async def test_a_webhook_that_cannot_be_reached_or_trusted_fails_closed(api: Any, hook: Hook) -> None:
    hook.answers["/v"] = lambda request: None
    refusing = {"url": "https://127.0.0.1:1/v", "caBundle": hook.ca}
    untrusted = {"url": f"https://127.0.0.1:{hook.port}/v"}
    missing = {"service": {"name": "nobody", "namespace": "default"}}
    for client, text in (
        (refusing, 'Post "https://127.0.0.1:1/v?timeout=10s": dial tcp 127.0.0.1:1: connect: connection refused'),
        (untrusted, "tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        (missing, 'Post "https://nobody.default.svc:443/?timeout=10s": service "nobody" not found'),
    ):
        await register(api, "validating", "v", {"clientConfig": client})
        assert text in (await api.refused(500, "POST", MAPS, {"metadata": {"name": "a"}}))["message"]
        await api.ok("DELETE", f"{ADMISSION}/validatingwebhookconfigurations/v")
    hook.status = 503
    await register(api, "validating", "v", {"clientConfig": hook.config("/v")})
    assert "failed to call webhook" in (await api.refused(500, "POST", MAPS, {"metadata": {"name": "a"}}))["message"]


async def test_a_service_is_called_by_its_name_at_one_of_its_endpoints(api: Any, hook: Hook) -> None:
    hook.answers["/v"] = deny("so says the service")
    service = {"metadata": {"name": "hook"}, "spec": {"type": "ExternalName", "externalName": "127.0.0.1"}}
    await api.ok("POST", "/api/v1/namespaces/default/services", service)
    address = {"name": "hook", "namespace": "default", "port": hook.port, "path": "/v"}
    await register(api, "validating", "v", {"clientConfig": {"service": address, "caBundle": hook.ca}})
    assert "so says the service" in (await api.refused(400, "POST", MAPS, {"metadata": {"name": "a"}}))["message"]
    assert hook.requests("/v")[0]["host"] == f"hook.default.svc:{hook.port}"


async def test_a_service_is_called_at_its_ready_endpoints(api: Any, hook: Hook) -> None:
    address = own_address()
    if not address:
        pytest.skip("this machine has no address but loopback")
    hook.answers["/v"] = deny("so says the endpoint")
    spec = {"ports": [{"name": "https", "port": 443, "targetPort": 8443}]}
    await api.ok("POST", "/api/v1/namespaces/default/services", {"metadata": {"name": "hook"}, "spec": spec})
    client = {"service": {"name": "hook", "namespace": "default", "path": "/v"}, "caBundle": hook.ca}
    await register(api, "validating", "v", {"clientConfig": client})
    found = await api.refused(500, "POST", MAPS, {"metadata": {"name": "a"}})
    assert found["message"].endswith('no endpoints available for service "hook"')
    part = {
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
        "ports": [{"name": "https", "port": hook.port, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["192.0.2.1"], "conditions": {"ready": False}},
            {"addresses": [address], "conditions": {"ready": True}},
        ],
    }  # fmt: skip
    await api.ok("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", part)
    await api.server.cache.fresh()
    assert "so says the endpoint" in (await api.refused(400, "POST", MAPS, {"metadata": {"name": "a"}}))["message"]


async def test_tokens_are_operations_too(api: Any, hook: Hook) -> None:
    hook.answers["/v"] = deny("no tokens today")
    await register(
        api, "validating", "v", {"clientConfig": hook.config("/v"), "rules": [rule("serviceaccounts/token")]}
    )
    found = await api.refused(400, "POST", "/api/v1/namespaces/default/serviceaccounts/default/token", {})
    assert "no tokens today" in found["message"]
    assert hook.requests("/v")[0]["kind"]["kind"] == "TokenRequest"


async def test_a_dry_run_asks_only_webhooks_without_effects(api: Any, hook: Hook) -> None:
    hook.answers["/v"] = lambda request: None
    await register(api, "validating", "v", {"clientConfig": hook.config("/v"), "sideEffects": "NoneOnDryRun"})
    await api.ok("POST", f"{MAPS}?dryRun=All", {"metadata": {"name": "a"}})
    request = hook.requests("/v")[0]
    assert request["dryRun"] is True and request["options"]["dryRun"] == ["All"]


async def test_selectors_rules_and_equal_versions_say_who_is_asked(api: Any, hook: Hook) -> None:
    hook.answers["/v"] = deny("no")
    client = {"clientConfig": hook.config("/v")}
    await register(
        api, "validating", "v",
        {**client, "name": "object.example.com", "objectSelector": {"matchLabels": {"ask": "yes"}}},
        {**client, "name": "namespace.example.com", "rules": [rule("secrets")],
         "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}},
        {**client, "name": "exact.example.com", "matchPolicy": "Exact",
         "rules": [rule("horizontalpodautoscalers", groups=("autoscaling",))]},
    )  # fmt: skip
    await api.ok("POST", MAPS, {"metadata": {"name": "a"}})
    await api.refused(400, "POST", MAPS, {"metadata": {"name": "b", "labels": {"ask": "yes"}}})
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "other"}})
    await api.ok("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": "a"}})
    await api.refused(400, "POST", "/api/v1/namespaces/other/secrets", {"metadata": {"name": "a"}})
    scaler = {"metadata": {"name": "h"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"},
                                                  "maxReplicas": 3}}  # fmt: skip
    scalers = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
    await api.ok("POST", scalers, scaler)
    await api.ok("DELETE", f"{ADMISSION}/validatingwebhookconfigurations/v")
    hook.asked.clear()
    equal = [rule("horizontalpodautoscalers", groups=("autoscaling",), operations=("*",))]
    await register(api, "validating", "v", {**client, "rules": equal})
    await api.refused(400, "POST", scalers, {**scaler, "metadata": {"name": "i"}})
    request = hook.requests("/v")[0]
    assert request["kind"]["version"] == "v1" and request["requestKind"]["version"] == "v2"
    assert request["object"]["apiVersion"] == "autoscaling/v1"


async def test_configurations_of_admission_itself_are_beyond_the_reach_of_webhooks(api: Any, hook: Hook) -> None:
    hook.answers["/v"] = deny("never")
    everything = [rule("*", operations=("*",), groups=("*",), versions=("*",))]
    client = {"clientConfig": hook.config("/v"), "rules": everything}
    await register(api, "validating", "v", client)
    await register(api, "mutating", "m", client)
    await api.refused(400, "POST", MAPS, {"metadata": {"name": "a"}})
    for sort, name in (("mutating", "m"), ("validating", "v")):
        await api.ok("DELETE", f"{ADMISSION}/{sort}webhookconfigurations/{name}")
    await api.ok("POST", MAPS, {"metadata": {"name": "a"}})


async def test_a_server_starts_although_a_webhook_fails_everything(api: Any, make_api: Any) -> None:
    everything = [rule("*/*", operations=("*",), groups=("*",), versions=("*",))]
    client = {"url": "https://127.0.0.1:1/x"}
    await api.ok("DELETE", "/apis/rbac.authorization.k8s.io/v1/clusterroles/view")  # the next one makes it anew
    await register(api, "validating", "v", {"clientConfig": client, "rules": everything})
    other = await make_api(api.store)
    await other.refused(500, "POST", MAPS, {"metadata": {"name": "a"}})
    await other.server.stop()


async def test_a_transaction_asks_for_each_of_its_writes(api: Any, hook: Hook) -> None:
    hook.answers["/m"] = add("m", "1")
    hook.answers["/v"] = lambda request: {"allowed": request["name"] != "bad"}
    await register(api, "mutating", "m", {"clientConfig": hook.config("/m")})
    await register(api, "validating", "v", {"clientConfig": hook.config("/v")})

    def writes(*names: str) -> list[Request]:
        return [
            Request("POST", MAPS, {"content-type": "application/json"},
                    orjson.dumps({"metadata": {"name": name}, "data": {"n": name}}), api_user(api))
            for name in names
        ]  # fmt: skip

    await api.server.transact(writes("a", "b"))
    assert (await api.ok("GET", f"{MAPS}/b"))["data"] == {"n": "b", "m": "1"}
    with pytest.raises(Exception, match="denied the request"):
        await api.server.transact(writes("c", "bad"))
    await api.refused(404, "GET", f"{MAPS}/c")


async def test_the_connection_to_a_webhook_is_kept(api: Any, hook: Hook) -> None:
    hook.answers["/v"] = lambda request: None
    await register(api, "validating", "v", {"clientConfig": hook.config("/v")})
    for n in range(5):
        await api.ok("POST", MAPS, {"metadata": {"name": f"a{n}"}})
    assert len(api.server._webhooks._transports) == 1
    (transport,) = api.server._webhooks._transports.values()
    assert len(transport._idle) == 1


CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def definition() -> Any:
    fields = {"spec": {"type": "object", "properties": {"kept": {"type": "string"}}}}
    return {
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [
                {"name": version, "served": True, "storage": version == "v1",
                 "schema": {"openAPIV3Schema": {"type": "object", "properties": fields}}}
                for version in ("v1", "v2")
            ],
        },
    }  # fmt: skip


async def test_a_connection_is_closed_when_another_endpoint_takes_its_place(
    api: Any, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TRANSPORTS_MAX", 1)
    hook.answers["/h"] = lambda request: {}
    await register(api, "validating", "v", {"clientConfig": hook.config("/h")})
    await api.ok("POST", MAPS, {"metadata": {"name": "a"}})
    (former,) = api.server._webhooks._transports.values()
    assert former._idle
    elsewhere = {"url": f"https://localhost:{hook.port}/h", "caBundle": hook.ca}
    await register(api, "validating", "w", {"clientConfig": elsewhere, "failurePolicy": "Ignore"})
    await api.ok("POST", MAPS, {"metadata": {"name": "b"}})
    await asyncio.gather(*api.server._webhooks._closing)
    assert former._closed and not former._idle


async def test_custom_resources_are_changed_pruned_and_refused_in_every_version(api: Any, hook: Hook) -> None:
    hook.answers["/m"] = lambda request: patch({"op": "add", "path": "/spec", "value": {"kept": "yes", "pruned": "no"}})
    hook.answers["/v"] = lambda request: {"allowed": request["name"] != "bad" and request["operation"] != "DELETE"}
    await api.ok("POST", CRDS, definition())
    things = "/apis/example.com/{}/namespaces/default/things"
    rules = [rule("things", groups=("example.com",), operations=("CREATE", "DELETE"))]
    created = [rule("things", groups=("example.com",))]
    await register(api, "mutating", "m", {"clientConfig": hook.config("/m"), "rules": created})
    await register(api, "validating", "v", {"clientConfig": hook.config("/v"), "rules": rules})
    made = await api.ok("POST", things.format("v2"), {"apiVersion": "example.com/v2", "kind": "Thing",
                                                      "metadata": {"name": "a"}})  # fmt: skip
    assert (made["apiVersion"], made["spec"]) == ("example.com/v2", {"kept": "yes"})
    request = hook.requests("/m")[0]
    assert (request["kind"]["version"], request["requestKind"]["version"]) == ("v1", "v2")
    assert request["object"]["apiVersion"] == "example.com/v1"
    await api.refused(400, "DELETE", f"{things.format('v1')}/a")
    bad = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "bad"}}
    await api.refused(400, "POST", things.format("v1"), bad)
    for sort in ("mutating", "validating"):
        await api.ok("DELETE", f"{ADMISSION}/{sort}webhookconfigurations")
    await api.ok("DELETE", f"{things.format('v1')}/a")


async def test_definitions_themselves_can_be_refused(api: Any, hook: Hook) -> None:
    hook.answers["/v"] = deny("no such things")
    rules = [rule("customresourcedefinitions", groups=("apiextensions.k8s.io",))]
    await register(api, "validating", "v", {"clientConfig": hook.config("/v"), "rules": rules})
    assert "no such things" in (await api.refused(400, "POST", CRDS, definition()))["message"]


async def test_ten_configurations_count_until_they_are_deleted_together(api: Any, hook: Hook) -> None:
    hook.answers["/m"] = lambda request: patch(
        {"op": "add", "path": f"/data/{len(request['object']['data'])}", "value": "x"}
    )
    for n in range(10):
        row = {
            "name": "h.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "rules": [rule("configmaps")], "clientConfig": hook.config("/m"),
        }  # fmt: skip
        body = {"metadata": {"name": f"m{n}", "labels": {"of": "test"}}, "webhooks": [row]}
        await api.ok("POST", f"{ADMISSION}/mutatingwebhookconfigurations", body)
    listed = await api.ok("GET", f"{ADMISSION}/mutatingwebhookconfigurations?labelSelector=of%3Dtest")
    assert len(listed["items"]) == 10
    made = await api.ok("POST", MAPS, {"metadata": {"name": "a"}, "data": {"zero": ""}})
    assert len(made["data"]) == 11
    await api.ok("DELETE", f"{ADMISSION}/mutatingwebhookconfigurations?labelSelector=of%3Dtest")
    assert (await api.ok("POST", MAPS, {"metadata": {"name": "b"}, "data": {"zero": ""}}))["data"] == {"zero": ""}


async def test_a_webhook_whose_operations_change_is_asked_by_the_new_ones(api: Any, hook: Hook) -> None:
    hook.answers["/m"] = add("m", "1")
    await register(api, "mutating", "m", {"clientConfig": hook.config("/m")})
    path = f"{ADMISSION}/mutatingwebhookconfigurations/m"
    for operation, asked in (("UPDATE", False), ("CREATE", True)):
        change = [{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": [operation]}]
        await api.ok("PATCH", path, change, content_type="application/json-patch+json")
        made = await api.ok("POST", MAPS, {"metadata": {"name": operation.lower()}, "data": {"x": ""}})
        assert ("m" in made["data"]) is asked


async def test_the_server_says_who_it_is_to_webhooks_that_a_file_names(
    make_api: Any, make_store: Any, hook: Hook, tmp_path: Path
) -> None:
    users = [
        {"name": f"127.0.0.1:{hook.port}", "user": {"token": "secret"}},
        {"name": "*", "user": {"username": "me", "password": "x"}},
    ]
    kubeconfig = tmp_path / "hooks"
    kubeconfig.write_bytes(orjson.dumps({"users": users}))
    (tmp_path / "others").write_bytes(orjson.dumps({"users": users[1:]}))
    base = {"apiVersion": "apiserver.config.k8s.io/v1"}
    kind = {**base, "kind": "WebhookAdmissionConfiguration"}
    plugins = [
        {"name": "MutatingAdmissionWebhook", "configuration": {**kind, "kubeConfigFile": str(kubeconfig)}},
        {"name": "ValidatingAdmissionWebhook", "configuration": {**kind, "kubeConfigFile": str(tmp_path / "others")}},
    ]
    file = tmp_path / "admission.yaml"
    file.write_bytes(orjson.dumps({**base, "kind": "AdmissionConfiguration", "plugins": plugins}))
    store = make_store(time.time)
    await store.start()
    api = await make_api(store, admission=file)
    hook.answers = {"/m": lambda request: None, "/v": lambda request: None}
    await register(api, "mutating", "m", {"clientConfig": hook.config("/m")})
    await register(api, "validating", "v", {"clientConfig": hook.config("/v")})
    await api.ok("POST", MAPS, {"metadata": {"name": "a"}})
    assert [hook.requests(path)[0]["authorization"] for path in ("/m", "/v")] == ["Bearer secret", "Basic bWU6eA=="]
    await api.server.stop()
    off = await make_api(store, admission_plugins_off=("MutatingAdmissionWebhook",))
    await off.ok("POST", MAPS, {"metadata": {"name": "b"}})
    assert (len(hook.requests("/m")), len(hook.requests("/v"))) == (1, 2)
    assert hook.requests("/v")[1]["authorization"] == ""
    await off.server.stop()
    await store.stop()


@pytest.mark.parametrize("level", ["Metadata", "Request"])
async def test_the_audit_log_tells_what_webhooks_have_done(
    make_api: Any, make_store: Any, hook: Hook, tmp_path: Path, level: str
) -> None:
    policy = read_policy(f"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{{level: {level}}}]")
    store = make_store(time.time)
    await store.start()
    api = await make_api(store, audit=AuditConfig(policy=policy, log=tmp_path / "log"))
    hook.answers = {
        "/add": lambda request: {**add("x", "1")(request), "auditAnnotations": {"good": "1", "not/good": "2", "": "3"}},
        "/no": deny("no"), "/lost": lambda request: {"uid": "another"},
        "/none": lambda request: None,
    }  # fmt: skip
    rows = [
        {"clientConfig": hook.config(f"/{path}"), "failurePolicy": "Ignore"} for path in ("add", "lost", "none", "no")
    ]
    await register(api, "mutating", "m", *rows)
    await register(api, "validating", "v", rows[1])
    await api.refused(400, "POST", MAPS, {"metadata": {"name": "a"}, "data": {"y": "0"}})
    hook.answers["/no"] = hook.answers["/none"]
    await api.ok("POST", MAPS, {"metadata": {"name": "a"}, "data": {"y": "0"}})
    await api.server.stop()
    await store.stop()
    found = [orjson.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    refused, made = (
        {key: text for key, text in event["annotations"].items() if "webhook" in key or "example" in key}
        for event in found
        if event["requestURI"] == MAPS and event["stage"] == "ResponseComplete"
    )
    base = [{"configuration": "m", "webhook": f"h{at}.example.com"} for at in range(4)]
    wanted = {
        f"mutation.webhook.admission.k8s.io/round_0_index_{at}": {**row, "mutated": at == 0}
        for at, row in enumerate(base)
    }
    if level == "Request":
        done = [{"op": "add", "path": "/data/x", "value": "1"}]
        wanted["patch.webhook.admission.k8s.io/round_0_index_0"] = {**base[0], "patch": done, "patchType": "JSONPatch"}
    lost = {"failed-open.mutation.webhook.admission.k8s.io/round_0_index_1": "h1.example.com"}
    refused = dict(refused)
    assert refused.pop("h0.example.com/good") == made.pop("h0.example.com/good") == "1"
    assert refused == {**{key: orjson.dumps(row).decode() for key, row in wanted.items()}, **lost}
    assert made == {**refused, "failed-open.validating.webhook.admission.k8s.io/round_0_index_0": "h0.example.com"}
