"""What open streams carry, on either of the event loops that run them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from steersman.runtime import syscalls
from steersman.runtime.streams import ExecProcess

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
