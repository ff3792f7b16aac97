"""Admission policies and match conditions: expressions that decide about writes."""

from __future__ import annotations

from typing import Any

import pytest

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def rule(resource: str, group: str = "", operations: Any = ("CREATE", "UPDATE")) -> Any:
    return {"apiGroups": [group], "apiVersions": ["*"], "operations": list(operations), "resources": [resource]}


def deployment(name: str = "web", replicas: int = 1, **more: Any) -> Any:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "nginx"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template, **more}
    return {"metadata": {"name": name}, "spec": spec}


async def validating(api: Any, *validations: Any, name: str = "p", binding: Any = None, **spec: Any) -> None:
    """Makes a policy about config maps and its binding."""
    base = {"matchConstraints": {"resourceRules": [rule("configmaps")]}, "validations": list(validations)}
    await api.ok("POST", f"{ADMISSION}/validatingadmissionpolicies", {"metadata": {"name": name}, "spec": base | spec})
    bound = {"policyName": name, "validationActions": ["Deny"], **(binding or {})}
    path = f"{ADMISSION}/validatingadmissionpolicybindings"
    await api.ok("POST", path, {"metadata": {"name": f"{name}-b"}, "spec": bound})


def config_map(name: str = "a", **data: str) -> Any:
    return {"metadata": {"name": name}, "data": data}


async def test_a_validation_that_does_not_hold_refuses_a_deployment(api: Any) -> None:
    constraints = {"resourceRules": [rule("deployments", "apps")]}
    await validating(
        api, {"expression": "object.spec.replicas > 1", "messageExpression": "'wants more than ' + string(1)"},
        {"expression": "object.metadata.name.startsWith('w')"}, matchConstraints=constraints,
    )  # fmt: skip
    found = await api.refused(422, "POST", DEPLOYMENTS, deployment())
    text = "ValidatingAdmissionPolicy 'p' with binding 'p-b' denied request: wants more than 1"
    assert found["message"] == f'deployments.apps "web" is forbidden: {text}'
    assert found["reason"] == "Invalid" and found["details"]["causes"] == [{"message": text}]
    await api.ok("POST", DEPLOYMENTS, deployment(replicas=2))
    other = await api.refused(422, "POST", DEPLOYMENTS, deployment("other", 3))
    assert other["message"].endswith("failed expression: object.metadata.name.startsWith('w')")
    merge = "application/merge-patch+json"
    await api.refused(422, "PATCH", f"{DEPLOYMENTS}/web", {"spec": {"replicas": 1}}, content_type=merge)


@pytest.mark.parametrize(
    ("row", "code", "reason", "message"),
    [
        ({"message": " plain "}, 422, "Invalid", "plain"),
        ({"message": "x", "reason": "Forbidden"}, 403, "Forbidden", "x"),
        ({"message": "x", "reason": "RequestEntityTooLarge"}, 413, "RequestEntityTooLarge", "x"),
        ({"message": "x", "messageExpression": "'a\\nb'"}, 422, "Invalid", "x"),
        ({"message": "x", "messageExpression": "string(object.data.nothing)"}, 422, "Invalid", "x"),
    ],
)
async def test_reasons_and_messages_are_those_of_the_policy(
    api: Any, row: Any, code: int, reason: str, message: str
) -> None:
    await validating(api, {"expression": "false", **row})
    found = await api.refused(code, "POST", MAPS, config_map())
    assert (found["reason"], found["message"].rpartition("denied request: ")[2]) == (reason, message)


