"""Tokens in Secrets that nobody uses: which are marked, which go, and which stay."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.auth.legacytokens import Step, is_tracked, step_of

NOW = 1_800_000_000.0  # 2027-01-15
ACCOUNT = {"metadata": {"name": "robot"}, "secrets": [{"name": "robot-token"}]}
OLD = "2025-06-01T00:00:00Z"


def secret(labels: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    meta = {"name": "robot-token", "creationTimestamp": OLD, "labels": labels or {}, **more.pop("metadata", {})}
    return {"type": "kubernetes.io/service-account-token", **more, "metadata": meta}


def used(day: str, **labels: str) -> dict[str, str]:
    return {"kubernetes.io/legacy-token-last-used": day, **labels}


def invalid(day: str) -> dict[str, str]:
    return {"kubernetes.io/legacy-token-invalid-since": day}


@pytest.mark.parametrize(
    ("found", "account", "is_mounted", "step"),
    [
        (secret(), ACCOUNT, False, Step.MARK),
        (secret(used("2025-12-01")), ACCOUNT, False, Step.MARK),
        (secret(used("2026-02-01")), ACCOUNT, False, None),
        (secret(used("yesterday")), ACCOUNT, False, None),
        (secret(type="Opaque"), ACCOUNT, False, None),
        (secret(metadata={"creationTimestamp": "2026-06-01T00:00:00Z"}), ACCOUNT, False, None),
        (secret(metadata={"deletionTimestamp": OLD}), ACCOUNT, False, None),
        (secret(), None, False, None),
        (secret(), {"metadata": {"name": "robot"}}, False, None),  # a user made it
        (secret(), ACCOUNT, True, None),
        (secret(invalid("2025-12-01")), ACCOUNT, False, Step.REMOVE),
        (secret(invalid("2026-12-01")), ACCOUNT, False, None),
        (secret(invalid("long ago")), ACCOUNT, False, Step.MARK),
        (secret(used("2026-02-01", **invalid("2025-12-01"))), ACCOUNT, False, None),  # somebody still tries
    ],
)
def test_what_nobody_has_used_for_a_year_is_marked_and_goes_after_another(
    found: Any, account: Any, is_mounted: bool, step: Step | None
) -> None:
    assert step_of(found, account, lambda: is_mounted, NOW) is step


@pytest.mark.parametrize(
    ("tracking", "known"),
    [
        (None, False),
        ({"data": {"since": "soon"}}, False),
        ({"data": {"since": "2026-01-15"}}, False),  # the day itself may not be whole
        ({"data": {"since": "2026-01-14"}}, True),
    ],
)
def test_nothing_is_concluded_before_uses_have_been_written_down_for_a_year(tracking: Any, known: bool) -> None:
    assert is_tracked(tracking, NOW) is known
