"""Columns of admission policies and their bindings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steersman.cluster.api.columns.column import Age, Column, Columns, Name, age, name, rows, sub
from steersman.cluster.meta.objects import Obj

_GROUP = "admissionregistration.k8s.io"


def _policy(part: str) -> Callable[[Obj, float], list[Any]]:
    def cells(obj: Obj, now: float) -> list[Any]:
        spec = sub(obj, "spec")
        kind = sub(spec, "paramKind")
        shown = f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}" if kind else "<unset>"
        return [name(obj), len(rows(spec, part)), shown, age(obj, now)]

    return cells


def _binding(obj: Obj, now: float) -> list[Any]:
    spec = sub(obj, "spec")
    reference = sub(spec, "paramRef")
    shown = "<unset>"
    if reference.get("name"):
        shown = f"{reference.get('namespace') or '*'}/{reference['name']}"
    elif "selector" in reference:
        shown = _selector(reference["selector"])
    return [name(obj), spec.get("policyName", ""), shown, age(obj, now)]


def _selector(selector: Obj) -> str:
    """As Go prints the struct."""
    labels = "".join(f"{key}: {value}," for key, value in sorted((selector.get("matchLabels") or {}).items()))
    rules = "".join(
        f"LabelSelectorRequirement{{Key:{row.get('key', '')},Operator:{row.get('operator', '')},"
        f"Values:[{' '.join(row.get('values') or ())}],}},"
        for row in selector.get("matchExpressions") or ()
    )
    listed = f"MatchExpressions:[]LabelSelectorRequirement{{{rules}}}"
    return f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},{listed},}}"


_BINDINGS = Columns((Name, Column("PolicyName"), Column("ParamRef"), Age), _binding)
COLUMNS = {
    (_GROUP, "MutatingAdmissionPolicyBinding"): _BINDINGS,
    (_GROUP, "ValidatingAdmissionPolicyBinding"): _BINDINGS,
    (_GROUP, "MutatingAdmissionPolicy"): Columns(
        (Name, Column("Mutations", "integer"), Column("ParamKind"), Age), _policy("mutations")
    ),
    (_GROUP, "ValidatingAdmissionPolicy"): Columns(
        (Name, Column("Validations", "integer"), Column("ParamKind"), Age), _policy("validations")
    ),
}
