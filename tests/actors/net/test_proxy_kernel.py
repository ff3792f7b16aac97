"""Services by kernel rules, between real network namespaces."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from collections import Counter
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

from steersman.actors.dns import Dns
from steersman.actors.proxy import Proxy

pytestmark = pytest.mark.root

SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
NODES = "/api/v1/nodes"
VIP, PORT = "10.96.0.50", 80


def service(ports: Any = None, **spec: Any) -> dict[str, Any]:
    rows = ports or [{"name": "web", "port": PORT, "protocol": "TCP"}]
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": {"clusterIP": VIP, "ports": rows, **spec}}


def endpoints(
    *addresses: str, node: str = "n", port: int = 8080, protocol: str = "TCP", name: str = "web"
) -> dict[str, Any]:
    rows = [{"addresses": [address], "conditions": {"ready": True}, "nodeName": node} for address in addresses]
    meta = {"name": f"web-{name}", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}}
    return {
        "metadata": meta,
        "addressType": "IPv4",
        "endpoints": rows,
        "ports": [{"name": name, "port": port, "protocol": protocol}],
    }


async def ask(address: str, port: int, source: str = "") -> str:
    """One request on a new connection; returns `POD CLIENT-ADDRESS`."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(address, port, local_addr=(source, 0) if source else None)
        writer.write(b"hello\n")
        answer = await reader.readline()
        writer.close()
        return answer.decode().strip()


def ask_udp(sock: socket.socket, address: str, port: int) -> str:
    sock.settimeout(3)
    sock.sendto(b"hello", (address, port))
    return sock.recv(100).decode()


class Rig:
    """A proxy in the lab's host, on objects that the test writes."""

    def __init__(self, lab: Any, api: Any, mode: Any = "auto") -> None:
        self.lab, self.api = lab, api
        self.proxy = Proxy(
            api.client(), node_name="n", cluster_name="lab", mode=mode, now=lambda: 1.8e9, rng=random.Random(0)
        )

    async def __aenter__(self) -> Rig:
        await self.api.put(NODES, {
            "metadata": {"name": "n"}, "spec": {"podCIDR": "10.244.0.0/24"},
            "status": {"addresses": [{"type": "InternalIP", "address": self.lab.HOST}]},
        })  # fmt: skip
        await self.proxy.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.proxy.stop()
        await self.proxy.purge()

    async def put(self, *objects: dict[str, Any]) -> None:
        for obj in objects:
            await self.api.put(SLICES if "endpoints" in obj else SERVICES, obj)

    async def elsewhere(self, space: str, work: Any) -> Any:
        return await asyncio.to_thread(self.lab.run, space, work)

    async def eventually(self, work: Any, expected: Any) -> None:
        async with asyncio.timeout(10):
            while (found := await work()) != expected:
                assert not self.proxy.problems, self.proxy.problems
                await asyncio.sleep(0.02)
        assert found == expected


async def outcome(address: str, port: int) -> str:
    try:
        return (await ask(address, port)).split()[0]
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return f"failed: {error}"


def test_cluster_ip_and_node_port_reach_the_endpoints_from_everywhere(lab: Any, api_factory: Any) -> None:
    lab.pod("one", "10.244.0.11")
    lab.pod("two", "10.244.0.12")

    async def main() -> None:
        async with Rig(lab, api_factory()) as rig:
            ports = [{"name": "web", "port": PORT, "nodePort": 30080}]
            await rig.put(service(ports, type="NodePort"), endpoints("10.244.0.11", "10.244.0.12"))
            await rig.eventually(lambda: outcome(VIP, PORT), "one")

            async def many(address: str, port: int) -> Counter[str]:
                return Counter([(await ask(address, port)).split()[0] for _ in range(40)])

            for where, address, port in (
                (lab.host, VIP, PORT),
                (lab.in_pod("one"), VIP, PORT),
                (lab.host, "127.0.0.1", 30080),
                (lab.host, lab.HOST, 30080),
                (lab.outside, lab.HOST, 30080),
                (lab.in_pod("two"), lab.HOST, 30080),
            ):
                found = await rig.elsewhere(where, lambda a=address, p=port: many(a, p))
                assert set(found) == {"one", "two"}, f"{where} {address}:{port}"
            hairpin = await rig.elsewhere(lab.in_pod("one"), lambda: _until_own("one"))
            assert hairpin.startswith("one ")
            assert await rig.elsewhere(lab.in_pod("one"), lambda: _seen_by("two")) == "10.244.0.11", (
                "a pod keeps its address"
            )

    lab.run(lab.host, main)


