"""SPDY/3.1 as Kubernetes' clients still speak it: for exec and attach on a raw upgrade, for port-forward also inside
a WebSocket.

The streams a client opens are mapped to frames of one conversation (exec) or to one conversation per pair of streams
(port-forward). Flow control windows are ignored, as both Kubernetes' clients and
its server ignore them: the transport's own back-pressure holds.

Source: the stream protocol of k8s.io/apimachinery/pkg/util/remotecommand; the frames are `runtime/spdy`'s
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import orjson

from steersman.actors.http.messages import ByteStream, Conversation, Upgrade
from steersman.actors.ports import Channel, Frame
from steersman.cluster.meta.errors import ApiError
from steersman.runtime.spdy import FLAG_FIN, GOAWAY, PING, RST_STREAM, SYN_STREAM, SpdyCodec, SpdyFrame

#: streams a client may have open at once
STREAMS_MAX = 512
#: a client that has asked for streams opens them within this time
OPEN_TIMEOUT_S = 30.0
#: a client closes the connection itself within this time after the end of a conversation
CLOSING_S = 1.0
#: what is held of one stream for a slow container: so many pieces of so many bytes
PIECES_MAX, PIECE_BYTES = 4, 16 * 1024
#: frames that are read before others have their turn: they can be as small as eight bytes
FRAMES_A_TURN = 128

#: exec stream protocols, the best first; up to v3 the error stream carries plain text
STREAM_PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
)
PORT_FORWARD_PROTOCOL = "portforward.k8s.io"

_CHANNELS = {"stdin": 0, "stdout": 1, "stderr": 2, "error": 3, "resize": 4}


def choose_protocol(offered: str, known: tuple[str, ...]) -> str:
    """Returns the best of `known` that the comma-separated `offered` names; empty when none."""
    names = {name.strip() for name in offered.split(",")}
    return next((name for name in known if name in names), "")


def pieces(data: bytes) -> Iterator[bytes]:
    """Cuts what was received for a container into pieces that can be held for it."""
    return (data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES))


async def serve_spdy(pipe: ByteStream, headers: Mapping[str, str], upgrade: Upgrade) -> None:
    """Answers a raw `Upgrade: SPDY/3.1` and holds the conversation until either side ends it."""
    known = (PORT_FORWARD_PROTOCOL,) if upgrade.port_forward else STREAM_PROTOCOLS
    offered = headers.get("x-stream-protocol-version", "")
    protocol = choose_protocol(offered, known) or ("" if offered else known[-1])
    if not protocol:
        lines = "".join(f"X-Accept-Stream-Protocol-Versions: {name}\r\n" for name in known)
        await pipe.write(f"HTTP/1.1 403 Forbidden\r\n{lines}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        return
    await pipe.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        b"X-Stream-Protocol-Version: " + protocol.encode() + b"\r\n\r\n"
    )
    if upgrade.port_forward:
        await serve_port_forward(pipe, upgrade)
    else:
        await _ExecSession(pipe, upgrade, protocol[:2]).run()


class _Session(ABC):
    """What exec and port-forward sessions share: reading frames, answering pings."""

    def __init__(self, pipe: ByteStream) -> None:
        self.pipe = pipe
        self.codec = SpdyCodec()
        self.last = 0

    async def frames(self) -> None:
        """Reads until the client ends."""
        count = 0
        while data := await self.pipe.read():
            for frame in self.codec.receive(data):
                count += 1
                if not count % FRAMES_A_TURN:
                    await asyncio.sleep(0)
                if frame.type == PING:
                    await self.pipe.write(self.codec.ping(frame.data))
                elif frame.type == GOAWAY:
                    return
                elif frame.type in (0, SYN_STREAM, RST_STREAM):
                    self.last = max(self.last, frame.stream)
                    await self.handle(frame)

    @abstractmethod
    async def handle(self, frame: SpdyFrame) -> None:
        """Takes a frame of a stream."""


class _ExecSession(_Session):
    """One conversation: the streams `stdin`, `stdout`, `stderr`, `error` and `resize` are its channels."""

    def __init__(self, pipe: ByteStream, upgrade: Upgrade, version: str) -> None:
        super().__init__(pipe)
        self._run = upgrade.run
        self._awaited = {3, *upgrade.channels}
        if version not in ("v3", "v4", "v5"):
            self._awaited.discard(_CHANNELS["resize"])
        self._json_errors = version in ("v4", "v5")
        self._channel_of: dict[int, int] = {}
        self._stream_of: dict[int, int] = {}
        self._inbound: asyncio.Queue[Frame | None] = asyncio.Queue(PIECES_MAX)
        self._outbound_closed = False
        #: set when the client has opened every stream it asked for
        self._opened = asyncio.Event()

    async def run(self) -> None:
        assert self._run is not None
        reader = asyncio.create_task(self._read())
        talk = asyncio.create_task(self._talk(self._run))
        try:
            await asyncio.wait({reader, talk}, return_when=asyncio.FIRST_COMPLETED)
            if not talk.done():
                await asyncio.wait({talk}, timeout=5.0)
            with contextlib.suppress(ConnectionError, TimeoutError):
                await self.close()
            # a client that still writes when the connection goes would call that an error
            await asyncio.wait({reader}, timeout=CLOSING_S)
        finally:
            for task in (reader, talk):
                task.cancel()
            await asyncio.gather(reader, talk, return_exceptions=True)

    async def _talk(self, run: Conversation) -> None:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            await self._opened.wait()
        await run(self)

    async def _read(self) -> None:
        try:
            await self.frames()
        finally:
            self._opened.set()
            with contextlib.suppress(asyncio.QueueFull):
                self._inbound.put_nowait(None)

    async def handle(self, frame: SpdyFrame) -> None:
        if frame.type == SYN_STREAM:
            channel = _CHANNELS.get(dict(frame.headers).get("streamtype", "").lower())
            if channel is None or len(self._channel_of) >= len(_CHANNELS):
                await self.pipe.write(self.codec.reset(frame.stream, 3))
                return
            self._channel_of[frame.stream] = channel
            self._stream_of[channel] = frame.stream
            await self.pipe.write(self.codec.syn_reply(frame.stream))
            self._awaited.discard(channel)
            if not self._awaited:
                self._opened.set()
        channel = self._channel_of.get(frame.stream)
        if channel is None:
            return
        if frame.type == 0:
            for piece in pieces(frame.data):
                await self._inbound.put(Frame(channel, piece))
        if channel == 0 and (frame.type == RST_STREAM or frame.flags & FLAG_FIN):
            await self._inbound.put(Frame(255, b"\x00"))

    async def send(self, frame: Frame) -> None:
        data = frame.data
        if frame.channel == 255:
            stream = self._stream_of.get(data[0] if data else -1)
            if stream is not None:
                await self.pipe.write(self.codec.data(stream, b"", fin=True))
            return
        stream = self._stream_of.get(frame.channel)
        if stream is None:
            return
        if frame.channel == 3:
            if not self._json_errors:
                data = plain_error(data)
            await self.pipe.write(self.codec.data(stream, data, fin=True))
            return
        await self.pipe.write(self.codec.data(stream, data))

    async def receive(self) -> Frame | None:
        return await self._inbound.get()

    async def close(self) -> None:
        if not self._outbound_closed:
            self._outbound_closed = True
            for channel, stream in self._stream_of.items():
                if channel in (1, 2):
                    await self.pipe.write(self.codec.data(stream, b"", fin=True))
            await self.pipe.write(self.codec.goaway(self.last))


def plain_error(status: bytes) -> bytes:
    """The message of a JSON Status as protocols before v4 want it; nothing for a success."""
    try:
        decoded = orjson.loads(status)
    except orjson.JSONDecodeError:
        return status
    return b"" if decoded.get("status") == "Success" else str(decoded.get("message", "")).encode()


async def serve_port_forward(pipe: ByteStream, upgrade: Upgrade) -> None:
    """Holds a port-forward session: each pair of streams (`data`, `error`) is one conversation with a port."""
    session = _PortForwardSession(pipe, upgrade)
    try:
        await session.frames()
    finally:
        await session.stop()


class _Forward:
    """One forwarded connection."""

    def __init__(self) -> None:
        self.error_stream = 0
        self.data_stream = 0
        self.port = 0
        self.inbound: asyncio.Queue[bytes | None] = asyncio.Queue(PIECES_MAX)
        self.task: asyncio.Task[None] | None = None


class _PortForwardSession(_Session):
    def __init__(self, pipe: ByteStream, upgrade: Upgrade) -> None:
        super().__init__(pipe)
        assert upgrade.open_port is not None
        self._open_port = upgrade.open_port
        self._by_request: dict[str, _Forward] = {}
        self._by_stream: dict[int, _Forward] = {}

    async def handle(self, frame: SpdyFrame) -> None:
        if frame.type == SYN_STREAM:
            await self._open(frame)
        forward = self._by_stream.get(frame.stream)
        if forward is None or frame.stream != forward.data_stream:
            return
        if frame.type == RST_STREAM:
            if forward.task is not None:
                forward.task.cancel()
            return
        for piece in pieces(frame.data):
            if forward.task is None or not forward.task.done():
                await self._offer(forward, piece)
        if frame.flags & FLAG_FIN:
            await self._offer(forward, None)

    async def _offer(self, forward: _Forward, data: bytes | None) -> None:
        """Queues bytes for the port; waits for a slow one, but not for one whose conversation has ended."""
        while True:
            try:
                forward.inbound.put_nowait(data)
                return
            except asyncio.QueueFull:
                if forward.task is None or forward.task.done():
                    return
                put = asyncio.ensure_future(forward.inbound.put(data))
                done, _ = await asyncio.wait({put, forward.task}, return_when=asyncio.FIRST_COMPLETED)
                if put in done:
                    return
                put.cancel()

    async def _open(self, frame: SpdyFrame) -> None:
        headers = dict(frame.headers)
        kind, port = headers.get("streamtype", ""), headers.get("port", "")
        usable = kind in ("data", "error") and port.isdigit() and 0 < int(port) < 65536
        if not usable or len(self._by_stream) >= STREAMS_MAX:
            await self.pipe.write(self.codec.reset(frame.stream, 3))
            return
        request = headers.get("requestid") or f"port-{port}-{(frame.stream - 1) // 4}"
        forward = self._by_request.setdefault(request, _Forward())
        forward.port = int(port)
        if kind == "error":
            forward.error_stream = frame.stream
        else:
            forward.data_stream = frame.stream
        self._by_stream[frame.stream] = forward
        await self.pipe.write(self.codec.syn_reply(frame.stream))
        if forward.error_stream and forward.data_stream and forward.task is None:
            forward.task = asyncio.create_task(self._serve(request, forward))

    async def _serve(self, request: str, forward: _Forward) -> None:
        error = b""
        try:
            channel = await self._open_port(forward.port)
            try:
                await self._copy(channel, forward)
            finally:
                await channel.close()
        except ApiError as refusal:
            error = refusal.message.encode()  # it names the port
        except OSError as failure:
            error = f"error forwarding port {forward.port} to pod: {failure}".encode()
        finally:
            self._by_request.pop(request, None)
            self._by_stream.pop(forward.data_stream, None)
            self._by_stream.pop(forward.error_stream, None)
        with contextlib.suppress(ConnectionError, TimeoutError):
            await self.pipe.write(self.codec.data(forward.error_stream, error, fin=True))
            await self.pipe.write(self.codec.data(forward.data_stream, b"", fin=True))

    async def _copy(self, channel: Channel, forward: _Forward) -> None:
        async def upward() -> None:
            while (data := await forward.inbound.get()) is not None:
                await channel.send(Frame(0, data))
            await channel.send(Frame(255, b"\x00"))

        sender = asyncio.create_task(upward())
        try:
            while (frame := await channel.receive()) is not None:
                if frame.channel == 1 and frame.data:
                    await self.pipe.write(self.codec.data(forward.data_stream, frame.data))
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def stop(self) -> None:
        tasks = [f.task for f in self._by_request.values() if f.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
