"""Rules of admission's own kinds: webhook configurations, policies and their bindings.

Source: k8s.io/kubernetes/pkg/apis/admissionregistration/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from steersman.cluster.api.admission.names import Expression, Names, compiled_variables, expression
from steersman.cluster.api.cel.types import BOOL, STRING, Type
from steersman.cluster.api.rules.clients import validate_client
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    duplicate,
    label_selector,
    one_of,
    required,
    too_many,
    unsupported,
)
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import label_1035_errors, qualified_name_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

_CONDITIONS_MAX = 64
_VERSIONS = ("v1", "v1beta1")
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized")
_IDENTIFIER = re.compile(r"^[_a-zA-Z][_a-zA-Z0-9]*\Z")


# ---- defaults


def _default_match(row: Obj) -> None:
    row.setdefault("matchPolicy", "Equivalent")
    row.setdefault("namespaceSelector", {})
    row.setdefault("objectSelector", {})
    for key in ("rules", "resourceRules", "excludeResourceRules"):
        for rule in row.get(key) or ():
            rule.setdefault("scope", "*")


def default_webhooks(obj: Obj) -> None:
    """Defaults of webhooks of both sorts."""
    for hook in obj.get("webhooks") or ():
        hook.setdefault("failurePolicy", "Fail")
        hook.setdefault("timeoutSeconds", 10)
        _default_match(hook)
        service = (hook.get("clientConfig") or {}).get("service")
        if service is not None:
            service.setdefault("port", 443)


def default_mutating(obj: Obj) -> None:
    default_webhooks(obj)
    for hook in obj.get("webhooks") or ():
        hook.setdefault("reinvocationPolicy", "Never")


def default_policy(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("failurePolicy", "Fail")
    if spec.get("matchConstraints") is not None:
        _default_match(spec["matchConstraints"])


def default_binding(obj: Obj) -> None:
    resources = (obj.get("spec") or {}).get("matchResources")
    if resources is not None:
        _default_match(resources)


# ---- webhooks


def validate_webhooks(obj: Obj) -> list[Cause]:
    """Every broken rule of a webhook configuration."""
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, hook in enumerate(obj.get("webhooks") or ()):
        path = f"webhooks[{index}]"
        name = hook.get("name", "")
        causes += _full_name(f"{path}.name", name)
        if name in seen:
            causes.append(duplicate(f"{path}.name", name))
        seen.add(name)
        causes += _webhook(path, hook)
    return causes


def _full_name(path: str, name: str) -> list[Cause]:
    if not name:
        return [required(path)]
    causes = bad_all(path, name, subdomain_errors(name))
    if not causes and len(name.split(".")) < 3:
        causes.append(bad(path, name, "should be a domain with at least three segments separated by dots"))
    return causes


def _webhook(path: str, hook: Obj) -> list[Cause]:
    causes = _review_versions(f"{path}.admissionReviewVersions", hook.get("admissionReviewVersions") or [])
    for index, rule in enumerate(hook.get("rules") or ()):
        causes += _rule(f"{path}.rules[{index}]", rule)
    causes += one_of(f"{path}.failurePolicy", hook["failurePolicy"], ("Fail", "Ignore"))
    causes += one_of(f"{path}.matchPolicy", hook["matchPolicy"], ("Equivalent", "Exact"))
    if hook.get("sideEffects") is None:
        causes.append(required(f"{path}.sideEffects", "must specify one of None, NoneOnDryRun"))
    else:
        causes += one_of(f"{path}.sideEffects", hook["sideEffects"], ("None", "NoneOnDryRun"))
    if not 1 <= hook["timeoutSeconds"] <= 30:
        detail = "the timeout value must be between 1 and 30 seconds"
        causes.append(bad(f"{path}.timeoutSeconds", hook["timeoutSeconds"], detail))
    for key in ("namespaceSelector", "objectSelector"):
        causes += label_selector(f"{path}.{key}", hook[key])
    causes += validate_client(f"{path}.clientConfig", hook.get("clientConfig") or {})
    causes += _conditions(f"{path}.matchConditions", hook.get("matchConditions") or (), Names(policy=False))
    if "reinvocationPolicy" in hook:
        causes += one_of(f"{path}.reinvocationPolicy", hook["reinvocationPolicy"], ("IfNeeded", "Never"))
    return causes


def _review_versions(path: str, versions: Sequence[str]) -> list[Cause]:
    if not versions:
        return [required(path, f"must specify one of {', '.join(_VERSIONS)}")]
    causes: list[Cause] = []
    for index, version in enumerate(versions):
        if version in versions[:index]:
            causes.append(Cause(f"{path}[{index}]", "Invalid value: duplicate version"))
        causes += bad_all(f"{path}[{index}]", version, label_1035_errors(version))
    if not set(versions) & set(_VERSIONS):
        causes.append(bad(path, list(versions), f"must include at least one of {', '.join(_VERSIONS)}"))
    return causes


def _rule(path: str, rule: Obj) -> list[Cause]:
    causes: list[Cause] = []
    operations = rule.get("operations") or []
    if not operations:
        causes.append(required(f"{path}.operations"))
    if len(operations) > 1 and "*" in operations:
        detail = "if '*' is present, must not specify other operations"
        causes.append(bad(f"{path}.operations", operations, detail))
    for index, operation in enumerate(operations):
        if operation not in _OPERATIONS:
            causes.append(unsupported(f"{path}.operations[{index}]", operation, _OPERATIONS))
    for key, what in (("apiGroups", "API groups"), ("apiVersions", "API versions")):
        values = rule.get(key) or []
        if not values:
            causes.append(required(f"{path}.{key}"))
        if len(values) > 1 and "*" in values:
            causes.append(bad(f"{path}.{key}", values, f"if '*' is present, must not specify other {what}"))
    causes += [
        required(f"{path}.apiVersions[{index}]")
        for index, version in enumerate(rule.get("apiVersions") or ())
        if not version
    ]
    causes += _rule_resources(f"{path}.resources", rule.get("resources") or [])
    return causes + one_of(f"{path}.scope", rule.get("scope", "*"), ("*", "Cluster", "Namespaced"))


def _rule_resources(path: str, resources: Sequence[str]) -> list[Cause]:
    if not resources:
        return [required(path)]
    causes: list[Cause] = []
    whole = {text.removesuffix("/*") for text in resources if text.endswith("/*")}
    below = {text[2:] for text in resources if text.startswith("*/")}
    for index, text in enumerate(resources):
        resource, slash, sub = text.partition("/")
        where = f"{path}[{index}]"
        if not text:
            causes.append(required(where))
        elif text == "*/*" and len(resources) > 1:
            detail = "if '*/*' is present, must not specify other resources"
            causes.append(bad(where, list(resources), detail))
        elif text == "*" and any("/" not in other and other != "*" for other in resources):
            detail = "if '*' is present, must not specify other resources without subresources"
            causes.append(bad(where, list(resources), detail))
        elif slash and sub != "*" and resource in whole:
            causes.append(bad(where, text, f"if '{resource}/*' is present, must not specify {text}"))
        elif slash and resource != "*" and sub in below:
            causes.append(bad(where, text, f"if '*/{sub}' is present, must not specify {text}"))
    return causes


# ---- expressions


def _expression(path: str, source: str, names: Names, wanted: Mapping[str, str]) -> list[Cause]:
    """Args: wanted: types it may have to what is said when it has another one; empty for any."""
    if not source.strip():
        return [required(path)]
    return _compiled(path, expression(source, names), wanted)


def _compiled(path: str, made: Expression, wanted: Mapping[str, str]) -> list[Cause]:
    if made.program is None:
        failure = made.failure.removeprefix("compilation error: ")
        return [bad(path, made.source, f"compilation failed: {failure}")]
    if wanted and made.type.name not in wanted:
        return [bad(path, made.source, next(iter(wanted.values())))]
    return []


def _must_be(kind: Type) -> dict[str, str]:
    return {kind.name: f"must evaluate to {kind}"}


def _conditions(path: str, rows: Sequence[Obj], names: Names) -> list[Cause]:
    causes: list[Cause] = []
    if len(rows) > _CONDITIONS_MAX:
        causes.append(too_many(path, len(rows), _CONDITIONS_MAX))
    seen: set[str] = set()
    for index, row in enumerate(rows[:_CONDITIONS_MAX]):
        where, name = f"{path}[{index}]", row.get("name", "")
        causes += _expression(f"{where}.expression", row.get("expression", ""), names, _must_be(BOOL))
        if not name:
            causes.append(required(f"{where}.name"))
        elif name in seen:
            causes.append(duplicate(f"{where}.name", name))
        else:
            causes += bad_all(f"{where}.name", name, qualified_name_errors(name))
        seen.add(name)
    return causes


# ---- policies


def validate_validating_policy(obj: Obj) -> list[Cause]:
    """Every broken rule of a ValidatingAdmissionPolicy."""
    spec = obj["spec"]
    causes, names = _policy(spec, makes=False)
    validations, annotations = spec.get("validations") or (), spec.get("auditAnnotations") or ()
    if not validations and not annotations:
        detail = "validations or auditAnnotations must contain at least one item"
        causes += [required("spec.validations", detail), required("spec.auditAnnotations", detail)]
    for index, row in enumerate(validations):
        causes += _validation(f"spec.validations[{index}]", row, names)
    seen: set[str] = set()
    for index, row in enumerate(annotations):
        path, key = f"spec.auditAnnotations[{index}]", row.get("key", "")
        causes += bad_all(f"{path}.key", key, qualified_name_errors(f"{obj['metadata'].get('name', '')}/{key}"))
        if key in seen:
            causes.append(duplicate(f"{path}.key", key))
        seen.add(key)
        text = "must evaluate to one of the types: [string null_type]"
        wanted = {"string": text, "null_type": text}
        causes += _expression(f"{path}.valueExpression", row.get("valueExpression", ""), names, wanted)
    return causes


def _validation(path: str, row: Obj, names: Names) -> list[Cause]:
    source, message = row.get("expression", ""), row.get("message", "")
    causes = (
        _expression(f"{path}.expression", source, names, _must_be(BOOL))
        if source.strip()
        else [required(f"{path}.expression", "expression is not specified")]
    )
    if text := row.get("messageExpression"):
        without = Names(params=names.params, authorizer=False, variables=names.variables)
        causes += _expression(f"{path}.messageExpression", text, without, _must_be(STRING))
    if message and not message.strip():
        causes.append(bad(f"{path}.message", message, "message must be non-empty if specified"))
    if "\n" in message.strip():
        causes.append(bad(f"{path}.message", message, "message must not contain line breaks"))
    if "\n" in source.strip() and not message:
        causes.append(required(f"{path}.message", "message must be specified if expression contains line breaks"))
    if row.get("reason") is not None:
        causes += one_of(f"{path}.reason", row["reason"], _REASONS)
    return causes


def validate_mutating_policy(obj: Obj) -> list[Cause]:
    """Every broken rule of a MutatingAdmissionPolicy."""
    spec = obj["spec"]
    causes, names = _policy(spec, makes=True)
    mutations = spec.get("mutations") or ()
    if not mutations:
        causes.append(required("spec.mutations", "mutations must contain at least one item"))
    for index, row in enumerate(mutations):
        causes += _mutation(f"spec.mutations[{index}]", row, names)
    if not spec.get("reinvocationPolicy"):
        causes.append(required("spec.reinvocationPolicy"))
    else:
        causes += one_of("spec.reinvocationPolicy", spec["reinvocationPolicy"], ("IfNeeded", "Never"))
    return causes


def _mutation(path: str, row: Obj, names: Names) -> list[Cause]:
    parts = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}
    kind = row.get("patchType", "")
    if kind not in parts:
        return [unsupported(f"{path}.patchType", kind, tuple(parts))] if kind else [required(f"{path}.patchType")]
    causes: list[Cause] = []
    for sort, key in parts.items():
        if sort != kind and row.get(key) is not None:
            causes.append(bad(f"{path}.{key}", row[key], f"must not be specified when patchType is {kind}"))
    source = (row.get(parts[kind]) or {}).get("expression", "")
    if row.get(parts[kind]) is None:
        return [*causes, required(f"{path}.{parts[kind]}", f"must be specified when patchType is {kind}")]
    wanted = (
        {"Object": "must evaluate to Object"}
        if kind == "ApplyConfiguration"
        else {"list": "must evaluate to array of JSONPatch"}
    )
    return causes + _expression(f"{path}.{parts[kind]}.expression", source, names, wanted)


def _policy(spec: Obj, *, makes: bool) -> tuple[list[Cause], Names]:
    """The broken rules that policies of both sorts share, and what the rest of their expressions may name."""
    causes = list(one_of("spec.failurePolicy", spec["failurePolicy"], ("Fail", "Ignore")))
    kind = spec.get("paramKind")
    if kind is not None:
        causes += [required(f"spec.paramKind.{key}") for key in ("apiVersion", "kind") if not kind.get(key)]
    constraints = spec.get("matchConstraints")
    if constraints is None:
        causes.append(required("spec.matchConstraints"))
    else:
        if not constraints.get("resourceRules"):
            causes.append(required("spec.matchConstraints.resourceRules"))
        causes += _match("spec.matchConstraints", constraints)
    params = Names(params=kind is not None)
    causes += _conditions("spec.matchConditions", spec.get("matchConditions") or (), params)
    variables, names = compiled_variables(
        {**spec, "variables": [row for row in spec.get("variables") or () if row.get("expression")]}, makes=makes
    )
    seen: set[str] = set()
    for index, row in enumerate(spec.get("variables") or ()):
        path, name = f"spec.variables[{index}]", row.get("name", "")
        if not name:
            causes.append(required(f"{path}.name", "name is not specified"))
        elif not _IDENTIFIER.match(name):
            causes.append(bad(f"{path}.name", name, "name is not a valid CEL identifier"))
        elif name in seen:
            causes.append(duplicate(f"{path}.name", name))
        seen.add(name)
        if not row.get("expression"):
            causes.append(required(f"{path}.expression", "expression is not specified"))
        else:
            causes += _compiled(f"{path}.expression", variables[name], {})
    return causes, names


def _match(path: str, row: Obj) -> list[Cause]:
    causes = list(one_of(f"{path}.matchPolicy", row["matchPolicy"], ("Equivalent", "Exact")))
    for key in ("namespaceSelector", "objectSelector"):
        causes += label_selector(f"{path}.{key}", row[key])
    for key in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(row.get(key) or ()):
            causes += _rule(f"{path}.{key}[{index}]", rule)
    return causes


def validate_mutating_binding(obj: Obj) -> list[Cause]:
    """Every broken rule of a MutatingAdmissionPolicyBinding."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if not spec.get("policyName"):
        causes.append(required("spec.policyName"))
    else:
        causes += bad_all("spec.policyName", spec["policyName"], subdomain_errors(spec["policyName"]))
    if spec.get("paramRef") is not None:
        causes += _param_ref("spec.paramRef", spec["paramRef"])
    if spec.get("matchResources") is not None:
        causes += _match("spec.matchResources", spec["matchResources"])
    return causes