async def test_expressions_know_variables_params_the_request_and_the_namespace(api: Any) -> None:
    await api.ok("POST", MAPS, {**config_map("limits", least="3"), "metadata": {"name": "limits"}})
    await validating(
        api,
        {"expression": "variables.size >= int(params.data.least)",
         "messageExpression": "request.userInfo.username + ' in ' + namespaceObject.metadata.name"},
        {"expression": "authorizer.group('').resource('configmaps').namespace('default').check('get').allowed()"},
        variables=[{"name": "all", "expression": "object.data"}, {"name": "size", "expression": "size(variables.all)"}],
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        matchConditions=[{"name": "new", "expression": "request.operation == 'CREATE' && oldObject == null"}],
        binding={"paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}},
    )  # fmt: skip
    found = await api.refused(422, "POST", MAPS, config_map(a="1"))
    assert found["message"].endswith("denied request: admin in default")
    await api.ok("POST", MAPS, config_map(a="1", b="2", c="3"))
    await api.ok("PUT", f"{MAPS}/a", config_map(a="1"))
    await api.ok("DELETE", f"{MAPS}/limits")
    found = await api.refused(422, "POST", MAPS, config_map("b"))
    detail = "no params found for policy binding with `Deny` parameterNotFoundAction"
    assert found["message"].endswith(f"denied request: failed to configure binding: {detail}")


async def test_params_by_selector_count_one_by_one(api: Any) -> None:
    for name in ("x", "y"):
        await api.ok("POST", MAPS, {"metadata": {"name": name, "labels": {"param": "yes"}}, "data": {"no": name}})
    await validating(
        api, {"expression": "!(params.data.no in object.data)", "messageExpression": "'not ' + params.data.no"},
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        binding={"paramRef": {"selector": {"matchLabels": {"param": "yes"}}, "parameterNotFoundAction": "Allow"}},
    )  # fmt: skip
    await api.ok("POST", MAPS, config_map(z="1"))
    assert (await api.refused(422, "POST", MAPS, config_map("b", y="1")))["message"].endswith("not y")


async def test_an_expression_that_fails_counts_as_the_failure_policy_says(api: Any) -> None:
    await validating(api, {"expression": "object.data.missing == 'x'"})
    found = await api.refused(422, "POST", MAPS, config_map(a="1"))
    detail = "expression 'object.data.missing == 'x'' resulted in error: no such key: missing"
    assert found["message"].endswith(f"denied request: {detail}")
    await api.ok("DELETE", f"{ADMISSION}/validatingadmissionpolicies/p")
    await api.ok("DELETE", f"{ADMISSION}/validatingadmissionpolicybindings/p-b")
    await validating(api, {"expression": "object.data.missing == 'x'"}, failurePolicy="Ignore")
    await api.ok("POST", MAPS, config_map(a="1"))


async def test_warn_and_audit_do_not_refuse(api: Any) -> None:
    await validating(api, {"expression": "false", "message": "hm"}, binding={"validationActions": ["Warn", "Audit"]})
    response = await api.call("POST", MAPS, config_map())
    assert response.status == 201
    text = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p-b': hm"
    assert response.headers["warning"] == f'299 - "{text}"'


async def test_policies_without_a_binding_and_out_of_their_bindings_place_do_nothing(api: Any) -> None:
    elsewhere = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}
    await validating(api, {"expression": "false"}, binding={"matchResources": elsewhere})
    excluded = {
        "resourceRules": [rule("configmaps")],
        "excludeResourceRules": [{**rule("configmaps"), "resourceNames": ["free"]}],
    }
    await validating(api, {"expression": "false"}, name="q", matchConstraints=excluded)
    await api.ok("POST", MAPS, config_map("free"))
    await api.refused(422, "POST", MAPS, config_map("held"))


async def mutating(api: Any, *mutations: Any, name: str = "m", resource: Any = None, **spec: Any) -> None:
    base = {
        "matchConstraints": {"resourceRules": [resource or rule("deployments", "apps")]},
        "reinvocationPolicy": "Never",
        "mutations": list(mutations),
    }
    await api.ok("POST", f"{ADMISSION}/mutatingadmissionpolicies", {"metadata": {"name": name}, "spec": base | spec})
    path = f"{ADMISSION}/mutatingadmissionpolicybindings"
    await api.ok("POST", path, {"metadata": {"name": f"{name}-b"}, "spec": {"policyName": name}})


