"""What is wrong with an access review, and how the status of a token's review is written."""

from __future__ import annotations

import pytest

from steersman.cluster.auth import reviews
from steersman.cluster.auth.tokens import Identity
from steersman.cluster.meta.objects import Obj

SPEC: Obj = {"user": "jane", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "a"}}


@pytest.mark.parametrize(
    ("metadata", "local", "expected"),
    [
        ({}, False, []),
        ({"creationTimestamp": None}, False, []),
        ({"name": "x"}, False, ['metadata: Invalid value: {"name":"x"}: must be empty']),
        ({"namespace": "a"}, True, []),
        (
            {"namespace": "a", "labels": {"a": "b"}},
            True,
            ['metadata: Invalid value: {"namespace":"a","labels":{"a":"b"}}: must be empty except for namespace'],
        ),
    ],
)
def test_an_access_review_has_no_metadata(metadata: Obj, local: bool, expected: list[str]) -> None:
    causes = reviews.access_causes(SPEC, metadata, of_self=False, local=local, namespace="a")
    assert [f"{cause.field}: {cause.message}" for cause in causes] == expected


def test_the_review_of_a_token_leaves_out_what_is_empty() -> None:
    assert reviews.token_status(None, (), "no") == {"user": {}, "error": "no"}
    assert reviews.token_status(Identity(name="jane", groups=()), ()) == {
        "authenticated": True,
        "user": {"username": "jane"},
    }
