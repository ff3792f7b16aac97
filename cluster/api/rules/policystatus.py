"""Rules of the status of a ValidatingAdmissionPolicy: what is wrong with its expressions, and its conditions.

Source: k8s.io/kubernetes/pkg/apis/admissionregistration/validation/validation.go
"""

from __future__ import annotations

from steersman.cluster.api.rules.conditions import validate_conditions
from steersman.cluster.api.rules.fields import bad, required
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.jsonpath import JsonPath, JsonPathError
from steersman.cluster.meta.objects import Obj


def validate_policy_status(new: Obj, _old: Obj) -> list[Cause]:
    status = new.get("status") or {}
    causes: list[Cause] = []
    for index, row in enumerate((status.get("typeChecking") or {}).get("expressionWarnings") or ()):
        path = f"status.typeChecking.expressionWarnings[{index}]"
        if not row.get("warning"):
            causes.append(required(f"{path}.warning"))
        causes += _reference(f"{path}.fieldRef", row.get("fieldRef", "").strip())
    return causes + validate_conditions("status.conditions", status.get("conditions") or ())


def _reference(path: str, text: str) -> list[Cause]:
    if not text:
        return [required(path)]
    try:
        JsonPath(f"{{{text}}}")
    except JsonPathError as error:
        return [bad(path, text, f"invalid JSONPath: {error}")]
    return []
