"""The audit log end to end: which events a request leaves, in a file that is rotated and at a webhook."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steersman.actors.apiserver import auditlog
from steersman.actors.apiserver.auditlog import AuditLog, AuditWebhook
from steersman.actors.apiserver.config import AuditConfig, Rotation
from steersman.actors.http.messages import Request, Response
from steersman.actors.http.server import HttpServer
from steersman.actors.ports import User
from steersman.actors.webhook import Webhook
from steersman.cluster.auth.audit import read_policy

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
JANE = User("jane", ("devs",))


def policy(level: str, more: str = "") -> Any:
    return read_policy(f"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{{level: {level}}}]\n{more}")


@pytest.fixture
async def audited(make_api: Any, make_store: Any, tmp_path: Path) -> Any:
    """Starts a server with a policy; `events()` ends it and returns what it wrote."""
    store = make_store(lambda: 0.0)
    await store.start()
    apis = []

    async def start(level: str, more: str = "") -> tuple[Any, Callable[[], Any]]:
        path = tmp_path / "audit.log"
        api = await make_api(store, audit=AuditConfig(policy=policy(level, more), log=path))
        apis.append(api)

        async def events() -> list[Any]:
            await api.server.stop()
            return [json.loads(line) for line in path.read_text().splitlines()]

        return api, events

    yield start
    for api in apis:
        await api.server.stop()
    await store.stop()


async def test_metadata_says_who_did_what_and_what_came_of_it(audited: Any) -> None:
    api, events = await audited("Metadata")
    answer = await api.call("POST", CONFIG_MAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}}, audit_id="mine")
    assert answer.headers["audit-id"] == "mine"
    await api.refused(403, "GET", f"{CONFIG_MAPS}/a", user=JANE)
    received, complete, _, refused = await events()
    assert (received["stage"], complete["stage"]) == ("RequestReceived", "ResponseComplete")
    assert received["auditID"] == complete["auditID"] == "mine" and refused["auditID"] != "mine"
    assert complete["verb"] == "create" and complete["requestURI"] == CONFIG_MAPS
    assert complete["user"] == {"username": "admin", "groups": ["system:masters", "system:authenticated"]}
    assert complete["userAgent"] == "test/1" and complete["level"] == "Metadata"
    assert complete["objectRef"] == {
        "resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1",
    }  # fmt: skip
    assert complete["responseStatus"] == {"metadata": {}, "code": 201}
    assert complete["annotations"] == {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""}
    assert "requestObject" not in complete and "responseObject" not in complete
    assert refused["responseStatus"]["reason"] == "Forbidden" and refused["responseStatus"]["code"] == 403
    assert refused["annotations"]["authorization.k8s.io/decision"] == "forbid"


async def test_request_and_response_hold_the_objects_without_their_bookkeeping_where_wanted(audited: Any) -> None:
    api, events = await audited("RequestResponse", "omitManagedFields: true\nomitStages: [RequestReceived]\n")
    config_map = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"k": "v"}}
    await api.ok("POST", CONFIG_MAPS, config_map)
    patch = {"data": {"k": "w"}}
    await api.ok("PATCH", f"{CONFIG_MAPS}/a", patch, content_type="application/merge-patch+json")
    created, patched = await events()
    assert created["requestObject"] == config_map
    assert created["responseObject"]["data"] == {"k": "v"} and created["responseObject"]["metadata"]["uid"]
    assert "managedFields" not in created["responseObject"]["metadata"]
    assert patched["requestObject"] == patch and patched["responseObject"]["data"] == {"k": "w"}


async def test_an_object_is_written_down_as_it_was_understood(audited: Any) -> None:
    api, events = await audited("Request", "omitStages: [RequestReceived]\n")
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "nonsense": 1}}
    await api.call("POST", "/api/v1/namespaces/default/services", service)
    await api.refused(400, "POST", CONFIG_MAPS, {"metadata": {"name": "a"}, "data": 7})
    made, refused = await events()
    assert made["requestObject"]["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert "nonsense" not in made["requestObject"]["spec"] and "uid" not in made["requestObject"]["metadata"]
    assert "requestObject" not in refused


async def test_a_watch_leaves_an_event_when_it_begins_and_one_when_it_ends(audited: Any) -> None:
    api, events = await audited("Metadata", "omitStages: [RequestReceived]\n")
    watch = await api.watch(f"{CONFIG_MAPS}?watch=1")
    await api.ok("POST", CONFIG_MAPS, {"metadata": {"name": "a"}})
    await watch.next()
    await watch.close()
    begun, _, ended = await events()
    assert (begun["stage"], begun["verb"]) == ("ResponseStarted", "watch")
    assert (ended["stage"], ended["auditID"]) == ("ResponseComplete", begun["auditID"])


async def test_who_acts_as_somebody_else_and_who_is_nobody_are_told_apart(audited: Any) -> None:
    api, events = await audited("Metadata", "omitStages: [RequestReceived]\n")
    await api.refused(403, "GET", CONFIG_MAPS, impersonate_user="jane")
    await api.refused(401, "GET", CONFIG_MAPS, user=None)
    acting, nobody = await events()
    assert acting["user"]["username"] == "admin" and acting["impersonatedUser"]["username"] == "jane"
    assert acting["authenticationMetadata"] == {"impersonationConstraint": "impersonate:user-info"}
    assert nobody["user"] == {} and nobody["stage"] == "ResponseStarted"
    assert nobody["responseStatus"] == {
        "metadata": {}, "message": "Authentication failed, no credentials provided", "code": 401,
    }  # fmt: skip


async def test_the_id_of_a_token_and_one_that_is_stale_are_written_down(
    audited: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, events = await audited("Metadata", "omitStages: [RequestReceived]\n")
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    await api.ok("POST", accounts, {"metadata": {"name": "default"}})
    made = await api.ok("POST", f"{accounts}/default/token", {"spec": {}})
    monkeypatch.setattr("steersman.actors.apiserver.authenticator.staleness", lambda _claims, _now: "old")
    await api.refused(403, "GET", CONFIG_MAPS, user=None, authorization=f"Bearer {made['status']['token']}")
    rows = [row["annotations"] for row in await events()]
    assert rows[1]["authentication.kubernetes.io/issued-credential-id"].startswith("JTI=")
    assert rows[2]["authentication.k8s.io/stale-token"] == "old"


async def test_what_nobody_may_do_is_not_read_and_what_was_tried_is_told(audited: Any) -> None:
    api, events = await audited("RequestResponse", "omitStages: [RequestReceived]\n")
    await api.refused(403, "POST", CONFIG_MAPS, {"metadata": {"name": "a"}}, user=JANE)
    await api.refused(401, "GET", CONFIG_MAPS, user=None, authorization="Bearer x")
    page = "\n".join(api.server.metrics.series.lines())
    assert "apiserver_audit_event_total 2" in page
    assert 'apiserver_audit_level_total{level="RequestResponse"} 2' in page
    forbidden, unknown = await events()
    assert "requestObject" not in forbidden and "name" not in forbidden["objectRef"]
    assert forbidden["responseObject"]["reason"] == "Forbidden"
    assert unknown["responseStatus"]["message"] == "Authentication failed, attempted: bearer"


async def test_the_sources_of_a_request_are_those_that_proxies_tell_and_the_last_one(audited: Any) -> None:
    api, events = await audited("Metadata", "omitStages: [RequestReceived]\n")
    rows: list[tuple[dict[str, str], list[str]]] = [
        ({}, ["10.0.0.1"]),
        ({"x-forwarded-for": "10.0.0.7, unknown, 10.0.0.8"}, ["10.0.0.7", "10.0.0.8", "10.0.0.1"]),
        ({"x-forwarded-for": "10.0.0.7", "x-real-ip": "10.0.0.9"}, ["10.0.0.7", "10.0.0.9", "10.0.0.1"]),
        ({"x-forwarded-for": "10.0.0.1, 10.0.0.7"}, ["10.0.0.1", "10.0.0.7", "10.0.0.1"]),
        ({"x-real-ip": "10.0.0.1"}, ["10.0.0.1"]),
    ]
    admin = User("a", ("system:masters",))
    for headers, _ in rows:
        await api.server(Request("GET", "/version", headers, user=admin, peer="10.0.0.1"))
    assert [event["sourceIPs"] for event in await events()] == [sources for _, sources in rows]


async def test_what_the_policy_leaves_out_leaves_nothing(audited: Any) -> None:
    api, events = await audited("None")
    await api.ok("GET", CONFIG_MAPS)
    assert await events() == []


def aside(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.name != "audit.log")


async def test_a_file_is_put_aside_by_size_and_only_so_many_are_kept(tmp_path: Path) -> None:
    lost: list[int] = []
    log = AuditLog(tmp_path / "audit.log", Rotation(size_bytes_max=100, backups_max=2), lost.append)
    await log.start()
    for number in range(5):
        log.write(b'{"n":%d,"x":"%b"}' % (number, b"x" * 60))
        await log._flush()
    await log.stop()
    assert json.loads((tmp_path / "audit.log").read_text())["n"] == 4 and not lost
    assert [json.loads(path.read_text())["n"] for path in aside(tmp_path)] == [2, 3]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in aside(tmp_path))


async def test_a_webhook_gets_events_in_batches_and_again_when_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditlog, "_BATCH_WAIT_S", 0.01)
    monkeypatch.setattr(auditlog, "_PAUSE_S", 0.01)
    bodies: list[Any] = []
    arrived = asyncio.Event()

    async def receive(request: Request) -> Response:
        bodies.append((request.target, json.loads(request.body)))
        if len(bodies) > 1:
            arrived.set()
        return Response(500 if len(bodies) == 1 else 200)

    server = HttpServer(receive, host="127.0.0.1", port=0)
    await server.start()
    cluster = f"[{{name: c, cluster: {{server: 'http://127.0.0.1:{server.port}/audit'}}}}]"
    (tmp_path / "hook").write_text(
        f"current-context: c\nclusters: {cluster}\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
    )
    lost: list[int] = []
    hook = AuditWebhook(Webhook(tmp_path / "hook"), lost.append)
    await hook.start()
    for number in range(3):
        hook.write(b'{"n":%d}' % number)
    async with asyncio.timeout(10):
        await arrived.wait()
    await hook.stop()
    await server.stop()
    assert bodies[0] == bodies[1] and len(bodies) == 2 and not lost
    target, batch = bodies[0]
    assert target == "/audit" and batch["kind"] == "EventList" and [row["n"] for row in batch["items"]] == [0, 1, 2]


def test_events_beyond_the_bound_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditlog, "BUFFER_MAX", 2)
    lost: list[int] = []
    buffer = auditlog._Buffer("a file", lost.append)
    for _ in range(5):
        buffer.put(b"{}")
    assert len(buffer.events) == 2 and buffer.dropped == sum(lost) == 3
