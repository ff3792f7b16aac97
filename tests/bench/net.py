"""What services and DNS cost: rules for many services, one changed among them, DNS answers.

The kernel's part runs only as root, and puts this process into a network namespace of its own.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

from tests.bench.figures import Figure, median

from steersman.cluster.net.dns.records import records_of_service
from steersman.cluster.net.dns.wire import A, encode_answer, parse_query
from steersman.cluster.net.dns.zone import Zone
from steersman.cluster.net.rules import Frame, RuleSet, diff, frame_commands, rule_set
from steersman.cluster.net.services import Backend, ServicePort
from steersman.runtime.nftables import Nftables, unavailable

FRAME = Frame(table="steersman-bench", pod_cidr="10.244.0.0/16", service_cidr="10.96.0.0/16")
SERVICES, CHANGES, ANSWERS = 1000, 15, 10_000
_CLONE_NEWNET = 0x40000000


def port(index: int) -> ServicePort:
    backends = tuple(Backend(f"10.244.{index // 250}.{number}", 8080) for number in range(1, 4))
    address = f"10.96.{index // 250}.{index % 250 + 1}"
    return ServicePort(
        namespace="bench", name=f"s{index}", port_name="web", protocol="TCP", cluster_ip=address, port=80,
        node_port=20000 + index, cluster=backends,
    )  # fmt: skip


async def rules(count: int) -> list[Figure]:
    ports = [port(index) for index in range(count)]
    start = time.perf_counter()
    held = rule_set(ports, FRAME)
    script = diff(RuleSet(), held, FRAME.table)
    found = [Figure("net.rules_decided", 1000 * (time.perf_counter() - start), "ms")]
    reason = "not root" if os.geteuid() else ""
    if not reason and ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        reason = "no network namespace"
    if reason := reason or await unavailable():
        print(f"net: no rules in the kernel: {reason}", file=sys.stderr)
        return found
    nft = Nftables()
    await nft.start()
    start = time.perf_counter()
    await nft.apply([*frame_commands(FRAME), *script])
    found.append(Figure("net.kernel_all", 1000 * (time.perf_counter() - start), "ms"))
    times = []
    for step in range(CHANGES):
        at = step % count
        ports[at] = replace(ports[at], cluster=(Backend(f"10.245.0.{step + 1}", 8080), *ports[at].cluster[:2]))
        start = time.perf_counter()
        wanted = rule_set(ports, FRAME)
        await nft.apply(diff(held, wanted, FRAME.table))
        times.append(1000 * (time.perf_counter() - start))
        held = wanted
    found.append(median("net.kernel_one_changed", times, "ms"))
    await nft.remove_table(FRAME.table)
    await nft.stop()
    return found


def answers(count: int) -> Iterator[Figure]:
    zone = Zone("cluster.local")
    for index in range(count):
        meta = {"name": f"s{index}", "namespace": "bench"}
        service = {"metadata": meta, "spec": {"clusterIP": port(index).cluster_ip, "ports": []}}
        zone.set_service(f"bench/s{index}", records_of_service(service, (), "cluster.local"))
    for case, name in (
        ("dns_service", "s7.bench.svc.cluster.local"),
        ("dns_no_such_name", "x.bench.svc.cluster.local"),
    ):
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        data = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", A, 1)
        rates = []
        for _ in range(3):
            start = time.perf_counter()
            for turn in range(ANSWERS):
                query = parse_query(data)
                reply = zone.answer(query, turn)
                assert reply is not None
                encode_answer(query, reply.code, reply.answers, reply.authority)
            rates.append(ANSWERS / (time.perf_counter() - start))
        yield median(f"net.{case}", rates, "1/s")


def run() -> Iterator[Figure]:
    yield from answers(SERVICES)
    yield from asyncio.run(rules(SERVICES))