async def _until_own(name: str) -> str:
    for _ in range(50):
        answer = await ask(VIP, PORT)
        if answer.split()[0] == name:
            return answer
    return "never"


async def _seen_by(name: str) -> str:
    return (await _until_own(name)).split()[1]


def test_a_service_without_endpoints_refuses_at_once_and_comes_back(lab: Any, api_factory: Any) -> None:
    lab.pod("one", "10.244.0.11")

    async def main() -> None:
        async with Rig(lab, api_factory()) as rig:
            ports = [{"name": "web", "port": PORT, "nodePort": 30080}]
            await rig.put(service(ports, type="NodePort"), endpoints())
            await asyncio.wait_for(rig.proxy.synced.wait(), 10)
            assert await outcome(VIP, PORT) == "refused"
            assert await outcome(lab.HOST, 30080) == "refused"
            assert await rig.elsewhere(lab.in_pod("one"), lambda: outcome(VIP, PORT)) == "refused"
            assert await outcome(VIP, 81) == "refused"
            await rig.put(endpoints("10.244.0.11"))
            await rig.eventually(lambda: outcome(VIP, PORT), "one")
            await rig.eventually(lambda: outcome(lab.HOST, 30080), "one")
            await rig.api.remove(SERVICES, "web")
            await rig.eventually(lambda: outcome(VIP, PORT), "refused")

    lab.run(lab.host, main)


def test_a_client_stays_with_its_endpoint_while_others_come_and_go(lab: Any, api_factory: Any) -> None:
    for name, address in (("one", "10.244.0.11"), ("two", "10.244.0.12"), ("three", "10.244.0.13")):
        lab.pod(name, address)

    async def main() -> None:
        async with Rig(lab, api_factory()) as rig:
            config = {"clientIP": {"timeoutSeconds": 60}}
            everyone = ["10.244.0.11", "10.244.0.12", "10.244.0.13"]
            await rig.put(service(sessionAffinity="ClientIP", sessionAffinityConfig=config), endpoints(*everyone))
            await asyncio.wait_for(rig.proxy.synced.wait(), 10)
            first = await rig.elsewhere(lab.outside, _from_outside)
            address = {"one": everyone[0], "two": everyone[1], "three": everyone[2]}[first]
            for kept in ([address], everyone, [address, next(a for a in everyone if a != address)], everyone):
                await rig.put(endpoints(*kept))
                for _ in range(10):
                    assert await rig.elsewhere(lab.outside, _from_outside) == first

    async def _from_outside() -> str:
        return (await ask(VIP, PORT)).split()[0]

    run(["ip", "-n", lab.outside, "route", "add", "10.96.0.0/16", "via", lab.HOST], check=True)
    lab.run(lab.host, main)


def test_no_request_fails_while_endpoints_are_replaced_in_a_loop(lab: Any, api_factory: Any) -> None:
    for name, address in (("one", "10.244.0.11"), ("two", "10.244.0.12"), ("three", "10.244.0.13")):
        lab.pod(name, address)

    async def main() -> None:
        async with Rig(lab, api_factory()) as rig:
            await rig.put(service(), endpoints("10.244.0.11"))
            await rig.eventually(lambda: outcome(VIP, PORT), "one")
            done = False
            answers: Counter[str] = Counter()

            async def load() -> None:
                while not done:
                    answers[(await ask(VIP, PORT)).split()[0]] += 1

            loads = [asyncio.create_task(load()) for _ in range(4)]
            for step in range(60):
                await rig.put(endpoints(*[f"10.244.0.{11 + (step + extra) % 3}" for extra in range(1 + step % 2)]))
                await asyncio.sleep(0.01)
            done = True
            await asyncio.gather(*loads)
            assert set(answers) == {"one", "two", "three"}
            assert sum(answers.values()) > 50

    lab.run(lab.host, main)


