"""Rules of `metav1.Condition`, wherever a status has such conditions.

Source: k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from steersman.cluster.api.rules.fields import bad, bad_all, duplicate, required, too_long, unsupported
from steersman.cluster.meta.errors import Cause
from steersman.cluster.meta.names import qualified_name_errors
from steersman.cluster.meta.objects import Obj

_STATES = ("False", "True", "Unknown")
_REASON_BYTES_MAX, _MESSAGE_BYTES_MAX = 1024, 32 * 1024
_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?\Z")
_REASON_DETAIL = (
    "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric "
    "characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or "
    "'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is "
    "'[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')"
)
_MISSING = "must be set"


def validate_conditions(path: str, rows: Sequence[Obj]) -> list[Cause]:
    """Every broken rule of a list of conditions, of which there is one of each type."""
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, row in enumerate(rows):
        kind = row.get("type", "")
        if kind in seen:
            causes.append(duplicate(f"{path}[{index}].type", kind))
        seen.add(kind)
        causes += _condition(f"{path}[{index}]", row)
    return causes


def _condition(path: str, row: Obj) -> list[Cause]:
    kind, state, reason = row.get("type", ""), row.get("status", ""), row.get("reason", "")
    causes: list[Cause] = []
    causes += (
        bad_all(f"{path}.type", kind, qualified_name_errors(kind)) if kind else [required(f"{path}.type", _MISSING)]
    )
    if not state:
        causes.append(required(f"{path}.status", _MISSING))
    elif state not in _STATES:
        causes.append(unsupported(f"{path}.status", state, _STATES))
    if (row.get("observedGeneration") or 0) < 0:
        detail = "must be greater than or equal to zero"
        causes.append(bad(f"{path}.observedGeneration", row["observedGeneration"], detail))
    if not row.get("lastTransitionTime"):
        causes.append(required(f"{path}.lastTransitionTime", _MISSING))
    if not reason:
        causes.append(required(f"{path}.reason", _MISSING))
    elif not _REASON.match(reason):
        causes.append(bad(f"{path}.reason", reason, _REASON_DETAIL))
    if len(reason) > _REASON_BYTES_MAX:
        causes.append(too_long(f"{path}.reason", _REASON_BYTES_MAX))
    if len(row.get("message", "")) > _MESSAGE_BYTES_MAX:
        causes.append(too_long(f"{path}.message", _MESSAGE_BYTES_MAX))
    return causes
