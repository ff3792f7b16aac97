"""What open streams carry, on either of the event loops that run them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from steersman.runtime import conmon, syscalls
from steersman.runtime.streams import AttachProcess, ExecProcess

RUNNERS = [pytest.param(asyncio.run, id="asyncio"), pytest.param(uvloop.run, id="uvloop")]
Runner = Callable[[Awaitable[Any]], Any]


async def converse(script: str, *, tty: bool, typed: bytes = b"", pause_s: float = 0.0) -> tuple[bytes, int]:
    process = ExecProcess(None)
    await process.start(["sh", "-c", script], stdin=True, tty=tty)
    await process.resize(99, 33)
    if typed:
        await process.write(typed)
    output = b""
    async with asyncio.timeout(20):
        while (piece := await process.read()) is not None:
            output += piece[1]
            await asyncio.sleep(pause_s)
        return output, await process.wait()


@pytest.mark.parametrize("run", RUNNERS)
def test_a_terminal_carries_output_input_size_and_exit_code(run: Runner) -> None:
    output, code = run(converse("read line; echo got $line; stty size; exit 5", tty=True, typed=b"word\n"))
    assert b"got word\r\n33 99\r\n" in output
    assert code == 5


@pytest.mark.parametrize("run", RUNNERS)
@pytest.mark.parametrize("tty", [True, False])
def test_a_slow_reader_gets_every_byte_of_a_command_that_is_long_gone(run: Runner, tty: bool) -> None:
    output, code = run(converse("seq 60000", tty=tty, pause_s=0.001))
    assert output.split() == [str(number).encode() for number in range(1, 60001)]
    assert code == 0


@pytest.mark.parametrize("run", RUNNERS)
def test_nothing_typed_ends_the_input(run: Runner) -> None:
    async def main() -> int:
        process = ExecProcess(None)
        await process.start(["sh", "-c", "cat; exit 3"], stdin=True, tty=True)
        await process.write(b"")
        while await process.read() is not None:
            pass
        return await process.wait()

    assert run(main()) == 3


@pytest.mark.parametrize("run", RUNNERS)
def test_no_program_holds_what_its_parent_has_open(run: Runner) -> None:
    async def main() -> bytes:
        process = ExecProcess(None)
        await process.start(
            ["sh", "-c", f"test -e /proc/self/fd/{copy} && echo open; echo end"], stdin=False, tty=False
        )
        output = b""
        while (piece := await process.read()) is not None:
            output += piece[1]
        return output

    reading, writing = os.pipe()
    copy = os.dup2(writing, 91)
    try:
        syscalls.keep_descriptors()
        assert run(main()) == b"end\n"
    finally:
        for fd in (reading, writing, copy):
            os.close(fd)


@pytest.mark.parametrize("run", RUNNERS)
def test_connections_that_get_the_numbers_of_what_was_attached_are_heard(run: Runner, tmp_path: Path) -> None:
    async def main() -> tuple[bytes, bytes]:
        process = AttachProcess(lambda _width, _height: None)
        await process.start(tmp_path)
        reading = asyncio.create_task(process.read())
        await asyncio.sleep(0.01)  # it waits for the monitor
        await process.close()
        ends = [await asyncio.open_connection(sock=end) for end in socket.socketpair()]
        for _, writer in ends:
            writer.write(b"word")
        async with asyncio.timeout(5):
            heard = [await reader.readexactly(4) for reader, _ in ends]
            assert await reading is None
        for _, writer in ends:
            writer.close()
        return heard[0], heard[1]

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as monitor:
        monitor.bind(str(tmp_path / "attach"))
        monitor.listen()
        assert run(main()) == (b"word", b"word")


@pytest.mark.parametrize("run", RUNNERS)
@pytest.mark.parametrize(
    ("said", "line"),
    [([b'{"pid"', b": 5}\n"], b'{"pid": 5}'), ([b"one\ntwo\n"], b"one"), ([b"broken off"], b"broken off"), ([], b"")],
    ids=["in two pieces", "the first of two", "without an end", "nothing"],
)
def test_a_monitor_is_read_up_to_the_end_of_its_line(run: Runner, said: list[bytes], line: bytes) -> None:
    async def main() -> bytes:
        reading, writing = os.pipe()
        found = asyncio.create_task(conmon.read_line(reading))
        for piece in said:
            await asyncio.sleep(0.01)
            os.write(writing, piece)
        os.close(writing)
        async with asyncio.timeout(5):
            return await found

    assert run(main()) == line
