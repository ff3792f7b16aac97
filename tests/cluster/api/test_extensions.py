"""What extension servers say that they serve."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api.apiservices import Availability, Order, built_in, custom, unreachable
from steersman.cluster.api.extensions import read_resources


def test_a_resource_list_is_read_as_rows_of_aggregated_discovery() -> None:
    rows = [
        {"name": "things/scale", "namespaced": True, "group": "autoscaling", "version": "v1", "kind": "Scale",
         "verbs": ["get"]},
        {"name": "things", "singularName": "thing", "namespaced": True, "kind": "Thing", "verbs": ["get", "list"]},
    ]  # fmt: skip
    (found,) = read_resources("g.io", "v1", {"kind": "APIResourceList", "resources": rows})
    assert found["responseKind"] == {"group": "g.io", "version": "v1", "kind": "Thing"}
    assert (found["scope"], found["verbs"], found["singularResource"]) == ("Namespaced", ["get", "list"], "thing")
    scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    assert found["subresources"] == [{"subresource": "scale", "verbs": ["get"], "responseKind": scale}]


@pytest.mark.parametrize("answer", [None, [], {}, {"kind": "Status"}], ids=str)
def test_what_is_no_resource_list_is_refused(answer: Any) -> None:
    with pytest.raises(ValueError, match="no APIResourceList"):
        read_resources("g.io", "v1", answer)


@pytest.mark.parametrize("row", [7, {}, {"name": 3}, {"name": "a/b/c"}, {"name": "x", "verbs": 3}], ids=str)
def test_rows_that_make_no_sense_do_no_harm(row: Any) -> None:
    found = read_resources("g.io", "v1", {"kind": "APIResourceList", "resources": [row]})
    assert [each["resource"] for each in found] == (["x"] if row == {"name": "x", "verbs": 3} else [])


def test_what_is_of_another_type_than_it_should_be_does_not_come_into_documents_that_everybody_reads() -> None:
    row = {"name": "pods", "singularName": 1, "kind": {"a": 1}, "group": ["x"], "version": 2, "verbs": {"a": 1}}
    more = {"shortNames": "po", "categories": [1, "", "all"], "namespaced": "yes"}
    found = read_resources("g.io", "v1", {"kind": "APIResourceList", "resources": [{**row, **more}]})
    assert found == (
        {
            "resource": "pods", "responseKind": {"group": "g.io", "version": "v1", "kind": ""}, "scope": "Namespaced",
            "verbs": [], "singularResource": "", "categories": ["all"],
        },
    )  # fmt: skip
    assert read_resources("g.io", "v1", {"kind": "APIResourceList", "resources": {"a": 1}}) == ()


def test_groups_and_versions_come_in_the_order_of_their_priorities() -> None:
    extra = {"spec": {"group": "z.io", "version": "v1", "groupPriorityMinimum": 19000, "versionPriority": 1}}
    order = Order([*built_in({("", "v1"), ("apps", "v1"), ("autoscaling", "v1"), ("autoscaling", "v2")}), extra])
    names = ["b.io", "apps", "a.io", "apiregistration.k8s.io", "z.io", ""]
    assert sorted(names, key=order.of_group) == ["", "apiregistration.k8s.io", "z.io", "apps", "a.io", "b.io"]
    assert sorted(["v1", "v2"], key=lambda version: order.of_version("autoscaling", version)) == ["v2", "v1"]
    assert sorted(["v1beta1", "v1", "v2"], key=lambda version: order.of_version("b.io", version))[0] == "v2"


def test_a_version_that_is_not_served_and_a_built_in_one_get_no_apiservice_from_a_definition() -> None:
    rows = [{"name": "v1", "served": True}, {"name": "v2", "served": False}]
    found = custom([{"spec": {"group": "g.io", "versions": rows}}, {"spec": {"group": "apps", "versions": rows}}])
    assert list(found) == ["v1.g.io"]


def test_a_service_that_is_no_cluster_ip_is_asked_whatever_its_endpoints_are() -> None:
    spec = {"service": {"namespace": "n", "name": "s", "port": 443}}
    assert unreachable(spec, {"spec": {"type": "ExternalName", "externalName": "example.com"}}, []) is None
    found = unreachable(spec, None, [])
    assert found == Availability("False", "ServiceNotFound", 'service/s in "n" is not present')
