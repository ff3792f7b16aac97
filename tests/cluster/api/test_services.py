from __future__ import annotations

from typing import Any

import pytest

from steersman.cluster.api.context import ApiSettings
from steersman.cluster.meta.errors import InternalError, Invalid
from steersman.cluster.meta.resources import IP_ADDRESSES


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


def test_a_service_is_filled_in_as_kubernetes_does(api: Any) -> None:
    spec = api.create("services", service())["spec"]
    address = spec.pop("clusterIP")
    assert address.startswith("10.96.")
    assert spec == {
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "sessionAffinity": "None",
        "type": "ClusterIP",
        "internalTrafficPolicy": "Cluster",
        "clusterIPs": [address],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
    }


def test_no_address_or_node_port_is_given_twice(api: Any) -> None:
    settings = ApiSettings(service_cidr="10.0.0.0/28", node_port_range=(30000, 30009))
    found = [api.create("services", service(f"s{i}", type="NodePort"), settings=settings)["spec"] for i in range(10)]
    assert len({spec["clusterIP"] for spec in found}) == 10
    assert sorted(spec["ports"][0]["nodePort"] for spec in found) == list(range(30000, 30010))
    api.delete("services", "s3")
    again = api.create("services", service("again", type="NodePort"), settings=settings)["spec"]
    assert again["ports"][0]["nodePort"] == found[3]["ports"][0]["nodePort"]
    assert len(api.reserved) == 20


def test_a_wanted_address_or_port_is_given_or_refused(api: Any) -> None:
    found = api.create("services", service(clusterIP="10.96.0.10", type="NodePort"))
    assert found["spec"]["clusterIPs"] == ["10.96.0.10"]
    with pytest.raises(Invalid, match="provided IP is already allocated"):
        api.create("services", service("b", clusterIP="10.96.0.10"))
    with pytest.raises(Invalid, match="does not match the current range"):
        api.create("services", service("b", clusterIP="192.168.0.1"))
    port = found["spec"]["ports"][0]["nodePort"]
    with pytest.raises(Invalid, match="provided port is already allocated"):
        api.create("services", service("b", type="NodePort", ports=[{"port": 80, "nodePort": port}]))
    with pytest.raises(Invalid, match=r"not in the valid range\. The range of valid ports is 30000-32767"):
        api.create("services", service("b", type="NodePort", ports=[{"port": 80, "nodePort": 80}]))


