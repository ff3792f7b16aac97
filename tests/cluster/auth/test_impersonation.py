"""Acting as somebody else: who is meant, the constrained ways and the way of old, and what a refusal names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from steersman.cluster.auth.attributes import Attributes, Verdict
from steersman.cluster.auth.impersonation import Refused, act_as, wanted_identity

LIST = Attributes("list", version="v1", resource="pods", namespace="a")
ROBOT = "system:serviceaccount:default:robot"
ON_NODE = {"authentication.kubernetes.io/node-name": ("n1",)}


def text_of(row: Attributes) -> str:
    parts = (row.group, row.resource + (f"/{row.subresource}" if row.subresource else ""), row.namespace, row.name)
    return " ".join((row.verb, *filter(None, parts)))


def acting(headers: Any, *rights: str, extra: Any = None, constrained: bool = True) -> tuple[Any, str, list[str]]:
    """The identity, its constraint and what was asked for, of a robot who has these rights."""
    asked: list[str] = []
    shown_extra: list[Any] = []

    def judge(row: Attributes, shown: Mapping[str, Any] | None) -> Verdict:
        asked.append(text_of(row))
        shown_extra.append(shown)
        return Verdict(text_of(row) in rights, "" if text_of(row) in rights else "no role")

    wanted = wanted_identity({f"impersonate-{key}": value for key, value in headers.items()})
    assert wanted is not None
    found, constraint = act_as(wanted, LIST, ROBOT, extra or {}, judge, constrained=constrained)
    return found, constraint, asked


def test_the_way_of_old_asks_for_every_part() -> None:
    headers = {"user": "jane", "group": "cn=devs,dc=org\nops", "uid": "7", "extra-example.com%2fa": "x\ny"}
    rights = (
        "impersonate users jane", "impersonate authentication.k8s.io uids 7", "impersonate groups cn=devs,dc=org",
        "impersonate groups ops", "impersonate authentication.k8s.io userextras/example.com/a x",
        "impersonate authentication.k8s.io userextras/example.com/a y",
    )  # fmt: skip
    found, constraint, asked = acting(headers, *rights, constrained=False)
    assert tuple(asked) == rights and not constraint
    assert (found.name, found.uid, found.extra) == ("jane", "7", (("example.com/a", ("x", "y")),))
    assert found.groups == ("cn=devs,dc=org", "ops", "system:authenticated")
    for missing in rights:
        with pytest.raises(Refused) as caught:
            acting(headers, *(right for right in rights if right != missing), constrained=False)
        assert text_of(caught.value.attributes) == missing


def test_of_a_name_that_comes_twice_the_first_counts_and_keys_are_decoded_where_they_are_encoded() -> None:
    headers = {"user": "jane\nroot", "uid": "1\n2", "extra-foo%41%2fb": "x\ny", "extra-a%zz%20": "z"}
    found = wanted_identity({f"impersonate-{key}": value for key, value in headers.items()})
    assert found is not None and (found.name, found.uid) == ("jane", "1")
    assert dict(found.extra) == {"fooA/b": ("x", "y"), "a%zz%20": ("z",)}


@pytest.mark.parametrize(
    ("user", "groups"),
    [
        ("system:serviceaccount:a:b", ("system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated")),
        ("system:anonymous", ("system:unauthenticated",)),
        ("jane", ("system:authenticated",)),
    ],
)
def test_groups_that_follow_from_a_name_are_added(user: str, groups: tuple[str, ...]) -> None:
    right = "impersonate serviceaccounts a b" if "serviceaccount" in user else f"impersonate users {user}"
    assert acting({"user": user}, right, constrained=False)[0].groups == groups


GROUP = "authentication.k8s.io"


@pytest.mark.parametrize(
    ("headers", "extra", "rights", "constraint"),
    [
        (
            {"user": "system:node:n1"}, ON_NODE,
            ("impersonate-on:associated-node:list pods a", f"impersonate:associated-node {GROUP} nodes *"),
            "impersonate:associated-node",
        ),
        (
            {"user": "system:node:n2"}, ON_NODE,
            ("impersonate-on:arbitrary-node:list pods a", f"impersonate:arbitrary-node {GROUP} nodes n2"),
            "impersonate:arbitrary-node",
        ),
        (
            {"user": "system:serviceaccount:a:b"}, {},
            ("impersonate-on:serviceaccount:list pods a", f"impersonate:serviceaccount {GROUP} serviceaccounts a b"),
            "impersonate:serviceaccount",
        ),
        (
            {"user": "jane", "group": "devs"}, {},
            ("impersonate-on:user-info:list pods a", f"impersonate:user-info {GROUP} users jane",
             f"impersonate:user-info {GROUP} groups devs"),
            "impersonate:user-info",
        ),
        (
            {"user": "jane", "group": "a\nb\nc\nd"}, {},
            ("impersonate-on:user-info:list pods a", f"impersonate:user-info {GROUP} users jane",
             f"impersonate:user-info {GROUP} groups *"),
            "impersonate:user-info",
        ),
    ],
)  # fmt: skip
def test_a_constrained_way_is_taken_where_it_is_allowed(
    headers: Any, extra: Any, rights: tuple[str, ...], constraint: str
) -> None:
    found, by, asked = acting(headers, *rights, extra=extra)
    assert by == constraint and tuple(asked[-len(rights) :]) == rights
    if "node" in constraint:
        assert found.groups == ("system:nodes", "system:authenticated")
    with pytest.raises(Refused) as caught:
        acting(headers, *rights[1:], extra=extra)
    assert text_of(caught.value.attributes).startswith("impersonate-on:") and caught.value.detail == "no role"


def test_the_way_of_old_goes_on_where_no_constrained_one_is_allowed() -> None:
    _, constraint, asked = acting({"user": "jane"}, "impersonate users jane")
    assert not constraint and asked == ["impersonate-on:user-info:list pods a", "impersonate users jane"]


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({"group": "system:masters"}, "impersonating the system:masters group is not allowed"),
        ({"group": "devs\n"}, "impersonating the empty string group is not allowed"),
        ({"extra-scopes": "a"}, "impersonating an invalid key in extra is not allowed"),
        ({"extra-a.b%2fc": ""}, "impersonating the empty string value in extra is not allowed"),
    ],
)
def test_what_is_never_allowed_in_a_constrained_way(headers: Any, detail: str) -> None:
    rights = ("impersonate-on:user-info:list pods a", f"impersonate:user-info {GROUP} users jane")
    with pytest.raises(Refused) as caught:
        acting({"user": "jane", **headers}, *rights)
    assert detail in caught.value.detail


def test_nobody_is_meant_without_a_user() -> None:
    assert wanted_identity({"accept": "x"}) is None
    with pytest.raises(ValueError) as caught:
        wanted_identity({"impersonate-group": "devs"})
    assert str(caught.value) == (
        'requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"devs"}, Extra:map[string][]string(nil)} '
        "without impersonating a user name"
    )
