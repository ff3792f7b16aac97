"""One HTTP/2 connection that carries gRPC, without socket or clock: bytes in, events out; calls in, bytes out.

It knows frames, windows, and where a gRPC message begins and ends; what a call means is decided by its user. Whatever a
peer can make it keep or do has a bound in `Limits`.

Source: RFC 9113; gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from steersman.actors.rpc.h2 import frames
from steersman.actors.rpc.h2.events import Drained, Ended, Event, Headers, Leaving, Message, Refused, Reset
from steersman.actors.rpc.h2.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_DEFAULT,
    HEADER,
    HEADER_BYTES,
    MAX_31,
    PADDED,
    PREFIX,
    PREFIX_BYTES,
    WINDOW_BYTES_DEFAULT,
    WORD,
    ErrorCode,
    Setting,
)
from steersman.actors.rpc.h2.headers import HEADER_LIST_BYTES_MAX, BadHeaders, HeaderDecoder
from steersman.actors.rpc.h2.limits import ConnectionLost, Limits
from steersman.actors.rpc.h2.outlet import Outlet, Stream


class _Data:
    """A DATA frame that goes on: its stream, None for one that is over."""

    __slots__ = ("is_last", "left_bytes", "stream")

    def __init__(self, stream: Stream | None, left_bytes: int, is_last: bool) -> None:
        self.stream, self.left_bytes, self.is_last = stream, left_bytes, is_last


class Connection:
    """One side of a connection.

    Args:
        is_client: this side opens streams; the other side's are refused.
        parse: makes of header fields what the user wants; see `HeaderDecoder`.
        limits: what the peer may use.

    Attributes:
        streams: those that are not over, by number.
        streams_max: streams that the peer takes at once.
    """

    def __init__(
        self,
        *,
        is_client: bool,
        parse: Callable[[list[tuple[bytes, bytes]]], Any],
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.streams: dict[int, Stream] = {}
        self.streams_max = MAX_31
        self.outlet = Outlet()
        self._is_client = is_client
        self._decoder = HeaderDecoder(parse)
        #: a frame that has come in part: of data it is taken as it comes
        self._rest = b""
        self._data: _Data | None = None
        self._awaits_preface, self._awaits_settings = not is_client, True
        self._opened_there, self._opened_here = 0, -1
        #: a header block that goes on: stream, flags of its first frame, pieces
        self._block: tuple[int, int, list[bytes]] | None = None
        self._window, self._credit = WINDOW_BYTES_DEFAULT, 0
        self._partial_bytes = 0
        self._budget, self._budget_at = float(self.limits.burst), 0.0
        self._leaving = False
        self._introduce()

    def _introduce(self) -> None:
        limits = self.limits
        values = {
            Setting.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
            Setting.MAX_FRAME_SIZE: limits.frame_bytes,
            Setting.MAX_HEADER_LIST_SIZE: HEADER_LIST_BYTES_MAX,
        }
        if self._is_client:
            self.outlet.frame(frames.PREFACE)
            values[Setting.ENABLE_PUSH] = 0
        else:
            values[Setting.MAX_CONCURRENT_STREAMS] = limits.streams
        self.outlet.frame(frames.settings(values))
        grown = limits.connection_window_bytes - WINDOW_BYTES_DEFAULT
        self.outlet.frame(frames.window_update(0, grown))
        self._window += grown

    # what goes out

    def open(self, block: bytes) -> Stream:
        """Begins a stream of a client with its headers."""
        self._opened_here += 2
        stream = Stream(self._opened_here, self.outlet.stream_window, self.limits.stream_window_bytes)
        self.streams[stream.id] = stream
        self.outlet.headers(stream, block)
        return stream

    def end(self, stream: Stream, trailers: bytes = b"") -> None:
        """Ends this side of a stream, after what waits to be sent; a server ends the peer's side with it."""
        self.outlet.end(stream, trailers)
        if stream.ended_here:
            self._ended_here(stream)

    def _ended_here(self, stream: Stream) -> None:
        if stream.ended_there:
            self._forget(stream)
        elif not self._is_client:
            self.reset(stream, ErrorCode.NO_ERROR)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """Ends both sides of a stream at once."""
        if self.streams.get(stream.id) is stream:
            self.outlet.frame(frames.rst_stream(stream.id, code))
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)
        if stream.queue:
            self.outlet.forget(stream)
        self._ignore(stream)

    def _ignore(self, stream: Stream) -> None:
        """Throws away what came in part, and what is still to come."""
        self._drop_body(stream)
        stream.ignored = True

    def _drop_body(self, stream: Stream) -> None:
        self._partial_bytes -= stream.body_bytes
        stream.prefix, stream.body, stream.body_bytes = b"", None, 0

    def ping(self) -> None:
        self.outlet.frame(frames.frame(frames.PING, 0, 0, bytes(8)))

    def leave(self, code: ErrorCode = ErrorCode.NO_ERROR, words: str = "") -> None:
        """Says that no new streams are taken."""
        self._leaving = True
        self.outlet.frame(frames.goaway(self._opened_there, code, words))

    def resume(self) -> list[Event]:
        """Sends what waited since `outlet.pause`."""
        return self._drained(self.outlet.resume())

    def _drained(self, streams: Iterable[Stream]) -> list[Event]:
        events: list[Event] = []
        for stream in streams:
            events.append(Drained(stream))
            if stream.ended_here:
                self._ended_here(stream)
        return events

    def hold(self, stream: Stream) -> None:
        """Lets the peer send no more on a stream than it may already."""
        stream.held = True

    def release(self, stream: Stream) -> None:
        stream.held = False
        self._give_back(stream)

    # what comes in

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Takes bytes of the peer.

        Args:
            now: seconds of any clock that does not go backwards.

        Raises:
            ConnectionLost: write what `outlet.take` returns, and close.
        """
        events: list[Event] = []
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, end = 0, len(data)
        if self._awaits_preface:
            if not self._take_preface(data):
                return events
            at = len(frames.PREFACE)
        if self._data is not None:
            at = self._on_more_data(self._data, data, at, events)
        while end - at >= HEADER_BYTES:
            word, flags, number = HEADER.unpack_from(data, at)
            size, kind = word >> 8, word & 0xFF
            if size > self.limits.frame_bytes:
                raise self._lost(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            start = at + HEADER_BYTES
            is_whole = start + size <= end
            if kind == DATA and self._block is None and not self._awaits_settings:
                if flags & PADDED and not is_whole:
                    break
                at = self._on_data(number & MAX_31, flags, data, start, size, now, events)
            elif is_whole:
                at = start + size
                self._on_frame(kind, flags, number & MAX_31, data[start:at], now, events)
            else:
                break
        if at < end:
            self._rest = data[at:]
        return events

    def _lost(self, code: ErrorCode, words: str) -> ConnectionLost:
        self.leave(code, words)
        return ConnectionLost(code, words)

    def _take_preface(self, data: bytes) -> bool:
        preface = frames.PREFACE
        if data[: len(preface)] != preface[: len(data)]:
            raise self._lost(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2")
        self._awaits_preface = len(data) < len(preface)
        if self._awaits_preface:
            self._rest = data
        return not self._awaits_preface

    def _spend(self, now: float) -> None:
        """Counts a frame that brings nothing."""
        limits = self.limits
        self._budget = min(limits.burst, self._budget + (now - self._budget_at) * limits.per_second) - 1
        self._budget_at = now
        if self._budget < 0:
            raise self._lost(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that bring nothing")

    def _on_data(
        self, number: int, flags: int, data: bytes, start: int, size: int, now: float, events: list[Event]
    ) -> int:
        """Takes a frame, or as much of it as has come; returns where that ends."""
        self._window -= size
        self._credit += size
        if self._window < 0:
            raise self._lost(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window of the connection")
        if self._credit > self.limits.connection_window_bytes >> 1:
            self.outlet.frame(frames.window_update(0, self._credit))
            self._window += self._credit
            self._credit = 0
        stream = self.streams.get(number)
        if stream is None or stream.ended_there:
            self._on_stray(number, now)
            stream = None
        else:
            stream.receive_window -= size
            stream.credit += size
            if stream.receive_window < 0:
                raise self._lost(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window of the stream")
        end = start + size
        padding = 0
        if flags & PADDED:
            if not size or data[start] >= size:
                raise self._lost(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
            padding = data[start]
            start += 1
        if start == end - padding and not flags & END_STREAM:
            self._spend(now)
        if end > len(data):
            self._data = _Data(stream, end - start, bool(flags & END_STREAM))
            return self._on_more_data(self._data, data, start, events)
        if stream is not None:
            self._on_message_bytes(stream, data, start, end - padding, events)
            self._on_data_end(stream, bool(flags & END_STREAM), events)
        return end

    def _on_more_data(self, frame: _Data, data: bytes, start: int, events: list[Event]) -> int:
        """Goes on with a frame; returns where what there is of it ends."""
        end = min(len(data), start + frame.left_bytes)
        frame.left_bytes -= end - start
        if frame.stream is not None:
            self._on_message_bytes(frame.stream, data, start, end, events)
        if not frame.left_bytes:
            self._data = None
            if frame.stream is not None and frame.stream.id in self.streams:
                self._on_data_end(frame.stream, frame.is_last, events)
        return end

    def _on_data_end(self, stream: Stream, is_last: bool, events: list[Event]) -> None:
        if is_last:
            self._on_end(stream, events)
        elif not stream.held:
            self._give_back(stream)

    def _give_back(self, stream: Stream) -> None:
        if stream.credit > self.limits.stream_window_bytes >> 1 and not stream.ended_there:
            self.outlet.frame(frames.window_update(stream.id, stream.credit))
            stream.receive_window += stream.credit
            stream.credit = 0

    def _on_message_bytes(self, stream: Stream, data: bytes, start: int, end: int, events: list[Event]) -> None:
        if stream.prefix:
            data = stream.prefix + data[start:end]
            start, end, stream.prefix = 0, len(data), b""
        while start < end and not stream.ignored:
            if stream.body is not None:
                start = self._on_body(stream, stream.body, data, start, end, events)
                continue
            if end - start < PREFIX_BYTES:
                stream.prefix = data[start:end]
                return
            compressed, size = PREFIX.unpack_from(data, start)
            if compressed or size > self.limits.message_bytes:
                self._refuse(stream, compressed, size, events)
                return
            start += PREFIX_BYTES
            if size <= end - start:
                events.append(Message(stream, data[start : start + size]))
                start += size
            else:
                stream.body, stream.missing_bytes = [], size

    def _on_body(
        self, stream: Stream, body: list[bytes | memoryview], data: bytes, start: int, end: int, events: list[Event]
    ) -> int:
        """Goes on with a message; returns where what there is of it ends."""
        end = min(end, start + stream.missing_bytes)
        piece = memoryview(data)[start:end]
        # a view keeps all of the data, which must not be much more than is counted
        body.append(piece if len(piece) > len(data) >> 2 else bytes(piece))
        stream.body_bytes += len(piece)
        stream.missing_bytes -= len(piece)
        self._partial_bytes += len(piece)
        if not stream.missing_bytes:
            self._drop_body(stream)
            events.append(Message(stream, b"".join(body)))
        elif self._partial_bytes > self.limits.partial_bytes:
            events.append(Refused(stream, True, "too many messages of this connection have come in part"))
            self._ignore(stream)
        return end

    def _refuse(self, stream: Stream, compressed: int, size: int, events: list[Event]) -> None:
        if compressed:
            words = "compressed messages are not taken"
        else:
            words = f"a message of {size} bytes: at most {self.limits.message_bytes} are taken"
        events.append(Refused(stream, not compressed, words))
        self._ignore(stream)

    def _on_end(self, stream: Stream, events: list[Event]) -> None:
        stream.ended_there = True
        if (stream.prefix or stream.body is not None) and not stream.ignored:
            events.append(Refused(stream, False, "the stream ended within a message"))
            self._ignore(stream)
        events.append(Ended(stream))
        if stream.ended_here:
            self._forget(stream)

    def _on_stray(self, number: int, now: float) -> None:
        self._check_opened(number)
        self._spend(now)

    def _check_opened(self, number: int) -> None:
        """Frames of a stream that is over may be under way; of one that never was they may not."""
        is_ours = number % 2 == (1 if self._is_client else 0)
        if number == 0 or number > (self._opened_here if is_ours else self._opened_there):
            raise self._lost(ErrorCode.PROTOCOL_ERROR, f"a frame of stream {number}, which was never opened")

    def _on_frame(self, kind: int, flags: int, number: int, payload: bytes, now: float, events: list[Event]) -> None:
        if self._block is not None:
            if kind != frames.CONTINUATION or number != self._block[0]:
                raise self._lost(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted")
            self._on_continuation(flags, payload, now, events)
            return
        if self._awaits_settings:
            if kind != frames.SETTINGS or flags & ACK:
                raise self._lost(ErrorCode.PROTOCOL_ERROR, "the first frame does not bring settings")
            self._awaits_settings = False
        match kind:
            case frames.HEADERS:
                self._on_headers(flags, number, payload, now, events)
            case frames.WINDOW_UPDATE:
                self._on_window_update(number, payload, events)
            case frames.RST_STREAM:
                self._on_reset(number, payload, now, events)
            case frames.SETTINGS:
                self._on_settings(flags, number, payload, now, events)
            case frames.PING:
                self._on_ping(flags, number, payload, now)
            case frames.GOAWAY:
                self._on_goaway(number, payload, now, events)
            case frames.PUSH_PROMISE | frames.CONTINUATION:
                raise self._lost(ErrorCode.PROTOCOL_ERROR, f"a frame of kind {kind}")
            case _:
                self._spend(now)

    def _on_headers(self, flags: int, number: int, payload: bytes, now: float, events: list[Event]) -> None:
        if number == 0:
            raise self._lost(ErrorCode.PROTOCOL_ERROR, "headers of no stream")
        start, end = 0, len(payload)
        if flags & PADDED:
            start, end = 1, end - (payload[0] if payload else 0)
        if flags & frames.WITH_PRIORITY:
            start += 5
        if start > end:
            raise self._lost(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
        if len(payload) > HEADER_LIST_BYTES_MAX:
            raise self._lost(ErrorCode.ENHANCE_YOUR_CALM, f"a header block of {len(payload)} bytes")
        if flags & END_HEADERS:
            self._on_block(number, flags, payload[start:end], now, events)
        else:
            self._block = (number, flags, [payload[start:end]])

    def _on_continuation(self, flags: int, payload: bytes, now: float, events: list[Event]) -> None:
        assert self._block is not None
        number, first_flags, pieces = self._block
        pieces.append(payload)
        if len(pieces) > self.limits.continuations or sum(map(len, pieces)) > HEADER_LIST_BYTES_MAX:
            raise self._lost(ErrorCode.ENHANCE_YOUR_CALM, "a header block without end")
        if flags & END_HEADERS:
            self._block = None
            self._on_block(number, first_flags, b"".join(pieces), now, events)

    def _on_block(self, number: int, flags: int, block: bytes, now: float, events: list[Event]) -> None:
        try:
            headers = self._decoder.decode(block)
        except BadHeaders as error:
            raise self._lost(ErrorCode.COMPRESSION_ERROR, str(error)) from None
        stream = self.streams.get(number)
        if stream is None:
            if self._is_client or number <= self._opened_there:
                self._on_stray(number, now)
                return
            stream = self._accept(number, now)
            if stream is None:
                return
        elif stream.ended_there or not (self._is_client or flags & END_STREAM):
            raise self._lost(ErrorCode.PROTOCOL_ERROR, "headers after the end of a stream, or in its middle")
        events.append(Headers(stream, headers))
        if flags & END_STREAM:
            self._on_end(stream, events)

    def _accept(self, number: int, now: float) -> Stream | None:
        if number % 2 == 0:
            raise self._lost(ErrorCode.PROTOCOL_ERROR, f"a client cannot open stream {number}")
        self._opened_there = number
        if self._leaving or len(self.streams) >= self.limits.streams:
            self._spend(now)
            self.outlet.frame(frames.rst_stream(number, ErrorCode.REFUSED_STREAM))
            return None
        stream = self.streams[number] = Stream(number, self.outlet.stream_window, self.limits.stream_window_bytes)
        return stream

    def _on_window_update(self, number: int, payload: bytes, events: list[Event]) -> None:
        self._check_size(payload, WORD.size)
        grown = WORD.unpack(payload)[0] & MAX_31
        stream = self.streams.get(number)
        if number == 0:
            try:
                events += self._drained(self.outlet.connection_grew(grown))
            except ValueError as error:
                raise self._lost(ErrorCode.FLOW_CONTROL_ERROR, str(error)) from None
        elif stream is None:
            self._check_opened(number)
        else:
            try:
                if self.outlet.stream_grew(stream, grown):
                    events += self._drained((stream,))
            except ValueError:
                self.reset(stream, ErrorCode.FLOW_CONTROL_ERROR)
                events.append(Reset(stream, ErrorCode.FLOW_CONTROL_ERROR))

    def _on_reset(self, number: int, payload: bytes, now: float, events: list[Event]) -> None:
        self._check_size(payload, WORD.size)
        stream = self.streams.get(number)
        if stream is None:
            self._on_stray(number, now)
        else:
            self._spend(now)
            self._forget(stream)
            events.append(Reset(stream, WORD.unpack(payload)[0]))

    def _on_settings(self, flags: int, number: int, payload: bytes, now: float, events: list[Event]) -> None:
        if number or len(payload) % frames.SETTING.size or (flags & ACK and payload):
            raise self._lost(ErrorCode.FRAME_SIZE_ERROR, "settings of a wrong form")
        self._spend(now)
        if flags & ACK:
            return
        for key, value in frames.SETTING.iter_unpack(payload):
            self._take_setting(key, value, events)
        self.outlet.frame(frames.frame(frames.SETTINGS, ACK, 0))

    def _take_setting(self, key: int, value: int, events: list[Event]) -> None:
        match key:
            case Setting.INITIAL_WINDOW_SIZE:
                self._set_stream_window(value, events)
            case Setting.MAX_FRAME_SIZE:
                if not FRAME_BYTES_DEFAULT <= value < 1 << 24:
                    raise self._lost(ErrorCode.PROTOCOL_ERROR, f"frames of {value} bytes")
                self.outlet.set_frame_bytes(min(value, self.limits.frame_bytes))
            case Setting.MAX_CONCURRENT_STREAMS if self._is_client:
                self.streams_max = value
            case Setting.ENABLE_PUSH if value > 1:
                raise self._lost(ErrorCode.PROTOCOL_ERROR, "push is either on or off")

    def _set_stream_window(self, value: int, events: list[Event]) -> None:
        if value > MAX_31:
            raise self._lost(ErrorCode.FLOW_CONTROL_ERROR, f"a window of {value} bytes")
        grown, self.outlet.stream_window = value - self.outlet.stream_window, value
        for stream in list(self.streams.values()):
            try:
                if grown and self.outlet.stream_grew(stream, grown):
                    events += self._drained((stream,))
            except ValueError as error:
                raise self._lost(ErrorCode.FLOW_CONTROL_ERROR, str(error)) from None

    def _on_ping(self, flags: int, number: int, payload: bytes, now: float) -> None:
        self._check_size(payload, 8)
        if number:
            raise self._lost(ErrorCode.PROTOCOL_ERROR, "a ping of a stream")
        # clients measure their bandwidth by pings while they are being answered
        if self.outlet.has_answered:
            self.outlet.has_answered = False
        else:
            self._spend(now)
        if not flags & ACK:
            self.outlet.frame(frames.frame(frames.PING, ACK, 0, payload))

    def _on_goaway(self, number: int, payload: bytes, now: float, events: list[Event]) -> None:
        if number or len(payload) < frames.GOAWAY_HEAD.size:
            raise self._lost(ErrorCode.PROTOCOL_ERROR, "a farewell of a wrong form")
        self._spend(now)
        last, code = frames.GOAWAY_HEAD.unpack_from(payload)
        words = payload[frames.GOAWAY_HEAD.size :].decode(errors="replace")
        events.append(Leaving(last & MAX_31, code, words))

    def _check_size(self, payload: bytes, size: int) -> None:
        if len(payload) != size:
            raise self._lost(ErrorCode.FRAME_SIZE_ERROR, f"{len(payload)} bytes instead of {size}")
