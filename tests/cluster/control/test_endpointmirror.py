"""Endpoints that users keep are mirrored into slices, unless somebody else keeps them or forbids it."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.control.endpointmirror import Observed, is_mirrored, reconcile
from steersman.cluster.control.plan import Create, Delete, Patch


def endpoints(*subsets: Any, **meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": "db", "namespace": "d", "uid": "e", **meta}, "subsets": list(subsets)}


def subset(*ips: str, port: int = 80, part: str = "addresses") -> dict[str, Any]:
    return {part: [{"ip": ip} for ip in ips], "ports": [{"port": port, "protocol": "TCP"}]}


def mirrors(found: dict[str, Any], *slices: Any) -> list[Any]:
    return list(reconcile(Observed(endpoints=found, slices=slices), 0.0).actions)


@pytest.mark.parametrize(
    ("meta", "spec", "expected"),
    [
        ({}, {}, True),
        ({}, {"selector": {"a": "b"}}, False),
        ({"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}, {}, False),
        ({"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}, {}, False),
        ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, {}, False),
    ],
    ids=["of a user", "of a selector", "forbidden", "a leader's", "on its way out"],
)
def test_only_what_users_keep_is_mirrored(meta: Any, spec: Any, expected: bool) -> None:
    assert is_mirrored(endpoints(**meta), {"spec": spec}) is expected


def test_there_is_a_slice_for_each_family_and_set_of_ports() -> None:
    found = endpoints(
        subset("10.0.0.1", "fd00::1"), subset("10.0.0.2", part="notReadyAddresses"), subset("10.0.0.3", port=81),
        labels={"app": "db"}, annotations={"note": "1", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    )  # fmt: skip
    made = [action.obj for action in mirrors(found) if isinstance(action, Create)]
    rows = []
    for row in made:
        ends = [(end["addresses"][0], end["conditions"]["ready"]) for end in row["endpoints"]]
        rows.append((row["addressType"], row["ports"][0]["port"], ends))
    assert rows == [
        ("IPv4", 80, [("10.0.0.1", True), ("10.0.0.2", False)]), ("IPv6", 80, [("fd00::1", True)]),
        ("IPv4", 81, [("10.0.0.3", True)]),
    ]  # fmt: skip
    assert made[0]["metadata"]["annotations"] == {"note": "1"} and made[0]["metadata"]["labels"]["app"] == "db"


def test_a_mirror_follows_changes_and_goes_with_what_it_shows() -> None:
    found = endpoints(subset("10.0.0.1"))
    (creation,) = mirrors(found)
    made = {**creation.obj, "metadata": {**creation.obj["metadata"], "uid": "s"}}
    assert mirrors(found, made) == []
    (change,) = mirrors(endpoints(subset("10.0.0.9")), made)
    assert isinstance(change, Patch) and change.patch["endpoints"][0]["addresses"] == ["10.0.0.9"]
    (gone,) = mirrors(endpoints(), made)
    assert isinstance(gone, Delete)
    (gone,) = reconcile(Observed(endpoints=None, slices=(made,)), 0.0).actions
    assert isinstance(gone, Delete)