def applied(source: str) -> Any:
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": source}}


def patched(source: str) -> Any:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": source}}


async def test_a_mutating_policy_applies_configurations_and_patches(api: Any) -> None:
    await mutating(
        api,
        applied("Object{spec: Object.spec{replicas: object.spec.replicas + 1}}"),
        applied(
            "Object{metadata: Object.metadata{annotations: {'by': 'policy'}}, spec: Object.spec{template: "
            "Object.spec.template{spec: Object.spec.template.spec{initContainers: ["
            "Object.spec.template.spec.initContainers{name: 'mesh', image: 'mesh:1'}]}}}}"
        ),
        patched("[JSONPatch{op: 'add', path: '/metadata/labels', value: {'x': 'y'}}, "
                "JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'}]"),
    )  # fmt: skip
    made = await api.ok("POST", DEPLOYMENTS, deployment())
    assert made["spec"]["replicas"] == 2
    assert made["metadata"]["annotations"] == {"by": "policy"}
    assert made["metadata"]["labels"] == {"x": "y", "a/b": "c"}
    pod = made["spec"]["template"]["spec"]
    assert [row["name"] for row in pod["initContainers"]] == ["mesh"]
    assert [row["name"] for row in pod["containers"]] == ["main"]
    assert pod["initContainers"][0]["terminationMessagePath"] == "/dev/termination-log"


async def test_a_patch_whose_test_fails_changes_nothing_and_refuses_nothing(api: Any) -> None:
    source = "[JSONPatch{op: 'test', path: '/data/k', value: 'v'}, JSONPatch{op: 'add', path: '/data/x', value: 'y'}]"
    await mutating(api, patched(source), resource=rule("configmaps"))
    for value, data in (("v", {"k": "v", "x": "y"}), ("w", {"k": "w"})):
        assert (await api.ok("POST", MAPS, config_map(value, k=value)))["data"] == data


async def test_a_mutation_that_cannot_be_made_refuses_unless_failures_are_ignored(api: Any) -> None:
    await mutating(api, patched("has(object.immutable) ? [] : [JSONPatch{op: 'remove', path: '/spec/nothing'}]"))
    found = await api.refused(403, "POST", DEPLOYMENTS, deployment())
    assert found["message"].startswith("policy 'm' with binding 'm-b' denied request: ")
    assert found["reason"] == "Invalid"
    await api.ok("DELETE", f"{ADMISSION}/mutatingadmissionpolicies/m")
    await mutating(api, applied("Object{spec: Object.spec{replicas: object.none}}"), name="n", failurePolicy="Ignore")
    await api.ok("POST", DEPLOYMENTS, deployment())


async def test_a_policy_is_carried_out_again_after_another_has_changed_the_object(api: Any) -> None:
    first = "Object{data: {'first': string(size(object.data))}}"
    await mutating(
        api, applied(first), name="a", resource=rule("configmaps"), reinvocationPolicy="IfNeeded",
    )  # fmt: skip
    await mutating(api, applied("Object{data: {'second': 'x'}}"), name="b", resource=rule("configmaps"))
    made = await api.ok("POST", MAPS, config_map(zero="0"))
    assert made["data"] == {"zero": "0", "first": "3", "second": "x"}


