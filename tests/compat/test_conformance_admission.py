"""What the conformance suite asks of admission policies.

Source: kubernetes/test/e2e/apimachinery/{validatingadmissionpolicy,mutatingadmissionpolicy}.go
"""

from __future__ import annotations

from typing import Any

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
RULE = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]}
RULES: Any = {"resourceRules": [RULE]}


def marked(house: Any, name: str) -> str:
    return house.namespace(labels={name: "true"})


def selected(name: str) -> Any:
    return {"namespaceSelector": {"matchLabels": {name: "true"}}}


def deployment(name: str, replicas: int) -> Any:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "nginx", "image": "nginx:1.14.2"}]}}
    return {"metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": labels}, "template": template}}  # fmt: skip


def test_a_validating_policy_judges_a_deployment(house: Any) -> None:
    policies, bindings = f"{ADMISSION}/validatingadmissionpolicies", f"{ADMISSION}/validatingadmissionpolicybindings"
    rows: dict[str, tuple[Any, str]] = {
        "e2e-replicas": ({
            "validations": [{
                "expression": "object.spec.replicas > 1",
                "messageExpression": "'wants replicas > 1, got ' + string(object.spec.replicas)"}],
        }, "wants replicas > 1, got 1"),
        "e2e-variables": ({
            "variables": [
                {"name": "replicas", "expression": "object.spec.replicas"},
                {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"}],
            "validations": [
                {"expression": "variables.replicas > 1"},
                {"expression": "variables.oddReplicas || object.metadata.name != 'odd'"}],
        }, "failed expression: variables.replicas > 1"),
    }  # fmt: skip
    for name, (spec, message) in rows.items():
        space = marked(house, name)
        many = f"/apis/apps/v1/namespaces/{space}/deployments"
        body = {"metadata": {"name": name}, "spec": {**spec, "matchConstraints": {**RULES, **selected(name)}}}
        house.ok("POST", policies, body)
        house.ok("POST", bindings, {"metadata": {"name": name}, "spec": {
            "policyName": name, "validationActions": ["Deny"], "matchResources": selected(name)}})  # fmt: skip
        house.until(f"{policies}/{name}", lambda found: found["status"]["observedGeneration"] == 1)
        found = house.refused(422, "POST", many, deployment("replicated", 1))
        assert found["message"] == (
            f"deployments.apps \"replicated\" is forbidden: ValidatingAdmissionPolicy '{name}' with binding '{name}' "
            f"denied request: {message}"
        )
        house.ok("POST", many, deployment("replicated", 2))
        house.ok("DELETE", f"{bindings}/{name}")
        house.ok("DELETE", f"{policies}/{name}")


def test_a_mutating_policy_changes_a_deployment(house: Any) -> None:
    policies, bindings = f"{ADMISSION}/mutatingadmissionpolicies", f"{ADMISSION}/mutatingadmissionpolicybindings"
    meta = "Object.metadata{annotations: {'my-foo-annotation': 'myAnnotationValue'}}"
    rows: dict[str, tuple[str, Any]] = {
        "e2e-replicas": ("Object{spec: Object.spec{replicas: object.spec.replicas + 100}}", ("spec", "replicas", 102)),
        "e2e-annotations": (
            f"Object{{metadata: {meta}}}",
            ("metadata", "annotations", {"my-foo-annotation": "myAnnotationValue"}),
        ),
    }
    for name, (expression, (part, key, wanted)) in rows.items():
        space = marked(house, name)
        house.ok("POST", policies, {"metadata": {"name": name}, "spec": {
            "matchConstraints": {**RULES, **selected(name)}, "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
        }})  # fmt: skip
        house.ok("POST", bindings, {"metadata": {"name": name}, "spec": {
            "policyName": name, "matchResources": selected(name)}})  # fmt: skip
        made = house.ok("POST", f"/apis/apps/v1/namespaces/{space}/deployments", deployment("mutated", 2))
        assert made[part][key] == wanted
        house.ok("DELETE", f"{bindings}/{name}")
        house.ok("DELETE", f"{policies}/{name}")
