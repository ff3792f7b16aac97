"""Parts an expression into tokens.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from steersman.cluster.api.cel.errors import Issue
from steersman.cluster.api.cel.values import Uint

_QUOTED = (
    r"""\"\"\"(?:\\[\s\S]|[^\\])*?\"\"\"|'''(?:\\[\s\S]|[^\\])*?'''"""
    r"""|"(?:\\.|[^\\"\n\r])*"|'(?:\\.|[^\\'\n\r])*'"""
)
_STRING = rf"[bB]?(?:{_QUOTED})"
_RAW = r"""[bB]?[rR][bB]?(?:\"\"\"[\s\S]*?\"\"\"|'''[\s\S]*?'''|"[^"\n\r]*"|'[^'\n\r]*')"""
_TOKEN = re.compile(
    rf"""(?P<space>[ \t\r\n\f]+|//[^\n]*)
    |(?P<raw>{_RAW})
    |(?P<string>{_STRING})
    |(?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
    |(?P<uint>(?:0x[0-9a-fA-F]+|\d+)[uU])
    |(?P<int>0x[0-9a-fA-F]+|\d+)
    |(?P<ident>[_a-zA-Z][_a-zA-Z0-9]*)
    |(?P<escaped>`[a-zA-Z0-9_.\-/ ]+`)
    |(?P<op>==|!=|<=|>=|&&|\|\||[-+*/%!<>?:.,()\[\]{{}}])""",
    re.VERBOSE,
)
RESERVED = frozenset(
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\?\"'`])|[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|([\s\S]?))"
)


@dataclass(frozen=True, slots=True)
class Token:
    """Args: kind: `ident`, `literal`, `op` or `end`; text: as written; value: of a literal."""

    kind: str
    text: str
    offset: int
    value: Any = None


class SyntaxIssue(Exception):
    """The expression cannot be read."""

    def __init__(self, offset: int, text: str) -> None:
        self.issue = Issue(offset, f"Syntax error: {text}")
        super().__init__(text)


def tokens(source: str) -> list[Token]:
    """Returns the tokens, with one of kind `end` at last.

    Raises:
        SyntaxIssue
    """
    found: list[Token] = []
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            raise SyntaxIssue(at, f"token recognition error at: '{_unread(source, at)}'")
        kind, text = match.lastgroup or "", match[0]
        if kind in ("ident", "op"):
            found.append(Token(kind, text, at))
        elif kind == "escaped":
            found.append(Token("ident", text[1:-1], at))
        elif kind != "space":
            found.append(Token("literal", text, at, _value(kind, text, at)))
        at = match.end()
    found.append(Token("end", "<EOF>", at))
    return found


def _unread(source: str, at: int) -> str:
    """What the lexer looked at before it gave up: a text to the end of its line, or what might begin an operator."""
    if source[at] in "'\"":
        return source[at:].partition("\n")[0]
    return source[at : at + 2] if source[at] in "=&|" else source[at]


def _value(kind: str, text: str, at: int) -> Any:
    match kind:
        case "int":
            return int(text, 16 if text[:2] == "0x" else 10)
        case "uint":
            number = int(text[:-1], 16 if text[:2] == "0x" else 10)
            if number >= 2**64:
                raise SyntaxIssue(at, "invalid uint literal")
            return Uint(number)
        case "float":
            return float(text)
    return _text(text, at)


def _text(text: str, at: int) -> str | bytes:
    start = min(index for index in (text.find("'"), text.find('"')) if index >= 0)
    prefix, body = text[:start].lower(), text[start:]
    size = 3 if body[:3] in ("'''", '"""') and len(body) >= 6 else 1
    body = body[size:-size]
    if "b" in prefix:
        return body.encode() if "r" in prefix else _bytes(body, at)
    return body if "r" in prefix else _ESCAPE.sub(lambda found: _char(found, at), body)


def _char(found: re.Match[str], at: int) -> str:
    plain, hexa, short, long, octal, _wrong = found.groups()
    if plain is not None:
        return _ESCAPES.get(plain, plain)
    digits = hexa or short or long
    code = int(digits, 16) if digits else int(octal, 8) if octal else 0x110000
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise SyntaxIssue(at, "invalid unicode code point" if digits else "unable to unescape string")
    return chr(code)


def _bytes(body: str, at: int) -> bytes:
    out, end = b"", 0
    for found in _ESCAPE.finditer(body):
        char = _char(found, at)
        raw = found[2] is not None or found[5] is not None
        out += body[end : found.start()].encode() + (char.encode("latin-1") if raw else char.encode())
        end = found.end()
    return out + body[end:].encode()
