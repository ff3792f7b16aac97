"""What is wrong with a text that is no JSON, in the words of Go's reader, which clients and their tests know.

Decides only what to say: the text has been refused by a faster reader before.

Source: encoding/json/scanner.go
"""

from __future__ import annotations

import re

#: pieces of a text that are looked at: what is wrong further on is not worth the time
_PIECES_MAX = 20_000
_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*')
_HEX = re.compile(rb"[0-9a-fA-F]*")
_WHOLE = re.compile(rb"-?(?:0|[1-9][0-9]*)?")
_DIGITS = re.compile(rb"[0-9]*")
_LITERALS = {b"t": b"true", b"f": b"false", b"n": b"null"}
_END = "unexpected end of JSON input"


class _Fault(Exception):
    """Where reading stops."""


def fault(body: bytes) -> str | None:
    """Returns what Go's reader says of a text; None when it has nothing to say, or too much was to be looked at."""
    open_: list[bytes] = []
    at, pieces, wants = 0, 0, "value"
    try:
        while pieces < _PIECES_MAX:
            pieces += 1
            at = _SPACE.match(body, at).end()  # type: ignore[union-attr]
            char = body[at : at + 1]
            if wants == "end":
                if char:
                    raise _Fault(_invalid(char, "after top-level value"))
                return None
            if not char:
                return _END
            at, wants = _step(body, at, char, wants, open_)
    except _Fault as found:
        return str(found)
    return None


def _step(body: bytes, at: int, char: bytes, wants: str, open_: list[bytes]) -> tuple[int, str]:
    """Reads one piece; returns where it ends and what is to follow."""
    match wants:
        case "key" | "first key":
            if char == b"}" and wants == "first key":
                return _closed(at, open_)
            if char != b'"':
                raise _Fault(_invalid(char, "looking for beginning of object key string"))
            return _string(body, at), "colon"
        case "colon":
            if char != b":":
                raise _Fault(_invalid(char, "after object key"))
            return at + 1, "value"
        case "more":
            inside = open_[-1]
            if char == b",":
                return at + 1, "key" if inside == b"{" else "value"
            if char == (b"}" if inside == b"{" else b"]"):
                return _closed(at, open_)
            raise _Fault(_invalid(char, "after object key:value pair" if inside == b"{" else "after array element"))
    if char == b"]" and wants == "first value":
        return _closed(at, open_)
    if char in (b"{", b"["):
        open_.append(char)
        return at + 1, "first key" if char == b"{" else "first value"
    return _scalar(body, at, char), "more" if open_ else "end"


def _closed(at: int, open_: list[bytes]) -> tuple[int, str]:
    open_.pop()
    return at + 1, "more" if open_ else "end"


def _scalar(body: bytes, at: int, char: bytes) -> int:
    if char == b'"':
        return _string(body, at)
    if char in _LITERALS:
        return _literal(body, at, _LITERALS[char])
    if char == b"-" or char.isdigit():
        return _number(body, at)
    raise _Fault(_invalid(char, "looking for beginning of value"))


def _string(body: bytes, at: int) -> int:
    at = _STRING.match(body, at).end()  # type: ignore[union-attr]
    char = body[at : at + 1]
    if char == b'"':
        return at + 1
    if char == b"\\":
        at += 1
        char = body[at : at + 1]
        if char == b"u":
            at = _HEX.match(body, at + 1).end()  # type: ignore[union-attr]
            raise _Fault(_invalid(body[at : at + 1], "in \\u hexadecimal character escape"))
        raise _Fault(_invalid(char, "in string escape code"))
    raise _Fault(_invalid(char, "in string literal"))


def _literal(body: bytes, at: int, word: bytes) -> int:
    for place, expected in enumerate(word):
        char = body[at + place : at + place + 1]
        if char != bytes((expected,)):
            raise _Fault(_invalid(char, f"in literal {word.decode()} (expecting {chr(expected)!r})"))
    return at + len(word)


def _number(body: bytes, at: int) -> int:
    end = _WHOLE.match(body, at).end()  # type: ignore[union-attr]
    if body[end - 1 : end] == b"-":
        raise _Fault(_invalid(body[end : end + 1], "in numeric literal"))
    if body[end : end + 1] == b".":
        end = _some_digits(body, end + 1, "after decimal point in numeric literal")
    if body[end : end + 1] in (b"e", b"E"):
        end += 2 if body[end + 1 : end + 2] in (b"+", b"-") else 1
        end = _some_digits(body, end, "in exponent of numeric literal")
    return end


def _some_digits(body: bytes, at: int, where: str) -> int:
    end = _DIGITS.match(body, at).end()  # type: ignore[union-attr]
    if end == at:
        raise _Fault(_invalid(body[at : at + 1], where))
    return end


_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\a": "\\a", "\b": "\\b", "\f": "\\f",
            "\v": "\\v"}  # fmt: skip


def _invalid(char: bytes, where: str) -> str:
    if not char:
        return _END
    text = char.decode("latin-1")
    if text in _ESCAPES:
        text = _ESCAPES[text]
    elif not text.isprintable():
        text = f"\\x{ord(text):02x}" if ord(text) < 0x80 else f"\\u{ord(text):04x}"
    return f"invalid character '{text}' {where}"
