"""The connection as a value: bytes in, events out, and what ends it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.actors.rpc.h2 import frames, heads
from steersman.actors.rpc.h2.connection import Connection
from steersman.actors.rpc.h2.events import Drained, Ended, Event, Headers, Leaving, Message, Refused, Reset
from steersman.actors.rpc.h2.frames import ErrorCode, Setting, frame
from steersman.actors.rpc.h2.headers import encode
from steersman.actors.rpc.h2.limits import ConnectionLost, Limits

BLOCK = heads.request("/a.B/C", "here", scheme="http", metadata=())
HELLO = frames.PREFACE + frames.settings({})
END = frames.END_HEADERS | frames.END_STREAM


def server(**limits: int) -> Connection:
    return Connection(is_client=False, parse=heads.request_head, limits=Limits(**limits))


def client(**limits: int) -> Connection:
    return Connection(is_client=True, parse=heads.answer_head, limits=Limits(**limits))


def message(body: bytes, compressed: int = 0) -> bytes:
    return frames.PREFIX.pack(compressed, len(body)) + body


def headers(stream: int = 1, flags: int = frames.END_HEADERS, block: bytes = BLOCK) -> bytes:
    return frame(frames.HEADERS, flags, stream, block)


def output(side: Connection) -> bytes:
    return b"".join(side.outlet.take())


def told(events: Sequence[Event]) -> list[tuple[object, ...]]:
    """What happened, without the streams' objects."""
    rows: list[tuple[object, ...]] = []
    for event in events:
        match event:
            case Headers():
                rows.append((event.stream.id, event.headers))
            case Message():
                rows.append((event.stream.id, event.data))
            case Leaving():
                rows.append(("leaving", event.last, event.words))
            case _:
                rows.append((event.stream.id, type(event).__name__))
    return rows


def exchange(one: Connection, other: Connection) -> tuple[list[Event], list[Event]]:
    """Lets two sides talk until neither has anything to say."""
    ones: list[Event] = []
    others: list[Event] = []
    while one.outlet.has_output or other.outlet.has_output:
        others += other.receive(output(one), 0.0)
        ones += one.receive(output(other), 0.0)
    return ones, others


def test_a_call_goes_through_and_both_sides_forget_it() -> None:
    caller, callee = client(), server()
    stream = caller.open(BLOCK)
    caller.outlet.message(stream, b"question")
    caller.end(stream)
    _, asked = exchange(caller, callee)
    head = heads.RequestHead("/a.B/C")
    assert told(asked) == [(1, head), (1, b"question"), (1, "Ended")]
    answering = asked[0].stream  # type: ignore[union-attr]
    callee.outlet.headers(answering, heads.ANSWER)
    callee.outlet.message(answering, b"answer")
    callee.end(answering, heads.OK)
    answered, _ = exchange(caller, callee)
    assert told(answered)[1:] == [(1, b"answer"), (1, heads.answer_head([(b"grpc-status", b"0")])), (1, "Ended")]
    assert not caller.streams
    assert not callee.streams


