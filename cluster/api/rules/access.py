"""Rules of roles and their bindings.

Whether somebody may grant what is in a role is for `cluster/auth` to say.

Source: k8s.io/kubernetes/pkg/apis/rbac/{v1/defaults.go,validation/validation.go}
"""

from __future__ import annotations

from steersman.cluster.api.rules.fields import as_struct, bad, bad_all, label_selector, required, unsupported
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import path_segment_errors, subdomain_errors
from steersman.cluster.meta.objects import Obj

GROUP = "rbac.authorization.k8s.io"


def default_binding(obj: Obj) -> None:
    reference = obj.get("roleRef")
    if reference is not None and not reference.get("apiGroup"):
        reference["apiGroup"] = GROUP
    for subject in obj.get("subjects") or ():
        if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
            subject["apiGroup"] = GROUP


def _rules(obj: Obj, *, namespaced: bool) -> list[Cause]:
    causes: list[Cause] = []
    for index, rule in enumerate(obj.get("rules") or ()):
        path = f"rules[{index}]"
        if not rule.get("verbs"):
            causes.append(required(f"{path}.verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            if namespaced:
                detail = "namespaced rules cannot apply to non-resource URLs"
                causes.append(bad(f"{path}.nonResourceURLs", rule["nonResourceURLs"], detail))
            elif rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                detail = "rules cannot apply to both regular resources and non-resource URLs"
                causes.append(bad(f"{path}.nonResourceURLs", rule["nonResourceURLs"], detail))
            continue
        if not rule.get("apiGroups"):
            causes.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            causes.append(required(f"{path}.resources", "resource rules must supply at least one resource"))
    return causes


def validate_role(obj: Obj) -> list[Cause]:
    return _rules(obj, namespaced=True)


def validate_cluster_role(obj: Obj) -> list[Cause]:
    causes = _rules(obj, namespaced=False)
    aggregation = obj.get("aggregationRule")
    if aggregation is None:
        return causes
    path, selectors = "aggregationRule.clusterRoleSelectors", aggregation.get("clusterRoleSelectors") or []
    if not selectors:
        causes.append(required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
    for index, selector in enumerate(selectors):
        causes += label_selector(f"{path}[{index}]", selector)
    return causes


def validate_role_binding(obj: Obj) -> list[Cause]:
    return _binding(obj, ("Role", "ClusterRole"), namespaced=True)


def validate_cluster_role_binding(obj: Obj) -> list[Cause]:
    return _binding(obj, ("ClusterRole",), namespaced=False)


def _binding(obj: Obj, kinds: tuple[str, ...], *, namespaced: bool) -> list[Cause]:
    reference = obj.get("roleRef") or {}
    causes: list[Cause] = []
    if reference.get("apiGroup") != GROUP:
        causes.append(unsupported("roleRef.apiGroup", reference.get("apiGroup", ""), (GROUP,)))
    if reference.get("kind") not in kinds:
        causes.append(unsupported("roleRef.kind", reference.get("kind", ""), kinds, in_order=True))
    if not reference.get("name"):
        causes.append(required("roleRef.name"))
    else:
        causes += bad_all("roleRef.name", reference["name"], path_segment_errors(reference["name"]))
    for index, subject in enumerate(obj.get("subjects") or ()):
        causes += _subject(f"subjects[{index}]", subject, namespaced=namespaced)
    return causes


def _subject(path: str, subject: Obj, *, namespaced: bool) -> list[Cause]:
    causes: list[Cause] = []
    name, kind, group = subject.get("name", ""), subject.get("kind", ""), subject.get("apiGroup", "")
    if not name:
        causes.append(required(f"{path}.name"))
    match kind:
        case "ServiceAccount":
            if name:
                causes += bad_all(f"{path}.name", name, subdomain_errors(name))
            if group:
                causes.append(unsupported(f"{path}.apiGroup", group, ("",)))
            if not namespaced and not subject.get("namespace"):
                causes.append(required(f"{path}.namespace"))
        case "User" | "Group":
            if group != GROUP:
                causes.append(unsupported(f"{path}.apiGroup", group, (GROUP,)))
        case _:
            causes.append(unsupported(f"{path}.kind", kind, ("ServiceAccount", "User", "Group"), in_order=True))
    return causes


def validate_binding_update(new: Obj, old: Obj) -> list[Cause]:
    if new.get("roleRef") == old.get("roleRef"):
        return []
    shown = as_struct(new.get("roleRef"), APIGroup="apiGroup", Kind="kind", Name="name")
    return [bad("roleRef", shown, "cannot change roleRef")]
