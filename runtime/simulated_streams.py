"""What simulated containers say: a handful of commands, and an HTTP server that answers 200 to everything."""

from __future__ import annotations

import asyncio

from steersman.cluster.node.values import ExecResult

#: requests and input kept at most
_BUFFER_BYTES_MAX = 1 << 20


def run_command(command: tuple[str, ...]) -> tuple[ExecResult, float]:
    """Returns what a command prints, and how long it takes in seconds; an unknown one succeeds silently."""
    match command:
        case ("echo", *words):
            return ExecResult(exit_code=0, stdout=(" ".join(words) + "\n").encode()), 0.0
        case ("false", *_):
            return ExecResult(exit_code=1), 0.0
        case ("sleep", seconds, *_):
            return ExecResult(exit_code=0), float(seconds)
        case ("sh", "-c", script) if script.startswith("exit "):
            return ExecResult(exit_code=int(script.split()[1])), 0.0
    return ExecResult(exit_code=0), 0.0


class SimulatedProcess:
    """Implements `protocol.Process`: plays back output, then ends; `cat` gives back what it is given."""

    def __init__(self) -> None:
        self._output: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._ended = asyncio.Event()
        self._exit_code = 0
        #: as which it ends when it is closed
        self._closed_code = 137
        self._echoes = False
        self._watcher: asyncio.Task[None] | None = None

    @classmethod
    def of_command(cls, command: tuple[str, ...], *, stdin: bool) -> SimulatedProcess:
        process = cls()
        if stdin and command[:1] == ("cat",):
            process._echoes = True
            return process
        result, duration_s = run_command(command)
        if result.stdout:
            process._output.put_nowait((1, result.stdout))
        if result.stderr:
            process._output.put_nowait((2, result.stderr))
        if duration_s > 0:
            process._watcher = asyncio.ensure_future(process._end_after(duration_s, result.exit_code))
        else:
            process._end(result.exit_code)
        return process

    @classmethod
    def of_container(cls, exited: asyncio.Event) -> SimulatedProcess:
        process = cls()
        process._closed_code = 0
        process._watcher = asyncio.ensure_future(process._end_with(exited))
        return process

    async def _end_after(self, duration_s: float, exit_code: int) -> None:
        await asyncio.sleep(duration_s)
        self._end(exit_code)

    async def _end_with(self, exited: asyncio.Event) -> None:
        await exited.wait()
        self._end(0)

    def _end(self, exit_code: int) -> None:
        if not self._ended.is_set():
            self._exit_code = exit_code
            self._ended.set()
            self._output.put_nowait(None)

    async def read(self) -> tuple[int, bytes] | None:
        if self._ended.is_set() and self._output.empty():
            return None
        return await self._output.get()

    async def write(self, data: bytes) -> None:
        if self._echoes and not data:
            self._end(0)
        elif self._echoes and self._output.qsize() * 4096 < _BUFFER_BYTES_MAX:
            self._output.put_nowait((1, data))

    async def resize(self, width: int, height: int) -> None:
        """A simulated terminal has no size to change."""

    async def wait(self) -> int:
        await self._ended.wait()
        return self._exit_code

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        self._end(self._closed_code)


class SimulatedConnection:
    """Implements `protocol.ByteStream`: an HTTP/1.1 server that greets and closes."""

    def __init__(self, pod_name: str) -> None:
        body = f"{pod_name}\n".encode()
        self._answer = (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        self._request = b""
        self._answered = False
        self._ready = asyncio.Event()

    async def read(self) -> bytes:
        await self._ready.wait()
        if self._answered:
            return b""
        self._answered = True
        return self._answer if b"\r\n\r\n" in self._request else b""

    async def write(self, data: bytes) -> None:
        self._request = (self._request + data)[-_BUFFER_BYTES_MAX:]
        if not data or b"\r\n\r\n" in self._request:
            self._ready.set()

    async def close(self) -> None:
        self._answered = True
        self._ready.set()