def validate_validating_binding(obj: Obj) -> list[Cause]:
    """Every broken rule of a ValidatingAdmissionPolicyBinding."""
    actions: Sequence[Any] = (obj.get("spec") or {}).get("validationActions") or []
    return validate_mutating_binding(obj) + list(_actions("spec.validationActions", actions))


def _actions(path: str, actions: Sequence[str]) -> Iterable[Cause]:
    if not actions:
        yield required(path)
    for index, action in enumerate(actions):
        if action not in ("Audit", "Deny", "Warn"):
            yield unsupported(f"{path}[{index}]", action, ("Audit", "Deny", "Warn"))
        if action in actions[:index]:
            yield duplicate(f"{path}[{index}]", action)
    if "Deny" in actions and "Warn" in actions:
        detail = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
        yield bad(path, list(actions), detail)


def _param_ref(path: str, ref: Obj) -> list[Cause]:
    name, selector = ref.get("name"), ref.get("selector")
    causes: list[Cause] = []
    if name and selector is not None:
        causes.append(bad(f"{path}.name", name, "name and selector are mutually exclusive"))
    elif not name and selector is None:
        causes.append(required(path, "one of name or selector must be specified"))
    elif name:
        causes += bad_all(f"{path}.name", name, subdomain_errors(name))
    else:
        causes += label_selector(f"{path}.selector", selector)
    if ref.get("parameterNotFoundAction") is None:
        causes.append(required(f"{path}.parameterNotFoundAction"))
    else:
        causes += one_of(f"{path}.parameterNotFoundAction", ref["parameterNotFoundAction"], ("Allow", "Deny"))
    return causes
