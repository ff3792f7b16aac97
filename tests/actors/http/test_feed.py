"""A feed sends at once where there is room, keeps what there is none for, and ends in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from steersman.actors.http.feed import PIECE_BYTES, TURN_BYTES, Feed


class Page:
    """A sink with room for so many pieces."""

    def __init__(self, room: int) -> None:
        self.room, self.written, self.ended = room, [], False

    def write(self, piece: bytes) -> bool:
        assert self.room > 0, "written to without room"
        self.room -= 1
        self.written.append(piece)
        return self.room > 0

    def end(self) -> None:
        self.ended = True


def feed(first: tuple[bytes, ...] = (), waiting_max: int = 10) -> tuple[Feed, list[str]]:
    closed: list[str] = []
    return Feed(iter(first), lambda: closed.append("closed"), waiting_max), closed


def test_what_is_pushed_goes_out_at_once_and_in_order() -> None:
    subject, closed = feed((b"a", b"b"))
    page = Page(10)
    subject.push(b"c")
    subject.attach(page)
    subject.push(b"d")
    subject.push(b"e")
    assert page.written == [b"a", b"b", b"c", b"d", b"e"] and not page.ended and not closed
    subject.end()
    assert page.ended and closed == ["closed"]


def test_a_reader_without_room_gets_the_rest_later() -> None:
    subject, _ = feed((b"a",))
    page = Page(2)
    subject.attach(page)
    for piece in (b"b", b"c", b"d"):
        subject.push(piece)
    assert page.written == [b"a", b"b"]
    subject.end()
    assert not page.ended
    page.room = 5
    subject.resume()
    assert page.written == [b"a", b"b", b"cd"] and page.ended


def test_a_reader_for_whom_too_much_waits_is_cut_off() -> None:
    subject, closed = feed(waiting_max=2)
    page = Page(1)
    subject.attach(page)
    for piece in (b"a", b"b", b"c", b"d", b"e"):
        subject.push(piece)
    assert subject.ended and page.written == [b"a"]
    page.room = 1
    subject.resume()
    assert page.written == [b"a"] and page.ended and closed == ["closed"]


def test_what_waits_is_joined_only_up_to_a_bound() -> None:
    subject, _ = feed()
    half = bytes(PIECE_BYTES // 2)
    for _ in range(5):
        subject.push(half)
    page = Page(10)
    subject.attach(page)
    assert [len(piece) // len(half) for piece in page.written] == [2, 2, 1]


async def test_a_long_beginning_lets_others_have_their_turn() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(PIECE_BYTES)

    subject = Feed(endless(), lambda: None, 10)
    page = Page(1000)
    subject.attach(page)
    a_turn = TURN_BYTES // PIECE_BYTES
    assert len(page.written) == a_turn
    subject.push(b"later")
    assert len(page.written) == a_turn
    await asyncio.sleep(0)
    assert len(page.written) == 2 * a_turn
    subject.close()
    await asyncio.sleep(0)
    assert len(page.written) == 2 * a_turn


async def test_it_can_be_read_as_an_iterator() -> None:
    subject, closed = feed((b"a",))
    pieces = []

    async def read() -> None:
        async for piece in subject:
            pieces.append(piece)

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    subject.push(b"b")
    subject.push(b"c")
    await asyncio.sleep(0)
    subject.end()
    await reading
    assert pieces == [b"a", b"bc"] and closed == ["closed"]


@pytest.mark.parametrize("when", ["before the first piece", "while it waits"])
async def test_leaving_it_closes_it_once(when: str) -> None:
    subject, closed = feed()
    if when == "while it waits":
        reading = asyncio.ensure_future(subject.__anext__())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    await subject.aclose()
    await subject.aclose()
    assert closed == ["closed"]
