"""An exec in a container, or an attachment to it, over the stream that a CRI runtime serves for it.

SPDY/3.1 rather than WebSocket: only it can close stdin alone in every version of the runtimes.
Source: k8s.io/kubelet/pkg/cri/streaming, k8s.io/apimachinery/pkg/util/remotecommand
"""

from __future__ import annotations

import asyncio
import contextlib
import urllib.parse
from typing import Any

import orjson

from steersman.cluster.node.values import RuntimeFailure
from steersman.runtime.spdy import FLAG_FIN, GOAWAY, PING, RST_STREAM, SYN_REPLY, SpdyCodec, SpdyError

_PROTOCOL = "v4.channel.k8s.io"
_CHUNK_BYTES = 32 * 1024
#: pieces of output that wait for their reader; the container then waits too
_PENDING_MAX = 64
_OPEN_DEADLINE_S = 10.0
#: streams that a client opens have odd numbers
_STREAMS = {"error": 1, "stdin": 3, "stdout": 5, "stderr": 7, "resize": 9}
#: the exit code of a command that could not be started, as shells have it
_CANNOT_RUN = 126


class CriProcess:
    """Implements `protocol.Process`.

    Args:
        abandoned: what `wait` returns when the conversation is left before its end.
    """

    def __init__(self, *, stdin: bool, tty: bool, abandoned: int) -> None:
        self._tty = tty
        self._names = ("error", *(("stdin",) if stdin else ()), "stdout", "resize" if tty else "stderr")
        self._codec = SpdyCodec()
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._output: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(_PENDING_MAX)
        self._status = b""
        self._code = abandoned
        #: streams that the other side has not answered yet
        self._unanswered = {_STREAMS[name] for name in self._names}
        self._opened = asyncio.Event()
        self._ended = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def open(self, url: str) -> None:
        """Connects to the URL that `Exec` or `Attach` has given. Raises RuntimeFailure."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None or parts.port is None:
            raise RuntimeFailure("StreamFailed", f"streams at {parts.scheme}://{parts.netloc} cannot be used")
        try:
            async with asyncio.timeout(_OPEN_DEADLINE_S):
                self._reader, self._writer = await asyncio.open_connection(parts.hostname, parts.port)
                self._writer.write(
                    f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\n"
                    f"Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {_PROTOCOL}\r\nContent-Length: 0\r\n\r\n".encode()
                )
                answer = await self._reader.readuntil(b"\r\n\r\n")
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise RuntimeFailure("StreamFailed", f"{parts.netloc}: {type(error).__name__} {error}") from error
        if b" 101 " not in answer.split(b"\r\n", 1)[0]:
            self._writer.close()
            raise RuntimeFailure("StreamFailed", answer.split(b"\r\n", 1)[0].decode(errors="replace"))
        for name in self._names:
            self._writer.write(self._codec.syn_stream(_STREAMS[name], {"streamtype": name}))
        self._pump = asyncio.create_task(self._read_frames())
        # who leaves before the other side has taken every stream would leave it waiting
        opened = asyncio.create_task(self._opened.wait())
        await asyncio.wait({opened, self._pump}, timeout=_OPEN_DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()

    async def _read_frames(self) -> None:
        try:
            with contextlib.suppress(ConnectionError, SpdyError):
                while data := await self._reader.read(_CHUNK_BYTES):
                    if await self._take(data):
                        break
        finally:
            self._ended.set()
            self._writer.close()
        await self._output.put(None)

    async def _take(self, data: bytes) -> bool:
        """Returns whether the conversation is over."""
        for frame in self._codec.receive(data):
            if frame.type == PING:
                self._writer.write(self._codec.ping(frame.data))
            elif frame.type == SYN_REPLY:
                self._unanswered.discard(frame.stream)
                if not self._unanswered:
                    self._opened.set()
            elif frame.type == GOAWAY or (frame.type == RST_STREAM and frame.stream == _STREAMS["error"]):
                return True
            elif frame.type == 0 and frame.stream == _STREAMS["error"]:
                self._status += frame.data
                if await self._settle():
                    return True
                if frame.flags & FLAG_FIN:
                    return True
            elif frame.type == 0 and frame.data and frame.stream in (_STREAMS["stdout"], _STREAMS["stderr"]):
                await self._output.put((1 if frame.stream == _STREAMS["stdout"] else 2, frame.data))
        return False

    async def _settle(self) -> bool:
        """Learns how it ended, once the whole status has come; it comes after all output."""
        try:
            status: dict[str, Any] = orjson.loads(self._status)
        except orjson.JSONDecodeError:
            return False
        self._code, problem = exit_code(status)
        if problem:
            await self._output.put((1 if self._tty else 2, problem.encode() + b"\n"))
        return True

    async def read(self) -> tuple[int, bytes] | None:
        if self._ended.is_set() and self._output.empty():
            return None
        return await self._output.get()

    async def write(self, data: bytes) -> None:
        if "stdin" not in self._names or self._ended.is_set():
            return
        stream = _STREAMS["stdin"]
        with contextlib.suppress(ConnectionError):
            if data or self._tty:
                # at a terminal the end is a character, as a person would type it
                self._writer.write(self._codec.data(stream, data or b"\x04"))
            else:
                self._writer.write(self._codec.data(stream, b"", fin=True))
            await self._writer.drain()

    async def resize(self, width: int, height: int) -> None:
        if self._tty and not self._ended.is_set():
            size = orjson.dumps({"Width": width, "Height": height}) + b"\n"
            self._writer.write(self._codec.data(_STREAMS["resize"], size))

    async def wait(self) -> int:
        await self._ended.wait()
        return self._code

    async def close(self) -> None:
        """Leaves the conversation; an exec's process sees its stdin and its terminal close."""
        if self._pump is None:
            return
        self._pump.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._pump
        # a pump that never ran has told nobody
        self._ended.set()
        self._writer.close()
        with contextlib.suppress(asyncio.QueueFull):
            self._output.put_nowait(None)


def exit_code(status: dict[str, Any]) -> tuple[int, str]:
    """Returns (exit code, why the command could not be run at all or an empty string) of a v1.Status."""
    if status.get("status") == "Success":
        return 0, ""
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode" and str(cause.get("message")).isdigit():
            return int(cause["message"]), ""
    return _CANNOT_RUN, str(status.get("message") or "the command could not be run")
