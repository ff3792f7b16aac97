"""Selectors as clients write them, and what is said of those that are none: the words of k8s.io/apimachinery."""

from __future__ import annotations

import pytest

from steersman.cluster.meta.selectors import SelectorError, parse_fields, parse_labels

LABELS = {"app": "web", "tier": "a", "n": "7", "empty": ""}

CHOSEN = {
    "": True,
    "app": True,
    "!app": False,
    "app=web": True,
    " app == web , tier in (a,b)": True,
    "app!=web": False,
    "none!=x": True,
    "none notin (x)": True,
    "tier notin (a)": False,
    "empty=": True,
    "empty in ()": True,
    "empty in (,a)": True,
    "app in (,)": False,
    "n>6": True,
    "n<7": False,
    "app>1": False,
    "in in (in)": False,
    "example.com/x notin (y),app": True,
}


@pytest.mark.parametrize("text", CHOSEN)
def test_a_label_selector_chooses(text: str) -> None:
    selector = parse_labels(text)
    assert selector.matches(LABELS) is CHOSEN[text] and selector.matcher()(LABELS) is CHOSEN[text]
    many = parse_labels(",".join([text, *(f"!absent-{n}" for n in range(9))]).lstrip(","))
    assert many.matches(LABELS) is CHOSEN[text] and many.matcher()(LABELS) is CHOSEN[text]


_KEY = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
NO_LABELS = {
    "=x": "found '=', expected: !, identifier, or 'end of string'",
    "!": "unable to parse requirement: found '', expected: identifier",
    "a,": "found '', expected: identifier after ','",
    "a b": "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
    "!a=b": "found '=', expected: ',' or 'end of string'",
    "a=b c": "found 'c', expected: ',' or 'end of string'",
    "a==(": "unable to parse requirement: found '(', expected: identifier",
    "a in b": "unable to parse requirement: found 'b' expected: '('",
    "a in (=": "unable to parse requirement: found '=', expected: ',', ')' or identifier",
    "a in (b": "unable to parse requirement: found '', expected: ',' or ')'",
    "a in (b,": "unable to parse requirement: found '', expected: ',', or identifier",
    "a>x": "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, "
    "the value must be an integer",
    "-a": f'unable to parse requirement: <nil>: Invalid value: "-a": {_KEY}',
    "a=-b": f'unable to parse requirement: values[0][a]: Invalid value: "-b": {_VALUE}',
}


@pytest.mark.parametrize("text", NO_LABELS)
def test_what_is_no_label_selector_is_told(text: str) -> None:
    with pytest.raises(SelectorError) as raised:
        parse_labels(text)
    assert str(raised.value) == NO_LABELS[text]


def test_a_field_selector_is_read_with_its_escapes() -> None:
    assert parse_fields(r"b!=2,a=1,,c==x\,y\=z\\").requirements == (
        ("a", True, "1"), ("b", False, "2"), ("c", True, r"x,y=z" + "\\"),
    )  # fmt: skip


NO_FIELDS = {
    "a": "invalid selector: 'a'; can't understand 'a'",
    "x=1,a": "invalid selector: 'x=1,a'; can't understand 'a'",
    "a=b=c": "invalid field selector: unescaped character in value: 61",
    r"a=\z": r"invalid field selector: invalid escape sequence: \z",
    "a=\\": "invalid field selector: invalid escape sequence: \\",
}


@pytest.mark.parametrize("text", NO_FIELDS)
def test_what_is_no_field_selector_is_told(text: str) -> None:
    with pytest.raises(SelectorError) as raised:
        parse_fields(text)
    assert str(raised.value) == NO_FIELDS[text]
