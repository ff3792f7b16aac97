"""Authorizers by configuration: a real HTTPS webhook before RBAC, what is remembered, failures, a changed file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from steersman.actors.ports import User

PODS = "/api/v1/namespaces/default/pods"
JANE = User("jane", ("devs", "system:authenticated"), "7", {"k": ("v",)})
SELF = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
RULES = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
RBAC, NODE = {"type": "RBAC", "name": "rbac"}, {"type": "Node", "name": "node"}


class Setup:
    """A server whose authorizers are those of a file."""

    def __init__(self, directory: Path, hook: Any) -> None:
        self.path = directory / "authorization.yaml"
        self.hook = hook
        self.kubeconfig = directory / "hook"
        self.kubeconfig.write_text(hook.kubeconfig("/authorize"))
        self.api: Any = None

    def webhook(self, **changes: Any) -> Any:
        settings = {
            "timeout": "5s", "authorizedTTL": "1m", "unauthorizedTTL": "1m", "subjectAccessReviewVersion": "v1",
            "matchConditionSubjectAccessReviewVersion": "v1", "failurePolicy": "NoOpinion",
            "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": str(self.kubeconfig)}, **changes,
        }  # fmt: skip
        return {"type": "Webhook", "name": "hook", "webhook": settings}

    def write(self, *authorizers: Any) -> None:
        tree = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration"}
        self.path.write_text(yaml.safe_dump({**tree, "authorizers": list(authorizers)}))
        if self.api is not None:
            self.api.server._modes._file.reload()

    def says(self, **status: Any) -> None:
        self.hook.answers["/authorize"] = {"status": status}


@pytest.fixture
async def setup(make_api: Any, make_store: Any, other: Any, tmp_path: Path) -> AsyncIterator[Setup]:
    found = Setup(tmp_path, other)
    found.write(found.webhook(), NODE, RBAC)
    store = make_store()
    await store.start()
    found.api = await make_api(store, authorization=found.path)
    yield found
    await found.api.server.stop()
    await store.stop()


@pytest.fixture
def make_store(make_store: Any) -> Any:
    return lambda: make_store(lambda: 0.0)


async def test_a_webhook_allows_what_roles_do_not_and_is_asked_once(setup: Setup) -> None:
    setup.says(allowed=True, reason="is fine")
    for _ in range(3):
        await setup.api.ok("GET", f"{PODS}?fieldSelector=spec.nodeName%3Dn1", user=JANE)
    assert len(setup.hook.asked) == 1
    spec = setup.hook.asked[0][1]["spec"]
    assert (spec["user"], spec["uid"], spec["groups"], spec["extra"]) == ("jane", "7", list(JANE.groups), {"k": ["v"]})
    assert spec["resourceAttributes"]["fieldSelector"]["requirements"][0]["values"] == ["n1"]
    await setup.api.ok("GET", PODS, user=JANE)
    assert len(setup.hook.asked) == 2, "another selector is another question"


async def test_nobody_else_is_asked_after_a_webhook_that_denies(setup: Setup) -> None:
    group = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": "b"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": group}],
    }
    await setup.api.ok("POST", f"/apis/{group}/v1/clusterrolebindings", binding)
    setup.says(allowed=False, denied=True, reason="not on Sundays")
    found = await setup.api.refused(403, "GET", PODS, user=JANE)
    assert found["message"].endswith('in the namespace "default": not on Sundays')
    await setup.api.ok("GET", PODS)  # an administrator is not asked about
    setup.says(allowed=False)
    await setup.api.ok("GET", "/api/v1/namespaces/default/services", user=JANE)
    spec = {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default", "version": "v1"}}
    review = await setup.api.ok("POST", SELF, {"spec": spec}, user=JANE)
    assert review["status"] == {"allowed": False, "denied": True, "reason": "not on Sundays"}
    rules = (await setup.api.ok("POST", RULES, {"spec": {"namespace": "default"}}, user=JANE))["status"]
    assert (
        rules["incomplete"] and rules["evaluationError"] == "webhook authorizer does not support user rule resolution"
    )


async def test_match_conditions_keep_requests_from_the_webhook(setup: Setup) -> None:
    setup.write(setup.webhook(matchConditions=[{"expression": "request.user != 'jane'"}]), RBAC)
    await setup.api.refused(403, "GET", PODS, user=JANE)
    assert not setup.hook.asked


async def test_answers_that_are_not_to_be_remembered_are_asked_for_each_time(setup: Setup) -> None:
    setup.write(setup.webhook(cacheAuthorizedRequests=False))
    setup.says(allowed=True)
    for _ in range(2):
        await setup.api.ok("GET", PODS, user=JANE)
    assert len(setup.hook.asked) == 2


async def test_a_write_asks_about_the_roles_that_it_grants(setup: Setup) -> None:
    def answer(review: Any) -> Any:
        return {
            "status": {"allowed": review["spec"].get("resourceAttributes", {}).get("verb") in ("create", "escalate")}
        }

    setup.hook.answers["/authorize"] = answer
    role = {"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}
    await setup.api.ok("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role, user=JANE)
    assert [row["spec"]["resourceAttributes"]["verb"] for _, row in setup.hook.asked] == ["create", "escalate"]


@pytest.mark.parametrize(("policy", "status"), [("NoOpinion", 200), ("Deny", 500)])
async def test_a_webhook_that_fails_forbids_or_has_no_opinion(
    setup: Setup, policy: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steersman.actors.apiserver.askedwebhooks._RETRY_S", 0.001)
    setup.write(setup.webhook(failurePolicy=policy), {"type": "AlwaysAllow", "name": "all"})
    setup.hook.answers["/authorize"] = 503
    found = await setup.api.call("GET", PODS, user=JANE)
    assert found.status == status, found.body
    assert len(setup.hook.asked) == 5, "it is tried again"
    page = "\n".join(setup.api.server.metrics.series.lines())
    for what, count in (("evaluations_total", 1), ("evaluations_fail_open_total", int(status == 200))):
        line = f'apiserver_authorization_webhook_{what}{{name="hook",result="error"}} 1'
        assert page.count(line) == count
    if status == 500:
        assert b"the webhook hook answered 503" in found.body


async def test_a_changed_file_counts_and_a_bad_one_does_not(setup: Setup) -> None:
    setup.write({"type": "AlwaysAllow", "name": "all"})
    await setup.api.ok("GET", PODS, user=JANE)
    setup.write({"type": "Nobody", "name": "x"})
    await setup.api.ok("GET", PODS, user=JANE)
    setup.write({"type": "AlwaysDeny", "name": "none"})
    found = await setup.api.refused(403, "GET", PODS, user=JANE)
    assert found["message"].endswith(": Everything is forbidden.")


async def test_a_file_changes_under_requests_and_each_is_answered_by_one_version_of_it(setup: Setup) -> None:
    setup.says(allowed=True)
    stopping = False

    async def ask() -> int:
        asked = 0
        while not stopping:
            await setup.api.ok("GET", PODS, user=JANE)
            asked += 1
        return asked

    asking = [asyncio.create_task(ask()) for _ in range(8)]
    async with asyncio.timeout(20):
        for round_ in range(20):
            before = len(setup.hook.asked)
            setup.write(setup.webhook(cacheAuthorizedRequests=False, timeout=f"{5 + round_ % 2}s"), RBAC)
            while len(setup.hook.asked) < before + 8:  # noqa: ASYNC110  (asked by whom the test starts)
                await asyncio.sleep(0)
    stopping = True
    assert min(await asyncio.gather(*asking)) > 0
