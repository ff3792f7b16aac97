"""Namespaces that go, when not all servers can be asked what they hold."""

from __future__ import annotations

from typing import Any

from steersman.cluster.control.namespace import UNDISCOVERED_S, Observed, reconcile
from steersman.cluster.control.plan import DeleteCollection, Patch, Replace
from steersman.cluster.meta.resources import CONFIG_MAPS, PODS

NOW = 1000.0
SPACE = {
    "metadata": {"name": "n", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"finalizers": ["kubernetes"]},
}


def observed(*undiscovered: str, **remaining: Any) -> Observed:
    held = {PODS: ({"metadata": {"name": "p", "namespace": "n"}},)} if remaining else {}
    return Observed(namespace=SPACE, resources=(PODS, CONFIG_MAPS), remaining=held, undiscovered=undiscovered)


def test_a_namespace_stays_while_a_server_that_may_hold_something_of_it_is_away() -> None:
    plan = reconcile(observed("b.io/v1", "a.io/v1"), NOW)
    assert not [action for action in plan.actions if isinstance(action, Replace)]
    assert plan.requeue_after_s == UNDISCOVERED_S
    (patch,) = [action for action in plan.actions if isinstance(action, Patch)]
    row = next(row for row in patch.patch["status"]["conditions"] if row["type"].endswith("DiscoveryFailure"))
    assert (row["status"], row["reason"]) == ("True", "DiscoveryFailed")
    assert row["message"].startswith("Discovery failed for some groups, 2 failing: unable to retrieve the complete")


def test_what_is_known_of_it_is_deleted_all_the_same() -> None:
    plan = reconcile(observed("a.io/v1", pods=True), NOW)
    assert [action.resource for action in plan.actions if isinstance(action, DeleteCollection)] == [PODS]
    assert plan.requeue_after_s == UNDISCOVERED_S


def test_it_goes_when_everything_is_known_and_gone() -> None:
    assert [action.subresource for action in reconcile(observed(), NOW).actions if isinstance(action, Replace)] == [
        "finalize"
    ]