REFUSED = [
    (
        "validatingadmissionpolicies", {"validations": [{"expression": "object.x +"}]},
        "spec.validations[0].expression: Invalid value: \"object.x +\": compilation failed: ERROR: <input>:1:11",
    ),
    (
        "validatingadmissionpolicies", {"validations": [{"expression": "'text'"}]},
        "spec.validations[0].expression: Invalid value: \"'text'\": must evaluate to bool but got string",
    ),
    (
        "validatingadmissionpolicies", {"validations": [{"expression": "object.spec.paused"}]},
        "must evaluate to bool but got dyn",
    ),
    (
        "validatingadmissionpolicies", {"validations": [{"expression": "variables.none"}]},
        "undefined field 'none'",
    ),
    (
        "validatingadmissionpolicies", {"validations": []},
        "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
    ),
    (
        "validatingadmissionpolicies", {"validations": [{"expression": "params.a"}]},
        "undeclared reference to 'params'",
    ),
    (
        "validatingadmissionpolicybindings", {"policyName": "p", "validationActions": ["Deny", "Warn"]},
        "spec.validationActions: Invalid value: [\"Deny\",\"Warn\"]: must not contain both Deny and Warn",
    ),
    (
        "validatingadmissionpolicybindings", {"policyName": "p"},
        "spec.validationActions: Required value: at least one validation action is required",
    ),
    (
        "validatingadmissionpolicybindings",
        {"policyName": "p", "validationActions": ["Deny"],
         "paramRef": {"name": "a", "selector": {}, "parameterNotFoundAction": "Odd"}},
        "[spec.paramRef.name: Forbidden: name and selector are mutually exclusive, spec.paramRef.selector: Forbidden: "
        "name and selector are mutually exclusive, spec.paramRef.parameterNotFoundAction: Unsupported value: \"Odd\": "
        "supported values: \"Deny\", \"Allow\"]",
    ),
    (
        "validatingadmissionpolicies", {"validations": [{"expression": "true", "messageExpression": " "}]},
        "spec.validations[0].messageExpression: Invalid value: \" \": must be non-empty if specified",
    ),
    (
        "validatingadmissionpolicies", {"validations": [{"expression": "true", "reason": "Unauthorized"}]},
        "spec.validations[0].reason: Unsupported value: \"Unauthorized\": supported values: \"Forbidden\", "
        "\"Invalid\", \"RequestEntityTooLarge\"",
    ),
    (
        "validatingadmissionpolicies",
        {"validations": [{"expression": "true"}], "variables": [{"name": "in", "expression": "1"}]},
        "spec.variables[0].name: Invalid value: \"in\": name is not a valid CEL identifier",
    ),
    (
        "validatingadmissionpolicies",
        {"validations": [{"expression": "true"}], "paramKind": {"apiVersion": "a/b/c", "kind": "K_"}},
        "[spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c, "
        "spec.paramKind.kind: Invalid value: \"K_\": may have mixed case, but should otherwise match: a DNS-1035 label",
    ),
    (
        "validatingadmissionpolicies",
        {"validations": [{"expression": "true"}],
         "matchConstraints": {"resourceRules": [{**rule("pods"), "resourceNames": ["a/b", "c", "c"]}]}},
        "[spec.matchConstraints.resourceRules[0].resourceNames[0]: Invalid value: \"a/b\": may not contain '/', "
        "spec.matchConstraints.resourceRules[0].resourceNames[2]: Duplicate value: \"c\"]",
    ),
    (
        "validatingadmissionpolicies",
        {"auditAnnotations": [{"key": "a", "valueExpression": ""}, {"key": "a", "valueExpression": "1"}]},
        "[spec.auditAnnotations[0].valueExpression: Required value: valueExpression is not specified, "
        "spec.auditAnnotations[1].valueExpression: Invalid value: \"1\": must evaluate to one of "
        "[string null_type] but got int, spec.auditAnnotations[1].key: Duplicate value: \"a\"]",
    ),
    (
        "mutatingadmissionpolicies", {"mutations": [applied("[1]")]},
        "spec.mutations[0].applyConfiguration.expression: Invalid value: \"[1]\": must evaluate to Object but got "
        "list(int)",
    ),
]  # fmt: skip


async def test_policies_that_make_no_sense_are_refused(api: Any) -> None:
    for plural, spec, message in REFUSED:
        more = {} if plural.endswith("bindings") else {"matchConstraints": {"resourceRules": [rule("pods")]}}
        body = {"metadata": {"name": "p"}, "spec": more | spec}
        assert message in (await api.refused(422, "POST", f"{ADMISSION}/{plural}", body))["message"]


