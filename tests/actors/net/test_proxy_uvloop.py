"""The userspace proxy on the loop that actors run on: uvloop reads from a connection it was told not to read from."""

import asyncio
import errno
import socket

import pytest

from steersman.actors.proxy.tcp import TcpFrontend
from steersman.actors.proxy.udp import UdpFrontend
from steersman.cluster.net.services import Backend

uvloop = pytest.importorskip("uvloop")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read())
    writer.close()


async def ask(port: int, text: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    writer.write_eof()
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


async def datagrams() -> OSError:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OSError) as caught:
            await UdpFrontend().open("127.0.0.1", taken.getsockname()[1])
    return caught.value


def test_a_port_for_datagrams_that_is_taken_says_so() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(datagrams()).errno == errno.EADDRINUSE


async def scenario() -> list[bytes]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    front = TcpFrontend()
    await front.open("127.0.0.1", 0)
    assert front._server is not None
    port = front._server.sockets[0].getsockname()[1]
    front.lead_to((Backend("127.0.0.1", server.sockets[0].getsockname()[1]),), 0)
    answers = [await ask(port, f"request {number}".encode()) for number in range(50)]
    await front.close()
    front.abort()
    server.close()
    return answers


def test_what_a_client_sends_at_once_reaches_the_endpoint():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answers = runner.run(scenario())
    assert answers == [f"request {number}".encode() for number in range(50)]