def test_udp_clients_leave_an_endpoint_that_is_gone(lab: Any, api_factory: Any) -> None:
    lab.pod("one", "10.244.0.11")
    lab.pod("two", "10.244.0.12")

    async def main() -> None:
        async with Rig(lab, api_factory()) as rig:
            await rig.put(service([{"name": "dns", "port": 53, "protocol": "UDP"}]))
            await rig.put(endpoints("10.244.0.11", protocol="UDP", name="dns"))
            await asyncio.wait_for(rig.proxy.synced.wait(), 10)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect((VIP, 53))
                sock.settimeout(3)

                def talk() -> str:
                    try:
                        sock.send(b"hello")
                        return sock.recv(100).decode().split()[0]
                    except OSError:
                        return "nothing"

                await rig.eventually(lambda: asyncio.to_thread(talk), "one")
                await rig.put(endpoints("10.244.0.12", protocol="UDP", name="dns"))
                sock.settimeout(0.3)
                await rig.eventually(lambda: asyncio.to_thread(talk), "two")

    lab.run(lab.host, main)


def test_external_traffic_policy_local_keeps_the_clients_address(lab: Any, api_factory: Any) -> None:
    lab.pod("one", "10.244.0.11")
    lab.pod("two", "10.244.0.12")

    async def main() -> None:
        async with Rig(lab, api_factory()) as rig:
            ports = [{"name": "web", "port": PORT, "nodePort": 30080}]
            remote = {**endpoints("10.244.0.12", node="other"), "metadata": {
                "name": "remote", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}}}  # fmt: skip
            await rig.put(
                service(ports, type="NodePort", externalTrafficPolicy="Local"), endpoints("10.244.0.11"), remote
            )
            await asyncio.wait_for(rig.proxy.synced.wait(), 10)
            await rig.eventually(lambda: outcome("127.0.0.1", 30080), "two")
            answers = {await rig.elsewhere(lab.outside, lambda: ask(lab.HOST, 30080)) for _ in range(10)}
            assert answers == {f"one {lab.OUTSIDE}"}

    lab.run(lab.host, main)


def test_pods_reach_what_listens_on_the_hosts_loopback_through_a_service_and_nothing_else(
    lab: Any, api_factory: Any
) -> None:
    lab.pod("one", "10.244.0.11")
    lab.serve(lab.host, "host", 6443)
    for command in (
        ["sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1"],
        ["ip", "route", "del", "table", "local", "local", "127.0.0.0/8", "dev", "lo"],
        ["ip", "route", "del", "table", "local", "local", "127.0.0.1", "dev", "lo"],
        ["ip", "route", "add", "127.0.0.1", "via", lab.HOST, "src", lab.OUTSIDE],
    ):
        run(["ip", "netns", "exec", lab.outside, *command], check=True)

    async def main() -> None:
        async with Rig(lab, api_factory()) as rig:
            await rig.put(service(), endpoints("127.0.0.1", port=6443))
            await rig.eventually(lambda: outcome(VIP, PORT), "host")
            assert await rig.elsewhere(lab.in_pod("one"), lambda: outcome(VIP, PORT)) == "host"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as secret:
                secret.bind(("127.0.0.1", 7000))
                await rig.elsewhere(lab.outside, lambda: _send_to_loopback("from a neighbour"))
                await _send_to_loopback("from here")
                assert await asyncio.to_thread(secret.recv, 100) == b"from here"

    lab.run(lab.host, main)


async def _send_to_loopback(text: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), ("127.0.0.1", 7000))


def test_rules_survive_the_proxy_and_purge_removes_them_all(lab: Any, api_factory: Any) -> None:
    lab.pod("one", "10.244.0.11")

    async def main() -> None:
        api = api_factory()
        async with Rig(lab, api) as rig:
            await rig.put(service(), endpoints("10.244.0.11"))
            await rig.eventually(lambda: outcome(VIP, PORT), "one")
            await rig.proxy.stop()
            assert await outcome(VIP, PORT) == "one"
            again = Rig(lab, api)
            async with again:
                await asyncio.wait_for(again.proxy.synced.wait(), 10)
                assert await outcome(VIP, PORT) == "one"

    lab.run(lab.host, main)
    left = ["ip", "netns", "exec", lab.host]
    assert run([*left, "nft", "list", "tables"], capture_output=True, text=True, check=True).stdout == ""
    assert run([*left, "ip", "route", "show", "proto", "83"], capture_output=True, text=True, check=True).stdout == ""
    localnet = run(
        [*left, "sysctl", "-n", "net.ipv4.conf.all.route_localnet"], capture_output=True, text=True, check=True
    )
    assert localnet.stdout.strip() == "0"