#: what a peer must not send, after its hello: (bytes, code of the farewell)
BROKEN = {
    "not the preface": (None, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", ErrorCode.PROTOCOL_ERROR),
    "no settings first": (None, frames.PREFACE + headers(), ErrorCode.PROTOCOL_ERROR),
    "data before settings": (None, frames.PREFACE + frame(frames.DATA, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "a frame too long": (HELLO, frames.HEADER.pack((1 << 20) << 8, 0, 1), ErrorCode.FRAME_SIZE_ERROR),
    "data of no stream": (HELLO, frame(frames.DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "data of a stream never opened": (HELLO, frame(frames.DATA, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
    "headers of no stream": (HELLO, headers(0), ErrorCode.PROTOCOL_ERROR),
    "a stream of the server's": (HELLO, headers(2), ErrorCode.PROTOCOL_ERROR),
    "headers in the middle": (HELLO, headers() + headers(), ErrorCode.PROTOCOL_ERROR),
    "headers after the end": (HELLO, headers(1, END) + headers(1, END), ErrorCode.PROTOCOL_ERROR),
    "padding longer than data": (HELLO + headers(), frame(0, frames.PADDED, 1, b"\x05abc"), ErrorCode.PROTOCOL_ERROR),
    "padding longer than headers": (
        HELLO,
        frame(frames.HEADERS, frames.PADDED | frames.END_HEADERS, 1, b"\xffabc"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a block that is none": (HELLO, headers(block=b"\xff\xff\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
    "a block of a huge list": (
        HELLO,
        headers(block=b"\x40\x01a\x7f\x81\x1e" + b"x" * 4096 + b"\xbe" * 1000),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "a block too long": (HELLO, headers(block=b"\x88" * 17_000), ErrorCode.ENHANCE_YOUR_CALM),
    "a block interrupted": (HELLO, headers(1, 0) + frame(frames.PING, 0, 0, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "a block of another stream": (HELLO, headers(1, 0) + frame(9, 4, 3), ErrorCode.PROTOCOL_ERROR),
    "a block without end": (HELLO, headers(1, 0) + frame(9, 0, 1, b"\x88") * 9, ErrorCode.ENHANCE_YOUR_CALM),
    "a block that grows": (HELLO, headers(1, 0) + frame(9, 0, 1, b"\x88" * 9000) * 2, ErrorCode.ENHANCE_YOUR_CALM),
    "a continuation of nothing": (HELLO, frame(frames.CONTINUATION, 4, 1), ErrorCode.PROTOCOL_ERROR),
    "a promise": (HELLO, frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "a ping too short": (HELLO, frame(frames.PING, 0, 0, b"x"), ErrorCode.FRAME_SIZE_ERROR),
    "a ping of a stream": (HELLO, frame(frames.PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "settings of a stream": (HELLO, frame(frames.SETTINGS, 0, 1), ErrorCode.FRAME_SIZE_ERROR),
    "settings too short": (HELLO, frame(frames.SETTINGS, 0, 0, b"x"), ErrorCode.FRAME_SIZE_ERROR),
    "settings in an acknowledgement": (HELLO, frame(frames.SETTINGS, 1, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
    "a window too large": (
        HELLO,
        frames.settings({Setting.INITIAL_WINDOW_SIZE: 1 << 31}),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "frames too small": (HELLO, frames.settings({Setting.MAX_FRAME_SIZE: 1}), ErrorCode.PROTOCOL_ERROR),
    "push that is a number": (HELLO, frames.settings({Setting.ENABLE_PUSH: 2}), ErrorCode.PROTOCOL_ERROR),
    "a window that grows by nothing": (HELLO, frames.window_update(0, 0), ErrorCode.FLOW_CONTROL_ERROR),
    "a window that overflows": (HELLO, frames.window_update(0, frames.MAX_31), ErrorCode.FLOW_CONTROL_ERROR),
    "a window of a stream never opened": (HELLO, frames.window_update(3, 1), ErrorCode.PROTOCOL_ERROR),
    "a window too short": (HELLO, frame(frames.WINDOW_UPDATE, 0, 0, b"x"), ErrorCode.FRAME_SIZE_ERROR),
    "a reset of a stream never opened": (HELLO, frames.rst_stream(1, 0), ErrorCode.PROTOCOL_ERROR),
    "a farewell too short": (HELLO, frame(frames.GOAWAY, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "windows of streams overflow": (
        HELLO + headers() + frames.window_update(1, 1 << 30),
        frames.settings({Setting.INITIAL_WINDOW_SIZE: frames.MAX_31}),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_peer_that_breaks_the_protocol_is_told_and_left(name: str) -> None:
    before, data, code = BROKEN[name]
    side = server()
    if before:
        side.receive(before, 0.0)
    output(side)
    with pytest.raises(ConnectionLost) as caught:
        side.receive(data, 0.0)
    assert caught.value.code is code
    farewell = output(side)
    assert frames.GOAWAY_HEAD.unpack_from(farewell, farewell.rindex(b"\x07\0\0\0\0\0") + 6)[1] == code


#: what costs a peer's patience when it comes without end, after its hello
FLOODS = {
    "pings": (b"", frame(frames.PING, 0, 0, bytes(8))),
    "settings": (b"", frames.settings({})),
    "empty data": (headers(), frame(frames.DATA, 0, 1)),
    "priorities": (b"", frame(frames.PRIORITY, 0, 1, bytes(5))),
    "frames of no known kind": (b"", frame(0xEE, 0, 0)),
    "resets of a stream that is gone": (headers() + frames.rst_stream(1, 8), frames.rst_stream(1, 8)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_the_connection_and_a_trickle_does_not(name: str) -> None:
    before, data = FLOODS[name]
    side = server(burst=100, per_second=10)
    side.receive(HELLO + before, 0.0)
    with pytest.raises(ConnectionLost) as caught:
        side.receive(data * 101, 0.0)
    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM
    side = server(burst=100, per_second=10)
    side.receive(HELLO + before, 0.0)
    for second in range(200):
        side.receive(data * 9, float(second))


def test_streams_opened_and_reset_without_end_end_the_connection() -> None:
    side = server(burst=100, per_second=10)
    side.receive(HELLO, 0.0)
    with pytest.raises(ConnectionLost):
        side.receive(b"".join(headers(n) + frames.rst_stream(n, 8) for n in range(1, 400, 2)), 0.0)


def test_pings_that_measure_a_bandwidth_in_use_cost_nothing() -> None:
    side = server(burst=10, per_second=0)
    stream = side.receive(HELLO + headers(), 0.0)[0].stream  # type: ignore[union-attr]
    for _ in range(100):
        side.outlet.message(stream, b"x")
        side.receive(frame(frames.PING, 0, 0, bytes(8)), 0.0)


def test_streams_beyond_the_limit_are_refused_and_the_others_go_on() -> None:
    side = server(streams=2)
    events = side.receive(HELLO + headers(1) + headers(3) + headers(5), 0.0)
    assert [row[0] for row in told(events)] == [1, 3]
    assert output(side).endswith(frames.rst_stream(5, ErrorCode.REFUSED_STREAM))
    assert told(side.receive(frame(0, 1, 3, message(b"x")) + frame(0, 0, 5, b"x"), 0.0)) == [(3, b"x"), (3, "Ended")]


def test_a_side_that_leaves_refuses_new_streams() -> None:
    side = server()
    side.receive(HELLO + headers(1), 0.0)
    side.leave()
    assert side.receive(headers(3), 0.0) == []
    assert frames.goaway(1, 0) in (sent := output(side))
    assert sent.endswith(frames.rst_stream(3, ErrorCode.REFUSED_STREAM))


#: what makes a message unwelcome: (bytes of data, flags, limits) to whether it was too large
UNWELCOME = {
    "too large": (message(b"x" * 11), 0, {"message_bytes": 10}, True),
    "said to be too large": (frames.PREFIX.pack(0, 1 << 30), 0, {}, True),
    "compressed": (message(b"x", compressed=1), 0, {}, False),
    "cut off": (message(b"xyz")[:-1], frames.END_STREAM, {}, False),
    "cut off in its prefix": (b"\0\0", frames.END_STREAM, {}, False),
    "one of too many in part": (message(b"x" * 100)[:-1], 0, {"partial_bytes": 50}, True),
}


@pytest.mark.parametrize("name", UNWELCOME)
def test_an_unwelcome_message_ends_its_stream_alone(name: str) -> None:
    data, flags, limits, too_large = UNWELCOME[name]
    side = server(**limits)
    events = side.receive(HELLO + headers() + headers(3) + frame(0, flags, 1, data), 0.0)
    refused = [event for event in events if isinstance(event, Refused)]
    assert [(event.stream.id, event.too_large) for event in refused] == [(1, too_large)]
    if not flags:
        assert side.receive(frame(0, 0, 1, message(b"more")), 0.0) == []
    assert told(side.receive(frame(0, 0, 3, message(b"other")), 0.0)) == [(3, b"other")]


def test_more_data_than_the_windows_ends_the_connection() -> None:
    for limits in ({"stream_window_bytes": 70_000}, {"connection_window_bytes": 70_000}):
        side = server(frame_bytes=1 << 20, **limits)
        side.receive(HELLO + headers(), 0.0)
        with pytest.raises(ConnectionLost) as caught:
            side.receive(frame(0, 0, 1, message(b"x" * 70_000)), 0.0)
        assert caught.value.code is ErrorCode.FLOW_CONTROL_ERROR


def test_a_stream_on_hold_gives_no_room_until_it_is_released() -> None:
    side = server(stream_window_bytes=100_000, connection_window_bytes=1 << 20)
    stream = side.receive(HELLO + headers(), 0.0)[0].stream  # type: ignore[union-attr]
    output(side)
    side.hold(stream)
    side.receive(frame(0, 0, 1, message(b"x" * 60_000)), 0.0)
    assert not side.outlet.has_output
    side.release(stream)
    assert output(side) == frames.window_update(1, 60_005)


def test_a_message_waits_for_the_window_of_its_stream_and_others_pass_it() -> None:
    caller, callee = client(), server(stream_window_bytes=70_000, message_bytes=1 << 30)
    exchange(caller, callee)
    stopped, free = caller.open(BLOCK), caller.open(BLOCK)
    events = callee.receive(output(caller), 0.0)
    there = events[0].stream  # type: ignore[union-attr]
    callee.hold(there)
    caller.outlet.message(stopped, b"x" * 100_000)
    caller.outlet.message(stopped, b"y")
    caller.end(stopped)
    caller.outlet.message(free, b"z")
    _, came = exchange(caller, callee)
    assert told(came) == [(3, b"z")]
    assert stopped.queued_bytes == 100_000 + 5 + 6 - 70_000
    callee.release(there)
    went, came = exchange(caller, callee)
    assert told(came) == [(1, b"x" * 100_000), (1, b"y"), (1, "Ended")]
    assert [type(event) for event in went] == [Drained]


def test_all_streams_share_the_window_of_the_connection() -> None:
    caller, callee = client(), server()
    output(callee)
    caller.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 1 << 20}), 0.0)
    streams = [caller.open(BLOCK) for _ in range(4)]
    for stream in streams:
        caller.outlet.message(stream, b"x" * 50_000)
    sent = len(output(caller))
    assert 65_535 <= sent < 70_000
    drained = caller.receive(frames.window_update(0, 1 << 20), 0.0)
    assert {event.stream.id for event in drained if isinstance(event, Drained)} == {3, 5, 7}


def test_a_smaller_window_than_what_was_sent_stops_a_stream() -> None:
    caller = client()
    caller.receive(frames.settings({}), 0.0)
    stream = caller.open(BLOCK)
    caller.outlet.message(stream, b"x" * 1000)
    caller.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}), 0.0)
    caller.outlet.message(stream, b"y")
    assert (stream.send_window, stream.queued_bytes) == (-1005, 6)
    events = caller.receive(frames.window_update(1, 1011), 0.0)
    assert [type(event) for event in events] == [Drained]


def test_nothing_but_control_goes_out_while_the_socket_is_full() -> None:
    caller = client()
    stream = caller.open(BLOCK)
    output(caller)
    caller.outlet.pause()
    caller.outlet.message(stream, b"x")
    caller.ping()
    assert output(caller) == frame(frames.PING, 0, 0, bytes(8))
    assert [type(event) for event in caller.resume()] == [Drained]
    assert output(caller) == frame(0, 0, 1, message(b"x"))


def test_a_stream_that_is_reset_takes_what_waits_with_it() -> None:
    caller = client()
    caller.receive(frames.settings({}), 0.0)
    stream = caller.open(BLOCK)
    caller.outlet.message(stream, b"x" * 100_000)
    events = caller.receive(frames.rst_stream(1, ErrorCode.CANCEL), 0.0)
    assert events == [Reset(stream, ErrorCode.CANCEL)]
    assert (stream.queued_bytes, caller.outlet.queued_bytes, caller.streams) == (0, 0, {})
    output(caller)
    caller.receive(frames.window_update(0, 1 << 20) + frames.window_update(1, 5), 0.0)
    assert not caller.outlet.has_output


def test_an_answer_before_the_end_of_the_question_breaks_it_off() -> None:
    side = server()
    stream = side.receive(HELLO + headers(), 0.0)[0].stream  # type: ignore[union-attr]
    side.end(stream, heads.OK)
    assert output(side).endswith(frames.rst_stream(1, ErrorCode.NO_ERROR))
    assert side.receive(frame(0, 0, 1, message(b"late")), 0.0) == []


def test_a_farewell_says_up_to_where_calls_were_looked_at() -> None:
    side = client()
    events = side.receive(frames.settings({}) + frames.goaway(7, 0, "bye"), 0.0)
    assert told(events) == [("leaving", 7, "bye")]


def test_repeated_blocks_are_read_right_when_the_table_changes() -> None:
    side = server()
    side.receive(HELLO, 0.0)
    plain = b"\x83\x86\x04\x01/" + encode([(b"content-type", b"application/grpc")])
    first, second = (plain + b"\x40\x01k" + bytes((len(value),)) + value for value in (b"one", b"two"))
    newest = plain + b"\xbe"
    seen = []
    for number, block in enumerate((first, newest, newest, second, newest, newest)):
        events = side.receive(headers(2 * number + 1, END, block), 0.0)
        seen.append(events[0].headers.metadata)  # type: ignore[union-attr]
    assert [row[0][1] for row in seen] == ["one", "one", "one", "two", "two", "two"]


PADDED_DATA = frame(0, frames.PADDED, 5, b"\x03" + message(b"padded") + bytes(3))
PRIORITIZED = frame(
    frames.HEADERS, END | frames.WITH_PRIORITY | frames.PADDED, 7, b"\x02" + bytes(5) + BLOCK + bytes(2)
)
STORY = (
    HELLO
    + headers(1)
    + frame(0, 0, 1, message(b"a") + message(b"") + message(b"bc" * 500)[:300])
    + frame(frames.HEADERS, 0, 3, BLOCK[:7])
    + frame(frames.CONTINUATION, 0, 3, BLOCK[7:20])
    + frame(frames.CONTINUATION, frames.END_HEADERS, 3, BLOCK[20:])
    + frame(0, 0, 1, message(b"bc" * 500)[300:])
    + headers(5)
    + PADDED_DATA
    + PRIORITIZED
    + frame(frames.PING, 0, 0, bytes(8))
    + frame(0, frames.END_STREAM, 1)
    + frames.rst_stream(3, 8)
)


@settings(max_examples=150)
@given(st.lists(st.integers(1, len(STORY) - 1), max_size=12))
def test_what_is_told_does_not_depend_on_how_the_bytes_are_cut(cuts: list[int]) -> None:
    whole, parts = server(), server()
    expected = told(whole.receive(STORY, 0.0))
    bounds = [0, *sorted(set(cuts)), len(STORY)]
    events = [event for start, end in itertools.pairwise(bounds) for event in parts.receive(STORY[start:end], 0.0)]
    assert told(events) == expected
    assert output(parts) == output(whole)


@settings(max_examples=150)
@given(st.binary(max_size=200), st.integers(0, len(STORY)))
def test_no_bytes_make_anything_but_an_event_or_an_end(data: bytes, at: int) -> None:
    side = server()
    try:
        side.receive(STORY[:at] + data + STORY[at:], 0.0)
    except ConnectionLost:
        assert side.outlet.has_output


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=300)), max_size=30),
    st.integers(1, 400),
    st.integers(16_384, 20_000),
)
def test_messages_arrive_whole_and_in_order_through_any_window(
    sent: list[tuple[int, bytes]], window: int, frame_bytes: int
) -> None:
    caller = client()
    callee = server(stream_window_bytes=window, frame_bytes=frame_bytes)
    exchange(caller, callee)
    streams = [caller.open(BLOCK) for _ in range(3)]
    for number, body in sent:
        caller.outlet.message(streams[number], body)
    for stream in streams:
        caller.end(stream)
    _, came = exchange(caller, callee)
    for number, stream in enumerate(streams):
        bodies = [event.data for event in came if isinstance(event, Message) and event.stream.id == stream.id]
        assert bodies == [body for to, body in sent if to == number]
    assert sum(isinstance(event, Ended) for event in came) == 3
    assert callee._partial_bytes == 0