WEBHOOK = {
    "name": "h.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "rules": [rule("pods")],
    "clientConfig": {"url": "https://example.com/x"},
}  # fmt: skip
WEBHOOKS_REFUSED = [
    ({"matchConditions": [{"name": "x", "expression": "object.x ++"}]}, "compilation failed"),
    ({"matchConditions": [{"name": "x", "expression": "1"}]}, "must evaluate to bool"),
    ({"matchConditions": [{"name": "x", "expression": "params.x"}]}, "undeclared reference to 'params'"),
    ({"name": "short"}, "should be a domain with at least three segments separated by dots"),
    ({"timeoutSeconds": 31}, "the timeout value must be between 1 and 30 seconds"),
    ({"sideEffects": "Some"}, 'Unsupported value: "Some": supported values: "None", "NoneOnDryRun"'),
    ({"clientConfig": {"url": "http://x"}}, "'https' is the only allowed URL scheme; desired format: https://host"),
    ({"clientConfig": {"url": "https://x/?a=b"}}, "query parameters are not permitted in the URL"),
    ({"clientConfig": {}}, "exactly one of url or service is required"),
    ({"rules": [rule("pods", operations=("*", "CREATE"))]}, "if '*' is present, must not specify other operations"),
    ({"rules": [{**rule("pods"), "resources": ["*", "pods"]}]}, "if '*' is present, must not specify other resources"),
    ({"admissionReviewVersions": ["v9"]}, "must include at least one of v1, v1beta1"),
    ({"admissionReviewVersions": ["v1", "v1"]}, 'admissionReviewVersions[1]: Invalid value: "v1": duplicate version'),
    (
        {"rules": [{**rule("pods"), "resources": ["pods/*", "pods/status"]}]},
        "resources[1]: Invalid value: \"pods/status\": if 'pods/*' is present, must not specify pods/status",
    ),
    (
        {"rules": [{**rule("pods"), "resources": ["*/*", "pods"]}]},
        'rules[0].resources: Invalid value: ["*/*","pods"]: if \'*/*\' is present, must not specify other resources',
    ),
]


async def test_webhooks_that_make_no_sense_are_refused(api: Any) -> None:
    for change, message in WEBHOOKS_REFUSED:
        body = {"metadata": {"name": "w"}, "webhooks": [{**WEBHOOK, **change}]}
        found = await api.refused(422, "POST", f"{ADMISSION}/validatingwebhookconfigurations", body)
        assert message in found["message"]


async def test_match_conditions_decide_whether_a_webhook_is_asked(api: Any) -> None:
    hook = {
        **WEBHOOK, "rules": [rule("configmaps")], "clientConfig": {"url": "https://127.0.0.1:1/x"},
        "matchConditions": [{"name": "not-me", "expression": "object.metadata.name != 'skip-me'"}],
    }  # fmt: skip
    body = {"metadata": {"name": "w"}, "webhooks": [hook]}
    made = await api.ok("POST", f"{ADMISSION}/mutatingwebhookconfigurations", body)
    assert made["webhooks"][0]["matchConditions"] == hook["matchConditions"]
    await api.ok("POST", MAPS, config_map("skip-me"))
    assert "connection refused" in (await api.refused(500, "POST", MAPS, config_map("a")))["message"]


async def test_a_policy_says_at_once_that_it_has_been_checked(api: Any) -> None:
    await validating(api, {"expression": "true"})
    found = await api.ok("GET", f"{ADMISSION}/validatingadmissionpolicies/p/status")
    assert found["status"] == {"observedGeneration": 1, "typeChecking": {}}


