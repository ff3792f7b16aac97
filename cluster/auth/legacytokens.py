"""What becomes of service account tokens that are kept in Secrets and that nobody uses: marked, and later removed.

Only of Secrets that were made for an account in former times, that no pod mounts, and that have not been used for a
year. Refuses to know where they are kept.

Source: k8s.io/kubernetes/pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from steersman.cluster.auth.tokens import INVALID_SINCE, LAST_USED, LEGACY_TYPE, day_of
from steersman.cluster.meta.objects import Obj
from steersman.cluster.meta.times import parse_time

#: a token that has not been used for so long is given up, and removed so long after
CLEAN_UP_S = 365 * 86_400
_DAY_S = 86_400
ACCOUNT_NAME, ACCOUNT_UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"


class Step(Enum):
    """What to do with a Secret."""

    MARK = "mark"
    REMOVE = "remove"


def is_tracked(tracking: Obj | None, now: float) -> bool:
    """Whether the use of tokens has been written down for long enough to conclude anything from it.

    Args:
        tracking: the ConfigMap that says since when.
    """
    since = _day(((tracking or {}).get("data") or {}).get("since", ""))
    return since is not None and now >= since + _DAY_S + CLEAN_UP_S


def step_of(secret: Obj, account: Obj | None, is_mounted: Callable[[], bool], now: float) -> Step | None:
    """Returns what to do with a Secret; None to leave it.

    Args:
        account: that the Secret names; None if there is none by that name and uid.
        is_mounted: whether a pod of its namespace uses the Secret.
    """
    meta = secret["metadata"]
    labels, oldest = meta.get("labels") or {}, day_of(now - CLEAN_UP_S)
    if secret.get("type") != LEGACY_TYPE or "deletionTimestamp" in meta:
        return None
    if parse_time(meta["creationTimestamp"]) >= now - CLEAN_UP_S:
        return None
    used = labels.get(LAST_USED)
    if used is not None and (_day(used) is None or used >= oldest):
        return None
    if account is None or not is_made_for(secret, account) or is_mounted():
        return None
    since = labels.get(INVALID_SINCE, "")
    if _day(since) is None:
        return Step.MARK
    return Step.REMOVE if since < oldest else None


def is_made_for(secret: Obj, account: Obj) -> bool:
    """Whether a Secret was made by Kubernetes for an account, which names it then, rather than by a user."""
    return any(row.get("name") == secret["metadata"]["name"] for row in account.get("secrets") or ())


def marked(secret: Obj, now: float) -> Obj:
    """The Secret whose token is good no longer."""
    meta = secret["metadata"]
    return {**secret, "metadata": {**meta, "labels": {**(meta.get("labels") or {}), INVALID_SINCE: day_of(now)}}}


def _day(text: str) -> float | None:
    """The beginning of a day as `2026-01-31`; None for what is none."""
    try:
        return parse_time(f"{text}T00:00:00Z")
    except ValueError:
        return None
