"""The API's domain errors: each is a Kubernetes `Status`, with its HTTP code and reason.

    ApiError
    ├── BadRequest 400            Invalid 422 (causes)
    ├── Unauthorized 401          Forbidden 403
    ├── NotFound 404              MethodNotAllowed 405      NotAcceptable 406
    ├── AlreadyExists 409         Conflict 409
    ├── Expired 410               RequestEntityTooLarge 413
    ├── UnsupportedMediaType 415  TooManyRequests 429 (retry_after_s)
    ├── InternalError 500         ServerTimeout 504         ServiceUnavailable 503
    └── Refused (a webhook's own code and reason)

Source: https://github.com/kubernetes/community/blob/main/contributors/devel/sig-architecture/api-conventions.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: broken rules that a refusal names: it is read by people, and not to be many times what was refused
CAUSES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for a refusal.

    Args:
        field: path of the field, as `spec.containers[0].name`; empty when the whole object is meant.
        message: what is wrong, in Kubernetes' words.
        reason: `FieldValueRequired`, `FieldValueInvalid`, `FieldValueNotSupported`, `FieldValueDuplicate`,
            `FieldValueForbidden`, `FieldValueTooLong`, `FieldManagerConflict`, ...
        forgiven: it was so before, and is only to be warned of.
    """

    field: str
    message: str
    reason: str = "FieldValueInvalid"
    forgiven: bool = False

    def to_dict(self) -> dict[str, str]:
        row = {"reason": self.reason, "message": self.message, "field": self.field}
        return {key: value for key, value in row.items() if value}


