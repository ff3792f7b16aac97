"""What Go's reader of JSON says; the sentences are those of encoding/json's own tests, and the kinds of them."""

from __future__ import annotations

import pytest

from steersman.cluster.api.jsonfaults import fault

END = "unexpected end of JSON input"
CASES = {
    b"": END, b"  ": END, b"{": END, b'{"a"': END, b'{"a":': END, b'{"a":1': END, b"[1": END, b'"a': END, b"tru": END,
    b"-": END, b"1.": END, b"1e": END, b'"\\': END, b'"\\u12': END,
    b'{"X": "foo", "Y"}': "invalid character '}' after object key",
    b"[1, 2, 3+]": "invalid character '+' after array element",
    b'{"X":12x}': "invalid character 'x' after object key:value pair",
    b"[2, 3": END,
    b'{"a":1,}': "invalid character '}' looking for beginning of object key string",
    b"{'a':1}": "invalid character '\\'' looking for beginning of object key string",
    b"{,}": "invalid character ',' looking for beginning of object key string",
    b"[,]": "invalid character ',' looking for beginning of value",
    b"[1,]": "invalid character ']' looking for beginning of value",
    b"nope": "invalid character 'o' in literal null (expecting 'u')",
    b"truth": "invalid character 't' in literal true (expecting 'e')",
    b"falsy": "invalid character 'y' in literal false (expecting 'e')",
    b"-x": "invalid character 'x' in numeric literal",
    b"01": "invalid character '1' after top-level value",
    b"1.x": "invalid character 'x' after decimal point in numeric literal",
    b"1e+x": "invalid character 'x' in exponent of numeric literal",
    b'"a\nb"': "invalid character '\\n' in string literal",
    b'"a\x01b"': "invalid character '\\x01' in string literal",
    b'"\\x"': "invalid character 'x' in string escape code",
    b'"\\u12g4"': "invalid character 'g' in \\u hexadecimal character escape",
    b"\xff": "invalid character 'ÿ' looking for beginning of value",
    b"\x80": "invalid character '\\u0080' looking for beginning of value",
    b'"': END,
    b'{} "': "invalid character '\"' after top-level value",
}  # fmt: skip


@pytest.mark.parametrize("text", CASES, ids=repr)
def test_what_is_wrong_with_a_text_is_told_in_gos_words(text: bytes) -> None:
    assert fault(text) == CASES[text]


@pytest.mark.parametrize("text", [b"1", b' {"a": [1, -0.5e-7, "\\u00e9", true, null, {}, []]} ', b'"\xff"'], ids=repr)
def test_nothing_is_said_of_a_text_that_go_reads(text: bytes) -> None:
    assert fault(text) is None
