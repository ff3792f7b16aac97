"""What headers of a call mean, and the headers that are sent."""

from __future__ import annotations

import hpack
import pytest
from grpc import StatusCode

from steersman.actors.rpc.h2 import heads
from steersman.actors.rpc.h2.headers import encode
from steersman.actors.rpc.h2.heads import AnswerHead, RequestHead

GOOD = {
    b":method": b"POST",
    b":scheme": b"https",
    b":path": b"/a.B/C",
    b":authority": b"here",
    b"te": b"trailers",
    b"content-type": b"application/grpc+proto",
}


def head(**changes: bytes | None) -> RequestHead:
    fields = GOOD | {name.replace("_", "-").replace("--", ":").encode(): value for name, value in changes.items()}  # type: ignore[dict-item]
    return heads.request_head([(name, value) for name, value in fields.items() if value is not None])


REQUESTS = {
    "plain": ({}, RequestHead("/a.B/C")),
    "metadata": ({"one": b"1"}, RequestHead("/a.B/C", (("one", "1"),))),
    "bytes": ({"one_bin": b"/wA"}, RequestHead("/a.B/C", (("one-bin", b"\xff\0"),))),
    "bytes that are none": ({"one_bin": b"/"}, RequestHead("/a.B/C", (("one-bin", b""),))),
    "hours": ({"grpc_timeout": b"2H"}, RequestHead("/a.B/C", (), 7200.0)),
    "milliseconds": ({"grpc_timeout": b"1500m"}, RequestHead("/a.B/C", (), 1.5)),
    "time of no unit": ({"grpc_timeout": b"15"}, RequestHead(refusal=400)),
    "time too long": ({"grpc_timeout": b"123456789S"}, RequestHead(refusal=400)),
    "no path": ({"__path": None}, RequestHead(refusal=400)),
    "a path of another form": ({"__path": b"*"}, RequestHead(refusal=400)),
    "no method": ({"__method": None}, RequestHead(refusal=400)),
    "another method": ({"__method": b"GET"}, RequestHead(refusal=405)),
    "another content": ({"content_type": b"application/json"}, RequestHead(refusal=415)),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_headers_of_a_call_say_what_is_asked(name: str) -> None:
    changes, expected = REQUESTS[name]
    assert head(**changes) == expected


ANSWERS = {
    "begun": ({b":status": b"200", b"content-type": b"application/grpc"}, AnswerHead(None)),
    "good": ({b"grpc-status": b"0", b"k": b"v"}, AnswerHead(StatusCode.OK, "", (("k", "v"),))),
    "refused": ({b"grpc-status": b"5", b"grpc-message": b"50%25 %C3%BC"}, AnswerHead(StatusCode.NOT_FOUND, "50% ü")),
    "a status of no meaning": ({b"grpc-status": b"99"}, AnswerHead(StatusCode.UNKNOWN)),
    "a status that is none": ({b"grpc-status": b"x"}, AnswerHead(StatusCode.UNKNOWN)),
    "a proxy's": ({b":status": b"503"}, AnswerHead(StatusCode.UNAVAILABLE, "the answer has HTTP status 503")),
    "a web server's": (
        {b":status": b"200", b"content-type": b"text/html"},
        AnswerHead(StatusCode.UNKNOWN, "the answer has HTTP status 200"),
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_headers_of_an_answer_say_how_it_went(name: str) -> None:
    fields, expected = ANSWERS[name]
    assert heads.answer_head(list(fields.items())) == expected


@pytest.mark.parametrize("words", ["", "plain", "50 % of it", "ü\n\x7f", "x" * 5000])
def test_what_is_sent_can_be_read(words: str) -> None:
    block = heads.trailers(StatusCode.DATA_LOSS, words, (("one", "1"), ("two-bin", b"\xff\0")))
    fields = [(bytes(name), bytes(value)) for name, value in hpack.Decoder().decode(block, raw=True)]
    assert heads.answer_head(fields) == AnswerHead(StatusCode.DATA_LOSS, words, (("one", "1"), ("two-bin", b"\xff\0")))


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 300, 20_000])
def test_strings_of_any_length_are_encoded(size: int) -> None:
    fields = [(b"k", b"v" * size)]
    assert [tuple(row) for row in hpack.Decoder().decode(encode(fields), raw=True)] == fields