class ApiError(Exception):
    """A refusal or failure that a client sees as a Kubernetes `Status`."""

    code: int = 500
    reason: str = "InternalError"

    def __init__(
        self,
        message: str,
        *,
        causes: Sequence[Cause] = (),
        kind: str = "",
        group: str = "",
        name: str = "",
        uid: str = "",
        retry_after_s: int = 0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.causes = tuple(causes)
        self.kind = kind
        self.group = group
        self.name = name
        self.uid = uid
        self.retry_after_s = retry_after_s

    def to_status(self) -> dict[str, Any]:
        """Returns the `v1.Status` object of this error."""
        details: dict[str, Any] = {}
        if self.name:
            details["name"] = self.name
        if self.group:
            details["group"] = self.group
        if self.kind:
            details["kind"] = self.kind
        if self.uid:
            details["uid"] = self.uid
        if self.causes:
            details["causes"] = [cause.to_dict() for cause in self.causes]
        if self.retry_after_s:
            details["retryAfterSeconds"] = self.retry_after_s
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if details:
            status["details"] = details
        status["code"] = self.code
        return status


class BadRequest(ApiError):
    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    code, reason = 401, "Unauthorized"

    def __init__(self, message: str = "Unauthorized") -> None:
        super().__init__(message)


class Forbidden(ApiError):
    code, reason = 403, "Forbidden"


class Refused(ApiError):
    """A refusal by somebody outside, with the code (and perhaps the reason) of their choice."""

    def __init__(self, message: str, code: int, reason: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.code = code
        self.reason = reason


class NotFound(ApiError):
    code, reason = 404, "NotFound"


class MethodNotAllowed(ApiError):
    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(ApiError):
    code, reason = 406, "NotAcceptable"


class AlreadyExists(ApiError):
    code, reason = 409, "AlreadyExists"


class Conflict(ApiError):
    code, reason = 409, "Conflict"


class Expired(ApiError):
    """What was asked for is forgotten; `go_on` is a token with which a list may be continued all the same."""

    code, reason = 410, "Expired"

    def __init__(self, message: str, *, go_on: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.go_on = go_on

    def to_status(self) -> dict[str, Any]:
        status = super().to_status()
        return {**status, "metadata": {"continue": self.go_on}} if self.go_on else status


class RequestEntityTooLarge(ApiError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    """The object breaks the rules of its kind; `causes` names every broken rule."""

    code, reason = 422, "Invalid"


class PageNotFound(NotFound):
    """There is nothing at a path, which belongs to no group either; as Go's servers say it, in plain text."""

    def __init__(self) -> None:
        super().__init__("404 page not found")


class TooManyRequests(ApiError):
    code, reason = 429, "TooManyRequests"


class InternalError(ApiError):
    code, reason = 500, "InternalError"


class ServiceUnavailable(ApiError):
    code, reason = 503, "ServiceUnavailable"


class ServerTimeout(ApiError):
    code, reason = 504, "Timeout"


def out_of_time() -> ServerTimeout:
    """The 504 of a request that took longer than its client, or the server, waits; a write may be done all the same."""
    return ServerTimeout("Timeout: request did not complete within requested timeout - context deadline exceeded")


def not_found(plural: str, name: str, group: str = "") -> NotFound:
    """The 404 of an object: `pods "web" not found`."""
    return NotFound(f'{_qualified(plural, group)} "{name}" not found', kind=plural, group=group, name=name)


def already_exists(plural: str, name: str, group: str = "") -> AlreadyExists:
    """The 409 of a create: `pods "web" already exists`."""
    return AlreadyExists(f'{_qualified(plural, group)} "{name}" already exists', kind=plural, group=group, name=name)


def generated_name_conflict(plural: str, name: str, group: str = "") -> AlreadyExists:
    """Every name that was made up is taken."""
    message = f'{_qualified(plural, group)} "{name}" already exists, the server was not able to generate a unique name'
    return AlreadyExists(f"{message} for the object", name=name, group=group, kind=plural, retry_after_s=1)


def conflict(plural: str, name: str, detail: str, group: str = "") -> Conflict:
    """The 409 of a stale write; the caller reads again and retries."""
    return Conflict(
        f'Operation cannot be fulfilled on {_qualified(plural, group)} "{name}": {detail}',
        kind=plural,
        group=group,
        name=name,
    )


def invalid(kind: str, name: str, causes: Sequence[Cause], group: str = "") -> Invalid:
    """The 422 with every broken rule: `Pod "web" is invalid: spec.containers: Required value`."""
    causes = causes[:CAUSES_MAX]
    lines = [f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in causes]
    lines = list(dict.fromkeys(lines))  # said twice, it is told once
    detail = lines[0] if len(lines) == 1 else "[" + ", ".join(lines) + "]"
    return Invalid(
        f'{_qualified(kind, group)} "{name}" is invalid: {detail}',
        causes=causes,
        kind=kind,
        group=group,
        name=name,
    )


def _qualified(plural: str, group: str) -> str:
    return f"{plural}.{group}" if group else plural


_BY_REASON: dict[str, type[ApiError]] = {
    cls.reason: cls
    for cls in (
        BadRequest, Forbidden, NotFound, MethodNotAllowed, NotAcceptable, AlreadyExists, Conflict, Expired,
        RequestEntityTooLarge, UnsupportedMediaType, Invalid, TooManyRequests, InternalError, ServiceUnavailable,
        ServerTimeout,
    )
}  # fmt: skip
_BY_CODE: dict[int, type[ApiError]] = {cls.code: cls for cls in _BY_REASON.values()} | {409: Conflict}


def from_status(status: dict[str, Any]) -> ApiError:
    """The error that a `v1.Status` received from a server stands for."""
    details = status.get("details") or {}
    message = status.get("message") or status.get("reason") or "unknown error"
    reason, code = status.get("reason", ""), status.get("code", 500)
    if reason == "Unauthorized" or code == 401:
        return Unauthorized(message)
    cls = _BY_REASON.get(reason) or _BY_CODE.get(code) or ApiError
    causes = [
        Cause(row.get("field", ""), row.get("message", ""), row.get("reason", "FieldValueInvalid"))
        for row in details.get("causes") or ()
    ]
    return cls(
        message,
        causes=causes,
        kind=details.get("kind", ""),
        group=details.get("group", ""),
        name=details.get("name", ""),
        uid=details.get("uid", ""),
        retry_after_s=details.get("retryAfterSeconds", 0),
    )
