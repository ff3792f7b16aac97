"""Role-based access as tables, with the default roles as they are deployed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.actors.apiserver.bootstrap import read_objects
from steersman.cluster.auth.attributes import Attributes
from steersman.cluster.auth.rbac import MASTERS, Policy, Rule, compacted, compile_rules, uncovered


def role(name: str, *rules: dict[str, Any], namespace: str = "", **more: Any) -> dict[str, Any]:
    meta = {"name": name, **({"namespace": namespace} if namespace else {}), **more.pop("meta", {})}
    return {"metadata": meta, "rules": list(rules), **more}


def binding(role_name: str, *subjects: str, namespace: str = "", kind: str = "ClusterRole") -> dict[str, Any]:
    rows = []
    for text in subjects:
        sort, _, name = text.partition(" ")
        space, slash, short = name.partition("/")
        rows.append({"kind": sort, "name": short if slash else name, **({"namespace": space} if slash else {})})
    meta = {"name": f"{role_name}-binding", **({"namespace": namespace} if namespace else {})}
    return {"metadata": meta, "roleRef": {"kind": kind, "name": role_name}, "subjects": rows}


READ = {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]}
POLICY = Policy(
    cluster_roles=[
        role("reader", READ),
        role("all", {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}),
        role("one", {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], "resourceNames": ["only"]}),
        role("scale", {"apiGroups": ["apps"], "resources": ["*/scale"], "verbs": ["update"]}),
        role("paths", {"nonResourceURLs": ["/metrics", "/healthz*"], "verbs": ["get"]}),
    ],
    roles=[role("local", {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["*"]}, namespace="a")],
    role_bindings=[
        binding("reader", "User jane", "ServiceAccount /robot", namespace="a"),
        binding("local", "Group devs", namespace="a", kind="Role"),
        binding("gone", "User jane", namespace="a", kind="Role"),
        binding("paths", "User jane", namespace="a"),
    ],
    cluster_role_bindings=[
        binding("all", "User root", "ServiceAccount kube-system/op"),
        binding("one", "User jane"),
        binding("scale", "User scaler"),
        binding("paths", "User scraper"),
        binding("local", "User nobody", kind="Role"),
    ],
)


def ask(text: str) -> Attributes:
    """`verb group/resource[/sub] [namespace] [name]`, or `verb /path`; `-` for none."""
    verb, what, *rest = text.split(" ")
    if what.startswith("//"):
        return Attributes(verb, what[1:])
    group, _, resource = what.partition("/")
    resource, _, sub = resource.partition("/")
    namespace, name = (*[r if r != "-" else "" for r in rest], "", "")[:2]
    return Attributes(verb, "", group, "v1", resource, sub, namespace, name)


@pytest.mark.parametrize(
    ("user", "groups", "request_text", "allowed"),
    [
        ("jane", (), "get /pods a web", True),
        ("jane", (), "get /pods/log a web", True),
        ("jane", (), "get /pods b web", False),
        ("jane", (), "list /pods", False),
        ("jane", (), "delete /pods a web", False),
        ("jane", (), "get /pods/exec a web", False),
        ("jane", (), "get /configmaps b only", True),
        ("jane", (), "get /configmaps b other", False),
        ("jane", (), "list /configmaps b", False),
        ("jane", (), "get //metrics", False),
        ("system:serviceaccount:a:robot", (), "list /pods a", True),
        ("system:serviceaccount:b:robot", (), "list /pods a", False),
        ("system:serviceaccount:kube-system:op", (), "delete apps/deployments b x", True),
        ("bob", ("devs",), "create apps/deployments a", True),
        ("bob", ("devs",), "create apps/deployments b", False),
        ("bob", ("devs",), "create apps/deployments/scale a", False),
        ("scaler", (), "update apps/deployments/scale a x", True),
        ("scaler", (), "update apps/deployments a x", False),
        ("scraper", (), "get //metrics", True),
        ("scraper", (), "get //healthz/deep", True),
        ("scraper", (), "post //metrics", False),
        ("root", (), "impersonate /users - jane", True),
        ("root", (), "get //metrics", False),
        ("nobody", (), "get apps/deployments a x", False),
        ("anyone", (MASTERS,), "escalate x/y z", True),
        ("anyone", (), "get /pods a web", False),
    ],
)
def test_a_request_is_allowed_exactly_where_a_role_says_so(
    user: str, groups: tuple[str, ...], request_text: str, allowed: bool
) -> None:
    assert POLICY.judge(user, groups, ask(request_text)).allowed is allowed
    assert POLICY.judge(user, groups, ask(request_text)).allowed is allowed, "the remembered decision is the same"


def test_missing_rules_are_told_with_the_verbs_of_a_resource_together() -> None:
    rule = {"apiGroups": ["", "apps"], "resources": ["pods"], "verbs": ["list", "get"]}
    found = compacted(uncovered(compile_rules([rule]), ()))
    assert [(sorted(row.verbs), *row.groups) for row in found] == [(["get", "list"], ""), (["get", "list"], "apps")]


def test_a_verdict_names_the_binding_that_allows() -> None:
    verdict = deployed().judge(
        "jane", ("system:authenticated",), ask("create authorization.k8s.io/selfsubjectaccessreviews")
    )
    assert verdict.reason == (
        'RBAC: allowed by ClusterRoleBinding "system:basic-user" of ClusterRole "system:basic-user" '
        'to Group "system:authenticated"'
    )
    local = POLICY.judge("bob", ("devs",), ask("create apps/deployments a"))
    assert local.reason.startswith('RBAC: allowed by RoleBinding "') and '/a" of' in local.reason


def test_aggregated_roles_gather_the_rules_of_those_they_select_transitively() -> None:
    def gathers(label: str) -> dict[str, Any]:
        return {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]}}

    policy = Policy(
        cluster_roles=[
            role("top", **gathers("to-top")),
            role("middle", meta={"labels": {"to-top": "true", "to-middle": "true"}}, **gathers("to-middle")),
            role("leaf", READ, meta={"labels": {"to-middle": "true"}}),
        ],
        cluster_role_bindings=[binding("top", "User jane")],
    )
    assert policy.judge("jane", (), ask("list /pods a")).allowed
    assert not policy.judge("jane", (), ask("delete /pods a x")).allowed


def test_a_selector_that_cannot_be_read_spoils_no_other_role() -> None:
    broken = {"clusterRoleSelectors": [{"matchExpressions": [{"key": "a", "operator": "Maybe"}]}]}
    policy = Policy(
        cluster_roles=[role("broken", aggregationRule=broken), role("reader", READ)],
        cluster_role_bindings=[binding("reader", "User jane"), binding("broken", "User jane")],
    )
    assert policy.judge("jane", (), ask("list /pods a")).allowed


def deployed() -> Policy:
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for row in read_objects("10.96.0.0/16", 6443):
        by_kind.setdefault(row["kind"], []).append(row)
    return Policy(
        cluster_roles=by_kind["ClusterRole"],
        cluster_role_bindings=by_kind["ClusterRoleBinding"],
        roles=by_kind["Role"],
        role_bindings=[
            *by_kind["RoleBinding"],
            binding("view", "User viewer", namespace="a"),
            binding("edit", "User editor", namespace="a"),
            binding("admin", "User owner", namespace="a"),
        ],
    )


@pytest.mark.parametrize(
    ("user", "request_text", "allowed"),
    [
        ("viewer", "list /pods a", True),
        ("viewer", "get /pods/log a x", True),
        ("viewer", "get /secrets a x", False),
        ("viewer", "create /pods a", False),
        ("editor", "get /secrets a x", True),
        ("editor", "create /pods/exec a x", True),
        ("editor", "patch apps/deployments a x", True),
        ("editor", "update apps/deployments/scale a x", True),
        ("editor", "create rbac.authorization.k8s.io/roles a", False),
        ("editor", "list /pods b", False),
        ("owner", "create rbac.authorization.k8s.io/rolebindings a", True),
        ("owner", "list /pods a", True),
        ("system:kube-scheduler", "create /pods/binding a x", True),
        ("system:kube-scheduler", "get /secrets a x", False),
        ("system:kube-controller-manager", "delete example.com/widgets a x", True),
        ("system:kube-controller-manager", "escalate rbac.authorization.k8s.io/clusterroles - x", False),
        ("system:kube-proxy", "watch discovery.k8s.io/endpointslices", True),
        ("system:kube-proxy", "list /pods", False),
        ("system:kube-dns", "list /services", True),
        ("stranger", "create authorization.k8s.io/selfsubjectaccessreviews", True),
        ("stranger", "get //openapi/v3/apis/apps/v1", True),
        ("stranger", "get //metrics", False),
        ("stranger", "list /namespaces", False),
        ("stranger", "get /configmaps kube-public cluster-info", True),
        ("stranger", "list /configmaps kube-public", False),
        ("system:node:n1", "get /secrets a x", False),
        ("system:serviceaccount:kube-system:job-controller", "create /pods a", True),
        ("system:serviceaccount:kube-system:job-controller", "get /secrets a x", False),
        ("system:serviceaccount:kube-system:bootstrap-signer", "list /secrets kube-system", True),
        ("system:serviceaccount:kube-system:bootstrap-signer", "list /secrets a", False),
    ],
)
def test_the_default_roles_give_what_their_names_promise(user: str, request_text: str, allowed: bool) -> None:
    assert deployed().judge(user, ("system:authenticated",), ask(request_text)).allowed is allowed


@pytest.mark.parametrize(
    ("wanted", "held", "missing"),
    [
        ([READ], [READ], 0),
        ([READ], [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}], 0),
        ([READ], [{**READ, "verbs": ["get"]}], 2),
        ([READ], [{**READ, "resourceNames": ["x"]}], 4),
        ([{**READ, "resourceNames": ["x"]}], [READ], 0),
        ([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}], [READ], 1),
        ([{"nonResourceURLs": ["/a/b"], "verbs": ["get"]}], [{"nonResourceURLs": ["/a/*"], "verbs": ["get"]}], 0),
        ([READ], [{**READ, "resources": ["pods"]}, {**READ, "resources": ["*/log"]}], 0),
    ],
)
def test_nobody_can_give_what_they_do_not_have(wanted: list[Any], held: list[Any], missing: int) -> None:
    assert len(uncovered(compile_rules(wanted), compile_rules(held))) == missing


words = st.sampled_from(["a", "b", "*"])
rules = st.builds(
    Rule,
    verbs=st.frozensets(words, min_size=1),
    groups=st.frozensets(words, min_size=1),
    resources=st.frozensets(st.sampled_from(["a", "b", "a/s", "*/s", "*"]), min_size=1),
    names=st.frozensets(st.sampled_from(["x", "y"])),
)


@given(st.lists(rules, max_size=3), st.lists(rules, max_size=3))
def test_rules_that_are_covered_allow_nothing_that_the_holder_may_not_do(wanted: list[Rule], held: list[Rule]) -> None:
    if uncovered(wanted, held):
        return
    for verb in "ab":
        for resource, sub in (("a", ""), ("b", ""), ("a", "s"), ("b", "s"), ("c", "s")):
            for name in ("", "x", "y", "z"):
                attributes = Attributes(verb, "", "a", "v1", resource, sub, "", name)
                if any(rule.allows(attributes) for rule in wanted):
                    assert any(rule.allows(attributes) for rule in held)
