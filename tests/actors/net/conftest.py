"""A laboratory of network namespaces: a host, pods routed behind it, and a client outside."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

_CLONE_NEWNET = 0x40000000
#: answers each connection or datagram with the name of the pod and the client's address
_SERVER = """
import asyncio, sys
name, port = sys.argv[1], int(sys.argv[2])
class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport): self.transport = transport
    def datagram_received(self, data, addr): self.transport.sendto(f"{name} {addr[0]}".encode(), addr)
async def serve(reader, writer):
    while await reader.readline():
        writer.write(f"{name} {writer.get_extra_info('peername')[0]}\\n".encode())
        await writer.drain()
    writer.close()
async def main():
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Datagrams, local_addr=("0.0.0.0", port))
    server = await asyncio.start_server(serve, "0.0.0.0", port)
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def sh(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Lab:
    """Namespaces named after this process; removed by `close`.

    The host has 192.168.77.1 towards the outside, pods have /32 routes as a node's pod network makes them.
    """

    HOST, OUTSIDE = "192.168.77.1", "192.168.77.2"

    def __init__(self) -> None:
        self._prefix = f"ste{os.getpid()}"
        self.host = f"{self._prefix}-host"
        self.outside = f"{self._prefix}-out"
        self._names: list[str] = []
        self._servers: list[subprocess.Popen[str]] = []
        for name in (self.host, self.outside):
            self._add(name)
        # a new namespace has these from the machine's own
        sysctls = ("net.ipv4.conf.all.route_localnet=0", "net.ipv4.ip_forward=0")
        sh("ip", "netns", "exec", self.host, "sysctl", "-qw", *sysctls)
        sh(
            "ip",
            "link",
            "add",
            "ext",
            "netns",
            self.host,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            self.outside,
        )
        for name, link, address in ((self.host, "ext", self.HOST), (self.outside, "eth0", self.OUTSIDE)):
            sh("ip", "-n", name, "addr", "add", f"{address}/24", "dev", link)
            sh("ip", "-n", name, "link", "set", link, "up")

    def _add(self, name: str) -> None:
        sh("ip", "netns", "add", name)
        self._names.append(name)
        sh("ip", "-n", name, "link", "set", "lo", "up")

    def pod(self, name: str, address: str, port: int = 8080) -> None:
        """Makes a pod that answers with its name on `port`, TCP and UDP."""
        space = f"{self._prefix}-{name}"
        self._add(space)
        sh("ip", "link", "add", name, "netns", self.host, "type", "veth", "peer", "name", "eth0", "netns", space)
        sh("ip", "-n", self.host, "link", "set", name, "up")
        sh("ip", "-n", self.host, "addr", "add", "10.244.0.1/32", "dev", name)
        sh("ip", "-n", self.host, "route", "add", f"{address}/32", "dev", name)
        sh("ip", "-n", space, "addr", "add", f"{address}/32", "dev", "eth0")
        sh("ip", "-n", space, "link", "set", "eth0", "up")
        sh("ip", "-n", space, "route", "add", "10.244.0.1/32", "dev", "eth0")
        sh("ip", "-n", space, "route", "add", "default", "via", "10.244.0.1")
        self.serve(space, name, port)

    def serve(self, space: str, name: str, port: int) -> None:
        server = subprocess.Popen(
            ["ip", "netns", "exec", space, sys.executable, "-c", _SERVER, name, str(port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        self._servers.append(server)

    def in_pod(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def run(self, space: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Runs a coroutine function on a loop of its own inside a namespace; returns its result."""
        box: dict[str, Any] = {}

        def body() -> None:
            try:
                enter(space)
                box["result"] = asyncio.run(work())
            except BaseException as error:
                box["error"] = error

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if "error" in box:
            raise box["error"]
        return box["result"]

    def close(self) -> None:
        for server in self._servers:
            server.kill()
            server.wait()
        for name in self._names:
            sh("ip", "netns", "del", name)


def enter(space: str) -> None:
    """Moves the calling thread into a namespace."""
    fd = os.open(f"/run/netns/{space}", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {space}")
    finally:
        os.close(fd)


def _missing() -> str:
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the program ip is not here"
    probe = f"ste{os.getpid()}-probe"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"no network namespace can be made: {done.stderr.strip()}"
    rules = "add table ip probe\nadd chain ip probe c { type nat hook output priority 0 ; }\n"
    nft = ["ip", "netns", "exec", probe, "nft", "-f", "-"]
    done = subprocess.run(nft, input=rules, capture_output=True, text=True, check=False)
    sh("ip", "netns", "del", probe)
    return f"nftables does not work: {done.stderr.strip()}" if done.returncode else ""


@pytest.fixture
def lab() -> Iterator[Lab]:
    if reason := _missing():
        pytest.skip(reason)
    lab = Lab()
    try:
        yield lab
    finally:
        lab.close()
