"""DNS answers about services, and their bytes."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.cluster.net.dns.records import records_of_service
from steersman.cluster.net.dns.wire import (
    AAAA,
    CNAME,
    FORMERR,
    NOERROR,
    NS,
    NXDOMAIN,
    PTR,
    SOA,
    SRV,
    TXT,
    A,
    Query,
    WireError,
    answer_addresses,
    encode_answer,
    encode_error,
    parse_query,
)
from steersman.cluster.net.dns.zone import Zone


def question(name: str, kind: int = A, *, number: int = 7, edns: int = 0) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    opt = b"\0" + struct.pack("!HHIH", 41, edns, 0, 0) if edns else b""
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, bool(opt)) + labels + b"\0" + struct.pack("!2H", kind, 1) + opt


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


@pytest.fixture
def zone() -> Zone:
    zone = Zone("cluster.local")
    zone.set_namespace("default", True)
    zone.set_namespace("empty", True)
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    slices = [
        {
            "addressType": "IPv4",
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.244.0.5"], "hostname": "db-0", "conditions": {"ready": True}},
                {"addresses": ["10.244.0.6"], "conditions": {"ready": True}},
                {"addresses": ["10.244.0.7"], "hostname": "db-2", "conditions": {"ready": False}},
            ],
        }
    ]
    for obj, rows in (
        (service("web", clusterIP="10.96.0.20", ports=ports), []),
        (service("db", clusterIP="None"), slices),
        (service("alias", type="ExternalName", externalName="www.example.com"), []),
        (service("inner", type="ExternalName", externalName="web.default.svc.cluster.local."), []),
    ):
        zone.set_service(f"default/{obj['metadata']['name']}", records_of_service(obj, rows, "cluster.local"))
    return zone


def ask(zone: Zone, name: str, kind: int = A) -> tuple[int, list[Any]]:
    reply = zone.answer(parse_query(question(name, kind)))
    assert reply is not None, f"{name} is handed on"
    return reply.code, [record.value for record in reply.answers]


DB = "db.default.svc.cluster.local"


@pytest.mark.parametrize(
    ("name", "kind", "code", "values"),
    [
        ("web.default.svc.cluster.local", A, NOERROR, ["10.96.0.20"]),
        ("WEB.Default.svc.CLUSTER.local", A, NOERROR, ["10.96.0.20"]),
        ("web.default.svc.cluster.local", AAAA, NOERROR, []),
        ("_http._tcp.web.default.svc.cluster.local", SRV, NOERROR, [(0, 100, 80, "web.default.svc.cluster.local")]),
        ("_tcp.web.default.svc.cluster.local", SRV, NOERROR, []),
        ("_none._tcp.web.default.svc.cluster.local", SRV, NXDOMAIN, []),
        (DB, A, NOERROR, ["10.244.0.5", "10.244.0.6"]),
        (f"db-0.{DB}", A, NOERROR, ["10.244.0.5"]),
        (f"10-244-0-6.{DB}", A, NOERROR, ["10.244.0.6"]),
        (f"db-2.{DB}", A, NXDOMAIN, []),
        (f"_sql._tcp.{DB}", SRV, NOERROR, [(0, 100, 5432, f"db-0.{DB}"), (0, 100, 5432, f"10-244-0-6.{DB}")]),
        ("inner.default.svc.cluster.local", A, NOERROR, ["web.default.svc.cluster.local", "10.96.0.20"]),
        ("alias.default.svc.cluster.local", CNAME, NOERROR, ["www.example.com"]),
        ("20.0.96.10.in-addr.arpa", PTR, NOERROR, ["web.default.svc.cluster.local"]),
        ("5.0.244.10.in-addr.arpa", PTR, NOERROR, [f"db-0.{DB}"]),
        ("10-244-0-9.default.pod.cluster.local", A, NOERROR, ["10.244.0.9"]),
        ("10-244-0-9.nowhere.pod.cluster.local", A, NXDOMAIN, []),
        ("none.default.svc.cluster.local", A, NXDOMAIN, []),
        ("web.nowhere.svc.cluster.local", A, NXDOMAIN, []),
        ("default.svc.cluster.local", A, NOERROR, []),
        ("empty.svc.cluster.local", A, NOERROR, []),
        ("svc.cluster.local", A, NOERROR, []),
        ("dns-version.cluster.local", TXT, NOERROR, ["1.1.0"]),
        ("cluster.local", NS, NOERROR, ["ns.dns.cluster.local"]),
        ("www.example.com.default.svc.cluster.local", A, NXDOMAIN, []),
        ("web.default.svc.cluster.local.svc.cluster.local", A, NXDOMAIN, []),
    ],
)
def test_the_zone_answers_as_the_specification_says(
    zone: Zone, name: str, kind: int, code: int, values: list[Any]
) -> None:
    found = ask(zone, name, kind)
    assert found[0] == code
    assert found[1] == [*values[-1:], *values[:-1]] or found[1] == values


@pytest.mark.parametrize("name", ["example.com", "local", "notcluster.local", "1.0.0.127.in-addr.arpa"])
def test_other_names_are_handed_on(zone: Zone, name: str) -> None:
    assert zone.answer(parse_query(question(name))) is None


def test_an_alias_that_leads_outside_says_what_to_ask_there(zone: Zone) -> None:
    reply = zone.answer(parse_query(question("alias.default.svc.cluster.local")))
    assert reply is not None
    assert (reply.chase, [record.type for record in reply.answers]) == ("www.example.com", [CNAME])


def test_a_missing_name_may_be_remembered_for_a_short_time_only(zone: Zone) -> None:
    reply = zone.answer(parse_query(question("none.default.svc.cluster.local")))
    assert reply is not None
    assert [(record.type, record.name, record.ttl_s) for record in reply.authority] == [(SOA, "cluster.local", 5)]


def test_a_service_that_is_gone_leaves_nothing(zone: Zone) -> None:
    for name in ("web", "db", "alias", "inner"):
        zone.set_service(f"default/{name}", [])
    assert ask(zone, "web.default.svc.cluster.local") == (NXDOMAIN, [])
    assert ask(zone, "_tcp.web.default.svc.cluster.local", SRV)[0] == NXDOMAIN
    assert zone.answer(parse_query(question("20.0.96.10.in-addr.arpa", PTR))) is None


def test_addresses_take_turns_in_being_first(zone: Zone) -> None:
    firsts = set()
    for turn in range(4):
        reply = zone.answer(parse_query(question(DB)), turn)
        assert reply is not None
        firsts.add(reply.answers[0].value)
    assert firsts == {"10.244.0.5", "10.244.0.6"}


def test_an_answer_repeats_the_question_as_it_was_written(zone: Zone) -> None:
    data = question("wEb.default.svc.cluster.local")
    query = parse_query(data)
    reply = zone.answer(query)
    assert reply is not None
    message = encode_answer(query, reply.code, reply.answers)
    number, flags, questions, answers, _, _ = struct.unpack_from("!6H", message)
    assert (number, questions, answers) == (7, 1, 1)
    assert flags & 0x8580 == 0x8580, "a response, authoritative, with recursion asked for and there"
    assert message[12 : len(data)] == data[12:]
    assert [record.value for record in answer_addresses(message)] == ["10.96.0.20"]


def test_what_does_not_fit_is_truncated_by_udp_and_whole_by_tcp() -> None:
    zone = Zone("cluster.local")
    rows = [{"addresses": [f"10.244.1.{i}"], "conditions": {"ready": True}} for i in range(200)]
    zone.set_service(
        "default/big", records_of_service(service("big", clusterIP="None"), [{"endpoints": rows}], "cluster.local")
    )
    for data, tcp, whole in (
        (question("big.default.svc.cluster.local"), False, False),
        (question("big.default.svc.cluster.local", edns=4096), False, False),
        (question("big.default.svc.cluster.local"), True, True),
    ):
        query = parse_query(data, tcp=tcp)
        reply = zone.answer(query)
        assert reply is not None
        message = encode_answer(query, reply.code, reply.answers)
        assert len(message) <= query.size_bytes_max
        assert bool(struct.unpack_from("!H", message, 2)[0] & 0x0200) is not whole
        assert (len(answer_addresses(message)) == 200) is whole


@given(st.binary(max_size=80))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    try:
        query = parse_query(data)
    except WireError as error:
        if error.message_id is not None:
            assert encode_error(error.message_id, FORMERR)[:2] == data[:2]
    else:
        assert isinstance(query, Query)
        assert encode_answer(query, NXDOMAIN)[12 : 12 + len(query.question)] == query.question


@given(st.binary(max_size=200))
def test_no_answer_from_elsewhere_breaks_the_reader(data: bytes) -> None:
    with contextlib.suppress(WireError, IndexError, struct.error):
        assert isinstance(answer_addresses(data), list)
