"""Rules of admission's own kinds: webhook configurations, policies and their bindings.

Source: k8s.io/kubernetes/pkg/apis/admissionregistration/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.cluster.api.admission.names import Expression, Names, compiled_variables, expression
from steersman.cluster.api.rules.clients import validate_client
from steersman.cluster.api.rules.fields import (
    bad,
    bad_all,
    duplicate,
    forbidden,
    label_selector,
    required,
    selects_no_label,
    too_many,
    unsupported,
)
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import (
    label_1035_errors,
    path_segment_errors,
    qualified_name_errors,
    subdomain_errors,
)
from steersman.cluster.meta.objects import Obj

_CONDITIONS_MAX = 64
_VERSIONS = ("v1", "v1beta1")
_EFFECTS, _NO_EFFECTS = ("None", "NoneOnDryRun", "Some", "Unknown"), ("None", "NoneOnDryRun")
_SELECTORS = ("namespaceSelector", "objectSelector")
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")
_ANNOTATIONS_MAX, _ANNOTATION_BYTES_MAX = 20, 5 * 1024
_IDENTIFIER = re.compile(r"^[_a-zA-Z][_a-zA-Z0-9]*\Z")
_RESERVED = frozenset(
    (
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
        "let", "loop", "package", "namespace", "return", "var", "void", "while",
    )
)  # fmt: skip
_LINE_BREAK = re.compile(r"[\n\r]")


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


@dataclass(frozen=True, slots=True)
class _Lenience:
    """What of webhooks may be wrong, since it was so before."""

    conditions: bool = False
    side_effects: bool = False
    versions: bool = False
    names: bool = False
    values: bool = False


def validate_webhooks(obj: Obj) -> list[Cause]:
    """Every broken rule of a webhook configuration."""
    return _webhooks(obj, _Lenience())


def validate_webhooks_change(new: Obj, old: Obj) -> list[Cause]:
    """As of a new configuration, but what some webhook was allowed before is allowed to all of them."""
    hooks = old.get("webhooks") or ()
    names = [hook["name"] for hook in hooks if hook.get("name")]
    conditions = [[hook.get("matchConditions") or [] for hook in side.get("webhooks") or ()] for side in (new, old)]
    lenience = _Lenience(
        conditions=conditions[0] == conditions[1],
        side_effects=any(hook.get("sideEffects") not in _NO_EFFECTS for hook in hooks),
        versions=any(said and not set(said) & set(_VERSIONS) for said in map(_versions_of, hooks)),
        names=len(set(names)) < len(names),
        values=any(selects_no_label(hook.get(key)) for hook in hooks for key in _SELECTORS),
    )
    return _webhooks(new, lenience)


def _versions_of(hook: Obj) -> list[str]:
    return hook.get("admissionReviewVersions") or []


def _webhooks(obj: Obj, lenience: _Lenience) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, hook in enumerate(obj.get("webhooks") or ()):
        path, name = f"webhooks[{index}]", hook.get("name", "")
        causes += _full_name(f"{path}.name", name) + _webhook(path, hook, lenience)
        causes += _review_versions(f"{path}.admissionReviewVersions", _versions_of(hook), any_known=lenience.versions)
        if name in seen and not lenience.names:
            causes.append(duplicate(f"{path}.name", name))
        if name:
            seen.add(name)
    return causes


def _full_name(path: str, name: str) -> list[Cause]:
    if not name:
        return [required(path)]
    if errors := subdomain_errors(name):
        return [bad(path, name, ",".join(errors))]
    if len(name.split(".")) < 3:
        return [bad(path, name, "should be a domain with at least three segments separated by dots")]
    return []


def _among(path: str, value: Any, supported: Sequence[str]) -> list[Cause]:
    return [] if value in supported else [unsupported(path, value, supported, in_order=True)]


def _webhook(path: str, hook: Obj, lenience: _Lenience) -> list[Cause]:
    causes: list[Cause] = []
    effects = _EFFECTS if lenience.side_effects else _NO_EFFECTS
    for index, rule in enumerate(hook.get("rules") or ()):
        causes += _rule(f"{path}.rules[{index}]", rule)
    causes += _among(f"{path}.failurePolicy", hook["failurePolicy"], ("Fail", "Ignore"))
    causes += _among(f"{path}.matchPolicy", hook["matchPolicy"], ("Equivalent", "Exact"))
    if hook.get("sideEffects") is None:
        causes.append(required(f"{path}.sideEffects", f"must specify one of {', '.join(effects)}"))
    else:
        causes += _among(f"{path}.sideEffects", hook["sideEffects"], effects)
    if not 1 <= hook["timeoutSeconds"] <= 30:
        detail = "the timeout value must be between 1 and 30 seconds"
        causes.append(bad(f"{path}.timeoutSeconds", hook["timeoutSeconds"], detail))
    for key in _SELECTORS:
        causes += label_selector(f"{path}.{key}", hook[key], any_values=lenience.values)
    if "reinvocationPolicy" in hook:
        causes += _among(f"{path}.reinvocationPolicy", hook["reinvocationPolicy"], ("IfNeeded", "Never"))
    causes += validate_client(f"{path}.clientConfig", hook.get("clientConfig") or {})
    if lenience.conditions:
        return causes
    return causes + _conditions(f"{path}.matchConditions", hook.get("matchConditions") or (), Names(policy=False))


def _review_versions(path: str, versions: Sequence[str], *, any_known: bool) -> list[Cause]:
    if not versions:
        return [required(path, f"must specify one of {', '.join(_VERSIONS)}")]
    causes: list[Cause] = []
    for index, version in enumerate(versions):
        if version in versions[:index]:
            causes.append(bad(f"{path}[{index}]", version, "duplicate version"))
            continue
        causes += bad_all(f"{path}[{index}]", version, label_1035_errors(version))
    if not any_known and not set(versions) & set(_VERSIONS):
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
    return causes + _among(f"{path}.scope", rule.get("scope", "*"), ("*", "Cluster", "Namespaced"))


def _rule_resources(path: str, resources: Sequence[str]) -> list[Cause]:
    """What is wrong with resources and subresources: each is compared with those before it."""
    if not resources:
        return [required(path)]
    causes: list[Cause] = []
    whole: set[str] = set()
    below: set[str] = set()
    last = "*"
    for index, text in enumerate(resources):
        resource, slash, sub = text.partition("/")
        where = f"{path}[{index}]"
        if not text:
            causes.append(required(where))
        elif not slash:
            last = text
        else:
            if resource in whole:
                causes.append(bad(where, text, f"if '{resource}/*' is present, must not specify {text}"))
            if sub in below:
                causes.append(bad(where, text, f"if '*/{sub}' is present, must not specify {text}"))
            whole |= {resource} if sub == "*" else set()
            below |= {sub} if resource == "*" else set()
    if "*/*" in resources and len(resources) > 1:
        causes.append(bad(path, list(resources), "if '*/*' is present, must not specify other resources"))
    if "*" in resources and last != "*":
        detail = "if '*' is present, must not specify other resources without subresources"
        causes.append(bad(path, list(resources), detail))
    return causes


# ---- expressions


def _expression(path: str, source: str, names: Names, wanted: Sequence[str]) -> list[Cause]:
    """Args: wanted: types it may have, as CEL writes them; empty for any."""
    if not source.strip():
        return [required(path)]
    return _compiled(path, expression(source, names), wanted)


def _compiled(path: str, made: Expression, wanted: Sequence[str]) -> list[Cause]:
    if made.program is None:
        failure = made.failure.removeprefix("compilation error: ")
        return [bad(path, made.source, f"compilation failed: {failure}")]
    found = str(made.type) if made.type.params else made.type.name
    # an empty list may be of anything: here `c ? [] : [JSONPatch{}]` is a list of what is not known, in Kubernetes not
    if wanted and found not in wanted and (found != "list(dyn)" or not wanted[0].startswith("list(")):
        listed = wanted[0] if len(wanted) == 1 else f"one of [{' '.join(wanted)}]"
        return [bad(path, made.source, f"must evaluate to {listed} but got {found}")]
    return []


def _conditions(path: str, rows: Sequence[Obj], names: Names) -> list[Cause]:
    causes: list[Cause] = []
    if len(rows) > _CONDITIONS_MAX:
        causes.append(too_many(path, len(rows), _CONDITIONS_MAX))
    seen: set[str] = set()
    for index, row in enumerate(rows[:_CONDITIONS_MAX]):
        where, name = f"{path}[{index}]", row.get("name", "")
        causes += _expression(f"{where}.expression", row.get("expression", ""), names, ("bool",))
        if not name:
            causes.append(required(f"{where}.name"))
            continue
        causes += bad_all(f"{where}.name", name, qualified_name_errors(name))
        if name in seen:
            causes.append(duplicate(f"{where}.name", name))
        seen.add(name)
    return causes


# ---- policies


def validate_validating_policy(obj: Obj) -> list[Cause]:
    """Every broken rule of a ValidatingAdmissionPolicy."""
    spec = obj["spec"]
    causes, names = _policy(spec, makes=False)
    validations, annotations = spec.get("validations") or (), spec.get("auditAnnotations") or []
    if not validations and not annotations:
        detail = "validations or auditAnnotations must contain at least one item"
        causes += [required("spec.validations", detail), required("spec.auditAnnotations", detail)]
    for index, row in enumerate(validations):
        causes += _validation(f"spec.validations[{index}]", row, names)
    if len(annotations) > _ANNOTATIONS_MAX:
        detail = f"must not have more than {_ANNOTATIONS_MAX} auditAnnotations"
        causes.append(bad("spec.auditAnnotations", annotations, detail))
    seen: set[str] = set()
    for index, row in enumerate(annotations[:_ANNOTATIONS_MAX]):
        path, key = f"spec.auditAnnotations[{index}]", row.get("key", "")
        full = f"{obj['metadata'].get('name', '')}/{key}"
        causes += bad_all(f"{path}.key", full, qualified_name_errors(full))
        causes += _annotation(f"{path}.valueExpression", row.get("valueExpression", ""), names)
        if key in seen:
            causes.append(duplicate(f"{path}.key", key))
        seen.add(key)
    return causes


def _annotation(path: str, source: str, names: Names) -> list[Cause]:
    plain = source.strip()
    if not plain:
        return [required(path, "valueExpression is not specified")]
    if len(plain.encode()) > _ANNOTATION_BYTES_MAX:
        return [required(path, f"must not exceed {_ANNOTATION_BYTES_MAX} bytes in length")]
    return _expression(path, source, names, ("string", "null_type"))


def _validation(path: str, row: Obj, names: Names) -> list[Cause]:
    source, message, other = row.get("expression", ""), row.get("message", ""), row.get("messageExpression", "")
    causes = (
        _expression(f"{path}.expression", source, names, ("bool",))
        if source.strip()
        else [required(f"{path}.expression", "expression is not specified")]
    )
    if other.strip():
        without = Names(params=names.params, authorizer=False, variables=names.variables)
        causes += _expression(f"{path}.messageExpression", other, without, ("string",))
    elif other:
        causes.append(bad(f"{path}.messageExpression", other, "must be non-empty if specified"))
    if message and not message.strip():
        causes.append(bad(f"{path}.message", message, "message must be non-empty if specified"))
    elif _LINE_BREAK.search(message.strip()):
        causes.append(bad(f"{path}.message", message, "message must not contain line breaks"))
    if row.get("reason") is not None:
        causes += _among(f"{path}.reason", row["reason"], _REASONS)
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
        causes += _among("spec.reinvocationPolicy", spec["reinvocationPolicy"], ("IfNeeded", "Never"))
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
    wanted = ("Object",) if kind == "ApplyConfiguration" else ("list(JSONPatch)",)
    return causes + _expression(f"{path}.{parts[kind]}.expression", source, names, wanted)


def _policy(spec: Obj, *, makes: bool) -> tuple[list[Cause], Names]:
    """The broken rules that policies of both sorts share, and what the rest of their expressions may name."""
    causes = _among("spec.failurePolicy", spec["failurePolicy"], ("Fail", "Ignore"))
    kind = spec.get("paramKind")
    if kind is not None:
        causes += _param_kind("spec.paramKind", kind)
    constraints = spec.get("matchConstraints")
    if constraints is None:
        causes.append(required("spec.matchConstraints"))
    else:
        causes += _match("spec.matchConstraints", constraints)
        if not constraints.get("resourceRules"):
            causes.append(required("spec.matchConstraints.resourceRules"))
    params = Names(params=kind is not None)
    causes += _conditions("spec.matchConditions", spec.get("matchConditions") or (), params)
    variables, names = compiled_variables(
        {**spec, "variables": [row for row in spec.get("variables") or () if row.get("expression", "").strip()]},
        makes=makes,
    )
    for index, row in enumerate(spec.get("variables") or ()):
        path, name = f"spec.variables[{index}]", row.get("name", "")
        if not name.strip():
            causes.append(required(f"{path}.name", "name is not specified"))
        elif not _IDENTIFIER.match(name) or name in _RESERVED:
            causes.append(bad(f"{path}.name", name, "name is not a valid CEL identifier"))
        if not row.get("expression", "").strip():
            causes.append(required(f"{path}.expression", "expression is not specified"))
        else:
            causes += _compiled(f"{path}.expression", variables[name], ())
    return causes, names


def _param_kind(path: str, kind: Obj) -> list[Cause]:
    """The rules of the kind of a policy's parameters: those that an APIService and a definition have."""
    where, text, name = f"{path}.apiVersion", kind.get("apiVersion", ""), kind.get("kind", "")
    group, _, version = text.rpartition("/")
    causes: list[Cause] = []
    if not text:
        causes.append(required(where))
    elif text.count("/") > 1:
        causes.append(bad(where, text, f"unexpected GroupVersion string: {text}"))
    else:
        if group and (errors := subdomain_errors(group)):
            causes.append(bad(where, group, ",".join(errors)))
        if not version:
            causes.append(bad(where, text, "version must be specified"))
        elif errors := label_1035_errors(version):
            causes.append(bad(where, version, ",".join(errors)))
    if not name:
        causes.append(required(f"{path}.kind"))
    elif errors := label_1035_errors(name.lower()):
        detail = f"may have mixed case, but should otherwise match: {','.join(errors)}"
        causes.append(bad(f"{path}.kind", name, detail))
    return causes


