"""The user's terminal during exec and attach: raw keys in, bytes out, and its size as it changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import orjson

from steersman.actors.ports import Channel, Frame
from steersman.cli.errors import Failed, failed
from steersman.cluster.meta.objects import Obj

_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_CHUNK = 32 * 1024


@contextlib.contextmanager
def raw_terminal(wanted: bool) -> Iterator[None]:
    """Lets keys through as they are typed, and restores the terminal whatever happens."""
    if not wanted or not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


async def converse(channel: Channel, *, stdin: bool, tty: bool) -> None:
    """Connects the terminal with a container until the conversation ends.

    Raises:
        Failed: the command ended with an exit code other than 0, which becomes ours.
    """
    tasks: list[asyncio.Task[None]] = []
    try:
        with raw_terminal(tty and stdin):
            if stdin:
                tasks.append(asyncio.create_task(_send_input(channel)))
            if tty and sys.stdout.isatty():
                tasks.append(asyncio.create_task(_send_sizes(channel)))
            status = await _print_output(channel)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await channel.close()
    finish(status)


async def _print_output(channel: Channel) -> Obj | None:
    """Writes what the container says; returns the final `Status`, if there is one."""
    streams = {_STDOUT: sys.stdout.buffer, _STDERR: sys.stderr.buffer}
    while True:
        frame = await channel.receive()
        if frame is None:
            return None
        if frame.channel == _ERROR:
            status: Obj = orjson.loads(frame.data) if frame.data else {}
            return status
        if (out := streams.get(frame.channel)) is not None and frame.data:
            out.write(frame.data)
            out.flush()


async def _send_input(channel: Channel) -> None:
    async for data in keystrokes():
        await channel.send(Frame(_STDIN, data))
    await channel.send(Frame(_CLOSE, bytes([_STDIN])))


async def keystrokes() -> AsyncIterator[bytes]:
    """Yields what arrives on standard input: terminal, pipe or file alike.

    A thread that may be abandoned reads it, since a read cannot be taken back and not every file can be polled.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes] = asyncio.Queue()
    room = threading.Semaphore(16)
    descriptor = sys.stdin.fileno()

    def read() -> None:
        while True:
            try:
                data = os.read(descriptor, _CHUNK)
            except OSError:
                data = b""
            room.acquire()
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(pieces.put_nowait, data)
            if not data:
                return

    threading.Thread(target=read, daemon=True, name="stdin").start()
    while data := await pieces.get():
        room.release()
        yield data


async def _send_sizes(channel: Channel) -> None:
    changed = asyncio.Event()
    changed.set()
    asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        while True:
            await changed.wait()
            changed.clear()
            size = shutil.get_terminal_size()
            await channel.send(Frame(_RESIZE, orjson.dumps({"Width": size.columns, "Height": size.lines})))
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGWINCH)


def exit_code(status: Obj | None) -> int | None:
    """The exit code that a final `Status` tells; None when it tells a failure of another kind."""
    if not status or status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode" and str(cause.get("message", "")).isdigit():
            return int(cause["message"])
    return None


def finish(status: Obj | None) -> None:
    """Ends the command as the container's command ended.

    Raises:
        Failed: with an exit code other than 0.
    """
    code = exit_code(status)
    if code is None:
        raise failed((status or {}).get("message") or "the conversation ended with an error")
    if code:
        raise Failed(f"command terminated with exit code {code}", exit_code=code)
