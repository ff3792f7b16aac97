"""Rules of the options of a pod's log, which come in the query.

Source: ValidatePodLogOptions in k8s.io/kubernetes/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from steersman.cluster.api.rules.fields import bad, forbidden
from steersman.cluster.meta.errors import Cause


def log_options(
    *, tail_lines: int | None, limit_bytes: int | None, since_s: int | None, since_time: float | None
) -> list[Cause]:
    causes: list[Cause] = []
    if tail_lines is not None and tail_lines < 0:
        causes.append(bad("tailLines", tail_lines, "must be greater than or equal to 0"))
    if limit_bytes is not None and limit_bytes < 1:
        causes.append(bad("limitBytes", limit_bytes, "must be greater than 0"))
    if since_s is not None and since_time is not None:
        causes.append(forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    elif since_s is not None and since_s < 1:
        causes.append(bad("sinceSeconds", since_s, "must be greater than 0"))
    return causes