def test_an_address_has_an_object_as_long_as_its_service_has_it(api: Any) -> None:
    spec = api.create("services", service())["spec"]
    found = api.get("ipaddresses", spec["clusterIP"])
    assert found["metadata"]["labels"] == {
        "ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    }  # fmt: skip
    assert found["spec"] == {"parentRef": {"group": "", "resource": "services", "namespace": "default", "name": "web"}}
    assert found["metadata"]["uid"] and found["metadata"]["managedFields"][0]["operation"] == "Update"
    with pytest.raises(Invalid, match="already allocated"):
        api.create("services", service("b", clusterIP=spec["clusterIP"]))
    api.patch("services", "web", {"metadata": {"finalizers": ["example.com/a"]}})
    api.delete("services", "web")
    assert api.list(IP_ADDRESSES, None)
    api.patch("services", "web", {"metadata": {"finalizers": None}})
    assert not api.list(IP_ADDRESSES, None)
    assert not api.reserved


def test_an_address_that_something_else_has_is_not_given(api: Any) -> None:
    gateway = {"group": "example.com", "resource": "gateways", "name": "g"}
    api.create("ipaddresses", {"metadata": {"name": "10.96.0.9"}, "spec": {"parentRef": gateway}})
    with pytest.raises(Invalid, match="already allocated"):
        api.create("services", service(clusterIP="10.96.0.9"))


def test_addresses_come_from_every_range_that_is_ready(api: Any) -> None:
    def add(name: str, cidr: str) -> None:
        api.create("servicecidrs", {"metadata": {"name": name}, "spec": {"cidrs": [cidr]}})

    add("kubernetes", "10.0.0.0/30")
    add("more", "10.1.0.0/30")
    add("six", "fd00::/64")
    found = {api.create("services", service(f"s{i}"))["spec"]["clusterIP"] for i in range(4)}
    assert found == {"10.0.0.1", "10.0.0.2", "10.1.0.1", "10.1.0.2"}
    with pytest.raises(InternalError, match="range is full"):
        api.create("services", service("s4"))
    add("last", "10.2.0.0/28")
    row = {"type": "Ready", "status": "False", "reason": "Terminating", "message": ""}
    api.patch("servicecidrs", "last", {"status": {"conditions": [row]}}, subresource="status")
    with pytest.raises(InternalError, match="range is full"):
        api.create("services", service("s4"))
    with pytest.raises(Invalid, match="does not match the current range"):
        api.create("services", service("s4", clusterIP="10.2.0.5"))


def test_the_first_addresses_are_given_last(api: Any) -> None:
    settings = ApiSettings(service_cidr="10.0.0.0/27")
    found = [api.create("services", service(f"s{i}"), settings=settings)["spec"]["clusterIP"] for i in range(30)]
    last = [int(ip.rpartition(".")[2]) for ip in found]
    assert sorted(last[:14]) == list(range(17, 31))
    assert sorted(last[14:]) == list(range(1, 17))


def test_headless_and_external_services_reserve_nothing(api: Any) -> None:
    headless = api.create("services", service("h", clusterIP="None"))["spec"]
    assert headless["clusterIPs"] == ["None"]
    external = api.create(
        "services", {"metadata": {"name": "e"}, "spec": {"type": "ExternalName", "externalName": "a.b"}}
    )
    assert "clusterIP" not in external["spec"]
    assert not api.reserved


def test_changing_the_type_takes_and_gives_back(api: Any) -> None:
    before = api.create("services", service())["spec"]
    after = api.patch("services", "web", {"spec": {"type": "NodePort"}})["spec"]
    assert (after["clusterIP"], len(api.reserved)) == (before["clusterIP"], 2)
    assert after["externalTrafficPolicy"] == "Cluster"
    after = api.patch("services", "web", {"spec": {"type": "ClusterIP"}})["spec"]
    assert "nodePort" not in after["ports"][0]
    assert "externalTrafficPolicy" not in after
    assert len(api.reserved) == 1
    api.patch("services", "web", {"spec": {"type": "ExternalName", "externalName": "a.b"}})
    assert not api.reserved


def test_a_replaced_service_keeps_its_address_and_port(api: Any) -> None:
    before = api.create("services", service(type="NodePort"))
    sent = {"metadata": {"name": "web", "namespace": "default"}, "spec": service(type="NodePort")["spec"]}
    after = api.update("services", api.decode("services", sent))
    assert after["spec"] == before["spec"]
    with pytest.raises(Invalid, match="may not change once set"):
        api.patch("services", "web", {"spec": {"clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9"]}})


@pytest.mark.parametrize(
    ("spec", "field", "detail"),
    [
        ({"ports": []}, "spec.ports", "Required value"),
        ({"ports": [{"port": 0}]}, "spec.ports[0].port", "must be between 1 and 65535, inclusive"),
        ({"ports": [{"port": 80}, {"port": 81}]}, "spec.ports[0].name", "Required value"),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}, "spec.ports[1]", "Duplicate value"),
        ({"ports": [{"port": 80, "protocol": "ICMP"}]}, "spec.ports[0].protocol", '"SCTP", "TCP", "UDP"'),
        ({"ports": [{"port": 80, "nodePort": 30000}]}, "spec.ports[0].nodePort", "may not be used when `type` is"),
        ({"type": "Magic"}, "spec.type", "Unsupported value"),
        ({"type": "ExternalName"}, "spec.externalName", "Required value"),
        ({"sessionAffinity": "Cookie"}, "spec.sessionAffinity", "Unsupported value"),
        ({"clusterIP": "1.2.3"}, "spec.clusterIPs[0]", "must be a valid IP address"),
        ({"selector": {"a": "b c"}}, "spec.selector", "a valid label must be"),
        ({"internalTrafficPolicy": "Never"}, "spec.internalTrafficPolicy", "Unsupported value"),
    ],
)  # fmt: skip
def test_a_broken_service_is_refused_field_by_field(api: Any, spec: Any, field: str, detail: str) -> None:
    with pytest.raises(Invalid) as refused:
        api.create("services", service(**spec))
    assert any(cause.field == field and detail in cause.message for cause in refused.value.causes), refused.value.causes
