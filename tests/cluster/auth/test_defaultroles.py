"""Default roles: what one that exists gets of this version, and what is left alone."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.auth.defaultroles import AUTOUPDATE, LABELS, is_replaced, marked, of_controllers, reconciled

GET = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
LIST = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
ANY = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}


def role(*rules: Any, **meta: Any) -> Any:
    return {"kind": "ClusterRole", "metadata": {"name": "r", **meta}, "rules": list(rules)}


def binding(*users: str, name: str = "r", **meta: Any) -> Any:
    subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user} for user in users]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    return {"kind": "ClusterRoleBinding", "metadata": {"name": "b", **meta}, "roleRef": reference, "subjects": subjects}


KEPT = {"labels": LABELS, "annotations": {AUTOUPDATE: "true"}}


@pytest.mark.parametrize(
    ("present", "wanted", "rules"),
    [
        (role(GET, **KEPT), role(GET), None),
        (role(ANY, **KEPT), role(GET), None),
        (role(GET, **KEPT), role(GET, LIST), [GET, LIST]),
        (
            role(LIST, **KEPT),
            role({**GET, "verbs": ["get", "list", "watch"]}),
            [LIST, {**GET, "verbs": ["get", "watch"]}],
        ),
        (role(), role(GET), [GET]),
        (role(annotations={AUTOUPDATE: "false"}), role(GET), None),
    ],
)
def test_a_role_gets_the_rules_that_it_does_not_cover(present: Any, wanted: Any, rules: Any) -> None:
    found = reconciled(present, marked(wanted))
    assert (None if found is None else found["rules"]) == rules


def test_labels_and_annotations_that_are_missing_are_added_and_those_of_others_stay() -> None:
    found = reconciled(role(GET, labels={"mine": "1"}), marked(role(GET, labels={"theirs": "2"})))
    assert found is not None and found["metadata"]["labels"] == {"mine": "1", "theirs": "2", **LABELS}
    assert found["metadata"]["annotations"] == {AUTOUPDATE: "true"}


def test_a_binding_gets_the_subjects_that_it_lacks() -> None:
    found = reconciled(binding("jane", **KEPT), marked(binding("system:kube-proxy")))
    assert found is not None and [row["name"] for row in found["subjects"]] == ["jane", "system:kube-proxy"]
    assert reconciled(binding("jane", "a", **KEPT), marked(binding("a"))) is None


def test_a_binding_to_another_role_is_made_anew() -> None:
    assert is_replaced(binding("a", name="other"), binding("a"))
    assert not is_replaced(binding("a"), binding("a")) and not is_replaced(role(), role(GET))
    assert not is_replaced(binding("a", name="other", annotations={AUTOUPDATE: "false"}), binding("a"))


def test_an_aggregated_role_gets_the_selectors_that_it_lacks_and_keeps_its_rules() -> None:
    one, other = {"matchLabels": {"a": "1"}}, {"matchLabels": {"b": "1"}}
    present = {**role(GET, **KEPT), "aggregationRule": {"clusterRoleSelectors": [one]}}
    wanted = marked({**role(), "aggregationRule": {"clusterRoleSelectors": [other]}})
    found = reconciled(present, wanted)
    assert found is not None and found["aggregationRule"]["clusterRoleSelectors"] == [one, other]
    assert found["rules"] == [GET]


def test_the_role_of_a_controller_is_bound_to_its_service_account() -> None:
    made, bound = of_controllers({"job-controller": [GET]})
    assert (made["metadata"]["name"], made["rules"]) == ("system:controller:job-controller", [GET])
    assert bound["subjects"] == [{"kind": "ServiceAccount", "name": "job-controller", "namespace": "kube-system"}]