def test_rules_that_somebody_flushed_are_made_anew(lab: Any, api_factory: Any) -> None:
    lab.pod("one", "10.244.0.11")

    async def main() -> None:
        async with Rig(lab, api_factory()) as rig:
            await rig.put(service(), endpoints("10.244.0.11"))
            await rig.eventually(lambda: outcome(VIP, PORT), "one")
            process = await asyncio.create_subprocess_exec("nft", "flush", "ruleset")
            assert await process.wait() == 0
            await rig.put(endpoints("10.244.0.11", "10.244.0.12"))
            await rig.put(endpoints("10.244.0.11"))
            await rig.eventually(lambda: outcome(VIP, PORT), "one")

    lab.run(lab.host, main)


def test_pods_of_other_nodes_are_routed_by_their_nodes_address(lab: Any, api_factory: Any) -> None:
    async def main() -> None:
        def shown() -> str:
            return run(["ip", "route", "show", "10.244.7.0/24"], capture_output=True, text=True, check=True).stdout

        async def gateway() -> str:
            return shown().split(" dev")[0].strip()

        async with Rig(lab, api_factory()) as rig:
            other = {
                "metadata": {"name": "other"},
                "spec": {"podCIDR": "10.244.7.0/24"},
                "status": {"addresses": [{"type": "InternalIP", "address": lab.OUTSIDE}]},
            }
            await rig.api.put(NODES, other)
            await rig.eventually(gateway, f"10.244.7.0/24 via {lab.OUTSIDE}")
            await rig.api.remove(NODES, "other")
            await rig.eventually(gateway, "")

    lab.run(lab.host, main)


_RESOLVE = "mount --bind $1 /etc/resolv.conf && exec $2 -c 'import socket; print(socket.gethostbyname(\"web\"))'"


def test_a_userspace_proxy_with_rights_makes_the_service_range_its_own(lab: Any, api_factory: Any) -> None:
    lab.pod("one", "10.244.0.11")

    async def main() -> None:
        async with Rig(lab, api_factory(), mode="userspace") as rig:
            await rig.put(service(), endpoints("10.244.0.11"))
            await rig.eventually(lambda: outcome(VIP, PORT), "one")
            assert await rig.elsewhere(lab.in_pod("one"), lambda: outcome(VIP, PORT)) == "one"

    lab.run(lab.host, main)
    routes = ["ip", "-n", lab.host, "route", "show", "table", "local", "proto", "83"]
    assert run(routes, capture_output=True, text=True, check=True).stdout == ""


@pytest.mark.parametrize("bind_host", ["192.168.77.1", "127.0.0.1"])
def test_a_pod_finds_a_service_by_its_short_name(lab: Any, api_factory: Any, tmp_path: Path, bind_host: str) -> None:
    lab.pod("one", "10.244.0.11")
    resolv = tmp_path / "resolv.conf"
    searches = "default.svc.cluster.local svc.cluster.local cluster.local"
    resolv.write_text(f"nameserver 10.96.0.10\nsearch {searches}\noptions ndots:5 timeout:1\n")

    def resolve() -> str:
        command = ["ip", "netns", "exec", lab.in_pod("one"), "sh", "-c", _RESOLVE, "sh", str(resolv), sys.executable]
        done = run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() or done.stderr

    async def main() -> None:
        async with Rig(lab, api_factory()) as rig:
            dns = Dns(
                rig.api.client(), bind_host=bind_host, port=0, node_name="n", now=lambda: 1.8e9, rng=random.Random(0)
            )
            await dns.start()
            try:
                ports = [
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                ]
                meta = {"name": "kube-dns", "namespace": "kube-system"}
                await rig.api.put(
                    "/api/v1/namespaces/kube-system/services",
                    {"metadata": meta, "spec": {"clusterIP": "10.96.0.10", "ports": ports}},
                )
                await rig.put(service(), endpoints("10.244.0.11"))
                await rig.eventually(lambda: asyncio.to_thread(resolve), VIP)
            finally:
                await dns.stop()

    lab.run(lab.host, main)