TYPED: list[tuple[Any, Any, list[tuple[str, str]]]] = [
    (["deployments"], {"expression": "object.replicas > 1"}, [(
        "spec.validations[0].expression",
        "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n"
        " | object.replicas > 1\n | ......^\n",
    )]),
    (["deployments", "replicasets"], {"expression": "object.spec.replicas > '1'"}, [(
        "spec.validations[0].expression",
        "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to "
        "'(int, string)'\n | object.spec.replicas > '1'\n | .....................^\n\n"
        "apps/v1, Kind=ReplicaSet: ERROR: <input>:1:22: found no matching overload for '_>_' applied to "
        "'(int, string)'\n | object.spec.replicas > '1'\n | .....................^\n",
    )]),
    (["deployments"], {"expression": "variables.odd", "messageExpression": "string(object.metadata.named)"}, [(
        "spec.validations[0].messageExpression",
        "apps/v1, Kind=Deployment: ERROR: <input>:1:23: undefined field 'named'\n"
        " | string(object.metadata.named)\n | ......................^\n",
    )]),
    (["deployments"], {"expression": " && ".join((
        "object.metadata.labels['a'] == 'b'", "object.spec.strategy.rollingUpdate.maxSurge == 1",
        "object.spec.template.spec.containers.all(c, c.image != '' && has(c.resources))",
        "oldObject.metadata.creationTimestamp < timestamp('2030-01-01T00:00:00Z')",
    ))}, []),
    (["*"], {"expression": "object.nonsense == 1"}, []),
    (["deployments/scale"], {"expression": "object.nonsense == 1"}, []),
]  # fmt: skip


@pytest.mark.parametrize(("resources", "validation", "expected"), TYPED, ids=range(len(TYPED)))
async def test_a_policy_warns_of_what_its_resources_do_not_have(
    api: Any, resources: Any, validation: Any, expected: list[tuple[str, str]]
) -> None:
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": resources}
    spec = {
        "matchConstraints": {"resourceRules": [rule]}, "validations": [validation],
        "variables": [{"name": "odd", "expression": "object.spec.replicas % 2 == 1"}],
    }  # fmt: skip
    policies = f"{ADMISSION}/validatingadmissionpolicies"
    body = {"metadata": {"name": "typed"}, "spec": spec, "status": {"observedGeneration": 9}}
    made = await api.ok("POST", policies, body)
    rows = made["status"]["typeChecking"].get("expressionWarnings", [])
    assert [(row["fieldRef"], row["warning"]) for row in rows] == expected
    assert made["status"]["observedGeneration"] == 1
    good = {"spec": {"validations": [{"expression": "object.spec.replicas > 1"}]}}
    found = await api.ok("PATCH", f"{policies}/typed", good, content_type="application/merge-patch+json")
    assert found["status"] == {"observedGeneration": 2, "typeChecking": {}}


async def test_a_policy_is_checked_against_custom_kinds_and_parameters_too(api: Any) -> None:
    names = {"plural": "limits", "singular": "limit", "kind": "Limit"}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"most": {"type": "integer"}}}}}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}]
    await api.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", {
        "metadata": {"name": "limits.example.com"},
        "spec": {"group": "example.com", "scope": "Cluster", "names": names, "versions": versions}})  # fmt: skip
    rule = {"apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["limits"]}
    validations = [{"expression": "object.spec.most < params.spec.most && object.metadata.name != ''"},
                   {"expression": "object.spec.most < params.most"}]  # fmt: skip
    made = await api.ok("POST", f"{ADMISSION}/validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": {
        "paramKind": {"apiVersion": "example.com/v1", "kind": "Limit"}, "validations": validations,
        "matchConstraints": {"resourceRules": [rule]}}})  # fmt: skip
    (row,) = made["status"]["typeChecking"]["expressionWarnings"]
    assert row["fieldRef"] == "spec.validations[1].expression"
    assert row["warning"].startswith("example.com/v1, Kind=Limit: ERROR: <input>:1:26: undefined field 'most'\n")