def _match(path: str, row: Obj) -> list[Cause]:
    causes = _among(f"{path}.matchPolicy", row["matchPolicy"], ("Equivalent", "Exact"))
    for key in _SELECTORS:
        causes += label_selector(f"{path}.{key}", row[key])
    for key in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(row.get(key) or ()):
            causes += _resource_names(f"{path}.{key}[{index}].resourceNames", rule.get("resourceNames") or [])
            causes += _rule(f"{path}.{key}[{index}]", rule)
    return causes


def _resource_names(path: str, names: Sequence[str]) -> list[Cause]:
    causes: list[Cause] = []
    for index, name in enumerate(names):
        causes += bad_all(f"{path}[{index}]", name, path_segment_errors(name))
        if name in names[:index]:
            causes.append(duplicate(f"{path}[{index}]", name))
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
    for index, action in enumerate(actions):
        yield from _among(f"{path}[{index}]", action, ("Audit", "Deny", "Warn"))
        if action in actions[:index]:
            yield duplicate(f"{path}[{index}]", action)
    if "Deny" in actions and "Warn" in actions:
        detail = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
        yield bad(path, list(actions), detail)
    if not actions:
        yield required(path, "at least one validation action is required")


def _param_ref(path: str, ref: Obj) -> list[Cause]:
    name, selector, missing = ref.get("name"), ref.get("selector"), ref.get("parameterNotFoundAction")
    twice = "name and selector are mutually exclusive"
    causes: list[Cause] = []
    if name:
        causes += bad_all(f"{path}.name", name, path_segment_errors(name))
        causes += [] if selector is None else [forbidden(f"{path}.name", twice)]
    if selector is not None:
        causes += label_selector(f"{path}.selector", selector)
        causes += [forbidden(f"{path}.selector", twice)] if name else []
    elif not name:
        causes.append(required(path, "one of name or selector must be specified"))
    where = f"{path}.parameterNotFoundAction"
    return causes + (_among(where, missing, ("Deny", "Allow")) if missing else [required(where)])
