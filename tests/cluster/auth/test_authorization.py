"""Who is asked in which order: mistakes in an AuthorizationConfiguration, and what a webhook is asked and says."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from steersman.actors.apiserver.expressions import compiled
from steersman.cluster.auth import authorization
from steersman.cluster.auth.attributes import Attributes, Verdict, read_attributes
from steersman.cluster.auth.authorization import InvalidAuthorization, Webhook, read_authorization

HOOK: dict[str, Any] = {
    "timeout": "3s", "authorizedTTL": "1m30s", "unauthorizedTTL": "500ms", "subjectAccessReviewVersion": "v1",
    "failurePolicy": "Deny", "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": "/etc/hook"},
}  # fmt: skip


def text(*authorizers: Any, version: str = "v1", **more: Any) -> str:
    tree = {"apiVersion": f"apiserver.config.k8s.io/{version}", "kind": "AuthorizationConfiguration"}
    return yaml.safe_dump({**tree, "authorizers": list(authorizers), **more})


def hook(**changes: Any) -> Any:
    settings = {key: value for key, value in {**HOOK, **changes}.items() if value is not None}
    return {"type": "Webhook", "name": "hook", "webhook": settings}


def when(*sources: str) -> Any:
    conditions = [{"expression": source} for source in sources]
    return hook(matchConditionSubjectAccessReviewVersion="v1", matchConditions=conditions)


def read(document: str) -> Any:
    return read_authorization(
        document, compiled, lambda path: "" if path == "/etc/hook" else "error loading file: gone"
    )


def test_authorizers_are_asked_in_the_order_of_the_file() -> None:
    modes = read(text(hook(), {"type": "Node", "name": "node"}, {"type": "RBAC", "name": "rbac"}, version="v1beta1"))
    assert [mode.type for mode in modes] == ["Webhook", "Node", "RBAC"]
    webhook = modes[0].webhook
    assert (webhook.timeout_s, webhook.allowed_s, webhook.refused_s) == (3.0, 90.0, 0.5)
    assert webhook.denies_on_error and webhook.kubeconfig == "/etc/hook"
    webhook = read(text(hook(authorizedTTL=None, unauthorizedTTL=None, cacheUnauthorizedRequests=False)))[0].webhook
    assert (webhook.allowed_s, webhook.refused_s) == (300.0, 0.0)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("kind: Pod", "kind: must be AuthorizationConfiguration"),
        (text(version="v2"), "apiVersion: must be one of"),
        (text(), "authorizers: Required value: at least one authorization mode must be defined"),
        (text({"name": "a"}), "authorizers[0].type: Required value"),
        (text({"type": "ABAC", "name": "a"}), 'authorizers[0].type: Unsupported value: "ABAC": supported values: "Al'),
        (text({"type": "RBAC"}), "authorizers[0].name: Required value"),
        (
            text({"type": "RBAC", "name": "A"}),
            'authorizers[0].name: Invalid value: "A": authorizer name is invalid: a lo',
        ),
        (
            text({"type": "RBAC", "name": "a"}, {"type": "Node", "name": "a"}),
            'authorizers[1].name: Duplicate value: "a"',
        ),
        (
            text({"type": "RBAC", "name": "a"}, {"type": "RBAC", "name": "b"}),
            'authorizers[1].type: Duplicate value: "RBAC',
        ),
        (text({"type": "RBAC", "name": "a", "webhook": {}}), "may only be specified when type=Webhook"),
        (text({"type": "Webhook", "name": "a"}), "authorizers[0].webhook: Required value: required when type=Webhook"),
        (text(hook(timeout=None)), "authorizers[0].timeout: Required value"),
        (text(hook(timeout="31s")), 'authorizers[0].timeout: Invalid value: "31s": must be > 0s and <= 30s'),
        (text(hook(timeout="soon")), 'time: invalid duration "soon"'),
        (text(hook(authorizedTTL="-1s")), 'authorizers[0].authorizedTTL: Invalid value: "-1s": must be > 0s'),
        (text(hook(subjectAccessReviewVersion="v2")), 'Unsupported value: "v2": supported values: "v1", "v1beta1"'),
        (text(hook(failurePolicy=None)), "authorizers[0].failurePolicy: Required value"),
        (text(hook(failurePolicy="Fail")), 'Unsupported value: "Fail": supported values: "NoOpinion", "Deny"'),
        (text(hook(connectionInfo=None)), "authorizers[0].connectionInfo.type: Required value"),
        (text(hook(connectionInfo={"type": "InClusterConfig"})), "this mode is not allowed for kube-apiserver"),
        (text(hook(connectionInfo={"type": "KubeConfigFile"})), "connectionInfo.kubeConfigFile: Required value"),
        (
            text(hook(connectionInfo={"type": "KubeConfigFile", "kubeConfigFile": "hook"})),
            'connectionInfo.kubeConfigFile: Invalid value: "hook": must be an absolute path',
        ),
        (text(hook(connectionInfo={"type": "KubeConfigFile", "kubeConfigFile": "/no"})), "error loading file"),
        (text(hook(matchConditions=[{"expression": "true"}])), "required if match conditions are specified"),
        (text(when(" ")), "authorizers[0].matchConditions[0].expression: Required value"),
        (text(when("true", "true")), 'matchConditions[1].expression: Duplicate value: "true"'),
        (text(when("request.user")), "must evaluate to bool but got string"),
        (text(when("request.time == 'now'")), "undefined field 'time'"),
        (text(when(*(f"{n} > 0" for n in range(65)))), "matchConditions: Too many: 65: must have at most 64 items"),
        (text(hook(retries=1)), 'unknown field "authorizers[0].webhook.retries"'),
    ],
)
def test_a_mistake_in_a_configuration_is_named(document: str, message: str) -> None:
    with pytest.raises(InvalidAuthorization) as caught:
        read(document)
    assert message in str(caught.value)


PODS = read_attributes("GET", "/api/v1/namespaces/a/pods", {"fieldSelector": "spec.nodeName=n1", "labelSelector": "!x"})


def spec_of(about: Attributes = PODS) -> Any:
    return authorization.review_spec("jane", ("devs",), "", {}, about)


def test_a_review_holds_what_the_request_is_restricted_to_and_no_empty_fields() -> None:
    sent = authorization.review(spec_of(), "v1")["spec"]
    assert sent == {
        "user": "jane",
        "groups": ["devs"],
        "resourceAttributes": {
            "namespace": "a", "verb": "list", "version": "v1", "resource": "pods",
            "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]},
            "labelSelector": {"requirements": [{"key": "x", "operator": "DoesNotExist", "values": []}]},
        },
    }  # fmt: skip
    path = authorization.review(spec_of(Attributes("get", "/metrics")), "v1beta1")
    assert path["apiVersion"] == "authorization.k8s.io/v1beta1"
    assert path["spec"] == {
        "user": "jane", "group": ["devs"], "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sources", "asked", "error"),
    [
        (["request.user == 'jane'", "has(request.resourceAttributes)"], True, ""),
        (["request.resourceAttributes.fieldSelector.requirements.exists(r, r.key == 'spec.nodeName')"], True, ""),
        (["request.user == 'bob'"], False, ""),
        (["request.nonResourceAttributes.path == '/'", "request.user == 'bob'"], False, ""),
        (["request.nonResourceAttributes.path == '/'"], False, "no such key: nonResourceAttributes"),
        (["request.resourceAttributes.subresource == ''", "request.extra == {}"], True, ""),
    ],
)  # fmt: skip
def test_a_webhook_is_asked_where_its_conditions_hold(sources: list[str], asked: bool, error: str) -> None:
    verdict = authorization.concerns(read(text(when(*sources)))[0].webhook, spec_of())
    assert (verdict is None) is asked
    if verdict is not None:
        assert error in verdict.error and verdict.denied is bool(error)


SETTINGS = Webhook(
    kubeconfig="", timeout_s=1, allowed_s=1, refused_s=1, version="v1", denies_on_error=False
)  # fmt: skip


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        ({"allowed": True, "reason": "fine"}, Verdict(True, "fine")),
        ({"allowed": False, "reason": "no idea"}, Verdict(False, "no idea")),
        ({"allowed": False, "denied": True, "reason": "no"}, Verdict(False, "no", denied=True)),
        (None, Verdict(False, error="the answer of the webhook is no SubjectAccessReview with a status")),
    ],
)
def test_an_answer_means_what_its_status_says(status: Any, verdict: Verdict) -> None:
    assert authorization.verdict_of(SETTINGS, {"status": status}) == verdict


def test_an_answer_that_allows_and_denies_denies() -> None:
    found = authorization.verdict_of(SETTINGS, {"status": {"allowed": True, "denied": True}})
    assert found.denied and not found.allowed and "returned both allow and deny response" in found.error


def test_a_refusal_holds_what_all_had_to_say() -> None:
    found = authorization.refused([Verdict(False, "a", error="x"), Verdict(False), Verdict(False, "b", error="y")])
    assert found == Verdict(False, "a\nb", error="[x, y]")
