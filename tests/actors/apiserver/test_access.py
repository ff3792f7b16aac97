"""Who may do what, end to end: tokens, nodes, impersonation, escalation, reviews."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from steersman.actors.ports import User
from steersman.cluster.auth import jwt
from steersman.cluster.meta.times import parse_time

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
JANE = User("jane", ("devs",))
NODE = User("system:node:n1", ("system:nodes",))


def pod(name: str, node: str = "", **spec: Any) -> dict[str, Any]:
    more = {**spec, **({"nodeName": node} if node else {})}
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "example.com/x"}], **more}}


def reference(name: str, kind: str = "ClusterRole") -> dict[str, str]:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}


def subject(user: User) -> dict[str, str]:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user.name}


async def grant(api: Any, user: User, role: str) -> None:
    body = {"metadata": {"name": f"{user.name}-{role}"}, "roleRef": reference(role), "subjects": [subject(user)]}
    await api.ok("POST", f"{RBAC}/namespaces/default/rolebindings", body)


async def test_a_binding_takes_effect_at_once_and_so_does_its_end(api: Any) -> None:
    refused = await api.refused(403, "GET", CONFIG_MAPS, user=JANE)
    assert refused["message"] == (
        'configmaps is forbidden: User "jane" cannot list resource "configmaps" in API group "" '
        'in the namespace "default"'
    )
    await grant(api, JANE, "view")
    await api.ok("GET", CONFIG_MAPS, user=JANE)
    await api.refused(403, "POST", CONFIG_MAPS, {"metadata": {"name": "a"}}, user=JANE)
    await api.ok("DELETE", f"{RBAC}/namespaces/default/rolebindings/jane-view")
    await api.refused(403, "GET", CONFIG_MAPS, user=JANE)


async def test_a_missing_kind_is_told_only_to_those_who_may_ask(api: Any) -> None:
    await api.refused(403, "GET", "/apis/example.com/v1/secretkinds", user=JANE)
    await api.refused(404, "GET", "/apis/example.com/v1/secretkinds")


async def test_a_backup_is_for_administrators_alone(api: Any) -> None:
    path = "/steersman/v1/backup"
    await grant(api, JANE, "admin")
    for user in (JANE, NODE):
        await api.refused(403, "GET", path, user=user)
    binding = {"metadata": {"name": "jane"}, "roleRef": reference("cluster-admin"), "subjects": [subject(JANE)]}
    await api.ok("POST", f"{RBAC}/clusterrolebindings", binding)
    await api.refused(405, "POST", path, {}, user=JANE)
    response = await api.call("GET", path, user=JANE)
    content = b"".join([piece async for piece in response.body])
    assert response.status == 200 and content[-32:] == hashlib.sha256(content[:-32]).digest()


async def test_nobody_widens_their_own_rights(api: Any) -> None:
    await grant(api, JANE, "admin")
    roles = f"{RBAC}/namespaces/default/roles"
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    held = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    await api.ok("POST", roles, {"metadata": {"name": "fine"}, "rules": [held]}, user=JANE)
    refused = await api.refused(403, "POST", roles, {"metadata": {"name": "r"}, "rules": [everything]}, user=JANE)
    assert "attempting to grant RBAC permissions not currently held" in refused["message"]
    binding = {"metadata": {"name": "b"}, "roleRef": reference("cluster-admin"), "subjects": [subject(JANE)]}
    await api.refused(403, "POST", f"{RBAC}/namespaces/default/rolebindings", binding, user=JANE)
    patch = {"rules": [everything]}
    media = "application/merge-patch+json"
    await api.refused(403, "PATCH", f"{roles}/fine", patch, user=JANE, content_type=media)
    narrower = {**binding, "roleRef": reference("view")}
    await api.ok("POST", f"{RBAC}/namespaces/default/rolebindings", narrower, user=JANE)


async def test_a_role_that_does_not_exist_is_bound_by_nobody_who_may_not_bind_it(api: Any) -> None:
    await grant(api, JANE, "admin")
    bindings = f"{RBAC}/namespaces/default/rolebindings"
    binding = {
        "metadata": {"name": "b"},
        "roleRef": {**reference("ghost"), "kind": "Role"},
        "subjects": [subject(JANE)],
    }
    refused = await api.refused(404, "POST", bindings, binding, user=JANE)
    assert refused["message"] == 'roles.rbac.authorization.k8s.io "ghost" not found'
    await api.ok("POST", bindings, binding)
    refused = await api.refused(403, "GET", "/api/v1/namespaces/default/nodes", user=JANE)
    assert refused["message"].endswith(': RBAC: role.rbac.authorization.k8s.io "ghost" not found')
    rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    status = (await api.ok("POST", rules, {"spec": {"namespace": "default"}}, user=JANE))["status"]
    assert status["evaluationError"] == 'role.rbac.authorization.k8s.io "ghost" not found' and not status["incomplete"]


async def test_a_role_of_more_rights_is_deleted_but_not_relabelled_by_one_who_has_fewer(api: Any) -> None:
    await grant(api, JANE, "admin")
    roles = f"{RBAC}/namespaces/default/roles"
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    await api.ok("POST", roles, {"metadata": {"name": "wide"}, "rules": [everything]})
    media = "application/merge-patch+json"
    label = {"metadata": {"labels": {"a": "b"}}}
    await api.refused(403, "PATCH", f"{roles}/wide", label, user=JANE, content_type=media)
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "y"}
    owners = {"metadata": {"ownerReferences": [owner]}}
    await api.ok("PATCH", f"{roles}/wide", owners, user=JANE, content_type=media)
    await api.ok("DELETE", f"{roles}/wide", user=JANE)


async def test_acting_as_somebody_else_must_be_allowed(api: Any) -> None:
    review = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    found = await api.ok("POST", review, {}, impersonate_user="bob", impersonate_group="ops")
    assert found["status"]["userInfo"] == {"username": "bob", "groups": ["ops", "system:authenticated"]}
    refused = await api.refused(403, "POST", review, {}, user=JANE, impersonate_user="bob")
    assert refused["message"] == (
        'selfsubjectreviews.authentication.k8s.io is forbidden: User "jane" cannot impersonate-on:user-info:create'
        ' resource "selfsubjectreviews" in API group "authentication.k8s.io" at the cluster scope'
    )
    for header in ("impersonate_group", "impersonate_uid", "impersonate_extra_a"):
        refused = await api.refused(400, "POST", review, {}, **{header: "ops"})
        assert "without impersonating a user name" in refused["message"]
    await api.refused(403, "GET", CONFIG_MAPS, impersonate_user="bob")


async def token_of(api: Any, account: str, **spec: Any) -> str:
    made = await api.ok("POST", f"{ACCOUNTS}/{account}/token", {"spec": {"audiences": [], **spec}})
    return str(made["status"]["token"])


async def test_a_token_dies_with_the_pod_and_the_account_it_is_bound_to(api: Any) -> None:
    await api.ok("POST", ACCOUNTS, {"metadata": {"name": "robot"}})
    await grant(api, User("system:serviceaccount:default:robot"), "view")
    await api.ok("POST", PODS, pod("p", serviceAccountName="robot"))
    free = await token_of(api, "robot")
    bound = await token_of(api, "robot", boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "p"})
    for token in (free, bound):
        await api.ok("GET", f"{PODS}/p", user=None, authorization=f"Bearer {token}")
    await api.ok("DELETE", f"{PODS}/p")
    await api.server.cache.fresh()
    await api.refused(401, "GET", PODS, user=None, authorization=f"Bearer {bound}")
    await api.ok("GET", PODS, user=None, authorization=f"Bearer {free}")
    await api.ok("DELETE", f"{ACCOUNTS}/robot")
    await api.refused(401, "GET", PODS, user=None, authorization=f"Bearer {free}")


async def test_a_token_is_reviewed_for_its_audience(api: Any) -> None:
    review = "/apis/authentication.k8s.io/v1/tokenreviews"
    token = await token_of(api, "default", audiences=["vault"])
    mine = (await api.ok("POST", review, {"spec": {"token": token}}))["status"]
    assert mine["user"] == {} and "authenticated" not in mine
    theirs = (await api.ok("POST", review, {"spec": {"token": token, "audiences": ["vault", "x"]}}))["status"]
    assert theirs["user"]["username"] == "system:serviceaccount:default:default"
    await api.refused(401, "GET", PODS, user=None, authorization=f"Bearer {token}")
    keys = await api.ok("GET", "/openid/v1/jwks")
    assert keys["keys"][0]["alg"] == "ES256"


async def test_a_bootstrap_token_is_a_secret_in_the_system_namespace(api: Any) -> None:
    data = {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    secret = {"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "data": encoded}
    await api.ok("POST", "/api/v1/namespaces/kube-system/secrets", secret)
    header = "Bearer abcdef.0123456789abcdef"
    review = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    found = await api.ok("POST", review, {}, user=None, authorization=header)
    assert "system:bootstrappers" in found["status"]["userInfo"]["groups"]
    await api.refused(403, "GET", PODS, user=None, authorization=header)


async def test_a_token_as_pods_ask_for_it_lives_longer_than_it_says(api: Any) -> None:
    await api.ok("POST", PODS, pod("web", "n1"))
    bound = {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web"}}
    ages = []
    for more, seconds in ((bound, 3607), (bound, 3608), ({}, 3607)):
        spec = {**more, "expirationSeconds": seconds}
        status = (await api.ok("POST", f"{ACCOUNTS}/default/token", {"spec": spec}))["status"]
        claims = jwt.read(status["token"]).claims
        assert parse_time(status["expirationTimestamp"]) - claims["iat"] == seconds
        ages.append(claims["exp"] - claims["iat"])
    assert ages == [365 * 86_400, 3608, 3607]


async def test_a_node_serves_itself_and_its_pods_alone(api: Any) -> None:
    await api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}}, user=NODE)
    await api.refused(403, "POST", "/api/v1/nodes", {"metadata": {"name": "n2"}}, user=NODE)
    for name in ("used", "other"):
        await api.ok("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": name}})
    volume = {"name": "v", "secret": {"secretName": "used"}}
    await api.ok("POST", PODS, pod("mine", "n1", volumes=[volume]))
    await api.ok("POST", PODS, pod("theirs", "n2"))
    secrets = "/api/v1/namespaces/default/secrets"
    await api.ok("GET", f"{secrets}/used", user=NODE)
    await api.refused(403, "GET", f"{secrets}/other", user=NODE)
    await api.refused(403, "GET", secrets, user=NODE)
    media = "application/merge-patch+json"
    status = {"status": {"phase": "Running"}}
    await api.ok("PATCH", f"{PODS}/mine/status", status, user=NODE, content_type=media)
    await api.refused(403, "PATCH", f"{PODS}/theirs/status", status, user=NODE, content_type=media)
    uid = (await api.ok("GET", f"{PODS}/mine", user=NODE))["metadata"]["uid"]
    bound = {"audiences": [], "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "mine", "uid": uid}}
    await api.ok("POST", f"{ACCOUNTS}/default/token", {"spec": bound}, user=NODE)
    await api.refused(403, "POST", f"{ACCOUNTS}/default/token", {"spec": {"audiences": []}}, user=NODE)
    lease = {"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 40}}
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    await api.ok("POST", leases, lease, user=NODE)
    await api.refused(403, "POST", leases, {**lease, "metadata": {"name": "n2"}}, user=NODE)
    await api.ok("DELETE", f"{PODS}/mine?gracePeriodSeconds=0", user=NODE)
    await api.server.cache.fresh()
    await api.refused(403, "GET", f"{secrets}/used", user=NODE)


@pytest.mark.parametrize(
    ("attributes", "allowed"),
    [
        ({"verb": "list", "resource": "pods", "namespace": "default"}, True),
        ({"verb": "list", "resource": "pods", "namespace": "kube-system"}, False),
        ({"verb": "delete", "resource": "pods", "namespace": "default"}, False),
    ],
)
async def test_reviews_tell_what_would_be_allowed(api: Any, attributes: dict[str, str], allowed: bool) -> None:
    await grant(api, JANE, "view")
    base = "/apis/authorization.k8s.io/v1"
    mine = await api.ok(
        "POST", f"{base}/selfsubjectaccessreviews", {"spec": {"resourceAttributes": attributes}}, user=JANE
    )
    assert mine["status"]["allowed"] is allowed
    spec = {"resourceAttributes": attributes, "user": "jane"}
    assert (await api.ok("POST", f"{base}/subjectaccessreviews", {"spec": spec}))["status"]["allowed"] is allowed
    await api.refused(403, "POST", f"{base}/subjectaccessreviews", {"spec": spec}, user=JANE)


async def test_a_user_can_list_their_rules(api: Any) -> None:
    await grant(api, JANE, "view")
    base = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    found = (await api.ok("POST", base, {"spec": {"namespace": "default"}}, user=JANE))["status"]
    assert any("pods/log" in rule["resources"] for rule in found["resourceRules"])
    assert any("/api" in rule["nonResourceURLs"] for rule in found["nonResourceRules"])


async def test_a_refused_grant_names_what_is_missing_and_only_administrators_gather_roles(api: Any) -> None:
    await grant(api, JANE, "admin")
    rules = [{"apiGroups": ["apps"], "resources": ["widgets"], "verbs": ["list", "get"]}]
    body = {"metadata": {"name": "r"}, "rules": rules}
    refused = await api.refused(403, "POST", f"{RBAC}/namespaces/default/roles", body, user=JANE)
    assert refused["message"] == (
        'roles.rbac.authorization.k8s.io "r" is forbidden: user "jane" (groups=["devs" "system:authenticated"]) is '
        "attempting to grant RBAC permissions not currently held:\n"
        '{APIGroups:["apps"], Resources:["widgets"], Verbs:["get" "list"]}'
    )
    own = {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["*"]}
    await api.ok(
        "POST", f"{RBAC}/clusterroles", {"metadata": {"name": "writer"}, "rules": [{**own, "verbs": ["create"]}]}
    )
    binding = {"metadata": {"name": "writer"}, "roleRef": reference("writer"), "subjects": [subject(JANE)]}
    await api.ok("POST", f"{RBAC}/clusterrolebindings", binding)
    body = {"metadata": {"name": "sum"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}}
    refused = await api.refused(403, "POST", f"{RBAC}/clusterroles", body, user=JANE)
    assert refused["message"].endswith("must have cluster-admin privileges to use an aggregationRule")


async def test_a_review_asks_for_a_node_with_the_selector_of_its_list(api: Any) -> None:
    review = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

    async def asked(selector: Any) -> Any:
        attributes = {"verb": "list", "version": "v1", "resource": "pods", "fieldSelector": selector}
        spec = {"user": NODE.name, "groups": list(NODE.groups), "resourceAttributes": attributes}
        return (await api.ok("POST", review, {"spec": spec}))["status"]

    own = [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]
    assert (await asked({"requirements": own}))["allowed"]
    assert (await asked({"rawSelector": "spec.nodeName=n1"}))["allowed"]
    refused = await asked({"requirements": [{**own[0], "values": ["n2"]}]})
    assert not refused["allowed"] and "spec.nodeName field selector" in refused["reason"]
    rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    user = User(NODE.name, (*NODE.groups, "system:authenticated"))
    status = (await api.ok("POST", rules, {"spec": {"namespace": "default"}}, user=user))["status"]
    assert status["incomplete"] and "node authorizer" in status["evaluationError"]
