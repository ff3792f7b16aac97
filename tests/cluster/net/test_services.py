"""Which endpoints a service port leads to, and the rules that follow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from steersman.cluster.net.balance import Balancer
from steersman.cluster.net.routes import routes
from steersman.cluster.net.rules import Frame, RuleSet, diff, frame_commands, rule_set, stale_flows
from steersman.cluster.net.services import Backend, ServicePort, ports_of_service

FRAME = Frame(table="t", pod_cidr="10.244.0.0/16", service_cidr="10.96.0.0/16")


def service(**spec: Any) -> dict[str, Any]:
    body = {"clusterIP": "10.96.0.9", "ports": [{"name": "web", "port": 80, "nodePort": 30080}], **spec}
    return {"metadata": {"name": "s", "namespace": "d"}, "spec": body}


def endpoint(ip: str, node: str = "here", hints: Any = None, **conditions: Any) -> dict[str, Any]:
    return {"addresses": [ip], "nodeName": node, "conditions": conditions, **({"hints": hints} if hints else {})}


def slices(*endpoints: dict[str, Any], port_name: str = "web") -> list[dict[str, Any]]:
    ports = [{"name": port_name, "port": 8080, "protocol": "TCP"}]
    return [{"addressType": "IPv4", "ports": ports, "endpoints": list(endpoints)}]


def compiled(*endpoints: dict[str, Any], zone: str = "", **spec: Any) -> ServicePort:
    (port,) = ports_of_service(service(**spec), slices(*endpoints), "here", zone)
    return port


def ips(backends: tuple[Backend, ...]) -> list[str]:
    return [backend.ip for backend in backends]


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        pytest.param([endpoint("1.1.1.1"), endpoint("1.1.1.2", ready=False)], ["1.1.1.1"], id="unknown means ready"),
        pytest.param(
            [endpoint("1.1.1.1", ready=False, serving=True, terminating=True), endpoint("1.1.1.2", ready=True)],
            ["1.1.1.2"],
            id="one that ends is left out",
        ),
        pytest.param(
            [
                endpoint("1.1.1.1", ready=False, serving=True, terminating=True),
                endpoint("1.1.1.2", ready=False, serving=False),
            ],
            ["1.1.1.1"],
            id="unless no other is left",
        ),
        pytest.param([endpoint("1.1.1.1", ready=False, serving=False)], [], id="none serves"),
    ],
)
def test_only_ready_endpoints_count_while_there_are_any(endpoints: list[dict[str, Any]], expected: list[str]) -> None:
    assert ips(compiled(*endpoints).cluster) == expected


def test_local_policies_keep_to_this_node() -> None:
    rows = [endpoint("1.1.1.1"), endpoint("1.1.1.2", node="there")]
    port = compiled(*rows, type="NodePort", internalTrafficPolicy="Local", externalTrafficPolicy="Local")
    assert (ips(port.internal), ips(port.external), ips(port.cluster)) == (
        ["1.1.1.1"],
        ["1.1.1.1"],
        ["1.1.1.1", "1.1.1.2"],
    )


def test_hints_for_nodes_and_zones_are_followed_only_when_complete() -> None:
    near = endpoint("1.1.1.1", hints={"forNodes": [{"name": "here"}]})
    far = endpoint("1.1.1.2", node="there", hints={"forNodes": [{"name": "there"}]})
    assert ips(compiled(near, far).cluster) == ["1.1.1.1"]
    assert ips(compiled(far).cluster) == ["1.1.1.2"]
    assert ips(compiled(near, endpoint("1.1.1.3")).cluster) == ["1.1.1.1", "1.1.1.3"]
    zoned = [endpoint(f"1.1.1.{i}", hints={"forZones": [{"name": z}]}) for i, z in ((1, "a"), (2, "b"))]
    assert ips(compiled(*zoned, zone="b").cluster) == ["1.1.1.2"]


@pytest.mark.parametrize(
    "spec",
    [{"clusterIP": "None"}, {"clusterIP": ""}, {"type": "ExternalName", "externalName": "x"}, {"clusterIP": "fd00::1"}],
)
def test_services_without_an_address_of_their_own_have_no_rules(spec: dict[str, Any]) -> None:
    assert ports_of_service(service(**spec), [], "here") == []


def test_ports_are_matched_by_name() -> None:
    (port,) = ports_of_service(service(), slices(endpoint("1.1.1.1"), port_name="other"), "here")
    assert port.cluster == ()


def port_with(*ips_: str, **more: Any) -> ServicePort:
    return replace(compiled(*(endpoint(ip) for ip in ips_), type="NodePort"), **more)


def test_a_change_of_one_service_touches_nothing_else() -> None:
    other = replace(port_with("2.2.2.2"), name="other", cluster_ip="10.96.0.8", node_port=30081)
    before, after = port_with("1.1.1.1", "1.1.1.2"), port_with("1.1.1.1", "1.1.1.3")
    commands = diff(rule_set([before, other], FRAME), rule_set([after, other], FRAME), "t")
    assert commands
    assert "other" not in "\n".join(commands)
    assert not any("element" in command for command in commands), "the addresses lead where they led"
    assert diff(rule_set([after, other], FRAME), rule_set([other, after], FRAME), "t") == []


def test_affinity_sets_of_endpoints_that_stay_are_kept() -> None:
    before, after = port_with("1.1.1.1", "1.1.1.2", affinity_s=60), port_with("1.1.1.1", affinity_s=60)
    text = "\n".join(diff(rule_set([before], FRAME), rule_set([after], FRAME), "t"))
    assert text.count("delete set") == 1
    assert "1.1.1.2" in next(line for line in text.splitlines() if line.startswith("delete set"))


def test_without_endpoints_it_refuses_and_without_local_ones_it_is_silent() -> None:
    empty = rule_set([port_with()], FRAME)
    assert set(empty.elements.values()) == {"goto refuse"}
    remote = ports_of_service(
        service(type="NodePort", internalTrafficPolicy="Local"), slices(endpoint("1.1.1.1", node="there")), "here"
    )
    elements = rule_set(remote, FRAME).elements
    assert elements["refused", "10.96.0.9 . tcp . 80"] == "drop"


def test_of_two_services_with_one_external_address_the_first_has_it() -> None:
    one = port_with("1.1.1.1", external_ips=("9.9.9.9",), node_port=0)
    two = replace(one, name="z", cluster_ip="10.96.0.10", cluster=())
    elements = rule_set([one, two], FRAME).elements
    assert "/s/" in elements["services", "9.9.9.9 . tcp . 80"]
    assert ("refused", "9.9.9.9 . tcp . 80") not in elements


def test_every_rule_leads_to_a_chain_that_exists() -> None:
    ports = [
        port_with("1.1.1.1", "1.1.1.2", affinity_s=60, external_local=True, load_balancer_ips=("7.7.7.7",)),
        replace(port_with(), name="empty", cluster_ip="10.96.0.11", node_port=0),
    ]
    rules = rule_set(ports, FRAME)
    known = {*rules.chains, "refuse", "as-own"}
    frame = [line.split()[4] for line in frame_commands(FRAME) if line.startswith("add chain")]
    assert {"refuse", "as-own"} <= set(frame)
    for text in (*rules.elements.values(), *(rule for chain in rules.chains.values() for rule in chain)):
        words = text.replace(",", " ").split()
        targets = [words[i + 1] for i, word in enumerate(words) if word in ("goto", "jump")]
        assert set(targets) <= known
    assert all(len(name) < 128 for name in rules.chains)
    assert diff(rules, RuleSet(), "t")[-1].startswith("delete set")


def test_udp_flows_to_endpoints_that_are_gone_are_named() -> None:
    before = port_with("1.1.1.1", "1.1.1.2", protocol="UDP")
    after = port_with("1.1.1.2", protocol="UDP")
    gone = {(front, backend.ip if backend else None) for front, backend in stale_flows([before], [after])}
    assert gone == {("10.96.0.9", "1.1.1.1"), ("", "1.1.1.1")}
    assert stale_flows([port_with(protocol="UDP")], [after]) == [("10.96.0.9", None)]
    assert stale_flows([port_with("1.1.1.1")], []) == []


def test_the_balancer_takes_turns_and_keeps_clients_while_their_time_lasts() -> None:
    one, two = Backend("1.1.1.1", 80), Backend("1.1.1.2", 80)
    balancer = Balancer()
    balancer.set((one, two), 0)
    assert [balancer.pick("c", 0.0)[0] for _ in range(4)] == [one, two, one, two]
    balancer.set((one, two), 10)
    balancer.used("c", two, 0.0)
    assert [balancer.pick("c", 1.0)[0] for _ in range(3)] == [two, two, two]
    assert {balancer.pick("c", 99.0)[0] for _ in range(2)} == {one, two}
    balancer.set((one,), 10)
    assert balancer.pick("c", 1.0) == [one]


def test_routes_lead_to_the_other_nodes_that_have_an_address_of_their_own() -> None:
    def node(name: str, cidr: str, address: str) -> dict[str, Any]:
        status = {"addresses": [{"type": "InternalIP", "address": address}]} if address else {}
        return {"metadata": {"name": name}, "spec": {"podCIDR": cidr}, "status": status}

    nodes = [
        node("me", "10.244.0.0/24", "192.168.0.1"),
        node("other", "10.244.1.0/24", "192.168.0.2"),
        node("same-host", "10.244.2.0/24", "192.168.0.1"),
        node("young", "", "192.168.0.4"),
        node("nowhere", "10.244.5.0/24", ""),
    ]
    assert routes(nodes, "me") == {"10.244.1.0/24": "192.168.0.2"}
