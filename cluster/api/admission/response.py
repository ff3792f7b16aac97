"""The shape of a webhook's answer: what is of another type than it must be is told in the words of Go's decoder.

Source: k8s.io/api/admission/v1/types.go, k8s.io/apimachinery/pkg/apis/meta/v1/types.go (Status), Go's encoding/json
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from steersman.cluster.api.syntax import name_of
from steersman.cluster.meta.objects import Obj

_INT32_MAX = 1 << 31


@dataclass(frozen=True, slots=True)
class _Type:
    """A type of Go's.

    Args:
        go: its name; VERSION in it stands for that of the review.
        kind: what JSON it takes, as `name_of` calls it; `bytes` for a text in base64.
        fields: of a struct; of: the type of a list's or map's items.
    """

    go: str
    kind: str
    fields: Mapping[str, _Type] = field(default_factory=dict)
    of: _Type | None = None


def _struct(go: str, **fields: _Type) -> _Type:
    return _Type(go, "object", fields)


_TEXT, _NUMBER = _Type("string", "string"), _Type("int32", "number")
_CAUSE = _struct("v1.StatusCause", reason=_Type("v1.CauseType", "string"), message=_TEXT, field=_TEXT)
_DETAILS = _struct(
    "v1.StatusDetails", name=_TEXT, group=_TEXT, kind=_TEXT, uid=_Type("types.UID", "string"),
    causes=_Type("[]v1.StatusCause", "array", of=_CAUSE), retryAfterSeconds=_NUMBER,
)  # fmt: skip
_STATUS = _struct(
    "v1.Status", status=_TEXT, message=_TEXT, reason=_Type("v1.StatusReason", "string"), details=_DETAILS, code=_NUMBER
)
_RESPONSE = _struct(
    "VERSION.AdmissionResponse",
    uid=_Type("types.UID", "string"), allowed=_Type("bool", "bool"), status=_STATUS, patch=_Type("[]uint8", "bytes"),
    patchType=_Type("VERSION.PatchType", "string"),
    auditAnnotations=_Type("map[string]string", "object", of=_TEXT), warnings=_Type("[]string", "array", of=_TEXT),
)  # fmt: skip
_REVIEW = _struct("VERSION.AdmissionReview", response=_RESPONSE)


def read_response(review: Obj, version: str) -> Obj | None:
    """The response in a review, its patch as bytes; what is null is as if it were not there.

    Raises:
        ValueError: something is of another type than it must be.
    """
    found: Obj = _read(review, _REVIEW, version, "AdmissionReview", "")
    return found.get("response")


def _read(value: Any, wanted: _Type, version: str, struct: str, path: str) -> Any:
    sort = "string" if wanted.kind == "bytes" else wanted.kind
    if name_of(value) != sort or (sort == "number" and not _is_int32(value)):
        shown = f"number {value}" if name_of(value) == sort else name_of(value)
        where = f"Go struct field {struct}.{path} of type " if path else "Go value of type "
        raise ValueError(f"json: cannot unmarshal {shown} into {where}{wanted.go.replace('VERSION', version)}")
    if wanted.kind == "bytes":
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("illegal base64 data") from None
    if wanted.of is not None:
        rows = value.items() if isinstance(value, dict) else enumerate(value)
        read = {key: _read(row, wanted.of, version, struct, path) for key, row in rows if row is not None}
        return read if isinstance(value, dict) else list(read.values())
    if not wanted.fields:
        return value
    own, start = wanted.go.rpartition(".")[2], f"{path}." if path else ""
    return {
        key: _read(value[key], one, version, own, f"{start}{key}")
        for key, one in wanted.fields.items()
        if value.get(key) is not None
    }


def _is_int32(value: Any) -> bool:
    return isinstance(value, int) and -_INT32_MAX <= value < _INT32_MAX
